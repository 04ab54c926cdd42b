//! `pairs`: one preference pair a step (paper 2.2, eq. 5), from the scores.

use serde::Deserialize;

use super::schema::{Field, Schema, Type};
use super::{Context, JobResult};

/// Parameters of the kind.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Params {
    pub negative: Negative,
    pub drop_truncated: bool,
    pub seed: u64,
}

/// How the rejected side is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negative {
    /// Drawn from F_k with the chosen one removed (eq. 5).
    Categorical,
    /// Drawn uniformly from the others (released code).
    Uniform,
    /// The lowest f (w/o sampling).
    Lowest,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    Schema::new(vec![
        Field::with_default(
            "negative",
            Type::Choice(&["categorical", "uniform", "lowest"]),
            "categorical",
            "How the rejected side is taken: drawn from F_k without the chosen one (eq. 5), uniformly (released code), or the lowest f (w/o sampling).",
        ),
        Field::with_default(
            "drop_truncated",
            Type::Bool,
            false,
            "Forbid responses that a limit cut as a side of a pair.",
        ),
        Field::seed(),
    ])
}

/// Computes the stage.
///
/// # Errors
/// When the scores cannot be read.
pub fn run(_context: &Context) -> JobResult {
    Err(crate::protocol::Failure::new("not built yet"))
}
