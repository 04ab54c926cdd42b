//! [`Keeper`]: where trusts are stored. Only those written by this user are valid, in a
//! folder that no one else can write.
//!
//! A trust is a file `<GENIUS_HOME>/trust/<hash of the pipeline's path>`. It names
//! its own inode, so that one that came with a repository, an archive or a copy is
//! invalid.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cover::{Contents, Project};
use super::facts::Command;

/// Version of a trust's file. Another one is not believed.
///
/// History: 0: a path and a digest. 2: what was shown, and contents.
const FORMAT: u32 = 2;
/// More than any trust needs.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What a trust holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// [`FORMAT`].
    #[serde(default)]
    pub format: u32,
    /// The inode of this very file.
    #[serde(default)]
    pub inode: u64,
    /// The pipeline file, absolute.
    pub path: PathBuf,
    /// BLAKE3 of the file, hex.
    pub digest: String,
    /// When the trust was given.
    pub when: Timestamp,
    /// The beginning of the hash of each line of the file, to show which changed.
    #[serde(default)]
    pub lines: Vec<String>,
    /// Its commands.
    #[serde(default)]
    pub commands: Vec<Command>,
    /// What the files that they name held.
    #[serde(default)]
    pub contents: Contents,
}

/// Why there is no valid trust.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// This user has no known home folder.
    #[error(
        "there is no folder for trusts: neither GENIUS_HOME, XDG_CACHE_HOME nor HOME is an absolute path"
    )]
    NoHome,
    /// Someone else may have written it.
    #[error("{} is not believed: {why}", .path.display())]
    Doubtful {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What fixes it.
        remedy: String,
    },
    /// The file system failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl KeepError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoHome => "set HOME, or GENIUS_HOME, to an absolute path of your own; `genius run --allow-commands` lets one run without a trust".to_owned(),
            Self::Doubtful { remedy, .. } => remedy.clone(),
            Self::Io { .. } => "GENIUS_HOME names another folder; `genius run --allow-commands` lets one run without a trust".to_owned(),
        }
    }
}

/// The folder of trusts.
#[derive(Debug)]
pub struct Keeper {
    home: PathBuf,
    folder: PathBuf,
}

/// An entry of the folder.
#[derive(Debug)]
pub struct Entry {
    /// The file.
    pub file: PathBuf,
    /// Its content, valid or not.
    pub trust: Trust,
    /// Why it is not valid.
    pub doubt: Option<String>,
}

impl Keeper {
    /// Checks the folders, and creates none.
    ///
    /// # Errors
    /// When there is no home folder, or others may write in it.
    pub fn new(home: Option<&Path>) -> Result<Self, KeepError> {
        let home = home.ok_or(KeepError::NoHome)?.to_owned();
        let folder = home.join("trust");
        for (path, link) in [(&home, true), (&folder, false)] {
            // GENIUS_HOME itself may be a link to where there is room.
            let found = if link {
                std::fs::metadata(path)
            } else {
                std::fs::symlink_metadata(path)
            };
            let metadata = match found {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
                Err(source) => {
                    return Err(KeepError::Io {
                        action: "read",
                        path: path.clone(),
                        source,
                    });
                }
            };
            let wrong = if metadata.is_dir() {
                doubt(path, &metadata)
            } else {
                let what = if metadata.is_symlink() {
                    "a symbolic link"
                } else {
                    "no folder"
                };
                Some((
                    format!("it is {what}"),
                    format!("remove it: `rm {}`", quoted(path)),
                ))
            };
            if let Some((why, remedy)) = wrong {
                return Err(KeepError::Doubtful {
                    path: path.clone(),
                    why,
                    remedy,
                });
            }
        }
        Ok(Self { home, folder })
    }

    /// Refuses a folder of trusts that a link leads into the project.
    ///
    /// # Errors
    /// When it is one.
    pub fn check_apart(&self, project: &Project) -> Result<(), KeepError> {
        if project.holds(&self.folder) && !project.names(&self.folder) {
            return Err(KeepError::Doubtful {
                path: self.folder.clone(),
                why: "a link leads from there into the project, which would bring its own trust"
                    .to_owned(),
                remedy: "set GENIUS_HOME to a folder outside the project".to_owned(),
            });
        }
        Ok(())
    }

