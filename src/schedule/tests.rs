//! Whole runs of the dispatcher, with stages that are made up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};

use super::*;
use crate::plan::{Graph, Host, PlanError, Resolver, RunOptions};
use crate::protocol::{
    Failure, Figure, Job, Level, Outcome, PartialResults, Progress, Shard, Unit,
};
use crate::run::{Event, Exit, Origin, RunReport, StageReport, Status, Subscriber};
use crate::spec;
use crate::store::{ContentHash, Store, Times};

/// Every kind but eval, and a second branch (`other`) that needs nothing.
const PIPELINE: &str = "
version: 1
name: made-up
seed: 42
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl } } }
  policy:  { uses: model,   with: { source: { path: model } } }
  rollout: { uses: rollout, needs: { queries: queries, model: policy } }
  score:   { uses: score,   needs: { rollouts: rollout }, with: { tau: 0.1 } }
  pairs:   { uses: pairs,   needs: { scores: score }, with: { negative: categorical } }
  train:   { uses: train,   needs: { model: policy, pairs: pairs }, with: { learning_rate: 5.0e-7 } }
  other:   { uses: queries, with: { source: { path: other.jsonl } } }
";

/// What a stage does, if not what it should.
#[derive(Debug, Clone, Default)]
enum Act {
    /// Writes files that follow from its parameters and inputs.
    #[default]
    Compute,
    /// Writes these words, whatever its parameters and inputs.
    Always(&'static str),
    /// Ends with a failure.
    Fail,
    /// Writes no such output, and says that all is well.
    LeaveOut(&'static str),
    /// Makes the folder of that output, and puts nothing into it.
    LeaveEmpty(&'static str),
    /// Asks for an interruption, then works until it is stopped.
    UntilStopped,
    /// Asks for an interruption, then finishes its work all the same.
    FinishAfterInterrupt,
    /// Panics.
    Panic,
    /// Does its work, while someone else writes that file.
    Overwrite(PathBuf),
}

/// Stages in this process.
#[derive(Default)]
struct MadeUp {
    acts: Mutex<BTreeMap<String, Act>>,
    /// Names of the stages started, since last asked.
    started: Mutex<Vec<String>>,
    /// The places for parts of results that stages got, since last asked.
    partial: Mutex<Vec<(String, PartialResults)>>,
    /// Shards started, since last asked; with each, whether earlier results were left aside.
    shards: Mutex<Vec<(Option<Shard>, bool)>>,
    /// Heavy stages running now, and the most there ever were.
    heavy: Arc<Mutex<(usize, usize)>>,
    interrupt: Arc<Notify>,
}

impl Launch for MadeUp {
    fn launch(
        &self,
        node: usize,
        job: Job,
        _log: PathBuf,
        events: mpsc::Sender<WorkerEvent>,
        mut stop: watch::Receiver<Stop>,
    ) -> Pin<Box<dyn Future<Output = JobEnd> + Send>> {
        self.started.lock().unwrap().push(job.stage.clone());
        if let Some(partial) = &job.partial {
            let shard = (job.shard, partial.fresh);
            self.shards.lock().unwrap().push(shard);
            let of_stage = (job.stage.clone(), partial.clone());
            self.partial.lock().unwrap().push(of_stage);
        }
        let act = self.acts.lock().unwrap().get(&job.stage).cloned();
        let heavy = Arc::clone(&self.heavy);
        let interrupt = Arc::clone(&self.interrupt);
        Box::pin(async move {
            let weight = usize::from(job.kind().program() == crate::kind::Program::Worker);
            {
                let mut heavy = heavy.lock().unwrap();
                heavy.0 += weight;
                heavy.1 = heavy.1.max(heavy.0);
            }
            let _ = events
                .send(WorkerEvent::Progress(node, Progress::default()))
                .await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            let act = act.unwrap_or_default();
            if matches!(act, Act::UntilStopped | Act::FinishAfterInterrupt) {
                interrupt.notify_one();
                stop.wait_for(|stop| *stop != Stop::No).await.unwrap();
            }
            heavy.lock().unwrap().0 -= weight;
            work(&job, &act)
        })
    }
}

fn work(job: &Job, act: &Act) -> JobEnd {
    match act {
        Act::Fail => {
            return JobEnd::failed(Failure::new("it does not work").hint("try harder"));
        }
        Act::UntilStopped => return JobEnd::cancelled(),
        Act::Panic => panic!("a defect"),
        Act::Overwrite(path) => std::fs::write(path, "other").unwrap(),
        _ => {}
    }
    let declared = job.params.outputs();
    for output in declared.iter().map(String::as_str) {
        let folder = job.output_dir.join(output);
        match act {
            Act::LeaveOut(name) if *name == output => continue,
            Act::LeaveEmpty(name) if *name == output => {
                std::fs::create_dir_all(&folder).unwrap();
                continue;
            }
            _ => {}
        }
        for input in job.inputs.values() {
            assert!(input.join("data").is_file(), "{input:?} is laid out");
        }
        std::fs::create_dir_all(&folder).unwrap();
        let text = match act {
            Act::Always(text) => format!("{output}: {text}"),
            _ => json!([output, job.params, job.input_hashes]).to_string(),
        };
        std::fs::write(folder.join("data"), text).unwrap();
    }
    JobEnd {
        outcome: Outcome::Done {
            figures: vec![Figure::new("n", 1, Unit::Count)],
            peak_memory_bytes: 1,
        },
        peak_memory_bytes: 1,
        exit: Some(Exit {
            code: Some(0),
            signal: None,
        }),
    }
}

/// Reads files, and asks no hub. Of a model too large for any disk the name will do.
struct Names;

impl Resolver for Names {
    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError> {
        let weights = path.join("model.safetensors");
        if std::fs::metadata(weights).is_ok_and(|m| m.len() > 1 << 30) {
            return Ok(ContentHash::of(path.as_os_str().as_encoded_bytes()));
        }
        Ok(crate::store::hash_path(path).unwrap())
    }

    fn hub_commit(&self, _repo: &str, _revision: &str) -> Result<String, PlanError> {
        Ok("a".repeat(40))
    }
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Subscriber for Events {
    fn on(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
}

/// A cache, and what happens in runs with it.
struct Bench {
    dir: TempDir,
    stages: Arc<MadeUp>,
    options: RunOptions,
    forced: Vec<&'static str>,
    jobs: Option<usize>,
    keep_going: bool,
}

/// A run at its end.
struct Ran {
    report: RunReport,
    events: Vec<Event>,
    started: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["model", "a", "b", "c"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("name"), folder).unwrap();
        }
        for file in ["q.jsonl", "other.jsonl"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        Self {
            dir,
            stages: Arc::default(),
            options: RunOptions::default(),
            forced: Vec::new(),
            jobs: None,
            keep_going: false,
        }
    }

    fn act(&self, stage: &str, act: Act) {
        self.stages.acts.lock().unwrap().insert(stage.into(), act);
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn run(&self, pipeline: &str) -> Ran {
        let pipeline = spec::load_str(pipeline, &self.dir.path().join("p.yaml"), &[])
            .unwrap_or_else(|e| panic!("{e}"));
        let host = Host {
            cuda: false,
            metal: false,
            bf16: false,
            level: "avx2",
            cores: 2,
            memory_bytes: 8 << 30,
        };
        let graph = Graph::build(&pipeline, &host, &self.options, &Names).unwrap();
        let store = Store::open(&self.cache()).unwrap();
        let lease = store.begin_run(&Times::default()).unwrap();
        let mut forced = vec![false; graph.nodes.len()];
        for name in &self.forced {
            forced[graph.find(name).unwrap()] = true;
        }
        let request = RunRequest {
            forced,
            capacity: self.options.capacity(&host),
            graph,
            store,
            run_id: lease.run_id().to_owned(),
            run_dir: lease.folder(),
            lease: Some(lease),
            pipeline: pipeline.name.clone(),
            pipeline_path: pipeline.path.clone(),
            origin: Origin::default(),
            jobs: self.jobs,
            keep_going: self.keep_going,
            why: Box::new(|node, _| format!("{} has no result", node.stage)),
            hash_source: Arc::new(|path| crate::store::hash_path(path).ok()),
            may_start: Arc::new(|_| Ok(())),
        };
        let mut events = Events::default();
        let interrupt = Arc::clone(&self.stages.interrupt);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let launcher: Arc<dyn Launch> = self.stages.clone();
        let report = runtime.block_on(run(request, launcher, &mut [&mut events], || {
            let interrupt = Arc::clone(&interrupt);
            Box::pin(async move { interrupt.notified().await })
        }));
        Ran {
            report,
            events: events.0,
            started: std::mem::take(&mut self.stages.started.lock().unwrap()),
        }
    }

    /// Changes the bytes of the blob that holds `part`, but not their number, and
    /// removes the folders that are laid out.
    fn damage(&self, part: &str) {
        let mut blobs = vec![self.cache().join("blobs")];
        let mut damaged = 0;
        while let Some(path) = blobs.pop() {
            if path.is_dir() {
                blobs.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains(part) {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, "x".repeat(text.len())).unwrap();
                damaged += 1;
            }
        }
        assert_eq!(damaged, 1, "one blob holds {part}");
        std::fs::remove_dir_all(self.cache().join("trees")).unwrap();
    }
}

impl Bench {
    /// Damages every blob that a stage of a run made.
    fn damage_in(&self, stage: &str, ran: &Ran) {
        for folder in ran.stage(stage).outputs.values() {
            let file = folder.join("data");
            let length = std::fs::metadata(&file).unwrap().len();
            let mut permissions = std::fs::metadata(&file).unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
            std::fs::set_permissions(&file, permissions).unwrap();
            // One file under two names: the blob is another one with it.
            std::fs::write(&file, "x".repeat(usize::try_from(length).unwrap())).unwrap();
        }
    }
}

impl Ran {
    fn stage(&self, name: &str) -> &StageReport {
        self.report.stages.iter().find(|s| s.stage == name).unwrap()
    }

    /// Names of the stages that came out so, in the order of the plan.
    fn with(&self, status: Status) -> Vec<&str> {
        let stages = self.report.stages.iter();
        stages
            .filter(|s| s.status == status)
            .map(|s| s.stage.as_str())
            .collect()
    }
}

const ALL: [&str; 7] = [
    "queries", "policy", "rollout", "score", "pairs", "train", "other",
];

#[test]
fn the_first_run_executes_and_the_second_starts_nothing() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    assert_eq!(first.with(Status::Executed), ALL);
    assert!(first.report.ok() && !first.report.interrupted);
    assert!(first.stage("train").outputs["model"].join("data").is_file());

    let second = bench.run(PIPELINE);
    assert_eq!(second.with(Status::Cached), ALL);
    assert_eq!(second.started, [""; 0]);
    for (a, b) in first.report.stages.iter().zip(&second.report.stages) {
        assert_eq!(
            (&a.key, &a.outputs, &a.figures),
            (&b.key, &b.outputs, &b.figures)
        );
    }
    let temporary = std::fs::read_dir(bench.cache().join("tmp")).unwrap();
    assert_eq!(temporary.count(), 0, "job folders are gone");
}

#[test]
fn events_tell_the_story_in_order() {
    let ran = Bench::new().run(
        "{ version: 1, name: p, seed: 1, stages: { q: { uses: queries, with: { source: { path: q.jsonl } } } } }",
    );
    let names: Vec<String> = ran
        .events
        .iter()
        .map(|e| {
            serde_json::to_value(e).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        names,
        [
            "run_started",
            "stage_started",
            "stage_progress",
            "stage_finished",
            "run_finished"
        ]
    );
}

#[test]
fn a_changed_parameter_reruns_only_what_depends_on_it() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let rate = bench.run(&PIPELINE.replace("5.0e-7", "1.0e-6"));
    assert_eq!(rate.started, ["train"]);
    let tau = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    assert_eq!(tau.started, ["score", "pairs", "train"]);
    assert_eq!(bench.run(PIPELINE).started, [""; 0], "the old results stay");
}

#[test]
fn names_comments_and_order_change_nothing() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let written_otherwise = PIPELINE
        .replace("made-up", "another-name")
        .replace("policy", "base_model")
        .replace("stages:", "stages: # a comment")
        .replace(
            "{ model: base_model, pairs: pairs }",
            "{ pairs: pairs, model: base_model }",
        );
    assert_eq!(bench.run(&written_otherwise).started, [""; 0]);
}

#[test]
fn knobs_of_execution_change_no_key() {
    let mut bench = Bench::new();
    bench.run(PIPELINE);
    bench.options.threads = 1;
    bench.options.device = "cpu".into();
    let knobs = PIPELINE
        .replace("learning_rate", "micro_batch: 1, learning_rate")
        .replace("model: policy } }", "model: policy }, with: { width: 3 } }");
    assert_ne!(knobs, PIPELINE);
    assert_eq!(bench.run(&knobs).started, [""; 0]);
}

#[test]
fn a_rollout_gets_a_place_for_its_queries_whatever_they_are() {
    let mut bench = Bench::new();
    let place = |bench: &Bench, pipeline: &str| {
        bench.run(pipeline);
        let mut places = std::mem::take(&mut *bench.stages.partial.lock().unwrap());
        assert_eq!(places.len(), 1, "of the rollout alone");
        let (stage, place) = places.remove(0);
        assert_eq!(stage, "rollout");
        place
    };
    let first = place(&bench, PIPELINE);
    assert_eq!(first.dir, bench.cache().join("partial/rollout"));
    assert!(!first.fresh);
    // Other queries: the rollout runs, with the same place under the same key.
    std::fs::write(bench.dir.path().join("q.jsonl"), "more").unwrap();
    bench.act("queries", Act::Always("more"));
    assert_eq!(place(&bench, PIPELINE), first);
    // Another parameter, another model: another key.
    let needs = "needs: { queries: queries, model: policy }";
    let tau = PIPELINE.replace(needs, &format!("{needs}, with: {{ tau: 0.2 }}"));
    let tau = place(&bench, &tau);
    std::fs::write(bench.dir.path().join("model/name"), "other").unwrap();
    bench.act("policy", Act::Always("other"));
    let model = place(&bench, PIPELINE);
    assert!(tau.key != first.key && model.key != first.key && model.key != tau.key);
    // One that is forced takes nothing from before.
    bench.forced = vec!["rollout"];
    let forced = place(&bench, PIPELINE);
    assert!(forced.fresh && forced.key == model.key);
}

#[test]
fn a_stage_that_gives_the_same_bytes_stops_the_rerun() {
    let bench = Bench::new();
    bench.act("score", Act::Always("the same"));
    bench.run(PIPELINE);
    let ran = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    assert_eq!(ran.started, ["score"]);
    assert_eq!(ran.stage("pairs").status, Status::Cached);
    assert_eq!(ran.stage("train").status, Status::Cached);
}

#[test]
fn a_failure_skips_dependents_and_nothing_else() {
    let bench = Bench::new();
    bench.act("score", Act::Fail);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Failed), ["score"]);
    assert_eq!(ran.with(Status::Skipped), ["pairs", "train"]);
    assert_eq!(
        ran.with(Status::Executed),
        ["queries", "policy", "rollout", "other"]
    );
    assert_eq!(ran.stage("score").reason, "it does not work");
    assert!(ran.stage("pairs").reason.contains("`score`"));
    assert!(ran.stage("train").reason.contains("`pairs`"));
    assert!(!ran.report.ok());

    bench.act("score", Act::Compute);
    assert_eq!(bench.run(PIPELINE).started, ["score", "pairs", "train"]);
}

#[test]
fn independent_stages_go_on_after_a_failure() {
    let bench = Bench {
        keep_going: true,
        ..Bench::new()
    };
    bench.act("queries", Act::Fail);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Executed), ["policy", "other"]);
    assert_eq!(
        ran.with(Status::Skipped),
        ["rollout", "score", "pairs", "train"]
    );
}

