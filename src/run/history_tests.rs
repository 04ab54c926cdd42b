//! Runs in a cache that is filled by hand.

use std::path::Path;

use serde_json::json;

use super::*;

/// A cache with hand-written run folders.
struct Cache {
    _dir: tempfile::TempDir,
    history: History,
}

impl Cache {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        Self {
            _dir: dir,
            history: History::new(store, Times::default()),
        }
    }

    fn write(&self, run: &str, file: &str, text: &str) {
        let folder = self.history.folder(run);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
    }

    fn plan(&self, run: &str, name: &str) {
        let plan = json!({"name": name, "seed": 1, "path": "/p/x.yaml", "stages": [{"stage": "a", "name": "no"}]});
        self.write(run, "pipeline.json", &format!("{plan:#}\n"));
    }

    fn end(&self, run: &str, statuses: &[&str], interrupted: bool) {
        let stages: Vec<_> = statuses
            .iter()
            .map(|s| json!({"stage": "x", "status": s}))
            .collect();
        let end = json!({"run_id": run, "pipeline": "quickstart", "stages": stages, "interrupted": interrupted, "seconds": 185.0});
        self.write(run, "run.json", &end.to_string());
    }

    fn message(&self, name: &str) -> String {
        let error = self.history.find(name).unwrap_err();
        let text = format!("{error}\n{}", error.hint().unwrap());
        text.replace(&self.history.store.root().display().to_string(), "CACHE")
    }
}

const LEASE: &str = r#"{"run_id":"20260102T090000-eeee","host":"elsewhere","pid":1,"started":"2026-01-02T09:00:00Z"}"#;

const EVENTS: &str = "\
{\"time\":\"2026-01-02T09:00:00Z\",\"event\":\"run_started\",\"pipeline\":\"big\",\"stages\":[\"a\",\"b\",\"c\"]}
{\"time\":\"2026-01-02T09:00:01Z\",\"event\":\"stage_cached\",\"stage\":\"a\",\"key\":\"1\"}
{\"time\":\"2026-01-02T09:00:02Z\",\"event\":\"stage_started\",\"stage\":\"b\",\"key\":\"2\",\"reason\":\"new\"}
{\"time\":\"2026-01-02T09:00:12Z\",\"event\":\"stage_prog";

#[test]
fn runs_of_every_kind_newest_first() {
    let cache = Cache::new();
    cache.plan("20260102T030000-aaaa", "quickstart");
    cache.end(
        "20260102T030000-aaaa",
        &["executed", "executed", "cached"],
        false,
    );
    cache.end(
        "20260102T040000-bbbb",
        &["cached", "failed", "skipped"],
        false,
    );
    cache.end("20260102T050000-cccc", &["executed", "skipped"], true);
    cache.write("20260102T090000-dddd", "events.jsonl", EVENTS);
    cache.write("20260102T090000-eeee", "events.jsonl", EVENTS);
    cache.write("20260102T090000-eeee", "lease.json", LEASE);
    cache.plan("20260102T095950-ffff", "barely begun");

    let now = "2026-01-02T10:00:00Z".parse().unwrap();
    let runs: Vec<RunSummary> = cache
        .history
        .ids()
        .unwrap()
        .iter()
        .map(|id| cache.history.summary(id, now))
        .collect();
    let lines: Vec<String> = runs
        .iter()
        .map(|run| {
            let RunSummary {
                run_id,
                pipeline,
                state,
                seconds,
                stages,
                ..
            } = run;
            format!(
                "{run_id} {pipeline:?} {seconds:?} {}: {}",
                state.word(),
                stages.text()
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    20260102T095950-ffff Some("barely begun") None cut: no stage
    20260102T090000-eeee Some("big") Some(3600.0) running: 1 cached, 1 running, 1 waiting
    20260102T090000-dddd Some("big") Some(2.0) cut: 1 cached, 1 skipped, 1 cut
    20260102T050000-cccc Some("quickstart") Some(185.0) interrupted: 1 executed, 1 skipped
    20260102T040000-bbbb Some("quickstart") Some(185.0) failed: 1 cached, 1 failed, 1 skipped
    20260102T030000-aaaa Some("quickstart") Some(185.0) ok: 2 executed, 1 cached
    "#);
    assert_eq!(runs[5].path.as_deref(), Some(Path::new("/p/x.yaml")));
    assert_eq!(cache.history.current().unwrap(), "20260102T090000-eeee");
}

#[test]
fn a_run_file_that_is_not_whole_is_none() {
    let cache = Cache::new();
    cache.write("20260102T090000-dddd", "events.jsonl", EVENTS);
    cache.write("20260102T090000-dddd", "run.json", "{\"run_id\":\"2026");
    let run = cache
        .history
        .summary("20260102T090000-dddd", Timestamp::now());
    assert_eq!(run.state, RunStatus::Cut);
}

#[test]
fn a_beginning_is_enough_if_it_is_one_runs() {
    let cache = Cache::new();
    for run in [
        "20260101T000000-aaaa",
        "20260102T000000-bbbb",
        "20260102T000000-bbbbb",
    ] {
        cache.end(run, &["cached"], false);
    }
    let found = |name| cache.history.find(name).unwrap();
    assert_eq!(found("20260101"), "20260101T000000-aaaa");
    assert_eq!(found("latest"), "20260102T000000-bbbbb");
    assert_eq!(found("20260102T000000-bbbb"), "20260102T000000-bbbb");
    insta::assert_snapshot!(cache.message("20260102"), @r"
        `20260102` is the beginning of 2 runs
        write more of it: `20260102T000000-bbbbb`, `20260102T000000-bbbb`
        ");
    insta::assert_snapshot!(cache.message("lates"), @r"
        there is no run `lates` in the cache CACHE
        `genius runs` lists them; the newest is `20260102T000000-bbbbb`, or `latest`
        ");
    assert!(cache.history.find("").is_err());
    assert!(cache.history.find("../..").is_err());
}

#[test]
fn no_runs_yet() {
    insta::assert_snapshot!(Cache::new().message("latest"), @r"
        there is no run yet in the cache CACHE
        `genius run FILE` makes one; `--cache DIR` or GENIUS_CACHE names another cache
        ");
}

#[test]
fn hundreds_of_runs_are_listed() {
    let cache = Cache::new();
    for n in 0..300 {
        let run = format!("20260102T030000-{n:04x}");
        cache.plan(&run, "p");
        cache.end(&run, &["cached"; 10], false);
    }
    let now = Timestamp::now();
    let ids = cache.history.ids().unwrap();
    assert_eq!(ids.len(), 300);
    assert!(
        ids.iter()
            .all(|id| cache.history.summary(id, now).stages.cached == 10)
    );
}

#[test]
fn a_newer_run_is_listed_and_not_opened() {
    let cache = Cache::new();
    let run = "20260102T030000-aaaa";
    cache.write(
        run,
        "pipeline.json",
        r#"{"format":99,"name":{"of":"another shape"}}"#,
    );
    let summary = cache.history.summary(run, Timestamp::now());
    assert_eq!(summary.state, RunStatus::Newer);
    let error = cache.history.open(run).unwrap_err();
    let text = format!("{error}\n{}", error.hint().unwrap());
    let text = text.replace(&cache.history.store.root().display().to_string(), "CACHE");
    insta::assert_snapshot!(text, @r"
    CACHE/runs/20260102T030000-aaaa/pipeline.json has format 99: a newer Genius wrote it, and this one reads up to format 3
    use the version of Genius that wrote it, or a newer one
    ");
}
