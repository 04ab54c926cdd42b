//! The command line: one file a subcommand. The only place that prints, reads
//! the environment, or knows exit codes.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod announcement;
mod cache;
mod completions;
mod diff;
mod environment;
mod error;
mod explain;
mod graph;
mod init;
mod internal_worker;
mod logs;
mod lookup;
mod offline;
mod out;
mod pipeline_args;
mod plan;
mod resources;
mod run;
mod runs;
mod schema;
mod selection;
mod show;
mod status;
mod terminal;
mod trust;
mod validate;

use crate::text;
use environment::Environment;
pub use error::CliError;
use terminal::Terminal;

/// Declarative, content-cached experiments for self-training language models.
///
/// A pipeline file defines stages; each stage's outputs are kept by the hash of
/// what they were made from, so that only what changed runs again.
#[derive(Debug, Parser)]
#[command(name = "genius", version, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0    all went well
  1    a stage failed or has no result, or `cache verify` found damage
  2    the command line is wrong
  3    the pipeline file is wrong, or runs commands and is not trusted
  4    the cache or the machine is in the way
  130  interrupted

Environment:
  GENIUS_CACHE   folder of the cache (default: ./cache)
  GENIUS_WORKER  the genius-worker program (default: beside genius)
  GENIUS_HOME    per-user folder of downloads, trusts and workers (default: ~/.cache/genius)
  GENIUS_LEASE_SECS  a run without a sign of life for so long is dead (default: 20)
  COLUMNS        how wide `genius show` may be (default: the terminal)
  NO_COLOR       no colour
  HF_TOKEN, HF_HOME, HF_ENDPOINT   as for every Hugging Face tool

stdout is data, stderr is status.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Explain(explain::Args),
    Diff(diff::Args),
    Graph(graph::Args),
    Validate(validate::Args),
    Runs(runs::Args),
    Status(status::Args),
    Logs(logs::Args),
    Out(out::Args),
    Show(show::Args),
    Cache(cache::Args),
    Trust(trust::Args),
    Init(init::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    /// Computes one light stage, over pipes.
    #[command(hide = true)]
    InternalWorker,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // clap knows where its help and errors go, and their exit codes.
            let code = u8::try_from(e.exit_code()).unwrap_or(2);
            let _ = as_shown(e).print();
            return ExitCode::from(code);
        }
    };
    if matches!(cli.command, Command::InternalWorker) {
        return internal_worker::run();
    }
    let environment = Environment::from_process();
    let terminal = Terminal::new(&environment);
    for warning in environment.folders.warnings() {
        terminal.line(&warning.into());
    }
    let result = match cli.command {
        Command::Run(args) => run::run(&args, &environment, &terminal),
        Command::Plan(args) => plan::run(&args, &environment, &terminal),
        Command::Explain(args) => explain::run(&args, &environment, &terminal),
        Command::Diff(args) => diff::run(&args, &environment, &terminal),
        Command::Graph(args) => graph::run(&args, &environment, &terminal),
        Command::Validate(args) => validate::run(&args, &terminal),
        Command::Runs(args) => runs::run(&args, &environment, &terminal),
        Command::Status(args) => status::run(&args, &environment, &terminal),
        Command::Logs(args) => logs::run(&args, &environment, &terminal),
        Command::Out(args) => out::run(&args, &environment, &terminal),
        Command::Show(args) => show::run(&args, &environment, &terminal),
        Command::Cache(args) => cache::run(&args, &environment, &terminal),
        Command::Trust(args) => trust::run(&args, &environment, &terminal),
        Command::Init(args) => init::run(&args, &terminal),
        Command::Schema(args) => schema::run(&args, &terminal),
        Command::Completions(args) => completions::run(&args, &terminal, &mut Cli::command()),
        Command::InternalWorker => Ok(ExitCode::SUCCESS),
    };
    let lost = terminal.lost().map(|source| CliError::Io {
        action: "write",
        path: "stdout".into(),
        source,
    });
    match (result, lost) {
        (Err(error), _) | (Ok(_), Some(error)) => {
            terminal.error(&error);
            ExitCode::from(error.exit_code())
        }
        (Ok(code), None) => code,
    }
}

/// The same error, safe to show: clap repeats what was typed, control characters
/// included.
fn as_shown(error: clap::Error) -> clap::Error {
    let typed = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let typed: Vec<String> = typed.collect();
    if !typed.iter().any(|word| word.contains(text::is_hidden)) {
        return error;
    }
    let shown = typed.iter().map(|word| text::shown(word).into_owned());
    match Cli::try_parse_from(shown) {
        Err(again) => again,
        Ok(_) => Cli::command().error(error.kind(), "an argument contains control characters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
