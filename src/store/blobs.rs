//! Files by content (`blobs/ab/<hex>`, read-only) and folders of links to them
//! (`trees/<hex>/`).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::folder::{self, Folder, Seen};
use super::read::{hash_file, hash_open};
use super::tree::is_plain;
use super::walk::{self, Plain};
use super::{
    ContentHash, JobDir, Store, StoreError, Tree, TreeFile, Written, atomic, clock, plain,
};

/// How often a tree is laid out anew while others do the same.
const LAYINGS: usize = 3;

/// Held while something damaged is removed, and while something sound takes its
/// place: of the stages of a run that find one damage at once, none takes away what
/// another has just mended. Between processes what is removed is looked at again right
/// before; what is lost to that race is computed once more.
static MENDING: Mutex<()> = Mutex::new(());

fn mending() -> MutexGuard<'static, ()> {
    MENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Takes the files of an output into the cache: each is hashed, synced, made
    /// read-only and moved to its blob; then each folder of blobs is synced once.
    ///
    /// A blob that is there already is read again and kept if it is sound, so
    /// that a damaged one is mended by computing its stage once more. It counts
    /// as new from now on, so that garbage collection leaves it until the record
    /// is there that names it.
    ///
    /// # Errors
    /// When a file is not what it was when it was listed, or the file system
    /// refuses (a full disk); then no record names what was moved.
    pub fn ingest(
        &self,
        job: &JobDir,
        written: &Written,
        modes: Modes,
    ) -> Result<Tree, StoreError> {
        let intake = Intake {
            store: self,
            from: &written.folder,
            taken: job.taken()?,
            next: AtomicUsize::new(0),
            modes,
        };
        let files = walk::side_by_side(&written.files, |file| intake.file(file))?;
        // Also for blobs that were there: whoever made them may not have synced it yet.
        let folders: BTreeSet<PathBuf> = files
            .iter()
            .filter_map(|file| Some(self.blob_path(&file.hash).parent()?.to_owned()))
            .collect();
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        walk::side_by_side(&folders, |folder| atomic::sync_file(folder))?;
        Ok(Tree::new(files))
    }

    /// Takes all that lies in a job's folder of outputs.
    #[cfg(test)]
    pub(crate) fn ingest_whole(&self, job: &JobDir) -> Result<Tree, StoreError> {
        self.ingest(job, &job.whole()?, Modes::Executables)
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
                    let _mending = mending();
                    self.remove_damaged(file);
                }
            })
        });
        if let Err(e) = verified {
            if e.is_damage() {
                let _mending = mending();
                self.remove_damaged_tree(&target, tree);
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
            let _mending = mending();
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
                std::fs::symlink_metadata(folder.join(&file.path)).is_ok_and(|m| {
                    m.is_file() && m.len() == file.bytes && (!file.executable || is_run_by_all(&m))
                })
            });
        complete.then_some(folder)
    }

    /// Whether a folder holds the files of a tree and no others: each the very
    /// file that its blob is (which was just read), or a copy of it.
    fn is_well_laid_out(&self, folder: &Path, tree: &Tree) -> bool {
        if !std::fs::symlink_metadata(folder).is_ok_and(|m| m.is_dir()) {
            return false;
        }
        let Ok(found) = walk::list_plain(folder) else {
            return false;
        };
        let mut names: Vec<&str> = found.iter().map(|f| f.relative.as_str()).collect();
        names.sort_unstable();
        if !names.iter().eq(tree.files.iter().map(|f| &f.path)) {
            return false;
        }
        let same = |file: &TreeFile| Ok(self.is_laid_out(file, &folder.join(&file.path)));
        walk::side_by_side(&tree.files, same).is_ok_and(|all| all.into_iter().all(|same| same))
    }

    /// Whether a file is the very one that its blob is, which was just read, or a
    /// copy of it: one that may be run always is one.
    fn is_laid_out(&self, file: &TreeFile, path: &Path) -> bool {
        let Ok(laid) = std::fs::symlink_metadata(path) else {
            return false;
        };
        let linked = std::fs::symlink_metadata(self.blob_path(&file.hash))
            .is_ok_and(|blob| (laid.dev(), laid.ino()) == (blob.dev(), blob.ino()));
        let right_mode = !file.executable || !linked && is_run_by_all(&laid);
        let holds = || hash_file(path).is_ok_and(|(hash, _)| hash == file.hash);
        laid.is_file() && right_mode && (linked || holds())
    }

    /// Takes out of a laid-out folder what does not belong there, and puts what is
    /// wrong or missing in place from `good`. False if that cannot be done.
    fn mend(&self, target: &Path, good: &Path, tree: &Tree) -> bool {
        let Ok(found) = walk::list_plain(target) else {
            return false;
        };
        let Ok(folder) = Folder::open(target) else {
            return false;
        };
        let belongs = |relative: &str| tree.files.iter().any(|file| file.path == relative);
        for stranger in found.iter().filter(|f| !belongs(&f.relative)) {
            let (dir, name) = split(&stranger.relative);
            let removed = folder.descend(dir).and_then(|dir| dir.unlink(name));
            if removed.is_err() {
                return false;
            }
        }
        tree.files.iter().all(|file| {
            let (from, to) = (good.join(&file.path), target.join(&file.path));
            // A link onto itself would be left as it is, and its other name stay behind.
            self.is_laid_out(file, &to)
                || to
                    .parent()
                    .is_some_and(|dir| std::fs::create_dir_all(dir).is_ok())
                    && std::fs::rename(&from, &to).is_ok()
        })
    }

    /// Removes a blob that was found damaged; but not a sound one that somebody
    /// put in its place meanwhile.
    fn remove_damaged(&self, file: &TreeFile) {
        // It is read again: a sound one is not away even for a moment.
        if self.verify_blob(file).is_ok() {
            return;
        }
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

    /// Removes the folder of a tree in which something is damaged; but not a sound
    /// one: others find the same damage, and may have mended it and use the folder.
    fn remove_damaged_tree(&self, target: &Path, tree: &Tree) {
        if plain::is_folder(target) && !Self::is_sound(target, tree) {
            self.remove_tree(target);
        }
    }

    /// Whether a folder holds each file of a tree: reads all of them.
    fn is_sound(folder: &Path, tree: &Tree) -> bool {
        tree.files.iter().all(|file| {
            plain::open(&folder.join(&file.path))
                .and_then(|open| hash_open(&open))
                .is_ok_and(|(hash, _)| hash == file.hash)
        })
    }

    /// Removes the folder of a tree; [`Store::materialise`] makes it again.
    pub fn drop_tree(&self, tree: &Tree) {
        self.remove_tree(&self.tree_path(&tree.hash));
    }

    /// Takes a laid-out folder away at once, then removes it.
    fn remove_tree(&self, target: &Path) {
        if std::fs::symlink_metadata(target).is_ok()
            && let Ok(aside) = self.tmp_folder(0o700)
        {
            let old = aside.path().join("old");
            let _ = std::fs::rename(target, &old);
            // What somebody mounted in it stays, and the folder around it.
            if folder::remove_dir_all(&old).is_err() {
                let _left = aside.keep();
            }
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
        // One content may be executable here and not there: all links have one mode.
        if file.executable || std::fs::hard_link(&blob, &to).is_err() {
            let mut from = self.open_blob(file)?;
            // Clones where the file system can.
            File::create(&to)
                .and_then(|mut to| std::io::copy(&mut from, &mut to))
                .map_err(StoreError::io("copy to", &to))?;
            atomic::set_mode(&to, if file.executable { 0o555 } else { 0o444 })?;
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
            Ok(_) => Err(damaged(path, "it is not a file".to_owned())),
            Err(e) => Err(self.not_read(file, e)),
        }
    }

    /// Why a blob was not read. One that is not there is damage, also where it was
    /// there a moment ago: somebody else found it damaged.
    fn not_read(&self, file: &TreeFile, e: std::io::Error) -> StoreError {
        let path = self.blob_path(&file.hash);
        if e.kind() == ErrorKind::NotFound {
            let (hash, why) = (file.hash, "it is missing".to_owned());
            return StoreError::Damaged { hash, path, why };
        }
        StoreError::io("read", &path)(e)
    }

    pub(super) fn open_blob(&self, file: &TreeFile) -> Result<File, StoreError> {
        plain::open(&self.blob_path(&file.hash)).map_err(|e| self.not_read(file, e))
    }

    /// Makes a blob of what `fill` writes; false if that has another hash. Its folder must
    /// be there, and is not synced.
    pub(super) fn write_blob(
        &self,
        hash: &ContentHash,
        fill: impl FnOnce(&mut File) -> Result<u64, StoreError>,
    ) -> Result<bool, StoreError> {
        let blob = self.blob_path(hash);
        let mut copy = self.tmp_file()?;
        fill(copy.as_file_mut())?;
        copy.as_file()
            .sync_all()
            .map_err(StoreError::io("sync", copy.path()))?;
        let copy = copy.into_temp_path();
        if hash_file(&copy)?.0 != *hash {
            return Ok(false);
        }
        atomic::set_mode(&copy, 0o444)?;
        let _mending = mending();
        std::fs::rename(&copy, &blob).map_err(StoreError::io("rename into place", &blob))?;
        Ok(true)
    }

    /// Whether a blob has the content that it is named after: reads all of it.
    fn verify_blob(&self, file: &TreeFile) -> Result<(), StoreError> {
        self.check_blob_size(file)?;
        let path = self.blob_path(&file.hash);
        let (hash, _) = hash_open(&self.open_blob(file)?).map_err(|e| self.not_read(file, e))?;
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

fn is_run_by_all(metadata: &Metadata) -> bool {
    metadata.mode() & 0o111 == 0o111
}

/// Folder and name of a path in a tree.
fn split(relative: &str) -> (&str, &OsStr) {
    let (dir, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    (dir, OsStr::new(name))
}

/// Whether files keep that they may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// What an owner may run, those who use the output may run: of programs.
    Executables,
    /// No file is run: of the stages of Genius, whose files have the mode of what
    /// they were copied from.
    Plain,
}

/// An output on its way into the cache.
struct Intake<'a> {
    store: &'a Store,
    from: &'a Folder,
    taken: Folder,
    /// Name of the next file in `taken`.
    next: AtomicUsize,
    modes: Modes,
}

impl Intake<'_> {
    /// From the descriptor that a file is opened with to its blob: names are used
    /// only to move it, and what was moved is compared with what is open.
    fn file(&self, file: &Plain) -> Result<TreeFile, StoreError> {
        let read = |e| StoreError::io("read", &file.path)(e);
        let changed = || StoreError::Changed {
            path: file.path.clone(),
        };
        let (dir, name) = split(&file.relative);
        let not_opened = |e| walk::not_opened(e, &file.path);
        let dir = self.from.descend(dir).map_err(not_opened)?;
        let open = dir.file(name).map_err(not_opened)?;
        let before = Seen::of(&open).map_err(read)?;
        if !before.is_file() || !before.is_unwritten(&file.seen) {
            return Err(changed());
        }
        let (hash, bytes) = hash_open(&open).map_err(read)?;
        let entry = TreeFile {
            path: file.relative.clone(),
            hash,
            bytes,
            executable: self.modes == Modes::Executables && before.is_executable(),
        };
        let is_unwritten = || Ok(Seen::of(&open).map_err(read)?.is_unwritten(&before));
        if bytes != before.bytes || !is_unwritten()? {
            return Err(changed());
        }
        let blob = self.store.blob_path(&hash);
        // Touched by name, and before it is read: from here on garbage collection
        // leaves it, or it is gone already.
        if clock::touch_path(&blob).is_ok() && self.store.verify_blob(&entry).is_ok() {
            return Ok(entry);
        }
        if let Some(dir) = blob.parent() {
            atomic::make_dir_synced(dir)?;
        }
        // A second name of the same file could change it later, and be made
        // read-only with it; another user's file cannot be made read-only.
        let place = OsString::from(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let moved = before.links == 1 && dir.rename(name, &self.taken, &place).is_ok();
        if moved {
            let there = self.taken.look(&place).map_err(read)?;
            if !there.is_unwritten(&before) {
                return Err(changed());
            }
            if there.links == 1 && folder::make_read_only(&open).is_ok() {
                open.sync_all()
                    .map_err(StoreError::io("sync", &file.path))?;
                self.put(&place, &blob)
                    .map_err(StoreError::io("rename into place", &blob))?;
                return Ok(entry);
            }
        }
        // It stays where it is. A clone where the file system can.
        let mut from = &open;
        let fill = |to: &mut File| {
            let copied = from.rewind().and_then(|()| std::io::copy(&mut from, to));
            copied.map_err(StoreError::io("copy", &file.path))
        };
        if self.store.write_blob(&hash, fill)? {
            Ok(entry)
        } else {
            Err(changed())
        }
    }

    /// From `taken` to its blob.
    fn put(&self, place: &OsStr, blob: &Path) -> std::io::Result<()> {
        let (Some(dir), Some(name)) = (blob.parent(), blob.file_name()) else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        let _mending = mending();
        self.taken.rename(place, &Folder::open(dir)?, name)
    }
}
