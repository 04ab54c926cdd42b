//! `genius explain`.

use std::process::ExitCode;

use super::environment::Environment;
use super::pipeline_args::PipelineArgs;
use super::selection::SelectionArgs;
use super::{CliError, Terminal};
use crate::plan::{self, Earlier, Forecast};
use crate::store::Store;

/// Say why a stage would run, or why it is reused.
///
/// Compares what its key is made of with the nearest earlier computation, field
/// by field, and follows inputs that changed into the stages that made them.
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
    let pipeline = args.pipeline.load()?;
    let memory = args.pipeline.cache.memory(environment)?;
    let graph = args
        .pipeline
        .graph(&pipeline, &environment.resolver(Some(memory)))?;
    let (graph, forced) = SelectionArgs::default().apply(graph)?;
    let asked = graph.select(&args.stage)?;
    let store = Store::open_existing(&args.pipeline.cache.root(environment))?;
    let forecast = Forecast::new(&graph, store.as_ref(), &forced);
    let earlier = store
        .as_ref()
        .map(|s| Earlier::new(s, &pipeline.path, None));
    let explanations: Vec<_> = asked
        .into_iter()
        .map(|i| plan::explain(&graph, &forecast, store.as_ref(), earlier.as_ref(), i))
        .collect();
    if args.json {
        let text = serde_json::to_string(&explanations).unwrap_or_default();
        terminal.data(&format!("{text}\n"));
    } else {
        for explanation in &explanations {
            terminal.data(&explanation.render());
        }
    }
    Ok(ExitCode::SUCCESS)
}
