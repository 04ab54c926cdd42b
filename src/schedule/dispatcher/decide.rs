//! Deciding: what is reused, what is queued, what starts and what is left to
//! another process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::state::{Phase, Running};
use super::{Dispatcher, LOOK_AGAIN};
use crate::plan::Fingerprint;
use crate::protocol::Failure;
use crate::run::{Event, Status, figures_of};
use crate::schedule::Stop;
use crate::schedule::task::{self, Task};
use crate::store::log_name;
use crate::store::{Claim, Claimed, ContentHash, Key};

impl Dispatcher<'_, '_> {
    /// Decides every stage whose inputs are known, and starts what has room.
    pub(super) fn advance(&mut self) {
        loop {
            while let Some(index) = self.ready.pop_first() {
                self.decide(index);
            }
            if self.stops_early() {
                self.skip_rest();
                return;
            }
            let queued: Vec<usize> = if self.room.is_full() {
                Vec::new()
            } else {
                self.queued.iter().copied().collect()
            };
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
            // Without it the key would be that of another stage.
            let what = format!("the result that fills its input `{slot}` lacks that output");
            let failure = Failure::new(what).hint(
                "a record of an earlier build may be in the way: `--force` the stage that makes it",
            );
            self.fail(index, failure, 0.0);
            return;
        }
        let fingerprint = Fingerprint::new(self.node(index), &inputs);
        let key = fingerprint.key();
        let state = &mut self.states[index];
        state.key = Some(key);
        state.preimage = fingerprint.preimage();
        // Before it is looked up: what a live run lists is not collected.
        if let Some(lease) = &self.request.lease
            && let Err(e) = lease.uses(&key)
        {
            self.warn(
                index,
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
    pub(super) fn may_reuse(&self, index: usize, key: Key) -> bool {
        !self.request.forced[index] || self.computed.contains(&key)
    }

    /// Takes what is kept under the key, if it is there.
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
        self.tell(&event);
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

    /// Starts a queued stage, if there is room and nobody computes the same.
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
                let tree = self.states[need.from].outputs.get(&need.output)?;
                Some((slot.clone(), (need.from, tree.clone())))
            })
            .collect();
        let repairs = node
            .needs
            .values()
            .map(|need| (need.from, self.states[need.from].repairs))
            .collect();
        let reason = if self.states[index].repairs > 0 {
            "its kept output was damaged".to_owned()
        } else if self.request.forced[index] {
            "asked for by --force or --from".to_owned()
        } else {
            (self.request.why)(&node, &self.states[index].preimage)
        };
        let log = self.request.run_dir.path().join(log_name(&node.name));
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
            reason: reason.clone(),
            // A repetition goes on from what the attempt before it has kept.
            fresh: self.request.forced[index] && self.states[index].failures == 0,
            inputs,
            gpus: share.gpus.clone(),
            store: self.request.store.clone(),
            claim,
            log,
            pipeline: self.request.pipeline.clone(),
            run_id: self.request.run_id.clone(),
            origin: self.request.origin.clone(),
            hash_source: Arc::clone(&self.request.hash_source),
            may_start: Arc::clone(&self.request.may_start),
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
            repairs,
        };
        self.running.insert(index, running);
    }

    /// A claim on the key. `Err(true)` if another process computes it, `Err(false)`
    /// if the stage is decided by now.
    pub(super) fn claim(&mut self, index: usize, key: Key) -> Result<Option<Claim>, bool> {
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
        self.states[index].phase = Phase::Held;
        self.look_at
            .get_or_insert_with(|| Instant::now() + LOOK_AGAIN);
    }

    /// Looks at everything that waits for a process of somebody else again.
    pub(super) fn look_again(&mut self) {
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
}
