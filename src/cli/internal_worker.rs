//! `genius internal-worker`: computes one light stage (queries, score, pairs)
//! in a separate process, over the same protocol as genius-worker.

use std::process::ExitCode;

/// Serves one job.
pub fn run() -> ExitCode {
    crate::protocol::serve(crate::stage::run_light)
}
