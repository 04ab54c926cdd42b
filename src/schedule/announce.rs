//! [`ask`]: what a worker program computes with, asked of the program itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::reap::end_with_parent;
use super::start::{self, BUSY_PAUSE, TRIES_WHILE_BUSY};
use crate::protocol::{Capabilities, CapabilitiesError};
use crate::run::Exit;

/// A driver may take many seconds to look at its devices.
const LIMIT: Duration = Duration::from_secs(60);
/// Characters of a stderr that a failure shows.
const LAST_WORDS: usize = 500;

/// Runs `program --capabilities`.
///
/// # Errors
/// When it does not start, does not end, fails, or prints something else.
pub fn ask(program: &Path) -> Result<Capabilities, CapabilitiesError> {
    ask_within(program, LIMIT)
}

fn ask_within(program: &Path, limit: Duration) -> Result<Capabilities, CapabilitiesError> {
    let failed = |why: String| CapabilitiesError::Program {
        program: program.to_owned(),
        why,
    };
    if !program.is_absolute() {
        // The current folder, which PATH may name, does not decide what runs.
        return Err(failed(
            "it is in none of the folders that PATH names absolutely".to_owned(),
        ));
    }
    let output = output(program, limit).map_err(failed)?;
    let words = || {
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.trim();
        let skipped = text.chars().count().saturating_sub(LAST_WORDS);
        match text.chars().skip(skipped).collect::<String>() {
            words if words.is_empty() => String::new(),
            words => format!("; its last words: {words}"),
        }
    };
    if !output.status.success() {
        return Err(failed(format!(
            "it ended with {}{}",
            Exit::from(output.status),
            words()
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Capabilities::parse(&text).map_err(|e| failed(format!("of what it printed: {e}")))
}

/// What it printed and how it ended; else why not, for a person.
fn output(program: &Path, limit: Duration) -> Result<Output, String> {
    let mut command = Command::new(program);
    command
        .arg("--capabilities")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0);
    end_with_parent(&mut command);
    let child = spawn(&mut command)
        .map_err(|e| format!("it cannot be started: {}", start::cause(&e, &command).0))?;
    let id = child.id();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let result = ended.recv_timeout(limit);
    if result.is_err()
        && let Ok(id) = i32::try_from(id)
    {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    match result {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(e)) => Err(format!("it cannot be heard: {e}")),
        Err(_) => Err(format!("it did not end within {} s", limit.as_secs_f32())),
    }
}

/// As `start::start`, for one who can wait.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 1..TRIES_WHILE_BUSY {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(BUSY_PAUSE);
            }
            started => return started,
        }
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::protocol::{DeviceKind, example};

    /// Asks a shell script of these lines.
    fn say(lines: &str) -> Result<Capabilities, String> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("worker");
        std::fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ask_within(&program, Duration::from_secs(2)).map_err(|e| {
            assert!(e.hint().contains("make build"));
            e.to_string().replace(dir.path().to_str().unwrap(), "DIR")
        })
    }

    #[test]
    fn a_worker_announces_itself() {
        let there = example::with_gpus("avx512", &[DeviceKind::Cuda; 8]);
        let line = serde_json::to_string(&there).unwrap();
        let lines = format!("[ \"$*\" = --capabilities ] && echo warning >&2 && echo '{line}'");
        assert_eq!(say(&lines), Ok(there));
    }

    #[test]
    fn a_worker_that_does_not_is_named_with_what_it_did() {
        insta::assert_snapshot!(say("echo 'it takes no arguments' >&2; exit 2").unwrap_err(), @"DIR/worker does not announce what it computes with: it ended with exit code 2; its last words: it takes no arguments");
        insta::assert_snapshot!(say("kill -9 $$").unwrap_err(), @"DIR/worker does not announce what it computes with: it ended with SIGKILL");
        insta::assert_snapshot!(say("echo hello").unwrap_err(), @"DIR/worker does not announce what it computes with: of what it printed: it is not what `genius-worker --capabilities` prints: expected value at line 1 column 1");
        insta::assert_snapshot!(say("echo '{\"format\":7}'").unwrap_err(), @"DIR/worker does not announce what it computes with: of what it printed: it is of format 7, and this genius reads format 1");
        insta::assert_snapshot!(say("sleep 100 & sleep 100").unwrap_err(), @"DIR/worker does not announce what it computes with: it did not end within 2 s");
        let asked = |program: &str| ask(Path::new(program)).unwrap_err();
        insta::assert_snapshot!(asked("/nowhere/genius-worker"), @"/nowhere/genius-worker does not announce what it computes with: it cannot be started: /nowhere/genius-worker does not exist");
        insta::assert_snapshot!(asked("genius-worker"), @"genius-worker does not announce what it computes with: it is in none of the folders that PATH names absolutely");
    }
}
