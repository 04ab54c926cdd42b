//! [`GcPlan`]: what of a cache may go, and why: mark, and grace. Planning changes
//! nothing; `sweep.rs` deletes.
//!
//! Roots are the live runs and the runs whose pipeline file still exists (with
//! an age: that began within it). What a root lists is kept, with its trees and
//! blobs. A size budget takes the least recently used of the rest away, never
//! what a live run lists. Whatever is young is kept, since it may belong to
//! something that has not been written yet. Parts of results go by their age alone.
//!
//! Ages are by the file server's clock, which may be set too: what has no time that
//! can be believed counts as new, and gets a time when the plan is applied, so that
//! it is not kept for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::budget::Budget;
use super::inventory::{
    Content, Entry, FileTimes, Inventory, RecordFile, Run, extra_bytes, size_of,
};
use super::{ContentHash, Key, LiveRun, Store, StoreError, Times};

/// What is to be kept.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Keep only what runs used that began within this time (and live runs).
    pub older_than: Option<Duration>,
    /// Keep at most this many bytes of blobs.
    pub max_bytes: Option<u64>,
    /// What is younger stays, whoever uses it.
    pub grace: Duration,
    /// When a run counts as live.
    pub times: Times,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            older_than: None,
            max_bytes: None,
            grace: Duration::from_secs(600),
            times: Times::default(),
        }
    }
}

/// A part of a result that nobody used for so long goes, unless another age is given.
pub const PARTIAL_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GcReason {
    /// The pipeline files of the runs that used it are gone.
    PipelineGone,
    /// It was last used before the given age.
    TooOld,
    /// No run lists it.
    Unlisted,
    /// It was used least recently, and the rest fills the budget.
    OverBudget,
    /// It cannot be read as a record, so it is never used.
    Damaged,
    /// It is of an older format, so it is never used.
    OlderFormat,
}

/// What identifies something that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GoingId {
    /// A run's folder.
    RunId(String),
    /// A record.
    Key(Key),
    /// A blob or a laid-out tree.
    Hash(ContentHash),
    /// Anything else.
    Path(PathBuf),
}

/// Something that goes.
#[derive(Debug, Clone, Serialize)]
pub struct Going {
    /// Which it is.
    #[serde(flatten)]
    pub id: GoingId,
    /// Of a record, its stage's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of a record, the stage that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Of a record or run, its pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Its size; of a record, that of its outputs, some of which others may share; of a
    /// tree, that of its files that are not links to blobs.
    pub bytes: u64,
    /// Of a record, the start of the newest run that lists it, or when it was made; of a
    /// run, its start; of a part, its last use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Why it goes; what has no reason of its own is named by nothing that stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<GcReason>,
    /// What was found: only this goes.
    #[serde(skip)]
    pub(super) found: Entry<()>,
}

impl Going {
    /// Its id, a key shortened.
    pub fn short_id(&self) -> String {
        match &self.id {
            GoingId::Key(key) => key.short(),
            GoingId::Hash(hash) => hash.to_string(),
            GoingId::RunId(id) => id.clone(),
            GoingId::Path(path) => path.display().to_string(),
        }
    }

    fn new<T>(id: GoingId, bytes: u64, entry: &Entry<T>) -> Self {
        Self {
            id,
            kind: None,
            stage: None,
            pipeline: None,
            bytes,
            last_used: None,
            why: None,
            found: entry.at(),
        }
    }
}

/// What stays, and why, in counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcKept {
    /// Runs that are under way.
    pub live_runs: usize,
    /// Other runs.
    pub runs: usize,
    /// Records that a live run lists.
    pub records_live: usize,
    /// Records that another kept run lists.
    pub records_listed: usize,
    /// Records that nothing lists, but that are young.
    pub records_young: usize,
    /// Records of a newer Genius.
    pub records_newer: usize,
    /// Trees that a kept record names, or that are young.
    pub trees: usize,
    /// Blobs that a kept record names.
    pub blobs_named: usize,
    /// Blobs that none names, but that are young.
    pub blobs_young: usize,
    /// Of all blobs that stay.
    pub blob_bytes: u64,
    /// Parts of results, used within [`PARTIAL_AGE`] or the given age.
    pub partials: usize,
    /// Of all of these.
    pub partial_bytes: u64,
    /// Files and folders that Genius does not know.
    pub unknown: usize,
    /// Of all of these, those whose times lie in the future: they count as new.
    pub undated: usize,
}

