//! [`ProcessLauncher`]: runs each job in a process of its own and watches it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::reap::{Group, Started};
use super::{JobEnd, Launch, Stop, WorkerEvent, start};
use crate::kind::{Params, Program};
use crate::protocol::{
    Failure, Job, Message, Outcome, PROTOCOL_VERSION, Request, VERSION, version_mismatch,
};
use crate::run::Exit;
use crate::store::{RunDir, StageLog};

/// How long a worker may stay silent. Heartbeats come every second.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a worker may take to stop when asked.
const GRACE: Duration = Duration::from_millis(700);
/// How long to go on reading when a worker has ended but its pipe is still open.
const DRAIN: Duration = Duration::from_millis(500);
/// How many lines of stderr a failure shows.
const LAST_WORDS: usize = 20;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// This program, which runs light stages itself (`internal-worker`).
    pub genius: PathBuf,
    /// The program for stages that need a model.
    pub worker: PathBuf,
}

/// Runs each job in a process group of its own.
#[derive(Debug, Clone)]
pub struct ProcessLauncher {
    programs: Programs,
    /// Variables of this process: commands may see some of them, and they list the devices.
    environment: Arc<BTreeMap<String, String>>,
    silence: Duration,
    /// The run's folder, held open; logs are opened through it.
    logs: Option<Arc<RunDir>>,
}

impl ProcessLauncher {
    /// A launcher of these programs.
    pub fn new(programs: Programs, environment: BTreeMap<String, String>) -> Self {
        Self {
            programs,
            environment: Arc::new(environment),
            silence: SILENCE,
            logs: None,
        }
    }

    /// Sets how long a worker may stay silent.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Opens logs through this open folder, whatever has been put at its path meanwhile.
    #[must_use]
    pub fn logs_in(mut self, folder: Arc<RunDir>) -> Self {
        self.logs = Some(folder);
        self
    }

    fn log(&self, path: &Path) -> Result<StageLog, Failure> {
        StageLog::at(path, self.logs.as_ref())
            .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
    }

    fn command(&self, job: &Job) -> Command {
        if job.kind().program() == Program::Worker {
            Command::new(&self.programs.worker)
        } else {
            let mut command = Command::new(&self.programs.genius);
            command.arg("internal-worker");
            command
        }
    }
}

impl Launch for ProcessLauncher {
    fn launch(
        &self,
        node: usize,
        job: Job,
        log: PathBuf,
        events: mpsc::Sender<WorkerEvent>,
        stop: watch::Receiver<Stop>,
    ) -> Pin<Box<dyn Future<Output = JobEnd> + Send>> {
        let log = match self.log(&log) {
            Ok(log) => log,
            Err(failure) => return Box::pin(async move { JobEnd::failed(failure) }),
        };
        if let Params::Command(params) = &job.params {
            let (params, environment) = (params.clone(), Arc::clone(&self.environment));
            return Box::pin(async move {
                super::command::run(job, &params, &log, &environment, stop).await
            });
        }
        let mut command = self.command(&job);
        if let Some(devices) = visible_devices(&job.execution.gpus, &self.environment) {
            command.env("CUDA_VISIBLE_DEVICES", devices);
        }
        if job.execution.threads > 0 {
            // Engines size their thread pools by these before any of our code runs.
            for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"] {
                command.env(name, job.execution.threads.to_string());
            }
        }
        let silence = self.silence;
        Box::pin(async move {
            let program = PathBuf::from(command.get_program());
            match Running::start(command, &program, &job, &log) {
                Ok(running) => running.watch(node, job, events, stop, silence).await,
                Err(failure) => JobEnd::failed(failure),
            }
        })
    }
}

/// A worker process.
struct Running {
    group: Group,
    /// Answers when the worker itself has ended.
    ended: oneshot::Receiver<()>,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    log: StageLog,
    log_start: u64,
    /// As the worker reported it last.
    peak_memory_bytes: u64,
}

