//! The heavy half: what `genius-worker` computes, with mistral.rs and libtorch.

pub mod device;
pub mod infer;
pub mod model;
pub mod train;

use crate::protocol::Failure;
use crate::stage::{Context, JobResult, StageKind};
use model::Environment;

/// Computes a stage that needs a model.
///
/// # Errors
/// When it cannot be computed, or is of a kind that `genius` computes itself.
pub fn run_job(context: &Context, environment: &Environment) -> JobResult {
    match context.job.kind {
        StageKind::Model => model::run(context, environment),
        StageKind::Train => train::run(context),
        kind => Err(Failure::new(format!(
            "a `{}` stage is computed by genius itself",
            kind.name()
        ))),
    }
}
