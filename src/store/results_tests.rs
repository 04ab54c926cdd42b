//! That another store than a local folder fits behind [`Results`]: a result moves from one
//! to the other and back by its operations alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Stands for a store on another machine: it has no paths.
#[derive(Default)]
struct Memory {
    records: RefCell<BTreeMap<Key, Record>>,
    blobs: RefCell<BTreeMap<ContentHash, Vec<u8>>>,
}

impl Memory {
    fn damaged(file: &TreeFile, why: &str) -> StoreError {
        StoreError::Damaged {
            hash: file.hash,
            path: PathBuf::new(),
            why: why.to_owned(),
        }
    }
}

impl Results for Memory {
    fn lookup_state(&self, key: &Key) -> Lookup {
        match self.records.borrow().get(key) {
            Some(record) => Lookup::Hit(record.clone()),
            None => Lookup::Absent,
        }
    }

    fn put(&self, record: &Record) -> Result<(), StoreError> {
        if let Some(missing) = self.missing(record).into_iter().next() {
            return Err(missing.why);
        }
        self.records.borrow_mut().insert(record.key, record.clone());
        Ok(())
    }

    fn missing<'r>(&self, record: &'r Record) -> Vec<Missing<'r>> {
        let blobs = self.blobs.borrow();
        let outputs = record.outputs.iter();
        outputs
            .flat_map(|(output, tree)| tree.files.iter().map(move |file| (output, file)))
            .filter(|(_, file)| !blobs.contains_key(&file.hash))
            .map(|(output, file)| Missing {
                output,
                file,
                why: Self::damaged(file, "it is missing"),
            })
            .collect()
    }

    fn blob(&self, file: &TreeFile) -> Result<Box<dyn Read + '_>, StoreError> {
        match self.blobs.borrow().get(&file.hash) {
            Some(content) => Ok(Box::new(std::io::Cursor::new(content.clone()))),
            None => Err(Self::damaged(file, "it is missing")),
        }
    }

    fn put_blob(&self, file: &TreeFile, content: &mut dyn Read) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        if ContentHash::of(&bytes) != file.hash {
            return Err(Self::damaged(file, "other content"));
        }
        self.blobs.borrow_mut().insert(file.hash, bytes);
        Ok(())
    }
}

/// Copies a result; gives the number of blobs that were not there yet.
fn copy(key: &Key, from: &dyn Results, to: &dyn Results) -> Result<usize, StoreError> {
    let record = from.lookup(key).expect("a result");
    let missing = to.missing(&record);
    for Missing { file, .. } in &missing {
        to.put_blob(file, &mut from.blob(file)?)?;
    }
    to.put(&record)?;
    Ok(missing.len())
}

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    (dir, store)
}

/// A result with two files.
fn result(store: &Store) -> Record {
    let job = store.job_dir("t").unwrap();
    fs::write(job.output().join("weights"), "1 2 3").unwrap();
    fs::write(job.output().join("config"), "{}").unwrap();
    let tree = store.ingest_whole(&job).unwrap();
    let record = Record {
        format: RECORD_FORMAT,
        key: Key::from_bytes([1; 32]),
        kind: "train".to_owned(),
        preimage: json!({}),
        outputs: BTreeMap::from([("model".to_owned(), tree)]),
        figures: json!({}),
        provenance: json!({}),
    };
    store.put(&record).unwrap();
    record
}

#[test]
fn a_result_moves_to_another_store_and_back() {
    let ((_a, here), away, (_b, there)) = (store(), Memory::default(), store());
    let record = result(&here);
    assert_eq!(copy(&record.key, &here, &away).unwrap(), 2);
    assert_eq!(
        copy(&record.key, &here, &away).unwrap(),
        0,
        "both are there"
    );
    assert_eq!(copy(&record.key, &away, &there).unwrap(), 2);
    assert_eq!(there.lookup(&record.key), Some(record.clone()));
    let folder = there.materialise(&record.outputs["model"]).unwrap();
    assert_eq!(fs::read_to_string(folder.join("weights")).unwrap(), "1 2 3");
}

#[test]
fn a_record_is_refused_before_its_blobs_are_there() {
    let ((_a, here), (_b, there)) = (store(), store());
    let record = result(&here);
    assert!(there.put(&record).unwrap_err().is_damage());
    assert_eq!(there.lookup_state(&record.key), Lookup::Absent);
    let missing = there.missing(&record);
    let names: Vec<_> = missing.iter().map(|m| (m.output, &*m.file.path)).collect();
    assert_eq!(names, [("model", "config"), ("model", "weights")]);
}

#[test]
fn a_blob_of_other_content_is_not_kept() {
    let ((_a, here), (_b, there)) = (store(), store());
    let record = result(&here);
    let file = &record.outputs["model"].files[0];
    let error = there.put_blob(file, &mut &b"{]"[..]).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(there.blob(file).err().unwrap().is_damage());
    assert_eq!(there.missing(&record).len(), 2);
}
