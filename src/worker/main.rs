//! `genius-worker`: computes one stage that needs a model, spoken to over pipes
//! by `genius`. The crate of everything that needs mistral.rs or libtorch.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use genius::kind::Params;
use genius::protocol::{self, Failure};
use genius::stage::{Context, JobResult};
use model::FetchSettings;

mod capabilities;
mod device;
mod infer;
mod model;
#[cfg(test)]
mod real_model_tests;
#[cfg(test)]
#[path = "../stage/testing.rs"]
mod testing;
mod train;

fn main() -> ExitCode {
    match genius::processor::check("genius-worker") {
        Some(code) => code,
        None => run(),
    }
}

/// Apart, so that nothing of it is done before the check.
#[inline(never)]
#[expect(
    clippy::disallowed_methods,
    reason = "words of its own, before stdout becomes the protocol's"
)]
fn run() -> ExitCode {
    let words = "genius-worker is started by `genius run`; it computes one stage. \
        `genius-worker --capabilities` prints what it computes with.\n";
    match std::env::args().nth(1).as_deref() {
        Some("--version" | "-V") => {
            let version = concat!("genius-worker ", env!("CARGO_PKG_VERSION"), "\n");
            let _ = std::io::stdout().write_all(version.as_bytes());
            return ExitCode::SUCCESS;
        }
        Some("--capabilities") => {
            // Only maps with keys that are not text fail, and it has none.
            let mut line = serde_json::to_string(&capabilities::find()).unwrap_or_default();
            line.push('\n');
            let _ = std::io::stdout().write_all(line.as_bytes());
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            let _ = std::io::stderr().write_all(words.as_bytes());
            return ExitCode::from(2);
        }
        None if std::io::stdin().is_terminal() => {
            let _ = std::io::stderr().write_all(words.as_bytes());
            return ExitCode::from(2);
        }
        None => {}
    }
    let settings = FetchSettings::from_lookup(|name| std::env::var_os(name));
    protocol::serve(|context| run_job(context, &settings))
}

fn run_job(context: &Context, settings: &FetchSettings) -> JobResult {
    let numerics = context.job.numerics.as_ref();
    if let Some(why) = numerics.and_then(|n| n.refusal(genius::processor::level())) {
        let hint = "plan the run on a machine like the one that computes it";
        return Err(Failure::new(why).hint(hint));
    }
    match &context.job.params {
        Params::Model(params) => model::run(context, params, settings),
        Params::Rollout(params) => infer::rollout::run(context, params),
        Params::Train(params) => train::run(context, params),
        Params::Eval(params) => infer::eval::run(context, params),
        Params::Queries(_) | Params::Score(_) | Params::Pairs(_) | Params::Command(_) => {
            let kind = context.job.params.kind().name();
            Err(Failure::new(format!(
                "a `{kind}` stage is computed by genius itself"
            )))
        }
    }
}
