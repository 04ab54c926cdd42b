//! [`Lease`]: the sign of life of a run, so that others know whether what it
//! holds (claims, keys in use) still counts.
//!
//! `runs/<id>/lease.json` says who runs; a thread touches it every
//! [`Times::beat`] with the file server's clock. A run is dead when its lease is
//! missing, when its process is known to be gone, or when it was not touched for
//! [`Times::stale`]. A run that was only paused is taken for dead then; when it
//! goes on, its next beat brings it back to life.
//!
//! Machines' clocks differ, and are set. So all that is compared are times of the
//! file server's; also the time at which a run began, which garbage collection
//! asks for, and which moves back with the server's clock while the run lives.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::process::{self, Process};
use super::{Key, RunDir, Store, StoreError, atomic, clock, plain, run_dir};

/// Version of `lease.json`; one of another version is judged by its age alone.
///
/// History: 1: the fields of `LeaseFile`; `began` came later, and may be missing.
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
    /// As `started`, by the file server's clock.
    #[serde(default)]
    began: Option<Timestamp>,
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
    /// The same by the file server's clock, if its lease says so.
    #[serde(skip)]
    pub began: Option<Timestamp>,
}

impl LiveRun {
    /// What was made since may be its. If its time cannot be believed: anything.
    pub(super) fn since(&self, now: Timestamp) -> Timestamp {
        let began = self.began.unwrap_or(self.started);
        if clock::is_believed(began, now) {
            began
        } else {
            Timestamp::MIN
        }
    }
}

/// What its lease says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// It lives.
    Live(LiveRun),
    /// It does not; or it is not known whether there is such a run.
    Dead,
    /// It was not touched for too long, or was touched in the future, and its process
    /// is not known to be gone: it may be paused, or a clock may have been set.
    Silent(LiveRun),
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
    id: String,
    dir: Arc<RunDir>,
    lease: Mutex<LeaseFile>,
    process: Process,
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
            let path = runs.join(&id);
            if std::fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            let process = Process::this();
            let lease = LeaseFile {
                format: LEASE_FORMAT,
                run_id: id.clone(),
                started,
                began: Timestamp::try_from(self.server_now()).ok(),
                process: process.clone(),
            };
            if let Some((dir, file)) = self.make_run(&path, &lease)? {
                let run = Run {
                    id,
                    dir: Arc::new(dir),
                    lease: Mutex::new(lease),
                    process,
                    uses: Mutex::default(),
                };
                return Lease::start(run, file, *times);
            }
        }
    }

    /// Makes a run's folder, with the lease in it from the first moment on: whoever
    /// saw the folder without one would take the run for dead, and over NFS would
    /// remember for a while that there is none. `None` when the id is taken.
    fn make_run(
        &self,
        path: &Path,
        lease: &LeaseFile,
    ) -> Result<Option<(RunDir, File)>, StoreError> {
        let work = self.tmp_folder(run_dir::FOLDER_MODE)?;
        let dir = RunDir::open(work.path()).map_err(StoreError::io("open", work.path()))?;
        let file = write_lease(&dir, lease)?;
        match std::fs::rename(work.path(), path) {
            Ok(()) => {
                let _moved = work.keep();
                let dir = dir.moved_to(path).map_err(StoreError::io("open", path))?;
                Ok(Some((dir, file)))
            }
            Err(_) if std::fs::symlink_metadata(path).is_ok() => Ok(None),
            Err(e) => Err(StoreError::io("make the folder", path)(e)),
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
        match self.sign_of_run(run_id, times, now) {
            Sign::Live(run) => Some(run),
            Sign::Silent(_) | Sign::Dead => None,
        }
    }

    /// As [`Store::look_at_run`], with silence and death apart.
    pub(super) fn sign_of_run(
        &self,
        run_id: &str,
        times: &Times,
        now: &mut Option<SystemTime>,
    ) -> Sign {
        if run_id.contains('/') || !super::tree::is_plain(run_id) {
            return Sign::Dead;
        }
        let folder = self.runs_dir().join(run_id);
        let path = folder.join(LEASE_FILE);
        // Over NFS it is the opening that asks the server how old the file is.
        let (lease, beaten) = match plain::open(&path) {
            Ok(mut file) => {
                let text = plain::read_open(&mut file, plain::SMALL).unwrap_or_default();
                let lease = serde_json::from_slice::<LeaseFile>(&text)
                    .ok()
                    .filter(|lease| lease.format == LEASE_FORMAT);
                let Ok(metadata) = file.metadata() else {
                    return Sign::Dead;
                };
                (lease, clock::modified(&metadata))
            }
            Err(e) if is_missing(&e) => return Sign::Dead,
            // There is one, and it is somebody's who lets nobody look: the folder has
            // the time of the last beat too.
            Err(_) => match std::fs::symlink_metadata(&folder) {
                Ok(metadata) => (None, clock::modified(&metadata)),
                Err(_) => return Sign::Dead,
            },
        };
        if lease.as_ref().is_some_and(|lease| lease.process.is_gone()) {
            return Sign::Dead;
        }
        let run = match lease {
            Some(lease) => LiveRun {
                run_id: run_id.to_owned(),
                host: lease.process.host,
                pid: lease.process.pid,
                started: lease.started,
                began: lease.began,
            },
            None => unreadable(run_id, beaten),
        };
        let now = *now.get_or_insert_with(|| self.server_now());
        if clock::apart(now, beaten) > times.stale {
            Sign::Silent(run)
        } else {
            Sign::Live(run)
        }
    }

    /// The runs of which garbage collection takes nothing: those that live, and those
    /// that may. A beat that is too old may come of a clock that was just set: who
    /// lives has beaten again soon.
    pub(super) fn runs_that_may_live(&self, times: &Times) -> Result<Vec<LiveRun>, StoreError> {
        let ids = self.run_ids()?;
        let mut waited = false;
        loop {
            let mut now = None;
            let signs: Vec<Sign> = ids
                .iter()
                .map(|id| self.sign_of_run(id, times, &mut now))
                .collect();
            // The wait is for those elsewhere: whether a process of this machine runs
            // is known.
            let unsure = signs
                .iter()
                .any(|sign| matches!(sign, Sign::Silent(run) if !self.runs_here(run)));
            if unsure && !waited {
                waited = true;
                std::thread::sleep(times.beat * 2);
                continue;
            }
            return Ok(signs
                .into_iter()
                .filter_map(|sign| match sign {
                    Sign::Live(run) => Some(run),
                    Sign::Silent(run) if self.runs_here(&run) => Some(run),
                    Sign::Silent(_) | Sign::Dead => None,
                })
                .collect());
        }
    }

    /// Whether the process of a silent run is seen to run on this machine.
    fn runs_here(&self, run: &LiveRun) -> bool {
        let path = self.runs_dir().join(&run.run_id).join(LEASE_FILE);
        plain::read(&path, plain::SMALL)
            .ok()
            .and_then(|text| serde_json::from_slice::<LeaseFile>(&text).ok())
            .is_some_and(|lease| lease.process.is_seen())
    }

    /// The keys that a run said it uses. A line that is cut is passed over.
    pub fn used_keys(&self, run_id: &str) -> Vec<Key> {
        if run_id.contains('/') || !super::tree::is_plain(run_id) {
            return Vec::new();
        }
        let path = self.runs_dir().join(run_id).join(USES_FILE);
        let bytes = plain::read(&path, plain::LARGE).unwrap_or_default();
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
        began: None,
    }
}

