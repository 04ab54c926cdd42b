//! `genius run`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};

use super::environment::{Environment, host_name};
use super::pipeline_args::PipelineArgs;
use super::selection::SelectionArgs;
use super::{CliError, Terminal, trust, validate};
use crate::plan::{Earlier, Graph};
use crate::report::{LiveConsole, PlainConsole};
use crate::run::{self, Edge, Journal, Origin, Plan, PlannedStage, RunReport, Subscriber};
use crate::schedule::{self, ProcessLauncher, Programs, RunRequest};
use crate::spec::{LoadError, Pipeline};
use crate::store::{Lease, RunDir, Store};
use crate::text::Text;

/// Run a pipeline: compute what has no result yet, reuse the rest.
///
/// Each stage's outputs are stored under the hash of everything they were computed
/// from. A run looks up every stage and computes what is missing; an interrupted run
/// continues where it stopped. `--dry-run` (or `genius plan`) shows what would
/// happen, `genius explain` why.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Show what would run and what would be reused, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// The most stages to run at once [default: as many as the resources allow].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// When a stage fails, still run the stages that do not need it.
    #[arg(long, short)]
    keep_going: bool,
    /// Run the programs of `command` stages. Without it, only those of a file that
    /// is trusted (`genius trust`) run.
    #[arg(long)]
    allow_commands: bool,
    /// Print one JSON object on stdout at the end.
    #[arg(long)]
    json: bool,
    /// No progress and no table, only errors.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the pipeline.
///
/// # Errors
/// When the file is wrong, or the cache or machine fails. A failed stage is an exit
/// code, not an error.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    if args.dry_run {
        return super::plan::show(
            &args.pipeline,
            &args.selection,
            args.json,
            environment,
            terminal,
        );
    }
    let pipeline = match args.pipeline.load() {
        Err(CliError::Load(LoadError::Invalid(problems))) if args.json => {
            terminal.json(&validate::diagnostics_json(&problems));
            return Ok(ExitCode::from(3));
        }
        other => other?,
    };
    let guard = if args.allow_commands {
        None
    } else {
        trust::check(environment, &pipeline)?
    };
    let memory = args.pipeline.cache.memory(environment)?;
    let resolver = environment.resolver(Some(Arc::clone(&memory)));
    let machine = args.pipeline.machine(environment)?;
    let graph = args.pipeline.graph(&pipeline, &machine, &resolver)?;
    let (graph, forced) = args.selection.apply(graph)?;
    // Made only now, so that a run that cannot start leaves nothing behind.
    let store = args.pipeline.cache.open(environment)?;
    memory.save();
    // A failed removal must not stop the run.
    let _ = store.clean_tmp();
    let _ = store.clean_claims(&environment.times());
    let folder = RunFolder::make(&store, environment, terminal)?;
    let plan = plan_of(&pipeline, &graph, environment);
    run::write_plan(&folder.dir, &plan).map_err(not_written)?;

    let run_dir = Arc::clone(&folder.dir);
    let earlier = Earlier::new(&store, &pipeline.path, Some(folder.id()));
    let request = RunRequest {
        forced,
        run_id: folder.id(),
        run_dir: Arc::clone(&run_dir),
        lease: folder.lease,
        pipeline: pipeline.name.clone(),
        pipeline_path: pipeline.path.clone(),
        origin: plan.environment,
        capacity: machine.capacity(&args.pipeline.options()),
        jobs: args.jobs.map(|n| n as usize),
        keep_going: args.keep_going,
        why: Box::new(move |node, preimage| earlier.reason(node, preimage)),
        hash_source: {
            let memory = Arc::clone(&memory);
            Arc::new(move |path| memory.hash_path(path).ok())
        },
        may_start: match guard {
            Some(guard) => Arc::new(move |node| guard.may_start(node)),
            None => Arc::new(|_| Ok(())),
        },
        graph,
        store,
    };
    let report = drive(request, args, environment, terminal)?;
    memory.save();

    finish(&report, &run_dir, args, environment, terminal)
}

/// Writes and prints the report; the exit code.
fn finish(
    report: &RunReport,
    run_dir: &RunDir,
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let written = run::write_report(run_dir, report).map_err(not_written);
    if !args.quiet {
        terminal.status(crate::report::render(report, &environment.command_line));
    }
    if args.json {
        terminal.json(report);
    }
    // Reported last: what was computed is kept anyway.
    written?;
    Ok(ExitCode::from(match () {
        () if report.interrupted => 130,
        () if report.ok() => 0,
        () => 1,
    }))
}

