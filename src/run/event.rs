//! [`Event`]: what happens in a run. The console, `events.jsonl` and the report are
//! subscribers of it, and a run that is read back gives the same events again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Exit;
use super::figures;
use crate::protocol::{Failure, Figure, Level, Progress};

/// Something that happened. `stage` is a stage's name in the run.
///
/// A field that an older Genius did not write has its default: its lines are read too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    RunStarted {
        /// Its id.
        #[serde(default)]
        run_id: String,
        /// Name of the pipeline.
        #[serde(default)]
        pipeline: String,
        /// Names of the stages, in the order in which they may run.
        stages: Vec<String>,
    },
    /// The stage's result was in the cache.
    StageCached {
        /// Stage.
        stage: String,
        /// Its key.
        #[serde(default)]
        key: String,
    },
    /// A stage's process was started.
    StageStarted {
        /// Stage.
        stage: String,
        /// Its key.
        #[serde(default)]
        key: String,
        /// Why it runs.
        #[serde(default)]
        reason: String,
        /// What the key was hashed from.
        #[serde(default)]
        preimage: Value,
    },
    /// Another process is computing the same result.
    StageWaiting {
        /// Stage.
        stage: String,
        /// That process.
        #[serde(default)]
        holder: String,
    },
    /// A stage failed, and will be retried.
    StageRetrying {
        /// Stage.
        stage: String,
        /// The next attempt, from 1.
        #[serde(default)]
        attempt: u32,
        /// The highest number of attempts.
        #[serde(default)]
        of: u32,
        /// Why the last one failed.
        failure: Failure,
        /// Seconds until then.
        #[serde(default)]
        wait_secs: f64,
    },
    /// A stage reported its progress.
    StageProgress {
        /// Stage.
        stage: String,
        /// Its progress.
        progress: Progress,
    },
    /// A stage logged a line.
    StageLog {
        /// Stage.
        stage: String,
        /// How serious.
        level: Level,
        /// The line.
        text: String,
    },
    /// A stage's outputs are in the cache.
    StageFinished {
        /// Stage.
        stage: String,
        /// Its key.
        #[serde(default)]
        key: String,
        /// How long it took.
        #[serde(default)]
        seconds: f64,
        /// Highest resident memory of its process.
        #[serde(default)]
        peak_memory_bytes: u64,
        /// How its process ended.
        #[serde(default)]
        exit: Exit,
        /// Figures of its result.
        #[serde(default, alias = "summary", deserialize_with = "figures::deserialize")]
        figures: Vec<Figure>,
    },
    /// A stage could not be computed.
    StageFailed {
        /// Stage.
        stage: String,
        /// Why.
        failure: Failure,
        /// How long it took.
        #[serde(default)]
        seconds: f64,
    },
    /// A stage was not run.
    StageSkipped {
        /// Stage.
        stage: String,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// A person asked to stop.
    Interrupted {
        /// 1: stop the workers; 2: at once.
        #[serde(default)]
        times: u32,
    },
    /// The run is over.
    RunFinished {
        /// How long it took.
        #[serde(default)]
        seconds: f64,
        /// Whether every stage has a result.
        #[serde(default)]
        ok: bool,
    },
}

impl Event {
    /// The stage it is about, if any.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::StageCached { stage, .. }
            | Self::StageStarted { stage, .. }
            | Self::StageWaiting { stage, .. }
            | Self::StageRetrying { stage, .. }
            | Self::StageProgress { stage, .. }
            | Self::StageLog { stage, .. }
            | Self::StageFinished { stage, .. }
            | Self::StageFailed { stage, .. }
            | Self::StageSkipped { stage, .. } => Some(stage),
            Self::RunStarted { .. } | Self::Interrupted { .. } | Self::RunFinished { .. } => None,
        }
    }
}

/// A line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// [`FORMAT`](super::FORMAT) of the run, in its first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
    /// When it happened.
    #[serde(default)]
    pub time: Option<Timestamp>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Receives every event, in order.
pub trait Subscriber {
    /// Must not block for long.
    fn on(&mut self, event: &Event);
}
