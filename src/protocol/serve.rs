//! The worker's side of the protocol: [`serve`] runs one job in this process.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    Context, Failure, HEARTBEAT_SECS, JobResult, Message, Outcome, PROTOCOL_VERSION, Request, Sink,
    VERSION,
};

/// How long a stage may take to stop by itself before the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the one job that stdin brings, and gives the process's exit code.
///
/// The real stdout is kept for messages and file descriptor 1 pointed at
/// stderr first, so that nothing a library prints can get between them.
pub fn serve(handler: impl FnOnce(&Context) -> JobResult) -> ExitCode {
    let Ok(out) = take_stdout() else {
        return ExitCode::FAILURE;
    };
    let out = Arc::new(Mutex::new(out));
    let send = {
        let out = Arc::clone(&out);
        move |message: &Message| write_line(&out, message)
    };
    send(&Message::Hello {
        protocol: PROTOCOL_VERSION,
        version: VERSION.to_owned(),
    });
    let mut input = BufReader::new(std::io::stdin());
    let job = match read_job(&mut input) {
        Ok(Some(job)) => job,
        Ok(None) => return ExitCode::FAILURE,
        Err(failure) => {
            send(&Message::Outcome(Outcome::Failed(failure)));
            return ExitCode::FAILURE;
        }
    };

    let cancelled = Arc::new(AtomicBool::new(false));
    watch_stdin(input, Arc::clone(&cancelled));
    let (stop_beating, stopped) = channel::<()>();
    let beat = {
        let out = Arc::clone(&out);
        std::thread::spawn(move || {
            let every = Duration::from_secs(HEARTBEAT_SECS);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                let peak_memory_bytes = peak_memory_bytes();
                write_line(&out, &Message::Heartbeat { peak_memory_bytes });
            }
        })
    };

    let sink: Sink = {
        let out = Arc::clone(&out);
        Arc::new(move |message| write_line(&out, &message))
    };
    let context = Context::new(*job, sink, Arc::clone(&cancelled));
    let result = catch_unwind(AssertUnwindSafe(|| handler(&context))).unwrap_or_else(|panic| {
        Err(
            Failure::new(format!("the stage panicked: {}", panic_text(&*panic)))
                .hint("this is a bug in Genius or in an engine: the stage's log has the trace"),
        )
    });
    drop(stop_beating);
    let _ = beat.join();
    let outcome = match result {
        Ok(figures) => Outcome::Done {
            figures,
            peak_memory_bytes: peak_memory_bytes(),
        },
        Err(_) if cancelled.load(Ordering::Relaxed) => Outcome::Cancelled,
        Err(failure) => Outcome::Failed(failure),
    };
    let done = matches!(outcome, Outcome::Done { .. });
    send(&Message::Outcome(outcome));
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The process's highest resident memory so far, bytes; 0 where it is not known.
pub fn peak_memory_bytes() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        u64::try_from(usage.max_rss()).unwrap_or(0) * unit
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "takes it away from all other code"
)]
fn take_stdout() -> std::io::Result<File> {
    // Not for the processes that a stage starts (pip): one that outlives this process would
    // hold the pipe open.
    let kept = std::io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(std::io::stderr())?;
    Ok(File::from(kept))
}

fn write_line(out: &Mutex<File>, message: &Message) {
    let Ok(mut line) = serde_json::to_vec(message) else {
        return;
    };
    line.push(b'\n');
    // A closed pipe means that the orchestrator is gone: stdin closes too, and ends this process.
    if let Ok(mut out) = out.lock() {
        let _ = out.write_all(&line);
    }
}

fn read_job(input: &mut impl BufRead) -> Result<Option<Box<super::Job>>, Failure> {
    let mut line = String::new();
    match input.read_line(&mut line) {
        Ok(0) | Err(_) => return Ok(None),
        Ok(_) => {}
    }
    // The version is looked at before the rest, which another version may write otherwise.
    let value: serde_json::Value = serde_json::from_str(&line)
        .map_err(|e| Failure::new(format!("the job is not JSON: {e}")))?;
    if value["type"] == "cancel" {
        return Ok(None);
    }
    let protocol = value.get("protocol").and_then(serde_json::Value::as_u64);
    let version = value.get("version").and_then(|v| v.as_str()).unwrap_or("?");
    if protocol != Some(u64::from(PROTOCOL_VERSION)) || version != VERSION {
        return Err(version_mismatch(version, VERSION));
    }
    match serde_json::from_value(value) {
        Ok(Request::Job { job, .. }) => Ok(Some(job)),
        Ok(Request::Cancel) => Ok(None),
        Err(e) => Err(Failure::new(format!("the job cannot be read: {e}"))),
    }
}

/// The failure of both sides when the other has another version.
pub fn version_mismatch(genius: &str, worker: &str) -> Failure {
    Failure::new(format!(
        "genius {genius} and its worker {worker} do not speak the same protocol"
    ))
    .hint(
        "build both from one checkout (`make build`); GENIUS_WORKER names the worker if it is set",
    )
}

/// Sets `cancelled` on request; ends the process when the orchestrator is gone
/// and the stage does not stop by itself.
fn watch_stdin(input: impl BufRead + Send + 'static, cancelled: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in input.lines() {
            let Ok(line) = line else { break };
            if let Ok(Request::Cancel) = serde_json::from_str(&line) {
                cancelled.store(true, Ordering::Relaxed);
            }
        }
        cancelled.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        #[expect(
            clippy::exit,
            reason = "no orchestrator is left to report to, and the stage does not stop"
        )]
        std::process::exit(1);
    });
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
