//! What happens in a run, typed: the console, the JSON log and the report are
//! subscribers of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::Exit;
use crate::kind::StageKind;
use crate::protocol::{Failure, Level, Progress};

/// Something that happened. `stage` is a stage's name.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    RunStarted {
        /// Its id.
        run_id: String,
        /// Name of the pipeline.
        pipeline: String,
        /// Names of the stages, in the order in which they may run.
        stages: Vec<String>,
    },
    /// A result was there.
    StageCached {
        /// Stage.
        stage: String,
        /// Its key.
        key: String,
    },
    /// A process was started for a stage.
    StageStarted {
        /// Stage.
        stage: String,
        /// Its key.
        key: String,
        /// Why it runs.
        reason: String,
        /// What the key is the hash of.
        preimage: Value,
    },
    /// Another process computes the same.
    StageWaiting {
        /// Stage.
        stage: String,
        /// Which.
        holder: String,
    },
    /// It failed, and will be tried again.
    StageRetrying {
        /// Stage.
        stage: String,
        /// Which attempt comes now, from 1.
        attempt: u32,
        /// How many there may be.
        of: u32,
        /// Why the last one failed.
        failure: Failure,
        /// After so many seconds.
        wait_secs: f64,
    },
    /// How far a stage is.
    StageProgress {
        /// Stage.
        stage: String,
        /// How far.
        progress: Progress,
    },
    /// A stage said something.
    StageLog {
        /// Stage.
        stage: String,
        /// How serious.
        level: Level,
        /// What.
        text: String,
    },
    /// A stage's outputs are kept.
    StageFinished {
        /// Stage.
        stage: String,
        /// Its key.
        key: String,
        /// How long it took.
        seconds: f64,
        /// Highest resident memory of its process.
        peak_memory_bytes: u64,
        /// How its process ended.
        exit: Exit,
    },
    /// A stage could not be computed.
    StageFailed {
        /// Stage.
        stage: String,
        /// Why.
        failure: Failure,
        /// How long it took.
        seconds: f64,
    },
    /// A stage was not tried.
    StageSkipped {
        /// Stage.
        stage: String,
        /// Why.
        reason: String,
    },
    /// A person asked to stop.
    Interrupted {
        /// 1: stop the workers; 2: at once.
        times: u32,
    },
    /// The run is over.
    RunFinished {
        /// How long it took.
        seconds: f64,
        /// Whether every stage has a result.
        ok: bool,
    },
}

/// Is told of every event, in order.
pub trait Subscriber {
    /// Must not block for long.
    fn on(&mut self, event: &Event);
}

/// How a stage came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Computed in this run.
    Executed,
    /// Its result was there.
    Cached,
    /// It could not be computed.
    Failed,
    /// It was not tried.
    Skipped,
}

/// A stage at the end of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Names of the variants that it belongs to; `base` is the file as it stands.
    pub variants: Vec<String>,
    /// Its kind.
    pub kind: StageKind,
    /// How it came out.
    pub status: Status,
    /// Its key, if its inputs were known.
    pub key: Option<String>,
    /// Why.
    pub reason: String,
    /// How long it took in this run.
    pub seconds: f64,
    /// Highest resident memory of its process; 0 if it had none.
    pub peak_memory_bytes: u64,
    /// How its process ended, if it had one.
    pub exit: Option<Exit>,
    /// What it warned of in this run.
    pub warnings: Vec<String>,
    /// Output name -> folder with its files (of executed and cached stages).
    pub outputs: BTreeMap<String, PathBuf>,
    /// Figures of its outcome.
    #[serde(serialize_with = "as_map")]
    pub summary: Vec<(String, Value)>,
}

/// A run at its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Its id.
    pub run_id: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The pipeline file, absolute.
    pub pipeline_path: PathBuf,
    /// In the order in which they may run.
    pub stages: Vec<StageReport>,
    /// Whether a person stopped it before every stage had a result.
    pub interrupted: bool,
    /// How long it took.
    pub seconds: f64,
    /// Host, versions, command line.
    pub environment: Value,
}

impl RunReport {
    /// Whether every stage has a result.
    pub fn ok(&self) -> bool {
        self.stages
            .iter()
            .all(|s| matches!(s.status, Status::Executed | Status::Cached))
    }
}

fn as_map<S: serde::Serializer>(pairs: &[(String, Value)], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(pairs.iter().map(|(k, v)| (k, v)))
}
