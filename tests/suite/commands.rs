//! `command` stages: programs of people's own, started by the real `genius`.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::project::{FAR, Project, Said, line_of, until};

/// A pipeline of these stages.
fn pipeline(stages: &str) -> Project {
    Project::new(&format!(
        "version: 1\nname: commands\nstages:\n{}\n",
        stages.trim_end()
    ))
}

/// What a run of it says.
fn run(project: &Project, more: &[&str]) -> Said {
    let args = [&["run", "p.yaml", "--allow-commands"], more].concat();
    project.say(&args)
}

/// The bytes of a file of a stage's first output.
fn read(project: &Project, said: &Said, stage: &str, file: &str) -> String {
    let stages = said.json();
    let stages = stages["stages"].as_array().expect("stages").clone();
    let report = stages
        .iter()
        .find(|s| s["stage"] == stage)
        .expect("the stage");
    let folder = report["outputs"]
        .as_object()
        .and_then(|o| o.values().next())
        .and_then(|f| f.as_str())
        .expect("a folder");
    std::fs::read_to_string(project.path(folder).join(file)).expect("a file")
}

#[test]
fn outputs_pass_from_one_program_to_the_next() {
    let project = pipeline(
        "  first: { uses: command, with: { run: [cp, '{files.q}', '{outputs.data}/copy'], files: { q: q.jsonl }, outputs: { data: {} } } }
  second: { uses: command, needs: { in: first }, with: { run: ['wc -l < {inputs.in}/copy > {outputs.count}/n'], shell: true, outputs: { count: { files: [n], nonempty: true } } } }
  third: { uses: command, needs: { n: second.count }, with: { run: [cat, '{inputs.n}/n'] } }",
    );
    let said = run(&project, &["--json"])
        .code(0)
        .shows("3 executed, 0 cached");
    assert_eq!(read(&project, &said, "second", "n").trim(), "4");
    run(&project, &[]).code(0).shows("0 executed, 3 cached");

    // Another file of the same content is the same; other content is not.
    project.write("q.jsonl", "one line\n");
    run(&project, &[]).code(0).shows("3 executed, 0 cached");
    // The first runs again, to the same bytes as ever: the rest is reused.
    run(&project, &["--set", "stages.first.with.env.X=y"])
        .code(0)
        .shows("1 executed, 2 cached");
}

#[test]
fn a_command_feeds_the_stages_of_the_method() {
    let project = pipeline(
        "  mine: { uses: command, with: { run: ['echo ''{\"id\":\"a\",\"query\":\"1+1?\"}'' > {outputs.queries}/q.jsonl'], shell: true, outputs: { queries: {} } } }
  wrong: { uses: score, needs: { rollouts: mine } }",
    );
    project
        .say(&["validate", "p.yaml"])
        .code(3)
        .shows("stage `mine` (command) does not produce `rollouts`");
}

#[test]
fn a_program_sees_what_is_declared_and_nothing_else() {
    let project = pipeline(
        "  env: { uses: command, with: { run: ['env > {outputs.o}/env; pwd > {outputs.o}/pwd; ls -A > {outputs.o}/ls'], shell: true, env: { MINE: '{outputs.o}' }, inherit: [TAKEN], pass_through: [PATH, TOKEN], outputs: { o: {} } } }",
    );
    let start = |taken: &str, token: &str| {
        let mut command = project.genius(&["run", "p.yaml", "--allow-commands", "--json"]);
        command
            .env("TAKEN", taken)
            .env("TOKEN", token)
            .env("HIDDEN", "3");
        Said::new(command.output().expect("genius starts")).code(0)
    };
    let said = start("1", "2").shows("1 executed");
    let env = read(&project, &said, "env", "env");
    let mut names: Vec<&str> = env
        .lines()
        .filter_map(|l| l.split('=').next())
        // Shells set these themselves.
        .filter(|n| !["PWD", "OLDPWD", "SHLVL", "_"].contains(n))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["MINE", "PATH", "TAKEN", "TMPDIR", "TOKEN"]);
    assert!(
        env.contains("/output/o\n"),
        "placeholders hold in `env` too: {env}"
    );
    assert_eq!(
        read(&project, &said, "env", "ls"),
        "",
        "it starts in an empty folder"
    );

    start("1", "other").shows("0 executed, 1 cached");
    start("other", "2").shows("1 executed, 0 cached");
}

