//! The rollout stage: stepwise foresight re-sampling (paper 2.2, eq. 1-5;
//! method section 2) through an [`Engine`]. Entry: [`run`].
//!
//! Each query is a state machine of its own ([`query`]); the [`driver`] gives the
//! engine the requests of whichever query has some and writes the records in the
//! order of the queries. A draw is a function of seed, query, step, beam and
//! rollout, so how many queries are under way changes nothing, nor which of them
//! were rolled out by an earlier run and [kept](kept).

use genius::kind::rollout::Params;
use genius::protocol::{Context, JobResult, Level, Progress};

use super::load;
use super::text::ModelText;

mod driver;
mod kept;
mod metrics;
mod pace;
pub(super) mod query;
#[cfg(test)]
mod tests;

use driver::Driver;

/// Computes the stage: a record a query, in the order of the queries. The model is
/// loaded only if there is a query that no earlier run has kept.
///
/// # Errors
/// When the model cannot be loaded, the engine breaks, the stage is cancelled,
/// an artifact cannot be read or written, or no query at all could be rolled out.
pub fn run(context: &Context, params: &Params) -> JobResult {
    let folder = context.input("model")?;
    let text = ModelText::load(folder)?;
    for note in &context.job.notes {
        context.log(Level::Info, note);
    }
    let mut driver = Driver::new(context, params, &text)?;
    if driver.is_needed() {
        context.progress(Progress {
            phase: "loading the model".into(),
            ..Progress::default()
        });
        let mut engine = load::engine(params.options, folder, &context.job.execution)?;
        driver.roll_out(engine.as_mut())?;
    }
    let mut figures = driver.finish()?;
    figures.push(load::figure(context, params.options));
    Ok(figures)
}
