//! [`RunState`]: how far a run is according to its events, stage by stage.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{Event, Line};
use crate::protocol::{Figure, Progress};
use crate::text::duration;

/// Where a stage is between waiting and its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StagePhase {
    /// Its inputs are not ready, or the machine has no room for it.
    #[default]
    Waiting,
    /// Another process is computing the same result.
    WaitingForAnother,
    /// It failed and will be retried.
    Retrying,
    /// Its process runs.
    Running,
    /// Its result was in the cache.
    Cached,
    /// It was computed.
    Executed,
    /// It could not be computed.
    Failed,
    /// It was not run.
    Skipped,
    /// It ran when the run was cut: power, `kill -9`.
    Cut,
}

impl StagePhase {
    /// Whether the stage has ended in this run.
    pub fn is_end(self) -> bool {
        matches!(
            self,
            Self::Cached | Self::Executed | Self::Failed | Self::Skipped | Self::Cut
        )
    }
}

/// A stage of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageState {
    /// Its name in the run: `train`, `train@wo-foresight`.
    pub stage: String,
    /// Where it is.
    #[serde(rename = "state")]
    pub phase: StagePhase,
    /// Its key, if its inputs were known.
    pub key: Option<String>,
    /// Why it runs, failed, was skipped or waits.
    pub reason: Option<String>,
    /// What to do about a failure.
    pub hint: Option<String>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// When its process was started, the last time.
    pub started: Option<Timestamp>,
    /// How long it took; none while it runs.
    pub seconds: Option<f64>,
    /// Highest resident memory of its process.
    pub peak_memory_bytes: Option<u64>,
    /// The retry that runs or is next, from 1; none at the first attempt.
    pub attempt: Option<u32>,
    /// Figures of its result, if it was computed in this run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
}

/// The state of a run according to its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// Name of the pipeline.
    pub pipeline: Option<String>,
    /// In the order in which they may run.
    pub stages: Vec<StageState>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When the last event happened.
    pub last: Option<Timestamp>,
    /// Whether a person asked to stop.
    pub interrupted: bool,
    /// Its end: how long it took, and whether every stage has a result.
    pub finished: Option<(f64, bool)>,
    index: HashMap<String, usize>,
}

impl RunState {
    /// Applies one event.
    pub fn apply(&mut self, line: &Line) {
        let time = line.time;
        self.last = time.or(self.last);
        self.started = self.started.or(time);
        match &line.event {
            Event::RunStarted {
                pipeline, stages, ..
            } => {
                self.pipeline = some(pipeline);
                for stage in stages {
                    self.stage(stage);
                }
            }
            Event::Interrupted { .. } => self.interrupted = true,
            Event::RunFinished { seconds, ok } => self.finished = Some((*seconds, *ok)),
            event => {
                if let Some(name) = event.stage() {
                    self.stage(name).apply(event, time);
                }
            }
        }
    }

    /// The state of the stage of that name, if the run has it.
    pub fn find(&self, stage: &str) -> Option<&StageState> {
        self.index.get(stage).map(|&index| &self.stages[index])
    }

    /// Marks the stages that had not ended when the run's process died.
    pub fn cut(&mut self) {
        for stage in &mut self.stages {
            match stage.phase {
                StagePhase::Waiting => {
                    stage.phase = StagePhase::Skipped;
                    stage.reason = Some("the run was cut before".to_owned());
                }
                phase if !phase.is_end() => {
                    stage.phase = StagePhase::Cut;
                    stage.reason = Some("the run was cut meanwhile".to_owned());
                }
                _ => {}
            }
        }
    }

    fn stage(&mut self, name: &str) -> &mut StageState {
        let index = match self.index.get(name) {
            Some(&index) => index,
            None => {
                self.index.insert(name.to_owned(), self.stages.len());
                self.stages.push(StageState {
                    stage: name.to_owned(),
                    ..StageState::default()
                });
                self.stages.len() - 1
            }
        };
        &mut self.stages[index]
    }
}

