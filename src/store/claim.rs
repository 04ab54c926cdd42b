//! [`Claim`]: who computes a key, so that a stage is computed once while the
//! run that computes it lives.
//!
//! A claim is a hint, not a lock: it saves work and protects nothing. Two
//! processes may both believe that they hold one (a paused holder that goes on
//! after its claim was taken over); then both compute the stage, and both keep
//! the same record whole. So nothing needs to be certain here, and nothing is
//! ever left that a person must remove: a claim counts as long as its run lives.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Key, Lease, Store, StoreError, Times, atomic, clock, plain, process};

/// Version of a claim's file.
///
/// History: 1: the fields of `ClaimFile`.
const CLAIM_FORMAT: u32 = 1;
/// How often to try while others take and give up the same claim.
const ATTEMPTS: usize = 16;

/// Who has a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its run; empty where the claim cannot be read.
    pub run_id: String,
    /// The stage that it computes, as its pipeline calls it.
    pub stage: String,
    /// Where it runs.
    pub host: String,
    /// Its process; 0 where the claim cannot be read.
    pub pid: u32,
    /// When it claimed the key, by its machine's clock.
    pub since: Timestamp,
}

/// The answer to [`Store::claim`].
#[derive(Debug)]
pub enum Claimed {
    /// Compute it, and drop the claim when its record is kept.
    Mine(Claim),
    /// Somebody else computes it: ask again later.
    Held(Holder),
}

#[derive(Debug, Serialize, Deserialize)]
struct ClaimFile {
    format: u32,
    run_id: String,
    stage: String,
    host: String,
    pid: u32,
    since: Timestamp,
    /// So that no two claims have the same content.
    nonce: String,
}

/// A key that this process computes. Given up when dropped.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    path: PathBuf,
    /// What its file holds, if it still is its own.
    content: Vec<u8>,
}

/// What stands at a claim's place.
enum Seen {
    Nothing,
    Held(Holder),
    /// What was read, so that nothing else is taken away for it.
    Dead(Vec<u8>),
}

