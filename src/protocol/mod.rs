//! The messages between `genius` and a worker process: one JSON object per line over the
//! worker's stdin and stdout, versioned.
//!
//! A worker writes [`Message::Hello`] first, reads one [`Request::Job`], then
//! writes progress, logs, metrics and heartbeats, and [`Message::Outcome`]
//! last. When its stdin closes, the orchestrator is gone: it stops.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::kind::{Numerics, Params, StageKind};

mod capabilities;
mod context;
mod figure;
mod program;
mod serve;

#[cfg(test)]
pub(crate) use capabilities::example;
pub use capabilities::{
    CAPABILITIES_FORMAT, Capabilities, CapabilitiesError, Device, DeviceKind, Processor,
};
pub use context::{Context, JobResult, Sink};
pub use figure::{Figure, Unit};
pub use program::{absolute_entries, find_program};
pub use serve::{peak_memory_bytes, serve, version_mismatch};

/// Version of the messages in this module; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 2;
/// Version of the package and of its source: two programs of one version compute alike,
/// so a worker left over from another build is refused before it writes to a cache.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("GENIUS_SOURCE"));
/// How often a worker sends a heartbeat.
pub const HEARTBEAT_SECS: u64 = 1;

/// Orchestrator to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The one job of this process, with the versions of the sender.
    Job {
        /// [`PROTOCOL_VERSION`] of the sender.
        protocol: u32,
        /// Package version of the sender.
        version: String,
        /// What to do.
        job: Box<Job>,
    },
    /// Stop at the next safe point and answer with a `cancelled` outcome.
    Cancel,
}

/// One stage to compute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Name of the stage in the pipeline, for messages.
    pub stage: String,
    /// What to compute: parameters with defaults filled in, `auto` resolved, paths
    /// absolute.
    pub params: Params,
    /// The numerics that the plan expects of the worker.
    pub numerics: Option<Numerics>,
    /// Where it runs: not part of the key.
    pub execution: Execution,
    /// Input slot -> read-only folder with that artifact's files.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Input slot -> content hash of that artifact (hex).
    pub input_hashes: BTreeMap<String, String>,
    /// Where the stage stores parts of its result as they finish, and finds those of earlier
    /// runs; none if it has no parts.
    pub partial: Option<PartialResults>,
    /// The part of the stage that this job is; none: all of it.
    pub shard: Option<Shard>,
    /// What was decided for the stage when it was planned, for its log.
    pub notes: Vec<String>,
    /// Folder in which the worker makes one sub-folder an output.
    pub output_dir: PathBuf,
    /// Folder for anything else; removed afterwards.
    pub scratch_dir: PathBuf,
}

impl Job {
    /// The kind of its stage.
    pub fn kind(&self) -> StageKind {
        self.params.kind()
    }
}

/// One of the parts that a stage is cut into: consecutive items of its input.
/// The parts' results, in order, are the whole result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Shard {
    /// Its places among `len`.
    pub fn range(self, len: usize) -> std::ops::Range<usize> {
        let end = |n: u32| len as u128 * u128::from(n.min(self.of)) / u128::from(self.of.max(1));
        end(self.index) as usize..end(self.index.saturating_add(1)) as usize
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {} of {}", self.index + 1, self.of)
    }
}

/// A place for parts of a stage's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialResults {
    /// Folder, on the file system of the scratch folder; made when it is written.
    pub dir: PathBuf,
    /// Key (hex) of all that a part depends on besides its items: the stage's key without
    /// the input that is cut into parts.
    pub key: String,
    /// Whether parts of earlier runs are ignored, to compute the stage anew.
    pub fresh: bool,
}

/// Where a stage runs. Its own knobs are among its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Execution {
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// CPU threads; 0: all.
    pub threads: usize,
    /// Numbers of its devices among those that the run has; empty: it may use any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<u32>,
}

/// Worker to orchestrator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// First line of a worker.
    Hello {
        /// [`PROTOCOL_VERSION`] of the worker.
        protocol: u32,
        /// Package version of the worker.
        version: String,
    },
    /// Still alive; sent every [`HEARTBEAT_SECS`] from its own thread.
    Heartbeat {
        /// Highest resident memory so far, bytes.
        peak_memory_bytes: u64,
    },
    /// How far the stage is.
    Progress(Progress),
    /// A line for the stage's log.
    Log {
        /// How serious it is.
        level: Level,
        /// One line, or several.
        text: String,
    },
    /// Last line of a worker.
    Outcome(Outcome),
}

/// How far a stage is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done now, a few words (`rolling out`).
    pub phase: String,
    /// Units finished.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
    /// Name of a unit, plural (`queries`).
    pub unit: String,
    /// Further detail, short (`27.9 tok/s`).
    pub detail: String,
}

/// How serious a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For debugging.
    Debug,
    /// Worth a line in the log file.
    Info,
    /// Something the user should know: on the console too.
    Warn,
}

/// How a job ended: in a worker's last message, and in the executor's answer to the
/// dispatcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// Every output folder is complete.
    Done {
        /// Figures of its result, in the order in which they are shown.
        figures: Vec<Figure>,
        /// Highest resident memory, bytes.
        peak_memory_bytes: u64,
    },
    /// The stage cannot be computed.
    Failed(Failure),
    /// Stopped on request.
    Cancelled,
}

/// Why a stage failed: what happened and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong, naming file, line or value.
    pub message: String,
    /// What to do about it, if known.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
