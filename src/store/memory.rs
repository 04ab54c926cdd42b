//! [`HashMemory`]: the hashes of files outside the cache, so that gigabytes are
//! not read again in each run.
//!
//! A file counts as the one that is remembered while its device, inode, size,
//! and times of change (of content and of inode) are the same. What is not
//! seen so: a change within the granularity of the file system's clock, which is
//! why a file that changed in the last seconds is never remembered.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::read::hash_open;
use super::walk::{self, Found};
use super::{ContentHash, Store, StoreError, Tree, TreeFile, atomic, clock, plain};

/// Version of `hashes.json`; one of another version is forgotten.
///
/// History: 1: the fields of `MemoryFile` and `Entry`.
const MEMORY_FORMAT: u32 = 1;
/// A file must have been left alone for this long when it is read.
const SETTLED_NS: i64 = 3_000_000_000;
/// What was not used for so long is dropped.
const KEPT_SECS: i64 = 90 * 24 * 3600;
/// The time of the last use is written down anew when it is this old.
const USE_STEP_SECS: i64 = 24 * 3600;

/// Remembered hashes. May be shared by threads.
#[derive(Debug)]
pub struct HashMemory {
    store: Store,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<PathBuf, Entry>,
    /// Whether a device is a network file system, where only opening a file asks
    /// the server for its times.
    remote: HashMap<u64, bool>,
    changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    stat: Stat,
    hash: ContentHash,
    /// Seconds since 1970.
    used: i64,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stat {
    device: u64,
    inode: u64,
    bytes: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

#[derive(Serialize, Deserialize)]
struct MemoryFile<'a> {
    format: u32,
    /// BLAKE3 of the text of `entries`.
    checksum: ContentHash,
    #[serde(borrow)]
    entries: &'a RawValue,
}

impl Stat {
    /// `None` for times beyond what 64 bits hold.
    fn of(metadata: &Metadata) -> Option<Self> {
        let ns = |secs: i64, ns: i64| secs.checked_mul(1_000_000_000)?.checked_add(ns);
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec())?,
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec())?,
        })
    }

    /// Whether a change from now on is sure to change the times: both lie some
    /// seconds back, by a clock that was read before the file was.
    fn is_settled(&self, now_ns: i64) -> bool {
        self.mtime_ns.max(self.ctime_ns) <= now_ns.saturating_sub(SETTLED_NS)
    }
}

impl Store {
    /// What is remembered of files outside the cache.
    pub fn hash_memory(&self) -> HashMemory {
        let entries = load(&self.memory_path())
            .into_iter()
            .map(|entry| (PathBuf::from(&entry.path), entry))
            .collect();
        HashMemory {
            store: self.clone(),
            state: Mutex::new(State {
                entries,
                ..State::default()
            }),
        }
    }

    fn memory_path(&self) -> PathBuf {
        self.root().join("hashes.json")
    }
}

impl HashMemory {
    /// The memory of the cache that is at `root` or would be there; makes nothing.
    ///
    /// # Errors
    /// When there is no current folder for a relative path to be relative to.
    pub fn of_cache(root: &Path) -> Result<Self, StoreError> {
        Ok(Store::unmade(root)?.hash_memory())
    }

    /// As [`hash_path`](super::hash_path), reading only what changed since it was
    /// last read.
    ///
    /// # Errors
    /// As there.
    pub fn hash_path(&self, path: &Path) -> Result<ContentHash, StoreError> {
        let path = std::path::absolute(path).map_err(StoreError::io("find", path))?;
        let metadata = std::fs::metadata(&path).map_err(StoreError::io("read", &path))?;
        if metadata.is_dir() {
            return self.hash_folder(&path);
        }
        if !metadata.is_file() {
            return Err(StoreError::NotAFile {
                path,
                what: walk::describe(metadata.file_type()),
            });
        }
        match self.remembered(&path, &metadata) {
            Some((hash, _)) => Ok(hash),
            None => Ok(self.read(&path)?.0),
        }
    }

    /// Writes down what is new, beside what other processes wrote by now. That it
    /// cannot be written (a read-only cache) costs time later and nothing else.
    pub fn save(&self) {
        let mut state = self.lock();
        if !state.changed {
            return;
        }
        let path = self.store.memory_path();
        let mut merged: HashMap<PathBuf, Entry> = load(&path)
            .into_iter()
            .map(|entry| (PathBuf::from(&entry.path), entry))
            .collect();
        for (path, own) in &state.entries {
            match merged.get_mut(path) {
                // Theirs may be newer; a wrong one costs a reading.
                Some(theirs) if theirs.stat == own.stat => theirs.used = theirs.used.max(own.used),
                Some(theirs) if theirs.used > own.used => {}
                _ => {
                    merged.insert(path.clone(), own.clone());
                }
            }
        }
        let oldest = now_ns() / 1_000_000_000 - KEPT_SECS;
        merged.retain(|path, entry| {
            entry.used >= oldest
                && !std::fs::symlink_metadata(path)
                    .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        });
        let mut entries: Vec<&Entry> = merged.values().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let written = encode(&entries)
            .map_err(std::io::Error::other)
            .map_err(StoreError::io("write", &path))
            .and_then(|text| atomic::write_unsynced(&self.store.tmp_dir(), &path, &text));
        state.changed = written.is_err();
    }

