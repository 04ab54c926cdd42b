//! The dispatcher: owns the state of a run, decides what is reused and what
//! runs, keeps results, and tells what happens.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{Event, JobEnd, Launch, RunReport, StageReport, Status, Stop, Subscriber, WorkerEvent};
use crate::plan::{Fingerprint, Graph, Node};
use crate::protocol::{Failure, Job, Level, StageKind};
use crate::store::{
    ContentHash, JobDir, Key, RECORD_FORMAT, Record, Store, StoreError, Tree, hash_path,
};

/// Stages with a model side by side: each takes all cores or the whole GPU.
const HEAVY_AT_ONCE: usize = 1;
/// Other stages side by side.
const LIGHT_AT_ONCE: usize = 2;
/// How often a stage is computed again because its kept output was damaged.
const MOST_REPAIRS: u32 = 2;

/// What to run.
pub struct RunRequest {
    /// The plan.
    pub graph: Graph,
    /// The cache.
    pub store: Store,
    /// Id of the run.
    pub run_id: String,
    /// Folder of the run: logs go there.
    pub run_dir: PathBuf,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Kept beside every record: versions, host, command line.
    pub provenance: Value,
}

/// Runs a plan to its end.
///
/// `interrupts` yields each time a person asks to stop: the first stops the
/// workers and keeps what is finished, the second ends them at once.
pub async fn run<I>(
    request: RunRequest,
    launcher: Arc<dyn Launch>,
    subscribers: &mut [&mut dyn Subscriber],
    mut interrupts: I,
) -> RunReport
where
    I: FnMut() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
{
    let (events, mut from_workers) = mpsc::channel(256);
    let (stop, _) = watch::channel(Stop::No);
    let started = Instant::now();
    let states = request
        .graph
        .nodes
        .iter()
        .map(|_| NodeState::default())
        .collect();
    let mut run = Dispatcher {
        request,
        launcher,
        subscribers,
        states,
        running: BTreeMap::new(),
        events,
        stop,
        interrupts: 0,
    };
    run.tell(&Event::RunStarted {
        run_id: run.request.run_id.clone(),
        pipeline: run.request.pipeline.clone(),
        stages: run
            .request
            .graph
            .nodes
            .iter()
            .map(|n| n.name.clone())
            .collect(),
    });
    let mut interrupt = interrupts();
    loop {
        run.advance().await;
        if run.running.is_empty() {
            break;
        }
        tokio::select! {
            event = from_workers.recv() => if let Some(event) = event { run.worker_event(event).await },
            () = &mut interrupt => {
                run.interrupt();
                interrupt = interrupts();
            }
        }
    }
    run.finish(started)
}

/// Where a node is.
#[derive(Debug, Clone, Default, PartialEq)]
enum Phase {
    #[default]
    Waiting,
    Running,
    Ended(Status),
}

#[derive(Debug, Clone, Default)]
struct NodeState {
    phase: Phase,
    key: Option<Key>,
    preimage: Value,
    outputs: BTreeMap<String, Tree>,
    folders: BTreeMap<String, PathBuf>,
    summary: Vec<(String, Value)>,
    reason: String,
    seconds: f64,
    repairs: u32,
}

struct RunningJob {
    started: Instant,
    started_at: jiff::Timestamp,
    dir: JobDir,
}

struct Dispatcher<'a, 'b> {
    request: RunRequest,
    launcher: Arc<dyn Launch>,
    subscribers: &'a mut [&'b mut dyn Subscriber],
    states: Vec<NodeState>,
    running: BTreeMap<usize, RunningJob>,
    events: mpsc::Sender<WorkerEvent>,
    stop: watch::Sender<Stop>,
    interrupts: u32,
}

impl Dispatcher<'_, '_> {
    fn tell(&mut self, event: &Event) {
        for subscriber in self.subscribers.iter_mut() {
            subscriber.on(event);
        }
    }

    fn node(&self, index: usize) -> &Node {
        &self.request.graph.nodes[index]
    }

    /// Decides every stage that can be decided, and starts what has room.
    async fn advance(&mut self) {
        let mut todo: VecDeque<usize> = (0..self.states.len()).collect();
        while let Some(index) = todo.pop_front() {
            if self.states[index].phase != Phase::Waiting {
                continue;
            }
            let needs: Vec<usize> = self.node(index).needs.values().map(|n| n.node).collect();
            let blocker = needs.iter().copied().find(|&n| {
                matches!(
                    self.states[n].phase,
                    Phase::Ended(Status::Failed | Status::Skipped)
                )
            });
            if let Some(blocker) = blocker {
                let reason = format!("needs `{}`, which has no result", self.node(blocker).name);
                self.skip(index, reason);
                continue;
            }
            let ready = |&n: &usize| matches!(self.states[n].phase, Phase::Ended(_));
            if needs.iter().all(ready) && self.decide(index).await {
                // A damaged input sent its stage back: look at everything again.
                todo = (0..self.states.len()).collect();
            }
        }
    }