#[test]
fn what_is_not_written_is_no_result() {
    for (outputs, script, says) in [
        ("{ o: {} }", "true", "wrote nothing into its output `o`"),
        (
            "{ o: { files: [a, b] } }",
            "touch {outputs.o}/a",
            "did not write `b` of its output `o`",
        ),
        (
            "{ o: { nonempty: true } }",
            "mkdir {outputs.o}/d; echo x > {outputs.o}/x; : > {outputs.o}/d/y",
            "d/y of its output `o` is empty",
        ),
        (
            "{ o: {} }",
            "rmdir {outputs.o}",
            "did not write its output `o`",
        ),
        (
            "{ o: {} }",
            "ln -s /etc/passwd {outputs.o}/x",
            "is a symbolic link",
        ),
    ] {
        let project = pipeline(&format!(
            "  s: {{ uses: command, with: {{ run: ['{script}'], shell: true, outputs: {outputs} }} }}"
        ));
        run(&project, &[]).code(1).shows(says);
        run(&project, &[]).code(1).shows(says);
    }
}

#[test]
fn a_program_that_fails_shows_its_last_words() {
    let project = pipeline(
        "  s: { uses: command, with: { run: ['echo it is all wrong >&2; exit 7'], shell: true } }",
    );
    let said = run(&project, &["--json"])
        .code(1)
        .shows("`sh` ended with exit code 7. Its last words:")
        .shows("it is all wrong");
    assert_eq!(said.json()["stages"][0]["exit"]["code"], 7);

    pipeline("  s: { uses: command, with: { run: ['kill -SEGV $$'], shell: true } }")
        .say(&["run", "p.yaml", "--allow-commands"])
        .code(1)
        .shows("`sh` ended with SIGSEGV");
    pipeline("  s: { uses: command, with: { run: [no-such-program] } }")
        .say(&["run", "p.yaml", "--allow-commands"])
        .code(1)
        .shows("cannot start `no-such-program`")
        .shows("write `{files.NAME}`");
}

#[test]
fn the_memory_of_a_program_is_its_own() {
    let project = pipeline(
        "  big: { uses: command, with: { run: [python3, -c, 'x = bytearray(120_000_000)'] } }
  small: { uses: command, needs: {}, with: { run: ['true'] } }",
    );
    let said = run(&project, &["--json", "--jobs", "1"]).code(0);
    let peak = |at: usize| {
        said.json()["stages"][at]["peak_memory_bytes"]
            .as_u64()
            .unwrap_or(0)
    };
    assert!(peak(0) > 120_000_000, "{}", peak(0));
    assert!((1..60_000_000).contains(&peak(1)), "{}", peak(1));
}

#[test]
fn programs_run_only_where_that_is_allowed() {
    let project = pipeline("  s: { uses: command, with: { run: ['true'] } }");
    project
        .say(&["run", "p.yaml"])
        .code(3)
        .shows("--allow-commands")
        .shows("genius trust");
    // Looking at it runs nothing.
    project.say(&["validate", "p.yaml"]).code(0);
}

#[test]
fn a_stage_is_tried_again_if_it_asks_for_it() {
    let project = pipeline("");
    let count = project.path("count");
    let text = |times: u32| {
        format!(
            "version: 1\nname: c\nstages:\n  s: {{ uses: command, retry: {{ times: {times}, backoff_secs: 0.01 }}, with: {{ run: ['echo x >> {0}; [ $(wc -l < {0}) -ge 3 ]'], shell: true }} }}\n",
            count.display()
        )
    };
    project.write("p.yaml", &text(1));
    run(&project, &[]).code(1).shows("attempt 2 of 2 in 0.01s");
    std::fs::remove_file(&count).expect("it ran");
    project.write("p.yaml", &text(3));
    run(&project, &[])
        .code(0)
        .shows("attempt 3 of 4 in 0.02s")
        .shows("1 executed");
}

