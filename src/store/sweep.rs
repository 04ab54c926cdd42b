//! [`GcDone`]: applies a [`GcPlan`] while others use the cache.
//!
//! What keeps that safe:
//!
//! - A run lists a key *before* it looks it up. So records are renamed into the
//!   trash, and then the lists of live runs are read again: a record that is
//!   listed by now is put back. A run that lists it later finds no record and
//!   computes, which is harmless.
//! - Records go first, then trees, then blobs. A tree or blob goes only if no
//!   record that is still there names it: asked of all records once, and of
//!   those that live and new runs list before and after each handful.
//! - A tree that a run comes to use between the two looks (its record was
//!   published in between, and names a folder that was left from before) is put
//!   back at once, but is away for that moment, a fraction of a millisecond. A
//!   stage's process takes longer to start than that; so beside live runs trees
//!   go one at a time.
//! - A blob goes only if it is the very file that the plan saw, unchanged: who
//!   ingests a file whose blob exists touches the blob first. After the rename
//!   it is looked at again, and put back if it was touched.
//! - The trash is a job folder, `tmp/gc-...`. What lies in its `held/` was not
//!   decided on; if this process is killed, whoever cleans `tmp/` puts it back
//!   ([`Store::clean_tmp`]). So a run loses nothing to a collection that died
//!   between two looks.
//! - Two collections at once: a rename succeeds for one of them, and the other
//!   passes over what is gone. What is put back never replaces what is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::gc::{BlobGoing, Named, PartialGoing, RecordGoing, RunGoing, TreeGoing};
use super::inventory::{FileTimes, content, entries, inode, look, modified};
use super::{GcPlan, JobDir, Key, Store, StoreError, Times, atomic, clock, plain};

/// Records, or trees while no run is live, between two looks at the lists.
const HANDFUL: usize = 32;
/// Blobs between two looks.
const BLOB_HANDFUL: usize = 256;

/// How far [`Store::apply_gc`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcProgress {
    /// What is being removed: `records`, `trees`, `blobs`, `partials` or `runs`.
    pub what: &'static str,
    /// So many of them are done.
    pub done: usize,
    /// Of so many.
    pub total: usize,
    /// Of everything so far.
    pub freed_bytes: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcDone {
    /// Folders of runs.
    pub runs: usize,
    /// Records.
    pub records: usize,
    /// Laid-out trees.
    pub trees: usize,
    /// Blobs.
    pub blobs: usize,
    /// Parts of results.
    pub partials: usize,
    /// What dead processes had left in `tmp/`.
    pub leftovers: usize,
    /// Of blobs, copies in trees, runs and leftovers.
    pub freed_bytes: u64,
    /// What the plan named and a run has begun to use since: it was left.
    pub spared: usize,
    /// What the plan named and this user may not remove: it was left.
    pub refused: usize,
    /// What was given the present time, since its own lay in the future.
    pub dated: usize,
}

