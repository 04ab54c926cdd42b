//! [`RunReport`]: `run.json`, a run at its end with the result of each stage.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::known;
use super::{Exit, Origin, figures, format};
use crate::kind::StageKind;
use crate::protocol::Figure;

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Computed in this run.
    Executed,
    /// Its result was in the cache.
    Cached,
    /// It could not be computed.
    Failed,
    /// It was not run.
    Skipped,
}

/// A stage at the end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Names of the variants that it belongs to; `base` is the file as written.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Its kind; none if unknown to this Genius.
    #[serde(default, deserialize_with = "known")]
    pub kind: Option<StageKind>,
    /// How it ended.
    pub status: Status,
    /// Its key, if its inputs were known.
    #[serde(default)]
    pub key: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// How long it took in this run.
    #[serde(default)]
    pub seconds: f64,
    /// Highest resident memory of its process; 0 if it had none.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// How its process ended, if it had one.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Its warnings in this run.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Output name -> folder with its files (of executed and cached stages).
    #[serde(default)]
    pub outputs: BTreeMap<String, PathBuf>,
    /// Figures of its outcome.
    #[serde(default, alias = "summary", deserialize_with = "figures::deserialize")]
    pub figures: Vec<Figure>,
}

/// A run at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// [`FORMAT`](super::FORMAT) of the file.
    #[serde(default = "format::first")]
    pub format: u32,
    /// Its id.
    #[serde(default)]
    pub run_id: String,
    /// Name of the pipeline.
    #[serde(default)]
    pub pipeline: String,
    /// The pipeline file, absolute.
    #[serde(default)]
    pub pipeline_path: PathBuf,
    /// In the order in which they may run.
    pub stages: Vec<StageReport>,
    /// Whether a person stopped it before every stage had a result.
    #[serde(default)]
    pub interrupted: bool,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
    /// What made it.
    #[serde(default)]
    pub environment: Origin,
}

impl RunReport {
    /// Whether every stage has a result.
    pub fn ok(&self) -> bool {
        self.stages
            .iter()
            .all(|s| matches!(s.status, Status::Executed | Status::Cached))
    }
}
