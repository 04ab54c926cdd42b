//! Garbage collection where a clock is wrong: that of a machine, or the file server's,
//! behind or ahead, set while a run lives. Nothing that lives or is recent goes, and
//! what is old goes some day.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::clock::{FileTimes, touch_path};
use super::tests_gc::{Fixture, key, later, set_modified};
use super::*;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn days(days: u32) -> GcOptions {
    GcOptions {
        older_than: Some(DAY * days),
        ..GcOptions::default()
    }
}

/// A run's folder under that id, whose first file has that time.
fn run(f: &Fixture, id: &str, written: SystemTime, uses: &[u8]) -> PathBuf {
    let folder = f.store.runs_dir().join(id);
    fs::create_dir_all(&folder).unwrap();
    let first = folder.join("pipeline.json");
    let text = json!({
        "name": "p", "path": f.pipeline("here"), "environment": { "host": process::host() },
    });
    fs::write(&first, text.to_string()).unwrap();
    let uses: String = uses.iter().map(|n| format!("{}\n", key(*n))).collect();
    fs::write(folder.join("uses"), uses).unwrap();
    set_modified(&first, written);
    folder
}

fn record(f: &Fixture, n: u8) -> PathBuf {
    f.store.record_file(&key(n))
}

/// Every file of a result.
fn files(f: &Fixture, n: u8, record: &Record) -> Vec<PathBuf> {
    let tree = &record.outputs["model"];
    vec![
        self::record(f, n),
        f.store.tree_path(&tree.hash),
        f.store.blob_path(&tree.files[0].hash),
    ]
}

#[test]
fn a_run_of_a_machine_that_is_behind_is_recent() {
    let f = Fixture::new();
    f.result(1, "weights");
    run(&f, "20010101T000000-abcd", SystemTime::now(), &[1]);
    let (plan, _) = f.collect(&days(30));
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(f.hits(), [1]);
}

#[test]
fn a_run_of_a_machine_that_is_ahead_gets_old() {
    let f = Fixture::new();
    f.result(1, "weights");
    let id = "20770101T000000-abcd";
    run(&f, id, SystemTime::now() - YEAR, &[1]);
    let (plan, _) = f.collect(&days(30));
    assert_eq!(plan.runs[0].id, GoingId::RunId(id.to_owned()));
    assert!(f.hits().is_empty());
}

#[test]
fn a_run_whose_server_was_behind_is_recent_by_its_machine() {
    let f = Fixture::new();
    f.result(1, "weights");
    let id = Timestamp::now().strftime("%Y%m%dT%H%M%S-abcd").to_string();
    run(&f, &id, SystemTime::UNIX_EPOCH, &[1]);
    let (plan, _) = f.collect(&days(30));
    assert!(plan.is_empty(), "{plan:?}");
}

#[test]
fn old_things_with_times_ahead_go() {
    let f = Fixture::new();
    let result = f.result(1, "weights");
    for path in files(&f, 1, &result) {
        set_modified(&path, SystemTime::now() + 20 * YEAR);
    }
    let (plan, done) = f.collect(&GcOptions::default());
    assert_eq!(plan.kept.undated, 0, "the inode's time can be believed");
    assert_eq!((done.records, done.trees, done.blobs), (1, 1, 1));
}

#[test]
fn new_things_with_times_long_ago_stay() {
    let f = Fixture::new();
    let result = f.result(1, "weights");
    for path in files(&f, 1, &result) {
        set_modified(&path, SystemTime::UNIX_EPOCH + DAY);
    }
    let plan = f.store.plan_gc(&GcOptions::default()).unwrap();
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(plan.kept.records_young, 1);
    fs::remove_file(record(&f, 1)).unwrap();
    let plan = f.store.plan_gc(&GcOptions::default()).unwrap();
    assert!(plan.is_empty() && plan.kept.blobs_young == 1, "{plan:?}");
}

