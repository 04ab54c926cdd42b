//! Decides what is reused, what is queued, what starts and what is left to
//! another process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::state::{NodePhase, Running};
use super::{Dispatcher, POLL_INTERVAL};
use crate::plan::Fingerprint;
use crate::protocol::Failure;
use crate::run::{Event, Status, figures_of};
use crate::schedule::Stop;
use crate::schedule::task::{self, Task};
use crate::store::log_name;
use crate::store::{Claim, Claimed, ContentHash, Key, Results};

impl Dispatcher<'_, '_> {
    /// Decides every stage whose inputs are known, and starts those that resources allow.
    pub(super) fn advance(&mut self) {
        loop {
            while let Some(index) = self.ready.pop_first() {
                self.decide(index);
            }
            if self.stops_early() {
                self.skip_rest();
                return;
            }
            let queued: Vec<usize> = if self.resources.is_full() {
                Vec::new()
            } else {
                self.queued.iter().copied().collect()
            };
            for index in queued {
                if self.resources.is_full() {
                    break;
                }
                self.start(index);
            }
            // Empty unless another process has finished a stage meanwhile.
            if self.ready.is_empty() {
                return;
            }
        }
    }

    pub(super) fn stops_early(&self) -> bool {
        self.interrupts > 0 || self.failed.is_some()
    }

    /// Reuses a stage whose inputs are known, or queues it.
    pub(super) fn decide(&mut self, index: usize) {
        let inputs = self.input_hashes(index);
        if let Some(slot) = self
            .node(index)
            .needs
            .keys()
            .find(|s| !inputs.contains_key(*s))
        {
            // Without it this stage would get the key of another one.
            let what = format!("the result that fills its input `{slot}` lacks that output");
            let failure = Failure::new(what)
                .hint("the record may be from an earlier build: `--force` the stage that makes it");
            self.fail(index, failure, 0.0);
            return;
        }
        let fingerprint = Fingerprint::new(self.node(index), &inputs);
        let key = fingerprint.key();
        let state = &mut self.states[index];
        state.key = Some(key);
        state.preimage = fingerprint.preimage();
        // Before the lookup: what a live run lists is not garbage-collected.
        if let Some(lease) = &self.request.lease
            && let Err(e) = lease.uses(&key)
        {
            self.warn(
                index,
                format!("its use could not be recorded, so a garbage collection may delete its result: {e}"),
            );
        }
        if self.may_reuse(index, key) && self.reuse(index, key) {
            return;
        }
        self.states[index].phase = NodePhase::Queued;
        self.queued.insert(index);
    }

    /// A forced stage runs, unless another one of this run has computed the same key.
    pub(super) fn may_reuse(&self, index: usize, key: Key) -> bool {
        !self.request.forced[index] || self.computed.contains(&key)
    }

    /// Reuses the result in the cache, if there is one.
    pub(super) fn reuse(&mut self, index: usize, key: Key) -> bool {
        let Some(record) = self.request.store.lookup(&key) else {
            return false;
        };
        let state = &mut self.states[index];
        state.outputs = record.outputs;
        state.figures = figures_of(record.figures);
        state.reason = "same key".to_owned();
        let event = Event::StageCached {
            stage: self.name(index),
            key: key.to_string(),
        };
        self.succeed(index, Status::Cached);
        self.emit(&event);
        true
    }

    pub(super) fn input_hashes(&self, index: usize) -> BTreeMap<String, ContentHash> {
        let needs = self.node(index).needs.iter();
        needs
            .filter_map(|(slot, need)| {
                let tree = self.states[need.from].outputs.get(&need.output)?;
                Some((slot.clone(), tree.hash))
            })
            .collect()
    }

    /// Starts a queued stage, if there are resources and nothing else computes its key.
    pub(super) fn start(&mut self, index: usize) {
        let Some(key) = self.states[index].key else {
            return;
        };
        if self.computing.contains_key(&key) {
            // A stage under another name: its result will be this one's.
            self.hold(index);
            return;
        }
        let demand = self.node(index).demand;
        let Some(allocation) = self.resources.take(&demand) else {
            return;
        };
        let claim = match self.claim(index, key) {
            Ok(claim) => claim,
            Err(waits) => {
                self.resources.give_back(allocation);
                if waits {
                    self.hold(index);
                }
                return;
            }
        };
        self.queued.remove(&index);
        let now = Instant::now();
        let node = self.node(index);
        let deadline = node
            .policy
            .timeout_secs
            .and_then(|secs| now.checked_add(Duration::try_from_secs_f64(secs).ok()?));
        let repairs = node
            .needs
            .values()
            .map(|need| (need.from, self.states[need.from].repairs))
            .collect();
        let reason = self.reason(index);
        self.states[index].reason.clone_from(&reason);
        self.emit(&Event::StageStarted {
            stage: self.name(index),
            key: key.to_string(),
            reason,
            preimage: self.states[index].preimage.clone(),
        });
        let stop = self.spawn(self.task(index, key, allocation.gpus.clone(), claim));
        self.states[index].phase = NodePhase::Running;
        self.computing.insert(key, index);
        let running = Running {
            started: now,
            allocation,
            stop,
            deadline,
            timed_out: false,
            repairs,
        };
        self.running.insert(index, running);
    }