/// Where a run leaves its events and logs.
struct RunFolder {
    dir: Arc<RunDir>,
    lease: Option<Lease>,
    /// If the cache cannot be written: a temporary folder, removed after the run.
    _temporary: Option<tempfile::TempDir>,
}

impl RunFolder {
    /// A folder of the cache; a temporary one if the cache is read-only, so that its
    /// results can still be used.
    fn make(
        store: &Store,
        environment: &Environment,
        terminal: &Terminal,
    ) -> Result<Self, CliError> {
        match store.begin_run(&environment.times()) {
            Ok(lease) => Ok(Self {
                dir: lease.folder(),
                lease: Some(lease),
                _temporary: None,
            }),
            Err(e) if e.is_of_disk() => {
                terminal.status(format!(
                    "warning: {e}; results in the cache are reused, but new ones cannot be stored\n"
                ));
                let made = tempfile::Builder::new()
                    .prefix("genius-run-")
                    .permissions(std::fs::Permissions::from_mode(0o700))
                    .tempdir();
                let failed = |source| CliError::Io {
                    action: "make a folder in",
                    path: std::env::temp_dir(),
                    source,
                };
                let temporary = made.map_err(failed)?;
                Ok(Self {
                    dir: Arc::new(RunDir::open(temporary.path()).map_err(failed)?),
                    lease: None,
                    _temporary: Some(temporary),
                })
            }
            Err(e) => Err(e.into()),
        }
    }

    fn id(&self) -> String {
        let name = self.dir.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Runs the dispatcher on a small runtime, listening for Ctrl-C.
fn drive(
    request: RunRequest,
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<RunReport, CliError> {
    // One thread: a program that is to end with this process ends with the thread
    // that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io {
            action: "start",
            path: PathBuf::from("the runtime"),
            source,
        })?;
    let programs = Programs {
        genius: environment.program.clone(),
        worker: environment.worker_program(),
    };
    let launcher = ProcessLauncher::new(programs, environment.variables.clone())
        .logs_in(Arc::clone(&request.run_dir));
    let launcher = Arc::new(launcher);
    let mut journal = Journal::new(Arc::clone(&request.run_dir));
    let mut live;
    let (mut plain, mut all);
    let console: &mut dyn Subscriber = if args.quiet {
        plain = PlainConsole::new(|text: &Text| terminal.line(text)).only_failures();
        &mut plain
    } else if terminal.live() {
        live = LiveConsole::new(terminal.color());
        &mut live
    } else {
        all = PlainConsole::new(|text: &Text| terminal.line(text));
        &mut all
    };
    let report = runtime.block_on(async {
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
    });
    // A second Ctrl-C does not wait for a large file to be hashed.
    runtime.shutdown_background();
    Ok(report)
}

/// A message for each request to stop (Ctrl-C or a signal).
///
/// It listens from now on, so that a signal that arrives while the run is busy is
/// not lost.
fn listen() -> mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let sender = sender.clone();
        if let Ok(mut signals) = signal(kind) {
            tokio::spawn(async move {
                while signals.recv().await.is_some() && sender.send(()).is_ok() {}
            });
        }
    }
    receiver
}

/// The plan that the run records.
fn plan_of(pipeline: &Pipeline, graph: &Graph, environment: &Environment) -> Plan {
    let stages = graph.nodes.iter().map(|node| PlannedStage {
        name: node.name.clone(),
        stage: node.stage.clone(),
        variants: node.variants.clone(),
        uses: Some(node.kind()),
        needs: (node.needs.iter())
            .map(|(slot, need)| {
                let edge = Edge {
                    stage: graph.nodes[need.from].name.clone(),
                    output: need.output.clone(),
                };
                (slot.clone(), edge)
            })
            .collect(),
        outputs: node.outputs.clone(),
        identity: node.identity.clone(),
        params: node.params.to_value(),
        numerics: json!(node.numerics),
        execution: node.execution.clone(),
        sources: node.provenance.clone(),
    });
    Plan {
        format: run::FORMAT,
        name: pipeline.name.clone(),
        path: pipeline.path.clone(),
        seed: pipeline.seed,
        digest: pipeline.digest.clone(),
        environment: Origin {
            genius: env!("CARGO_PKG_VERSION").to_owned(),
            source: crate::protocol::VERSION.to_owned(),
            host: host_name(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            command_line: environment.command_line.clone(),
        },
        stages: stages.collect(),
    }
}

fn not_written((path, source): (PathBuf, std::io::Error)) -> CliError {
    CliError::Io {
        action: "write",
        path,
        source,
    }
}
