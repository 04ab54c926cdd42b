//! Garbage collection and usage on real caches. The clock of a plan is an hour
//! ahead, so that what a test makes is old; heartbeats are of now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;

use super::testing::read_run;
use super::*;

/// A cache, and a place for pipeline files.
pub(super) struct Fixture {
    pub dir: TempDir,
    pub store: Store,
}

/// Days of January 2020 are long ago.
pub(super) fn run_id(day: u8) -> String {
    format!("202001{day:02}T000000-abcd")
}

pub(super) fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(1)
}

pub(super) fn key(n: u8) -> Key {
    Key::from_bytes([n; 32])
}

pub(super) fn set_modified(path: &Path, time: std::time::SystemTime) {
    let file = fs::File::options().read(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

impl Fixture {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("cache"))
            .unwrap()
            .reading_runs(read_run);
        Self { dir, store }
    }

    /// A pipeline file that exists.
    pub fn pipeline(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{name}.yaml"));
        fs::write(&path, "").unwrap();
        path
    }

    pub fn run_on(&self, host: &str, day: u8, pipeline: &Path, uses: &[u8]) {
        let folder = self.store.runs_dir().join(run_id(day));
        fs::create_dir_all(&folder).unwrap();
        let name = pipeline.file_stem().unwrap().to_str().unwrap();
        let text = json!({ "name": name, "path": pipeline, "environment": { "host": host } });
        let first = folder.join("pipeline.json");
        fs::write(&first, text.to_string()).unwrap();
        // As old as the run, by the file server's clock too.
        let began = std::time::SystemTime::UNIX_EPOCH
            + Duration::from_secs(1_577_836_800 + 86_400 * (u64::from(day) - 1));
        set_modified(&first, began);
        let uses: String = uses.iter().map(|n| format!("{}\n", key(*n))).collect();
        fs::write(folder.join("uses"), uses).unwrap();
    }

    /// A run that is over.
    pub fn run(&self, day: u8, pipeline: &Path, uses: &[u8]) {
        self.run_on(&process::host(), day, pipeline, uses);
    }

    /// A run that beats now and says that it began then.
    pub fn live_run(&self, day: u8, uses: &[u8], started: Timestamp) {
        self.run(day, &self.dir.path().join("deleted.yaml"), uses);
        let lease = json!({
            "format": 1, "run_id": run_id(day), "started": started.to_string(),
            "host": process::host(), "pid": std::process::id(),
        });
        let path = self.store.runs_dir().join(run_id(day)).join("lease.json");
        fs::write(path, lease.to_string()).unwrap();
    }

    /// A result whose model is one file, laid out.
    pub fn result(&self, n: u8, content: &str) -> Record {
        let job = self.store.job_dir("test").unwrap();
        fs::write(job.output().join("w"), content).unwrap();
        let tree = self.store.ingest_whole(&job).unwrap();
        let record = Record {
            format: RECORD_FORMAT,
            key: key(n),
            kind: if n.is_multiple_of(2) {
                "train"
            } else {
                "score"
            }
            .to_owned(),
            preimage: json!({}),
            outputs: BTreeMap::from([("model".to_owned(), tree.clone())]),
            figures: json!([]),
            provenance: json!({ "stage": format!("stage-{n}"), "pipeline": "maker" }),
        };
        self.store.put(&record).unwrap();
        self.store.materialise(&tree).unwrap();
        record
    }

    pub fn hits(&self) -> Vec<u8> {
        let is_hit = |n: &u8| self.store.lookup(&key(*n)).is_some();
        (1..=20).filter(is_hit).collect()
    }

    pub fn plan(&self, options: &GcOptions) -> GcPlan {
        self.store.plan_gc_at(options, later()).unwrap()
    }

    pub fn collect(&self, options: &GcOptions) -> (GcPlan, GcDone) {
        let plan = self.plan(options);
        let done = self.store.apply_gc(&plan, &mut |_| {}).unwrap();
        (plan, done)
    }

    /// Names of everything in the cache, with sizes.
    pub fn listing(&self) -> BTreeMap<PathBuf, u64> {
        let mut all = BTreeMap::new();
        inventory::each_file(self.store.root(), &mut |path, metadata| {
            all.insert(path.to_owned(), metadata.len());
        });
        all
    }

    pub fn count(&self, folder: &str) -> usize {
        let folder = self.store.root().join(folder);
        self.listing()
            .keys()
            .filter(|p| p.starts_with(&folder))
            .count()
    }
}