#[test]
fn an_output_that_is_missing_or_empty_is_a_failure_and_nothing_is_kept() {
    for (act, words) in [
        (
            Act::LeaveOut("metrics"),
            "did not write its output `metrics`",
        ),
        (
            Act::LeaveEmpty("model"),
            "wrote nothing into its output `model`",
        ),
    ] {
        let bench = Bench::new();
        bench.act("train", act);
        let ran = bench.run(PIPELINE);
        assert_eq!(ran.with(Status::Failed), ["train"]);
        let reason = &ran.stage("train").reason;
        assert!(reason.contains(words), "{reason}");
        assert!(ran.stage("train").outputs.is_empty());

        bench.act("train", Act::Compute);
        assert_eq!(bench.run(PIPELINE).started, ["train"], "no record was kept");
    }
}

#[test]
fn a_damaged_blob_sends_its_stage_back() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    bench.damage("[\"rollouts\",");
    let ran = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    assert_eq!(ran.started, ["rollout", "score", "pairs", "train"]);
    assert!(ran.report.ok());
    assert_eq!(ran.stage("rollout").outputs, first.stage("rollout").outputs);
    let warned = ran.events.iter().any(|e| {
        matches!(e, Event::StageLog { stage, level: Level::Warn, text } if stage == "rollout" && text.contains("damaged"))
    });
    assert!(warned);
}

