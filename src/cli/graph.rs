//! `genius graph`.

use std::process::ExitCode;

use super::environment::Environment;
use super::pipeline_args::PipelineArgs;
use super::selection::SelectionArgs;
use super::{CliError, Terminal};
use crate::plan::draw;

/// Show the stages of a pipeline and how they are connected.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only this stage and what it needs: STAGE or STAGE@VARIANT. May be repeated.
    #[arg(long, value_name = "STAGE")]
    target: Vec<String>,
    /// The format: text, mermaid (GitHub, documentation) or dot (Graphviz).
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Mermaid,
    Dot,
}

/// Prints the graph.
///
/// # Errors
/// When the pipeline is wrong, or cannot be planned here.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let selection = SelectionArgs {
        target: args.target.clone(),
        ..SelectionArgs::default()
    };
    let graph = args.pipeline.planned(&selection, environment)?.graph;
    terminal.data(match args.format {
        Format::Text => draw::text(&graph),
        Format::Mermaid => draw::mermaid(&graph),
        Format::Dot => draw::dot(&graph),
    });
    Ok(ExitCode::SUCCESS)
}