impl Store {
    /// Claims a key for a run, unless a live run has it (be it this one).
    ///
    /// A claim of a run that is dead is taken over at once; so is one that cannot
    /// be read and is older than [`Times::stale`].
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn claim(&self, key: &Key, lease: &Lease, stage: &str) -> Result<Claimed, StoreError> {
        let path = self.claim_path(key);
        atomic::refuse_link(&self.claims_dir())?;
        let file = ClaimFile {
            format: CLAIM_FORMAT,
            run_id: lease.run_id().to_owned(),
            stage: stage.to_owned(),
            host: lease.process().host.clone(),
            pid: lease.process().pid,
            since: Timestamp::now(),
            nonce: format!("{:016x}", process::random()),
        };
        let content = serde_json::to_vec(&file)
            .map_err(std::io::Error::other)
            .map_err(StoreError::io("write", &path))?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            if self.create_claim(&path, &content)? {
                return Ok(Claimed::Mine(Claim {
                    store: self.clone(),
                    path,
                    content,
                }));
            }
            match self.look_at_claim(&path, lease.times(), Some(lease.run_id()))? {
                Seen::Nothing => {}
                Seen::Held(holder) => return Ok(Claimed::Held(holder)),
                Seen::Dead(judged) => {
                    last = serde_json::from_slice::<ClaimFile>(&judged).ok();
                    self.take_away(&path, &judged);
                }
            }
        }
        // So many are at it that one of them will have it.
        Ok(Claimed::Held(last.map_or_else(
            || Holder::unknown(SystemTime::now()),
            Holder::from,
        )))
    }

    /// Removes the claims of dead runs, on keys that nobody may ask for again.
    /// Gives the number removed.
    ///
    /// # Errors
    /// When `claims/` cannot be read. What cannot be removed is left.
    pub fn clean_claims(&self, times: &Times) -> Result<usize, StoreError> {
        let dir = self.claims_dir();
        atomic::refuse_link(&dir)?;
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(StoreError::io("read", &dir)(e)),
        };
        let mut removed = 0;
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let is_claim = path
                .extension()
                .is_some_and(|extension| extension == "json");
            if !is_claim {
                continue;
            }
            if let Seen::Dead(judged) = self.look_at_claim(&path, times, None)?
                && self.take_away(&path, &judged)
            {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes the claim's file, whole, unless there is one: a link to a file that
    /// was written before is made or not, over NFS too.
    fn create_claim(&self, path: &Path, content: &[u8]) -> Result<bool, StoreError> {
        let mut file = self.tmp_file()?;
        file.write_all(content)
            .and_then(|()| file.flush())
            .map_err(StoreError::io("write", file.path()))?;
        atomic::let_read(file.as_file(), path)?;
        let mut linked = std::fs::hard_link(file.path(), path);
        if linked
            .as_ref()
            .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        {
            atomic::make_dir(&self.claims_dir())?;
            linked = std::fs::hard_link(file.path(), path);
        }
        match linked {
            Ok(()) => Ok(true),
            // Over NFS a link may be made and its answer lost; then it is asked for
            // again, and is there already.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(plain::read(path, plain::SMALL).is_ok_and(|there| there == content))
            }
            Err(e) if no_links(&e) => create_without_links(path, content),
            Err(e) => Err(StoreError::io("write", path)(e)),
        }
    }

    fn look_at_claim(
        &self,
        path: &Path,
        times: &Times,
        own_run: Option<&str>,
    ) -> Result<Seen, StoreError> {
        let read = plain::open(path).and_then(|mut file| {
            let written = clock::modified(&file.metadata()?);
            // What is too large for a claim is judged as one that cannot be read.
            let content = plain::read_open(&mut file, plain::SMALL);
            Ok((content.unwrap_or_default(), written))
        });
        let (content, written) = match read {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Seen::Nothing),
            // A link, a pipe or a folder claims nothing.
            Err(e) if plain::is_not_plain(&e) => {
                self.set_aside(path)?;
                return Ok(Seen::Nothing);
            }
            Err(e) => return Err(StoreError::io("read", path)(e)),
        };
        // Another format is fine as long as it says whose it is.
        let Ok(claim) = serde_json::from_slice::<ClaimFile>(&content) else {
            let age = clock::apart(self.server_now(), written);
            return Ok(if age > times.stale {
                Seen::Dead(content)
            } else {
                Seen::Held(Holder::unknown(written))
            });
        };
        let live = own_run == Some(claim.run_id.as_str()) || self.run_is_live(&claim.run_id, times);
        Ok(if live {
            Seen::Held(claim.into())
        } else {
            Seen::Dead(content)
        })
    }

    /// Takes a claim away if it still holds what was read: moves it aside, looks
    /// at it there, and puts it back if it is another one (then in the moment
    /// between somebody else took it over, and a third may have come: harmless).
    fn take_away(&self, path: &Path, judged: &[u8]) -> bool {
        let read = |path: &Path| -> Option<Vec<u8>> {
            let mut file = plain::open(path).ok()?;
            Some(plain::read_open(&mut file, plain::SMALL).unwrap_or_default())
        };
        if read(path).as_deref() != Some(judged) {
            return false;
        }
        let aside = self.aside();
        if std::fs::rename(path, &aside).is_err() {
            return false;
        }
        let same = read(&aside).is_some_and(|content| content == judged);
        if !same {
            match std::fs::hard_link(&aside, path) {
                Err(e) if no_links(&e) && std::fs::symlink_metadata(path).is_err() => {
                    let _ = std::fs::rename(&aside, path);
                }
                _ => {}
            }
        }
        let _ = std::fs::remove_file(&aside);
        same
    }

    /// Moves what cannot be a claim out of a claim's place. Nothing is followed, and
    /// of a folder it is left to those who clean up.
    fn set_aside(&self, path: &Path) -> Result<(), StoreError> {
        let aside = self.aside();
        match std::fs::rename(path, &aside) {
            Ok(()) => {
                let _ = std::fs::remove_file(&aside);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io("remove", path)(e)),
        }
    }

    fn aside(&self) -> PathBuf {
        self.tmp_dir().join(format!(
            "{}{}-claim-{:016x}",
            atomic::TEMPORARY,
            std::process::id(),
            process::random()
        ))
    }

    fn claims_dir(&self) -> PathBuf {
        self.root().join("claims")
    }

    fn claim_path(&self, key: &Key) -> PathBuf {
        self.claims_dir().join(format!("{key}.json"))
    }
}

/// Whether the file system has no hard links (or none between these folders).
fn no_links(error: &std::io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EXDEV | Errno::EMLINK)
    )
}

/// If this process dies between the two steps, an unreadable claim stays, which
/// is taken over when it is old.
fn create_without_links(path: &Path, content: &[u8]) -> Result<bool, StoreError> {
    let mut file = match std::fs::File::create_new(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(e) => return Err(StoreError::io("write", path)(e)),
    };
    file.write_all(content).map_err(|e| {
        let _ = std::fs::remove_file(path);
        StoreError::io("write", path)(e)
    })?;
    Ok(true)
}

/// `stage train of run 20261123T031500-1a2b3c4d (process 4711 on host)`.
impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.run_id.is_empty() {
            return write!(f, "a run whose claim cannot be read");
        }
        write!(
            f,
            "stage {} of run {} (process {} on {})",
            self.stage, self.run_id, self.pid, self.host
        )
    }
}

impl Holder {
    fn unknown(since: SystemTime) -> Self {
        Self {
            run_id: String::new(),
            stage: String::new(),
            host: String::new(),
            pid: 0,
            since: Timestamp::try_from(since).unwrap_or_default(),
        }
    }
}

impl From<ClaimFile> for Holder {
    fn from(claim: ClaimFile) -> Self {
        Self {
            run_id: claim.run_id,
            stage: claim.stage,
            host: claim.host,
            pid: claim.pid,
            since: claim.since,
        }
    }
}

impl Claim {
    /// Whether it was not taken over (by someone who took this run for dead).
    pub fn is_still_mine(&self) -> bool {
        plain::read(&self.path, plain::SMALL).is_ok_and(|there| there == self.content)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Where nothing can be moved (a full disk), it is removed all the same: this
        // run, which lives, would wait for itself.
        if !self.store.take_away(&self.path, &self.content) && self.is_still_mine() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
