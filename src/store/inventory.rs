//! [`Inventory`]: everything that lies in a cache, as found. What collects
//! garbage, verifies and measures begins with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

pub(super) use super::clock::FileTimes;
use super::clock::is_believed;
use super::process::host;
use super::{
    ContentHash, Key, Partials, RECORD_FORMAT, Record, Store, StoreError, TreeFile, partial, plain,
    record,
};

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
    pub runs: Vec<Entry<Run>>,
    /// In order of keys.
    pub records: Vec<Entry<RecordFile>>,
    /// In order of hashes.
    pub trees: Vec<Entry<ContentHash>>,
    /// In order of hashes.
    pub blobs: Vec<Entry<ContentHash>>,
    /// In order of kinds, then of keys.
    pub partials: Vec<Entry<Key>>,
    /// What Genius did not put there, or no longer knows: left alone.
    pub unknown: Vec<PathBuf>,
}

/// A file or folder of a cache, and what its name and content say.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub what: T,
    pub path: PathBuf,
    /// Of a file its own; of a run's folder those of its files.
    pub bytes: u64,
    pub inode: Inode,
    pub times: FileTimes,
    /// False for a folder, a link or anything else.
    pub is_file: bool,
}

impl<T> Entry<T> {
    fn new(what: T, path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            what,
            path,
            bytes: metadata.len(),
            inode: inode(metadata),
            times: FileTimes::of(metadata),
            is_file: metadata.is_file(),
        }
    }

    /// Whether it still is what was found: not replaced, nor written or touched since.
    /// Changes of the inode do not count: removing a link to a blob is one.
    pub fn is_unchanged(&self) -> Result<bool, StoreError> {
        Ok(look(&self.path)?.is_some_and(|now| self.is_same(&now)))
    }

    /// The same of what lies elsewhere by now.
    pub fn is_same(&self, now: &Metadata) -> bool {
        let written = FileTimes::of(now).content == self.times.content;
        inode(now) == self.inode && (written || !self.is_file)
    }
}

/// A folder under `runs/`.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub id: String,
    /// From the id, or of the folder if the id has none.
    pub started: Timestamp,
    /// From the id.
    dated: Option<Timestamp>,
    /// Of the file that it wrote first, or of the folder: what `times` are of.
    pub first: PathBuf,
    /// Name of its pipeline.
    pub pipeline: Option<String>,
    /// Its pipeline file.
    pub file: Option<PathBuf>,
    /// Whether its pipeline file is gone for good, as far as this host can know.
    pub is_orphan: bool,
    /// Each once, in order of first use.
    pub keys: Vec<Key>,
    /// Keys with the stages that used them.
    pub stages: Vec<(Key, String)>,
}

impl Entry<Run> {
    /// When it began, if a time of it can be believed.
    pub fn began(&self, now: Timestamp) -> Option<Timestamp> {
        let dated = self.what.dated.filter(|dated| is_believed(*dated, now));
        self.times.written(now).max(dated)
    }
}

/// A file under `records/` whose name is a key.
#[derive(Debug, Clone)]
pub(super) struct RecordFile {
    pub key: Key,
    pub content: Content,
}

impl RecordFile {
    pub fn record(&self) -> Option<&Record> {
        match &self.content {
            Content::Record(record) => Some(record),
            _ => None,
        }
    }

    /// The files of its outputs.
    pub fn files(&self) -> impl Iterator<Item = &TreeFile> {
        let trees = self.record().into_iter().flat_map(|r| r.outputs.values());
        trees.flat_map(|tree| &tree.files)
    }

    /// Whether such a tree is one of its outputs.
    pub fn names_tree(&self, hash: &ContentHash) -> bool {
        let mut trees = self.record().into_iter().flat_map(|r| r.outputs.values());
        trees.any(|tree| tree.hash == *hash)
    }

    /// Of its outputs.
    pub fn output_bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// A field of the record's provenance.
    pub fn provenance(&self, field: &str) -> Option<&str> {
        self.record()?.provenance[field].as_str()
    }
}