    /// Reuses, starts or leaves waiting a stage whose inputs are known. True if
    /// an earlier stage was sent back.
    async fn decide(&mut self, index: usize) -> bool {
        let fingerprint = Fingerprint::new(self.node(index), &self.input_hashes(index));
        let key = fingerprint.key();
        self.states[index].key = Some(key);
        self.states[index].preimage = fingerprint.preimage();
        if let Ok(Some(record)) = self.request.store.lookup(&key) {
            let state = &mut self.states[index];
            state.phase = Phase::Ended(Status::Cached);
            state.outputs = record.outputs;
            state.summary = record.summary;
            state.reason = "same key".to_owned();
            let event = Event::StageCached {
                stage: self.node(index).name.clone(),
                key: key.to_string(),
            };
            self.tell(&event);
            return false;
        }
        if self.interrupts > 0 {
            self.skip(index, "the run was interrupted".to_owned());
            return false;
        }
        if !self.has_room(self.node(index).kind) {
            return false;
        }
        match self.start(index, key).await {
            Ok(sent_back) => sent_back,
            Err(failure) => {
                self.fail(index, failure, 0.0);
                false
            }
        }
    }

    fn input_hashes(&self, index: usize) -> BTreeMap<String, ContentHash> {
        self.node(index)
            .needs
            .iter()
            .filter_map(|(slot, need)| {
                let tree = self.states[need.node].outputs.get(&need.artifact)?;
                Some((slot.clone(), tree.hash))
            })
            .collect()
    }

    fn has_room(&self, kind: StageKind) -> bool {
        let same = self
            .running
            .keys()
            .filter(|&&n| self.node(n).kind.needs_worker() == kind.needs_worker())
            .count();
        same < if kind.needs_worker() {
            HEAVY_AT_ONCE
        } else {
            LIGHT_AT_ONCE
        }
    }

    /// Lays out the inputs and starts the process. True if an input was damaged
    /// and its stage sent back instead.
    async fn start(&mut self, index: usize, key: Key) -> Result<bool, Failure> {
        let mut inputs = BTreeMap::new();
        for (slot, need) in self.node(index).needs.clone() {
            match self.folder(need.node, &need.artifact).await {
                Ok(folder) => {
                    inputs.insert(slot, folder);
                }
                Err(e) if e.is_damage() && self.states[need.node].repairs < MOST_REPAIRS => {
                    self.send_back(need.node, &e);
                    return Ok(true);
                }
                Err(e) => return Err(Failure::new(e.to_string())),
            }
        }
        let node = self.node(index);
        self.check_disk(node, &inputs)?;
        let dir = self.request.store.job_dir(&node.name).map_err(|e| {
            Failure::new(e.to_string()).hint("`--cache DIR` puts the cache elsewhere")
        })?;
        let hashes = self.input_hashes(index);
        let job = Job {
            stage: node.name.clone(),
            kind: node.kind,
            params: node.params.clone(),
            execution: node.execution.clone(),
            inputs,
            input_hashes: hashes
                .iter()
                .map(|(s, h)| (s.clone(), h.to_string()))
                .collect(),
            output_dir: dir.output(),
            scratch_dir: dir.scratch(),
        };
        let log = log_path(&self.request.run_dir, &node.name);
        let ending =
            self.launcher
                .launch(index, job, log, self.events.clone(), self.stop.subscribe());
        let events = self.events.clone();
        tokio::spawn(async move {
            // Apart, so that a defect there cannot leave the run waiting for ever.
            let end = tokio::spawn(ending).await.unwrap_or_else(|e| {
                JobEnd::Failed(Failure::new(format!("the stage's process was lost: {e}")))
            });
            let _ = events.send(WorkerEvent::Ended(index, end)).await;
        });
        let reason = "no result is kept under its key".to_owned();
        let event = Event::StageStarted {
            stage: self.node(index).name.clone(),
            key: key.to_string(),
            reason: reason.clone(),
        };
        let state = &mut self.states[index];
        state.phase = Phase::Running;
        state.reason = reason;
        self.running.insert(
            index,
            RunningJob {
                started: Instant::now(),
                started_at: jiff::Timestamp::now(),
                dir,
            },
        );
        self.tell(&event);
        Ok(false)
    }

    /// The folder of a node's output, laid out if need be.
    async fn folder(&mut self, index: usize, output: &str) -> Result<PathBuf, StoreError> {
        if let Some(folder) = self.states[index].folders.get(output) {
            return Ok(folder.clone());
        }
        let Some(tree) = self.states[index].outputs.get(output).cloned() else {
            return Ok(self.request.run_dir.join("missing"));
        };
        let store = self.request.store.clone();
        let folder = blocking(move || store.materialise(&tree)).await?;
        self.states[index]
            .folders
            .insert(output.to_owned(), folder.clone());
        Ok(folder)
    }