/// The server's clock was two years ahead when all of it was made, and was set back.
#[test]
fn what_has_no_time_counts_as_new_and_gets_one() {
    let f = Fixture::new();
    f.result(1, "weights");
    let job = f.store.job_dir("test").unwrap();
    let partials = Partials::new(&f.store.partial_dir("rollout"), &job.scratch());
    partials.put(&key(2), b"part").unwrap();
    let folder = run(&f, "20770101T000000-abcd", SystemTime::now() + YEAR, &[]);
    let before = Timestamp::now() - SignedDuration::from_hours(2 * 365 * 24);
    let options = GcOptions {
        max_bytes: Some(0),
        ..days(1)
    };
    let plan = f.store.plan_gc_at(&options, before).unwrap();
    assert!(plan.is_empty(), "{plan:?}");
    // Record, tree, blob, part and run.
    assert_eq!(plan.kept.undated, 5);
    let first = folder.join("pipeline.json");
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let planned = time(&first);
    assert!(planned > SystemTime::now(), "a plan changes nothing");
    let done = f.store.apply_gc(&plan, &mut |_| {}).unwrap();
    assert_eq!(done.dated, 5);
    assert!(time(&first) <= SystemTime::now());
    // From then on it is as old as any other.
    let plan = f
        .store
        .plan_gc_at(&days(1), later() + SignedDuration::from_hours(72))
        .unwrap();
    assert_eq!(
        (plan.records.len(), plan.trees.len(), plan.blobs.len()),
        (1, 1, 1)
    );
    assert_eq!(
        (plan.partials.len(), plan.runs.len(), plan.kept.undated),
        (1, 1, 0)
    );
}

#[test]
fn partial_results_with_times_ahead_go_by_their_inode() {
    let f = Fixture::new();
    let job = f.store.job_dir("test").unwrap();
    let partials = Partials::new(&f.store.partial_dir("rollout"), &job.scratch());
    partials.put(&key(2), b"part").unwrap();
    let hex = key(2).to_string();
    let path = partials.dir().join(&hex[..2]).join(format!("{hex}.json"));
    set_modified(&path, SystemTime::now() + YEAR);
    let at = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
    let plan = f.store.plan_gc_at(&GcOptions::default(), at(29)).unwrap();
    assert!(plan.is_empty());
    let plan = f.store.plan_gc_at(&GcOptions::default(), at(31)).unwrap();
    assert_eq!(plan.partials.len(), 1);
    let done = f.store.apply_gc(&plan, &mut |_| {}).unwrap();
    assert_eq!(done.partials, 1);
}

/// A run that beats now, of a machine whose clock says something else.
fn live(f: &Fixture, id: &str, started: Timestamp, began: Timestamp) {
    let folder = run(f, id, SystemTime::now(), &[]);
    let lease = json!({
        "format": 1, "run_id": id, "started": started.to_string(), "began": began.to_string(),
        "host": process::host(), "pid": std::process::id(),
    });
    fs::write(folder.join("lease.json"), lease.to_string()).unwrap();
}

#[test]
fn what_a_live_run_made_is_young_whatever_its_clock() {
    let hours = SignedDuration::from_hours;
    for skew in [
        hours(5),
        hours(24 * 365 * 10),
        hours(-5),
        hours(-24 * 365 * 10),
    ] {
        let f = Fixture::new();
        f.result(1, "weights");
        fs::remove_file(record(&f, 1)).unwrap();
        let began = Timestamp::now() - SignedDuration::from_secs(1);
        live(&f, "20260101T000000-abcd", began + skew, began);
        let plan = f.plan(&days(0));
        assert!(
            plan.blobs.is_empty() && plan.trees.is_empty(),
            "{skew}: {plan:?}"
        );
    }
    // A lease that says that the run began in the future: the server's clock was set
    // back, and its next beat will say so.
    let f = Fixture::new();
    f.result(1, "weights");
    fs::remove_file(record(&f, 1)).unwrap();
    let ahead = Timestamp::now() + hours(24 * 365);
    live(&f, "20260101T000000-abcd", ahead, ahead);
    assert!(f.plan(&days(0)).blobs.is_empty());
}

#[test]
fn parts_that_a_live_run_wrote_stay() {
    let f = Fixture::new();
    let job = f.store.job_dir("test").unwrap();
    let partials = Partials::new(&f.store.partial_dir("rollout"), &job.scratch());
    partials.put(&key(2), b"part").unwrap();
    let began = Timestamp::now() - SignedDuration::from_secs(1);
    live(&f, "20260101T000000-abcd", began, began);
    let short = GcOptions {
        older_than: Some(Duration::from_secs(60)),
        ..GcOptions::default()
    };
    assert!(f.plan(&short).partials.is_empty());
}

