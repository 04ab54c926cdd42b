//! The dispatcher: owns the state of a run, decides what is reused, what runs
//! and what waits, and emits events. The work itself is done by tasks (`task`),
//! which answer over a channel.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;

mod clock;
mod decide;
mod outcome;
mod state;

use super::resources::Resources;
use super::task::{HashSource, MayStart, TaskEnd};
use super::{Launch, WorkerEvent};
use crate::plan::{Capacity, Graph, Node};
use crate::run::{Event, FORMAT, Origin, RunReport, StageReport, Status, Subscriber};
use crate::store::{Key, Lease, RunDir, Store, Tree};
use state::{NodePhase, NodeState, Running};

/// How often a stage is recomputed because its cached output was damaged.
const MAX_REPAIRS: u32 = 2;
/// Between two looks at the stages that another process is computing.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Warnings of a stage that the report repeats; the log has all of them.
const MAX_WARNINGS: usize = 20;
/// The longest pause before a retry.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// Explains why a stage has to run, from its node and its key's preimage.
pub type Why = Box<dyn Fn(&Node, &Value) -> String>;

/// What to run.
pub struct RunRequest {
    /// The plan.
    pub graph: Graph,
    /// For each node, whether it runs even if its result is cached.
    pub forced: Vec<bool>,
    /// The cache.
    pub store: Store,
    /// Shows other processes that the run is alive; none if the cache cannot be written.
    pub lease: Option<Lease>,
    /// Id of the run.
    pub run_id: String,
    /// Folder of the run, which holds its logs.
    pub run_dir: Arc<RunDir>,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The pipeline file, absolute.
    pub pipeline_path: PathBuf,
    /// Build and machine of the run; stored with every record.
    pub origin: Origin,
    /// What stages that run side by side share.
    pub capacity: Capacity,
    /// How many stages may run at a time; none: as many as the machine has resources for.
    pub jobs: Option<usize>,
    /// Whether stages that do not depend on a failed one still run.
    pub keep_going: bool,
    /// Explains why a stage has to run.
    pub why: Why,
    /// Hashes a source again once its stage has run.
    pub hash_source: HashSource,
    /// Asked before a command starts.
    pub may_start: MayStart,
}

/// Runs a plan to its end.
///
/// `interrupts` yields each time the user asks to stop: the first time, workers are
/// asked to stop and what is finished is kept; the second time, they are killed.
pub async fn run<I>(
    request: RunRequest,
    launcher: Arc<dyn Launch>,
    subscribers: &mut [&mut dyn Subscriber],
    mut interrupts: I,
) -> RunReport
where
    I: FnMut() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
{
    let (worker_events, mut from_workers) = mpsc::channel(256);
    let (task_ends, mut from_tasks) = mpsc::unbounded_channel();
    let mut run = Dispatcher::new(request, launcher, subscribers, worker_events, task_ends);
    run.emit(&Event::RunStarted {
        run_id: run.request.run_id.clone(),
        pipeline: run.request.pipeline.clone(),
        stages: run.names(),
    });
    let mut interrupt = interrupts();
    loop {
        run.advance();
        if run.is_over() {
            break;
        }
        let alarm = run.next_alarm();
        tokio::select! {
            Some(event) = from_workers.recv() => run.worker_event(event),
            Some((index, end)) = from_tasks.recv() => {
                // Messages that the stage sent before it ended come before its end.
                while let Ok(event) = from_workers.try_recv() {
                    run.worker_event(event);
                }
                run.ended(index, end);
            }
            () = sleep_until(alarm) => run.alarm(),
            () = &mut interrupt => {
                run.interrupt();
                interrupt = interrupts();
            }
        }
    }
    run.finish()
}

async fn sleep_until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

struct Dispatcher<'a, 'b> {
    request: RunRequest,
    launcher: Arc<dyn Launch>,
    subscribers: &'a mut [&'b mut dyn Subscriber],
    started: Instant,
    states: Vec<NodeState>,
    resources: Resources,
    /// Nodes whose inputs are there, to be decided.
    ready: BTreeSet<usize>,
    /// In [`NodePhase::Queued`].
    queued: BTreeSet<usize>,
    /// In [`NodePhase::Held`].
    held: BTreeSet<usize>,
    /// In [`NodePhase::Backoff`].
    backoff: BTreeSet<usize>,
    running: BTreeMap<usize, Running>,
    /// Keys that stages of this run are computing.
    computing: HashMap<Key, usize>,
    /// Keys that stages of this run have computed.
    computed: HashSet<Key>,
    poll_at: Option<Instant>,
    worker_events: mpsc::Sender<WorkerEvent>,
    task_ends: mpsc::UnboundedSender<(usize, TaskEnd)>,
    interrupts: u32,
    /// Name of the first stage that failed, if that stops the run.
    failed: Option<String>,
}

