//! [`GcPlan`]: what of a cache may go, and why. Planning changes nothing;
//! `sweep.rs` applies a plan.
//!
//! Roots are the live runs and the runs whose pipeline file still exists (with
//! an age: that began within it). What a root lists is kept, with its trees and
//! blobs. A size budget takes the least recently used of the rest away, never
//! what a live run lists. Whatever is young is kept, since it may belong to
//! something that is not told of yet. Parts of results go by their age alone.
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
    BlobFile, Content, FileTimes, Inode, Inventory, PipelineFate, RecordFile, each_file, inode,
    size_of,
};
use super::{ContentHash, Key, LiveRun, Record, Store, StoreError, Times};

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

/// A run's folder that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunGoing {
    /// Its id.
    pub run_id: String,
    /// Name of its pipeline, if it said so.
    pub pipeline: Option<String>,
    /// Of its files.
    pub bytes: u64,
    /// When it began.
    pub started: Timestamp,
    /// Why it goes.
    pub why: GcReason,
}

/// A record that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordGoing {
    /// Its key.
    pub key: Key,
    /// Name of the stage kind.
    pub kind: Option<String>,
    /// The stage that made it.
    pub stage: Option<String>,
    /// The pipeline that made it.
    pub pipeline: Option<String>,
    /// Of its outputs, some of which others may share.
    pub bytes: u64,
    /// Start of the newest run that lists it; without one, when it was made.
    pub last_used: Timestamp,
    /// Why it goes.
    pub why: GcReason,
}

/// A laid-out tree that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TreeGoing {
    /// Its hash.
    pub hash: ContentHash,
    /// Of its files that are no links to blobs.
    pub bytes: u64,
    #[serde(skip)]
    pub(super) inode: Inode,
}

/// A blob that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlobGoing {
    /// Its hash.
    pub hash: ContentHash,
    /// Its size.
    pub bytes: u64,
    #[serde(skip)]
    pub(super) inode: Inode,
    #[serde(skip)]
    pub(super) modified: Timestamp,
}

/// A part of a result ([`super::Partials`]) that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartialGoing {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was last used.
    pub last_used: Timestamp,
    #[serde(skip)]
    pub(super) times: FileTimes,
}

/// Something in `tmp/` that a dead process left.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftoverGoing {
    /// Where it lies.
    pub path: PathBuf,
    /// Of its files.
    pub bytes: u64,
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GcPlan {
    /// Folders of runs that go.
    pub runs: Vec<RunGoing>,
    /// Records that go.
    pub records: Vec<RecordGoing>,
    /// Laid-out trees that go.
    pub trees: Vec<TreeGoing>,
    /// Blobs that go.
    pub blobs: Vec<BlobGoing>,
    /// Parts of results that nobody has used for long.
    pub partials: Vec<PartialGoing>,
    /// What dead processes left in `tmp/`.
    pub leftovers: Vec<LeftoverGoing>,
    /// What is given the present time, since the one it has lies in the future.
    #[serde(skip)]
    pub(super) undated: Vec<PathBuf>,
    /// Of everything that goes; a blob counts once, a link to one nothing.
    pub freed_bytes: u64,
    /// What stays.
    pub kept: GcKept,
    /// By how much the blobs that stay exceed the budget.
    pub over_budget_bytes: Option<u64>,
    /// Runs that were there: later ones are looked at when the plan is applied.
    #[serde(skip)]
    pub(super) known_runs: BTreeSet<String>,
    /// Runs that lived, or may have.
    #[serde(skip)]
    pub(super) live_runs: BTreeSet<String>,
    #[serde(skip)]
    pub(super) times_beat: Duration,
    #[serde(skip)]
    pub(super) times_stale: Duration,
}

impl GcPlan {
    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
            && self.records.is_empty()
            && self.trees.is_empty()
            && self.blobs.is_empty()
            && self.partials.is_empty()
            && self.leftovers.is_empty()
    }

    pub(super) fn times(&self) -> Times {
        Times {
            beat: self.times_beat,
            stale: self.times_stale,
        }
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
        let leftovers = self
            .leftovers()?
            .into_iter()
            .map(|path| LeftoverGoing {
                bytes: size_of(&path),
                path,
            })
            .collect();
        Ok(plan(&inventory, &live, leftovers, options, now))
    }
}

/// `time` less `by`, or the beginning of time.
fn before(time: Timestamp, by: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_sub(by).ok())
        .unwrap_or(Timestamp::MIN)
}

