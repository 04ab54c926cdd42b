//! [`JobDir`]: where a job works, on the cache's file system; [`Written`]: what it
//! wrote into an output; and the removal of folders that dead processes left behind.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;

use super::folder::{self, Folder};
use super::process::Process;
use super::walk::{self, Plain};
use super::{Store, StoreError, Times, atomic, clock, plain};

/// Says whose a job folder is.
const OWNER_FILE: &str = "owner.json";
/// A temporary file or folder goes at this age where its process cannot be looked at.
const UNOWNED_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Where the outputs are.
const OUTPUT: &str = "output";
/// Where a file waits on its way from an output to its blob.
const TAKEN: &str = "taken";

/// A folder for one job, removed on drop.
#[derive(Debug)]
pub struct JobDir {
    path: PathBuf,
    /// The folder, and the one of the outputs in it, as they were made: a program
    /// can put others in their places.
    held: Folder,
    output: Folder,
    keep: bool,
}

/// The files of an output, as they were found; none was read yet.
#[derive(Debug)]
pub struct Written {
    pub(super) folder: Folder,
    pub(super) files: Vec<Plain>,
}

impl Written {
    /// Path and size of each file.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files
            .iter()
            .map(|file| (file.relative.as_str(), file.seen.bytes))
    }
}

impl JobDir {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the job makes one sub-folder an output.
    pub fn output(&self) -> PathBuf {
        self.path.join(OUTPUT)
    }

    /// For anything else.
    pub fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// Leaves the folder in place, for a look at what went wrong.
    pub fn keep(mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }

    /// What was written into an output; `None` if it is not there.
    ///
    /// # Errors
    /// When it is not a folder of this job, or holds anything but files and folders
    /// (named).
    pub fn written(&self, name: &str) -> Result<Option<Written>, StoreError> {
        self.check_place()?;
        let path = self.output().join(name);
        let name = OsStr::new(name);
        let seen = match self.output.look(name) {
            Ok(seen) => seen,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("read", &path)(e)),
        };
        if !seen.is_dir() {
            let what = seen.describe();
            return Err(StoreError::NotAFolder { path, what });
        }
        let opened = self.output.folder(name);
        let folder = opened.map_err(|e| walk::not_opened(e, &path))?;
        let files = walk::list_in(&folder, &path)?;
        Ok(Some(Written { folder, files }))
    }

    /// The folder of outputs as if it were one itself.
    #[cfg(test)]
    pub(crate) fn whole(&self) -> Result<Written, StoreError> {
        let folder = self.output.descend("").expect("it is open");
        let files = walk::list_in(&folder, &self.output())?;
        Ok(Written { folder, files })
    }

    /// Whether the outputs lie where they were made: a result that was written
    /// somewhere else, through a link in the place of a folder, is not here.
    fn check_place(&self) -> Result<(), StoreError> {
        let job = std::fs::symlink_metadata(&self.path).ok();
        let here = self.held.seen().ok().zip(job);
        let same_job = here.is_some_and(|(held, found)| held.is_of(&found));
        let output = match self.held.look(OsStr::new(OUTPUT)) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(StoreError::io("read", &self.path)(e));
            }
            looked => looked.ok(),
        };
        let same_output =
            output.is_some_and(|found| self.output.seen().is_ok_and(|held| held.is_same(&found)));
        let moved = |path| Err(StoreError::Moved { path });
        match (same_job, same_output) {
            (true, true) => Ok(()),
            (false, _) => moved(self.path.clone()),
            (true, false) => moved(self.output()),
        }
    }

    /// A place for files on their way, on the file system of the outputs.
    pub(super) fn taken(&self) -> Result<Folder, StoreError> {
        let name = OsStr::new(TAKEN);
        let path = self.path.join(TAKEN);
        // What a program put there, or an output before this one left.
        self.held
            .remove(name)
            .and_then(|()| self.held.make(name))
            .map_err(StoreError::io("make the folder", &path))
    }
}

impl Drop for JobDir {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let (held, there) = (self.held.seen(), std::fs::symlink_metadata(&self.path));
        // What cannot be removed is left, and another folder in its place is somebody's.
        let _ = match (held, there) {
            (_, Ok(there)) if there.is_symlink() => std::fs::remove_file(&self.path),
            (Ok(held), Ok(there)) if held.is_of(&there) => remove(&self.path),
            _ => Ok(()),
        };
    }
}

/// Removes a folder of a job; last of all what says whose it is, so that one in which
/// something is mounted goes when that is gone.
fn remove(path: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{CrossesDevices, ResourceBusy};
    if let Ok(folder) = Folder::open(path) {
        for name in folder.names()? {
            if name != OWNER_FILE
                && let Err(e) = folder.remove(&name)
                && matches!(e.kind(), CrossesDevices | ResourceBusy)
            {
                return Err(e);
            }
        }
    }
    folder::remove_dir_all(path)
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
        let owner = Process::this();
        let path = dir.path().join(OWNER_FILE);
        serde_json::to_vec(&owner)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&path, text))
            .map_err(StoreError::io("write", &path))?;
        let output = dir.path().join(OUTPUT);
        atomic::make_dir(&output)?;
        atomic::make_dir(&dir.path().join("scratch"))?;
        let open = |path: &Path| Folder::open(path).map_err(StoreError::io("open", path));
        let (held, output) = (open(dir.path())?, open(&output)?);
        // From here on it is removed by `drop`, which leaves alone what a program mounts in it.
        Ok(JobDir {
            path: dir.keep(),
            held,
            output,
            keep: false,
        })
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
                // Without an owner, of another machine, or from before a restart.
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
            remove(path).is_ok()
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
