//! The pipeline file: read with source positions, checked whole against the
//! schemas of [`crate::stage`], defaults filled in.

mod check;
mod command;
mod diagnostic;
mod json_schema;
mod load;
mod needs;
mod overrides;
mod params;
mod pipeline;
mod policy;
mod scalar;
mod stage;
#[cfg(test)]
mod tests;
mod variants;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use json_schema::json_schema;
pub use load::{FORMAT_VERSION, LoadError, absolute, load, load_str};
pub use overrides::{Override, OverrideError};
pub use policy::{Policy, Resources, Retry};

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::kind::{Need, Params, StageKind};

/// A checked pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The file, absolute.
    pub path: PathBuf,
    /// `name:`.
    pub name: String,
    /// `seed:`; 0 unless given.
    pub seed: u64,
    /// In the order of the file.
    pub stages: Vec<Stage>,
    /// In the order of the file; those of a matrix in the order of its axes.
    pub variants: Vec<Variant>,
    /// BLAKE3 of the file's bytes, in hex, by which its commands are trusted.
    pub digest: String,
}

/// The same stages with other values.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// `wo-foresight`, or of a matrix `sweep:learning_rate=5e-7,loss=dpo`.
    pub name: String,
    /// The entry under `variants:` that it comes from: `sweep`.
    pub group: String,
    /// `seed:` as the variant has it.
    pub seed: u64,
    /// All stages, in the order of the file.
    pub stages: Vec<Stage>,
    /// Line of the entry in the file, from 1.
    pub line: usize,
}

/// A checked stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name in the pipeline.
    pub name: String,
    /// Slot -> the output that fills it.
    pub needs: BTreeMap<String, Need<String>>,
    /// Names of its outputs: the kind's, or those a command declares.
    pub outputs: Vec<String>,
    /// Parameters with every default filled in and paths made absolute.
    pub params: Params,
    /// How it is run; not part of the key.
    pub policy: Policy,
    /// Line of the stage in the file, from 1.
    pub line: usize,
}

impl Stage {
    /// `uses:`.
    pub fn kind(&self) -> StageKind {
        self.params.kind()
    }

    #[cfg(test)]
    fn with(&self) -> serde_json::Value {
        self.params.to_value()
    }
}