impl StageState {
    /// Applies an event of this stage.
    fn apply(&mut self, event: &Event, time: Option<Timestamp>) {
        match event {
            Event::StageCached { key, .. } => {
                self.note_key(key);
                self.end(StagePhase::Cached);
                self.reason = None;
            }
            Event::StageStarted { key, reason, .. } => {
                self.note_key(key);
                self.phase = StagePhase::Running;
                self.started = time;
                self.progress = None;
                self.reason = some(reason);
                self.hint = None;
            }
            Event::StageProgress { progress, .. } => self.progress = Some(progress.clone()),
            Event::StageWaiting { holder, .. } => {
                self.phase = StagePhase::WaitingForAnother;
                self.reason = some(holder);
            }
            Event::StageRetrying {
                attempt,
                of,
                failure,
                wait_secs,
                ..
            } => {
                self.phase = StagePhase::Retrying;
                self.progress = None;
                self.attempt = Some(*attempt);
                let wait = duration(*wait_secs);
                self.reason = Some(format!("attempt {attempt} of {of} after {wait}: {failure}"));
            }
            Event::StageFinished {
                key,
                seconds,
                peak_memory_bytes,
                figures,
                ..
            } => {
                self.note_key(key);
                self.end(StagePhase::Executed);
                self.seconds = Some(*seconds);
                self.peak_memory_bytes = Some(*peak_memory_bytes).filter(|bytes| *bytes > 0);
                self.figures.clone_from(figures);
            }
            Event::StageFailed {
                failure, seconds, ..
            } => {
                self.end(StagePhase::Failed);
                self.seconds = Some(*seconds);
                self.reason = some(&failure.message);
                self.hint.clone_from(&failure.hint);
            }
            Event::StageSkipped { reason, .. } => {
                self.end(StagePhase::Skipped);
                self.reason = some(reason);
            }
            Event::StageLog { .. }
            | Event::RunStarted { .. }
            | Event::Interrupted { .. }
            | Event::RunFinished { .. } => {}
        }
    }

    fn note_key(&mut self, key: &str) {
        self.key = some(key).or(self.key.take());
    }

    fn end(&mut self, phase: StagePhase) {
        self.phase = phase;
        self.progress = None;
        self.peak_memory_bytes = None;
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(event: &Value) -> Line {
        serde_json::from_value(event.clone()).unwrap()
    }

    fn state(events: &[Value]) -> RunState {
        let mut state = RunState::default();
        for event in events {
            state.apply(&line(event));
        }
        state
    }

    #[test]
    fn stages_follow_their_events() {
        use crate::protocol::Failure;
        let stage = |name: &str| name.to_owned();
        let events = [
            Event::RunStarted {
                run_id: "r".into(),
                pipeline: "p".into(),
                stages: ["a", "b", "c", "d"].map(stage).to_vec(),
            },
            Event::StageCached {
                stage: stage("a"),
                key: "11".into(),
            },
            Event::StageProgress {
                stage: stage("b"),
                progress: Progress {
                    phase: "rolling out".into(),
                    done: 3,
                    total: Some(9),
                    unit: "queries".into(),
                    detail: String::new(),
                },
            },
            Event::StageFailed {
                stage: stage("c"),
                failure: Failure::new("out of memory").hint("a smaller width"),
                seconds: 1.5,
            },
            Event::StageSkipped {
                stage: stage("d"),
                reason: "needs `c`".into(),
            },
        ];
        let events = events.map(|event| serde_json::to_value(event).unwrap());
        let state = state(&events);
        let phases: Vec<StagePhase> = state.stages.iter().map(|s| s.phase).collect();
        assert_eq!(
            phases,
            [
                StagePhase::Cached,
                StagePhase::Waiting,
                StagePhase::Failed,
                StagePhase::Skipped
            ]
        );
        assert_eq!(state.pipeline.as_deref(), Some("p"));
        assert_eq!(state.stages[0].key.as_deref(), Some("11"));
        assert_eq!(state.stages[1].progress.as_ref().unwrap().total, Some(9));
        assert_eq!(state.stages[2].reason.as_deref(), Some("out of memory"));
        assert_eq!(state.stages[2].hint.as_deref(), Some("a smaller width"));
        assert_eq!(state.stages[2].seconds, Some(1.5));
    }

    #[test]
    fn a_stage_is_retried_and_then_waits_for_another() {
        let started = json!({"time": "2026-01-02T03:04:05Z", "event": "stage_started", "stage": "a", "key": "k", "reason": "new"});
        let retrying = json!({"event": "stage_retrying", "stage": "a", "attempt": 1, "of": 3, "failure": {"message": "no answer", "hint": null}, "wait_secs": 5.0});
        let mut state = state(&[started, retrying]);
        let stage = state.find("a").unwrap();
        assert_eq!(
            (stage.phase, stage.attempt),
            (StagePhase::Retrying, Some(1))
        );
        insta::assert_snapshot!(stage.reason.as_deref().unwrap(), @"attempt 1 of 3 after 5.00s: no answer");

        state.apply(&line(
            &json!({"event": "stage_waiting", "stage": "a", "holder": "run 1a2b on box"}),
        ));
        let stage = state.find("a").unwrap();
        assert_eq!(stage.phase, StagePhase::WaitingForAnother);
        assert_eq!(stage.reason.as_deref(), Some("run 1a2b on box"));
        state.cut();
        assert_eq!(state.find("a").unwrap().phase, StagePhase::Cut);
    }
}
