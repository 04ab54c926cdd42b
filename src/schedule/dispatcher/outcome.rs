//! Handles events and ends of stages, and what follows from them for other stages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::state::NodePhase;
use super::{Dispatcher, MAX_BACKOFF, MAX_REPAIRS, MAX_WARNINGS, POLL_INTERVAL};
use crate::kind::Need;
use crate::protocol::{Failure, Level};
use crate::run::{Event, Status};
use crate::schedule::task::TaskEnd;
use crate::schedule::{Stop, WorkerEvent};
use crate::store::StoreError;

impl Dispatcher<'_, '_> {
    pub(super) fn worker_event(&mut self, event: WorkerEvent) {
        let event = match event {
            WorkerEvent::Progress(index, progress) => Event::StageProgress {
                stage: self.name(index),
                progress,
            },
            WorkerEvent::Log(index, Level::Warn, text) => return self.warn(index, text),
            WorkerEvent::Log(index, level, text) => Event::StageLog {
                stage: self.name(index),
                level,
                text,
            },
        };
        self.emit(&event);
    }

    pub(super) fn ended(&mut self, index: usize, end: TaskEnd) {
        let Some(running) = self.running.remove(&index) else {
            return;
        };
        if let Some(key) = self.states[index].key {
            self.computing.remove(&key);
        }
        let timed_out = running.timed_out;
        let seconds = running.started.elapsed().as_secs_f64();
        self.resources.give_back(running.allocation);
        self.states[index].seconds += seconds;
        match end {
            TaskEnd::Kept {
                outputs,
                figures,
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
                    figures: figures.clone(),
                };
                let state = &mut self.states[index];
                state.outputs = outputs;
                state.figures = figures;
                state.peak_memory_bytes = peak_memory_bytes;
                state.exit = Some(exit);
                self.computed.extend(self.states[index].key);
                self.succeed(index, Status::Executed);
                self.emit(&event);
            }
            TaskEnd::InputDamaged(producer, damage) => {
                self.input_damaged(producer, index, &running.repairs, &damage);
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
                may_pass,
                peak_memory_bytes,
                exit,
            } => {
                let state = &mut self.states[index];
                state.peak_memory_bytes = peak_memory_bytes;
                state.exit = exit;
                if may_pass {
                    self.attempt_failed(index, failure, seconds);
                } else {
                    self.fail(index, failure, seconds);
                }
            }
        }
        self.release_held();
    }

    /// Looks at once at the stages that wait for another stage of this run.
    pub(super) fn release_held(&mut self) {
        if !self.held.is_empty() {
            self.poll_held();
            if !self.held.is_empty() {
                self.poll_at
                    .get_or_insert_with(|| Instant::now() + POLL_INTERVAL);
            }
        }
    }

    /// Records that a stage has a result; dependents that need nothing else become ready.
    pub(super) fn succeed(&mut self, index: usize, status: Status) {
        self.states[index].phase = NodePhase::Ended(status);
        for at in 0..self.request.graph.dependents(index).len() {
            let dependent = self.request.graph.dependents(index)[at];
            let slots = self.request.graph.slots(index)[at];
            let state = &mut self.states[dependent];
            if state.phase == NodePhase::Waiting {
                state.missing = state.missing.saturating_sub(slots);
                if state.missing == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }

    /// A consumer found the cached output of `producer` damaged. It is recomputed, unless
    /// that has happened since the consumer started (`repairs` is the state at that time):
    /// several consumers may find the same damage.
    fn input_damaged(
        &mut self,
        producer: usize,
        consumer: usize,
        repairs: &BTreeMap<usize, u32>,
        damage: &StoreError,
    ) {
        let state = &self.states[producer];
        let known = repairs.get(&producer).copied().unwrap_or(state.repairs);
        match state.phase {
            NodePhase::Ended(Status::Executed | Status::Cached) if state.repairs == known => {
                if known >= MAX_REPAIRS {
                    self.fail(consumer, Failure::new(damage.to_string()), 0.0);
                    return;
                }
                self.recompute(producer, damage);
            }
            NodePhase::Ended(Status::Failed | Status::Skipped) => {
                let reason = format!("needs `{}`, which has no result", self.name(producer));
                self.skip(consumer, reason);
                return;
            }
            _ => {}
        }
        self.requeue(consumer);
    }

    /// Has a stage recomputed; dependents that have not started wait for it.
    fn recompute(&mut self, producer: usize, damage: &StoreError) {
        let state = &mut self.states[producer];
        state.repairs += 1;
        state.outputs.clear();
        self.requeue(producer);
        for dependent in self.request.graph.dependents(producer).to_vec() {
            let waits = matches!(
                self.states[dependent].phase,
                NodePhase::Waiting | NodePhase::Queued | NodePhase::Held | NodePhase::Backoff(_)
            );
            if waits {
                self.requeue(dependent);
            }
        }
        self.warn(
            producer,
            format!("its cached output is damaged and will be recomputed: {damage}"),
        );
    }

    /// Has a stage decided anew once all its inputs have a result, since they may have
    /// changed meanwhile.
    pub(super) fn requeue(&mut self, index: usize) {
        for set in [
            &mut self.ready,
            &mut self.queued,
            &mut self.held,
            &mut self.backoff,
        ] {
            set.remove(&index);
        }
        let lacks = |need: &&Need<usize>| {
            !matches!(
                self.states[need.from].phase,
                NodePhase::Ended(Status::Executed | Status::Cached)
            )
        };
        let missing = self.node(index).needs.values().filter(lacks).count();
        let state = &mut self.states[index];
        state.phase = NodePhase::Waiting;
        state.missing = missing;
        if missing == 0 {
            self.ready.insert(index);
        }
    }

    /// Retries if the stage has retries left and the run is not stopping.
    pub(super) fn attempt_failed(&mut self, index: usize, failure: Failure, seconds: f64) {
        let retry = self.node(index).policy.retry;
        let failures = self.states[index].failures + 1;
        self.states[index].failures = failures;
        let Some(retry) = retry.filter(|r| failures <= r.times && !self.stops_early()) else {
            self.fail(index, failure, seconds);
            return;
        };
        let factor = 2f64.powi(i32::try_from(failures - 1).unwrap_or(i32::MAX).min(60));
        let wait = Duration::try_from_secs_f64(retry.backoff_secs * factor)
            .unwrap_or(MAX_BACKOFF)
            .min(MAX_BACKOFF);
        self.states[index].phase = NodePhase::Backoff(Instant::now() + wait);
        self.backoff.insert(index);
        let event = Event::StageRetrying {
            stage: self.name(index),
            attempt: failures + 1,
            of: retry.times + 1,
            failure,
            wait_secs: wait.as_secs_f64(),
        };
        self.emit(&event);
    }

    pub(super) fn fail(&mut self, index: usize, failure: Failure, seconds: f64) {
        let state = &mut self.states[index];
        state.phase = NodePhase::Ended(Status::Failed);
        state.reason.clone_from(&failure.message);
        let stage = self.name(index);
        if !self.request.keep_going {
            self.failed.get_or_insert_with(|| stage.clone());
        }
        self.emit(&Event::StageFailed {
            stage,
            failure,
            seconds,
        });
        self.skip_dependents(index);
    }

    pub(super) fn skip(&mut self, index: usize, reason: String) {
        let state = &mut self.states[index];
        state.phase = NodePhase::Ended(Status::Skipped);
        state.reason.clone_from(&reason);
        let stage = self.name(index);
        self.emit(&Event::StageSkipped { stage, reason });
        self.skip_dependents(index);
    }

    /// Skips everything that depends on a stage without a result.
    pub(super) fn skip_dependents(&mut self, index: usize) {
        let mut trail = vec![index];
        while let Some(blocker) = trail.pop() {
            for dependent in self.request.graph.dependents(blocker).to_vec() {
                if self.states[dependent].phase == NodePhase::Waiting {
                    let reason = format!("needs `{}`, which has no result", self.name(blocker));
                    let state = &mut self.states[dependent];
                    state.phase = NodePhase::Ended(Status::Skipped);
                    state.reason.clone_from(&reason);
                    let stage = self.name(dependent);
                    self.emit(&Event::StageSkipped { stage, reason });
                    trail.push(dependent);
                }
            }
        }
    }

    /// Skips all stages that have not started, when the run stops early.
    pub(super) fn skip_rest(&mut self) {
        let reason = match &self.failed {
            _ if self.interrupts > 0 => "the run was interrupted".to_owned(),
            Some(name) => format!("`{name}` failed before it (--keep-going runs it anyway)"),
            None => return,
        };
        let mut rest = std::mem::take(&mut self.queued);
        rest.append(&mut self.held);
        rest.append(&mut self.backoff);
        for index in rest {
            self.skip(index, reason.clone());
        }
    }

    /// Reports something that the user should know, now and in the final report.
    pub(super) fn warn(&mut self, index: usize, text: String) {
        let stage = self.name(index);
        let warnings = &mut self.states[index].warnings;
        if warnings.len() < MAX_WARNINGS {
            warnings.push(text.clone());
        }
        self.emit(&Event::StageLog {
            stage,
            level: Level::Warn,
            text,
        });
    }

    pub(super) fn interrupt(&mut self) {
        self.interrupts += 1;
        let how = if self.interrupts == 1 {
            Stop::Soon
        } else {
            Stop::Now
        };
        for running in self.running.values() {
            running.stop.send_replace(how);
        }
        self.emit(&Event::Interrupted {
            times: self.interrupts,
        });
    }
}
