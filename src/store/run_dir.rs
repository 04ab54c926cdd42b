//! [`RunDir`]: the folder of a run, held open, and what is written in it.
//!
//! A cache may be shared with others who may write to `runs/`. So a run's folder
//! may be written by its owner only, and everything in it is opened from the open
//! folder and not by its path: what somebody puts in the place of the folder, or
//! of a file in it (a link, a pipe, a second name of another file), is never
//! written to.

use std::fs::{File, Permissions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{clock, plain, process};

/// Of a run's folder, less the umask: nobody but its owner writes there, since
/// that would be to plant links; others may look, to see whether it lives.
pub(super) const FOLDER_MODE: u32 = 0o755;
/// Of files in it, less the umask.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);
/// Bytes of a log's name: some file systems take no more than 255.
const MOST_OF_NAME: usize = 200;

/// The folder of a run.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Another one when it was removed and made again.
    folder: RwLock<Arc<OwnedFd>>,
}

impl RunDir {
    /// Opens the folder at `path`, which is not a link.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            folder: RwLock::new(Arc::new(open_folder(path)?)),
        })
    }

    /// Its path, for people and for reading. Nothing is to be written by it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.folder.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new file in it.
    ///
    /// # Errors
    /// When something of that name is there, or it cannot be made.
    pub fn create(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | plain::FLAGS;
        let made = openat(self.folder(), name, flags, FILE_MODE)?;
        plain::checked(made.into())
    }

    /// A file in it, to be written to at its end; made if need be.
    ///
    /// # Errors
    /// When it cannot be made or opened, or is not a plain file that has this name
    /// alone.
    pub fn append(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | plain::FLAGS;
        let opened = openat(self.folder(), name, flags, FILE_MODE)
            .map_err(|e| plain::explain(e.into(), &self.path.join(name)))?;
        let file = plain::checked(opened.into())?;
        if file.metadata()?.nlink() > 1 {
            return Err(plain::not_plain("second name of another file"));
        }
        Ok(file)
    }

    /// A file in it, to be read.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not a plain file.
    pub fn read(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_RDONLY | plain::FLAGS;
        let opened = openat(self.folder(), name, flags, Mode::empty())
            .map_err(|e| plain::explain(e.into(), &self.path.join(name)))?;
        plain::checked(opened.into())
    }

    /// Writes a file whole, in the place of whatever has its name. Gives it open.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<File> {
        let folder = self.folder();
        let temporary = format!(
            ".tmp-{name}-{}-{:016x}",
            std::process::id(),
            process::random()
        );
        let mut file = self.create(&temporary)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.flush())
            .and_then(|()| {
                renameat(&folder, temporary.as_str(), &folder, name).map_err(Error::from)
            });
        if let Err(e) = written {
            let _ = self.remove(&temporary);
            return Err(e);
        }
        Ok(file)
    }

    /// Removes a file in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(unlinkat(self.folder(), name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The log of a stage of the run.
    pub fn log(self: &Arc<Self>, stage: &str) -> StageLog {
        StageLog {
            run: Arc::clone(self),
            name: log_name(stage),
        }
    }

    /// Sets the folder's own time to the server's now, for those who may not look
    /// into it.
    pub(super) fn touch(&self) -> Result<()> {
        clock::touch(self.folder().as_fd())
    }

    /// Whether the folder still stands at its path.
    pub(super) fn is_in_place(&self) -> bool {
        let same = || -> Result<bool> {
            let own = File::from(self.folder().try_clone()?).metadata()?;
            let there = std::fs::symlink_metadata(&self.path)?;
            Ok(own.ino() == there.ino() && own.dev() == there.dev())
        };
        same().unwrap_or(false)
    }

    /// Makes the folder again if it was removed.
    ///
    /// # Errors
    /// When something else stands at its path, or it cannot be made.
    pub(super) fn come_back(&self) -> Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        if let Some(runs) = self.path.parent() {
            std::fs::create_dir_all(runs)?;
        }
        make_folder(&self.path)?;
        let folder = open_folder(&self.path)?;
        *self.folder.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(folder);
        Ok(())
    }

    /// The same folder under the path that it was moved to.
    ///
    /// # Errors
    /// When another one stands there.
    pub(super) fn moved_to(self, path: &Path) -> Result<Self> {
        let moved = Self {
            path: path.to_owned(),
            ..self
        };
        if moved.is_in_place() {
            Ok(moved)
        } else {
            Err(Error::new(
                ErrorKind::AlreadyExists,
                "another folder was put in its place",
            ))
        }
    }
}

/// Makes a folder that only its owner may write.
fn make_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(FOLDER_MODE).create(path)
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    Ok(folder.into())
}

/// Lets others read a file, whatever the umask: they see in it that a run lives.
pub(super) fn let_read(file: &File) -> Result<()> {
    file.set_permissions(Permissions::from_mode(0o644))
}

/// The file in a run's folder in which a stage's words are: its name in the run,
/// or as much of it as a file system takes.
pub fn log_name(stage: &str) -> String {
    let plain = !stage.contains(['/', '\0']) && !stage.starts_with('.');
    if plain && stage.len() <= MOST_OF_NAME {
        return format!("{stage}.log");
    }
    let beginning: String = stage
        .chars()
        .map(|c| {
            if matches!(c, '/' | '\0' | '.') {
                '_'
            } else {
                c
            }
        })
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= MOST_OF_NAME / 2).then_some(c)
        })
        .collect();
    let hash = blake3::hash(stage.as_bytes()).to_hex();
    format!("{beginning}-{}.log", &hash[..16])
}

/// The log of a stage of a run: what it and its process say.
#[derive(Debug, Clone)]
pub struct StageLog {
    run: Arc<RunDir>,
    name: String,
}

impl StageLog {
    /// The log at a path: in `folder`, held open, if it is of that, else in the folder
    /// that is there now.
    ///
    /// # Errors
    /// When there is no folder, or the path names no file.
    pub fn at(path: &Path, folder: Option<&Arc<RunDir>>) -> Result<Self> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Err(Error::new(ErrorKind::InvalidInput, "it names no file"));
        };
        let run = match folder.filter(|folder| folder.path() == dir) {
            Some(folder) => Arc::clone(folder),
            None => Arc::new(RunDir::open(dir)?),
        };
        Ok(Self {
            run,
            name: name.to_owned(),
        })
    }

    /// The log, to be written to at its end; made if need be.
    ///
    /// # Errors
    /// When it cannot be made or opened, or is not a plain file that has this name
    /// alone.
    pub fn append(&self) -> Result<File> {
        self.run.append(&self.name)
    }

    /// The log, to be read.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not a plain file.
    pub fn open(&self) -> Result<File> {
        self.run.read(&self.name)
    }

    /// How long it is by now.
    pub fn end(&self) -> u64 {
        let length = |file: File| file.metadata().map(|m| m.len());
        self.open().and_then(length).unwrap_or(0)
    }
}

/// Its path.
impl std::fmt::Display for StageLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.run.path.join(&self.name).display().fmt(f)
    }
}