    /// A stage whose kept output is damaged is computed again.
    fn send_back(&mut self, index: usize, damage: &StoreError) {
        let stage = self.node(index).name.clone();
        let state = &mut self.states[index];
        state.phase = Phase::Waiting;
        state.repairs += 1;
        state.outputs.clear();
        state.folders.clear();
        self.tell(&Event::StageLog {
            stage,
            level: Level::Warn,
            text: format!("its kept output is damaged and will be made again: {damage}"),
        });
    }

    /// Model-sized outputs: refuse before hours of work rather than after.
    fn check_disk(&self, node: &Node, inputs: &BTreeMap<String, PathBuf>) -> Result<(), Failure> {
        const GIB: u64 = 1 << 30;
        let model_bytes = inputs.get("model").map_or(0, |folder| size(folder));
        let needed = match node.kind {
            StageKind::Model => match node.params["source"]["path"].as_str().map(Path::new) {
                // Q4_0 has 4.5 bits a weight; f32 has 32.
                Some(path) if path.is_file() => 8 * size(path),
                Some(path) => size(path) + GIB / 4,
                // Not known before it is downloaded.
                None => GIB,
            },
            // Weights as f32, whatever they came as.
            StageKind::Train => 2 * model_bytes + GIB / 4,
            _ => return Ok(()),
        };
        let free = self
            .request
            .store
            .free_bytes()
            .map_err(|e| Failure::new(e.to_string()))?;
        if free < needed {
            return Err(Failure::new(format!(
                "the disk of {} has {} MiB free, and this stage may write {} MiB",
                self.request.store.root().display(),
                free >> 20,
                needed >> 20
            ))
            .hint("make room, or put the cache elsewhere with `--cache DIR`"));
        }
        Ok(())
    }

