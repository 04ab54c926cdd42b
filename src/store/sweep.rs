//! [`GcDone`]: deletes what a [`GcPlan`] names, while others use the cache.
//!
//! Things go a handful at a time, records before what they name. A handful is moved into
//! a job folder of `tmp/`, the lists of live and new runs are read again, and what they
//! use by now, or what was touched, is put back; the rest is removed. That is enough:
//!
//! - A run lists a key *before* it looks it up. One that lists it after the second look
//!   finds no record, and computes.
//! - A tree or blob goes only if no record names it: asked of all records once, and of
//!   those that live and new runs list before and after each handful.
//! - Who ingests a file whose blob exists touches the blob first, and writes it if that fails.
//! - A tree that is put back was away for a fraction of a millisecond. A stage's process
//!   takes longer to start than that; so beside live runs trees go one at a time.
//!
//! If this process is killed, what was moved away goes with the leftovers of `tmp/`: at
//! worst a result that a run had just come to use is computed again.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::gc::{Going, GoingId, Named};
use super::inventory::{content, look};
use super::{GcPlan, JobDir, Key, Store, StoreError, atomic, clock, plain};

/// So many things go between two looks at the lists.
const HANDFUL: usize = 64;

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

impl GcDone {
    fn count(&mut self, what: &str) -> &mut usize {
        match what {
            "records" => &mut self.records,
            "trees" => &mut self.trees,
            "blobs" => &mut self.blobs,
            "partials" => &mut self.partials,
            _ => &mut self.runs,
        }
    }
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
        self.apply_gc_beside(plan, progress, &mut |_| {})
    }

    /// The same; calls `between` while a handful of what it names is away, undecided.
    pub(super) fn apply_gc_beside(
        &self,
        plan: &GcPlan,
        progress: &mut dyn FnMut(GcProgress),
        between: &mut dyn FnMut(&'static str),
    ) -> Result<GcDone, StoreError> {
        let mut done = GcDone::default();
        for path in &plan.undated {
            // What is another user's, and may not be touched, is looked at again each time.
            done.dated += usize::from(clock::touch_path(path).is_ok());
        }
        if plan.is_empty() {
            return Ok(done);
        }
        let leftovers: BTreeSet<PathBuf> = self.leftovers()?.into_iter().collect();
        for leftover in &plan.leftovers {
            if leftovers.contains(&leftover.path) && self.remove_leftover(&leftover.path) {
                done.leftovers += 1;
                done.freed_bytes += leftover.bytes;
            }
        }
        let mut sweep = Sweep {
            watch: Watch::new(self, plan),
            trash: self.job_dir("gc")?,
            moved: 0,
            done,
            progress,
            between,
        };
        for (what, going) in plan.sweeps() {
            sweep.sweep(what, going)?;
        }
        Ok(sweep.done)
    }
}

/// What live and new runs use.
struct Watch<'a> {
    store: &'a Store,
    plan: &'a GcPlan,
    live: BTreeSet<String>,
    keys: BTreeSet<Key>,
    /// What the records under `keys` name, as far as they were there; once trees go, what
    /// any record names.
    named: Named,
    read: BTreeSet<Key>,
    read_all: bool,
}

impl<'a> Watch<'a> {
    fn new(store: &'a Store, plan: &'a GcPlan) -> Self {
        Self {
            store,
            plan,
            live: BTreeSet::new(),
            keys: BTreeSet::new(),
            named: Named::default(),
            read: BTreeSet::new(),
            read_all: false,
        }
    }

    /// Reads the lists again; for trees and blobs, the records too. A key that was ever
    /// listed stays so.
    fn look(&mut self, what: &str) -> Result<(), StoreError> {
        let live = self.store.live_runs(&self.plan.times)?;
        self.live = live.into_iter().map(|run| run.run_id).collect();
        // Besides those that live: a run that began and ended since the plan, and one whose
        // beat is late, which lists on when it goes on.
        for id in self.store.run_ids()? {
            if self.live.contains(&id) || !self.plan.ended_runs.contains(&id) {
                self.keys.extend(self.store.used_keys(&id));
            }
        }
        if !matches!(what, "trees" | "blobs") {
            return Ok(());
        }
        if !self.read_all {
            // Every record that is still there, those that came since the plan too.
            for file in self.store.list_records(&mut Vec::new())? {
                self.named.add(&file.what.content);
            }
            self.read_all = true;
        }
        for key in self.keys.difference(&self.read.clone()) {
            if let Ok(bytes) = plain::read(&self.store.record_file(key), plain::LARGE) {
                self.named.add(&content(key, &bytes));
                self.read.insert(*key);
            }
        }
        Ok(())
    }