/// The plan for what was found; looks at no file but those of trees that go.
fn plan(
    inventory: &Inventory,
    live: &[LiveRun],
    leftovers: Vec<LeftoverGoing>,
    options: &GcOptions,
    now: Timestamp,
) -> GcPlan {
    let young_since = before(now, options.grace);
    // A live run may have made or reused a blob for a record that it has yet to
    // write, however long ago: what is younger than a live run is young.
    let blobs_young_since = live
        .iter()
        .map(|run| before(run.since(now), options.grace))
        .fold(young_since, Timestamp::min);
    let undated = undated(inventory, now);
    // What has no time that can be believed counts as new.
    let since = |times: &FileTimes, since| times.latest(now).is_none_or(|time| time >= since);
    let mut kept = GcKept {
        live_runs: live.len(),
        unknown: inventory.unknown.len(),
        undated: undated.len(),
        ..GcKept::default()
    };
    let (runs, uses) = judge_runs(inventory, live, options, now, &mut kept);

    let mut going = Vec::new();
    let mut staying: Vec<(&RecordFile, Hold)> = Vec::new();
    for file in &inventory.records {
        let hold = match (uses.get(&file.key), &file.content) {
            (Some(u), _) if u.live => Ok(Hold::Live),
            (_, Content::Newer { .. }) => Ok(Hold::Newer),
            _ if since(&file.times, young_since) => Ok(Hold::Young),
            (_, Content::Damaged(_)) => Err(GcReason::Damaged),
            (_, Content::Older) => Err(GcReason::OlderFormat),
            (Some(Use { why: None, .. }), _) => Ok(Hold::Listed),
            (Some(Use { why: Some(why), .. }), _) => Err(*why),
            (None, _) => Err(GcReason::Unlisted),
        };
        match hold {
            Ok(hold) => staying.push((file, hold)),
            Err(why) => going.push((file, why)),
        }
    }
    let last_used = |file: &RecordFile| {
        uses.get(&file.key).map_or_else(
            || file.times.written(now).unwrap_or(now),
            |used| used.newest,
        )
    };
    let mut over_budget_bytes = None;
    if let Some(max) = options.max_bytes {
        let young = |blob: &BlobFile| since(&blob.times, blobs_young_since);
        let mut budget = Budget::new(inventory, &staying, &young);
        let mut order: Vec<usize> = (0..staying.len()).collect();
        order.sort_by_key(|i| (last_used(staying[*i].0), staying[*i].0.key));
        let mut evicted = BTreeSet::new();
        for index in order {
            if budget.bytes <= max {
                break;
            }
            let (file, hold) = staying[index];
            if hold == Hold::Listed && budget.evict(file) {
                evicted.insert(index);
            }
        }
        let mut index = 0;
        staying.retain(|(file, _)| {
            let stays = !evicted.contains(&index);
            index += 1;
            if !stays {
                going.push((file, GcReason::OverBudget));
            }
            stays
        });
        over_budget_bytes = budget.bytes.checked_sub(max).filter(|over| *over > 0);
    }
    for (_, hold) in &staying {
        *match hold {
            Hold::Live => &mut kept.records_live,
            Hold::Listed => &mut kept.records_listed,
            Hold::Young => &mut kept.records_young,
            Hold::Newer => &mut kept.records_newer,
        } += 1;
    }

    let mut named = Named::default();
    for (file, _) in &staying {
        named.add(&file.content);
    }
    let mut blobs = Vec::new();
    for blob in &inventory.blobs {
        let count = if named.blobs.contains(&blob.hash) {
            &mut kept.blobs_named
        } else if since(&blob.times, blobs_young_since) {
            &mut kept.blobs_young
        } else {
            blobs.push(BlobGoing {
                hash: blob.hash,
                bytes: blob.bytes,
                inode: blob.inode,
                modified: blob.modified,
            });
            continue;
        };
        *count += 1;
        kept.blob_bytes += blob.bytes;
    }
    let inodes: BTreeSet<Inode> = inventory.blobs.iter().map(|b| b.inode).collect();
    let mut trees = Vec::new();
    for tree in &inventory.trees {
        if named.trees.contains(&tree.hash) || since(&tree.times, blobs_young_since) {
            kept.trees += 1;
        } else {
            trees.push(TreeGoing {
                hash: tree.hash,
                bytes: extra_bytes(&tree.path, &inodes),
                inode: tree.inode,
            });
        }
    }
    // Asked for by the stage that goes on; whoever loses one computes it again. A stage
    // that is under way goes on from those that it has written.
    let used_since = before(now, options.older_than.unwrap_or(PARTIAL_AGE)).min(blobs_young_since);
    let mut partials = Vec::new();
    for file in &inventory.partials {
        let used = file.times.written(now);
        if used.is_none_or(|used| used >= used_since) {
            kept.partials += 1;
            kept.partial_bytes += file.bytes;
        } else {
            partials.push(PartialGoing {
                path: file.path.clone(),
                bytes: file.bytes,
                last_used: used.unwrap_or(now),
                times: file.times,
            });
        }
    }
    let records_bytes: u64 = going.iter().map(|(file, _)| file.bytes).sum();
    let freed_bytes = records_bytes
        + runs.iter().map(|r| r.bytes).sum::<u64>()
        + trees.iter().map(|t| t.bytes).sum::<u64>()
        + blobs.iter().map(|b| b.bytes).sum::<u64>()
        + partials.iter().map(|p| p.bytes).sum::<u64>()
        + leftovers.iter().map(|l| l.bytes).sum::<u64>();
    let mut records: Vec<RecordGoing> = going
        .into_iter()
        .map(|(file, why)| describe(file, last_used(file), why))
        .collect();
    records.sort_by_key(|r| (r.last_used, r.key));
    GcPlan {
        runs,
        records,
        trees,
        blobs,
        partials,
        leftovers,
        undated,
        freed_bytes,
        kept,
        over_budget_bytes,
        known_runs: inventory.runs.iter().map(|r| r.id.clone()).collect(),
        live_runs: live.iter().map(|run| run.run_id.clone()).collect(),
        times_beat: options.times.beat,
        times_stale: options.times.stale,
    }
}

