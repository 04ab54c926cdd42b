//! [`ContentHash`] (of bytes) and [`Key`] (of a stage's fingerprint): BLAKE3,
//! written as 64 hex digits. Two types, so that one is never taken for the other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::read::hash_file;
use super::{StoreError, Tree, walk};

/// A text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hash: 64 hex digits are needed")]
pub struct ParseHashError(pub String);

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Its first 12 hex digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                blake3::Hash::from_hex(text)
                    .map(|hash| Self(*hash.as_bytes()))
                    .map_err(|_| ParseHashError(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_type! {
    /// BLAKE3 of a file's bytes, or of a folder's canonical encoding ([`Tree`]).
    ContentHash
}
hash_type! {
    /// BLAKE3 of a stage's fingerprint: what its record is kept under.
    Key
}

impl ContentHash {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// What the file system says of a file or of all files of a folder: changes when one
/// is written, also when it is written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(ContentHash);

impl Stamp {
    /// Of a file or folder outside the cache: sizes, inodes and times of change of
    /// content of its files. Reads none of them.
    ///
    /// # Errors
    /// As [`hash_path`].
    pub fn of_source(path: &Path) -> Result<Self, StoreError> {
        let files = |path: &Path| Ok(walk::list(path)?.into_iter().map(|f| f.path).collect());
        Self::new(path, &files, false)
    }

    /// Of an artifact as it is laid out: its folders count too, which tell of files
    /// that came and went. The times of its files do not: a file is a blob, which is
    /// touched when another stage makes the same.
    ///
    /// # Errors
    /// As [`hash_path`].
    pub fn of_artifact(folder: &Path) -> Result<Self, StoreError> {
        let files = |path: &Path| {
            Ok(walk::list_plain(path)?
                .into_iter()
                .map(|f| f.path)
                .collect())
        };
        Self::new(folder, &files, true)
    }

    fn new(
        path: &Path,
        files: &dyn Fn(&Path) -> Result<Vec<PathBuf>, StoreError>,
        folders: bool,
    ) -> Result<Self, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let mut paths = vec![path.to_owned()];
        let is_dir = path.is_dir();
        if is_dir {
            paths.extend(files(path)?);
        }
        if is_dir && folders {
            let within = |p: &Path| p.parent().map(Path::to_owned).filter(|p| p != path);
            let mut parents: Vec<_> = paths[1..].iter().filter_map(|p| within(p)).collect();
            parents.dedup();
            paths.extend(parents);
        } else if is_dir {
            paths.remove(0);
        }
        let mut hasher = blake3::Hasher::new();
        for path in paths {
            let m = std::fs::metadata(&path).map_err(StoreError::io("read", &path))?;
            hasher.update(path.as_os_str().as_encoded_bytes());
            // The size of a folder is the file system's affair.
            for number in [m.dev(), m.ino(), if m.is_dir() { 0 } else { m.len() }] {
                hasher.update(&number.to_le_bytes());
            }
            if !folders || m.is_dir() {
                for number in [m.mtime(), m.mtime_nsec()] {
                    hasher.update(&number.to_le_bytes());
                }
            }
        }
        Ok(Self(ContentHash(*hasher.finalize().as_bytes())))
    }
}

/// The content hash of a file or folder anywhere on this machine: BLAKE3 of a
/// file's bytes, the tree hash of a folder's files.
///
/// Symbolic links are followed (a Hugging Face snapshot folder consists of
/// them). In a folder, entries named `.git` and `.cache` are skipped at any
/// depth, since tools change them without changing the content; every other
/// file counts, hidden ones too. Empty folders do not.
///
/// # Errors
/// When something cannot be read, is no plain file or folder, or has a name
/// that is not UTF-8.
pub fn hash_path(path: &Path) -> Result<ContentHash, StoreError> {
    let metadata = std::fs::metadata(path).map_err(StoreError::io("read", path))?;
    if metadata.is_dir() {
        Ok(Tree::new(walk::hash_files(walk::list(path)?)?).hash)
    } else if metadata.is_file() {
        Ok(hash_file(path)?.0)
    } else {
        Err(StoreError::NotAFile {
            path: path.to_owned(),
            what: walk::describe(metadata.file_type()),
        })
    }
}