#[test]
fn a_stage_that_takes_too_long_is_ended() {
    let project =
        pipeline("  s: { uses: command, timeout_secs: 0.2, with: { run: [sleep, '3600'] } }");
    let started = Instant::now();
    run(&project, &[])
        .code(1)
        .shows("it took longer than its timeout_secs: 0.2");
    assert!(started.elapsed() < FAR);
}

#[test]
fn an_interruption_ends_programs_and_their_children() {
    let project = pipeline("");
    let pid = project.path("pid");
    // It does not listen, and has a child that does not either.
    project.write(
        "p.yaml",
        &format!(
            "version: 1\nname: c\nstages:\n  s: {{ uses: command, with: {{ run: [\"trap '' TERM INT; sleep 3600 & echo $! > {}; wait\"], shell: true }} }}\n",
            pid.display()
        ),
    );
    let genius = project.start(project.genius(&["run", "p.yaml", "--allow-commands"]));
    let child = line_of(&pid);
    let id = i32::try_from(genius.id()).expect("an id");
    let asked = Instant::now();
    kill(Pid::from_raw(id), Signal::SIGINT).expect("a signal");
    let said = Said::new(genius.wait_with_output().expect("its end"));
    let took = asked.elapsed();
    said.code(130).shows("Interrupted.");
    until("the child is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    });
    // Without it the hour of the program: no clock to pass by.
    assert!(took < FAR, "{took:?}");
    assert_eq!(project.temporaries(), [""; 0]);
}

#[test]
fn a_failure_stops_what_has_not_started_unless_told_to_keep_going() {
    let project = pipeline(
        "  bad: { uses: command, with: { run: ['false'] } }
  after: { uses: command, needs: { x: other }, with: { run: ['true'] } }
  other: { uses: command, with: { run: ['sleep 0.3; echo x > {outputs.o}/x'], shell: true, outputs: { o: {} } } }
  last: { uses: command, with: { run: ['true'], env: { A: b } } }",
    );
    run(&project, &["--jobs", "1"])
        .code(1)
        .shows("0 executed, 0 cached, 1 failed, 3 skipped")
        .shows("`bad` failed before it (--keep-going runs it anyway)");
    run(&project, &["--jobs", "1", "--keep-going"])
        .code(1)
        .shows("3 executed, 0 cached, 1 failed");
}

#[test]
fn stages_share_what_they_declare() {
    let project = pipeline("");
    let log = project.path("log");
    let stage = |name: &str| {
        format!(
            "  {name}: {{ uses: command, resources: {{ memory_gb: 3 }}, with: {{ run: ['echo + >> {0}; sleep 0.2; echo - >> {0}'], shell: true, env: {{ N: {name} }} }} }}\n",
            log.display()
        )
    };
    let text = format!("version: 1\nname: c\nstages:\n{}{}", stage("a"), stage("b"));
    project.write("p.yaml", &text);
    let order = |resources: &str| {
        let _ = std::fs::remove_file(&log);
        run(
            &project,
            &["--resources", resources, "--force", "a", "--force", "b"],
        )
        .code(0);
        std::fs::read_to_string(&log)
            .expect("a log")
            .replace('\n', "")
    };
    assert_eq!(order("memory_gb=5,cores=2"), "+-+-", "one at a time");
    assert_eq!(order("memory_gb=6,cores=2"), "++--", "side by side");
    run(&project, &["--resources", "memory_gb=2"])
        .code(3)
        .shows("it needs 3 memory_gb, but the run has 2")
        .shows("--resources memory_gb=N");
}

#[test]
fn devices_are_handed_out_by_number() {
    let stage = |name: &str| {
        format!(
            "  {name}: {{ uses: command, resources: {{ gpu: 1 }}, with: {{ run: ['sleep 0.2; echo $CUDA_VISIBLE_DEVICES > {{outputs.o}}/d'], shell: true, env: {{ N: {name} }}, outputs: {{ o: {{}} }} }} }}\n"
        )
    };
    let project = pipeline(&format!("{}{}", stage("a"), stage("b")));
    let mut command = project.genius(&[
        "run",
        "p.yaml",
        "--allow-commands",
        "--json",
        "--resources",
        "gpu=2,cores=2",
    ]);
    command.env("CUDA_VISIBLE_DEVICES", "3,5");
    let said = Said::new(command.output().expect("genius starts")).code(0);
    let mut devices = [
        read(&project, &said, "a", "d"),
        read(&project, &said, "b", "d"),
    ];
    devices.sort();
    assert_eq!(devices, ["3\n", "5\n"]);
}

#[test]
fn equal_stages_of_a_run_are_computed_once() {
    let project = pipeline("");
    let log = project.path("log");
    let stage = |name: &str| {
        format!(
            "  {name}: {{ uses: command, with: {{ run: ['echo x >> {}; sleep 0.1; echo x > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}\n",
            log.display()
        )
    };
    let text = format!(
        "version: 1\nname: c\nstages:\n{}{}{}",
        stage("a"),
        stage("b"),
        stage("c")
    );
    project.write("p.yaml", &text);
    run(&project, &["--resources", "cores=3"])
        .code(0)
        .shows("1 executed, 2 cached");
    assert_eq!(std::fs::read_to_string(&log).expect("a log"), "x\n");
    run(
        &project,
        &["--from", "a", "--force", "b", "--resources", "cores=3"],
    )
    .code(0)
    .shows("1 executed, 2 cached");
}

#[test]
fn a_program_that_writes_into_its_input_spoils_no_result() {
    let script = |edit: &str| {
        format!(
            "  a: {{ uses: command, with: {{ run: ['echo good > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}
  b: {{ uses: command, needs: {{ i: a }}, with: {{ run: ['sleep 0.2; cd {{inputs.i}}; {edit}; cp x {{outputs.o}}/y'], shell: true, outputs: {{ o: {{}} }} }} }}
  c: {{ uses: command, needs: {{ i: a }}, with: {{ run: ['sleep 0.8; cp {{inputs.i}}/x {{outputs.o}}/y'], shell: true, outputs: {{ o: {{}} }} }} }}"
        )
    };
    for edit in [
        "chmod u+w x; echo more >> x",
        "chmod u+w x . ; sed -i s/good/bad/ x",
        "touch more",
    ] {
        let project = pipeline(&script(edit));
        run(&project, &["--resources", "cores=2", "--keep-going"])
            .code(1)
            .shows("its input `i` was written to while it ran");
        // The innocent one, by itself, has the right input again.
        let said = run(&project, &["--target", "c", "--json"]).code(0);
        assert_eq!(read(&project, &said, "c", "y"), "good\n", "{edit}");
        project.say(&["cache", "verify"]).code(0);
    }
}

#[test]
fn a_file_that_is_changed_and_changed_back_is_noticed() {
    let project = pipeline(
        "  s: { uses: command, retry: 3, with: { run: ['touch {files.d}.started; sleep 0.6; cp {files.d} {outputs.o}/d; sleep 0.4'], shell: true, files: { d: d.txt }, outputs: { o: {} } } }",
    );
    let file = project.write("d.txt", "one");
    let genius = project.start(project.genius(&["run", "p.yaml", "--allow-commands"]));
    until("the stage runs", || project.path("d.txt.started").exists());
    std::fs::write(&file, "two").expect("a file");
    std::thread::sleep(Duration::from_millis(700));
    std::fs::write(&file, "one").expect("a file");
    // And not tried again: it would be as wrong.
    Said::new(genius.wait_with_output().expect("its end"))
        .code(1)
        .shows("d.txt changed while the run used it")
        .shows("0 executed, 0 cached, 1 failed");
}

#[test]
fn what_cannot_be_printed_is_no_success() {
    let project = pipeline("  s: { uses: command, with: { run: ['true'] } }");
    let mut command = project.genius(&["graph", "p.yaml"]);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    command.stdout(full);
    Said::new(command.output().expect("genius starts"))
        .code(4)
        .shows("cannot write stdout");
}