impl Running {
    fn start(
        mut command: Command,
        program: &Path,
        job: &Job,
        log: &StageLog,
    ) -> Result<Self, Failure> {
        // A relative entry in PATH must not decide what runs.
        if !program.is_absolute() {
            let what = format!(
                "cannot start {}: it is in none of the absolute folders in PATH",
                program.display()
            );
            return Err(Failure::new(what).hint("set GENIUS_WORKER to the path of genius-worker"));
        }
        let file = log
            .append()
            .map_err(|e| Failure::new(format!("cannot write {log}: {e}")))?;
        let log_start = file.metadata().map_or(0, |m| m.len());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file);
        let Started {
            group,
            stdin,
            stdout,
            ended,
        } = Group::start(&mut command).map_err(|e| {
            let (why, cure) = start::cause(&e, &command);
            let failure = Failure::new(format!("cannot start {}: {why}", program.display()));
            match (e.kind(), cure) {
                (std::io::ErrorKind::NotFound, _) if job.kind().program() == Program::Worker => failure.hint(
                    "build it with `make build`, put genius-worker beside genius, or set GENIUS_WORKER",
                ),
                (std::io::ErrorKind::NotFound, _) => {
                    failure.hint("the genius program was moved or removed while it ran")
                }
                (_, Some(cure)) => failure.hint(cure),
                (_, None) => failure,
            }
        })?;
        let no_pipe =
            |e: std::io::Error| Failure::new(format!("cannot open a pipe to the worker: {e}"));
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(Failure::new("the worker has no pipes"));
        };
        let stdout = ChildStdout::from_std(stdout).map_err(no_pipe)?;
        Ok(Self {
            group,
            ended,
            stdin: Some(ChildStdin::from_std(stdin).map_err(no_pipe)?),
            lines: BufReader::new(stdout).lines(),
            log: log.clone(),
            log_start,
            peak_memory_bytes: 0,
        })
    }

    /// Reads the worker's messages until it has ended or has to be killed.
    async fn watch(
        mut self,
        node: usize,
        job: Job,
        events: mpsc::Sender<WorkerEvent>,
        mut stop: watch::Receiver<Stop>,
        silence: Duration,
    ) -> JobEnd {
        let mut job = Some(job);
        let mut kill_at = None;
        let mut heard = Instant::now();
        let mut gone = false;
        let end = loop {
            let deadline = kill_at.unwrap_or(heard + silence);
            tokio::select! {
                // In this order: a worker that sends messages without end must not delay a
                // stop, and messages already sent count before silence does.
                biased;
                changed = stop.changed() => {
                    let wanted = if changed.is_err() { Stop::Now } else { *stop.borrow_and_update() };
                    match wanted {
                        Stop::No => {}
                        // One that has no job yet has nothing to stop.
                        Stop::Soon if job.is_none() => {
                            self.send(&Request::Cancel).await;
                            kill_at = Some(Instant::now() + GRACE);
                        }
                        Stop::Soon | Stop::Now => break Some(self.kill_with(Outcome::Cancelled)),
                    }
                },
                line = self.lines.next_line() => {
                    match line {
                        Ok(Some(line)) => {
                            if let Some(end) = self.receive(&line, node, &mut job, &events).await {
                                break Some(end);
                            }
                        }
                        Ok(None) => break None,
                        Err(e) => {
                            let what = format!("the worker's messages cannot be read: {e}");
                            break Some(self.kill_with(Outcome::Failed(Failure::new(what))));
                        }
                    }
                    // Only now, since sending events to the dispatcher may have taken long.
                    heard = Instant::now();
                },
                _ = &mut self.ended, if !gone => {
                    // A child may hold its stdout open; its own messages are in the pipe.
                    gone = true;
                    kill_at = Some(Instant::now() + DRAIN);
                },
                () = tokio::time::sleep_until(deadline) => {
                    break if gone {
                        None
                    } else if kill_at.is_some() {
                        Some(self.kill_with(Outcome::Cancelled))
                    } else {
                        let what = format!(
                            "the worker sent no heartbeat for {} s and was killed", silence.as_secs_f32()
                        );
                        let failure = Failure::new(what)
                            .hint("it may have been stopped (SIGSTOP), or the machine may be swapping");
                        Some(self.kill_with(Outcome::Failed(failure)))
                    };
                }
            }
        };
        let stopping = *stop.borrow() != Stop::No;
        self.finish(end, stopping, gone).await
    }

    /// Handles one message. Returns the job's outcome if it ends the job.
    async fn receive(
        &mut self,
        line: &str,
        node: usize,
        job: &mut Option<Job>,
        events: &mpsc::Sender<WorkerEvent>,
    ) -> Option<Outcome> {
        match serde_json::from_str::<Message>(line) {
            Ok(Message::Hello { protocol, version }) => {
                if protocol != PROTOCOL_VERSION || version != VERSION {
                    return Some(
                        self.kill_with(Outcome::Failed(version_mismatch(VERSION, &version))),
                    );
                }
                if let Some(job) = job.take() {
                    let job = Box::new(job);
                    self.send(&Request::Job {
                        protocol,
                        version,
                        job,
                    })
                    .await;
                }
            }
            Ok(Message::Heartbeat { peak_memory_bytes }) => {
                self.peak_memory_bytes = peak_memory_bytes;
            }
            Ok(Message::Progress(progress)) => {
                let _ = events.send(WorkerEvent::Progress(node, progress)).await;
            }
            Ok(Message::Log { level, text }) => {
                let _ = events.send(WorkerEvent::Log(node, level, text)).await;
            }
            // The last message: a library that hangs at exit changes no result.
            Ok(Message::Outcome(outcome)) => {
                if let Outcome::Done {
                    peak_memory_bytes, ..
                } = outcome
                {
                    self.peak_memory_bytes = peak_memory_bytes;
                }
                return Some(outcome);
            }
            Err(e) => {
                let what = format!(
                    "the worker sent something that is not of the protocol ({e}): {}",
                    shorten(line)
                );
                let failure = Failure::new(what)
                    .hint("GENIUS_WORKER may name another program than genius-worker");
                return Some(self.kill_with(Outcome::Failed(failure)));
            }
        }
        None
    }

    /// Waits for the process, and explains an end without an outcome.
    async fn finish(mut self, end: Option<Outcome>, stopping: bool, gone: bool) -> JobEnd {
        drop(self.stdin.take());
        if !gone && tokio::time::timeout(GRACE, &mut self.ended).await.is_err() {
            self.kill();
            let _ = (&mut self.ended).await;
        }
        // Kills whatever the worker itself started.
        let exit = self.group.finish().ok().map(|reaped| reaped.exit);
        let outcome = match end {
            Some(outcome) => outcome,
            None if stopping => Outcome::Cancelled,
            None => Outcome::Failed(self.explain(exit.as_ref())),
        };
        JobEnd {
            outcome,
            peak_memory_bytes: self.peak_memory_bytes,
            exit,
        }
    }

    /// Explains an end without an outcome.
    fn explain(&self, exit: Option<&Exit>) -> Failure {
        let how = match exit {
            Some(Exit {
                signal: Some(signal),
                ..
            }) => format!("the worker was killed by {signal}"),
            Some(exit) => format!("the worker ended with {exit} and no outcome"),
            None => "the worker ended without an outcome".to_owned(),
        };
        let failure = last_words(&how, &self.log, self.log_start);
        if exit.is_some_and(|e| e.signal.as_deref() == Some("SIGKILL")) {
            failure.hint("the kernel kills processes when memory runs out (see `dmesg`); a smaller micro_batch, width or max_length needs less")
        } else {
            failure
        }
    }

    async fn send(&mut self, request: &Request) {
        let (Some(stdin), Ok(mut line)) = (self.stdin.as_mut(), serde_json::to_vec(request)) else {
            return;
        };
        line.push(b'\n');
        // A closed pipe shows as the end of its messages.
        let _ = stdin.write_all(&line).await;
        let _ = stdin.flush().await;
    }

    fn kill(&mut self) {
        self.group.signal(Signal::SIGKILL);
    }

    fn kill_with(&mut self, outcome: Outcome) -> Outcome {
        self.kill();
        outcome
    }
}

