//! [`Plan`]: `pipeline.json`, the pipeline of a run as it was resolved: its stages with
//! their parameters, and the edges between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::format;
use crate::kind::StageKind;
use crate::protocol::Execution;

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT`](super::FORMAT) of the file.
    #[serde(default = "format::first")]
    pub format: u32,
    /// Name of the pipeline.
    #[serde(default)]
    pub name: String,
    /// The pipeline file, absolute.
    #[serde(default)]
    pub path: PathBuf,
    /// `seed:` of the pipeline.
    #[serde(default)]
    pub seed: u64,
    /// Hash of the pipeline file.
    #[serde(default)]
    pub digest: String,
    /// What made the run.
    #[serde(default)]
    pub environment: Origin,
    /// In the order in which they may run.
    #[serde(default)]
    pub stages: Vec<PlannedStage>,
}

/// A stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// Its name in the run: `train`, `train@wo-foresight`.
    #[serde(default)]
    pub name: String,
    /// Its name in the pipeline.
    #[serde(default)]
    pub stage: String,
    /// Names of the variants that it belongs to; `base` is the file as it stands.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Its kind; none if unknown to this Genius.
    #[serde(default, deserialize_with = "known")]
    pub uses: Option<StageKind>,
    /// Input slot -> where it comes from. Missing in format 1.
    #[serde(default)]
    pub needs: BTreeMap<String, Edge>,
    /// Names of its outputs. Missing in format 1.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// The part of its parameters that is in its key.
    #[serde(default)]
    pub identity: Value,
    /// Its parameters, resolved.
    #[serde(default)]
    pub params: Value,
    /// What else decides its bits; in the key. Missing in format 1.
    #[serde(default)]
    pub numerics: Value,
    /// Where it runs.
    #[serde(default)]
    pub execution: Execution,
    /// The paths and revisions of the pipeline that content hashes replaced.
    #[serde(default)]
    pub sources: Value,
}

/// An output of another stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The stage's name in the run.
    pub stage: String,
    /// Its output.
    pub output: String,
}

/// What made a run: program, machine and command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Version of Genius.
    pub genius: String,
    /// Version of its source.
    pub source: String,
    /// Name of the machine.
    pub host: String,
    /// Its operating system.
    pub os: String,
    /// Its processor's architecture.
    pub arch: String,
    /// The command, to be typed again.
    pub command_line: String,
}

impl Plan {
    /// A stage's name in the run, given that name, its name in the pipeline, or
    /// `STAGE@VARIANT` for any of its variants.
    pub fn name_of(&self, asked: &str) -> Option<&str> {
        let exact = self.stages.iter().find(|s| s.name == asked);
        let found = exact.or_else(|| match asked.split_once('@') {
            Some((stage, variant)) => self
                .stages
                .iter()
                .find(|s| s.stage == stage && s.variants.iter().any(|v| v == variant)),
            None => self.stages.iter().find(|s| s.stage == asked),
        });
        found.map(|s| s.name.as_str())
    }
}

/// A kind, or none for one that this Genius does not know.
pub(super) fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StageKind>, D::Error> {
    let name = Value::deserialize(from)?;
    Ok(StageKind::deserialize(name).ok())
}