/// A moment of a collection at which a test may look, or kill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// A handful was renamed into the trash, undecided.
    Held(&'static str),
    /// It was decided on; what goes is about to be removed.
    Decided(&'static str),
    /// What went is gone.
    Removed(&'static str),
}

impl Store {
    /// Removes what a plan names and nobody has begun to use since.
    ///
    /// It may be stopped or killed at any moment: the cache stays usable, and
    /// what is left of the plan goes with the next collection.
    ///
    /// # Errors
    /// When the cache cannot be read or written. What was removed until then is
    /// gone, the rest is as it was.
    pub fn apply_gc(
        &self,
        plan: &GcPlan,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<GcDone, StoreError> {
        let done = self.apply_gc_until(plan, progress, &mut |_| false)?;
        Ok(done.unwrap_or_default())
    }

    /// The same; ends as if killed (`None`) when `killed` says so.
    pub(super) fn apply_gc_until(
        &self,
        plan: &GcPlan,
        progress: &mut dyn FnMut(GcProgress),
        killed: &mut dyn FnMut(Moment) -> bool,
    ) -> Result<Option<GcDone>, StoreError> {
        let mut done = GcDone::default();
        for path in &plan.undated {
            // What is another user's, and may not be touched, is looked at again each time.
            done.dated += usize::from(clock::touch_path(path).is_ok());
        }
        if plan.is_empty() {
            return Ok(Some(done));
        }
        let leftovers: BTreeSet<PathBuf> = self.leftovers()?.into_iter().collect();
        for leftover in &plan.leftovers {
            if leftovers.contains(&leftover.path) && self.remove_leftover(&leftover.path) {
                done.leftovers += 1;
                done.freed_bytes += leftover.bytes;
            }
        }
        let trash = Trash::new(self)?;
        let mut sweep = Sweep {
            store: self,
            watch: Watch::new(self, plan),
            trash: &trash,
            done,
            progress,
            killed,
        };
        let alive = sweep.records(&plan.records)?
            && sweep.trees_and_blobs(&plan.trees, &plan.blobs)?
            && sweep.partials(&plan.partials)?
            && sweep.runs(&plan.runs)?;
        let done = sweep.done;
        if alive {
            Ok(Some(done))
        } else {
            trash.abandon();
            Ok(None)
        }
    }

    /// Puts back what a killed collection held in its trash folder; does nothing
    /// to other folders. What is there again meanwhile stays as it is.
    pub(super) fn put_back_all(&self, trash: &Path) {
        let held = trash.join("held");
        for what in ["records", "trees", "blobs", "runs"] {
            let folder = held.join(what);
            // A link would lead to somebody's own folder, and what is there be moved.
            if ![trash, held.as_path(), folder.as_path()]
                .into_iter()
                .all(plain::is_folder)
            {
                continue;
            }
            for path in entries(&folder).unwrap_or_default() {
                if let Some(home) = self.home_of(what, &path) {
                    put_back(&path, &home);
                }
            }
        }
    }

    /// Where something in the trash came from.
    fn home_of(&self, what: &str, path: &Path) -> Option<PathBuf> {
        let name = path.file_name()?.to_str()?;
        match what {
            "records" => {
                let key: Key = name.strip_suffix(".json")?.parse().ok()?;
                Some(self.record_file(&key))
            }
            "trees" => Some(self.tree_path(&name.parse().ok()?)),
            "blobs" => Some(self.blob_path(&name.parse().ok()?)),
            _ => Some(self.runs_dir().join(name)),
        }
    }
}

/// Renames back, unless something is there again.
fn put_back(path: &Path, home: &Path) {
    let vacant = matches!(look(home), Ok(None));
    if vacant && let Some(dir) = home.parent() {
        // Best effort: what cannot go back is a miss, and computed again.
        let _ = atomic::make_dir(dir);
        let _ = std::fs::rename(path, home);
    }
}

/// The folder that things go through on their way out.
struct Trash {
    store: Store,
    /// `None` once abandoned.
    job: Option<JobDir>,
    path: PathBuf,
}

impl Trash {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let job = store.job_dir("gc")?;
        let path = job.path().to_owned();
        for what in ["records", "trees", "blobs", "runs"] {
            atomic::make_dir(&path.join("held").join(what))?;
        }
        atomic::make_dir(&path.join("gone"))?;
        Ok(Self {
            store: store.clone(),
            job: Some(job),
            path,
        })
    }

    fn held(&self, what: &str, name: &str) -> PathBuf {
        self.path.join("held").join(what).join(name)
    }

    /// Removes something for good. A folder is first taken out of `held/`, so
    /// that half of one is never put back.
    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("remove", path)(e);
        if std::fs::symlink_metadata(path).map_err(failed)?.is_dir() {
            let gone = self.path.join("gone").join("folder");
            std::fs::rename(path, &gone).map_err(failed)?;
            super::folder::remove_dir_all(&gone).map_err(failed)
        } else {
            std::fs::remove_file(path).map_err(failed)
        }
    }

    /// Leaves everything as a killed process would.
    fn abandon(mut self) {
        if let Some(job) = self.job.take() {
            job.keep();
        }
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        // After an error something undecided may lie here.
        if self.job.is_some() {
            self.store.put_back_all(&self.path);
        }
    }
}

/// Looks at what live and new runs list.
struct Watch<'a> {
    store: &'a Store,
    times: Times,
    known_runs: &'a BTreeSet<String>,
    planned_live: &'a BTreeSet<String>,
    live: BTreeSet<String>,
    keys: BTreeSet<Key>,
    /// What the records under `keys` name, as far as they were there.
    named: Named,
    read: BTreeSet<Key>,
}

impl<'a> Watch<'a> {
    fn new(store: &'a Store, plan: &'a GcPlan) -> Self {
        Self {
            store,
            times: plan.times(),
            known_runs: &plan.known_runs,
            planned_live: &plan.live_runs,
            live: BTreeSet::new(),
            keys: BTreeSet::new(),
            named: Named::default(),
            read: BTreeSet::new(),
        }
    }

