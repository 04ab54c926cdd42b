//! [`Results`]: what a store of results does, wherever it lies. [`Store`] is the one in a
//! local folder; one that is shared or remote implements the same five operations.
//!
//! A result is moved between two stores by them alone: ask for the blobs that are missing,
//! put those, then put the record. The order is the promise that a record that is there
//! can be used.

use std::fs::File;
use std::io::{ErrorKind, Read};

use super::{Key, Lookup, Record, Store, StoreError, TreeFile, atomic, plain, record};

/// A blob that a record names and a store lacks.
#[derive(Debug)]
pub struct Missing<'r> {
    /// The output that holds the file.
    pub output: &'r str,
    /// The file; [`TreeFile::hash`] is the blob's.
    pub file: &'r TreeFile,
    /// What is wrong: it is not there, or has another size.
    pub why: StoreError,
}

/// A store of records by key and of blobs by content.
pub trait Results {
    /// The record under a key, with the reason if there is one that cannot be used.
    fn lookup_state(&self, key: &Key) -> Lookup;

    /// Keeps a record, whole or not at all. Its blobs must be there.
    ///
    /// # Errors
    /// When a blob that it names is missing, or the store cannot be written.
    fn put(&self, record: &Record) -> Result<(), StoreError>;

    /// The blobs of a record that are not there with their size, in its order. Reads no
    /// content.
    fn missing<'r>(&self, record: &'r Record) -> Vec<Missing<'r>>;

    /// Opens a blob for reading. What is read is not compared with its hash.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it is missing; otherwise why it cannot be read.
    fn blob(&self, file: &TreeFile) -> Result<Box<dyn Read + '_>, StoreError>;

    /// Keeps a blob, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the content does not have the hash of `file`; otherwise
    /// why it cannot be written.
    fn put_blob(&self, file: &TreeFile, content: &mut dyn Read) -> Result<(), StoreError>;

    /// The record under a key, if it can be used.
    ///
    /// A record that is missing, unreadable, of another format or under another
    /// key, or that names a blob that is missing or of another size, cannot.
    fn lookup(&self, key: &Key) -> Option<Record> {
        match self.lookup_state(key) {
            Lookup::Hit(record) => Some(record),
            Lookup::Absent | Lookup::Damaged(_) => None,
        }
    }
}

impl Results for Store {
    fn lookup_state(&self, key: &Key) -> Lookup {
        let bytes = match plain::read(&self.record_file(key), plain::LARGE) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Lookup::Absent,
            Err(e) => return Lookup::Damaged(format!("the record cannot be read: {e}")),
        };
        let record = match record::decode(&bytes, key) {
            Ok(Some(record)) => record,
            Ok(None) => return Lookup::Absent,
            Err(why) => return Lookup::Damaged(why.to_owned()),
        };
        match self.missing(&record).first() {
            None => Lookup::Hit(record),
            Some(Missing { output, file, why }) => Lookup::Damaged(format!(
                "the content of {} of output `{output}` is damaged: {}",
                file.path,
                match why {
                    StoreError::Damaged { why, .. } => why.clone(),
                    other => other.to_string(),
                }
            )),
        }
    }

    fn put(&self, record: &Record) -> Result<(), StoreError> {
        if let Some(missing) = self.missing(record).into_iter().next() {
            return Err(missing.why);
        }
        let path = self.record_file(&record.key);
        if let Some(dir) = path.parent() {
            atomic::make_dir_synced(dir)?;
        }
        let text = record::encode(record)
            .map_err(std::io::Error::other)
            .map_err(StoreError::io("write", &path))?;
        atomic::write(&self.tmp_dir(), &path, &text)
    }

    fn missing<'r>(&self, record: &'r Record) -> Vec<Missing<'r>> {
        let files = record
            .outputs
            .iter()
            .flat_map(|(output, tree)| tree.files.iter().map(move |file| (output, file)));
        files
            .filter_map(|(output, file)| {
                let why = self.check_blob_size(file).err()?;
                Some(Missing { output, file, why })
            })
            .collect()
    }

    fn blob(&self, file: &TreeFile) -> Result<Box<dyn Read + '_>, StoreError> {
        Ok(Box::new(self.open_blob(file)?))
    }

    fn put_blob(&self, file: &TreeFile, content: &mut dyn Read) -> Result<(), StoreError> {
        let path = self.blob_path(&file.hash);
        if let Some(dir) = path.parent() {
            atomic::make_dir_synced(dir)?;
        }
        let fill =
            |to: &mut File| std::io::copy(content, to).map_err(StoreError::io("write", &path));
        if !self.write_blob(&file.hash, fill)? {
            let why = "the content to be kept has another hash".to_owned();
            let hash = file.hash;
            return Err(StoreError::Damaged { hash, path, why });
        }
        // The blob's name is on disk before a record can name it.
        atomic::sync_parent(&path)
    }
}
