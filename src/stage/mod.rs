//! What the kinds that need no model compute ([`run_light`]); the others are
//! computed in `genius-worker` (`src/worker`). Declarations are in `crate::kind`.

pub mod hub;
pub mod pairs;
pub mod queries;
pub mod score;
#[cfg(test)]
mod testing;

use crate::kind::Params;
pub use crate::protocol::{Context, JobResult};

/// Computes a stage that needs no model.
///
/// # Errors
/// When it cannot be computed, or needs `genius-worker`.
pub fn run_light(context: &Context) -> JobResult {
    match &context.job.params {
        Params::Queries(params) => queries::run(context, params),
        Params::Score(params) => score::run(context, params),
        Params::Pairs(params) => pairs::run(context, params),
        Params::Command(_) => Err(crate::protocol::Failure::new(
            "a `command` stage is started by genius itself",
        )),
        Params::Model(_) | Params::Rollout(_) | Params::Train(_) | Params::Eval(_) => {
            let kind = context.job.params.kind().name();
            Err(crate::protocol::Failure::new(format!(
                "a `{kind}` stage needs genius-worker"
            )))
        }
    }
}