/// What goes and what stays.
#[derive(Debug, Clone, Serialize)]
pub struct GcPlan {
    /// Folders of runs that go.
    pub runs: Vec<Going>,
    /// Records that go, the least recently used first.
    pub records: Vec<Going>,
    /// Laid-out trees that go.
    pub trees: Vec<Going>,
    /// Blobs that go.
    pub blobs: Vec<Going>,
    /// Parts of results that nobody has used for long.
    pub partials: Vec<Going>,
    /// What dead processes left in `tmp/`.
    pub leftovers: Vec<Leftover>,
    /// What is given the present time, since the one it has lies in the future.
    #[serde(skip)]
    pub(super) undated: Vec<PathBuf>,
    /// Of everything that goes; a blob counts once, a link to one nothing.
    pub freed_bytes: u64,
    /// What stays.
    pub kept: GcKept,
    /// By how much the blobs that stay exceed the budget.
    pub over_budget_bytes: Option<u64>,
    /// Runs whose lists are complete: those of any other run are read again when the plan
    /// is applied.
    #[serde(skip)]
    pub(super) ended_runs: BTreeSet<String>,
    #[serde(skip)]
    pub(super) times: Times,
}

/// Something in `tmp/` that a dead process left.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leftover {
    /// Where it lies.
    pub path: PathBuf,
    /// Of its files.
    pub bytes: u64,
}

impl GcPlan {
    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.sweeps().all(|(_, going)| going.is_empty()) && self.leftovers.is_empty()
    }

    /// What goes, in the order in which it does. Records before what they name; runs last,
    /// so that what an interrupted collection left is still explained.
    pub(super) fn sweeps(&self) -> impl Iterator<Item = (&'static str, &[Going])> {
        [
            ("records", &*self.records),
            ("trees", &self.trees),
            ("blobs", &self.blobs),
            ("partials", &self.partials),
            ("runs", &self.runs),
        ]
        .into_iter()
    }
}

impl Store {
    /// What may go under these options. Changes nothing.
    ///
    /// # Errors
    /// When a folder of the cache cannot be read.
    pub fn plan_gc(&self, options: &GcOptions) -> Result<GcPlan, StoreError> {
        // The times of files are the server's, where there is one.
        self.plan_gc_at(options, self.server_time())
    }

    /// The same with a clock of the caller's.
    pub(super) fn plan_gc_at(
        &self,
        options: &GcOptions,
        now: Timestamp,
    ) -> Result<GcPlan, StoreError> {
        let live = self.runs_that_may_live(&options.times)?;
        let inventory = Inventory::read(self)?;
        let leftovers = self.leftovers()?.into_iter().map(|path| Leftover {
            bytes: size_of(&path),
            path,
        });
        let leftovers = leftovers.collect();
        Ok(Mark::new(&inventory, &live, options, now).plan(leftovers))
    }
}

/// `time` less `by`, or the beginning of time.
fn before(time: Timestamp, by: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_sub(by).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Decides what stays; looks at no file but those of trees that go.
struct Mark<'a> {
    inventory: &'a Inventory,
    live: BTreeSet<&'a str>,
    options: &'a GcOptions,
    now: Timestamp,
    /// What is younger stays.
    young_since: Timestamp,
    /// The same of what no record names. A live run may have made or reused it for a
    /// record that it has yet to write, however long ago.
    unnamed_since: Timestamp,
    users: BTreeMap<Key, Vec<&'a Entry<Run>>>,
}

impl<'a> Mark<'a> {
    fn new(
        inventory: &'a Inventory,
        live: &'a [LiveRun],
        options: &'a GcOptions,
        now: Timestamp,
    ) -> Self {
        let young_since = before(now, options.grace);
        let starts = live.iter().map(|run| before(run.since(now), options.grace));
        Self {
            inventory,
            live: live.iter().map(|run| run.run_id.as_str()).collect(),
            options,
            now,
            young_since,
            unnamed_since: starts.fold(young_since, Timestamp::min),
            users: inventory.users(),
        }
    }