#[test]
fn a_damaged_blob_that_comes_back_otherwise_is_in_the_record_as_it_is() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    bench.damage("[\"rollouts\",");
    bench.act("rollout", Act::Always("other bytes"));
    let ran = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    let key = ran.stage("score").key.clone().unwrap();
    let record = bench
        .cache()
        .join("records")
        .join(&key[..2])
        .join(format!("{key}.json"));
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let rollouts = ran.stage("rollout").outputs["rollouts"]
        .file_name()
        .unwrap();
    let preimage = record["preimage"].to_string();
    assert!(
        preimage.contains(rollouts.to_str().unwrap()),
        "the preimage names the new input: {preimage}"
    );
}

#[test]
fn an_interruption_keeps_what_is_finished() {
    let bench = Bench::new();
    bench.act("rollout", Act::UntilStopped);
    let ran = bench.run(PIPELINE);
    assert!(ran.report.interrupted && !ran.report.ok());
    assert_eq!(ran.with(Status::Executed), ["queries", "policy", "other"]);
    assert_eq!(
        ran.with(Status::Skipped),
        ["rollout", "score", "pairs", "train"]
    );
    assert!(ran.events.contains(&Event::Interrupted { times: 1 }));

    bench.act("rollout", Act::Compute);
    let again = bench.run(PIPELINE);
    assert_eq!(again.started, ["rollout", "score", "pairs", "train"]);
    assert!(again.report.ok() && !again.report.interrupted);
}

