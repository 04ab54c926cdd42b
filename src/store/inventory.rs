//! [`Inventory`]: everything that lies in a cache, as found. What collects
//! garbage, verifies and measures begins with it.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

pub(super) use super::clock::FileTimes;
use super::clock::is_believed;
use super::partial::{self, PartialFile};
use super::process::host;
use super::{ContentHash, Key, RECORD_FORMAT, Record, Store, StoreError, plain, record};

/// What belongs into the folder of a cache; anything else there is unknown.
const KNOWN: [&str; 11] = [
    "CACHEDIR.TAG",
    ".gitignore",
    "format.json",
    "blobs",
    "records",
    "trees",
    "runs",
    "tmp",
    "claims",
    partial::FOLDER,
    "hashes.json",
];

/// What lies in a cache. Entries that vanish while it is read are left out.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// In order of ids, so of time.
    pub runs: Vec<RunFolder>,
    /// In order of keys.
    pub records: Vec<RecordFile>,
    /// In order of hashes.
    pub trees: Vec<TreeFolder>,
    /// In order of hashes.
    pub blobs: Vec<BlobFile>,
    /// In order of kinds, then of keys.
    pub partials: Vec<PartialFile>,
    /// What Genius did not put there, or no longer knows: left alone.
    pub unknown: Vec<PathBuf>,
}

/// A folder under `runs/`.
#[derive(Debug, Clone)]
pub(super) struct RunFolder {
    pub id: String,
    /// From the id, or of the folder's last change: for people, by its machine's clock.
    pub started: Timestamp,
    /// What the id says.
    told: Option<Timestamp>,
    /// Of what it wrote first.
    pub times: FileTimes,
    /// Of which these are the times.
    pub dated: PathBuf,
    /// Name of the pipeline, if it is known.
    pub pipeline: Option<String>,
    /// The pipeline file as the run knew it.
    pub file: Option<PathBuf>,
    pub fate: PipelineFate,
    /// What the run lists; in order, each once.
    pub keys: Vec<Key>,
    /// Key and name of every stage that it reported at its end.
    pub stages: Vec<(Key, String)>,
    pub bytes: u64,
}

impl RunFolder {
    /// When it began: by its id, which its machine's clock made, and by the file server's
    /// clock. One of the two may be years behind; the later one is taken, so that
    /// nothing is old by mistake. `None` if both lie in the future.
    pub fn began(&self, now: Timestamp) -> Option<Timestamp> {
        let told = self.told.filter(|told| is_believed(*told, now));
        self.times.written(now).max(told)
    }
}

/// What became of the pipeline file of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PipelineFate {
    /// It is there, or cannot be looked for (another host, no permission).
    Exists,
    /// It is no longer there.
    Gone,
}

/// A file under `records/` whose name is that of a record.
#[derive(Debug, Clone)]
pub(super) struct RecordFile {
    pub key: Key,
    pub path: PathBuf,
    pub bytes: u64,
    pub modified: Timestamp,
    pub times: FileTimes,
    pub content: Content,
}

/// What is in a record's file.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A record of this format under its own key.
    Record(Box<Record>),
    /// Nothing that will ever be used.
    Damaged(String),
    /// A record of an older format: a miss for good.
    Older,
    /// A record of a newer Genius, or a damaged one that says so.
    Newer {
        /// Every hash in it.
        names: BTreeSet<ContentHash>,
        /// What is wrong with it as far as this Genius can tell.
        doubt: Option<&'static str>,
    },
}

/// A folder under `trees/` whose name is a hash.
#[derive(Debug, Clone)]
pub(super) struct TreeFolder {
    pub hash: ContentHash,
    pub path: PathBuf,
    pub inode: Inode,
    pub times: FileTimes,
}

/// A file under `blobs/` whose name is a hash.
#[derive(Debug, Clone)]
pub(super) struct BlobFile {
    pub hash: ContentHash,
    pub path: PathBuf,
    pub bytes: u64,
    pub inode: Inode,
    pub modified: Timestamp,
    pub times: FileTimes,
    /// False for a folder or a link in a blob's place.
    pub is_file: bool,
}

/// Device and number of a file: equal for hard links.
pub(super) type Inode = (u64, u64);

/// What is known of a run from its files. The store knows bytes and not runs: it asks the
/// [`ReadRun`] that it was given.
#[derive(Debug, Clone, Default)]
pub struct RunFacts {
    /// Whether the folder is one of a run, whatever its name.
    pub is_run: bool,
    /// Whether a newer Genius wrote it: then nothing else is known.
    pub newer: bool,
    /// The file that a run writes first: its times are the run's.
    pub first: Option<PathBuf>,
    /// Name of the pipeline.
    pub pipeline: Option<String>,
    /// The pipeline file, absolute, on the machine that ran it.
    pub file: Option<PathBuf>,
    /// Name of that machine.
    pub host: Option<String>,
    /// Key and name of every stage that it reported at its end.
    pub stages: Vec<(Key, String)>,
}

