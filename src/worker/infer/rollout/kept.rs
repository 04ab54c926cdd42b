//! [`Kept`]: records of single queries, kept as they finish, so that a rollout
//! that is stopped goes on where it was, and one over more queries rolls out
//! only those that are new.

use std::path::PathBuf;

use genius::artifact::{QueryRecord, RolloutRecord};
use genius::protocol::{Context, Failure, Level};
use genius::store::{Key, Partials};

/// Version of the key and of what is kept under it.
///
/// History: 1: the stage's key without its queries, and the query; a line of
/// `rollouts.jsonl`.
const FORMAT: u32 = 1;
/// Domain of these keys, apart from every other use of BLAKE3.
const KEY_DOMAIN: &str = "genius 2026 rollout of one query";

/// What is kept of the queries of one policy under one set of parameters.
pub(super) struct Kept<'a> {
    context: &'a Context,
    /// None where the job names no place.
    place: Option<(Partials, Key)>,
    /// Whether what is there is not asked for.
    fresh: bool,
    /// Whether the warning that nothing can be kept was logged.
    warned: bool,
}

impl<'a> Kept<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        let place = context.job.partial.as_ref().and_then(|partial| {
            let files = Partials::new(&partial.dir, &context.job.scratch_dir);
            Some((files, partial.key.parse().ok()?))
        });
        Self {
            context,
            place,
            fresh: context.job.partial.as_ref().is_some_and(|p| p.fresh),
            warned: false,
        }
    }

    /// Where they lie, if anywhere.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        self.place.as_ref().map(|(files, _)| files.dir().to_owned())
    }

    /// Whether a query's record is there and whole.
    pub(super) fn has(&self, query: &QueryRecord) -> bool {
        self.bytes(query).is_some()
    }

    /// A query's record.
    pub(super) fn get(&self, query: &QueryRecord) -> Option<RolloutRecord> {
        let record: RolloutRecord = serde_json::from_slice(&self.bytes(query)?).ok()?;
        // Only a hash collision or a bug could make it another query's.
        (record.query_id == query.id && record.query == query.text).then_some(record)
    }

    fn bytes(&self, query: &QueryRecord) -> Option<Vec<u8>> {
        let (files, base) = self.place.as_ref().filter(|_| !self.fresh)?;
        files.get(&key(base, query))
    }

    /// Keeps a query's record. One that the engine could not serve is not kept: it
    /// may do better another time. That nothing can be kept is logged once, and harms nothing
    /// but a shard, whose result is what it keeps.
    ///
    /// # Errors
    /// When a shard's query cannot be kept.
    pub(super) fn put(
        &mut self,
        query: &QueryRecord,
        record: &RolloutRecord,
    ) -> Result<(), Failure> {
        let failed = |reason: &String| reason.starts_with("engine:");
        let Some((files, base)) = &self.place else {
            return Ok(());
        };
        if record.skipped.as_ref().is_some_and(failed) {
            return Ok(());
        }
        let put = match serde_json::to_vec(record) {
            Ok(mut line) => {
                line.push(b'\n');
                files
                    .put(&key(base, query), &line)
                    .map_err(|e| e.to_string())
            }
            Err(e) => Err(e.to_string()),
        };
        let Err(reason) = put else {
            return Ok(());
        };
        if let Some(shard) = self.context.job.shard {
            return Err(
                Failure::new(format!("{shard} cannot keep a finished query: {reason}"))
                    .hint("`shards` need a cache folder that can be written"),
            );
        }
        if !self.warned {
            self.warned = true;
            self.context.log(
                Level::Warn,
                format!(
                    "finished queries cannot be kept one by one ({reason}): if this stage is \
                     stopped, it begins anew"
                ),
            );
        }
        Ok(())
    }
}

/// What one query's record is kept under: `base` is of everything else.
fn key(base: &Key, query: &QueryRecord) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_DOMAIN);
    hasher.update(&FORMAT.to_le_bytes());
    hasher.update(b"b");
    hasher.update(base.as_bytes());
    for (tag, text) in [(b"i", &query.id), (b"t", &query.text)] {
        hasher.update(tag);
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Key::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_base_and_the_whole_query() {
        let query = |id: &str, text: &str| QueryRecord {
            id: id.into(),
            text: text.into(),
        };
        let (a, b) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let keys = [
            key(&a, &query("x", "yz")),
            key(&b, &query("x", "yz")),
            key(&a, &query("xy", "z")),
            key(&a, &query("x", "yz ")),
            key(&a, &query("", "xyz")),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(one), "{i}");
        }
        // Written down: if it changes, what everyone has kept is lost.
        assert_eq!(
            keys[0].to_string(),
            "13a93c5b70e23df76cfd3b704d0a0b4ee5eef3ebad42e24df87d23fad26e3b6a"
        );
    }
}