/// A clock was set between two beats.
#[test]
fn a_run_seen_to_run_here_lives_whatever_its_beat() {
    for (name, beat) in [
        ("behind", SystemTime::now() - YEAR),
        ("ahead", SystemTime::now() + YEAR),
    ] {
        let f = Fixture::new();
        f.result(1, "weights");
        let folder = run(&f, "20260101T000000-abcd", SystemTime::now() - YEAR, &[1]);
        let mut lease = json!(process::Process::this());
        lease["format"] = json!(1);
        lease["run_id"] = json!("20260101T000000-abcd");
        lease["started"] = json!("2026-01-01T00:00:00Z");
        let path = folder.join("lease.json");
        fs::write(&path, lease.to_string()).unwrap();
        set_modified(&path, beat);
        let (plan, _) = f.collect(&days(1));
        assert_eq!((plan.kept.live_runs, plan.runs.len()), (1, 0), "{name}");
        assert_eq!(f.hits(), [1], "{name}");
        // For a claim it is silent all the same: that costs work and nothing else.
        assert!(
            !f.store
                .run_is_live("20260101T000000-abcd", &Times::default())
        );
    }
}

#[test]
fn a_run_elsewhere_lives_if_it_beats_again() {
    let times = Times {
        beat: Duration::from_millis(100),
        stale: Duration::from_secs(20),
    };
    for beats in [true, false] {
        let f = Fixture::new();
        f.result(1, "weights");
        let folder = run(&f, "20260101T000000-abcd", SystemTime::now() - YEAR, &[1]);
        let lease = json!({
            "format": 1, "run_id": "20260101T000000-abcd", "started": "2026-01-01T00:00:00Z",
            "host": "elsewhere", "pid": 1,
        });
        let path = folder.join("lease.json");
        fs::write(&path, lease.to_string()).unwrap();
        set_modified(&path, SystemTime::now() + YEAR);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let plan = std::thread::scope(|scope| {
            if beats {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(50));
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        touch_path(&path).unwrap();
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            let options = GcOptions { times, ..days(1) };
            let plan = f.plan(&options);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            plan
        });
        assert_eq!(plan.kept.live_runs, usize::from(beats));
        assert_eq!(plan.records.len(), usize::from(!beats));
    }
}

#[test]
fn leftovers_with_times_ahead_are_dated() {
    let f = Fixture::new();
    let path = f.store.root().join("tmp/.tmp-1-abc");
    fs::write(&path, "").unwrap();
    set_modified(&path, SystemTime::now() + YEAR);
    assert_eq!(f.store.clean_tmp().unwrap(), 0);
    assert!(path.exists(), "new by its inode");
    set_modified(&path, SystemTime::now() - 2 * DAY);
    // A run under way that may have left it.
    let began = Timestamp::now() - SignedDuration::from_hours(24 * 3);
    live(&f, "20260101T000000-abcd", began, began);
    // So may one of another machine, or from before a restart, that nobody can ask.
    let job = f.store.job_dir("job").unwrap().keep();
    let mut owner = json!(process::Process::this());
    owner["boot_id"] = json!("another");
    fs::write(job.join("owner.json"), owner.to_string()).unwrap();
    set_modified(&job, SystemTime::now() - 2 * DAY);
    assert_eq!(f.store.clean_tmp().unwrap(), 0);
    fs::remove_file(f.store.runs_dir().join("20260101T000000-abcd/lease.json")).unwrap();
    assert_eq!(f.store.clean_tmp().unwrap(), 2);
    let young = f.store.job_dir("job").unwrap().keep();
    fs::write(young.join("owner.json"), owner.to_string()).unwrap();
    assert_eq!(f.store.clean_tmp().unwrap(), 0);
}

#[test]
fn times_beyond_every_calendar_are_not_believed() {
    let now = Timestamp::now();
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = fs::File::open(path.path()).unwrap();
    let times = FileTimes::of(&file.metadata().unwrap());
    assert!(times.latest(now).is_some());
    assert!(clock::is_believed(now, now));
    assert!(clock::is_believed(now + SignedDuration::from_mins(5), now));
    assert!(!clock::is_believed(
        now + SignedDuration::from_hours(1),
        now
    ));
    assert!(!clock::is_believed(Timestamp::MAX, Timestamp::MAX));
    assert!(clock::is_believed(Timestamp::MIN, now));
}
