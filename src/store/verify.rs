//! [`VerifyReport`]: reads everything in a cache through its hash, names what is
//! broken and what that touches, and on request removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;
use serde_json::Value;

use super::inventory::{Content, Entry, Inode, Inventory, RecordFile, Run, inode, look};
use super::read::hash_file;
use super::sweep::remove;
use super::{ContentHash, Key, Store, StoreError, Tree, TreeFile, partial, walk};

/// Gives the key of a record's preimage; `None` if it is no preimage. The store
/// does not know what keys are made of.
pub type KeyOf<'a> = &'a dyn Fn(&Value) -> Option<Key>;

/// How far [`Store::verify`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes of blobs read so far.
    pub done_bytes: u64,
    /// Bytes of all blobs.
    pub total_bytes: u64,
}

/// What kind of thing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DamagedThing {
    /// A file under `blobs/`.
    Blob,
    /// A file under `records/`.
    Record,
    /// A folder under `trees/`.
    Tree,
    /// A file under `partial/`.
    Partial,
}

/// What `repair` did about something broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// It was removed.
    Removed,
    /// It was laid out again from its blobs.
    LaidOutAgain,
    /// It was mended or removed by someone else meanwhile.
    NothingLeft,
}

/// A result that something broken belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Touched {
    /// Key of its record.
    pub key: Key,
    /// The stage that made it, as far as that can be told.
    pub stage: Option<String>,
    /// The pipelines that use it.
    pub pipelines: Vec<PipelineName>,
}

/// A pipeline by name and file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PipelineName {
    /// Its name.
    pub name: String,
    /// Its file, as a run knew it.
    pub path: Option<PathBuf>,
}

/// Something broken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Damage {
    /// What it is.
    pub what: DamagedThing,
    /// Where it lies (or should).
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// Which results that concerns.
    pub touches: Vec<Touched>,
    /// What was done about it; `None` without `repair`.
    pub repaired: Option<Repair>,
}

/// What was read, and what of it is broken.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Number of blobs read.
    pub blobs: usize,
    /// Their size.
    pub blob_bytes: u64,
    /// Number of records read.
    pub records: usize,
    /// Number of laid-out trees read.
    pub trees: usize,
    /// Number of parts of results read.
    pub partials: usize,
    /// Records of other formats, of which nothing can be said.
    pub records_of_other_formats: usize,
    /// What is broken: blobs, then records, then trees, then parts of results.
    pub damage: Vec<Damage>,
    /// Records that `repair` removed, since they name something broken: their
    /// stages are computed again when they are next needed.
    pub forgotten: Vec<Touched>,
}

impl VerifyReport {
    /// Whether nothing is broken, or all of it was repaired.
    pub fn ok(&self) -> bool {
        self.damage.iter().all(|d| d.repaired.is_some())
    }
}

/// The blobs with the hashes that their content has; none for what is not a file.
type BlobsRead<'a> = BTreeMap<ContentHash, (&'a Entry<ContentHash>, Option<ContentHash>)>;

impl Store {
    /// Reads every blob, record and laid-out tree. With `repair`, broken blobs
    /// go, and the trees that hold them and the records that name them; a broken
    /// tree whose blobs are sound is laid out again.
    ///
    /// # Errors
    /// When something cannot be read at all, or (repairing) not removed.
    pub fn verify(
        &self,
        repair: bool,
        key_of: KeyOf<'_>,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<VerifyReport, StoreError> {
        let inventory = Inventory::read(self)?;
        let blobs = self.read_blobs(&inventory.blobs, progress)?;
        let mut found = Findings {
            index: Index::new(&inventory),
            report: VerifyReport {
                blobs: blobs.len(),
                blob_bytes: inventory.blobs.iter().map(|b| b.bytes).sum(),
                ..VerifyReport::default()
            },
            forget: BTreeSet::new(),
        };
        let bad = self.judge_blobs(&blobs, &inventory.records, repair, &mut found)?;
        self.judge_records(&inventory.records, &bad, key_of, repair, &mut found)?;
        self.judge_trees(&inventory, &blobs, &bad, repair, &mut found)?;
        judge_partials(&inventory.partials, repair, &mut found)?;
        Ok(found.report)
    }

