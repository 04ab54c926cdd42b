//! [`Kind`]: what the rest of Genius knows of a kind of stage.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::declare::Declared;
use super::model::Hub;
use super::numerics::Numerics;

/// A kind of stage, by its parameters.
pub trait Kind: Declared + Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Name in a pipeline file (`uses:`).
    const NAME: &'static str;
    /// Version of the computation: raised when the same parameters and inputs give
    /// other outputs than before, so that old results are not reused. Its doc comment
    /// is its history.
    const VERSION: u32;
    /// What it needs.
    const INPUTS: &'static [Input];
    /// Names of its outputs: each is a folder of files. The first is the main one.
    const OUTPUTS: &'static [&'static str];
    /// The program that computes it.
    const PROGRAM: Program;
    /// The input whose records are computed and kept one by one, so that a stage that
    /// was cut goes on where it was, and only new records are computed; none: the stage
    /// is computed whole.
    const PARTS: Option<&'static str>;

    /// Names of the outputs that a stage declares itself.
    fn declared_outputs(&self) -> Vec<String> {
        Self::OUTPUTS.iter().map(|&name| name.to_owned()).collect()
    }

    /// Replaces every `auto` whose meaning depends on the machine that runs the stage.
    /// Of a kind that generates, gives in words which engine it is and why.
    ///
    /// # Errors
    /// What the target cannot do: refused before anything runs.
    fn resolve(&mut self, _: &Target<'_>) -> Result<Option<String>, Unsupported> {
        Ok(None)
    }

    /// What decides the bits of its results beside parameters and inputs, `auto`
    /// resolved; none where nothing does: it computes no floating-point number, or by
    /// plain sums in a fixed order.
    fn numerics(&self, target: &Target<'_>) -> Option<Numerics>;

    /// The hub's revision that becomes a commit before anything is hashed.
    fn hub(&mut self) -> Option<&mut Hub> {
        None
    }

    /// Adds to the parameters in the key (paths are content there already, knobs are
    /// left out) what else decides the result.
    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}

    /// Bytes that it may write, from its inputs' folders; 0: too few to ask for.
    fn disk_bytes(&self, _: &BTreeMap<String, PathBuf>) -> u64 {
        0
    }

    /// Parts that it is cut into, each a process of its own; 0 or 1: none.
    fn shards(&self) -> u32 {
        0
    }
}

/// An input of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Name under `needs:`.
    pub slot: &'static str,
    /// Name of the output, of any kind that has one so named, that fits.
    pub artifact: &'static str,
    /// Whether a stage may do without it.
    pub optional: bool,
}

impl Input {
    /// An input that is called like the artifact that it takes.
    pub const fn of(artifact: &'static str) -> Self {
        Self {
            slot: artifact,
            artifact,
            optional: false,
        }
    }

    /// The same, which a stage may do without.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }
}

/// What fills an input: an output of another stage. `T` is how that stage is known,
/// its name in a file or its index in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need<T> {
    /// The stage.
    pub from: T,
    /// Name of its output.
    pub output: String,
}

/// What computes a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A process of `genius` itself.
    Genius,
    /// `genius-worker`: it needs libtorch or mistral.rs.
    Worker,
    /// A program that the stage names.
    Own,
}

/// The machine that will run a stage, as far as `auto` and bits depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: &'a str,
    /// Whether its processor multiplies bf16 matrices fast (avx512_bf16, amx).
    pub fast_bf16: bool,
    /// Its processor's instruction level; see `crate::processor::level`.
    pub level: &'a str,
}

/// What a target cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported {
    /// The parameter.
    pub at: &'static str,
    /// What it asks for.
    pub what: &'static str,
    /// What to write instead.
    pub instead: &'static str,
}

/// Values of environment variables.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Bytes.
pub(super) const GIB: u64 = 1 << 30;

/// Bytes of a file, or of the files of a folder.
pub(super) fn size_on_disk(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |m| m.len());
    };
    entries
        .flatten()
        .filter_map(|e| std::fs::metadata(e.path()).ok())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}
