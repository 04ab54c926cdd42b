//! The dispatcher: owns the state of a run, decides what is reused, what runs
//! and what waits, and tells what happens. The work itself is done by tasks
//! beside it (`task`), which answer over a channel.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::room::{Room, Share};
use super::task::{self, HashSource, Task, TaskEnd};
use super::{Event, Exit, Launch, RunReport, StageReport, Status, Stop, Subscriber, WorkerEvent};
use crate::plan::{Capacity, Fingerprint, Graph, Node};
use crate::protocol::{Failure, Level};
use crate::store::{Claim, Claimed, ContentHash, Key, Lease, Store, StoreError, Tree};

/// How often a stage is computed again because its kept output was damaged.
const MOST_REPAIRS: u32 = 2;
/// How often a stage that another process computes is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The longest pause before a repetition.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);

/// Says why a stage has to run: its node, its key's preimage.
pub type Why = Box<dyn Fn(&Node, &Value) -> String>;

/// What to run.
pub struct RunRequest {
    /// The plan.
    pub graph: Graph,
    /// Of each node: whether it runs though its result is there.
    pub forced: Vec<bool>,
    /// The cache.
    pub store: Store,
    /// The run's sign of life; none where the cache cannot be written.
    pub lease: Option<Lease>,
    /// Id of the run.
    pub run_id: String,
    /// Folder of the run: logs go there.
    pub run_dir: PathBuf,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The pipeline file, absolute.
    pub pipeline_path: PathBuf,
    /// Kept beside every record: versions, host, command line.
    pub provenance: Value,
    /// What stages that run side by side share.
    pub capacity: Capacity,
    /// Most stages at a time; none: as many as there is room for.
    pub jobs: Option<usize>,
    /// Whether what does not need a failed stage is run all the same.
    pub keep_going: bool,
    /// Says why a stage has to run.
    pub why: Why,
    /// Tells what a source of a stage holds when it has run.
    pub hash_source: HashSource,
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
    let (worker_events, mut from_workers) = mpsc::channel(256);
    let (task_ends, mut from_tasks) = mpsc::unbounded_channel();
    let mut run = Dispatcher::new(request, launcher, subscribers, worker_events, task_ends);
    run.tell(&Event::RunStarted {
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
                // What the stage said before its end is told before its end.
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

/// Where a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Phase {
    /// For its inputs.
    #[default]
    Waiting,
    /// Its key is known and has no result: for room.
    Queued,
    /// For another process, or another stage of this run, that computes the same key.
    Held,
    /// For its next attempt.
    Backoff(Instant),
    Running,
    Ended(Status),
}

#[derive(Debug, Default)]
struct NodeState {
    phase: Phase,
    /// Inputs without a result.
    missing: usize,
    key: Option<Key>,
    preimage: Value,
    outputs: BTreeMap<String, Tree>,
    summary: Vec<(String, Value)>,
    reason: String,
    seconds: f64,
    peak_memory_bytes: u64,
    exit: Option<Exit>,
    repairs: u32,
    failures: u32,
    /// For whom it waits was told.
    told: bool,
}

struct Running {
    started: Instant,
    share: Share,
    stop: watch::Sender<Stop>,
    /// When its time is over, and whether it was.
    deadline: Option<Instant>,
    timed_out: bool,
}

struct Dispatcher<'a, 'b> {
    request: RunRequest,
    launcher: Arc<dyn Launch>,
    subscribers: &'a mut [&'b mut dyn Subscriber],
    started: Instant,
    states: Vec<NodeState>,
    room: Room,
    /// Inputs are there: to be decided.
    ready: BTreeSet<usize>,
    /// In [`Phase::Queued`].
    queued: BTreeSet<usize>,
    /// In [`Phase::Held`].
    held: BTreeSet<usize>,
    /// In [`Phase::Backoff`].
    backoff: BTreeSet<usize>,
    running: BTreeMap<usize, Running>,
    /// Keys that a stage of this run computes now.
    computing: HashMap<Key, usize>,
    /// Keys that a stage of this run has computed.
    computed: HashSet<Key>,
    look_at: Option<Instant>,
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
            room: Room::new(request.capacity, request.jobs),
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
            look_at: None,
            worker_events,
            task_ends,
            interrupts: 0,
            failed: None,
        }
    }

    fn tell(&mut self, event: &Event) {
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

    /// Whether no stage is under way and none will be.
    fn is_over(&self) -> bool {
        // The second interruption waits for nobody: processes end with their tasks.
        let at_once = self.interrupts > 1;
        (self.running.is_empty() || at_once) && self.held.is_empty() && self.backoff.is_empty()
    }

    // ---- deciding ----

    /// Decides every stage whose inputs are known, and starts what has room.
    fn advance(&mut self) {
        loop {
            while let Some(index) = self.ready.pop_first() {
                self.decide(index);
            }
            if self.stops_early() {
                self.skip_rest();
                return;
            }
            let queued: Vec<usize> = self.queued.iter().copied().collect();
            for index in queued {
                if self.room.is_full() {
                    break;
                }
                self.start(index);
            }
            // Another process finished one meanwhile, and more can be decided.
            if self.ready.is_empty() {
                return;
            }
        }
    }

    fn stops_early(&self) -> bool {
        self.interrupts > 0 || self.failed.is_some()
    }

    /// Reuses a stage whose inputs are known, or queues it.
    fn decide(&mut self, index: usize) {
        let fingerprint = Fingerprint::new(self.node(index), &self.input_hashes(index));
        let key = fingerprint.key();
        let state = &mut self.states[index];
        state.key = Some(key);
        state.preimage = fingerprint.preimage();
        // Before it is looked up: what a live run lists is not collected.
        if let Some(lease) = &self.request.lease
            && let Err(e) = lease.uses(&key)
        {
            let stage = self.name(index);
            self.warn(
                stage,
                format!("its use is not noted, so a garbage collection may take its result: {e}"),
            );
        }
        if self.may_reuse(index, key) && self.reuse(index, key) {
            return;
        }
        self.states[index].phase = Phase::Queued;
        self.queued.insert(index);
    }

    /// A stage that is forced runs, unless another one of this run has computed the
    /// same key.
    fn may_reuse(&self, index: usize, key: Key) -> bool {
        !self.request.forced[index] || self.computed.contains(&key)
    }

    /// Takes what is kept under the key, if it is there.
    fn reuse(&mut self, index: usize, key: Key) -> bool {
        let Ok(Some(record)) = self.request.store.lookup(&key) else {
            return false;
        };
        let state = &mut self.states[index];
        state.outputs = record.outputs;
        state.summary = record.summary;
        state.reason = "same key".to_owned();
        let event = Event::StageCached {
            stage: self.name(index),
            key: key.to_string(),
        };
        self.succeed(index, Status::Cached);
        self.tell(&event);
        true
    }

    fn input_hashes(&self, index: usize) -> BTreeMap<String, ContentHash> {
        let needs = self.node(index).needs.iter();
        needs
            .filter_map(|(slot, need)| {
                let tree = self.states[need.node].outputs.get(&need.artifact)?;
                Some((slot.clone(), tree.hash))
            })
            .collect()
    }

    /// Starts a queued stage, if there is room and nobody computes the same.
    fn start(&mut self, index: usize) {
        let Some(key) = self.states[index].key else {
            return;
        };
        if self.computing.contains_key(&key) {
            // A stage under another name: its result will be this one's.
            self.hold(index);
            return;
        }
        let demand = self.node(index).demand;
        let Some(share) = self.room.take(&demand) else {
            return;
        };
        let claim = match self.claim(index, key) {
            Ok(claim) => claim,
            Err(waits) => {
                self.room.give_back(share);
                if waits {
                    self.hold(index);
                }
                return;
            }
        };
        self.queued.remove(&index);
        let node = self.node(index).clone();
        let inputs = node
            .needs
            .iter()
            .filter_map(|(slot, need)| {
                let tree = self.states[need.node].outputs.get(&need.artifact)?;
                Some((slot.clone(), (need.node, tree.clone())))
            })
            .collect();
        let reason = if self.request.forced[index] {
            "asked for by --force or --from".to_owned()
        } else if self.states[index].repairs > 0 {
            "its kept output was damaged".to_owned()
        } else {
            (self.request.why)(&node, &self.states[index].preimage)
        };
        let log = log_path(&self.request.run_dir, &node.name);
        let event = Event::StageStarted {
            stage: node.name.clone(),
            key: key.to_string(),
            reason: reason.clone(),
            preimage: self.states[index].preimage.clone(),
        };
        let now = Instant::now();
        let deadline = node
            .policy
            .timeout_secs
            .and_then(|secs| now.checked_add(Duration::try_from_secs_f64(secs).ok()?));
        let task = Task {
            index,
            key,
            preimage: self.states[index].preimage.clone(),
            inputs,
            gpus: share.gpus.clone(),
            store: self.request.store.clone(),
            claim,
            log,
            pipeline: self.request.pipeline.clone(),
            run_id: self.request.run_id.clone(),
            provenance: self.request.provenance.clone(),
            hash_source: Arc::clone(&self.request.hash_source),
            node,
        };
        self.tell(&event);
        let (stop, stopped) = watch::channel(Stop::No);
        let work = task::run(
            task,
            Arc::clone(&self.launcher),
            self.worker_events.clone(),
            stopped,
        );
        let ends = self.task_ends.clone();
        tokio::spawn(async move {
            // Apart, so that a defect there cannot leave the run waiting for ever.
            let end = tokio::spawn(work).await.unwrap_or_else(|e| {
                Failure::new(format!("the stage's process was lost: {e}")).into()
            });
            let _ = ends.send((index, end));
        });
        let state = &mut self.states[index];
        state.phase = Phase::Running;
        state.reason = reason;
        self.computing.insert(key, index);
        let running = Running {
            started: now,
            share,
            stop,
            deadline,
            timed_out: false,
        };
        self.running.insert(index, running);
    }

    /// A claim on the key. `Err(true)` if another process computes it, `Err(false)`
    /// if the stage is decided by now.
    fn claim(&mut self, index: usize, key: Key) -> Result<Option<Claim>, bool> {
        let Some(lease) = &self.request.lease else {
            return Ok(None);
        };
        let name = self.name(index);
        match self.request.store.claim(&key, lease, &name) {
            Ok(Claimed::Mine(claim)) => {
                // Another process may have finished it since it was looked up.
                if self.may_reuse(index, key) && self.reuse_queued(index, key) {
                    return Err(false);
                }
                Ok(Some(claim))
            }
            Ok(Claimed::Held(holder)) => {
                if !self.states[index].told {
                    self.states[index].told = true;
                    self.tell(&Event::StageWaiting {
                        stage: name,
                        holder: holder.to_string(),
                    });
                }
                Err(true)
            }
            // Computing twice is harmless; a cache without room says so when it keeps.
            Err(_) => Ok(None),
        }
    }

    fn reuse_queued(&mut self, index: usize, key: Key) -> bool {
        let reused = self.reuse(index, key);
        if reused {
            self.queued.remove(&index);
            self.held.remove(&index);
        }
        reused
    }

    fn hold(&mut self, index: usize) {
        self.queued.remove(&index);
        self.held.insert(index);
        self.states[index].phase = Phase::Held;
        self.look_at
            .get_or_insert_with(|| Instant::now() + LOOK_AGAIN);
    }

    /// Looks at everything that waits for a process of somebody else again.
    fn look_again(&mut self) {
        for index in std::mem::take(&mut self.held) {
            let Some(key) = self.states[index].key else {
                continue;
            };
            if self.computing.contains_key(&key) {
                self.held.insert(index);
            } else if !(self.may_reuse(index, key) && self.reuse(index, key)) {
                // Starts once it has room and the claim is free, else is held again.
                self.states[index].phase = Phase::Queued;
                self.queued.insert(index);
            }
        }
    }

    // ---- time ----

    fn next_alarm(&self) -> Option<Instant> {
        let backoff = self
            .backoff
            .iter()
            .filter_map(|&i| match self.states[i].phase {
                Phase::Backoff(until) => Some(until),
                _ => None,
            });
        let deadlines = self
            .running
            .values()
            .filter(|r| !r.timed_out)
            .filter_map(|r| r.deadline);
        let look = self.look_at.filter(|_| !self.held.is_empty());
        backoff.chain(deadlines).chain(look).min()
    }

    fn alarm(&mut self) {
        let now = Instant::now();
        for running in self.running.values_mut() {
            if !running.timed_out && running.deadline.is_some_and(|at| at <= now) {
                running.timed_out = true;
                running.stop.send_replace(Stop::Soon);
            }
        }
        for index in std::mem::take(&mut self.backoff) {
            match self.states[index].phase {
                Phase::Backoff(until) if until > now => {
                    self.backoff.insert(index);
                }
                _ => {
                    self.states[index].phase = Phase::Queued;
                    self.queued.insert(index);
                }
            }
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.look_again();
            if !self.held.is_empty() {
                self.look_at = Some(now + LOOK_AGAIN);
            }
        }
    }

    // ---- what comes back ----

    fn worker_event(&mut self, event: WorkerEvent) {
        let event = match event {
            WorkerEvent::Progress(index, progress) => Event::StageProgress {
                stage: self.name(index),
                progress,
            },
            WorkerEvent::Log(index, level, text) => Event::StageLog {
                stage: self.name(index),
                level,
                text,
            },
        };
        self.tell(&event);
    }

    fn ended(&mut self, index: usize, end: TaskEnd) {
        let Some(running) = self.running.remove(&index) else {
            return;
        };
        if let Some(key) = self.states[index].key {
            self.computing.remove(&key);
        }
        let timed_out = running.timed_out;
        let seconds = running.started.elapsed().as_secs_f64();
        self.room.give_back(running.share);
        self.states[index].seconds += seconds;
        match end {
            TaskEnd::Kept {
                outputs,
                summary,
                peak_memory_bytes,
                exit,
            } => {
                let event = Event::StageFinished {
                    stage: self.name(index),
                    key: self.states[index]
                        .key
                        .map(|k| k.to_string())
                        .unwrap_or_default(),
                    seconds,
                    peak_memory_bytes,
                    exit: exit.clone(),
                };
                let state = &mut self.states[index];
                state.outputs = outputs;
                state.summary = summary;
                state.peak_memory_bytes = peak_memory_bytes;
                state.exit = Some(exit);
                self.computed.extend(self.states[index].key);
                self.succeed(index, Status::Executed);
                self.tell(&event);
            }
            TaskEnd::InputDamaged(producer, damage)
                if self.states[producer].repairs < MOST_REPAIRS =>
            {
                self.send_back(producer, index, &damage);
            }
            TaskEnd::InputDamaged(_, damage) => {
                self.fail(index, Failure::new(damage.to_string()), seconds);
            }
            TaskEnd::Cancelled if timed_out => {
                let limit = self.node(index).policy.timeout_secs.unwrap_or_default();
                let failure =
                    Failure::new(format!("it took longer than its timeout_secs: {limit}"))
                        .hint("raise `timeout_secs` of the stage, or give it more of the machine");
                self.attempt_failed(index, failure, seconds);
            }
            TaskEnd::Cancelled => self.skip(index, "the run was interrupted".to_owned()),
            TaskEnd::Failed {
                failure,
                peak_memory_bytes,
                exit,
            } => {
                let state = &mut self.states[index];
                state.peak_memory_bytes = peak_memory_bytes;
                state.exit = exit;
                self.attempt_failed(index, failure, seconds);
            }
        }
        self.release_held();
    }

    /// Whoever waits for a stage of this run is looked at now.
    fn release_held(&mut self) {
        if !self.held.is_empty() {
            self.look_again();
            if !self.held.is_empty() {
                self.look_at
                    .get_or_insert_with(|| Instant::now() + LOOK_AGAIN);
            }
        }
    }

    /// A result is there: what needed nothing else is ready.
    fn succeed(&mut self, index: usize, status: Status) {
        self.states[index].phase = Phase::Ended(status);
        for dependent in self.request.graph.dependents(index).to_vec() {
            let slots = self.slots(dependent, index);
            let state = &mut self.states[dependent];
            if state.phase == Phase::Waiting {
                state.missing -= slots;
                if state.missing == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }

    /// How many inputs of `dependent` come from `producer`.
    fn slots(&self, dependent: usize, producer: usize) -> usize {
        let needs = self.node(dependent).needs.values();
        needs.filter(|need| need.node == producer).count()
    }

    /// A stage whose kept output is damaged is computed again; what has not
    /// started waits for it.
    fn send_back(&mut self, producer: usize, consumer: usize, damage: &StoreError) {
        let stage = self.name(producer);
        self.states[consumer].phase = Phase::Waiting;
        self.states[consumer].missing = 0;
        for dependent in self.request.graph.dependents(producer).to_vec() {
            let slots = self.slots(dependent, producer);
            let waits = matches!(
                self.states[dependent].phase,
                Phase::Waiting | Phase::Queued | Phase::Held | Phase::Backoff(_)
            );
            if waits {
                for set in [
                    &mut self.ready,
                    &mut self.queued,
                    &mut self.held,
                    &mut self.backoff,
                ] {
                    set.remove(&dependent);
                }
                let state = &mut self.states[dependent];
                state.phase = Phase::Waiting;
                state.missing += slots;
            }
        }
        let state = &mut self.states[producer];
        state.phase = Phase::Waiting;
        state.repairs += 1;
        state.outputs.clear();
        self.ready.insert(producer);
        self.warn(
            stage,
            format!("its kept output is damaged and will be made again: {damage}"),
        );
    }

    /// Tries again where the stage asks for it and nobody wants to stop.
    fn attempt_failed(&mut self, index: usize, failure: Failure, seconds: f64) {
        let policy = self.node(index).policy.clone();
        let failures = self.states[index].failures + 1;
        self.states[index].failures = failures;
        if failures > policy.retries || self.stops_early() {
            self.fail(index, failure, seconds);
            return;
        }
        let factor = 2f64.powi(i32::try_from(failures - 1).unwrap_or(i32::MAX).min(60));
        let wait = Duration::try_from_secs_f64(policy.backoff_secs * factor)
            .unwrap_or(LONGEST_BACKOFF)
            .min(LONGEST_BACKOFF);
        self.states[index].phase = Phase::Backoff(Instant::now() + wait);
        self.backoff.insert(index);
        let event = Event::StageRetrying {
            stage: self.name(index),
            attempt: failures + 1,
            of: policy.retries + 1,
            failure,
            wait_secs: wait.as_secs_f64(),
        };
        self.tell(&event);
    }

    fn fail(&mut self, index: usize, failure: Failure, seconds: f64) {
        let state = &mut self.states[index];
        state.phase = Phase::Ended(Status::Failed);
        state.reason.clone_from(&failure.message);
        let stage = self.name(index);
        if !self.request.keep_going {
            self.failed.get_or_insert_with(|| stage.clone());
        }
        self.tell(&Event::StageFailed {
            stage,
            failure,
            seconds,
        });
        self.skip_dependents(index);
    }

    fn skip(&mut self, index: usize, reason: String) {
        let state = &mut self.states[index];
        state.phase = Phase::Ended(Status::Skipped);
        state.reason.clone_from(&reason);
        let stage = self.name(index);
        self.tell(&Event::StageSkipped { stage, reason });
        self.skip_dependents(index);
    }

    /// Whatever needs a stage without a result has none either.
    fn skip_dependents(&mut self, index: usize) {
        let mut trail = vec![index];
        while let Some(blocker) = trail.pop() {
            for dependent in self.request.graph.dependents(blocker).to_vec() {
                if self.states[dependent].phase == Phase::Waiting {
                    let reason = format!("needs `{}`, which has no result", self.name(blocker));
                    let state = &mut self.states[dependent];
                    state.phase = Phase::Ended(Status::Skipped);
                    state.reason.clone_from(&reason);
                    let stage = self.name(dependent);
                    self.tell(&Event::StageSkipped { stage, reason });
                    trail.push(dependent);
                }
            }
        }
    }

    /// Nothing new is started any more.
    fn skip_rest(&mut self) {
        let reason = match &self.failed {
            _ if self.interrupts > 0 => "the run was interrupted".to_owned(),
            Some(name) => format!("`{name}` failed before it (--keep-going runs it all the same)"),
            None => return,
        };
        let mut rest = std::mem::take(&mut self.queued);
        rest.append(&mut self.held);
        rest.append(&mut self.backoff);
        for index in rest {
            self.skip(index, reason.clone());
        }
    }

    fn warn(&mut self, stage: String, text: String) {
        self.tell(&Event::StageLog {
            stage,
            level: Level::Warn,
            text,
        });
    }

    fn interrupt(&mut self) {
        self.interrupts += 1;
        let how = if self.interrupts == 1 {
            Stop::Soon
        } else {
            Stop::Now
        };
        for running in self.running.values() {
            running.stop.send_replace(how);
        }
        self.tell(&Event::Interrupted {
            times: self.interrupts,
        });
    }

    // ---- the end ----

    fn finish(mut self) -> RunReport {
        let mut stages = Vec::with_capacity(self.states.len());
        for (node, state) in self.request.graph.nodes.iter().zip(&mut self.states) {
            let status = match state.phase {
                Phase::Ended(status) => status,
                _ => Status::Skipped,
            };
            if status == Status::Skipped && state.reason.is_empty() {
                "the run was interrupted".clone_into(&mut state.reason);
            }
            stages.push(StageReport {
                stage: node.name.clone(),
                variants: node.variants.clone(),
                kind: node.kind,
                status,
                key: state.key.map(|k| k.to_string()),
                reason: std::mem::take(&mut state.reason),
                seconds: state.seconds,
                peak_memory_bytes: state.peak_memory_bytes,
                exit: state.exit.take(),
                outputs: folders(&self.request.store, &state.outputs),
                summary: std::mem::take(&mut state.summary),
            });
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let mut report = RunReport {
            run_id: self.request.run_id.clone(),
            pipeline: self.request.pipeline.clone(),
            pipeline_path: self.request.pipeline_path.clone(),
            stages,
            interrupted: false,
            seconds,
            environment: self.request.provenance.clone(),
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

/// Where the outputs lie, laid out if they are not.
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

/// Where a stage's log of a run is.
pub(super) fn log_path(run_dir: &std::path::Path, stage: &str) -> PathBuf {
    run_dir.join(format!("{stage}.log"))
}
