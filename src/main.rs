//! `genius`: the orchestrator. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match genius::processor::check("genius") {
        Some(code) => code,
        None => run(),
    }
}

/// Apart, so that nothing of it is done before the check.
#[inline(never)]
fn run() -> ExitCode {
    genius::cli::main()
}
