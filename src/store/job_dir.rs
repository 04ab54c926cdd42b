//! [`JobDir`]: where a job works, on the cache's file system, and the removal
//! of those that dead processes left behind.

use jiff::SignedDuration;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

use super::process::Process;
use super::{Store, StoreError, Times, atomic, clock, plain};

/// Says whose a job folder is.
const OWNER_FILE: &str = "owner.json";
/// A temporary of which nobody can tell whether its process lives goes at this age.
const UNOWNED_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A folder for one job, removed on drop.
#[derive(Debug)]
pub struct JobDir {
    dir: TempDir,
}

impl JobDir {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the job makes one sub-folder an output.
    pub fn output(&self) -> PathBuf {
        self.path().join("output")
    }

    /// For anything else.
    pub fn scratch(&self) -> PathBuf {
        self.path().join("scratch")
    }

    /// Leaves the folder in place, for a look at what went wrong.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

impl Store {
    /// A new folder `tmp/<label>-<pid>-<random>/` with `output` and `scratch` in it.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn job_dir(&self, label: &str) -> Result<JobDir, StoreError> {
        let tmp = self.tmp_dir();
        let label: String = label
            .chars()
            .take(60)
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{label}-{}-", std::process::id()))
            .rand_bytes(8)
            // A cache may be shared: what a stage has not finished is nobody else's.
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(&tmp)
            .map_err(StoreError::io("make a folder in", &tmp))?;
        let job = JobDir { dir };
        let owner = Process::this();
        let path = job.path().join(OWNER_FILE);
        serde_json::to_vec(&owner)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&path, text))
            .map_err(StoreError::io("write", &path))?;
        atomic::make_dir(&job.output())?;
        atomic::make_dir(&job.scratch())?;
        Ok(job)
    }

    /// Removes what dead processes of this host left in `tmp/`; what does not say
    /// whose it is, or is of another host, goes when it is a day old and older than
    /// every run under way. Gives the number removed.
    ///
    /// # Errors
    /// When `tmp/` cannot be read. What cannot be removed is left.
    pub fn clean_tmp(&self) -> Result<usize, StoreError> {
        let leftovers = self.find_leftovers(true)?;
        Ok(leftovers
            .iter()
            .filter(|path| self.remove_leftover(path))
            .count())
    }

    /// What [`Store::clean_tmp`] would remove.
    pub(super) fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        self.find_leftovers(false)
    }

    /// With `date`, what has no time that can be believed (the clock was set back since)
    /// gets the present one, so that its age is known from now on.
    fn find_leftovers(&self, date: bool) -> Result<Vec<PathBuf>, StoreError> {
        let tmp = self.tmp_dir();
        atomic::refuse_link(&tmp)?;
        let entries = match std::fs::read_dir(&tmp) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StoreError::io("read", &tmp)(e)),
        };
        let mut leftovers = Vec::new();
        let mut now = None;
        let mut live = None;
        for path in entries.filter_map(Result::ok).map(|e| e.path()) {
            let goes = match owner(&path) {
                Some(owner) if owner.is_gone() => true,
                Some(owner) if owner.is_seen() => false,
                // It says not whose it is, or of another machine, or from before a restart.
                _ => {
                    let now = *now.get_or_insert_with(|| self.server_time());
                    let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                        continue;
                    };
                    let Some(written) = clock::FileTimes::of(&metadata).written(now) else {
                        if date {
                            let _ = clock::touch_path(&path);
                        }
                        continue;
                    };
                    // A run under way may have left it, whatever the clock was then.
                    now.duration_since(written) > UNOWNED_AGE && {
                        if live.is_none() {
                            live = Some(self.runs_that_may_live(&Times::default())?);
                        }
                        live.iter().flatten().all(|run| written < run.since(now))
                    }
                }
            };
            if goes {
                leftovers.push(path);
            }
        }
        Ok(leftovers)
    }

    /// Whether it could be removed.
    pub(super) fn remove_leftover(&self, path: &Path) -> bool {
        let is_dir = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
        if is_dir {
            // Of a garbage collection that was killed: what it had not yet
            // decided to remove for good goes back first.
            self.put_back_all(path);
            std::fs::remove_dir_all(path).is_ok()
        } else {
            std::fs::remove_file(path).is_ok()
        }
    }
}

/// Whose a job folder is.
fn owner(dir: &Path) -> Option<Process> {
    // Of a link to a folder nobody is the owner.
    let text = plain::is_folder(dir)
        .then(|| plain::read(&dir.join(OWNER_FILE), plain::SMALL).ok())
        .flatten()?;
    serde_json::from_slice(&text).ok()
}