    fn plan(&self, leftovers: Vec<Leftover>) -> GcPlan {
        let inventory = self.inventory;
        let undated = self.undated();
        let ended = inventory.runs.iter().map(|run| &run.what.id);
        let mut plan = GcPlan {
            runs: Vec::new(),
            records: Vec::new(),
            trees: Vec::new(),
            blobs: Vec::new(),
            partials: Vec::new(),
            leftovers,
            freed_bytes: 0,
            kept: GcKept {
                live_runs: self.live.len(),
                unknown: inventory.unknown.len(),
                undated: undated.len(),
                ..GcKept::default()
            },
            undated,
            over_budget_bytes: None,
            ended_runs: ended
                .filter(|id| !self.live.contains(id.as_str()))
                .cloned()
                .collect(),
            times: self.options.times,
        };
        for run in &inventory.runs {
            match self.why_run_goes(run) {
                Some(why) => plan.runs.push(Going {
                    pipeline: run.what.pipeline.clone(),
                    last_used: Some(run.began(self.now).unwrap_or(self.now)),
                    why: Some(why),
                    ..Going::new(GoingId::RunId(run.what.id.clone()), run.bytes, run)
                }),
                None => plan.kept.runs += usize::from(!self.is_live(run)),
            }
        }
        let named = self.mark_records(&mut plan);
        self.mark_unnamed(&named, &mut plan);
        self.mark_partials(&mut plan);
        // A record's own file; its outputs are counted as trees and blobs.
        plan.freed_bytes = plan
            .records
            .iter()
            .map(|going| going.found.bytes)
            .sum::<u64>()
            + plan.leftovers.iter().map(|left| left.bytes).sum::<u64>();
        for going in [&plan.runs, &plan.trees, &plan.blobs, &plan.partials] {
            plan.freed_bytes += going.iter().map(|going| going.bytes).sum::<u64>();
        }
        plan
    }

    fn is_live(&self, run: &Entry<Run>) -> bool {
        self.live.contains(run.what.id.as_str())
    }

    /// What has no time that can be believed counts as new.
    fn is_since(&self, times: &FileTimes, since: Timestamp) -> bool {
        times.latest(self.now).is_none_or(|time| time >= since)
    }

    fn why_run_goes(&self, run: &Entry<Run>) -> Option<GcReason> {
        let began = run.began(self.now).unwrap_or(self.now);
        let limit = self.options.older_than.map(|age| before(self.now, age));
        if self.is_live(run) || began >= self.young_since {
            None
        } else if limit.is_some_and(|limit| began < limit) {
            Some(GcReason::TooOld)
        } else {
            run.what.is_orphan.then_some(GcReason::PipelineGone)
        }
    }

    /// Why a record stays, or goes.
    fn judge(&self, file: &Entry<RecordFile>) -> Result<Hold, GcReason> {
        let users = self
            .users
            .get(&file.what.key)
            .map_or(&[][..], Vec::as_slice);
        if users.iter().any(|run| self.is_live(run)) {
            return Ok(Hold::Live);
        }
        match &file.what.content {
            Content::Newer { .. } => return Ok(Hold::Newer),
            _ if self.is_since(&file.times, self.young_since) => return Ok(Hold::Young),
            Content::Damaged(_) => return Err(GcReason::Damaged),
            Content::Older => return Err(GcReason::OlderFormat),
            Content::Record(_) => {}
        }
        // The newest run that goes says why.
        let mut why = GcReason::Unlisted;
        for run in users {
            match self.why_run_goes(run) {
                Some(reason) => why = reason,
                None => return Ok(Hold::Listed),
            }
        }
        Err(why)
    }

    fn last_used(&self, file: &Entry<RecordFile>) -> Timestamp {
        let users = self.users.get(&file.what.key).into_iter().flatten();
        let newest = users
            .map(|run| run.began(self.now).unwrap_or(self.now))
            .max();
        newest.unwrap_or_else(|| file.times.written(self.now).unwrap_or(self.now))
    }

    /// Plans the records; gives what those that stay name.
    fn mark_records(&self, plan: &mut GcPlan) -> Named {
        let mut staying = Vec::new();
        let mut going = Vec::new();
        for file in &self.inventory.records {
            match self.judge(file) {
                Ok(hold) => staying.push((file, hold)),
                Err(why) => going.push((file, why)),
            }
        }
        if let Some(max) = self.options.max_bytes {
            let young = |times: &FileTimes| self.is_since(times, self.unnamed_since);
            let mut budget = Budget::new(self.inventory, &staying, &young);
            staying.sort_by_key(|(file, _)| (self.last_used(file), file.what.key));
            staying.retain(|(file, hold)| {
                let evicted =
                    budget.bytes > max && *hold == Hold::Listed && budget.evict(&file.what);
                if evicted {
                    going.push((file, GcReason::OverBudget));
                }
                !evicted
            });
            plan.over_budget_bytes = budget.bytes.checked_sub(max).filter(|over| *over > 0);
        }
        let mut named = Named::default();
        for (file, hold) in staying {
            named.add(&file.what.content);
            *match hold {
                Hold::Live => &mut plan.kept.records_live,
                Hold::Listed => &mut plan.kept.records_listed,
                Hold::Young => &mut plan.kept.records_young,
                Hold::Newer => &mut plan.kept.records_newer,
            } += 1;
        }
        going.sort_by_key(|(file, _)| (self.last_used(file), file.what.key));
        plan.records = going
            .into_iter()
            .map(|(file, why)| self.record(file, why))
            .collect();
        named
    }

