//! [`Lease`]: the sign of life of a run, so that others know whether what it
//! holds (claims, keys in use) still counts.
//!
//! `runs/<id>/lease.json` says who runs; a thread touches it every
//! [`Times::beat`] with the file server's clock. A run is dead when its lease is
//! missing, when its process is known to be gone, or when it was not touched for
//! [`Times::stale`]. A run that was only paused is taken for dead then; when it
//! goes on, its next beat brings it back to life.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::process::{self, Process};
use super::{Key, Store, StoreError, atomic, clock};

/// Version of `lease.json`; one of another version is judged by its age alone.
///
/// History: 1: the fields of `LeaseFile`.
const LEASE_FORMAT: u32 = 1;
const LEASE_FILE: &str = "lease.json";
/// The keys that a run looked up, one a line.
const USES_FILE: &str = "uses";

/// How often a run shows that it lives, and for how long it may not.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Between two beats.
    pub beat: Duration,
    /// After this long without one the run counts as dead: several beats.
    pub stale: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            stale: Duration::from_secs(20),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct LeaseFile {
    format: u32,
    run_id: String,
    started: Timestamp,
    #[serde(flatten)]
    process: Process,
}

/// A run that lives, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveRun {
    /// Name of its folder in `runs/`.
    pub run_id: String,
    /// Where it runs; empty where its lease cannot be read.
    pub host: String,
    /// Its process; 0 where its lease cannot be read.
    pub pid: u32,
    /// When it began, by its machine's clock.
    pub started: Timestamp,
}

/// A live run. Dropping it ends the run in the eyes of others; its folder stays.
#[derive(Debug)]
pub struct Lease {
    run: Arc<Run>,
    times: Times,
    /// Dropped to stop the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the beating thread shares with the lease.
#[derive(Debug)]
struct Run {
    store: Store,
    id: String,
    dir: PathBuf,
    lease: LeaseFile,
    uses: Mutex<Uses>,
}

#[derive(Debug, Default)]
struct Uses {
    seen: HashSet<Key>,
    file: Option<File>,
    remote: bool,
    /// The file may end within a line: a write went wrong.
    torn: bool,
}

impl Store {
    /// Begins a run: a new folder `runs/<id>/` with a lease in it, which a thread
    /// keeps fresh. Ids (`20261123T031500-3e45f0c1`) sort by time: the last part is
    /// the millisecond, then chance.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn begin_run(&self, times: &Times) -> Result<Lease, StoreError> {
        let runs = self.runs_dir();
        atomic::make_dir(&runs)?;
        loop {
            let started = Timestamp::now();
            let id = format!(
                "{}-{:03x}{:05x}",
                started.strftime("%Y%m%dT%H%M%S"),
                started.subsec_millisecond(),
                process::random() & 0xf_ffff
            );
            let run = Run {
                store: self.clone(),
                dir: runs.join(&id),
                lease: LeaseFile {
                    format: LEASE_FORMAT,
                    run_id: id.clone(),
                    started,
                    process: Process::this(),
                },
                id,
                uses: Mutex::default(),
            };
            if let Some(file) = run.make()? {
                return Lease::start(run, file, *times);
            }
        }
    }

    /// Every run that lives, oldest first.
    ///
    /// # Errors
    /// When `runs/` cannot be read.
    pub fn live_runs(&self, times: &Times) -> Result<Vec<LiveRun>, StoreError> {
        let mut now = None;
        let ids = self.run_ids()?;
        Ok(ids
            .iter()
            .filter_map(|id| self.look_at_run(id, times, &mut now))
            .collect())
    }

    /// Whether a run lives.
    pub fn run_is_live(&self, run_id: &str, times: &Times) -> bool {
        self.look_at_run(run_id, times, &mut None).is_some()
    }

    /// `now` is asked of the server once, and only if need be.
    fn look_at_run(
        &self,
        run_id: &str,
        times: &Times,
        now: &mut Option<SystemTime>,
    ) -> Option<LiveRun> {
        if run_id.contains('/') || !super::tree::is_plain(run_id) {
            return None;
        }
        let path = self.runs_dir().join(run_id).join(LEASE_FILE);
        // Over NFS it is the opening that asks the server how old the file is.
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if is_missing(&e) => return None,
            // There is one, and it cannot be read: nothing says that it is dead.
            Err(_) => return Some(unreadable(run_id, SystemTime::now())),
        };
        let mut text = Vec::new();
        let _ = file.read_to_end(&mut text);
        let lease = serde_json::from_slice::<LeaseFile>(&text)
            .ok()
            .filter(|lease| lease.format == LEASE_FORMAT);
        if lease.as_ref().is_some_and(|lease| lease.process.is_gone()) {
            return None;
        }
        let beaten = clock::modified(&file.metadata().ok()?);
        let now = *now.get_or_insert_with(|| self.server_now());
        if clock::apart(now, beaten) > times.stale {
            return None;
        }
        Some(match lease {
            Some(lease) => LiveRun {
                run_id: run_id.to_owned(),
                host: lease.process.host,
                pid: lease.process.pid,
                started: lease.started,
            },
            None => unreadable(run_id, beaten),
        })
    }

    /// The keys that a run said it uses. A line that is cut is passed over.
    pub fn used_keys(&self, run_id: &str) -> Vec<Key> {
        if run_id.contains('/') || !super::tree::is_plain(run_id) {
            return Vec::new();
        }
        let path = self.runs_dir().join(run_id).join(USES_FILE);
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok())
            .collect()
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