fn keys_of(plan: &GcPlan) -> Vec<(Key, GcReason)> {
    let pair = |going: &Going| match going.id {
        GoingId::Key(key) => (key, going.why.unwrap()),
        _ => panic!("{going:?}"),
    };
    plan.records.iter().map(pair).collect()
}

/// Everything that is not young and that no rule keeps.
fn all() -> GcOptions {
    GcOptions::default()
}

// ---- what is kept ----

#[test]
fn what_existing_pipelines_used_is_kept_and_the_rest_goes() {
    let f = Fixture::new();
    for n in 1..=4 {
        f.result(n, &format!("weights {n}"));
    }
    f.run(1, &f.pipeline("here"), &[1, 2]);
    f.run(2, &f.dir.path().join("deleted.yaml"), &[2, 3]);

    let (plan, done) = f.collect(&all());
    assert_eq!(
        keys_of(&plan),
        [
            (key(3), GcReason::PipelineGone),
            (key(4), GcReason::Unlisted)
        ]
    );
    assert_eq!(plan.runs[0].id, GoingId::RunId(run_id(2)));
    assert_eq!((plan.kept.records_listed, plan.kept.runs), (2, 1));
    assert_eq!(plan.records[0].stage.as_deref(), Some("stage-3"));
    let expected = GcDone {
        runs: 1,
        records: 2,
        trees: 2,
        blobs: 2,
        freed_bytes: plan.freed_bytes,
        ..GcDone::default()
    };
    assert_eq!(done, expected);
    assert_eq!(f.hits(), [1, 2]);
    assert_eq!(
        [f.count("blobs"), f.count("trees"), f.count("tmp")],
        [2, 2, 0]
    );
    assert!(!f.store.runs_dir().join(run_id(2)).exists());
    assert!(f.plan(&all()).is_empty());
}

#[test]
fn pipelines_of_other_hosts_count_as_existing() {
    let f = Fixture::new();
    f.result(1, "weights");
    f.run_on("elsewhere", 1, Path::new("/nowhere/p.yaml"), &[1]);
    assert!(f.plan(&all()).is_empty());
}

#[test]
fn what_an_older_genius_ran_is_known_by_its_report() {
    let f = Fixture::new();
    f.result(1, "weights");
    f.run(1, &f.pipeline("here"), &[]);
    let folder = f.store.runs_dir().join(run_id(1));
    fs::remove_file(folder.join("uses")).unwrap();
    assert_eq!(f.plan(&all()).records.len(), 1);
    let report = json!({ "stages": [{ "stage": "train", "key": key(1) }, { "key": null }] });
    fs::write(folder.join("run.json"), report.to_string()).unwrap();
    assert!(f.plan(&all()).is_empty());
}

#[test]
fn an_age_keeps_only_what_later_runs_used() {
    let f = Fixture::new();
    for n in 1..=3 {
        f.result(n, &format!("weights {n}"));
    }
    let pipeline = f.pipeline("here");
    f.run(1, &pipeline, &[1, 2]);
    f.run(20, &pipeline, &[2, 3]);
    let since: Timestamp = "2020-01-10T00:00:00Z".parse().unwrap();
    let options = GcOptions {
        older_than: Some(later().duration_since(since).unsigned_abs()),
        ..all()
    };
    let (plan, _) = f.collect(&options);
    assert_eq!(keys_of(&plan), [(key(1), GcReason::TooOld)]);
    assert_eq!(plan.runs[0].why, Some(GcReason::TooOld));
    assert_eq!(f.hits(), [2, 3]);
}

