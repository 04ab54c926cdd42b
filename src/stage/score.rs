//! `score`: f, F_k and advantages of every candidate from the rollout record.

use serde::Deserialize;

use super::schema::{Field, Schema, Type};
use super::{Context, JobResult};

/// Parameters of the kind.
#[derive(Debug, Clone, Deserialize)]
pub struct Params {
    /// The rollout's if null.
    pub tau: Option<f64>,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    Schema::new(vec![Field::optional(
        "tau",
        Type::positive(),
        "Temperature of the softmax that makes F_k for pairs (eq. 2); the rollout's unless given.",
    )])
}

/// Computes the stage.
///
/// # Errors
/// When the rollouts cannot be read.
pub fn run(_context: &Context) -> JobResult {
    Err(crate::protocol::Failure::new("not built yet"))
}