#[test]
fn a_stage_that_finishes_after_the_interruption_is_kept() {
    let bench = Bench::new();
    bench.act("rollout", Act::FinishAfterInterrupt);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.stage("rollout").status, Status::Executed);
    assert_eq!(ran.stage("score").status, Status::Skipped);
    assert_eq!(bench.run(PIPELINE).started, ["score", "pairs", "train"]);
}

#[test]
fn an_interruption_that_comes_too_late_is_none() {
    let bench = Bench::new();
    bench.act("train", Act::FinishAfterInterrupt);
    let ran = bench.run(PIPELINE);
    assert!(ran.report.ok() && !ran.report.interrupted);
}

#[test]
fn one_stage_with_a_model_at_a_time() {
    let bench = Bench::new();
    let models = "
version: 1
name: models
seed: 1
stages:
  a: { uses: model, with: { source: { path: a } } }
  b: { uses: model, with: { source: { path: b } } }
  c: { uses: model, with: { source: { path: c } } }
";
    let ran = bench.run(models);
    assert_eq!(ran.with(Status::Executed), ["a", "b", "c"]);
    assert_eq!(bench.stages.heavy.lock().unwrap().1, 1);
}

#[test]
fn a_launcher_that_panics_fails_its_stage_only() {
    let bench = Bench::new();
    bench.act("score", Act::Panic);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Failed), ["score"]);
    assert_eq!(ran.stage("other").status, Status::Executed);
}