/// What has no time that can be believed.
fn undated(inventory: &Inventory, now: Timestamp) -> Vec<PathBuf> {
    let files = inventory.records.iter().map(|f| (&f.times, &f.path));
    let trees = inventory.trees.iter().map(|f| (&f.times, &f.path));
    let blobs = inventory.blobs.iter().map(|f| (&f.times, &f.path));
    let partials = inventory.partials.iter().map(|f| (&f.times, &f.path));
    let runs = inventory.runs.iter().filter(|run| run.began(now).is_none());
    files
        .chain(trees)
        .chain(blobs)
        .chain(partials)
        .filter(|(times, _)| times.latest(now).is_none())
        .map(|(_, path)| path.clone())
        .chain(runs.map(|run| run.dated.clone()))
        .collect()
}

/// Why a record stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Live,
    Listed,
    Young,
    Newer,
}

/// What runs say about a key.
struct Use {
    /// A live run lists it.
    live: bool,
    /// Start of the newest run that lists it.
    newest: Timestamp,
    /// Why no run that lists it stays; `None` if one does.
    why: Option<GcReason>,
}

/// The runs that go, and what every run says about keys.
fn judge_runs(
    inventory: &Inventory,
    live: &[LiveRun],
    options: &GcOptions,
    now: Timestamp,
    kept: &mut GcKept,
) -> (Vec<RunGoing>, BTreeMap<Key, Use>) {
    let young_since = before(now, options.grace);
    let age_limit = options.older_than.map(|age| before(now, age));
    let mut going = Vec::new();
    let mut uses: BTreeMap<Key, Use> = BTreeMap::new();
    for run in &inventory.runs {
        let is_live = live.iter().any(|l| l.run_id == run.id);
        let began = run.began(now).unwrap_or(now);
        let why = if is_live || began >= young_since {
            None
        } else if age_limit.is_some_and(|limit| began < limit) {
            Some(GcReason::TooOld)
        } else if run.fate == PipelineFate::Gone {
            Some(GcReason::PipelineGone)
        } else {
            None
        };
        match why {
            None => kept.runs += usize::from(!is_live),
            Some(why) => going.push(RunGoing {
                run_id: run.id.clone(),
                pipeline: run.pipeline.clone(),
                bytes: run.bytes,
                started: began,
                why,
            }),
        }
        for key in &run.keys {
            let seen = uses.entry(*key).or_insert(Use {
                live: false,
                newest: began,
                why,
            });
            seen.live |= is_live;
            // Ids sort by time, so this is the newest so far.
            seen.newest = seen.newest.max(began);
            seen.why = match (seen.why, why) {
                (Some(_), Some(newer)) => Some(newer),
                _ => None,
            };
        }
    }
    (going, uses)
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

fn describe(file: &RecordFile, last_used: Timestamp, why: GcReason) -> RecordGoing {
    let record: Option<&Record> = match &file.content {
        Content::Record(record) => Some(record),
        _ => None,
    };
    let told = |field: &str| {
        let text = record?.provenance[field].as_str()?;
        Some(text.to_owned())
    };
    RecordGoing {
        key: file.key,
        kind: record.map(|r| r.kind.clone()),
        stage: told("stage"),
        pipeline: told("pipeline"),
        bytes: record.map_or(0, |r| r.outputs.values().map(super::Tree::bytes).sum()),
        last_used,
        why,
    }
}

/// Bytes of a laid-out tree's files that are no links to blobs.
pub(super) fn extra_bytes(folder: &std::path::Path, blobs: &BTreeSet<Inode>) -> u64 {
    let mut bytes = 0;
    each_file(folder, &mut |_, metadata| {
        if !blobs.contains(&inode(metadata)) {
            bytes += metadata.len();
        }
    });
    bytes
}
