//! Files by content (`blobs/ab/<hex>`, read-only) and folders of links to them
//! (`trees/<hex>/`).

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::read::{hash_file, hash_open};
use super::tree::is_plain;
use super::walk::{self, Found, Links};
use super::{ContentHash, Store, StoreError, Tree, TreeFile, atomic, clock, plain};

/// How often a tree is laid out anew while others do the same.
const LAYINGS: usize = 3;

impl Store {
    /// Takes the files of `dir` into the cache: each is hashed, synced, made
    /// read-only and moved to its blob; then each folder of blobs is synced once.
    /// What is left in `dir` is to be removed.
    ///
    /// A blob that is there already is read again and kept if it is sound, so
    /// that a damaged one is mended by computing its stage once more. It counts
    /// as new from now on, so that garbage collection leaves it until the record
    /// is there that names it.
    ///
    /// # Errors
    /// When `dir` holds a symbolic link or special file (named), or the file
    /// system refuses (a full disk); then no record names what was moved.
    pub fn ingest(&self, dir: &Path) -> Result<Tree, StoreError> {
        let found = walk::list(dir, Links::Refuse)?;
        let files = walk::side_by_side(&found, |file| self.ingest_file(file))?;
        // Also for blobs that were there: whoever made them may not have come to it.
        let folders: BTreeSet<PathBuf> = files
            .iter()
            .filter_map(|file| Some(self.blob_path(&file.hash).parent()?.to_owned()))
            .collect();
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        walk::side_by_side(&folders, |folder| atomic::sync_file(folder))?;
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
        let blob = self.blob_path(&hash);
        // Touched by name, and before it is read: from here on garbage collection
        // leaves it, or it is gone already.
        if clock::touch_path(&blob).is_ok() && self.verify_blob(&entry).is_ok() {
            return Ok(entry);
        }
        if let Some(dir) = blob.parent() {
            atomic::make_dir_synced(dir)?;
        }
        atomic::sync_file(source)?;
        atomic::set_mode(source, 0o444)?;
        match std::fs::rename(source, &blob) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
                let copy = self.copy_to_tmp(source)?;
                atomic::sync_file(&copy)?;
                atomic::set_mode(&copy, 0o444)?;
                std::fs::rename(&copy, &blob)
                    .map_err(StoreError::io("rename into place", &blob))?;
            }
            Err(e) => return Err(StoreError::io("rename into place", &blob)(e)),
        }
        Ok(entry)
    }

    /// A copy of a file in `tmp/`, removed when dropped.
    fn copy_to_tmp(&self, path: &Path) -> Result<tempfile::TempPath, StoreError> {
        let copy = self.tmp_file()?.into_temp_path();
        std::fs::copy(path, &copy).map_err(StoreError::io("copy", path))?;
        Ok(copy)
    }

    /// A read-only folder with the files of `tree`: `trees/<hash>/`, hard links to
    /// the blobs (copies where the file system has no links). Laid out once;
    /// each time, every blob is read through its hash, and the folder is looked
    /// through for files that are not those blobs.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names a blob that is missing or not what its name
    /// says (it is removed, and the folder with it): the caller treats the record
    /// as a miss.
    pub fn materialise(&self, tree: &Tree) -> Result<PathBuf, StoreError> {
        let target = self.tree_path(&tree.hash);
        let verified = walk::side_by_side(&tree.files, |file| {
            self.verify_blob(file).inspect_err(|e| {
                if e.is_damage() {
                    // From now on its records are misses, whoever asks.
                    self.remove_damaged(file);
                }
            })
        });
        if let Err(e) = verified {
            if e.is_damage() {
                self.remove_tree(&target);
            }
            return Err(e);
        }
        if self.is_well_laid_out(&target, tree) {
            return Ok(target);
        }
        let mut refused = None;
        for _ in 0..LAYINGS {
            let folder = self.tmp_folder(0o777)?;
            for file in &tree.files {
                self.place(file, folder.path())?;
            }
            // Someone who tidied up by hand may have taken the folder of trees as well.
            atomic::make_dir(&self.root().join("trees"))?;
            // Takes the place only if nothing is there: another process may have been
            // faster, and a stage may be reading what it laid out.
            match std::fs::rename(folder.path(), &target) {
                Ok(()) => {
                    let _moved = folder.keep();
                    return Ok(target);
                }
                Err(e) => refused = Some(e),
            }
            if self.is_well_laid_out(&target, tree)
                || self.mend(&target, folder.path(), tree) && self.is_well_laid_out(&target, tree)
            {
                return Ok(target);
            }
            self.remove_tree(&target);
        }
        let refused = refused.unwrap_or_else(|| std::io::Error::other("it is taken"));
        Err(StoreError::io("rename into place", &target)(refused))
    }

    /// Where a tree is laid out, if every file is there with its size. Reads
    /// nothing: enough to point a person at it, not to compute with it.
    pub fn laid_out(&self, tree: &Tree) -> Option<PathBuf> {
        let folder = self.tree_path(&tree.hash);
        let complete = plain::is_folder(&folder)
            && tree.files.iter().all(|file| {
                std::fs::symlink_metadata(folder.join(&file.path))
                    .is_ok_and(|m| m.is_file() && m.len() == file.bytes)
            });
        complete.then_some(folder)
    }

    /// Whether a folder holds the files of a tree and no others: each the very
    /// file that its blob is (which was just read), or a copy of it.
    fn is_well_laid_out(&self, folder: &Path, tree: &Tree) -> bool {
        if !std::fs::symlink_metadata(folder).is_ok_and(|m| m.is_dir()) {
            return false;
        }
        let Ok(found) = walk::list(folder, Links::Refuse) else {
            return false;
        };
        let mut names: Vec<&str> = found.iter().map(|f| f.relative.as_str()).collect();
        names.sort_unstable();
        if !names.iter().eq(tree.files.iter().map(|f| &f.path)) {
            return false;
        }
        let same = |file: &TreeFile| {
            let path = folder.join(&file.path);
            let laid = std::fs::symlink_metadata(&path);
            let blob = std::fs::symlink_metadata(self.blob_path(&file.hash));
            let linked = matches!((&laid, &blob), (Ok(a), Ok(b))
                if (a.dev(), a.ino()) == (b.dev(), b.ino()));
            Ok(linked || hash_file(&path).is_ok_and(|(hash, _)| hash == file.hash))
        };
        walk::side_by_side(&tree.files, same).is_ok_and(|all| all.into_iter().all(|same| same))
    }

    /// Takes out of a laid-out folder what does not belong there, and puts what is
    /// wrong or missing in place from `good`. False if that cannot be done.
    fn mend(&self, target: &Path, good: &Path, tree: &Tree) -> bool {
        // A link would lead to a folder of somebody's.
        if !plain::is_folder(target) {
            return false;
        }
        let Ok(found) = walk::list(target, Links::Refuse) else {
            return false;
        };
        let belongs = |relative: &str| tree.files.iter().any(|file| file.path == relative);
        for stranger in found.iter().filter(|f| !belongs(&f.relative)) {
            if std::fs::remove_file(&stranger.path).is_err() {
                return false;
            }
        }
        tree.files.iter().all(|file| {
            let (from, to) = (good.join(&file.path), target.join(&file.path));
            let inode = |path: &Path| std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
            // A link onto itself would be left as it is, and its other name stay behind.
            let same = matches!((inode(&from), inode(&to)), (Ok(a), Ok(b)) if a == b);
            let sound = same || hash_file(&to).is_ok_and(|(hash, _)| hash == file.hash);
            sound
                || to
                    .parent()
                    .is_some_and(|dir| std::fs::create_dir_all(dir).is_ok())
                    && std::fs::rename(&from, &to).is_ok()
        })
    }

    /// Removes a blob that was found damaged; but not a sound one that somebody
    /// put in its place meanwhile.
    fn remove_damaged(&self, file: &TreeFile) {
        let blob = self.blob_path(&file.hash);
        let Ok(aside) = self.tmp_file() else {
            return;
        };
        let aside = aside.into_temp_path();
        if std::fs::rename(&blob, &aside).is_ok()
            && hash_file(&aside).is_ok_and(|(hash, _)| hash == file.hash)
        {
            let _ = std::fs::rename(&aside, &blob);
        }
    }

    /// Takes a laid-out folder away at once, then removes it.
    fn remove_tree(&self, target: &Path) {
        if std::fs::symlink_metadata(target).is_ok()
            && let Ok(aside) = self.tmp_folder(0o700)
        {
            let _ = std::fs::rename(target, aside.path().join("old"));
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
            if hash_file(&to)?.0 != file.hash {
                let why = "its copy has another hash".to_owned();
                return Err(StoreError::Damaged {
                    hash: file.hash,
                    path: to,
                    why,
                });
            }
        }
        Ok(())
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
        let (hash, _) = plain::open(&path)
            .and_then(|blob| hash_open(&blob))
            .map_err(StoreError::io("read", &path))?;
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
