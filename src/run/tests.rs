//! The files of runs: written and read back, of an older format, newer, cut and damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::kind::StageKind;
use crate::protocol::{Execution, Failure, Figure, Level, Progress, Unit};
use crate::store::RunDir;

/// A run of format 1; of the pipeline in the README beside it.
fn old() -> Run {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/run/fixtures");
    Run::new(&fixtures.join("format-1"))
}

/// A run's folder with these files.
fn folder(files: &[(&str, &str)]) -> (TempDir, Run) {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let run = Run::new(dir.path());
    (dir, run)
}

fn text_of(run: &Run, file: &str) -> String {
    fs::read_to_string(run.folder().join(file)).unwrap()
}

/// An event of every kind.
fn events() -> Vec<Event> {
    let stage = || "train".to_owned();
    let failure = || Failure::new("out of memory").hint("a smaller width");
    vec![
        Event::RunStarted {
            run_id: "r".into(),
            pipeline: "p".into(),
            stages: vec!["queries".into(), stage()],
        },
        Event::StageCached {
            stage: "queries".into(),
            key: "0123".into(),
        },
        Event::StageWaiting {
            stage: stage(),
            holder: "run 1 on box".into(),
        },
        Event::StageStarted {
            stage: stage(),
            key: "4567".into(),
            reason: "never computed here".into(),
            preimage: json!({"z": 1.5e-7, "a": [1, null]}),
        },
        Event::StageProgress {
            stage: stage(),
            progress: Progress {
                phase: "training".into(),
                done: 3,
                total: Some(9),
                unit: "steps".into(),
                detail: "1 tok/s".into(),
            },
        },
        Event::StageLog {
            stage: stage(),
            level: Level::Warn,
            text: "one\ntwo".into(),
        },
        Event::StageRetrying {
            stage: stage(),
            attempt: 2,
            of: 3,
            failure: failure(),
            wait_secs: 0.25,
        },
        Event::StageFinished {
            stage: stage(),
            key: "4567".into(),
            seconds: 1.5,
            peak_memory_bytes: 7,
            exit: Exit {
                code: Some(0),
                signal: None,
            },
            figures: vec![
                Figure::new("pairs", 3, Unit::Count),
                Figure {
                    benchmark: Some("sums".to_owned()),
                    standard_error: Some(0.25),
                    ..Figure::new("standard", 0.5, Unit::Fraction)
                },
            ],
        },
        Event::StageFailed {
            stage: stage(),
            failure: failure(),
            seconds: 2.0,
        },
        Event::StageSkipped {
            stage: stage(),
            reason: "needs `queries`".into(),
        },
        Event::Interrupted { times: 1 },
        Event::RunFinished {
            seconds: 3.0,
            ok: false,
        },
    ]
}

#[test]
fn every_event_is_read_back() {
    let (dir, run) = folder(&[]);
    let mut journal = Journal::new(Arc::new(RunDir::open(dir.path()).unwrap()));
    for event in &events() {
        journal.on(event);
    }
    drop(journal);
    let lines: Vec<Line> = run.events().collect();
    assert!(lines.iter().all(|line| line.time.is_some()));
    assert_eq!(lines[0].format, Some(FORMAT));
    assert!(lines[1..].iter().all(|line| line.format.is_none()));
    let read: Vec<Event> = lines.into_iter().map(|line| line.event).collect();
    assert_eq!(read, events());
    let attempts: Vec<(String, Value)> = run.attempts().collect();
    assert_eq!(
        attempts,
        [("4567".to_owned(), json!({"z": 1.5e-7, "a": [1, null]}))]
    );
}