#[test]
fn a_size_takes_the_least_recently_used_first() {
    let f = Fixture::new();
    for n in 1..=4 {
        f.result(n, &format!("{n}").repeat(100));
    }
    let pipeline = f.pipeline("here");
    f.run(1, &pipeline, &[1, 2, 3]);
    f.run(2, &pipeline, &[1, 4]);
    f.run(3, &pipeline, &[3]);
    let within = |max_bytes| GcOptions {
        max_bytes: Some(max_bytes),
        ..all()
    };
    assert!(f.plan(&within(400)).is_empty());
    let (plan, _) = f.collect(&within(250));
    assert_eq!(
        keys_of(&plan),
        [
            (key(2), GcReason::OverBudget),
            (key(1), GcReason::OverBudget)
        ]
    );
    assert_eq!((plan.kept.blob_bytes, plan.over_budget_bytes), (200, None));
    assert_eq!(f.hits(), [3, 4]);
}

#[test]
fn a_size_does_not_take_what_would_free_nothing() {
    let f = Fixture::new();
    f.result(1, "shared with what a live run uses");
    f.result(2, "shared with what a live run uses");
    f.run(1, &f.pipeline("here"), &[1]);
    f.live_run(2, &[2], later());
    let options = GcOptions {
        max_bytes: Some(10),
        ..all()
    };
    let (plan, _) = f.collect(&options);
    assert_eq!(keys_of(&plan), []);
    assert_eq!(
        plan.over_budget_bytes,
        Some(22),
        "and it says that it cannot fit"
    );
    assert_eq!(f.hits(), [1, 2]);
}

#[test]
fn what_is_young_stays_whoever_uses_it() {
    let f = Fixture::new();
    f.result(1, "weights");
    let plan = f.store.plan_gc(&all()).unwrap();
    assert!(plan.is_empty());
    assert_eq!((plan.kept.records_young, plan.kept.blobs_named), (1, 1));
    fs::remove_file(f.store.record_file(&key(1))).unwrap();
    let plan = f.store.plan_gc(&all()).unwrap();
    assert!(plan.is_empty(), "a blob whose record is yet to come");
    assert_eq!(plan.kept.blobs_young, 1);
}

#[test]
fn a_blob_that_a_kept_record_names_too_stays() {
    let f = Fixture::new();
    f.result(1, "the same");
    f.result(2, "the same");
    f.run(1, &f.pipeline("here"), &[2]);
    let (plan, done) = f.collect(&all());
    assert_eq!(keys_of(&plan), [(key(1), GcReason::Unlisted)]);
    assert_eq!((done.records, done.blobs, done.trees), (1, 0, 0));
    assert_eq!(f.hits(), [2]);
}

#[test]
fn a_link_to_a_blob_frees_nothing_and_a_copy_does() {
    let f = Fixture::new();
    let record = f.result(1, "12345");
    let expected = 5 + fs::metadata(f.store.record_file(&key(1))).unwrap().len();
    assert_eq!(f.plan(&all()).freed_bytes, expected);
    let laid_out = f.store.tree_path(&record.outputs["model"].hash).join("w");
    fs::remove_file(&laid_out).unwrap();
    fs::write(&laid_out, "12345").unwrap();
    assert_eq!(f.plan(&all()).freed_bytes, expected + 5);
}

#[test]
fn records_that_are_none_go_and_those_of_a_newer_genius_stay() {
    let f = Fixture::new();
    for n in 1..=3 {
        f.result(n, &format!("weights {n}"));
    }
    f.run(1, &f.pipeline("here"), &[1, 2]);
    fs::write(f.store.record_file(&key(1)), "{").unwrap();
    let older = json!({ "format": 1, "key": key(2) });
    fs::write(f.store.record_file(&key(2)), older.to_string()).unwrap();
    let path = f.store.record_file(&key(3));
    let mut newer: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    newer["format"] = json!(RECORD_FORMAT + 1);
    fs::write(&path, newer.to_string()).unwrap();

    let (plan, _) = f.collect(&all());
    assert_eq!(
        BTreeSet::from_iter(keys_of(&plan)),
        BTreeSet::from([(key(1), GcReason::Damaged), (key(2), GcReason::OlderFormat)])
    );
    assert_eq!(plan.kept.records_newer, 1);
    assert!(path.exists());
    assert_eq!(
        [f.count("blobs"), f.count("trees")],
        [1, 1],
        "with what it names"
    );
}