    async fn worker_event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Progress(index, progress) => {
                let stage = self.node(index).name.clone();
                self.tell(&Event::StageProgress { stage, progress });
            }
            WorkerEvent::Log(index, level, text) => {
                let stage = self.node(index).name.clone();
                self.tell(&Event::StageLog { stage, level, text });
            }
            WorkerEvent::Ended(index, end) => self.ended(index, end).await,
        }
    }

    async fn ended(&mut self, index: usize, end: JobEnd) {
        let Some(job) = self.running.remove(&index) else {
            return;
        };
        match end {
            JobEnd::Done {
                summary,
                peak_memory_bytes,
            } => match self.keep(index, &job, summary, peak_memory_bytes).await {
                Ok(()) => {
                    let seconds = job.started.elapsed().as_secs_f64();
                    let state = &mut self.states[index];
                    state.phase = Phase::Ended(Status::Executed);
                    state.seconds += seconds;
                    let event = Event::StageFinished {
                        stage: self.node(index).name.clone(),
                        key: self.states[index]
                            .key
                            .map(|k| k.to_string())
                            .unwrap_or_default(),
                        seconds,
                        peak_memory_bytes,
                    };
                    self.tell(&event);
                }
                Err(failure) => self.fail(index, failure, job.started.elapsed().as_secs_f64()),
            },
            JobEnd::Failed(failure) => {
                self.fail(index, failure, job.started.elapsed().as_secs_f64());
            }
            JobEnd::Cancelled => self.skip(index, "the run was interrupted".to_owned()),
        }
    }

    /// Checks what a stage wrote, and keeps it: blobs first, the record last.
    async fn keep(
        &mut self,
        index: usize,
        job: &RunningJob,
        summary: Vec<(String, Value)>,
        peak_memory_bytes: u64,
    ) -> Result<(), Failure> {
        let node = self.node(index).clone();
        let Some(key) = self.states[index].key else {
            return Err(Failure::new("the stage has no key"));
        };
        let sources = node.sources.clone();
        blocking(move || unchanged(&sources)).await?;
        let output_dir = job.dir.output();
        let store = self.request.store.clone();
        let declared = node.outputs.clone();
        let outputs = blocking(move || ingest(&store, &declared, &output_dir)).await?;
        let provenance = json!({
            "stage": node.name,
            "pipeline": self.request.pipeline,
            "run_id": self.request.run_id,
            "started": job.started_at.to_string(),
            "seconds": job.started.elapsed().as_secs_f64(),
            "peak_memory_bytes": peak_memory_bytes,
            "execution": node.execution,
            "sources": node.provenance,
            "environment": self.request.provenance,
        });
        let record = Record {
            format: RECORD_FORMAT,
            key,
            kind: node.kind.name().to_owned(),
            preimage: self.states[index].preimage.clone(),
            outputs,
            summary,
            provenance,
        };
        let store = self.request.store.clone();
        let record = blocking(move || store.put(&record).map(|()| record))
            .await
            .map_err(|e| Failure::new(e.to_string()))?;
        let state = &mut self.states[index];
        state.outputs = record.outputs;
        state.summary = record.summary;
        Ok(())
    }

    fn fail(&mut self, index: usize, failure: Failure, seconds: f64) {
        let state = &mut self.states[index];
        state.phase = Phase::Ended(Status::Failed);
        state.reason = failure.message.clone();
        state.seconds += seconds;
        let stage = self.node(index).name.clone();
        self.tell(&Event::StageFailed {
            stage,
            failure,
            seconds,
        });
    }

    fn skip(&mut self, index: usize, reason: String) {
        let state = &mut self.states[index];
        state.phase = Phase::Ended(Status::Skipped);
        state.reason.clone_from(&reason);
        let stage = self.node(index).name.clone();
        self.tell(&Event::StageSkipped { stage, reason });
    }

    fn interrupt(&mut self) {
        self.interrupts += 1;
        let how = if self.interrupts == 1 {
            Stop::Soon
        } else {
            Stop::Now
        };
        self.stop.send_replace(how);
        self.tell(&Event::Interrupted {
            times: self.interrupts,
        });
    }

    fn finish(mut self, started: Instant) -> RunReport {
        let seconds = started.elapsed().as_secs_f64();
        let mut stages = Vec::with_capacity(self.states.len());
        for (node, state) in self.request.graph.nodes.iter().zip(&mut self.states) {
            let mut outputs = std::mem::take(&mut state.folders);
            for (name, tree) in &state.outputs {
                let folder = self.request.store.tree_path(&tree.hash);
                // Laid out by the run that made it, unless someone tidied up since.
                if folder.is_dir() || self.request.store.materialise(tree).is_ok() {
                    outputs.entry(name.clone()).or_insert(folder);
                }
            }
            stages.push(StageReport {
                stage: node.name.clone(),
                variants: node.variants.clone(),
                kind: node.kind,
                status: match state.phase {
                    Phase::Ended(status) => status,
                    Phase::Waiting | Phase::Running => Status::Skipped,
                },
                key: state.key.map(|k| k.to_string()),
                reason: std::mem::take(&mut state.reason),
                seconds: state.seconds,
                outputs,
                summary: std::mem::take(&mut state.summary),
            });
        }
        let mut report = RunReport {
            run_id: self.request.run_id.clone(),
            pipeline: self.request.pipeline.clone(),
            stages,
            interrupted: false,
            seconds,
        };
        // Where all was finished all the same, there is nothing to go on with.
        report.interrupted = self.interrupts > 0 && !report.ok();
        self.tell(&Event::RunFinished {
            seconds,
            ok: report.ok(),
        });
        report
    }
}

/// Where a stage's log of a run is.
pub(super) fn log_path(run_dir: &Path, stage: &str) -> PathBuf {
    run_dir.join(format!("{stage}.log"))
}

/// Refuses a result whose sources are no longer what its key says.
fn unchanged(sources: &BTreeMap<PathBuf, ContentHash>) -> Result<(), Failure> {
    for (path, planned) in sources {
        if hash_path(path).ok() != Some(*planned) {
            let what = format!("{} changed while the run used it", path.display());
            return Err(Failure::new(what)
                .hint("nothing was kept; run again, and leave it alone meanwhile"));
        }
    }
    Ok(())
}

/// Every output that the kind declares, kept and laid out.
fn ingest(
    store: &Store,
    declared: &[String],
    output_dir: &Path,
) -> Result<BTreeMap<String, Tree>, Failure> {
    let mut outputs = BTreeMap::new();
    for name in declared {
        let folder = output_dir.join(name);
        let defect = |what: &str| {
            Failure::new(format!(
                "the stage ended well but {what} its output `{name}`"
            ))
            .hint("this is a defect of Genius; nothing was kept")
        };
        if !folder.is_dir() {
            return Err(defect("did not write"));
        }
        let tree = store
            .ingest(&folder)
            .map_err(|e| Failure::new(e.to_string()))?;
        if tree.files.is_empty() {
            return Err(defect("wrote nothing into"));
        }
        store
            .materialise(&tree)
            .map_err(|e| Failure::new(e.to_string()))?;
        outputs.insert(name.clone(), tree);
    }
    Ok(outputs)
}

/// Runs work on the disk beside the dispatcher, so that it goes on listening.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// Bytes of a file, or of the files of a folder.
fn size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |m| m.len());
    };
    entries
        .flatten()
        .filter_map(|e| std::fs::metadata(e.path()).ok())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}
