//! Files by content (`blobs/ab/<hex>`, read-only) and folders of links to them
//! (`trees/<hex>/`).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::hash::hash_file;
use super::tree::is_plain;
use super::walk::{self, Found, Links};
use super::{ContentHash, Store, StoreError, Tree, TreeFile, atomic};

impl Store {
    /// Takes the files of `dir` into the cache: each is hashed, synced, made
    /// read-only and moved to its blob. What is left in `dir` is to be removed.
    ///
    /// A blob that is there already is read again and kept if it is sound, so
    /// that a damaged one is mended by computing its stage once more.
    ///
    /// # Errors
    /// When `dir` holds a symbolic link or special file (named), or the file
    /// system refuses (a full disk); then no record names what was moved.
    pub fn ingest(&self, dir: &Path) -> Result<Tree, StoreError> {
        let found = walk::list(dir, Links::Refuse)?;
        let files = walk::side_by_side(&found, |file| self.ingest_file(file))?;
        Ok(Tree::new(files))
    }

    fn ingest_file(&self, file: &Found) -> Result<TreeFile, StoreError> {
        let metadata = std::fs::metadata(&file.path).map_err(StoreError::io("read", &file.path))?;
        // A second name of the same file could change it later: take a copy.
        let copy = (metadata.nlink() > 1)
            .then(|| self.copy_to_tmp(&file.path))
            .transpose()?;
        let source = copy.as_ref().map_or(file.path.as_path(), |c| c.as_ref());
        let (hash, bytes) = hash_file(source)?;
        let entry = TreeFile {
            path: file.relative.clone(),
            hash,
            bytes,
        };
        if self.verify_blob(&entry).is_ok() {
            return Ok(entry);
        }
        let blob = self.blob_path(&hash);
        if let Some(dir) = blob.parent() {
            atomic::make_dir(dir)?;
            atomic::sync_parent(dir)?;
        }
        atomic::sync_file(source)?;
        atomic::set_mode(source, 0o444)?;
        match std::fs::rename(source, &blob) {
            Ok(()) => atomic::sync_parent(&blob)?,
            Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
                let copy = self.copy_to_tmp(source)?;
                atomic::sync_file(&copy)?;
                atomic::set_mode(&copy, 0o444)?;
                atomic::rename(&copy, &blob)?;
            }
            Err(e) => return Err(StoreError::io("rename into place", &blob)(e)),
        }
        Ok(entry)
    }

    /// A copy of a file in `tmp/`, removed when dropped.
    fn copy_to_tmp(&self, path: &Path) -> Result<tempfile::TempPath, StoreError> {
        let tmp = self.tmp_dir();
        let copy = tempfile::Builder::new()
            .prefix(&format!("{}{}-", atomic::TEMPORARY, std::process::id()))
            .tempfile_in(&tmp)
            .map_err(StoreError::io("make a temporary file in", &tmp))?
            .into_temp_path();
        std::fs::copy(path, &copy).map_err(StoreError::io("copy", path))?;
        Ok(copy)
    }

    /// A read-only folder with the files of `tree`: `trees/<hash>/`, hard links to
    /// the blobs (copies where the file system has no links). Made once; every
    /// blob is then read through its hash.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names a blob that is missing or not what its name
    /// says (it is removed): the caller treats the record as a miss.
    pub fn materialise(&self, tree: &Tree) -> Result<PathBuf, StoreError> {
        let target = self.tree_path(&tree.hash);
        if is_complete(&target, tree) {
            return Ok(target);
        }
        walk::side_by_side(&tree.files, |file| {
            self.verify_blob(file).inspect_err(|e| {
                if e.is_damage() {
                    // From now on its records are misses, whoever asks.
                    let _ = std::fs::remove_file(self.blob_path(&file.hash));
                }
            })
        })?;
        let work = self.job_dir("tree")?;
        let folder = work.output();
        for file in &tree.files {
            self.place(file, &folder)?;
        }
        if is_complete(&target, tree) {
            // Another process laid it out meanwhile, and may be reading it.
            return Ok(target);
        }
        if std::fs::symlink_metadata(&target).is_ok() {
            // Incomplete: out of the way, and gone with the work folder.
            let _ = std::fs::rename(&target, work.scratch().join("old"));
        }
        match std::fs::rename(&folder, &target) {
            Ok(()) => Ok(target),
            // Another process was faster.
            Err(_) if is_complete(&target, tree) => Ok(target),
            Err(e) => Err(StoreError::io("rename into place", &target)(e)),
        }
    }

    /// Where [`Store::materialise`] puts a tree.
    pub fn tree_path(&self, hash: &ContentHash) -> PathBuf {
        self.root().join("trees").join(hash.to_string())
    }

    fn place(&self, file: &TreeFile, folder: &Path) -> Result<(), StoreError> {
        if !is_plain(&file.path) {
            let path = PathBuf::from(&file.path);
            return Err(StoreError::BadName {
                path,
                why: "it leads out of its folder",
            });
        }
        let to = folder.join(&file.path);
        if let Some(dir) = to.parent() {
            atomic::make_dir(dir)?;
        }
        let blob = self.blob_path(&file.hash);
        if std::fs::hard_link(&blob, &to).is_err() {
            // `copy` makes a reflink where the file system can.
            std::fs::copy(&blob, &to).map_err(StoreError::io("copy to", &to))?;
            atomic::set_mode(&to, 0o444)?;
        }
        Ok(())
    }

    /// Whether every blob of a tree is there with its size.
    pub(super) fn has_blobs(&self, tree: &Tree) -> bool {
        tree.files
            .iter()
            .all(|file| self.check_blob_size(file).is_ok())
    }

    /// Whether a blob is there with its size: one look, no reading.
    pub(super) fn check_blob_size(&self, file: &TreeFile) -> Result<(), StoreError> {
        let path = self.blob_path(&file.hash);
        let damaged = |path, why: String| StoreError::Damaged {
            hash: file.hash,
            path,
            why,
        };
        match std::fs::symlink_metadata(&path) {
            Ok(m) if m.is_file() && m.len() == file.bytes => Ok(()),
            Ok(m) if m.is_file() => Err(damaged(
                path,
                format!("{} bytes instead of {}", m.len(), file.bytes),
            )),
            Ok(_) => Err(damaged(path, "it is no file".to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(damaged(path, "it is missing".to_owned()))
            }
            Err(e) => Err(StoreError::io("read", &path)(e)),
        }
    }

    /// Whether a blob holds what its name says: reads all of it.
    fn verify_blob(&self, file: &TreeFile) -> Result<(), StoreError> {
        self.check_blob_size(file)?;
        let path = self.blob_path(&file.hash);
        let (hash, _) = hash_file(&path)?;
        if hash == file.hash {
            Ok(())
        } else {
            Err(StoreError::Damaged {
                hash: file.hash,
                path,
                why: "its content has another hash".to_owned(),
            })
        }
    }

    pub(super) fn blob_path(&self, hash: &ContentHash) -> PathBuf {
        let hex = hash.to_string();
        self.root().join("blobs").join(&hex[..2]).join(hex)
    }
}

/// Whether a folder has every file of a tree with its size.
fn is_complete(folder: &Path, tree: &Tree) -> bool {
    folder.is_dir()
        && tree.files.iter().all(|file| {
            std::fs::symlink_metadata(folder.join(&file.path))
                .is_ok_and(|m| m.is_file() && m.len() == file.bytes)
        })
}
