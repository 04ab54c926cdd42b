//! The names of the stage kinds; what they mean is in `crate::stage`.

use serde::{Deserialize, Serialize};

/// What a stage does (`uses:` in a pipeline file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Read and sample unlabelled queries.
    Queries,
    /// Get a model and turn it into a Hugging Face folder.
    Model,
    /// Stepwise foresight re-sampling (method section 2).
    Rollout,
    /// Scores, advantages and F_k from the rollout record.
    Score,
    /// Preference pairs from the scores.
    Pairs,
    /// Preference training.
    Train,
    /// Benchmarks.
    Eval,
    /// A program of one's own.
    Command,
}
