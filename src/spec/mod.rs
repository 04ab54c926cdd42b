//! The pipeline file: read with source positions, checked whole against the
//! schemas of [`crate::stage`], defaults filled in.

mod check;
mod diagnostic;
mod load;
mod overrides;
mod params;
#[cfg(test)]
mod tests;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use load::{FORMAT_VERSION, LoadError, load, load_str};
pub use overrides::{Override, OverrideError};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::stage::StageKind;

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
}

/// A checked stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name in the pipeline.
    pub name: String,
    /// `uses:`.
    pub kind: StageKind,
    /// Slot -> name of the stage whose output fills it.
    pub needs: BTreeMap<String, String>,
    /// Parameters with every default filled in and paths made absolute. An object in the
    /// schema's shape: a `Float` is always a JSON float, a `OneOf` an object with one key,
    /// both identity and execution fields are there.
    pub with: Value,
    /// Line of the stage in the file, from 1.
    pub line: usize,
}
