//! The rollout stage: stepwise foresight re-sampling (paper 2.2, eq. 1-5;
//! method section 2) through an [`Engine`]. Entry: [`run`].
//!
//! Each query is a state machine of its own ([`query`]); the [`driver`] gives the
//! engine the requests of whichever query has some and writes the records in the
//! order of the queries. A draw is a function of seed, query, step, beam and
//! rollout, so how many queries are under way changes nothing.

use genius::protocol::{Context, Execution, JobResult, Progress};
use genius::stage::rollout::Params;

use super::engine::Engine;
use super::load;
use super::text::{ModelText, Text};

mod driver;
mod metrics;
mod pace;
pub(super) mod query;
#[cfg(test)]
mod tests;

use driver::Driver;

/// Computes the stage: a record a query, in the order of the queries.
///
/// # Errors
/// As [`roll_out`], and when the model cannot be loaded.
pub fn run(context: &Context) -> JobResult {
    let params: Params = context.params()?;
    let folder = context.input("model")?;
    let text = ModelText::load(folder)?;
    context.progress(Progress {
        phase: "loading the model".into(),
        ..Progress::default()
    });
    let Execution { device, width, .. } = &context.job.execution;
    let mut engine = load::engine(&params.engine, folder, &params.dtype, device, *width)?;
    roll_out(context, engine.as_mut(), &text)
}

/// Rolls out every query with the engine and the text of a model.
///
/// # Errors
/// When the engine breaks, the stage is cancelled, an artifact cannot be read
/// or written, or no query at all could be rolled out.
fn roll_out(context: &Context, engine: &mut dyn Engine, text: &dyn Text) -> JobResult {
    let mut driver = Driver::new(context, text)?;
    driver.roll_out(engine)?;
    driver.finish()
}