    /// Hashes blobs side by side; one that vanished is left out.
    fn read_blobs<'a>(
        &self,
        blobs: &'a [Entry<ContentHash>],
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<BlobsRead<'a>, StoreError> {
        let total_bytes = blobs.iter().map(|b| b.bytes).sum();
        let done = Mutex::new(0u64);
        let read = walk::side_by_side(blobs, |blob| {
            let actual = if blob.is_file {
                match hash_file(&blob.path) {
                    Ok((hash, _)) => Some(hash),
                    Err(_) if look(&blob.path)?.is_none() => return Ok(None),
                    Err(e) => return Err(e),
                }
            } else {
                None
            };
            let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
            *done += blob.bytes;
            progress(VerifyProgress {
                done_bytes: *done,
                total_bytes,
            });
            Ok(Some(actual))
        })?;
        let read = blobs.iter().zip(read);
        Ok(read
            .filter_map(|(blob, read)| Some((blob.what, (blob, read?))))
            .collect())
    }

    /// The blobs that are broken: wrong in content, or named and missing.
    fn judge_blobs(
        &self,
        blobs: &BlobsRead<'_>,
        records: &[Entry<RecordFile>],
        repair: bool,
        found: &mut Findings<'_>,
    ) -> Result<BTreeSet<ContentHash>, StoreError> {
        let mut bad = BTreeMap::new();
        for (hash, (blob, actual)) in blobs {
            if *actual != Some(*hash) {
                let why = actual.map_or("it is not a file", |_| "its content has another hash");
                bad.insert(*hash, (why.to_owned(), Some(blob)));
            }
        }
        for file in records.iter().flat_map(|record| record.what.files()) {
            if !bad.contains_key(&file.hash)
                && let Err(StoreError::Damaged { why, .. }) = self.check_blob_size(file)
            {
                bad.insert(file.hash, (why, None));
            }
        }
        for (hash, (why, blob)) in &bad {
            let path = self.blob_path(hash);
            let repaired = match (repair, blob) {
                (false, _) => None,
                (true, Some(blob)) if blob.is_unchanged()? => Some(removed(&path)?),
                (true, Some(_)) => Some(Repair::NothingLeft),
                (true, None) => Some(Repair::NothingLeft),
            };
            let touches = found
                .index
                .that(|record| record.files().any(|file| file.hash == *hash));
            found.add(DamagedThing::Blob, path, why.clone(), touches, repaired);
        }
        Ok(bad.into_keys().collect())
    }

    fn judge_records(
        &self,
        records: &[Entry<RecordFile>],
        bad: &BTreeSet<ContentHash>,
        key_of: KeyOf<'_>,
        repair: bool,
        found: &mut Findings<'_>,
    ) -> Result<(), StoreError> {
        for file in records {
            found.report.records += 1;
            let why = match &file.what.content {
                Content::Older | Content::Newer { doubt: None, .. } => {
                    found.report.records_of_other_formats += 1;
                    continue;
                }
                Content::Newer {
                    doubt: Some(why), ..
                } => (*why).to_owned(),
                Content::Damaged(why) => why.clone(),
                Content::Record(record) => match key_of(&record.preimage) {
                    Some(key) if key == file.what.key => {
                        let names_bad = file.what.files().any(|f| bad.contains(&f.hash));
                        // The blob was reported; the record itself is sound.
                        if names_bad && repair {
                            remove(&file.path)?;
                            found.forget.insert(file.what.key);
                            found
                                .report
                                .forgotten
                                .push(found.index.touched(&file.what.key));
                        }
                        continue;
                    }
                    Some(key) => format!("its fingerprint has another key ({})", key.short()),
                    None => "its preimage is not a fingerprint".to_owned(),
                },
            };
            let repaired = if repair {
                found.forget.insert(file.what.key);
                Some(removed(&file.path)?)
            } else {
                None
            };
            let touches = vec![found.index.touched(&file.what.key)];
            found.add(
                DamagedThing::Record,
                file.path.clone(),
                why,
                touches,
                repaired,
            );
        }
        Ok(())
    }

    fn judge_trees(
        &self,
        inventory: &Inventory,
        blobs: &BlobsRead<'_>,
        bad: &BTreeSet<ContentHash>,
        repair: bool,
        found: &mut Findings<'_>,
    ) -> Result<(), StoreError> {
        // A link to a blob was read with the blob.
        let read: BTreeMap<Inode, ContentHash> = blobs
            .values()
            .filter_map(|(blob, actual)| Some((blob.inode, (*actual)?)))
            .collect();
        let mut known: BTreeMap<ContentHash, Tree> = BTreeMap::new();
        for file in &inventory.records {
            for tree in file.what.record().iter().flat_map(|r| r.outputs.values()) {
                known.entry(tree.hash).or_insert_with(|| tree.clone());
            }
        }
        for folder in &inventory.trees {
            let Some(files) = self.read_tree(folder, known.get(&folder.what), &read)? else {
                continue;
            };
            found.report.trees += 1;
            let why = match files {
                Ok(files) => {
                    let tree = Tree::new(files);
                    if tree.hash == folder.what {
                        continue;
                    }
                    difference(&tree, known.get(&folder.what))
                }
                Err(why) => why,
            };
            let touches = found.index.that(|file| file.names_tree(&folder.what));
            let repaired = if repair {
                let tree = known.get(&folder.what).filter(|tree| {
                    let sound = tree.files.iter().all(|f| !bad.contains(&f.hash));
                    let kept = touches.iter().any(|t| !found.forget.contains(&t.key));
                    sound && kept
                });
                Some(self.mend_tree(folder, tree)?)
            } else {
                None
            };
            found.add(
                DamagedThing::Tree,
                folder.path.clone(),
                why,
                touches,
                repaired,
            );
        }
        Ok(())
    }

    /// What a laid-out tree holds, or why it is no tree; `None` if it is gone.
    fn read_tree(
        &self,
        folder: &Entry<ContentHash>,
        wanted: Option<&Tree>,
        read: &BTreeMap<Inode, ContentHash>,
    ) -> Result<Option<Result<Vec<TreeFile>, String>>, StoreError> {
        let listed = match walk::list_plain(&folder.path) {
            Ok(listed) => listed,
            Err(_) if look(&folder.path)?.is_none() => return Ok(None),
            Err(StoreError::Io {
                action,
                path,
                source,
            }) => {
                return Err(StoreError::Io {
                    action,
                    path,
                    source,
                });
            }
            Err(e) => return Ok(Some(Err(e.to_string()))),
        };
        let files = walk::side_by_side(&listed, |file| {
            let metadata =
                std::fs::metadata(&file.path).map_err(StoreError::io("read", &file.path))?;
            let (hash, is_blob) = match read.get(&inode(&metadata)) {
                Some(hash) => (*hash, true),
                None => (hash_file(&file.path)?.0, false),
            };
            // What is executable is never the blob itself. A bit too many on
            // anything else does no harm.
            let declared =
                wanted.and_then(|tree| tree.files.iter().find(|f| f.path == file.relative));
            let executable = file.seen.is_executable()
                && !is_blob
                && declared.is_none_or(|file| file.executable);
            Ok(TreeFile {
                path: file.relative.clone(),
                hash,
                bytes: metadata.len(),
                executable,
            })
        });
        match files {
            Ok(files) => Ok(Some(Ok(files))),
            Err(_) if look(&folder.path)?.is_none() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes a broken tree away, and lays it out again where that can be done.
    fn mend_tree(
        &self,
        folder: &Entry<ContentHash>,
        tree: Option<&Tree>,
    ) -> Result<Repair, StoreError> {
        if !folder.is_unchanged()? {
            return Ok(Repair::NothingLeft);
        }
        let trash = self.job_dir("verify")?;
        let away = trash.scratch().join("tree");
        std::fs::rename(&folder.path, away).map_err(StoreError::io("remove", &folder.path))?;
        match tree {
            Some(tree) => {
                self.materialise(tree)?;
                Ok(Repair::LaidOutAgain)
            }
            None => Ok(Repair::Removed),
        }
    }
}

/// Nothing is touched by a broken part: whoever looks it up computes it again.
fn judge_partials(
    partials: &[Entry<Key>],
    repair: bool,
    found: &mut Findings<'_>,
) -> Result<(), StoreError> {
    let read = walk::side_by_side(partials, |part| partial::damage(&part.what, &part.path))?;
    found.report.partials = partials.len();
    for (file, why) in partials.iter().zip(read) {
        if let Some(why) = why {
            let repaired = if repair {
                Some(removed(&file.path)?)
            } else {
                None
            };
            let path = file.path.clone();
            found.add(
                DamagedThing::Partial,
                path,
                why.to_owned(),
                Vec::new(),
                repaired,
            );
        }
    }
    Ok(())
}

/// The findings so far.
struct Findings<'a> {
    index: Index<'a>,
    report: VerifyReport,
    /// Keys whose records were removed.
    forget: BTreeSet<Key>,
}