/// Writes the lease whole; gives the open file, which is what is beaten.
fn write_lease(dir: &RunDir, lease: &LeaseFile) -> Result<File, StoreError> {
    let path = dir.path().join(LEASE_FILE);
    let text = serde_json::to_vec(lease)
        .map_err(std::io::Error::other)
        .map_err(StoreError::io("write", &path))?;
    let file = dir
        .write(LEASE_FILE, &text)
        .map_err(StoreError::io("write", &path))?;
    run_dir::let_read(&file).map_err(StoreError::io("set the mode of", &path))?;
    clock::touch(&file).map_err(StoreError::io("touch", &path))?;
    Ok(file)
}

impl Run {
    /// One beat. If the lease was taken away meanwhile (this process was paused,
    /// and someone cleaned up after it), it is written anew, and its uses too.
    fn beat(&self, file: File) -> File {
        let path = self.dir.path().join(LEASE_FILE);
        let beaten = clock::touch(&file).and_then(|()| file.metadata());
        let in_place = beaten.as_ref().is_ok_and(|own| {
            std::fs::symlink_metadata(&path)
                .is_ok_and(|there| there.ino() == own.ino() && there.dev() == own.dev())
        });
        // For those who may not look into the folder.
        let _ = self.dir.touch();
        if in_place {
            let now = beaten
                .ok()
                .and_then(|own| Timestamp::try_from(clock::modified(&own)).ok());
            return self.note_the_clock(now).unwrap_or(file);
        }
        if self.dir.come_back().is_err() {
            return file;
        }
        let again = write_lease(&self.dir, &self.lock_lease());
        let mut uses = self.lock_uses();
        let there = std::fs::symlink_metadata(self.dir.path().join(USES_FILE)).is_ok();
        if !there && !uses.seen.is_empty() {
            let all: Vec<Key> = uses.seen.iter().copied().collect();
            uses.file = None;
            // At the next beat if not now: the file is still missing then.
            let _ = self.append(&mut uses, &all);
        }
        again.unwrap_or(file)
    }

    /// If the server's clock was set back, the run began earlier by it: what it made
    /// since must not look older than the run. Gives the file of the new lease.
    fn note_the_clock(&self, now: Option<Timestamp>) -> Option<File> {
        let mut lease = self.lock_lease();
        let earlier = now.filter(|now| lease.began.is_some_and(|began| *now < began))?;
        lease.began = Some(earlier);
        write_lease(&self.dir, &lease).ok()
    }

    fn lock_lease(&self) -> MutexGuard<'_, LeaseFile> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, uses: &mut Uses, keys: &[Key]) -> Result<(), StoreError> {
        let path = self.dir.path().join(USES_FILE);
        let file = match &mut uses.file {
            Some(file) => file,
            empty => {
                let file = self
                    .dir
                    .append(USES_FILE)
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
            .map_err(StoreError::io("start the thread for", run.dir.path()))?;
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
        self.run.dir.path()
    }

    /// The same, held open: what the run leaves is written through it.
    pub fn folder(&self) -> Arc<RunDir> {
        Arc::clone(&self.run.dir)
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
        &self.run.process
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = self.run.dir.remove(LEASE_FILE);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_run_began_earlier_once_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let times = Times {
            beat: Duration::from_millis(10),
            stale: Duration::from_secs(60),
        };
        let lease = store.begin_run(&times).unwrap();
        let began = || store.live_runs(&times).unwrap()[0].began.unwrap();
        let first = began();
        assert!(Timestamp::now().duration_since(first).abs() < SignedDuration::from_secs(60));
        // As if the server's clock had been an hour ahead until now.
        lease.run.lock_lease().began = Some(first + SignedDuration::from_hours(1));
        let started = std::time::Instant::now();
        loop {
            let said = lease.run.lock_lease().began.unwrap();
            if said < first + SignedDuration::from_mins(1) && began() == said {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(300), "{said}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(store.run_is_live(lease.run_id(), &times));
    }
}