#[test]
fn a_model_that_the_disk_cannot_hold_is_refused_before_it_runs() {
    let bench = Bench::new();
    let model = bench.dir.path().join("model");
    // Sparse: it has a size, and takes no room.
    let weights = std::fs::File::create(model.join("model.safetensors")).unwrap();
    if weights.set_len(8 << 40).is_err() {
        return; // a file system without files of such a size
    }
    let ran = bench.run(PIPELINE);
    assert!(!ran.started.contains(&"policy".to_owned()));
    let reason = &ran.stage("policy").reason;
    assert!(reason.contains("MiB free"), "{reason}");
    assert_eq!(ran.stage("train").status, Status::Skipped);
}

/// What it read may be either; a result under the key of the old content would be served for ever.
#[test]
fn a_source_that_changes_while_its_stage_runs_is_not_kept_under_the_old_key() {
    let bench = Bench::new();
    let source = bench.dir.path().join("q.jsonl");
    bench.act("queries", Act::Overwrite(source));
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Failed), ["queries"]);
    let reason = &ran.stage("queries").reason;
    assert!(
        reason.contains("q.jsonl changed while the run used it"),
        "{reason}"
    );
    // The new content has a key of its own.
    bench.act("queries", Act::default());
    assert_eq!(
        bench.run(PIPELINE).stage("queries").status,
        Status::Executed
    );
}