fn unreadable(run_id: &str, seen: SystemTime) -> LiveRun {
    LiveRun {
        run_id: run_id.to_owned(),
        host: String::new(),
        pid: 0,
        started: Timestamp::try_from(seen).unwrap_or_default(),
    }
}

impl Run {
    /// Makes the folder, with the lease in it from the first moment on: whoever
    /// saw the folder without one would take the run for dead, and over NFS would
    /// remember for a while that there is none. `None` when the id is taken.
    fn make(&self) -> Result<Option<File>, StoreError> {
        if std::fs::symlink_metadata(&self.dir).is_ok() {
            return Ok(None);
        }
        let work = self.store.tmp_folder()?;
        let file = self.write_lease(&work.path().join(LEASE_FILE))?;
        match std::fs::rename(work.path(), &self.dir) {
            Ok(()) => {
                let _moved = work.keep();
                Ok(Some(file))
            }
            Err(_) if std::fs::symlink_metadata(&self.dir).is_ok() => Ok(None),
            Err(e) => Err(StoreError::io("make the folder", &self.dir)(e)),
        }
    }

    /// Writes the lease whole; gives the open file, which is what is beaten.
    fn write_lease(&self, path: &Path) -> Result<File, StoreError> {
        let mut file = self.store.tmp_file()?;
        let text = serde_json::to_vec(&self.lease)
            .map_err(std::io::Error::other)
            .map_err(StoreError::io("write", path))?;
        file.write_all(&text)
            .and_then(|()| file.flush())
            .map_err(StoreError::io("write", path))?;
        atomic::set_mode(file.path(), 0o644)?;
        let file = file.persist(path).map_err(|e| StoreError::Io {
            action: "write",
            path: path.to_owned(),
            source: e.error,
        })?;
        clock::touch(&file).map_err(StoreError::io("touch", path))?;
        Ok(file)
    }

    /// One beat. If the lease was taken away meanwhile (this process was paused,
    /// and someone cleaned up after it), it is written anew, and its uses too.
    fn beat(&self, file: File) -> File {
        let path = self.dir.join(LEASE_FILE);
        let in_place = clock::touch(&file).is_ok()
            && file.metadata().is_ok_and(|own| {
                std::fs::symlink_metadata(&path)
                    .is_ok_and(|there| there.ino() == own.ino() && there.dev() == own.dev())
            });
        if in_place {
            return file;
        }
        let again = atomic::make_dir(&self.dir).and_then(|()| self.write_lease(&path));
        let mut uses = self.lock_uses();
        let there = std::fs::symlink_metadata(self.dir.join(USES_FILE)).is_ok();
        if !there && !uses.seen.is_empty() {
            let all: Vec<Key> = uses.seen.iter().copied().collect();
            uses.file = None;
            // At the next beat if not now: the file is still missing then.
            let _ = self.append(&mut uses, &all);
        }
        again.unwrap_or(file)
    }

    fn lock_uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, uses: &mut Uses, keys: &[Key]) -> Result<(), StoreError> {
        let path = self.dir.join(USES_FILE);
        let file = match &mut uses.file {
            Some(file) => file,
            empty => {
                let file = File::options()
                    .append(true)
                    .create(true)
                    .open(&path)
                    .map_err(StoreError::io("open", &path))?;
                uses.remote = clock::is_remote(&file);
                empty.insert(file)
            }
        };
        let mut text = String::with_capacity(keys.len() * 65 + 1);
        if uses.torn {
            text.push('\n');
        }
        for key in keys {
            text.push_str(&key.to_string());
            text.push('\n');
        }
        let written = file.write_all(text.as_bytes()).and_then(|()| {
            // Elsewhere it is seen when it has reached the server.
            if uses.remote {
                file.sync_data()
            } else {
                Ok(())
            }
        });
        uses.torn = written.is_err();
        written.map_err(StoreError::io("write", &path))
    }
}

impl Lease {
    fn start(run: Run, file: File, times: Times) -> Result<Self, StoreError> {
        let run = Arc::new(run);
        let (stop, stopped) = channel::<()>();
        let beating = Arc::clone(&run);
        let thread = std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || {
                let mut file = file;
                while stopped.recv_timeout(times.beat) == Err(RecvTimeoutError::Timeout) {
                    file = beating.beat(file);
                }
            })
            .map_err(StoreError::io("start the thread for", &run.dir))?;
        Ok(Self {
            run,
            times,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Name of the run's folder.
    pub fn run_id(&self) -> &str {
        &self.run.id
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.run.dir
    }

    /// Says that this run uses a key; to be called before the key is looked up.
    /// Garbage collection takes nothing that a live run has named. Not synced:
    /// after a crash of the machine there is no live run.
    ///
    /// # Errors
    /// When the run's folder cannot be written.
    pub fn uses(&self, key: &Key) -> Result<(), StoreError> {
        self.uses_all(std::slice::from_ref(key))
    }

    /// As [`Lease::uses`], of many keys with one write: over NFS each write waits
    /// for the server.
    ///
    /// # Errors
    /// When the run's folder cannot be written.
    pub fn uses_all(&self, keys: &[Key]) -> Result<(), StoreError> {
        let mut uses = self.run.lock_uses();
        let mut fresh: Vec<Key> = Vec::with_capacity(keys.len());
        for key in keys {
            if uses.seen.insert(*key) {
                fresh.push(*key);
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let written = self.run.append(&mut uses, &fresh);
        if written.is_err() {
            for key in &fresh {
                uses.seen.remove(key);
            }
        }
        written
    }

    pub(super) fn times(&self) -> &Times {
        &self.times
    }

    pub(super) fn process(&self) -> &Process {
        &self.run.lease.process
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(self.run.dir.join(LEASE_FILE));
    }
}