impl Findings<'_> {
    fn add(
        &mut self,
        what: DamagedThing,
        path: PathBuf,
        why: String,
        touches: Vec<Touched>,
        repaired: Option<Repair>,
    ) {
        self.report.damage.push(Damage {
            what,
            path,
            why,
            touches,
            repaired,
        });
    }
}

/// Who uses what.
struct Index<'a> {
    records: &'a [Entry<RecordFile>],
    users: BTreeMap<Key, Vec<&'a Entry<Run>>>,
}

impl<'a> Index<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        Self {
            records: &inventory.records,
            users: inventory.users(),
        }
    }

    fn touched(&self, key: &Key) -> Touched {
        let runs = self.users.get(key).map_or(&[][..], Vec::as_slice);
        let record = self.records.iter().find(|file| file.what.key == *key);
        let provenance = |field| record.and_then(|file| file.what.provenance(field));
        // Of a record that cannot be read, the runs know the stage.
        let mut listed = runs.iter().rev().flat_map(|run| &run.what.stages);
        let listed = listed
            .find(|(used, _)| used == key)
            .map(|(_, stage)| stage.as_str());
        let stage = provenance("stage").or(listed).map(str::to_owned);
        let pipelines: BTreeSet<PipelineName> = runs
            .iter()
            .filter_map(|run| {
                Some(PipelineName {
                    name: run.what.pipeline.clone()?,
                    path: run.what.file.clone(),
                })
            })
            .collect();
        let mut pipelines: Vec<PipelineName> = pipelines.into_iter().collect();
        // If no run uses it: the one that made it.
        if let (Some(name), true) = (provenance("pipeline"), pipelines.is_empty()) {
            let name = name.to_owned();
            pipelines.push(PipelineName { name, path: None });
        }
        Touched {
            key: *key,
            stage,
            pipelines,
        }
    }

    /// What a record of such a kind touches.
    fn that(&self, is_such: impl Fn(&RecordFile) -> bool) -> Vec<Touched> {
        let records = self.records.iter().filter(|file| is_such(&file.what));
        records.map(|file| self.touched(&file.what.key)).collect()
    }
}

