//! Workers that crash, hang, lie or are killed, and a `genius` that is
//! interrupted or killed: with the real `genius`, and fake workers (shell
//! scripts that speak just enough of the protocol).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use genius::kind::StageKind;
use genius::protocol::{Execution, Job, Outcome, PROTOCOL_VERSION, Request};
use genius::schedule::{JobEnd, Launch, ProcessLauncher, Programs, Stop, WorkerEvent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::project::{FAR, Project, Said, WITH_MODEL, line_of, until};

/// Says hello, reads the job, and finds `$out`, its folder of outputs.
const HELLO: &str = r#"
say() { printf '%s\n' "$1"; }
say '{"type":"hello","protocol":PROTOCOL,"version":"VERSION"}'
read -r job
out=$(printf '%s' "$job" | sed 's/.*"output_dir":"\([^"]*\)".*/\1/')
"#;
/// Writes a model, and says so.
const WORK: &str = r#"
mkdir -p "$out/model"
echo '{}' > "$out/model/config.json"
say '{"type":"outcome","status":"done","figures":[],"peak_memory_bytes":1}'
"#;

/// A fake worker in the project's folder: `HELLO`, then these lines.
fn fake_worker(project: &Project, lines: &str) -> PathBuf {
    let hello = HELLO
        .replace("PROTOCOL", &PROTOCOL_VERSION.to_string())
        .replace("VERSION", genius::protocol::VERSION);
    fake_program(project, &format!("{hello}\n{lines}\n"))
}

fn fake_program(project: &Project, lines: &str) -> PathBuf {
    let path = project.write("fake-worker.sh", &format!("#!/bin/sh\n{lines}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}

fn run_with(project: &Project, worker: &std::path::Path) -> Command {
    let mut command = project.genius(&["run", "p.yaml"]);
    command.env("GENIUS_WORKER", worker);
    command
}

/// What `genius run` says with that fake worker.
fn run(project: &Project, worker: &std::path::Path) -> Said {
    Said::new(run_with(project, worker).output().expect("genius starts"))
}

/// What `genius run` says to a fake worker that does this after the job came.
fn said_to(lines: &str) -> Said {
    let project = Project::new(WITH_MODEL);
    let worker = fake_worker(&project, lines);
    run(&project, &worker)
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(id), signal).expect("a signal");
}

fn is_alive(id: &str) -> bool {
    // A process that ended and that nobody has asked after yet counts as ended.
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}

#[test]
fn a_worker_that_works() {
    said_to(WORK).code(0).shows("2 executed, 0 cached");
}

#[test]
fn a_crash_shows_the_last_words_and_leaves_the_rest() {
    said_to("echo 'first words' >&2; echo 'CUDA is on fire' >&2; exit 3")
        .code(1)
        .shows("the worker ended with exit code 3 and no outcome")
        .shows("CUDA is on fire")
        .shows("1 executed, 0 cached, 1 failed");
}

#[test]
fn an_end_without_an_outcome_is_a_failure() {
    said_to("exit 0")
        .code(1)
        .shows("exit code 0 and no outcome");
}

#[test]
fn a_worker_that_is_killed_hints_at_memory() {
    said_to("kill -9 $$")
        .code(1)
        .shows("the worker was killed by SIGKILL")
        .shows("when memory runs out");
}

#[test]
fn a_child_of_a_dead_worker_keeps_nobody_waiting() {
    let started = Instant::now();
    let project = Project::new(WITH_MODEL);
    let pid = project.path("pid");
    let lines = format!("sleep 3600 & echo $! > {}; kill -9 $$", pid.display());
    let worker = fake_worker(&project, &lines);
    run(&project, &worker).code(1).shows("SIGKILL");
    assert!(started.elapsed() < FAR);
    let child = line_of(&pid);
    until("the child of the worker is gone too", || !is_alive(&child));
}

#[test]
fn a_worker_that_hangs_after_its_outcome_changes_no_result() {
    // `exec` so that the last process reads stdin, as a worker does, and ignores its end.
    said_to(&format!("{WORK}\nexec sleep 60")).code(0);
}

#[test]
fn another_version_is_refused() {
    let project = Project::new(WITH_MODEL);
    let worker = fake_program(
        &project,
        r#"echo '{"type":"hello","protocol":99,"version":"9.9.9"}'; read -r job"#,
    );
    run(&project, &worker)
        .code(1)
        .shows("9.9.9 do not speak the same protocol")
        .shows("build both from one checkout");
}

#[test]
fn another_program_is_no_worker() {
    let project = Project::new(WITH_MODEL);
    let worker = fake_program(&project, "echo 'Hello, I am a shell.'; read -r job");
    run(&project, &worker)
        .code(1)
        .shows("not of the protocol")
        .shows("Hello, I am a shell.")
        .shows("GENIUS_WORKER");
}

#[test]
fn an_output_that_was_not_written_is_not_kept() {
    let project = Project::new(WITH_MODEL);
    let outcome = WORK.lines().last().unwrap_or_default();
    let worker = fake_worker(&project, outcome);
    run(&project, &worker)
        .code(1)
        .shows("did not write its output `model`");
    let worker = fake_worker(&project, WORK);
    run(&project, &worker).code(0).shows("1 executed, 1 cached");
}

#[test]
fn a_worker_that_is_not_there_is_named_with_a_remedy() {
    let project = Project::new(WITH_MODEL);
    let missing = project.path("nowhere/genius-worker");
    run(&project, &missing)
        .code(1)
        .shows("cannot start ")
        .shows("nowhere/genius-worker")
        .shows("set GENIUS_WORKER");
}

#[test]
fn what_a_worker_says_on_stderr_is_in_the_log_and_not_on_the_console() {
    let project = Project::new(WITH_MODEL);
    let lines = format!(
        "echo chatter >&2\nsay '{{\"type\":\"log\",\"level\":\"info\",\"text\":\"details\"}}'\n\
         say '{{\"type\":\"log\",\"level\":\"warn\",\"text\":\"beware\"}}'\n{WORK}"
    );
    let worker = fake_worker(&project, &lines);
    let said = run(&project, &worker).code(0).shows("warning: beware");
    assert!(!said.stderr.contains("chatter") && !said.stderr.contains("details"));
    let runs = std::fs::read_dir(project.path("cache/runs")).expect("runs");
    let run = runs
        .map(|e| e.expect("a run").path())
        .next()
        .expect("a run");
    let log = std::fs::read_to_string(run.join("policy.log")).expect("a log");
    assert_eq!(log, "chatter\n[info] details\n[warn] beware\n");
}

/// Runs a model job of the fake worker without a `genius` around it.
fn launch(project: &Project, worker: PathBuf, silence: Duration) -> (JobEnd, Duration) {
    let job = Job {
        stage: "policy".into(),
        params: StageKind::Model
            .params(json!({ "source": { "path": "/nowhere" } }))
            .expect("parameters"),
        numerics: None,
        execution: Execution::default(),
        inputs: [].into(),
        input_hashes: [].into(),
        partial: None,
        shard: None,
        notes: Vec::new(),
        output_dir: project.path("out"),
        scratch_dir: project.path("scratch"),
    };
    let genius = PathBuf::from(env!("CARGO_BIN_EXE_genius"));
    let launcher = ProcessLauncher::new(Programs { genius, worker }, std::env::vars().collect())
        .silence(silence);
    let (events, mut told) = mpsc::channel::<WorkerEvent>(64);
    let (_stop, stopped) = watch::channel(Stop::No);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let started = Instant::now();
    let end = runtime.block_on(async {
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let log = project.path("policy.log");
        launcher.launch(0, job, log, events, stopped).await
    });
    (end, started.elapsed())
}

#[test]
fn a_worker_without_a_heartbeat_is_ended() {
    let project = Project::new(WITH_MODEL);
    let pid = project.path("pid");
    let lines = format!("echo $$ > {}; exec sleep 3600", pid.display());
    let worker = fake_worker(&project, &lines);
    let (end, time) = launch(&project, worker, Duration::from_millis(1500));
    let Outcome::Failed(failure) = &end.outcome else {
        panic!("{end:?}");
    };
    assert!(
        failure.message.contains("no heartbeat for 1.5 s"),
        "{failure}"
    );
    assert!(time < FAR, "{time:?}");
    assert!(!is_alive(&line_of(&pid)));
}

#[test]
fn a_heartbeat_is_a_sign_of_life() {
    let project = Project::new(WITH_MODEL);
    let beat = r#"say '{"type":"heartbeat","peak_memory_bytes":1}'; sleep 0.5"#;
    let worker = fake_worker(&project, &format!("{}\n{WORK}", [beat; 6].join("\n")));
    let (end, _) = launch(&project, worker, Duration::from_millis(2000));
    assert!(matches!(end.outcome, Outcome::Done { .. }), "{end:?}");
}

#[test]
fn an_interruption_stops_the_worker_and_says_how_to_go_on() {
    let project = Project::new(WITH_MODEL);
    let pid = project.path("pid");
    let polite = format!(
        "echo $$ > {}\nread -r cancel\nsay '{{\"type\":\"outcome\",\"status\":\"cancelled\"}}'",
        pid.display()
    );
    let worker = fake_worker(&project, &polite);
    let child = project.start(run_with(&project, &worker));
    let worker_id = line_of(&pid);
    // The other stage needs no worker, and is finished by then.
    until("the queries are kept", || {
        project
            .path("cache/records")
            .read_dir()
            .is_ok_and(|mut d| d.next().is_some())
    });
    signal(&child, Signal::SIGINT);
    let said = Said::new(child.wait_with_output().expect("an end"))
        .code(130)
        .shows("stopping the workers")
        .shows("Interrupted")
        .shows("run p.yaml");
    assert_eq!(said.stdout, "");
    assert!(!is_alive(&worker_id));
    assert_eq!(project.temporaries(), [""; 0]);

    let worker = fake_worker(&project, WORK);
    run(&project, &worker).code(0).shows("1 executed, 1 cached");
}

#[test]
fn a_second_interruption_ends_a_worker_that_does_not_listen() {
    let project = Project::new(WITH_MODEL);
    let pid = project.path("pid");
    let deaf = format!(
        "trap '' INT TERM\necho $$ > {}\n\
         while :; do say '{{\"type\":\"heartbeat\",\"peak_memory_bytes\":1}}'; sleep 0.2; done",
        pid.display()
    );
    let worker = fake_worker(&project, &deaf);
    let child = project.start(run_with(&project, &worker));
    let worker_id = line_of(&pid);
    signal(&child, Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_alive(&worker_id), "it does not listen");
    signal(&child, Signal::SIGINT);
    Said::new(child.wait_with_output().expect("an end"))
        .code(130)
        .shows("stopping at once");
    assert!(!is_alive(&worker_id));
}

#[test]
fn an_interruption_before_the_worker_says_hello_is_no_failure() {
    let project = Project::new(WITH_MODEL);
    let pid = project.path("pid");
    let worker = fake_program(
        &project,
        &format!("echo $$ > {}; exec sleep 3600", pid.display()),
    );
    let child = project.start(run_with(&project, &worker));
    let worker_id = line_of(&pid);
    signal(&child, Signal::SIGTERM);
    let said = Said::new(child.wait_with_output().expect("an end")).code(130);
    assert!(!said.stderr.contains("failed"), "{}", said.stderr);
    assert!(!is_alive(&worker_id));
}

#[test]
fn a_killed_genius_leaves_no_worker_and_the_next_run_tidies_up() {
    let project = Project::new(WITH_MODEL);
    let pid = project.path("pid");
    // Like the real one, it ends when its stdin does.
    let lines = format!("echo $$ > {}; exec cat", pid.display());
    let worker = fake_worker(&project, &lines);
    let mut child = project.start(run_with(&project, &worker));
    let worker_id = line_of(&pid);
    signal(&child, Signal::SIGKILL);
    child.wait().expect("an end");
    until("the worker is gone", || !is_alive(&worker_id));
    let left = project.temporaries();
    assert!(left.iter().any(|n| n.starts_with("policy-")), "{left:?}");

    let worker = fake_worker(&project, WORK);
    run(&project, &worker).code(0);
    assert_eq!(project.temporaries(), [""; 0]);
}

/// The real `genius internal-worker`, and its first line.
fn internal_worker(project: &Project) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = project
        .genius(&["internal-worker"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its stdout"));
    let mut hello = String::new();
    lines.read_line(&mut hello).expect("a line");
    assert!(hello.contains("\"hello\""), "{hello}");
    (child, lines)
}

#[test]
fn a_real_worker_whose_genius_is_gone_ends_by_itself() {
    let project = Project::new(WITH_MODEL);
    let (mut child, _lines) = internal_worker(&project);
    // A pipe that nobody writes to: the stage would wait for ever.
    let pipe = project.path("pipe.jsonl");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let request = Request::Job {
        protocol: PROTOCOL_VERSION,
        version: genius::protocol::VERSION.into(),
        job: Box::new(Job {
            stage: "queries".into(),
            params: StageKind::Queries.params(json!({
                "source": { "path": pipe, "format": "jsonl", "delimiter": "auto", "layout": "auto", "field": "q" },
                "sample": null,
            })).expect("parameters"),
            numerics: None,
            execution: Execution::default(),
            inputs: [].into(),
            input_hashes: [].into(),
            partial: None,
            shard: None,
            notes: Vec::new(),
            output_dir: project.path("out"),
            scratch_dir: project.path("scratch"),
        }),
    };
    let mut stdin = child.stdin.take().expect("its stdin");
    writeln!(stdin, "{}", serde_json::to_string(&request).expect("JSON")).expect("a job");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a state").is_none(), "it works");
    drop(stdin);
    until("it is gone", || {
        child.try_wait().expect("a state").is_some()
    });
}

#[test]
fn a_real_worker_refuses_a_genius_of_another_version() {
    let project = Project::new(WITH_MODEL);
    let (mut child, mut lines) = internal_worker(&project);
    let mut stdin = child.stdin.take().expect("its stdin");
    writeln!(
        stdin,
        r#"{{"type":"job","protocol":99,"version":"9.9.9","new":1}}"#
    )
    .expect("a job");
    let mut outcome = String::new();
    lines.read_line(&mut outcome).expect("a line");
    assert!(outcome.contains("genius 9.9.9 and its worker"), "{outcome}");
    assert!(!child.wait().expect("an end").success());
}