impl<'a, 'b> Dispatcher<'a, 'b> {
    fn new(
        request: RunRequest,
        launcher: Arc<dyn Launch>,
        subscribers: &'a mut [&'b mut dyn Subscriber],
        worker_events: mpsc::Sender<WorkerEvent>,
        task_ends: mpsc::UnboundedSender<(usize, TaskEnd)>,
    ) -> Self {
        let states: Vec<NodeState> = request
            .graph
            .nodes
            .iter()
            .map(|node| NodeState {
                missing: node.needs.len(),
                ..NodeState::default()
            })
            .collect();
        let ready = (0..states.len())
            .filter(|&i| states[i].missing == 0)
            .collect();
        Self {
            resources: Resources::new(request.capacity, request.jobs),
            request,
            launcher,
            subscribers,
            started: Instant::now(),
            states,
            ready,
            queued: BTreeSet::new(),
            held: BTreeSet::new(),
            backoff: BTreeSet::new(),
            running: BTreeMap::new(),
            computing: HashMap::new(),
            computed: HashSet::new(),
            poll_at: None,
            worker_events,
            task_ends,
            interrupts: 0,
            failed: None,
        }
    }

    fn emit(&mut self, event: &Event) {
        for subscriber in self.subscribers.iter_mut() {
            subscriber.on(event);
        }
    }

    fn node(&self, index: usize) -> &Node {
        &self.request.graph.nodes[index]
    }

    fn name(&self, index: usize) -> String {
        self.node(index).name.clone()
    }

    fn names(&self) -> Vec<String> {
        let nodes = self.request.graph.nodes.iter();
        nodes.map(|n| n.name.clone()).collect()
    }

    /// Whether no stage is running and none will start.
    fn is_over(&self) -> bool {
        // The second interruption waits for no stage: processes end with their tasks.
        let at_once = self.interrupts > 1;
        (self.running.is_empty() || at_once) && self.held.is_empty() && self.backoff.is_empty()
    }

    fn finish(mut self) -> RunReport {
        let mut stages = Vec::with_capacity(self.states.len());
        for (node, state) in self.request.graph.nodes.iter().zip(&mut self.states) {
            let status = match state.phase {
                NodePhase::Ended(status) => status,
                _ => Status::Skipped,
            };
            if status == Status::Skipped && state.reason.is_empty() {
                let why = if self.interrupts > 0 {
                    "the run was interrupted"
                } else {
                    "it was never reached: this is a bug in Genius"
                };
                why.clone_into(&mut state.reason);
            }
            stages.push(StageReport {
                stage: node.name.clone(),
                variants: node.variants.clone(),
                kind: Some(node.kind()),
                status,
                key: state.key.map(|k| k.to_string()),
                reason: std::mem::take(&mut state.reason),
                seconds: state.seconds,
                peak_memory_bytes: state.peak_memory_bytes,
                exit: state.exit.take(),
                warnings: std::mem::take(&mut state.warnings),
                outputs: folders(&self.request.store, &state.outputs),
                figures: std::mem::take(&mut state.figures),
            });
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let mut report = RunReport {
            format: FORMAT,
            run_id: self.request.run_id.clone(),
            pipeline: self.request.pipeline.clone(),
            pipeline_path: self.request.pipeline_path.clone(),
            stages,
            interrupted: false,
            seconds,
            environment: self.request.origin.clone(),
        };
        // If everything finished anyway, there is nothing to resume.
        report.interrupted = self.interrupts > 0 && !report.ok();
        self.emit(&Event::RunFinished {
            seconds,
            ok: report.ok(),
        });
        report
    }
}

/// The folders of the outputs, laid out if they are not yet.
fn folders(store: &Store, outputs: &BTreeMap<String, Tree>) -> BTreeMap<String, PathBuf> {
    outputs
        .iter()
        .filter_map(|(name, tree)| {
            let folder = store
                .laid_out(tree)
                .or_else(|| store.materialise(tree).ok())?;
            Some((name.clone(), folder))
        })
        .collect()
}