    /// A folder for known hashes of files; `None` if there are no trusts.
    pub fn memory_folder(&self) -> Option<PathBuf> {
        let folder = self.folder.join("memory");
        if self.folder.is_dir() {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder.join("tmp"));
            made.ok()?;
        }
        Some(folder)
    }

    /// Where the trust in a pipeline file is, or would be.
    pub fn file(&self, pipeline: &Path) -> PathBuf {
        let hash = blake3::hash(pipeline.as_os_str().as_encoded_bytes());
        self.folder.join(hash.to_hex().as_str())
    }

    /// The trust in a pipeline file, if one was given.
    ///
    /// # Errors
    /// When there is one that is not valid.
    pub fn read(&self, pipeline: &Path) -> Result<Option<Trust>, KeepError> {
        let file = self.file(pipeline);
        let Some((trust, wrong)) = read(&file)? else {
            return Ok(None);
        };
        match wrong {
            Some((why, remedy)) => Err(KeepError::Doubtful {
                path: file,
                why,
                remedy,
            }),
            None => Ok((trust.path == pipeline).then_some(trust)),
        }
    }

    /// Records a trust, whole or not at all; only its owner may read or write it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, mut trust: Trust) -> Result<(), KeepError> {
        let target = self.file(&trust.path);
        let mut write = || -> std::io::Result<()> {
            for folder in [&self.home, &self.folder] {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)?;
            }
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            let inode = file.as_file().metadata()?.ino();
            trust.format = FORMAT;
            trust.inode = inode;
            file.write_all(&serde_json::to_vec(&trust)?)?;
            file.as_file().sync_all()?;
            file.persist(&target)?;
            let kept = std::fs::symlink_metadata(&target)?.ino();
            if kept != inode {
                return Err(std::io::Error::other(
                    "the file system gives files other inodes when they are renamed",
                ));
            }
            Ok(())
        };
        write().map_err(|source| KeepError::Io {
            action: "write",
            path: target.clone(),
            source,
        })
    }

    /// Everything in the folder that looks like a trust, by path.
    pub fn list(&self) -> Vec<Entry> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let mut all: Vec<Entry> = entries
            .flatten()
            .filter_map(|entry| {
                let file = entry.path();
                let (trust, wrong) = read(&file).ok()??;
                Some(Entry {
                    file,
                    trust,
                    doubt: wrong.map(|(why, _)| why),
                })
            })
            .collect();
        all.sort_by(|a, b| (&a.trust.path, a.trust.when).cmp(&(&b.trust.path, b.trust.when)));
        all
    }

    /// Removes every trust in a file; returns whether there was one.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn revoke(&self, pipeline: &Path) -> Result<bool, KeepError> {
        let mut files: Vec<PathBuf> = self
            .list()
            .into_iter()
            .filter(|entry| entry.trust.path == pipeline)
            .map(|entry| entry.file)
            .collect();
        // Whatever has that name is no longer a trust.
        let own = self.file(pipeline);
        if std::fs::symlink_metadata(&own).is_ok() && !files.contains(&own) {
            files.push(own);
        }
        for file in &files {
            std::fs::remove_file(file).map_err(|source| KeepError::Io {
                action: "remove",
                path: file.clone(),
                source,
            })?;
        }
        Ok(!files.is_empty())
    }
}

/// What is wrong, and what fixes it.
type Wrong = (String, String);

/// A trust's file, and why it is not valid. `None` if it does not exist or is not a
/// trust.
fn read(path: &Path) -> Result<Option<(Trust, Option<Wrong>)>, KeepError> {
    let io = |source| KeepError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let again = "`genius trust FILE` gives it anew".to_owned();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => {
            return Err(KeepError::Doubtful {
                path: path.to_owned(),
                why: "it is a symbolic link".to_owned(),
                remedy: again,
            });
        }
        Err(e) => return Err(io(e)),
    };
    let metadata = file.metadata().map_err(io)?;
    let Some(trust) = parse(&file, &metadata) else {
        return Ok(None);
    };
    let wrong = doubt(path, &metadata).or_else(|| {
        let why = if trust.format != FORMAT {
            "it was written by another version of Genius"
        } else if metadata.nlink() > 1 {
            "it has a second name"
        } else if trust.inode != metadata.ino() {
            "it is a copy, not written there by `genius trust`"
        } else {
            return None;
        };
        Some((why.to_owned(), again))
    });
    Ok(Some((trust, wrong)))
}

fn parse(file: &File, metadata: &Metadata) -> Option<Trust> {
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Whether others own it or may write it, and what fixes that.
fn doubt(path: &Path, metadata: &Metadata) -> Option<Wrong> {
    let me = user();
    if metadata.uid() != me {
        return Some((
            format!(
                "it belongs to another user (uid {}, and this is uid {me})",
                metadata.uid()
            ),
            format!(
                "set GENIUS_HOME to a folder of your own, or make it yours: `chown {me} {}`",
                quoted(path)
            ),
        ));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & 0o022 != 0).then(|| {
        (
            format!("others can write it (mode {mode:04o})"),
            format!(
                "check it, then make it private: `chmod go-w {}`",
                quoted(path)
            ),
        )
    })
}

/// The user that this process acts for.
pub(super) fn user() -> u32 {
    // SAFETY: takes nothing, and cannot fail.
    unsafe { libc::geteuid() }
}

fn quoted(path: &Path) -> String {
    crate::cli::environment::command_line([path.as_os_str().to_owned()].into_iter())
}