    fn hash_folder(&self, path: &Path) -> Result<ContentHash, StoreError> {
        let found = walk::list(path)?;
        let known: Vec<Option<(ContentHash, u64)>> = found
            .iter()
            .map(|file| {
                let metadata = std::fs::metadata(&file.path).ok()?;
                self.remembered(&file.path, &metadata)
            })
            .collect();
        let pairs: Vec<(&Found, Option<(ContentHash, u64)>)> = found.iter().zip(known).collect();
        let unknown: Vec<&Found> = pairs
            .iter()
            .filter(|(_, known)| known.is_none())
            .map(|(file, _)| *file)
            .collect();
        let mut read = walk::side_by_side(&unknown, |file| self.read(&file.path))?.into_iter();
        let files = pairs
            .into_iter()
            .filter_map(|(file, known)| {
                let (hash, bytes) = known.or_else(|| read.next())?;
                Some(TreeFile {
                    path: file.relative.clone(),
                    hash,
                    bytes,
                    executable: false,
                })
            })
            .collect();
        Ok(Tree::new(files).hash)
    }

    /// The hash and size of a file that is still what it was.
    fn remembered(&self, path: &Path, metadata: &Metadata) -> Option<(ContentHash, u64)> {
        let mut stat = Stat::of(metadata)?;
        let remote = {
            let state = self.lock();
            state.entries.get(path).filter(|e| e.stat == stat)?;
            state.remote.get(&stat.device).copied()
        };
        if remote != Some(false) {
            let file = File::open(path).ok()?;
            stat = Stat::of(&file.metadata().ok()?)?;
            let is_remote = remote.unwrap_or_else(|| clock::is_remote(&file));
            self.lock().remote.insert(stat.device, is_remote);
        }
        let mut state = self.lock();
        let entry = state.entries.get_mut(path).filter(|e| e.stat == stat)?;
        let found = (entry.hash, entry.stat.bytes);
        let now = now_ns() / 1_000_000_000;
        // In the future: a clock was set back since.
        if now - entry.used > USE_STEP_SECS || entry.used > now {
            entry.used = now;
            state.changed = true;
        }
        Some(found)
    }

    /// Reads a file, and remembers it if nothing can change it unseen.
    fn read(&self, path: &Path) -> Result<(ContentHash, u64), StoreError> {
        let failed = || StoreError::io("read", path);
        let file = File::open(path).map_err(failed())?;
        let before = file.metadata().map_err(failed())?;
        let began = now_ns();
        let (hash, bytes) = hash_open(&file).map_err(failed())?;
        // By name: what stands there now must be what was read.
        let after = std::fs::metadata(path).map_err(failed())?;
        let stat = Stat::of(&before)
            .filter(|stat| stat.bytes == bytes && stat.is_settled(began))
            .filter(|stat| Stat::of(&after) == Some(*stat));
        let mut state = self.lock();
        match (stat, path.to_str()) {
            (Some(stat), Some(name)) => {
                let entry = Entry {
                    path: name.to_owned(),
                    stat,
                    hash,
                    used: began / 1_000_000_000,
                };
                state.entries.insert(path.to_owned(), entry);
                state.changed = true;
            }
            _ => {
                state.changed |= state.entries.remove(path).is_some();
            }
        }
        Ok((hash, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever is not whole is forgotten: a wrong hash would give a wrong result.
fn load(path: &Path) -> Vec<Entry> {
    let Ok(bytes) = plain::read(path, plain::LARGE) else {
        return Vec::new();
    };
    serde_json::from_slice::<MemoryFile>(&bytes)
        .ok()
        .filter(|file| file.format == MEMORY_FORMAT)
        .filter(|file| ContentHash::of(file.entries.get().as_bytes()) == file.checksum)
        .and_then(|file| serde_json::from_str(file.entries.get()).ok())
        .unwrap_or_default()
}

fn encode(entries: &[&Entry]) -> serde_json::Result<Vec<u8>> {
    let entries = serde_json::value::to_raw_value(entries)?;
    serde_json::to_vec(&MemoryFile {
        format: MEMORY_FORMAT,
        checksum: ContentHash::of(entries.get().as_bytes()),
        entries: &entries,
    })
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}