/// `CUDA_VISIBLE_DEVICES` for a stage: its devices by the system's own numbers, looked up in
/// this process's list if it has one.
pub(super) fn visible_devices(
    gpus: &[u32],
    environment: &BTreeMap<String, String>,
) -> Option<String> {
    if gpus.is_empty() {
        return None;
    }
    let listed: Vec<&str> = environment
        .get("CUDA_VISIBLE_DEVICES")
        .map(|list| list.split(',').map(str::trim).collect())
        .unwrap_or_default();
    let name = |&gpu: &u32| {
        listed
            .get(gpu as usize)
            .map_or_else(|| gpu.to_string(), |&listed| listed.to_owned())
    };
    Some(gpus.iter().map(name).collect::<Vec<_>>().join(","))
}

/// A failure that shows the last lines of a log.
pub(super) fn last_words(how: &str, log: &StageLog, start: u64) -> Failure {
    let words = tail(log, start, LAST_WORDS);
    Failure::new(if words.is_empty() {
        how.to_owned()
    } else {
        format!("{how}. Its last words:\n{words}")
    })
}

/// The last lines of a log from `start` on, indented.
fn tail(log: &StageLog, start: u64, lines: usize) -> String {
    const MOST: u64 = 16 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = log.open()?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(MOST))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|l| format!("    {}", shorten(l)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn shorten(line: &str) -> String {
    const MOST: usize = 300;
    let clean: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(MOST)
        .collect();
    if clean.chars().count() == MOST {
        format!("{clean}...")
    } else {
        clean
    }
}