/// Reads the folder of a run.
pub type ReadRun = fn(&Path) -> RunFacts;

impl Inventory {
    /// Reads all of a cache but the content of its blobs.
    ///
    /// # Errors
    /// When a folder of the cache cannot be read.
    pub fn read(store: &Store) -> Result<Self, StoreError> {
        let mut unknown = Vec::new();
        for path in entries(store.root())? {
            if !KNOWN.contains(&name(&path)) {
                unknown.push(path);
            }
        }
        // Runs first: what a run lists later than this, applying the plan looks for.
        let runs = store.list_runs(&mut unknown)?;
        let blobs = store.list_blobs(&mut unknown)?;
        let trees = store.list_trees(&mut unknown)?;
        let partials = store.list_partials(&mut unknown)?;
        // Records last: a blob found above may be named by a record made since.
        let records = store.list_records(&mut unknown)?;
        Ok(Self {
            runs,
            records,
            trees,
            blobs,
            partials,
            unknown,
        })
    }
}

impl Store {
    /// The folders of runs; ids sort by time.
    pub(super) fn list_runs(
        &self,
        unknown: &mut Vec<PathBuf>,
    ) -> Result<Vec<RunFolder>, StoreError> {
        let here = host();
        let mut runs = Vec::new();
        for path in entries(&self.runs_dir())? {
            let id = name(&path).to_owned();
            let Some(metadata) = look(&path)? else {
                continue;
            };
            let started = time_of_id(&id);
            let facts = self.read_run.map(|read| read(&path));
            let is_run = started.is_some() || facts.as_ref().is_some_and(|facts| facts.is_run);
            if !metadata.is_dir() || !is_run {
                unknown.push(path);
                continue;
            }
            let unread = facts.is_none();
            let facts = facts.unwrap_or_default();
            let keys = self.keys_of_run(&id, &facts);
            let fate = match &facts.file {
                // Not for us to judge.
                _ if unread || facts.newer => PipelineFate::Exists,
                _ if facts.host.as_ref().is_some_and(|host| *host != here) => PipelineFate::Exists,
                Some(file) => match std::fs::metadata(file) {
                    Err(e)
                        if matches!(
                            e.kind(),
                            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                        ) =>
                    {
                        PipelineFate::Gone
                    }
                    _ => PipelineFate::Exists,
                },
                // It names none, and holds something: not for us to judge.
                None if !keys.is_empty() => PipelineFate::Exists,
                None => PipelineFate::Gone,
            };
            let first = match facts.first {
                Some(first) => look(&first)?.map(|metadata| (FileTimes::of(&metadata), first)),
                None => None,
            };
            let (times, dated) = first.unwrap_or((FileTimes::of(&metadata), path.clone()));
            runs.push(RunFolder {
                id,
                started: started.unwrap_or_else(|| modified(&metadata)),
                told: started,
                times,
                dated,
                pipeline: facts.pipeline,
                file: facts.file,
                fate,
                keys,
                stages: facts.stages,
                bytes: size_of(&path),
            });
        }
        Ok(runs)
    }

    /// What a run lists, each key once; of a run from before runs kept lists, what it
    /// reported at its end.
    fn keys_of_run(&self, id: &str, facts: &RunFacts) -> Vec<Key> {
        let mut keys = self.used_keys(id);
        if keys.is_empty() && !self.runs_dir().join(id).join("uses").exists() {
            keys = facts.stages.iter().map(|(key, _)| *key).collect();
        }
        let mut seen = BTreeSet::new();
        keys.retain(|key| seen.insert(*key));
        keys
    }

    pub(super) fn list_records(
        &self,
        unknown: &mut Vec<PathBuf>,
    ) -> Result<Vec<RecordFile>, StoreError> {
        let mut records = Vec::new();
        for path in sharded(&self.root().join("records"), unknown)? {
            let key = name(&path)
                .strip_suffix(".json")
                .and_then(|hex| hex.parse::<Key>().ok())
                .filter(|key| self.record_file(key) == path);
            let Some(key) = key else {
                unknown.push(path);
                continue;
            };
            let Some(metadata) = look(&path)? else {
                continue;
            };
            let content = match plain::read(&path, plain::LARGE) {
                Ok(bytes) => content(&key, &bytes),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => Content::Damaged(format!("it cannot be read: {e}")),
            };
            records.push(RecordFile {
                key,
                path,
                bytes: metadata.len(),
                modified: modified(&metadata),
                times: FileTimes::of(&metadata),
                content,
            });
        }
        Ok(records)
    }