/// One stage that four take, two of which need one more, side by side.
const FAN: &str = "
version: 1
name: fan
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl } } }
  other: { uses: queries, with: { source: { path: other.jsonl } } }
  c1: { uses: command, needs: { x: queries }, with: { run: [a] , outputs: { o: {} } } }
  c2: { uses: command, needs: { x: queries, y: other }, with: { run: [b], outputs: { o: {} } } }
  c3: { uses: command, needs: { x: queries, y: queries.metrics }, retry: { times: 1, backoff_secs: 0 }, with: { run: [c], outputs: { o: {} } } }
  c4: { uses: command, needs: { x: queries, y: other.metrics }, with: { run: [d], outputs: { o: {} } } }
  all: { uses: command, needs: { a: c1, b: c2, c: c3, d: c4 }, with: { run: [e], outputs: { o: {} } } }
";

#[test]
fn damage_that_many_find_at_once_is_mended_once() {
    for cores in [1, 2, 8] {
        for both in [false, true] {
            let bench = Bench {
                options: RunOptions {
                    resources: spec::Resources {
                        cores: Some(cores),
                        ..Default::default()
                    },
                    ..RunOptions::default()
                },
                ..Bench::new()
            };
            let first = bench.run(FAN);
            assert!(first.report.ok());
            // Everything but the first two has to run again, and finds damage.
            bench.damage_in("queries", &first);
            if both {
                bench.damage_in("other", &first);
            }
            let changed = FAN.replace("outputs: { o: {} }", "env: { A: b }, outputs: { o: {} }");
            let ran = bench.run(&changed);
            assert!(ran.report.ok(), "{cores} {both}: {:?}", ran.report);
            let mut started = ran.started.clone();
            started.sort();
            let again: &[&str] = if both {
                &["other", "queries"]
            } else {
                &["queries"]
            };
            let wanted: Vec<&str> = ["all", "c1", "c2", "c3", "c4"]
                .iter()
                .chain(again)
                .copied()
                .collect();
            assert_eq!(started, wanted, "{cores} {both}: each once");
            let again = bench.run(&changed);
            assert_eq!(again.with(Status::Cached).len(), 7, "{cores} {both}");
            for (a, b) in ran.report.stages.iter().zip(&again.report.stages) {
                assert_eq!((&a.key, &a.outputs), (&b.key, &b.outputs), "{}", a.stage);
            }
        }
    }
}

#[test]
fn a_record_that_lacks_an_output_makes_no_key_of_another_stage() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    let store = Store::open(&bench.cache()).unwrap();
    let key = first.stage("pairs").key.clone().unwrap().parse().unwrap();
    let mut record = store.lookup(&key).unwrap();
    record.outputs.remove("pairs");
    store.put(&record).unwrap();
    let second = bench.run(PIPELINE);
    assert_eq!(second.with(Status::Failed), ["train"]);
    let reason = &second.stage("train").reason;
    assert_eq!(
        reason,
        "the result that fills its input `pairs` lacks that output"
    );
    assert_eq!(second.stage("train").key, None);
}

#[test]
fn a_rollout_in_shards_is_its_parts_and_then_the_whole() {
    let mut bench = Bench::new();
    let whole = bench.run(PIPELINE);
    let keys = |ran: &Ran| ran.stage("rollout").key.clone();
    bench.forced = vec!["rollout"];
    bench.stages.shards.lock().unwrap().clear();
    let needs = "needs: { queries: queries, model: policy }";
    let cut = PIPELINE.replace(needs, &format!("{needs}, with: {{ shards: 3 }}"));
    assert_ne!(cut, PIPELINE);
    let ran = bench.run(&cut);
    assert_eq!(keys(&ran), keys(&whole), "how it is cut is in no key");
    let part = |index| (Some(Shard { index, of: 3 }), true);
    // Forced: the parts leave aside what was kept; the whole takes what they made.
    assert_eq!(
        std::mem::take(&mut *bench.stages.shards.lock().unwrap()),
        [part(0), part(1), part(2), (None, false)]
    );
    // After one that failed no other begins.
    bench.act("rollout", Act::Fail);
    let ran = bench.run(&cut);
    assert_eq!(bench.stages.shards.lock().unwrap().len(), 1);
    let told = ran.events.iter().find_map(|event| match event {
        Event::StageFailed { failure, .. } => Some(failure.message.clone()),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("shard 1 of 3: it does not work"));
}