    /// Reads the lists again. A key that was ever listed stays so.
    fn look(&mut self) -> Result<(), StoreError> {
        let live = self.store.live_runs(&self.times)?;
        self.live = live.into_iter().map(|run| run.run_id).collect();
        // A run that began and ended since the plan counts as well.
        let new = self
            .store
            .run_ids()?
            .into_iter()
            .filter(|id| !self.known_runs.contains(id));
        // So does one whose beat is late: it lists on when it goes on.
        let late = self.planned_live.iter().cloned();
        let runs: BTreeSet<String> = self.live.iter().cloned().chain(new).chain(late).collect();
        for id in runs {
            self.keys.extend(self.store.used_keys(&id));
        }
        Ok(())
    }

    /// The same, and reads the records that are listed by now.
    fn look_into_records(&mut self) -> Result<(), StoreError> {
        self.look()?;
        for key in self.keys.difference(&self.read.clone()) {
            if let Ok(bytes) = plain::read(&self.store.record_file(key), plain::LARGE) {
                self.named.add(&content(key, &bytes));
                self.read.insert(*key);
            }
        }
        Ok(())
    }
}

struct Sweep<'a, 'p> {
    store: &'a Store,
    watch: Watch<'a>,
    trash: &'a Trash,
    done: GcDone,
    progress: &'p mut dyn FnMut(GcProgress),
    killed: &'p mut dyn FnMut(Moment) -> bool,
}