    pub(super) fn list_trees(
        &self,
        unknown: &mut Vec<PathBuf>,
    ) -> Result<Vec<TreeFolder>, StoreError> {
        let mut trees = Vec::new();
        for path in entries(&self.root().join("trees"))? {
            let Some(metadata) = look(&path)? else {
                continue;
            };
            match name(&path).parse() {
                Ok(hash) if metadata.is_dir() && self.tree_path(&hash) == path => {
                    trees.push(TreeFolder {
                        hash,
                        path,
                        inode: inode(&metadata),
                        times: FileTimes::of(&metadata),
                    });
                }
                _ => unknown.push(path),
            }
        }
        Ok(trees)
    }

    pub(super) fn list_blobs(
        &self,
        unknown: &mut Vec<PathBuf>,
    ) -> Result<Vec<BlobFile>, StoreError> {
        let mut blobs = Vec::new();
        for path in sharded(&self.root().join("blobs"), unknown)? {
            let Some(metadata) = look(&path)? else {
                continue;
            };
            match name(&path).parse() {
                Ok(hash) if self.blob_path(&hash) == path => blobs.push(BlobFile {
                    hash,
                    bytes: metadata.len(),
                    inode: inode(&metadata),
                    modified: modified(&metadata),
                    times: FileTimes::of(&metadata),
                    is_file: metadata.is_file(),
                    path,
                }),
                _ => unknown.push(path),
            }
        }
        Ok(blobs)
    }
}

/// What lies in `<folder>/ab/`; whatever is no such folder is unknown.
pub(super) fn sharded(
    folder: &Path,
    unknown: &mut Vec<PathBuf>,
) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    for shard in entries(folder)? {
        if look(&shard)?.is_some_and(|m| m.is_dir()) {
            found.extend(entries(&shard)?);
        } else {
            unknown.push(shard);
        }
    }
    Ok(found)
}

/// Judges a record's bytes as a lookup would, without a look at its blobs.
pub(super) fn content(key: &Key, bytes: &[u8]) -> Content {
    let decoded = record::decode(bytes, key);
    // A newer Genius may write its records in another way altogether: what names
    // a newer format is not called damaged because this one cannot check it.
    let value: Value = match &decoded {
        Ok(Some(_)) => Value::Null,
        _ => serde_json::from_slice(bytes).unwrap_or_default(),
    };
    let newer = value["format"].as_u64() > Some(u64::from(RECORD_FORMAT));
    match decoded {
        Ok(Some(record)) => Content::Record(Box::new(record)),
        decoded if newer => {
            let mut names = BTreeSet::new();
            hashes_in(&value, &mut names);
            let doubt = decoded.err();
            Content::Newer { names, doubt }
        }
        Ok(None) => Content::Older,
        Err(why) => Content::Damaged(why.to_owned()),
    }
}

/// Every text in a value that could be a hash.
fn hashes_in(value: &Value, into: &mut BTreeSet<ContentHash>) {
    match value {
        Value::String(text) => into.extend(text.parse::<ContentHash>()),
        Value::Array(items) => items.iter().for_each(|v| hashes_in(v, into)),
        Value::Object(fields) => fields.values().for_each(|v| hashes_in(v, into)),
        _ => {}
    }
}

/// `20260102T030405-...`: when a run began.
pub(super) fn time_of_id(id: &str) -> Option<Timestamp> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", id.get(..15)?).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// The entries of a folder, sorted; none if it is not there.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let found = std::fs::read_dir(dir).and_then(|entries| {
        entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    match found {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(StoreError::io("read", dir)(e)),
    }
}

/// A look at an entry itself, not at what it links to; `None` if it is gone.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

/// Bytes of the files under a path; what cannot be read counts nothing.
pub(super) fn size_of(path: &Path) -> u64 {
    let mut bytes = 0;
    each_file(path, &mut |_, metadata| bytes += metadata.len());
    bytes
}

/// Visits every file under a path (or the path itself), links unfollowed.
pub(super) fn each_file(path: &Path, visit: &mut dyn FnMut(&Path, &Metadata)) {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            for entry in entries(path).unwrap_or_default() {
                each_file(&entry, visit);
            }
        }
        Ok(metadata) => visit(path, &metadata),
        Err(_) => {}
    }
}

pub(super) fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// Time of the last change of content.
pub(super) fn modified(metadata: &Metadata) -> Timestamp {
    timestamp(metadata.mtime(), metadata.mtime_nsec())
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    // A time that no calendar has is as good as now: nothing is old because of it.
    Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0))
        .unwrap_or_else(|_| Timestamp::now())
}

/// The name of an entry; one that is not UTF-8 is no name of ours.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or("")
}
