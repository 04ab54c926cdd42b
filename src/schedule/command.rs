//! Runs the program of a `command` stage: without a shell unless asked for, in an empty
//! working folder, with only the variables that the stage declares.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::process::last_words;
use super::reap::{self, Reaped, Started};
use super::{JobEnd, Stop, start};
use crate::kind::command::{Params, Piece, pieces};
use crate::kind::script::{self, Code};
use crate::protocol::{Failure, Job, Outcome};
use crate::store::{StageLog, Written};

/// How long a program may take to stop after SIGTERM.
const GRACE: Duration = Duration::from_millis(700);

/// Runs the program to its end.
pub(super) async fn run(
    job: Job,
    params: &Params,
    log: &StageLog,
    environment: &BTreeMap<String, String>,
    stop: watch::Receiver<Stop>,
) -> JobEnd {
    match prepare(&job, params, log, environment) {
        Ok(command) => watch(command, params, log, stop).await,
        Err(failure) => JobEnd::failed(failure),
    }
}

/// Builds the command to start, and creates the folders of the outputs.
fn prepare(
    job: &Job,
    params: &Params,
    log: &StageLog,
    environment: &BTreeMap<String, String>,
) -> Result<Command, Failure> {
    for name in params.outputs.keys() {
        let folder = job.output_dir.join(name);
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure::new(format!("cannot create {}: {e}", folder.display())))?;
    }
    let arguments = params
        .run
        .iter()
        .enumerate()
        .map(|(index, argument)| {
            let code = script::code_at(&params.run, params.shell, index);
            expand(argument, params, job, code.map(|code| (index, code)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut command = if params.shell {
        let mut shell = Command::new("sh");
        shell.arg("-euc").args(&arguments);
        shell
    } else {
        let mut arguments = arguments.into_iter();
        let program = arguments
            .next()
            .ok_or_else(|| Failure::new("`run` names no program"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    command.env_clear();
    for name in params.pass_through.iter().chain(&params.inherit) {
        if let Some(value) = environment.get(name) {
            command.env(name, value);
        }
    }
    command.env("TMPDIR", &job.scratch_dir);
    for (name, value) in &params.env {
        command.env(name, expand(value, params, job, None)?);
    }
    if let Some(devices) = super::process::visible_devices(&job.execution.gpus, environment) {
        command.env("CUDA_VISIBLE_DEVICES", devices);
    }
    let output = log
        .append()
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|e| Failure::new(format!("cannot write {log}: {e}")))?;
    command
        .current_dir(&job.scratch_dir)
        .stdin(Stdio::null())
        .stdout(output.0)
        .stderr(output.1);
    Ok(command)
}

/// Replaces the placeholders of an argument. If the argument is read as code (`code`: its
/// index in `run`, and the language), paths with characters special there are refused.
fn expand(
    argument: &str,
    params: &Params,
    job: &Job,
    code: Option<(usize, Code)>,
) -> Result<OsString, Failure> {
    let mut out = OsString::new();
    for piece in pieces(argument) {
        let (what, name, path) = match piece {
            Piece::Text(text) => {
                out.push(text);
                continue;
            }
            Piece::Input(name) => ("input", name, job.inputs.get(name).cloned()),
            Piece::File(name) => ("file", name, params.files.get(name).cloned()),
            Piece::Output(name) => {
                let declared = params.outputs.contains_key(name);
                let path = declared.then(|| job.output_dir.join(name));
                ("output", name, path)
            }
        };
        let path = path.ok_or_else(|| {
            Failure::new(format!(
                "`{argument}` names the {what} `{name}`, which is not declared"
            ))
        })?;
        if let Some((index, code)) = code
            && let Some(sign) = script::sign_in(&path, code)
        {
            let placeholder = format!("{{{what}s.{name}}}");
            return Err(
                Failure::new(script::refusal(&placeholder, index, &path, sign))
                    .hint(script::cure(&placeholder, name)),
            );
        }
        out.push(path);
    }
    Ok(out)
}

/// Waits for the program, and stops it when asked.
async fn watch(
    mut command: Command,
    params: &Params,
    log: &StageLog,
    mut stop: watch::Receiver<Stop>,
) -> JobEnd {
    // The program's own output starts here.
    let log_start = log.end();
    let program = command.get_program().to_string_lossy().into_owned();
    reap::end_with_parent(&mut command);
    let started = match start::start(&mut command).await {
        Ok(started) => started,
        Err(e) => return JobEnd::failed(start::explain(&e, &command, params)),
    };
    let Started {
        group, mut ended, ..
    } = started;
    let mut stopped = false;
    let mut kill_at = None;
    loop {
        tokio::select! {
            _ = &mut ended => break,
            changed = stop.changed() => {
                let wanted = if changed.is_err() { Stop::Now } else { *stop.borrow_and_update() };
                if wanted != Stop::No {
                    stopped = true;
                    let signal = if wanted == Stop::Soon { Signal::SIGTERM } else { Signal::SIGKILL };
                    group.signal(signal);
                    kill_at.get_or_insert_with(|| tokio::time::Instant::now() + GRACE);
                }
                if changed.is_err() {
                    let _ = (&mut ended).await;
                    break;
                }
            }
            () = tokio::time::sleep_until(kill_at.unwrap_or_else(tokio::time::Instant::now)), if kill_at.is_some() => {
                group.signal(Signal::SIGKILL);
                let _ = (&mut ended).await;
                break;
            }
        }
    }
    // Kills whatever it left running.
    let Ok(Reaped {
        exit,
        peak_memory_bytes,
    }) = group.finish()
    else {
        return JobEnd::failed(Failure::new(format!(
            "the exit status of `{program}` could not be read"
        )));
    };
    if stopped {
        return JobEnd::cancelled();
    }
    let failure = if exit.ok() {
        None
    } else {
        let words = last_words(&format!("`{program}` ended with {exit}"), log, log_start);
        Some(match start::hint_after_exit(&command, &exit) {
            Some(cure) => words.hint(cure),
            None => words,
        })
    };
    let outcome = match failure {
        None => Outcome::Done {
            figures: Vec::new(),
            peak_memory_bytes,
        },
        Some(failure) => Outcome::Failed(failure),
    };
    JobEnd {
        outcome,
        peak_memory_bytes,
        exit: Some(exit),
    }
}

/// Checks that the outputs hold what they declare.
pub(super) fn check(params: &Params, written: &[(&String, Written)]) -> Result<(), Failure> {
    for (name, written) in written {
        let Some(output) = params.outputs.get(*name) else {
            continue;
        };
        for file in &output.files {
            if !written.files().any(|(path, _)| path == file) {
                return Err(Failure::new(format!(
                    "the program succeeded but did not write `{file}` of its output `{name}`"
                ))
                .hint(format!(
                    "write it to `{{outputs.{name}}}/{file}`; nothing was kept"
                )));
            }
        }
        let empty = written.files().find(|(_, bytes)| *bytes == 0);
        if output.nonempty
            && let Some((path, _)) = empty
        {
            return Err(Failure::new(format!(
                "the program succeeded but {path} of its output `{name}` is empty"
            ))
            .hint("the output is declared `nonempty`; nothing was kept"));
        }
    }
    Ok(())
}
