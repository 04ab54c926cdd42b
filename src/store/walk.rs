//! Lists the files of a folder and hashes them.

use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;

use super::StoreError;
use super::folder::{Folder, Seen};
use super::read::hash_file;
use super::tree::{TreeFile, is_plain};

/// Most bytes of a path inside a tree: with the folder of the tree before it, it
/// must stay below what a system call takes (4,096).
const LONGEST_PATH: usize = 3_000;

/// A file found: its path in the folder, and where it is.
pub(super) struct Found {
    pub relative: String,
    pub path: PathBuf,
}

/// A file of the cache or of a stage's output, and what it was when it was looked at.
#[derive(Debug)]
pub(super) struct Plain {
    pub relative: String,
    pub path: PathBuf,
    pub seen: Seen,
}

/// Every file under a folder of people's, in order of names. Links are followed;
/// `.git` and `.cache` are passed over.
pub(super) fn list(root: &Path) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    let canonical = root.canonicalize().map_err(StoreError::io("read", root))?;
    visit(root, "", &mut vec![canonical], &mut found)?;
    Ok(found)
}

/// Every file under a folder of the cache or of a stage's output. Links, special
/// files and what is mounted there are refused by name.
pub(super) fn list_plain(root: &Path) -> Result<Vec<Plain>, StoreError> {
    let folder = Folder::open(root).map_err(StoreError::io("read", root))?;
    list_in(&folder, root)
}

/// The same of a folder that is open; `root` is what messages call it.
pub(super) fn list_in(folder: &Folder, root: &Path) -> Result<Vec<Plain>, StoreError> {
    let mut found = Vec::new();
    // Not by recursion: a program can nest folders deeper than a stack is.
    let mut folders = vec![String::new()];
    while let Some(prefix) = folders.pop() {
        let at = root.join(&prefix);
        let here = folder.descend(&prefix).map_err(|e| not_opened(e, &at))?;
        let names = here.names().map_err(StoreError::io("read", &at))?;
        let mut below = Vec::new();
        for name in names {
            let path = at.join(&name);
            let relative = relative(&prefix, &name, &path)?;
            let seen = here.look(&name).map_err(StoreError::io("read", &path))?;
            if seen.is_dir() {
                below.push(relative);
            } else if seen.is_file() {
                found.push(Plain {
                    relative,
                    path,
                    seen,
                });
            } else {
                let what = seen.describe();
                return Err(StoreError::NotAFile { path, what });
            }
        }
        folders.extend(below.into_iter().rev());
    }
    Ok(found)
}

/// Why something that was looked at is not opened.
pub(super) fn not_opened(error: std::io::Error, path: &Path) -> StoreError {
    let path = path.to_owned();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EXDEV) => StoreError::Mounted { path },
        // Only what was there a moment ago, and no link, is opened.
        Some(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT | Errno::ENXIO) => {
            StoreError::Changed { path }
        }
        _ => StoreError::io("read", &path)(error),
    }
}

/// The path of a name in a tree, if it can have one there.
fn relative(prefix: &str, name: &OsStr, path: &Path) -> Result<String, StoreError> {
    let bad = |why| StoreError::BadName {
        path: path.to_owned(),
        why,
    };
    let name = name.to_str().ok_or_else(|| bad("it is not UTF-8"))?;
    if !is_plain(name) {
        return Err(bad("it holds a backslash"));
    }
    let relative = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}/{name}")
    };
    if relative.len() > LONGEST_PATH {
        return Err(StoreError::BadName {
            path: PathBuf::from(relative.split('/').next().unwrap_or_default()),
            why: "a path in it is longer than 3,000 bytes",
        });
    }
    Ok(relative)
}

/// `ancestors` are the canonical folders on the way here, against loops of links.
fn visit(
    dir: &Path,
    prefix: &str,
    ancestors: &mut Vec<PathBuf>,
    found: &mut Vec<Found>,
) -> Result<(), StoreError> {
    let mut entries = std::fs::read_dir(dir)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(StoreError::io("read", dir))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name: OsString = entry.file_name();
        if name == ".git" || name == ".cache" {
            continue;
        }
        let relative = relative(prefix, &name, &path)?;
        let mut kind = entry.file_type().map_err(StoreError::io("read", &path))?;
        let linked = kind.is_symlink();
        if linked {
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
            visit(&path, &relative, ancestors, found)?;
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
            executable: false,
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