#[test]
fn plan_and_report_are_read_back() {
    let plan = Plan {
        format: FORMAT,
        name: "p".into(),
        path: "/p/p.yaml".into(),
        seed: 7,
        digest: "d".into(),
        environment: Origin {
            host: "box".into(),
            ..Origin::default()
        },
        stages: vec![PlannedStage {
            name: "train@short".into(),
            stage: "train".into(),
            variants: vec!["short".into()],
            uses: Some(StageKind::Train),
            needs: [(
                "pairs".to_owned(),
                Edge {
                    stage: "pairs".into(),
                    output: "pairs".into(),
                },
            )]
            .into(),
            outputs: vec!["model".into(), "metrics".into()],
            identity: json!({"epochs": 1}),
            params: json!({"epochs": 1}),
            numerics: Value::Null,
            execution: Execution::default(),
            sources: Value::Null,
        }],
    };
    let report = RunReport {
        format: FORMAT,
        run_id: "r".into(),
        pipeline: "p".into(),
        pipeline_path: "/p/p.yaml".into(),
        stages: vec![StageReport {
            stage: "train@short".into(),
            variants: vec!["short".into()],
            kind: Some(StageKind::Train),
            status: Status::Executed,
            key: Some("4567".into()),
            reason: "never computed here".into(),
            seconds: 1.5,
            peak_memory_bytes: 7,
            exit: Some(Exit::default()),
            warnings: vec!["w".into()],
            outputs: [("model".to_owned(), PathBuf::from("/t"))].into(),
            figures: vec![
                Figure::new("z", 3, Unit::Count),
                Figure::new("a", 0.5, Unit::Nats),
            ],
        }],
        interrupted: false,
        seconds: 2.0,
        environment: plan.environment.clone(),
    };
    let (dir, run) = folder(&[]);
    let writer = RunDir::open(dir.path()).unwrap();
    assert!(!run.has_report());
    write_plan(&writer, &plan).unwrap();
    write_report(&writer, &report).unwrap();
    assert!(run.has_report());
    assert_eq!(run.plan().unwrap(), plan);
    assert_eq!(run.report().unwrap(), report);
    assert_eq!(plan.name_of("train"), Some("train@short"));
    assert_eq!(plan.name_of("train@short"), Some("train@short"));
    assert_eq!(plan.name_of("train@long"), None);
}