    /// Why a stage that is about to start has to run.
    fn reason(&self, index: usize) -> String {
        if self.states[index].repairs > 0 {
            "its cached output was damaged".to_owned()
        } else if self.request.forced[index] {
            "asked for by --force or --from".to_owned()
        } else {
            (self.request.why)(self.node(index), &self.states[index].preimage)
        }
    }

    fn task(&self, index: usize, key: Key, gpus: Vec<u32>, claim: Option<Claim>) -> Task {
        let node = self.node(index).clone();
        let state = &self.states[index];
        let inputs = node
            .needs
            .iter()
            .filter_map(|(slot, need)| {
                let tree = self.states[need.from].outputs.get(&need.output)?;
                Some((slot.clone(), (need.from, tree.clone())))
            })
            .collect();
        Task {
            index,
            key,
            preimage: state.preimage.clone(),
            reason: state.reason.clone(),
            // A retry resumes from what the attempt before it has kept.
            fresh: self.request.forced[index] && state.failures == 0,
            inputs,
            gpus,
            store: self.request.store.clone(),
            claim,
            log: self.request.run_dir.path().join(log_name(&node.name)),
            pipeline: self.request.pipeline.clone(),
            run_id: self.request.run_id.clone(),
            origin: self.request.origin.clone(),
            hash_source: Arc::clone(&self.request.hash_source),
            may_start: Arc::clone(&self.request.may_start),
            node,
        }
    }

    /// Runs a task, which sends its end over the channel; the answer stops it.
    fn spawn(&self, task: Task) -> watch::Sender<Stop> {
        let index = task.index;
        let (stop, stopped) = watch::channel(Stop::No);
        let work = task::run(
            task,
            Arc::clone(&self.launcher),
            self.worker_events.clone(),
            stopped,
        );
        let ends = self.task_ends.clone();
        tokio::spawn(async move {
            // In a task of its own, so that a panic there cannot leave the run waiting forever.
            let end = tokio::spawn(work).await.unwrap_or_else(|e| {
                Failure::new(format!("the stage's process was lost: {e}")).into()
            });
            let _ = ends.send((index, end));
        });
        stop
    }

    /// Claims the key. `Err(true)` if another process is computing it, `Err(false)` if
    /// the stage has been decided meanwhile.
    pub(super) fn claim(&mut self, index: usize, key: Key) -> Result<Option<Claim>, bool> {
        let Some(lease) = &self.request.lease else {
            return Ok(None);
        };
        let name = self.name(index);
        match self.request.store.claim(&key, lease, &name) {
            Ok(Claimed::Mine(claim)) => {
                // Another process may have finished it since the lookup.
                if self.may_reuse(index, key) && self.reuse_queued(index, key) {
                    return Err(false);
                }
                Ok(Some(claim))
            }
            Ok(Claimed::Held(holder)) => {
                if !self.states[index].wait_reported {
                    self.states[index].wait_reported = true;
                    self.emit(&Event::StageWaiting {
                        stage: name,
                        holder: holder.to_string(),
                    });
                }
                Err(true)
            }
            // Computing twice is harmless; a full disk shows when the result is stored.
            Err(_) => Ok(None),
        }
    }

    pub(super) fn reuse_queued(&mut self, index: usize, key: Key) -> bool {
        let reused = self.reuse(index, key);
        if reused {
            self.queued.remove(&index);
            self.held.remove(&index);
        }
        reused
    }

    pub(super) fn hold(&mut self, index: usize) {
        self.queued.remove(&index);
        self.held.insert(index);
        self.states[index].phase = NodePhase::Held;
        self.poll_at
            .get_or_insert_with(|| Instant::now() + POLL_INTERVAL);
    }

    /// Checks whether stages that wait for another computation of their key can go on.
    pub(super) fn poll_held(&mut self) {
        for index in std::mem::take(&mut self.held) {
            let Some(key) = self.states[index].key else {
                continue;
            };
            if self.computing.contains_key(&key) {
                self.held.insert(index);
            } else if !(self.may_reuse(index, key) && self.reuse(index, key)) {
                // Starts once there are resources and the claim is free, else is held again.
                self.states[index].phase = NodePhase::Queued;
                self.queued.insert(index);
            }
        }
    }
}
