//! Lists the files of a folder and hashes them.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::StoreError;
use super::read::hash_file;
use super::tree::{TreeFile, is_plain};

/// What to do with a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Take what it points at; skip `.git` and `.cache` (inputs of people).
    Follow,
    /// Refuse it by name (outputs of stages).
    Refuse,
}

/// A file found: its path in the folder, and where it is.
pub(super) struct Found {
    pub relative: String,
    pub path: PathBuf,
}

/// Every file under `root`, in order of names.
pub(super) fn list(root: &Path, links: Links) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    let canonical = root.canonicalize().map_err(StoreError::io("read", root))?;
    visit(root, "", links, &mut vec![canonical], &mut found)?;
    Ok(found)
}

/// `ancestors` are the canonical folders on the way here, against loops of links.
fn visit(
    dir: &Path,
    prefix: &str,
    links: Links,
    ancestors: &mut Vec<PathBuf>,
    found: &mut Vec<Found>,
) -> Result<(), StoreError> {
    let mut entries = std::fs::read_dir(dir)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(StoreError::io("read", dir))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        if links == Links::Follow && (name == ".git" || name == ".cache") {
            continue;
        }
        let Some(name) = name.to_str() else {
            return Err(StoreError::BadName {
                path,
                why: "it is not UTF-8",
            });
        };
        if !is_plain(name) {
            return Err(StoreError::BadName {
                path,
                why: "it holds a backslash",
            });
        }
        let relative = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        let mut kind = entry.file_type().map_err(StoreError::io("read", &path))?;
        let linked = kind.is_symlink();
        if linked && links == Links::Follow {
            kind = std::fs::metadata(&path)
                .map_err(StoreError::io("follow the link", &path))?
                .file_type();
        }
        if kind.is_dir() {
            let canonical = path.canonicalize().map_err(StoreError::io("read", &path))?;
            if linked && ancestors.contains(&canonical) {
                return Err(StoreError::LinkLoop { path });
            }
            ancestors.push(canonical);
            visit(&path, &relative, links, ancestors, found)?;
            ancestors.pop();
        } else if kind.is_file() {
            found.push(Found { relative, path });
        } else {
            return Err(StoreError::NotAFile {
                path,
                what: describe(kind),
            });
        }
    }
    Ok(())
}

/// Hashes files side by side; in the order given.
pub(super) fn hash_files(found: Vec<Found>) -> Result<Vec<TreeFile>, StoreError> {
    let hashed = side_by_side(&found, |file| hash_file(&file.path))?;
    Ok(found
        .into_iter()
        .zip(hashed)
        .map(|(file, (hash, bytes))| TreeFile {
            path: file.relative,
            hash,
            bytes,
        })
        .collect())
}

/// Maps items on as many threads as there are cores (eight at most: the work is
/// reading); the first error in the order of the items wins.
pub(super) fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    f: impl Fn(&T) -> Result<R, StoreError> + Sync,
) -> Result<Vec<R>, StoreError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(8).min(items.len());
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let mut results: Vec<(usize, Result<R, StoreError>)> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else {
                    return mine;
                };
                mine.push((index, f(item)));
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .flat_map(|handle| {
                handle
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What an entry that is no file is, for people.
pub(super) fn describe(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else {
        "special file"
    }
}
