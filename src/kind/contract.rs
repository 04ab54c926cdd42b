//! [`Kind`]: what the rest of Genius knows about a kind of stage.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::declare::Declared;
use super::model::Hub;
use super::numerics::{Computes, Numerics};

/// A kind of stage, implemented by its parameters.
pub trait Kind: Declared + Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Name in a pipeline file (`uses:`).
    const NAME: &'static str;
    /// Version of the computation: raised when the same parameters and inputs give
    /// other outputs than before, so that old results are not reused. Its doc comment
    /// is its history.
    const VERSION: u32;
    /// Its inputs.
    const INPUTS: &'static [Input];
    /// Names of its outputs: each is a folder of files. The first is the main one.
    const OUTPUTS: &'static [&'static str];
    /// The program that computes it.
    const PROGRAM: Program;
    /// How it resumes after a cut; none: it is computed whole.
    const PARTS: Option<Parts<Self>>;
    /// Disk that it needs; none: too little to check.
    const DISK_BYTES: Option<DiskBytes<Self>>;

    /// Replaces every `auto` whose meaning depends on the machine that runs the stage.
    ///
    /// # Errors
    /// What the target cannot do: refused before anything runs.
    fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported>;

    /// Adds to the parameters in the key (paths are content there already, knobs are
    /// left out) what else decides the result.
    fn identity(&self, identity: &mut Value, variable: &Variables<'_>);

    /// Names of the outputs, where a stage declares them itself.
    fn declared_outputs(&self) -> Vec<String> {
        Self::OUTPUTS.iter().map(|&name| name.to_owned()).collect()
    }

    /// The hub's revision, which is resolved to a commit before anything is hashed; only a
    /// `model` may have one.
    fn hub(&mut self) -> Option<&mut Hub> {
        None
    }
}

/// Records that are computed and stored one by one, so that a stage that was cut resumes
/// where it was, and only new records are computed.
pub struct Parts<P> {
    /// The input with these records.
    pub input: &'static str,
    /// Groups of them, each a process of its own; 0 or 1: one for all.
    pub shards: fn(&P) -> u32,
}

/// Bytes that a stage may write, from its inputs' folders.
pub type DiskBytes<P> = fn(&P, &BTreeMap<String, PathBuf>) -> u64;

/// What the target decides about a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// For a kind that generates: which engine it is and why, in words.
    pub engine: Option<String>,
    /// What decides the bits of its results beside parameters and inputs; none where
    /// nothing does: it computes no floating-point number, or by plain sums in a fixed
    /// order.
    pub numerics: Option<Numerics>,
}

impl Resolved {
    /// The target decides nothing.
    pub const ANYWHERE: Self = Self {
        engine: None,
        numerics: None,
    };
}

/// An input of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Name under `needs:`.
    pub slot: &'static str,
    /// Name of the output, of any kind that has one so named, that fits.
    pub artifact: &'static str,
    /// Whether it may be missing.
    pub optional: bool,
}

impl Input {
    /// An input with the name of the artifact that it takes.
    pub const fn new(artifact: &'static str) -> Self {
        Self {
            slot: artifact,
            artifact,
            optional: false,
        }
    }

    /// The same input, made optional.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }
}

/// What fills an input: an output of another stage. `T` identifies that stage: its name
/// in a file or its index in a plan.
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
    /// What its worker computes with.
    pub engines: &'a [Computes],
}

/// What a target cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported {
    /// The parameter, if it is about one.
    pub at: Option<&'static str>,
    /// What it asks for.
    pub what: &'static str,
    /// What to write instead.
    pub instead: &'static str,
}

/// Values of environment variables.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

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