#[test]
fn format_1_is_read() {
    let run = old();
    run.check_format().unwrap();
    let plan = run.plan().unwrap();
    assert_eq!((plan.format, plan.name.as_str()), (1, "small"));
    assert_eq!(plan.path, Path::new("/home/ada/project/p.yaml"));
    assert_eq!(plan.environment.host, "box");
    let kinds: Vec<_> = plan.stages.iter().filter_map(|s| s.uses).collect();
    assert_eq!(kinds.len(), 4);
    assert!(plan.stages.iter().all(|s| s.needs.is_empty()));

    let report = run.report().unwrap();
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|s| {
            let figures: Vec<&str> = s.figures.iter().map(|f| f.name.as_str()).collect();
            format!("{} {:?} {}", s.stage, s.status, figures.join(" "))
                .trim_end()
                .to_owned()
        })
        .collect();
    insta::assert_snapshot!(stages.join("\n"), @r"
    queries Executed queries read empty duplicates
    count Executed
    broken Failed
    report Skipped
    ");

    assert_eq!(run.events().count(), 13);
    let state = run.state();
    let stages: Vec<String> = state
        .stages
        .iter()
        .map(|s| {
            format!(
                "{} {:?} {}",
                s.stage,
                s.phase,
                s.reason.as_deref().unwrap_or("-")
            )
        })
        .collect();
    insta::assert_snapshot!(stages.join("\n"), @r"
    queries Executed never computed here
    count Executed never computed here
    broken Failed `sh` ended with exit code 3. Its last words:
        no
    report Skipped needs `broken`, which has no result
    ");
    assert_eq!(state.finished.map(|(_, ok)| ok), Some(false));
    // The keys of the events are those of the report.
    for stage in &report.stages {
        assert_eq!(state.find(&stage.stage).unwrap().key, stage.key);
    }
}

#[test]
fn what_the_store_asks_is_in_the_files() {
    let facts = facts(old().folder());
    assert!(facts.is_run && !facts.newer);
    assert_eq!(facts.pipeline.as_deref(), Some("small"));
    assert_eq!(facts.file.unwrap(), Path::new("/home/ada/project/p.yaml"));
    assert_eq!(facts.host.as_deref(), Some("box"));
    let names: Vec<&str> = facts.stages.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["queries", "count", "broken"]);

    let (dir, _) = folder(&[("pipeline.json", r#"{"format":99}"#)]);
    let facts = super::facts(dir.path());
    assert!(facts.is_run && facts.newer && facts.file.is_none());
    let (dir, _) = folder(&[("notes.txt", "mine")]);
    assert!(!super::facts(dir.path()).is_run);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let newer = r#"{"format":99,"event":"run_started","stages":{"a":"another shape"}}"#;
    let lines = format!(
        "{newer}\n{}",
        r#"{"event":"stage_cached","stage":"a","key":"1"}"#
    );
    for file in ["pipeline.json", "events.jsonl"] {
        let (_dir, run) = folder(&[(file, &format!("{lines}\n")[..])]);
        if file == "pipeline.json" {
            fs::write(run.folder().join(file), newer).unwrap();
        }
        let error = run.check_format().unwrap_err();
        assert!(
            error.is_too_new() && error.to_string().contains(file),
            "{error}"
        );
        assert!(error.to_string().contains("format 99"), "{error}");
    }
    let (_dir, run) = folder(&[("events.jsonl", &lines), ("run.json", newer)]);
    assert!(run.report().unwrap_err().is_too_new());
    assert_eq!(run.events().count(), 0);
    assert_eq!(run.state(), RunState::default());
}

/// Wherever the files are cut, what is whole is read.
#[test]
fn cut_files_are_read_as_far_as_they_go() {
    let whole = text_of(&old(), "events.jsonl");
    let all: Vec<Line> = old().events().collect();
    let (_dir, run) = folder(&[]);
    let events = run.folder().join("events.jsonl");
    for end in 0..whole.len() {
        let head = &whole.as_bytes()[..end];
        fs::write(&events, head).unwrap();
        let lines = head.iter().filter(|b| **b == b'\n').count();
        let read: Vec<Line> = run.events().collect();
        // The last line may be whole and lack its end alone.
        assert!(read.len() == lines || read.len() == lines + 1, "at {end}");
        assert_eq!(read, all[..read.len()], "at {end}");
    }
    for file in ["pipeline.json", "run.json"] {
        let whole = text_of(&old(), file);
        let path = run.folder().join(file);
        for end in [0, 1, whole.len() / 2, whole.len() - 2] {
            fs::write(&path, &whole.as_bytes()[..end]).unwrap();
            let error = if file == "run.json" {
                run.report().map(|_| ()).unwrap_err()
            } else {
                run.plan().map(|_| ()).unwrap_err()
            };
            assert!(matches!(error, Unreadable::Damaged { .. }), "{error}");
        }
    }
    run.check_format().unwrap();
    fs::remove_file(run.folder().join("run.json")).unwrap();
    assert!(matches!(run.report(), Err(Unreadable::Io { .. })));
}

#[test]
fn what_is_not_known_is_passed_over() {
    let events = [
        r#"{"event":"run_started","stages":["a","b"],"more":{}}"#,
        r#"{"event":"stage_dreamt","stage":"a"}"#,
        r#"{"event":"stage_progress","stage":"a","progress":3}"#,
        "\0\0garbage",
        "[\"event\"]",
        r#"{"event":"stage_cached","stage":"b","key":"1","more":1}"#,
        "",
    ];
    let plan = r#"{"stages":[{"name":"a","uses":"a kind to come","more":[]}]}"#;
    let (_dir, run) = folder(&[
        ("events.jsonl", &events.join("\n")),
        ("pipeline.json", plan),
    ]);
    assert_eq!(run.events().count(), 2);
    let state = run.state();
    let phases: Vec<StagePhase> = state.stages.iter().map(|s| s.phase).collect();
    assert_eq!(phases, [StagePhase::Waiting, StagePhase::Cached]);
    assert_eq!(run.plan().unwrap().stages[0].uses, None);
}
