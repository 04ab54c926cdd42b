//! [`JobDir`]: where a job works, on the cache's file system, and the removal
//! of those that dead processes left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use super::{Store, StoreError, atomic};

/// Says whose a job folder is.
const OWNER_FILE: &str = "owner.json";
/// A temporary that does not say whose it is goes at this age.
const UNOWNED_AGE: Duration = Duration::from_secs(24 * 3600);

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
    /// whose it is goes when it is a day old. Gives the number removed.
    ///
    /// # Errors
    /// When `tmp/` cannot be read. What cannot be removed is left.
    pub fn clean_tmp(&self) -> Result<usize, StoreError> {
        let leftovers = self.leftovers()?;
        Ok(leftovers
            .iter()
            .filter(|path| self.remove_leftover(path))
            .count())
    }

    /// What [`Store::clean_tmp`] would remove.
    pub(super) fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let tmp = self.tmp_dir();
        let entries = match std::fs::read_dir(&tmp) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StoreError::io("read", &tmp)(e)),
        };
        let is_gone = |path: &PathBuf| match owner(path) {
            Some(owner) => owner.is_gone(),
            None => is_old(path),
        };
        Ok(entries
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(is_gone)
            .collect())
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
    serde_json::from_slice(&std::fs::read(dir.join(OWNER_FILE)).ok()?).ok()
}

fn is_old(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|time| time.elapsed().ok())
        .is_some_and(|age| age > UNOWNED_AGE)
}
