//! Runs looked at from another terminal: the real `genius` beside a run folder
//! that grows.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::project::{Project, QUERIES_ONLY, Said, until};

/// A run of another machine that goes on: its stage `a` has been started.
struct LiveRun {
    folder: PathBuf,
    events: File,
}

const ID: &str = "20990102T030405-1a2b";

impl LiveRun {
    fn new(project: &Project) -> Self {
        project.say(&["run", "p.yaml", "-q"]).code(0);
        let lease = format!(
            "{{\"run_id\":\"{ID}\",\"host\":\"elsewhere\",\"pid\":1,\"started\":\"2099-01-02T03:04:05Z\"}}"
        );
        let lease = project.write(&format!("cache/runs/{ID}/lease.json"), &lease);
        let folder = lease.parent().expect("a folder").to_owned();
        let mut run = Self {
            events: File::create(folder.join("events.jsonl")).expect("events"),
            folder,
        };
        run.event(r#""event":"run_started","run_id":"r","pipeline":"small","stages":["a","b"]"#);
        run.event(r#""event":"stage_started","stage":"a","key":"12","reason":"new""#);
        run
    }

    fn event(&mut self, fields: &str) {
        let line = format!("{{\"time\":\"2099-01-02T03:04:05Z\",{fields}}}\n");
        self.events.write_all(line.as_bytes()).expect("an event");
    }

    fn log(&self, text: &str) {
        let path = self.folder.join("a.log");
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(path)
            .expect("a log");
        log.write_all(text.as_bytes()).expect("a log");
    }
}

#[test]
fn a_log_is_followed_until_its_stage_ends() {
    let project = Project::new(QUERIES_ONLY);
    let mut run = LiveRun::new(&project);
    run.log("one\ntwo\n");
    let mut follower = project.start(project.genius(&["logs", "latest", "a", "-f", "-n", "1"]));
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(follower.try_wait().expect("a look").is_none());
    run.log("three\n");
    run.event(
        r#""event":"stage_finished","stage":"a","key":"12","seconds":1.0,"peak_memory_bytes":1"#,
    );
    // The run goes on, and the command ends.
    let said = Said::new(follower.wait_with_output().expect("an end")).code(0);
    assert_eq!(said.stdout, "two\nthree\n");
    assert_eq!(said.stderr, "");
}

#[test]
fn a_run_elsewhere_is_shown_and_followed_until_it_ends() {
    let project = Project::new(QUERIES_ONLY);
    let mut run = LiveRun::new(&project);
    run.event(r#""event":"stage_progress","stage":"a","progress":{"phase":"counting","done":1,"total":4,"unit":"words","detail":""}"#);
    let said = project.say(&["status"]).code(0);
    assert!(
        said.stdout
            .starts_with(&format!("run {ID} of small: running")),
        "{}",
        said.stdout
    );
    assert!(
        said.stdout.contains("counting 1/4 words"),
        "{}",
        said.stdout
    );
    assert!(project.say(&["runs"]).stdout.contains("running"));

    let follower = project.start(project.genius(&["status", "-f"]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    run.event(r#""event":"stage_failed","stage":"a","failure":{"message":"no words","hint":null},"seconds":1.0"#);
    run.event(r#""event":"stage_skipped","stage":"b","reason":"needs `a`, which has no result""#);
    run.event(r#""event":"run_finished","seconds":2.0,"ok":false"#);
    let said = Said::new(follower.wait_with_output().expect("an end")).code(0);
    let lines: Vec<&str> = said.stdout.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "a  running   counting 1/4 words",
            "a  failed    1.00s, no words",
            "b  skipped   needs `a`, which has no result"
        ]
    );
    assert!(
        said.stdout.contains("failed after 2.00s"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_run_whose_process_was_killed_is_cut() {
    let project = Project::new(QUERIES_ONLY);
    let run = LiveRun::new(&project);
    run.log("one\n");
    std::fs::remove_file(run.folder.join("lease.json")).expect("a lease");
    let said = project.say(&["runs", "--json"]).code(0);
    assert_eq!(said.json()[0]["state"], "cut");
    assert_eq!(said.json()[1]["state"], "ok");
    let said = project.say(&["logs", ID, "a", "-f"]).code(0);
    assert_eq!(said.stdout, "one\n");
}

/// Outputs by name, from the run that made them to a copy of one's own.
#[test]
fn an_output_is_copied_out() {
    let project = Project::new(QUERIES_ONLY);
    project
        .say(&["out", "p.yaml", "queries"])
        .code(1)
        .shows("genius run p.yaml --target queries");
    assert!(!project.path("cache").exists());
    project.say(&["run", "p.yaml", "-q"]).code(0);
    let said = project.say(&["out", "p.yaml", "queries"]).code(0);
    let folder = PathBuf::from(said.stdout.trim());
    until("the folder", || folder.is_dir());
    let said = project
        .say(&["out", "p.yaml", "queries", "--copy", "mine", "--json"])
        .code(0);
    let file = said.json()["files"][0]["path"]
        .as_str()
        .expect("a path")
        .to_owned();
    assert_eq!(
        std::fs::read(folder.join(&file)).expect("the kept one"),
        std::fs::read(project.path("mine").join(&file)).expect("the copy")
    );
    std::fs::write(project.path("mine").join(file), "mine").expect("it is writable");
}

/// Of a stage, the word that its log begins with under each of these names.
fn words(project: &Project, run: &str, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| project.say(&["logs", run, name]).code(0).stdout)
        .collect()
}

const VARIANTS: &str = "\
version: 1
name: small
stages:
  say: { uses: command, with: { run: ['echo $WORD; echo $WORD > {outputs.o}/f'], shell: true, env: { WORD: plain }, outputs: { o: {} } } }
  then: { uses: command, needs: { i: say }, with: { run: ['cat {inputs.i}/f; echo x > {outputs.o}/f'], shell: true, outputs: { o: {} } } }
variants:
  a: { set: { stages.say.with.env.WORD: shared } }
  b: { set: { stages.say.with.env.WORD: shared } }
  c: { matrix: { stages.say.with.env.WORD: [one, 'odd/../näme #:,'] } }
  d: {}
";

/// What variants have in common runs once, under one of their names.
#[test]
fn every_name_of_a_stage_leads_to_its_log() {
    let project = Project::new(VARIANTS);
    let run = ["run", "p.yaml", "--allow-commands", "--all-variants", "-q"];
    project.say(&run).code(0);
    let names = [
        "say",
        "say@base",
        "say@d",
        "say@a",
        "say@b",
        "say@c:WORD=one",
        "say@c:WORD=odd_.._n_me____",
        "then",
        "then@base",
        "then@a",
        "then@b",
        "then@c:WORD=one",
    ];
    let heard = words(&project, "latest", &names);
    let expected = [
        "plain",
        "plain",
        "plain",
        "shared",
        "shared",
        "one",
        "odd/../näme #:,",
        "plain",
        "plain",
        "shared",
        "shared",
        "one",
    ];
    assert_eq!(heard, expected.map(|word| format!("{word}\n")));
    for unknown in ["say@e", "then@c", "sya@a", "say@c:WORD=two"] {
        project
            .say(&["logs", "latest", unknown])
            .code(2)
            .shows(&format!("has no stage `{unknown}`"));
    }

    // Reused: each name leads to the run and the name that it was computed under.
    let first = project.say(&["runs", "--json"]).json()[0]["run_id"].clone();
    let first = first.as_str().expect("an id").to_owned();
    project.say(&run).code(0);
    for (name, word) in names.iter().zip(expected) {
        let said = project.say(&["logs", "latest", name]).code(0);
        assert_eq!(said.stdout, "", "{name}");
        let (_, command) = said
            .stderr
            .split_once("`genius ")
            .unwrap_or_else(|| panic!("{}", said.stderr));
        let command = command.split('`').next().unwrap_or_default();
        let args: Vec<&str> = command.split(' ').collect();
        assert_eq!(args[..2], ["logs", first.as_str()], "{command}");
        assert_eq!(
            words(&project, args[1], &args[2..]),
            [format!("{word}\n")],
            "{name}"
        );
    }

    // A variant alone goes by the plain name, and by its own.
    project
        .say(&[
            "run",
            "p.yaml",
            "--allow-commands",
            "--variant",
            "b",
            "-q",
            "--force",
            "say",
        ])
        .code(0);
    let heard = words(&project, "latest", &["say", "say@b"]);
    assert_eq!(heard, ["shared\n"; 2]);
}

#[test]
fn all_attempts_of_a_stage_are_in_one_log() {
    let project = Project::new(
        "version: 1\nname: small\nstages:\n  s: { uses: command, retry: { times: 1, backoff_secs: 0 }, with: { run: ['echo try; [ -e $MARK ] || { touch $MARK; exit 1; }; echo x > {outputs.o}/f'], shell: true, env: { MARK: MARKED }, outputs: { o: {} } } }\n",
    );
    let text = std::fs::read_to_string(project.path("p.yaml")).expect("it");
    let mark = project.path("mark").display().to_string();
    project.write("p.yaml", &text.replace("MARKED", &mark));
    project
        .say(&["run", "p.yaml", "--allow-commands", "-q"])
        .code(0);
    let log = project.say(&["logs", "latest", "s"]).code(0).stdout;
    assert_eq!(log.lines().filter(|l| *l == "try").count(), 2, "{log}");
    assert!(log.contains("[attempt 2 of 2]"), "{log}");
}