impl Sweep<'_, '_> {
    /// `false`: killed, here and below.
    fn records(&mut self, records: &[RecordGoing]) -> Result<bool, StoreError> {
        for (round, handful) in records.chunks(HANDFUL).enumerate() {
            self.watch.look()?;
            let mut held = Vec::new();
            for record in handful {
                if self.watch.keys.contains(&record.key) {
                    self.done.spared += 1;
                    continue;
                }
                let home = self.store.record_file(&record.key);
                let away = self.trash.held("records", &format!("{}.json", record.key));
                if self.take(&home, &away)? {
                    held.push((record, home, away));
                }
            }
            if (self.killed)(Moment::Held("records")) {
                return Ok(false);
            }
            self.watch.look()?;
            held.retain(|(record, home, away)| {
                let listed = self.watch.keys.contains(&record.key);
                if listed {
                    put_back(away, home);
                    self.done.spared += 1;
                }
                !listed
            });
            if (self.killed)(Moment::Decided("records")) {
                return Ok(false);
            }
            for (_, _, away) in held {
                self.done.freed_bytes += look(&away)?.map_or(0, |m| m.len());
                self.trash.remove(&away)?;
                self.done.records += 1;
            }
            self.tell("records", round * HANDFUL + handful.len(), records.len());
            if (self.killed)(Moment::Removed("records")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn trees_and_blobs(
        &mut self,
        trees: &[TreeGoing],
        blobs: &[BlobGoing],
    ) -> Result<bool, StoreError> {
        if trees.is_empty() && blobs.is_empty() {
            return Ok(true);
        }
        // Every record that is still there, those that came since the plan too.
        for file in self.store.list_records(&mut Vec::new())? {
            self.watch.named.add(&file.content);
        }
        Ok(self.trees(trees)? && self.blobs(blobs)?)
    }

    fn trees(&mut self, trees: &[TreeGoing]) -> Result<bool, StoreError> {
        let mut done = 0;
        while done < trees.len() {
            self.watch.look_into_records()?;
            // Beside a run one at a time: see above.
            let size = if self.watch.live.is_empty() {
                HANDFUL
            } else {
                1
            };
            let handful = &trees[done..trees.len().min(done + size)];
            done += handful.len();
            let mut held = Vec::new();
            for tree in handful {
                let home = self.store.tree_path(&tree.hash);
                // Another folder under its name was laid out since the plan.
                let same = look(&home)?.is_some_and(|m| inode(&m) == tree.inode);
                if self.watch.named.trees.contains(&tree.hash) || !same {
                    self.done.spared += usize::from(look(&home)?.is_some());
                    continue;
                }
                let away = self.trash.held("trees", &tree.hash.to_string());
                if self.take(&home, &away)? {
                    held.push((tree, home, away));
                }
            }
            if (self.killed)(Moment::Held("trees")) {
                return Ok(false);
            }
            self.watch.look_into_records()?;
            held.retain(|(tree, home, away)| {
                let named = self.watch.named.trees.contains(&tree.hash);
                if named {
                    put_back(away, home);
                    self.done.spared += 1;
                }
                !named
            });
            if (self.killed)(Moment::Decided("trees")) {
                return Ok(false);
            }
            for (tree, _, away) in held {
                self.trash.remove(&away)?;
                self.done.trees += 1;
                self.done.freed_bytes += tree.bytes;
            }
            self.tell("trees", done, trees.len());
            if (self.killed)(Moment::Removed("trees")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn blobs(&mut self, blobs: &[BlobGoing]) -> Result<bool, StoreError> {
        for (round, handful) in blobs.chunks(BLOB_HANDFUL).enumerate() {
            self.watch.look_into_records()?;
            let mut held = Vec::new();
            for blob in handful {
                let home = self.store.blob_path(&blob.hash);
                let Some(metadata) = look(&home)? else {
                    continue;
                };
                // Status is not compared: removing a tree's link changes it.
                let same = inode(&metadata) == blob.inode && modified(&metadata) == blob.modified;
                if !same || self.watch.named.blobs.contains(&blob.hash) {
                    self.done.spared += 1;
                    continue;
                }
                let away = self.trash.held("blobs", &blob.hash.to_string());
                if self.take(&home, &away)? {
                    held.push((blob, home, away));
                }
            }
            if (self.killed)(Moment::Held("blobs")) {
                return Ok(false);
            }
            self.watch.look_into_records()?;
            let mut going = Vec::new();
            for (blob, home, away) in held {
                let touched = modified_now(&away)? != Some(blob.modified);
                if touched || self.watch.named.blobs.contains(&blob.hash) {
                    put_back(&away, &home);
                    self.done.spared += 1;
                } else {
                    going.push((blob, away));
                }
            }
            if (self.killed)(Moment::Decided("blobs")) {
                return Ok(false);
            }
            for (blob, away) in going {
                self.trash.remove(&away)?;
                self.done.blobs += 1;
                self.done.freed_bytes += blob.bytes;
            }
            self.tell("blobs", round * BLOB_HANDFUL + handful.len(), blobs.len());
            if (self.killed)(Moment::Removed("blobs")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// No run lists them: what was used since the plan stays, and a run that loses
    /// one between the look and the removal computes it again.
    fn partials(&mut self, partials: &[PartialGoing]) -> Result<bool, StoreError> {
        for (round, partial) in partials.iter().enumerate() {
            let path = &partial.path;
            match look(path)? {
                None => {}
                Some(metadata) if FileTimes::of(&metadata) != partial.times => {
                    self.done.spared += 1;
                }
                Some(_) => match std::fs::remove_file(path) {
                    Ok(()) => {
                        self.done.partials += 1;
                        self.done.freed_bytes += partial.bytes;
                    }
                    Err(e) if is_refusal(&e) => self.done.refused += 1,
                    Err(e) => return Err(StoreError::io("remove", path)(e)),
                },
            }
            if (round + 1) % BLOB_HANDFUL == 0 || round + 1 == partials.len() {
                self.tell("partials", round + 1, partials.len());
                if (self.killed)(Moment::Removed("partials")) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Last, so that what an interrupted collection left is still explained.
    fn runs(&mut self, runs: &[RunGoing]) -> Result<bool, StoreError> {
        for (round, run) in runs.iter().enumerate() {
            self.watch.look()?;
            if self.watch.live.contains(&run.run_id) {
                self.done.spared += 1;
                continue;
            }
            let away = self.trash.held("runs", &run.run_id);
            if self.take(&self.store.runs_dir().join(&run.run_id), &away)? {
                if (self.killed)(Moment::Held("runs")) {
                    return Ok(false);
                }
                self.trash.remove(&away)?;
                self.done.runs += 1;
                self.done.freed_bytes += run.bytes;
            }
            self.tell("runs", round + 1, runs.len());
        }
        Ok(true)
    }

    /// Renames into the trash; `false` if it is gone already, or is another user's,
    /// who lets nobody take it.
    fn take(&mut self, home: &Path, away: &Path) -> Result<bool, StoreError> {
        match std::fs::rename(home, away) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) if is_refusal(&e) => {
                self.done.refused += 1;
                Ok(false)
            }
            Err(e) => Err(StoreError::io("move to the trash", home)(e)),
        }
    }

    fn tell(&mut self, what: &'static str, done: usize, total: usize) {
        (self.progress)(GcProgress {
            what,
            done,
            total,
            freed_bytes: self.done.freed_bytes,
        });
    }
}

/// When a file in the trash was last changed. Over NFS it is the opening that
/// asks the server, and not just this machine's memory.
fn modified_now(path: &Path) -> Result<Option<Timestamp>, StoreError> {
    match plain::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => Ok(Some(modified(&metadata))),
        // No file, or one that cannot be read: a plain look has to do.
        _ => Ok(look(path)?.map(|metadata| modified(&metadata))),
    }
}

/// Whether the system lets this user not do it: a cache may be shared.
fn is_refusal(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}