#[test]
fn unknown_files_are_left_alone_and_counted() {
    let f = Fixture::new();
    f.result(1, "weights");
    let unknown = [
        "notes.txt",
        "blobs/README",
        "blobs/zz/file",
        "records/00/x.json",
        "trees/mine",
        "runs/mine/file",
    ];
    for path in unknown {
        let path = f.store.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    let (plan, _) = f.collect(&all());
    assert_eq!(plan.kept.unknown, unknown.len());
    for path in unknown {
        assert!(f.store.root().join(path).exists(), "{path}");
    }
    assert!(f.hits().is_empty());
}

#[test]
fn parts_of_results_go_by_their_age() {
    let f = Fixture::new();
    let job = f.store.job_dir("test").unwrap();
    let dir = f.store.partial_dir("rollout");
    let partials = Partials::new(&dir, &job.scratch());
    let day = Duration::from_secs(24 * 3600);
    let path = |n: u8| {
        let hex = key(n).to_string();
        dir.join(&hex[..2]).join(format!("{hex}.json"))
    };
    // Used 1, 10, 40 and 50 days ago.
    for (n, days) in [(1, 1), (2, 10), (3, 40), (4, 50)] {
        partials.put(&key(n), b"a part").unwrap();
        let file = fs::File::options().write(true).open(path(n)).unwrap();
        file.set_modified(std::time::SystemTime::now() - day * days)
            .unwrap();
    }
    let mine = dir.join("notes.txt");
    fs::write(&mine, "mine").unwrap();
    let size = fs::metadata(path(1)).unwrap().len();
    let usage = f.store.usage().unwrap();
    assert_eq!(
        (usage.partial, usage.unknown.count),
        (
            Amount {
                count: 4,
                bytes: 4 * size
            },
            1
        )
    );
    let plan = f.plan(&all());
    let going: Vec<&PathBuf> = plan.partials.iter().map(|p| &p.found.path).collect();
    assert_eq!(going, [&path(3), &path(4)]);
    assert_eq!(plan.freed_bytes, 2 * size);
    assert_eq!((plan.kept.partials, plan.kept.partial_bytes), (2, 2 * size));
    // One that a rollout uses meanwhile stays.
    assert!(partials.get(&key(4)).is_some());
    let done = f.store.apply_gc(&plan, &mut |_| {}).unwrap();
    assert_eq!((done.partials, done.spared, done.freed_bytes), (1, 1, size));
    assert!(path(2).exists() && !path(3).exists() && path(4).exists());
    // An age that is given counts instead; and what is young stays whatever it is.
    let week = GcOptions {
        older_than: Some(7 * day),
        ..all()
    };
    f.collect(&week);
    assert!(path(1).exists() && !path(2).exists() && path(4).exists());
    let none = GcOptions {
        older_than: Some(Duration::ZERO),
        grace: 2 * day,
        ..all()
    };
    f.collect(&none);
    assert!(path(1).exists() && mine.exists());
}

#[test]
fn a_plan_changes_nothing() {
    let f = Fixture::new();
    for n in 1..=3 {
        f.result(n, &format!("weights {n}"));
    }
    f.run(1, &f.dir.path().join("deleted.yaml"), &[1]);
    let dead = f.store.job_dir("dead").unwrap().keep();
    fs::write(dead.join("owner.json"), dead_owner()).unwrap();
    let before = f.listing();
    let plan = f.plan(&all());
    assert_eq!((plan.records.len(), plan.leftovers.len()), (3, 1));
    assert_eq!(f.listing(), before);
    assert_eq!(f.store.apply_gc(&plan, &mut |_| {}).unwrap().leftovers, 1);
    assert!(!dead.exists());
}

// ---- others at work ----

#[test]
fn what_a_live_run_lists_is_kept_though_its_pipeline_is_gone() {
    let f = Fixture::new();
    for n in 1..=2 {
        f.result(n, &format!("weights {n}"));
    }
    f.live_run(1, &[1], later());
    let options = GcOptions {
        older_than: Some(Duration::from_secs(1)),
        max_bytes: Some(0),
        ..all()
    };
    let (plan, _) = f.collect(&options);
    assert_eq!((plan.kept.live_runs, plan.kept.records_live), (1, 1));
    assert_eq!(keys_of(&plan), [(key(2), GcReason::Unlisted)]);
    assert_eq!(f.hits(), [1]);
    assert!(f.store.runs_dir().join(run_id(1)).exists());
}

/// It may be about to write the record that names it.
#[test]
fn what_is_younger_than_a_live_run_is_young() {
    let f = Fixture::new();
    f.result(1, "weights");
    f.live_run(1, &[], Timestamp::now());
    let plan = f.plan(&all());
    assert_eq!(plan.records.len(), 1);
    assert_eq!((plan.blobs.len(), plan.trees.len()), (0, 0));
    assert_eq!(plan.kept.blobs_young, 1);
}

#[test]
fn what_a_run_lists_after_the_plan_is_spared() {
    let f = Fixture::new();
    for n in 1..=2 {
        f.result(n, &format!("weights {n}"));
    }
    let plan = f.plan(&all());
    f.live_run(1, &[1], later());
    let done = f.store.apply_gc(&plan, &mut |_| {}).unwrap();
    assert_eq!((done.records, done.spared), (1, 3), "record, tree and blob");
    assert_eq!(f.hits(), [1]);
    assert_eq!([f.count("trees"), f.count("tmp")], [1, 0]);
}

#[test]
fn what_a_run_lists_between_the_two_looks_is_put_back() {
    let f = Fixture::new();
    for n in 1..=2 {
        f.result(n, &format!("weights {n}"));
    }
    let plan = f.plan(&all());
    let mut listed = false;
    let done = f.store.apply_gc_beside(&plan, &mut |_| {}, &mut |what| {
        if what == "records" && !listed {
            listed = true;
            assert!(f.hits().is_empty(), "a run that looks now computes");
            f.live_run(1, &[1], later());
        }
    });
    assert_eq!(done.unwrap().records, 1);
    assert_eq!(f.hits(), [1]);
    assert_eq!([f.count("trees"), f.count("tmp")], [1, 0]);
}

#[test]
fn a_result_that_is_published_meanwhile_keeps_its_blobs_and_tree() {
    for away in ["records", "trees", "blobs"] {
        let f = Fixture::new();
        let old = f.result(1, "weights");
        let plan = f.plan(&all());
        // It publishes the same content again under another key.
        let done = f.store.apply_gc_beside(&plan, &mut |_| {}, &mut |what| {
            if what == away {
                f.live_run(2, &[2], later());
                let record = f.result(2, "weights");
                assert_eq!(record.outputs, old.outputs);
            }
        });
        assert_eq!(done.unwrap().records, 1);
        let record = f.store.lookup(&key(2)).unwrap_or_else(|| panic!("{away}"));
        let folder = f.store.materialise(&record.outputs["model"]).unwrap();
        assert_eq!(fs::read(folder.join("w")).unwrap(), b"weights");
    }
}

#[test]
fn a_blob_that_is_touched_meanwhile_is_put_back() {
    let f = Fixture::new();
    let record = f.result(1, "weights");
    let hash = record.outputs["model"].files[0].hash;
    // Before it is moved away, and through a handle that was opened before that.
    for moment in ["trees", "blobs"] {
        fs::File::open(f.store.blob_path(&hash))
            .unwrap()
            .set_modified(Timestamp::now().into())
            .unwrap();
        f.result(1, "weights");
        let plan = f.plan(&all());
        assert_eq!(plan.blobs.len(), 1);
        let handle = fs::File::open(f.store.blob_path(&hash)).unwrap();
        let done = f.store.apply_gc_beside(&plan, &mut |_| {}, &mut |what| {
            if what == moment {
                handle.set_modified(later().into()).unwrap();
            }
        });
        let done = done.unwrap();
        assert_eq!((done.blobs, done.spared), (0, 1), "{moment}");
        assert!(f.store.blob_path(&hash).exists());
    }
}

#[test]
fn two_collections_at_once_do_no_harm() {
    let f = Fixture::new();
    for n in 1..=20 {
        f.result(n, &format!("weights {n}"));
    }
    f.run(1, &f.pipeline("here"), &[1, 2, 3]);
    let plan = f.plan(&all());
    let done: Vec<GcDone> = std::thread::scope(|scope| {
        let one = || f.store.apply_gc(&plan, &mut |_| {}).unwrap();
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    assert_eq!(done.iter().map(|d| d.records).sum::<usize>(), 17);
    assert_eq!(done.iter().map(|d| d.blobs).sum::<usize>(), 17);
    assert_eq!(f.hits(), [1, 2, 3]);
    assert_eq!(
        [f.count("blobs"), f.count("trees"), f.count("tmp")],
        [3, 3, 0]
    );
}

// ---- cut short ----

/// An `owner.json` of a process of this host that is no more.
fn dead_owner() -> String {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let mut owner = json!(process::Process::this());
    owner["pid"] = json!(pid);
    owner.to_string()
}

#[test]
fn cut_short_at_any_handful_it_leaves_a_usable_cache_and_the_next_one_ends_it() {
    for handfuls in 1.. {
        let f = Fixture::new();
        for n in 1..=4 {
            f.result(n, &format!("weights {n}"));
        }
        f.run(1, &f.pipeline("here"), &[1]);
        f.run(2, &f.dir.path().join("deleted.yaml"), &[1, 2]);
        let plan = f.plan(&all());
        let mut left = handfuls;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            f.store.apply_gc_beside(&plan, &mut |_| {}, &mut |_| {
                left -= 1;
                assert!(left > 0, "cut short");
            })
        }));
        if ended.is_ok() {
            assert!(handfuls > 4, "it was cut short only {handfuls} times");
            return;
        }
        let hits = f.hits();
        assert!(hits.contains(&1));
        for n in hits {
            let record = f.store.lookup(&key(n)).unwrap();
            let folder = f.store.materialise(&record.outputs["model"]).unwrap();
            let text = fs::read_to_string(folder.join("w")).unwrap();
            assert_eq!(text, format!("weights {n}"), "cut short at {handfuls}");
        }
        f.collect(&all());
        assert_eq!(f.hits(), [1]);
        let counts = ["blobs", "trees", "tmp"].map(|folder| f.count(folder));
        assert_eq!(counts, [1, 1, 0]);
        assert!(!f.store.runs_dir().join(run_id(2)).exists());
    }
}

