//! [`StoreError`]: what can go wrong in the cache, with the path where it did.

use std::path::{Path, PathBuf};

use super::ContentHash;

/// A failure of the cache or of the file system under it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done (`read`, `rename`, ...).
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The cache was written by a newer Genius.
    #[error(
        "the cache {root} has format {found}, and this Genius knows formats up to {known}: \
         use a newer Genius, or another cache folder"
    )]
    TooNew {
        /// Root of the cache.
        root: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format known here.
        known: u32,
    },
    /// The folder holds something that is no cache.
    #[error("{root} is not empty and not a cache of Genius ({why}): name another cache folder")]
    NotACache {
        /// The folder.
        root: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A symbolic link in the place of a folder of the cache.
    #[error(
        "{path} is a symbolic link, and the cache has a folder of its own there: remove the link; \
         to keep the cache elsewhere, name that place with `--cache`"
    )]
    LinkedFolder {
        /// The link.
        path: PathBuf,
    },
    /// A symbolic link, socket, pipe or device among a stage's outputs.
    #[error("{path} is a {what}: only plain files and folders can be hashed and kept")]
    NotAFile {
        /// The entry.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Something is mounted among a stage's outputs: what is in it belongs elsewhere.
    #[error("{path} is a mount: what is in it lies elsewhere, and was left alone")]
    Mounted {
        /// The folder.
        path: PathBuf,
    },
    /// A stage's outputs are not where they were made.
    #[error("{path} is no longer the folder that the stage was given: it was moved or replaced")]
    Moved {
        /// The folder.
        path: PathBuf,
    },
    /// An output of a stage that is not a folder.
    #[error("{path} is a {what}: an output is a folder")]
    NotAFolder {
        /// The output.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Something of a stage's outputs changed while it was read.
    #[error(
        "{path} changed while it was kept: something that the stage started still writes there"
    )]
    Changed {
        /// The entry.
        path: PathBuf,
    },
    /// A file name that is not UTF-8, or a path that a tree cannot hold.
    #[error("{path}: the name cannot be stored ({why})")]
    BadName {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A folder that contains itself through a symbolic link.
    #[error("{path} leads back to a folder that it lies in")]
    LinkLoop {
        /// The link.
        path: PathBuf,
    },
    /// A blob is missing or does not hold what its name says; the record that
    /// names it is to be treated as a miss.
    #[error("blob {hash} of the cache is damaged ({why}): {path}")]
    Damaged {
        /// Its name.
        hash: ContentHash,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl StoreError {
    /// For `map_err`: names action and path of a failed file operation.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether it says that a blob is damaged: then the record is a miss.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Whether there is no room.
    pub fn is_of_space(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether the disk is full or may not be written: what the cache holds can
    /// be used all the same.
    pub fn is_of_disk(&self) -> bool {
        use std::io::ErrorKind;
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::PermissionDenied
        ))
    }
}
