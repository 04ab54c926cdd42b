//! Whole runs of the dispatcher, with fake stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};

use super::*;
use crate::plan::{Graph, Machine, PlanError, Resolver, RunOptions};
use crate::protocol::{
    Failure, Figure, Job, Level, Outcome, PartialResults, Progress, Shard, Unit, example,
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

/// What a stage does instead of its normal work.
#[derive(Debug, Clone, Default)]
enum Act {
    /// Writes files that follow from its parameters and inputs.
    #[default]
    Compute,
    /// Writes this text, whatever its parameters and inputs.
    Always(&'static str),
    /// Ends with a failure.
    Fail,
    /// Does not write that output, but reports success.
    LeaveOut(&'static str),
    /// Creates the folder of that output but leaves it empty.
    LeaveEmpty(&'static str),
    /// Asks for an interruption, then works until it is stopped.
    UntilStopped,
    /// Asks for an interruption, then finishes its work anyway.
    FinishAfterInterrupt,
    /// Panics.
    Panic,
    /// Does its work while another process writes that file.
    Overwrite(PathBuf),
}

/// Runs fake stages in this process.
#[derive(Default)]
struct FakeStages {
    acts: Mutex<BTreeMap<String, Act>>,
    /// Names of the stages started since the last read.
    started: Mutex<Vec<String>>,
    /// Where stages were to store partial results, since the last read.
    partial: Mutex<Vec<(String, PartialResults)>>,
    /// Shards started since the last read, each with whether it ignored earlier results.
    shards: Mutex<Vec<(Option<Shard>, bool)>>,
    /// Heavy stages running now, and the most at any time.
    heavy: Arc<Mutex<(usize, usize)>>,
    interrupt: Arc<Notify>,
}

impl Launch for FakeStages {
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
        Act::Panic => panic!("a bug"),
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

/// Reads files but never asks the hub; a model too large for any disk is hashed by its name.
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

/// A cache, and the runs that use it.
struct Bench {
    dir: TempDir,
    stages: Arc<FakeStages>,
    options: RunOptions,
    forced: Vec<&'static str>,
    jobs: Option<usize>,
    keep_going: bool,
}

/// A finished run.
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
        let machine = Machine::known(example::cpu("avx2"));
        let graph = Graph::build(&pipeline, &machine, &self.options, &Names).unwrap();
        let store = Store::open(&self.cache()).unwrap();
        let lease = store.begin_run(&Times::default()).unwrap();
        let mut forced = vec![false; graph.nodes.len()];
        for name in &self.forced {
            forced[graph.find(name).unwrap()] = true;
        }
        let request = RunRequest {
            forced,
            capacity: machine.capacity(&self.options),
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

    /// Changes the bytes of the blob that holds `part`, but not its length, and removes the
    /// folders that are laid out.
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
            // Two files with the same content share a blob.
            std::fs::write(&file, "x".repeat(usize::try_from(length).unwrap())).unwrap();
        }
    }
}

impl Ran {
    fn stage(&self, name: &str) -> &StageReport {
        self.report.stages.iter().find(|s| s.stage == name).unwrap()
    }

    /// Names of the stages with that status, in the order of the plan.
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

mod damage;
mod failures;
mod reuse;
