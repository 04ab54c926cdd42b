//! [`Tree`]: a folder of files, by content.

use serde::{Deserialize, Serialize};

use super::ContentHash;

/// Domain of tree hashes: a tree never has the hash of a file. Raising the
/// number in it renames every tree, and so reruns everything.
///
/// History: v1: sorted files, each with path, hash and size.
const TREE_DOMAIN: &str = "genius 2026 tree v1";
/// Domain of trees in which a file is executable: behind each file stands whether
/// it is. The others keep the hash that they always had.
const EXECUTABLE_DOMAIN: &str = "genius 2026 tree with executables v1";

/// A file of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    /// Relative to the folder, parts joined by `/`.
    pub path: String,
    /// BLAKE3 of its bytes.
    pub hash: ContentHash,
    /// Its size.
    pub bytes: u64,
    /// Whether it may be run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A folder of files, by content and by whether they may be run. Other modes, times
/// and empty folders are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Of the canonical encoding of `files`.
    pub hash: ContentHash,
    /// Sorted by the bytes of their paths.
    pub files: Vec<TreeFile>,
}

impl Tree {
    /// The tree of these files, in any order.
    pub fn new(mut files: Vec<TreeFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            hash: hash_of(&files),
            files,
        }
    }

    /// Size of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Whether it is what its hash says, and every path stays inside the folder:
    /// asked of trees that were read from disk.
    pub fn is_sound(&self) -> bool {
        self.files.windows(2).all(|w| w[0].path < w[1].path)
            && self.files.iter().all(|f| is_plain(&f.path))
            && hash_of(&self.files) == self.hash
    }
}

/// Whether a relative path has only plain parts: none empty, `.` or `..`.
pub(super) fn is_plain(path: &str) -> bool {
    !path.contains(['\0', '\\']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Length-prefixed, so that no two lists of files share an encoding.
fn hash_of(files: &[TreeFile]) -> ContentHash {
    let executables = files.iter().any(|file| file.executable);
    let mut hasher = blake3::Hasher::new_derive_key(if executables {
        EXECUTABLE_DOMAIN
    } else {
        TREE_DOMAIN
    });
    hasher.update(&(files.len() as u64).to_le_bytes());
    for file in files {
        hasher.update(&(file.path.len() as u64).to_le_bytes());
        hasher.update(file.path.as_bytes());
        hasher.update(file.hash.as_bytes());
        hasher.update(&file.bytes.to_le_bytes());
        if executables {
            hasher.update(&[u8::from(file.executable)]);
        }
    }
    ContentHash::from_bytes(*hasher.finalize().as_bytes())
}