#[test]
fn after_an_error_what_was_not_decided_on_is_put_back() {
    let f = Fixture::new();
    f.result(1, "weights");
    let plan = f.plan(&all());
    let runs = f.store.runs_dir();
    let failed = f.store.apply_gc_beside(&plan, &mut |_| {}, &mut |what| {
        if what == "records" {
            // As root no permission stands in the way.
            fs::remove_dir_all(&runs).unwrap();
            fs::write(&runs, "").unwrap();
        }
    });
    assert!(matches!(failed, Err(StoreError::Io { .. })));
    assert_eq!(f.hits(), [1]);
}

// ---- usage ----

#[test]
fn usage_counts_a_blob_once_and_tells_who_uses_it() {
    let f = Fixture::new();
    f.result(1, "12345");
    f.result(2, "12345");
    f.result(3, "1234567890");
    f.run(1, &f.pipeline("first"), &[1, 3]);
    f.run(2, &f.pipeline("second"), &[1]);
    let usage = f.store.usage().unwrap();
    assert_eq!(
        usage.blobs,
        Amount {
            count: 2,
            bytes: 15
        }
    );
    assert_eq!(
        usage.trees,
        TreesAmount {
            count: 2,
            apparent_bytes: 15,
            extra_bytes: 0
        }
    );
    assert_eq!(
        (usage.records.count, usage.runs.count, usage.tmp.count),
        (3, 2, 0)
    );
    let shares = |shares: &[Share]| -> Vec<(String, usize, u64)> {
        let shares = shares.iter();
        shares
            .map(|s| (s.name.clone(), s.records, s.bytes))
            .collect()
    };
    let share = |name: &str, records, bytes| (name.to_owned(), records, bytes);
    assert_eq!(
        shares(&usage.by_kind),
        [share("score", 2, 15), share("train", 1, 5)]
    );
    assert_eq!(
        shares(&usage.by_pipeline),
        [
            share("first", 2, 15),
            share("maker", 1, 5),
            share("second", 1, 5)
        ]
    );
    let used: Vec<Key> = usage.results.iter().map(|r| r.key).collect();
    assert_eq!(used, [key(2), key(1), key(3)], "most recently used first");
    assert_eq!(
        usage.results[1].last_used.to_string(),
        "2020-01-02T00:00:00Z"
    );
}

