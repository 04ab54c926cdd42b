//! `genius validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{CliError, Terminal};
use crate::spec::{self, Diagnostics, LoadError, Override};

/// Check a pipeline file without running anything.
///
/// Every mistake is shown at once, with file, line, column and the nearest
/// right name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Override a value: `stages.train.with.learning_rate=1e-6`. May be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Checks the file.
///
/// # Errors
/// When it is wrong, or cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<ExitCode, CliError> {
    let overrides = parse_overrides(&args.set)?;
    match spec::load(&args.pipeline, &overrides) {
        Ok(pipeline) => {
            if args.json {
                terminal.data("{\"valid\":true,\"problems\":[]}\n");
            } else {
                terminal.status(&format!(
                    "{}: `{}` with {} stages is valid\n",
                    args.pipeline.display(),
                    pipeline.name,
                    pipeline.stages.len()
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(LoadError::Invalid(diagnostics)) if args.json => {
            terminal.data(&format!("{}\n", diagnostics_json(&diagnostics)));
            Ok(ExitCode::from(3))
        }
        Err(e) => Err(e.into()),
    }
}

/// What is wrong with a file, for programs.
pub fn diagnostics_json(diagnostics: &Diagnostics) -> serde_json::Value {
    let problems: Vec<_> = diagnostics
        .0
        .iter()
        .map(|d| {
            json!({
                "path": d.path, "set": d.set, "line": d.line, "column": d.column,
                "message": d.message, "hint": d.hint,
            })
        })
        .collect();
    json!({ "valid": false, "problems": problems })
}

/// Reads every `--set`.
///
/// # Errors
/// When one is not `path=value`.
pub fn parse_overrides(set: &[String]) -> Result<Vec<Override>, CliError> {
    set.iter()
        .map(|text| Override::parse(text).map_err(CliError::from))
        .collect()
}
