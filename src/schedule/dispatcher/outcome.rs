//! What comes back from stages, and what follows from it for the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::state::Phase;
use super::{Dispatcher, LONGEST_BACKOFF, LOOK_AGAIN, MOST_REPAIRS, MOST_WARNINGS};
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
        self.tell(&event);
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
        self.room.give_back(running.share);
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
                self.tell(&event);
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

    /// Whoever waits for a stage of this run is looked at now.
    pub(super) fn release_held(&mut self) {
        if !self.held.is_empty() {
            self.look_again();
            if !self.held.is_empty() {
                self.look_at
                    .get_or_insert_with(|| Instant::now() + LOOK_AGAIN);
            }
        }
    }

    /// A result is there: what needed nothing else is ready.
    pub(super) fn succeed(&mut self, index: usize, status: Status) {
        self.states[index].phase = Phase::Ended(status);
        for at in 0..self.request.graph.dependents(index).len() {
            let dependent = self.request.graph.dependents(index)[at];
            let slots = self.request.graph.slots(index)[at];
            let state = &mut self.states[dependent];
            if state.phase == Phase::Waiting {
                state.missing = state.missing.saturating_sub(slots);
                if state.missing == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }

    /// The kept output of `producer` is damaged, says a stage that takes it. It is
    /// computed again, unless it is being or has been since that stage started
    /// (`repairs`, then): of several stages beside each other, each finds it.
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
            Phase::Ended(Status::Executed | Status::Cached) if state.repairs == known => {
                if known >= MOST_REPAIRS {
                    self.fail(consumer, Failure::new(damage.to_string()), 0.0);
                    return;
                }
                self.send_back(producer, damage);
            }
            Phase::Ended(Status::Failed | Status::Skipped) => {
                let reason = format!("needs `{}`, which has no result", self.name(producer));
                self.skip(consumer, reason);
                return;
            }
            _ => {}
        }
        self.requeue(consumer);
    }

    /// A stage is computed again; what needs it and has not started waits for it.
    fn send_back(&mut self, producer: usize, damage: &StoreError) {
        let state = &mut self.states[producer];
        state.repairs += 1;
        state.outputs.clear();
        self.requeue(producer);
        for dependent in self.request.graph.dependents(producer).to_vec() {
            let waits = matches!(
                self.states[dependent].phase,
                Phase::Waiting | Phase::Queued | Phase::Held | Phase::Backoff(_)
            );
            if waits {
                self.requeue(dependent);
            }
        }
        self.warn(
            producer,
            format!("its kept output is damaged and will be made again: {damage}"),
        );
    }

    /// To be decided anew, once all its inputs have a result: whatever was known of
    /// it before may have changed meanwhile.
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
                Phase::Ended(Status::Executed | Status::Cached)
            )
        };
        let missing = self.node(index).needs.values().filter(lacks).count();
        let state = &mut self.states[index];
        state.phase = Phase::Waiting;
        state.missing = missing;
        if missing == 0 {
            self.ready.insert(index);
        }
    }

    /// Tries again where the stage asks for it and nobody wants to stop.
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
            .unwrap_or(LONGEST_BACKOFF)
            .min(LONGEST_BACKOFF);
        self.states[index].phase = Phase::Backoff(Instant::now() + wait);
        self.backoff.insert(index);
        let event = Event::StageRetrying {
            stage: self.name(index),
            attempt: failures + 1,
            of: retry.times + 1,
            failure,
            wait_secs: wait.as_secs_f64(),
        };
        self.tell(&event);
    }

    pub(super) fn fail(&mut self, index: usize, failure: Failure, seconds: f64) {
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

    pub(super) fn skip(&mut self, index: usize, reason: String) {
        let state = &mut self.states[index];
        state.phase = Phase::Ended(Status::Skipped);
        state.reason.clone_from(&reason);
        let stage = self.name(index);
        self.tell(&Event::StageSkipped { stage, reason });
        self.skip_dependents(index);
    }

    /// Whatever needs a stage without a result has none either.
    pub(super) fn skip_dependents(&mut self, index: usize) {
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
    pub(super) fn skip_rest(&mut self) {
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

    /// Tells of something that a person should know, now and at the end.
    pub(super) fn warn(&mut self, index: usize, text: String) {
        let stage = self.name(index);
        let warnings = &mut self.states[index].warnings;
        if warnings.len() < MOST_WARNINGS {
            warnings.push(text.clone());
        }
        self.tell(&Event::StageLog {
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
        self.tell(&Event::Interrupted {
            times: self.interrupts,
        });
    }
}
