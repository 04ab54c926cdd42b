//! `genius run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};

use super::environment::{Environment, host_name};
use super::pipeline_args::PipelineArgs;
use super::{CliError, Terminal};
use crate::plan::Graph;
use crate::report::{Journal, LiveConsole, PlainConsole};
use crate::schedule::{self, ProcessLauncher, Programs, RunReport, RunRequest, Subscriber};
use crate::spec::Pipeline;
use crate::store::Store;

/// Run a pipeline: compute what has no result yet, reuse the rest.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print one JSON object on stdout at the end.
    #[arg(long)]
    json: bool,
    /// No progress and no table: only errors.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the pipeline.
///
/// # Errors
/// When the file is wrong, or the cache or machine is in the way. A failed
/// stage is an exit code, not an error.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let pipeline = args.pipeline.load()?;
    let graph = args.pipeline.graph(&pipeline, &environment.resolver())?;
    let store = args.pipeline.cache.open(environment)?;
    store.clean_tmp()?;
    let (run_id, run_dir) = make_run_dir(&store)?;
    write_run_files(&run_dir, &pipeline, &graph, environment)?;

    let request = RunRequest {
        graph,
        store,
        run_id,
        run_dir: run_dir.clone(),
        pipeline: pipeline.name.clone(),
        provenance: provenance(environment),
    };
    let report = drive(request, args, environment, terminal)?;

    write(
        &run_dir.join("run.json"),
        &format!("{}\n", to_json(&report)),
    )?;
    if !args.quiet {
        terminal.status(&crate::report::render(&report, &environment.command_line));
    }
    if args.json {
        terminal.data(&format!("{}\n", to_json(&report)));
    }
    Ok(ExitCode::from(match () {
        () if report.interrupted => 130,
        () if report.ok() => 0,
        () => 1,
    }))
}

/// Runs the dispatcher on a small runtime, listening for Ctrl-C.
fn drive(
    request: RunRequest,
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<RunReport, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io {
            action: "start",
            path: PathBuf::from("the runtime"),
            source,
        })?;
    let launcher = Arc::new(ProcessLauncher::new(Programs {
        genius: environment.program.clone(),
        worker: environment.worker_program(),
    }));
    let mut journal = Journal::new(&request.run_dir);
    let mut live;
    let mut plain;
    let console: &mut dyn Subscriber = if args.quiet {
        plain = PlainConsole::new(std::io::stderr(), terminal.color()).only_failures();
        &mut plain
    } else if terminal.live() {
        live = LiveConsole::new(terminal.color());
        &mut live
    } else {
        plain = PlainConsole::new(std::io::stderr(), terminal.color());
        &mut plain
    };
    Ok(runtime.block_on(async {
        let asked = Arc::new(Mutex::new(listen()));
        let mut subscribers: [&mut dyn Subscriber; 2] = [&mut journal, console];
        schedule::run(request, launcher, &mut subscribers, || {
            let asked = Arc::clone(&asked);
            Box::pin(async move {
                if asked.lock().await.recv().await.is_none() {
                    std::future::pending().await
                }
            })
        })
        .await
    }))
}

/// A message each time a person or the system asks to stop.
///
/// Listens from now on, all the time: a signal that comes while the run is busy
/// with something else waits and is not lost.
fn listen() -> mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let sender = sender.clone();
        if let Ok(mut signals) = signal(kind) {
            tokio::spawn(async move {
                while signals.recv().await.is_some() && sender.send(()).is_ok() {}
            });
        }
    }
    receiver
}

/// `runs/<id>/`; ids sort by time.
fn make_run_dir(store: &Store) -> Result<(String, PathBuf), CliError> {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S");
    let unique = u64::from(std::process::id()) ^ now_nanos();
    let id = format!("{now}-{:04x}", unique & 0xffff);
    let dir = store.runs_dir().join(&id);
    std::fs::create_dir_all(&dir).map_err(|source| CliError::Io {
        action: "make",
        path: dir.clone(),
        source,
    })?;
    Ok((id, dir))
}

fn now_nanos() -> u64 {
    u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs())
}

/// The pipeline as it was read, and as it was resolved.
fn write_run_files(
    dir: &Path,
    pipeline: &Pipeline,
    graph: &Graph,
    environment: &Environment,
) -> Result<(), CliError> {
    let stages: Vec<_> = graph
        .nodes
        .iter()
        .map(|n| {
            json!({
                "stage": n.name, "uses": n.kind, "identity": n.identity, "params": n.params,
                "execution": n.execution, "sources": n.provenance,
            })
        })
        .collect();
    let resolved = json!({
        "name": pipeline.name, "seed": pipeline.seed, "path": pipeline.path, "stages": stages,
        "environment": provenance(environment),
    });
    write(&dir.join("pipeline.json"), &format!("{resolved:#}\n"))
}

fn provenance(environment: &Environment) -> serde_json::Value {
    json!({
        "genius": env!("CARGO_PKG_VERSION"),
        "host": host_name(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "command_line": environment.command_line,
    })
}

fn to_json(report: &RunReport) -> String {
    serde_json::to_string(report).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|source| CliError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