// ---- all at once ----

/// What a run does with the cache for one stage: lists the key, looks it up,
/// computes on a miss, reads the laid-out files.
fn use_result(f: &Fixture, lease: &Lease, n: u8) -> &'static str {
    lease.uses(&key(n)).unwrap();
    let hit = f.store.lookup(&key(n));
    let content = format!("weights {}", n % 3);
    let (record, how) = match hit {
        Some(record) => (record, "hit"),
        None => (f.result(n, &content), "miss"),
    };
    let folder = f.store.materialise(&record.outputs["model"]).unwrap();
    // A stage's process takes longer to start.
    std::thread::sleep(Duration::from_millis(2));
    for _ in 0..3 {
        let text = fs::read_to_string(folder.join("w"))
            .unwrap_or_else(|e| panic!("result {n} after a {how}: {e}"));
        assert_eq!(text, content);
        std::thread::sleep(Duration::from_micros(200));
    }
    how
}

/// A run from its first moment to its last, in which it uses two results.
fn one_run(f: &Fixture, number: u32) -> [&'static str; 2] {
    let lease = f.store.begin_run(&Times::default()).unwrap();
    let pipeline = json!({ "name": "deleted", "path": f.dir.path().join("deleted.yaml") });
    fs::write(lease.dir().join("pipeline.json"), pipeline.to_string()).unwrap();
    [number * 7, number * 5 + 3].map(|n| use_result(f, &lease, u8::try_from(n % 8 + 1).unwrap()))
}