/// What a record's file holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Record(Box<Record>),
    /// Why it is not a record.
    Damaged(String),
    /// Of an older format: never used again.
    Older,
    /// Of a newer one.
    Newer {
        /// All hashes in it: trees and blobs that must stay.
        names: BTreeSet<ContentHash>,
        /// Why it may be damaged instead.
        doubt: Option<&'static str>,
    },
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
    /// The runs that list each key, in order of time.
    pub fn users(&self) -> BTreeMap<Key, Vec<&Entry<Run>>> {
        let mut users: BTreeMap<Key, Vec<&Entry<Run>>> = BTreeMap::new();
        for run in &self.runs {
            for key in &run.what.keys {
                users.entry(*key).or_default().push(run);
            }
        }
        users
    }

    /// The inodes of the blobs: a file that has one of them is a link, and takes no room.
    pub fn blob_inodes(&self) -> BTreeSet<Inode> {
        self.blobs.iter().map(|blob| blob.inode).collect()
    }

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
    fn list_runs(&self, unknown: &mut Vec<PathBuf>) -> Result<Vec<Entry<Run>>, StoreError> {
        let here = host();
        let mut runs = Vec::new();
        for path in entries(&self.runs_dir())? {
            let id = name(&path).to_owned();
            let Some(metadata) = look(&path)? else {
                continue;
            };
            let dated = time_of_id(&id);
            let facts = self.read_run.map(|read| read(&path));
            let is_run = dated.is_some() || facts.as_ref().is_some_and(|facts| facts.is_run);
            if !metadata.is_dir() || !is_run {
                unknown.push(path);
                continue;
            }
            let can_judge = facts.as_ref().is_some_and(|facts| !facts.newer);
            let facts = facts.unwrap_or_default();
            let keys = self.keys_of_run(&id, &facts);
            let is_here = facts.host.as_ref().is_none_or(|host| *host == here);
            let is_orphan = can_judge
                && is_here
                && match &facts.file {
                    Some(file) => is_missing(file),
                    None => keys.is_empty(),
                };
            let first = match facts.first {
                Some(first) => look(&first)?.map(|metadata| (FileTimes::of(&metadata), first)),
                None => None,
            };
            let (times, first) = first.unwrap_or((FileTimes::of(&metadata), path.clone()));
            let run = Run {
                id,
                started: dated.unwrap_or_else(|| FileTimes::of(&metadata).content),
                dated,
                first,
                pipeline: facts.pipeline,
                file: facts.file,
                is_orphan,
                keys,
                stages: facts.stages,
            };
            runs.push(Entry {
                times,
                bytes: size_of(&path),
                ..Entry::new(run, path, &metadata)
            });
        }
        Ok(runs)
    }

    /// What it listed as it used it; of an older Genius, what its report names.
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
    ) -> Result<Vec<Entry<RecordFile>>, StoreError> {
        let paths = sharded(&self.root().join("records"), unknown)?;
        let keys = list(paths, unknown, |path, _| {
            let key = name(path).strip_suffix(".json")?.parse::<Key>().ok()?;
            (self.record_file(&key) == path).then_some(key)
        })?;
        let read = |entry: Entry<Key>| {
            let content = match plain::read(&entry.path, plain::LARGE) {
                Ok(bytes) => content(&entry.what, &bytes),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
                Err(e) => Content::Damaged(format!("it cannot be read: {e}")),
            };
            let key = entry.what;
            Some(entry.with(RecordFile { key, content }))
        };
        Ok(keys.into_iter().filter_map(read).collect())
    }

    fn list_trees(
        &self,
        unknown: &mut Vec<PathBuf>,
    ) -> Result<Vec<Entry<ContentHash>>, StoreError> {
        let paths = entries(&self.root().join("trees"))?;
        list(paths, unknown, |path, metadata| {
            let hash = name(path).parse().ok()?;
            (metadata.is_dir() && self.tree_path(&hash) == path).then_some(hash)
        })
    }

    fn list_blobs(
        &self,
        unknown: &mut Vec<PathBuf>,
    ) -> Result<Vec<Entry<ContentHash>>, StoreError> {
        let paths = sharded(&self.root().join("blobs"), unknown)?;
        list(paths, unknown, |path, _| {
            let hash = name(path).parse().ok()?;
            (self.blob_path(&hash) == path).then_some(hash)
        })
    }

    fn list_partials(&self, unknown: &mut Vec<PathBuf>) -> Result<Vec<Entry<Key>>, StoreError> {
        let mut found = Vec::new();
        for kind in entries(&self.root().join(partial::FOLDER))? {
            if !look(&kind)?.is_some_and(|m| m.is_dir()) {
                unknown.push(kind);
                continue;
            }
            let partials = Partials::new(&kind, Path::new(""));
            let paths = sharded(&kind, unknown)?;
            found.extend(list(paths, unknown, |path, metadata| {
                let key = name(path).strip_suffix(".json")?.parse().ok()?;
                (metadata.is_file() && partials.path(&key) == path).then_some(key)
            })?);
        }
        Ok(found)
    }
}

impl<T> Entry<T> {
    /// Where and what it is, without what it says.
    pub fn at(&self) -> Entry<()> {
        Entry {
            what: (),
            path: self.path.clone(),
            bytes: self.bytes,
            inode: self.inode,
            times: self.times,
            is_file: self.is_file,
        }
    }

    /// When it was written. A time that no calendar has is as good as now.
    pub fn made(&self) -> Timestamp {
        let written = self.times.content;
        if written == Timestamp::MAX {
            Timestamp::now()
        } else {
            written
        }
    }

    fn with<U>(self, what: U) -> Entry<U> {
        Entry {
            what,
            path: self.path,
            bytes: self.bytes,
            inode: self.inode,
            times: self.times,
            is_file: self.is_file,
        }
    }
}

/// The entries among `paths` that are what `parse` knows; the others are unknown.
fn list<T>(
    paths: Vec<PathBuf>,
    unknown: &mut Vec<PathBuf>,
    parse: impl Fn(&Path, &Metadata) -> Option<T>,
) -> Result<Vec<Entry<T>>, StoreError> {
    let mut found = Vec::new();
    for path in paths {
        let Some(metadata) = look(&path)? else {
            continue;
        };
        match parse(&path, &metadata) {
            Some(what) => found.push(Entry::new(what, path, &metadata)),
            None => unknown.push(path),
        }
    }
    Ok(found)
}

/// Whether a pipeline file is gone; what cannot be known counts as there.
fn is_missing(file: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    std::fs::metadata(file).is_err_and(|e| matches!(e.kind(), NotFound | NotADirectory))
}

/// The entries of the folders in a folder.
fn sharded(folder: &Path, unknown: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>, StoreError> {
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

/// Bytes of a folder's files that are not links to one of `blobs`.
pub(super) fn extra_bytes(folder: &Path, blobs: &BTreeSet<Inode>) -> u64 {
    let mut bytes = 0;
    each_file(folder, &mut |_, metadata| {
        if !blobs.contains(&inode(metadata)) {
            bytes += metadata.len();
        }
    });
    bytes
}

pub(super) fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// The name of an entry; one that is not UTF-8 is no name of ours.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or("")
}