/// How a laid-out folder differs from the tree that it is named after.
fn difference(found: &Tree, wanted: Option<&Tree>) -> String {
    let Some(wanted) = wanted else {
        return "its files do not have the hash that it is named after".to_owned();
    };
    let by_path = |tree: &Tree| -> BTreeMap<String, (ContentHash, bool)> {
        let files = tree.files.iter();
        files
            .map(|f| (f.path.clone(), (f.hash, f.executable)))
            .collect()
    };
    let (found, wanted) = (by_path(found), by_path(wanted));
    let mut parts = Vec::new();
    for (path, hash) in &wanted {
        match found.get(path) {
            None => parts.push(format!("`{path}` is missing")),
            Some(actual) if actual.0 != hash.0 => parts.push(format!("`{path}` was changed")),
            Some(actual) if actual != hash => {
                parts.push(format!("`{path}` can no longer be run"));
            }
            Some(_) => {}
        }
    }
    for path in found.keys().filter(|path| !wanted.contains_key(*path)) {
        parts.push(format!("`{path}` does not belong there"));
    }
    parts.join(", ")
}

fn removed(path: &Path) -> Result<Repair, StoreError> {
    let was_there = remove(path)?;
    Ok(if was_there {
        Repair::Removed
    } else {
        Repair::NothingLeft
    })
}