#[test]
fn runs_that_come_and_go_beside_a_collection_lose_nothing_they_use() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
    let f = Fixture::new();
    /// Set even if the collections fail: else the runs would go on for ever.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let counted = std::sync::Mutex::new(BTreeMap::<&str, usize>::new());
    let options = GcOptions {
        grace: Duration::ZERO,
        ..all()
    };
    let runs = || {
        while !over.load(Relaxed) {
            for how in one_run(&f, next.fetch_add(1, Relaxed)) {
                *counted.lock().unwrap().entry(how).or_default() += 1;
            }
        }
    };
    let (mut records, mut blobs) = (0, 0);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..2).map(|_| scope.spawn(runs)).collect();
        let _over = Over(&over);
        // A run that fails ends the test too.
        while (records < 30 || blobs < 3) && !handles.iter().any(|h| h.is_finished()) {
            let plan = f.store.plan_gc(&options).unwrap();
            let done = f.store.apply_gc(&plan, &mut |_| {}).unwrap();
            records += done.records;
            blobs += done.blobs;
            assert!(
                next.load(Relaxed) < 20_000,
                "{records} records, {blobs} blobs"
            );
        }
    });
    let counted = counted.into_inner().unwrap();
    assert_eq!(counted.len(), 2, "both hits and misses: {counted:?}");
    let report = f.store.verify(false, &|_| Some(key(0)), &|_| {}).unwrap();
    let broken = report.damage.iter();
    // No record of this test has a preimage.
    let broken: Vec<_> = broken.filter(|d| d.what != DamagedThing::Record).collect();
    assert!(broken.is_empty(), "{broken:?}");
}
