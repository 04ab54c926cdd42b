//! [`Record`]: what a key produced, kept as `records/ab/<key>.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Key, Store, StoreError, Tree, atomic};

/// Version of [`Record`] on disk; a record of another version is a miss.
///
/// History: 1: the fields below.
pub const RECORD_FORMAT: u32 = 1;

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
    /// Figures of the outcome, in order.
    pub summary: Vec<(String, Value)>,
    /// Who, when, where, with what: never looked at when deciding.
    pub provenance: Value,
}

impl Store {
    /// What was kept under `key`.
    ///
    /// A record that is missing, unreadable, of another format or under another
    /// key, or that names a blob that is missing or of another size, is `None`.
    ///
    /// # Errors
    /// None at present; the result is there for what a caller could mend.
    pub fn lookup(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let Ok(bytes) = std::fs::read(self.record_path(key)) else {
            return Ok(None);
        };
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else {
            return Ok(None);
        };
        let usable = record.format == RECORD_FORMAT
            && record.key == *key
            && record
                .outputs
                .values()
                .all(|tree| tree.is_sound() && self.has_blobs(tree));
        Ok(usable.then_some(record))
    }

    /// Keeps a record, whole or not at all. Its blobs must be there: ingest first.
    ///
    /// # Errors
    /// When a blob that it names is missing, or the cache cannot be written.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        for file in record.outputs.values().flat_map(|tree| &tree.files) {
            self.check_blob_size(file)?;
        }
        let path = self.record_path(&record.key);
        if let Some(dir) = path.parent() {
            atomic::make_dir(dir)?;
            atomic::sync_parent(dir)?;
        }
        let mut text = serde_json::to_vec_pretty(record)
            .map_err(std::io::Error::other)
            .map_err(StoreError::io("write", &path))?;
        text.push(b'\n');
        atomic::write(&self.tmp_dir(), &path, &text)
    }

    fn record_path(&self, key: &Key) -> PathBuf {
        let hex = key.to_string();
        self.root()
            .join("records")
            .join(&hex[..2])
            .join(format!("{hex}.json"))
    }
}

/// The record in a file's bytes; `None` when it is of another format. Otherwise
/// why it cannot be used, for people.
pub(super) fn decode(bytes: &[u8], key: &Key) -> Result<Option<Record>, &'static str> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let format = serde_json::from_slice::<Format>(bytes).map_err(|_| "it is no record")?;
    if format.format != RECORD_FORMAT {
        return Ok(None);
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|_| "it is no record")?;
    if record.key != *key {
        return Err("the record is one of another key");
    }
    if !record.outputs.values().all(Tree::is_sound) {
        return Err("the record's list of files does not match its hash");
    }
    Ok(Some(record))
}