    fn uses(&self, what: &str, id: &GoingId) -> bool {
        match id {
            GoingId::Key(key) => self.keys.contains(key),
            GoingId::Hash(hash) if what == "trees" => self.named.trees.contains(hash),
            GoingId::Hash(hash) => self.named.blobs.contains(hash),
            GoingId::RunId(id) => self.live.contains(id),
            // Of parts only their age counts.
            GoingId::Path(_) => false,
        }
    }
}

struct Sweep<'a, 'p> {
    watch: Watch<'a>,
    trash: JobDir,
    /// So many things were moved there.
    moved: usize,
    done: GcDone,
    progress: &'p mut dyn FnMut(GcProgress),
    between: &'p mut dyn FnMut(&'static str),
}

impl Sweep<'_, '_> {
    fn sweep(&mut self, what: &'static str, all: &[Going]) -> Result<(), StoreError> {
        let mut done = 0;
        while done < all.len() {
            self.watch.look(what)?;
            let beside_runs = what == "trees" && !self.watch.live.is_empty();
            let size = if beside_runs { 1 } else { HANDFUL };
            let handful = &all[done..all.len().min(done + size)];
            done += handful.len();
            let away = self.move_away(what, handful)?;
            (self.between)(what);
            let looked = self.watch.look(what);
            for (going, path) in away {
                // After an error nothing is known of it.
                if looked.is_err() || self.watch.uses(what, &going.id) || !is_same(going, &path)? {
                    put_back(&path, &going.found.path);
                    self.done.spared += 1;
                } else if remove(&path)? {
                    *self.done.count(what) += 1;
                    self.done.freed_bytes += match going.id {
                        // Its outputs are counted as trees and blobs.
                        GoingId::Key(_) => going.found.bytes,
                        _ => going.bytes,
                    };
                }
            }
            looked?;
            (self.progress)(GcProgress {
                what,
                done,
                total: all.len(),
                freed_bytes: self.done.freed_bytes,
            });
        }
        Ok(())
    }

    /// Moves what nobody uses into the trash. Another collection may have taken it before.
    fn move_away<'g>(
        &mut self,
        what: &str,
        handful: &'g [Going],
    ) -> Result<Vec<(&'g Going, PathBuf)>, StoreError> {
        let mut away = Vec::new();
        for going in handful {
            let home = &going.found.path;
            let Some(metadata) = look(home)? else {
                continue;
            };
            if self.watch.uses(what, &going.id) || !going.found.is_same(&metadata) {
                self.done.spared += 1;
                continue;
            }
            // Of an earlier handful something may be left that could not go back.
            self.moved += 1;
            let path = self.trash.scratch().join(self.moved.to_string());
            match std::fs::rename(home, &path) {
                Ok(()) if is_same(going, &path)? => away.push((going, path)),
                Ok(()) => {
                    // Touched just before: whoever did is about to read it.
                    put_back(&path, home);
                    self.done.spared += 1;
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                // A cache may be shared: another user's folder lets nobody take it.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => self.done.refused += 1,
                Err(e) => return Err(StoreError::io("move to the trash", home)(e)),
            }
        }
        Ok(away)
    }
}

/// Whether what was moved away was not touched before it was.
fn is_same(going: &Going, path: &Path) -> Result<bool, StoreError> {
    // Over NFS it is the opening that asks the server, and not just this machine's memory.
    let _file = plain::open(path);
    Ok(look(path)?.is_some_and(|metadata| going.found.is_same(&metadata)))
}

/// Moves back, unless something is there again.
fn put_back(path: &Path, home: &Path) {
    if matches!(look(home), Ok(None))
        && let Some(dir) = home.parent()
    {
        // Best effort: what cannot go back is a miss, and computed again.
        let _ = atomic::make_dir(dir);
        let _ = std::fs::rename(path, home);
    }
}

/// Removes a file or a folder; false if there was none.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    let Some(metadata) = look(path)? else {
        return Ok(false);
    };
    let removed = if metadata.is_dir() {
        super::folder::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("remove", path)(e)),
    }
}
