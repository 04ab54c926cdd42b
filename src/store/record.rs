//! [`Record`]: what a key produced, kept as `records/ab/<key>.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ContentHash, Key, Store, Tree, plain};

/// Version of [`Record`] on disk; a record of a newer version is a miss.
///
/// History: 1: the fields below. 2: on disk followed by `checksum`, BLAKE3 of the
/// record's compact JSON, in which the file is written. 3: files may be `executable`.
/// 4: `figures` in place of `summary`.
pub const RECORD_FORMAT: u32 = 4;
/// The oldest version that is read; a record of an older one is a miss.
const OLDEST_FORMAT: u32 = 2;

/// What a key produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// What it is kept under.
    pub key: Key,
    /// Name of the stage kind.
    pub kind: String,
    /// What the key is the hash of, for people and for explaining reruns.
    pub preimage: Value,
    /// Output name -> its files.
    pub outputs: BTreeMap<String, Tree>,
    /// Figures of the result, for people: never looked at when deciding.
    #[serde(alias = "summary")]
    pub figures: Value,
    /// Who, when, where, with what: never looked at when deciding.
    pub provenance: Value,
}

/// What [`super::Results::lookup_state`] finds.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and it is taken apart at once"
)]
pub enum Lookup {
    /// It can be used.
    Hit(Record),
    /// There is none, or one of another format.
    Absent,
    /// There is one that cannot be used: why, for people. A miss all the same.
    Damaged(String),
}

impl Store {
    /// The record under a key, whether its blobs are there or not: to be shown, not
    /// used.
    pub fn record(&self, key: &Key) -> Option<Record> {
        let bytes = plain::read(&self.record_file(key), plain::LARGE).ok()?;
        decode(&bytes, key).ok().flatten()
    }

    /// Every record that can be read, in no order: to be shown, not used.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<> {
        let store = self.clone();
        self.keys("")
            .into_iter()
            .filter_map(move |key| store.record(&key))
    }

    /// Keys with a record that begin with these hex digits.
    pub fn keys(&self, beginning: &str) -> Vec<Key> {
        let entries = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries(self.root().join("records"))
            .filter(|shelf| {
                let name = shelf.file_name();
                let name = name.to_string_lossy();
                name.starts_with(beginning) || beginning.starts_with(&*name)
            })
            .flat_map(|shelf| entries(shelf.path()))
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let hex = name.strip_suffix(".json")?;
                hex.starts_with(beginning).then(|| hex.parse().ok())?
            })
            .collect()
    }

    /// Where the record of a key lies.
    pub(super) fn record_file(&self, key: &Key) -> PathBuf {
        let hex = key.to_string();
        self.root()
            .join("records")
            .join(&hex[..2])
            .join(format!("{hex}.json"))
    }
}

/// What stands before the checksum, which is the last field.
const CHECKSUM: &[u8] = b",\"checksum\":\"";
const AFTER_CHECKSUM: &[u8] = b"\"}\n";

/// The record's file: compact JSON with the checksum of what it is without it.
pub(super) fn encode(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(record)?;
    let checksum = ContentHash::of(&text).to_string();
    text.pop(); // the closing bracket
    text.extend_from_slice(CHECKSUM);
    text.extend_from_slice(checksum.as_bytes());
    text.extend_from_slice(AFTER_CHECKSUM);
    Ok(text)
}

/// The record in a file's bytes; `None` when it is of another format. Every byte
/// counts: a flipped bit anywhere makes it an error, which says why to people.
pub(super) fn decode(bytes: &[u8], key: &Key) -> Result<Option<Record>, &'static str> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let format = |text: &[u8]| {
        serde_json::from_slice::<Format>(text)
            .ok()
            .map(|found| found.format)
    };
    let Some(text) = checked(bytes) else {
        // Format 1 had no checksum.
        return if format(bytes) == Some(1) {
            Ok(None)
        } else {
            Err("the record does not match its checksum")
        };
    };
    if format(&text).is_some_and(|format| !(OLDEST_FORMAT..=RECORD_FORMAT).contains(&format)) {
        return Ok(None);
    }
    let record: Record =
        serde_json::from_slice(&text).map_err(|_| "the file holds no record of a stage")?;
    if record.key != *key {
        return Err("the record is one of another key");
    }
    if !record.outputs.values().all(Tree::is_sound) {
        return Err("the record's list of files does not match its hash");
    }
    Ok(Some(record))
}

/// The JSON without its checksum, if the checksum is that of it.
fn checked(bytes: &[u8]) -> Option<Vec<u8>> {
    const HEX: usize = 64;
    let rest = bytes.strip_suffix(AFTER_CHECKSUM)?;
    let (rest, checksum) = rest.split_at_checked(rest.len().checked_sub(HEX)?)?;
    let mut text = rest.strip_suffix(CHECKSUM)?.to_vec();
    text.push(b'}');
    // Compared as text: upper-case digits would be another byte.
    (ContentHash::of(&text).to_string().as_bytes() == checksum).then_some(text)
}
