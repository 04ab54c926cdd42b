//! `genius explain`.

use std::process::ExitCode;

use super::environment::Environment;
use super::pipeline_args::PipelineArgs;
use super::selection::SelectionArgs;
use super::{CliError, Terminal};
use crate::plan::{self, Forecast};

/// Explain why a stage would run, or why it is reused.
///
/// Compares what its key is computed from with the nearest earlier computation, field
/// by field, and follows changed inputs to the stages that produced them.
/// Runs and writes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage: STAGE, or STAGE@VARIANT.
    stage: String,
    /// Print JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Prints the explanation.
///
/// # Errors
/// When the pipeline is wrong or has no such stage.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let planned = args
        .pipeline
        .planned(&SelectionArgs::default(), environment)?;
    let (graph, store) = (&planned.graph, planned.store.as_ref());
    let asked = graph.select(&args.stage)?;
    let forecast = Forecast::new(graph, store, &planned.forced);
    let earlier = planned.earlier();
    let explanations: Vec<_> = asked
        .into_iter()
        .map(|i| plan::explain(graph, &forecast, store, earlier.as_ref(), i))
        .collect();
    if args.json {
        terminal.json(&explanations);
    } else {
        for explanation in &explanations {
            terminal.data(explanation.render());
        }
    }
    Ok(ExitCode::SUCCESS)
}
