//! `genius completions`.

use std::process::ExitCode;

use super::{CliError, Terminal};

/// Print a completion script for a shell.
///
/// For bash: `genius completions bash > ~/.local/share/bash-completion/completions/genius`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// None.
pub fn run(
    args: &Args,
    terminal: &Terminal,
    command: &mut clap::Command,
) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "genius", &mut script);
    terminal.bytes(&script);
    Ok(ExitCode::SUCCESS)
}
