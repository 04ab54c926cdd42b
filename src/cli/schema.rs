//! `genius schema`.

use std::process::ExitCode;

use super::{CliError, Terminal};
use crate::spec;

/// Print a JSON Schema of the pipeline file, for editors.
///
/// `genius schema > genius.schema.json`, and as the first line of a pipeline:
/// `# yaml-language-server: $schema=genius.schema.json`
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints it.
///
/// # Errors
/// None.
pub fn run(_args: &Args, terminal: &Terminal) -> Result<ExitCode, CliError> {
    terminal.pretty_json(&spec::json_schema());
    Ok(ExitCode::SUCCESS)
}
