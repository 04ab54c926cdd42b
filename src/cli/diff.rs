//! `genius diff`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::environment::Environment;
use super::pipeline_args::CacheArgs;
use super::{CliError, Terminal};
use crate::plan::{Earlier, Known};
use crate::store::{Key, Store};
use crate::text::one_line;

/// Show what differs between two keys, field by field.
///
/// Keys are listed by `genius cache ls`, by `run --json` and in the files of a run.
/// Those of failed stages are known too, as long as the folder of their run exists.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A key, or a prefix of one (6 digits or more).
    old: String,
    /// Another key.
    new: String,
    #[command(flatten)]
    cache: CacheArgs,
    /// Print JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// A key that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It has too few digits, or other characters.
    #[error("`{0}` is not a key: write 6 to 64 hex digits")]
    NoKey(String),
    /// Nothing has it.
    #[error("no result and no attempt has a key that begins with `{0}`")]
    Unknown(String),
    /// Several keys begin with it.
    #[error("{count} keys begin with `{text}`")]
    Ambiguous {
        /// As written.
        text: String,
        /// How many.
        count: usize,
    },
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoKey(_) | Self::Unknown(_) => "`genius cache ls` lists the keys of results",
            Self::Ambiguous { .. } => "give more digits",
        }
    }
}

/// Prints the difference.
///
/// # Errors
/// When a key is not known here.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let store = args.cache.existing(environment)?;
    let earlier = Earlier::new(&store, std::path::Path::new(""), None);
    let old = find(&store, &earlier, &args.old)?;
    let new = find(&store, &earlier, &args.new)?;
    let changes = old.compare(&new.preimage, &new.paths);
    if args.json {
        let changes: Vec<Value> = changes
            .iter()
            .map(|c| json!({ "path": c.path, "old": c.old, "new": c.new }))
            .collect();
        let difference = json!({ "old": old.key, "new": new.key, "changes": changes });
        terminal.json(&difference);
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for known in [&old, &new] {
        if !known.kept {
            let run = known.run_id.as_deref().unwrap_or("?");
            text.push_str(&format!(
                "(key {} has no result: it is from an attempt in run {run})\n",
                known.key.short()
            ));
        }
    }
    if old.preimage["kind"] != new.preimage["kind"] {
        text.push_str("(they are of stages of different kinds)\n");
    }
    for change in &changes {
        text.push_str(&one_line(&change.to_string()));
        text.push('\n');
    }
    if changes.is_empty() {
        text.push_str("nothing differs: the keys are equal\n");
    }
    terminal.data(text);
    Ok(ExitCode::SUCCESS)
}

fn find(store: &Store, earlier: &Earlier, text: &str) -> Result<Known, KeyError> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().all(|b| b.is_ascii_hexdigit());
    if !digits || !(6..=64).contains(&lower.len()) {
        return Err(KeyError::NoKey(text.to_owned()));
    }
    let mut keys: Vec<Key> = store.keys(&lower);
    keys.extend(earlier.started_keys(&lower));
    keys.sort_unstable();
    keys.dedup();
    match keys.as_slice() {
        [key] => earlier
            .known(*key)
            .ok_or_else(|| KeyError::Unknown(text.to_owned())),
        [] => Err(KeyError::Unknown(text.to_owned())),
        many => Err(KeyError::Ambiguous {
            text: text.to_owned(),
            count: many.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{RECORD_FORMAT, Record, Results};

    #[test]
    fn a_unique_prefix_of_a_key_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        for last in [1, 2] {
            let mut bytes = [0xab; 32];
            bytes[31] = last;
            let record = Record {
                format: RECORD_FORMAT,
                key: Key::from_bytes(bytes),
                kind: "score".to_owned(),
                preimage: json!({ "with": { "tau": last } }),
                outputs: BTreeMap::new(),
                figures: json!([]),
                provenance: Value::Null,
            };
            store.put(&record).unwrap();
        }
        let earlier = Earlier::new(&store, std::path::Path::new(""), None);
        let found = |text: &str| match find(&store, &earlier, text) {
            Ok(known) => known.preimage.to_string(),
            Err(e) => format!("{e}; {}", e.hint()),
        };
        let whole = format!("{}01", "AB".repeat(31));
        assert_eq!(found(&whole), r#"{"with":{"tau":1}}"#);
        insta::assert_snapshot!(found("ababab"), @"2 keys begin with `ababab`; give more digits");
        insta::assert_snapshot!(found("ababa"), @"`ababa` is not a key: write 6 to 64 hex digits; `genius cache ls` lists the keys of results");
        insta::assert_snapshot!(found("bababa"), @"no result and no attempt has a key that begins with `bababa`; `genius cache ls` lists the keys of results");
    }
}