    fn record(&self, file: &Entry<RecordFile>, why: GcReason) -> Going {
        let provenance = |field| file.what.provenance(field).map(str::to_owned);
        Going {
            kind: file.what.record().map(|record| record.kind.clone()),
            stage: provenance("stage"),
            pipeline: provenance("pipeline"),
            last_used: Some(self.last_used(file)),
            why: Some(why),
            ..Going::new(GoingId::Key(file.what.key), file.what.output_bytes(), file)
        }
    }

    /// Plans the trees and blobs: what no record names goes, unless it is young.
    fn mark_unnamed(&self, named: &Named, plan: &mut GcPlan) {
        let inodes = self.inventory.blob_inodes();
        for tree in &self.inventory.trees {
            if named.trees.contains(&tree.what) || self.is_since(&tree.times, self.unnamed_since) {
                plan.kept.trees += 1;
            } else {
                let bytes = extra_bytes(&tree.path, &inodes);
                plan.trees
                    .push(Going::new(GoingId::Hash(tree.what), bytes, tree));
            }
        }
        for blob in &self.inventory.blobs {
            if named.blobs.contains(&blob.what) {
                plan.kept.blobs_named += 1;
            } else if self.is_since(&blob.times, self.unnamed_since) {
                plan.kept.blobs_young += 1;
            } else {
                plan.blobs
                    .push(Going::new(GoingId::Hash(blob.what), blob.bytes, blob));
                continue;
            }
            plan.kept.blob_bytes += blob.bytes;
        }
    }

    /// A stage that is under way goes on from the parts that it has written; whoever loses
    /// one computes it again.
    fn mark_partials(&self, plan: &mut GcPlan) {
        let age = self.options.older_than.unwrap_or(PARTIAL_AGE);
        let used_since = before(self.now, age).min(self.unnamed_since);
        for part in &self.inventory.partials {
            match part.times.written(self.now) {
                Some(used) if used < used_since => plan.partials.push(Going {
                    last_used: Some(used),
                    ..Going::new(GoingId::Path(part.path.clone()), part.bytes, part)
                }),
                _ => {
                    plan.kept.partials += 1;
                    plan.kept.partial_bytes += part.bytes;
                }
            }
        }
    }

    /// What has no time that can be believed.
    fn undated(&self) -> Vec<PathBuf> {
        fn of<T>(entries: &[Entry<T>], now: Timestamp) -> impl Iterator<Item = PathBuf> {
            let undated = entries
                .iter()
                .filter(move |e| e.times.latest(now).is_none());
            undated.map(|entry| entry.path.clone())
        }
        let inventory = self.inventory;
        let runs = inventory
            .runs
            .iter()
            .filter(|run| run.began(self.now).is_none());
        of(&inventory.records, self.now)
            .chain(of(&inventory.trees, self.now))
            .chain(of(&inventory.blobs, self.now))
            .chain(of(&inventory.partials, self.now))
            .chain(runs.map(|run| run.what.first.clone()))
            .collect()
    }
}

/// Why a record stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Live,
    Listed,
    Young,
    Newer,
}

/// Trees and blobs that records name.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub trees: BTreeSet<ContentHash>,
    pub blobs: BTreeSet<ContentHash>,
}

impl Named {
    /// Adds what a record's file names.
    pub fn add(&mut self, content: &Content) {
        match content {
            Content::Record(record) => {
                for tree in record.outputs.values() {
                    self.trees.insert(tree.hash);
                    self.blobs.extend(tree.files.iter().map(|f| f.hash));
                }
            }
            // It may be a tree's or a blob's: both are kept.
            Content::Newer { names, .. } => {
                self.trees.extend(names);
                self.blobs.extend(names);
            }
            Content::Damaged(_) | Content::Older => {}
        }
    }
}
