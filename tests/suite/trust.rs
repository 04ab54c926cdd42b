//! Trust in commands, as a person meets it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::project::{Project, Said};

const COMMAND: &str = "\
version: 1
name: c
stages:
  s: { uses: command, with: { run: [sh, '{files.script}', '{outputs.o}'], files: { script: s.sh }, outputs: { o: {} } } }
";

fn project() -> Project {
    let project = Project::new(COMMAND);
    project.write("s.sh", "echo one > $1/x\n");
    project
}

/// `genius` for a user with this home folder.
fn genius(project: &Project, home: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = project.genius(args);
    for name in [
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_STATE_HOME",
        "HF_HOME",
    ] {
        command.env_remove(name);
    }
    command.envs(home.iter().copied());
    command
}

fn say(project: &Project, home: &[(&str, &str)], args: &[&str]) -> Said {
    Said::new(genius(project, home, args).output().expect("genius starts"))
}

#[test]
fn a_trusted_pipeline_runs_until_its_script_changes() {
    let project = project();
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path().to_str().expect("UTF-8");
    let home = [("HOME", home)];
    say(&project, &home, &["run", "p.yaml"])
        .code(3)
        .shows("it is not trusted yet");
    say(&project, &home, &["trust", "p.yaml"])
        .code(0)
        .shows("s.sh (covered: ");
    say(&project, &home, &["run", "p.yaml"])
        .code(0)
        .shows("1 executed");
    project.write("s.sh", "echo two > $1/x\n");
    say(&project, &home, &["run", "p.yaml"])
        .code(3)
        .shows("s.sh has changed (s: files.script)");
    say(
        &project,
        &home,
        &["run", "p.yaml", "--set", "stages.s.with.shell=true"],
    )
    .code(3);
    say(&project, &home, &["run", "p.yaml", "--allow-commands"]).code(0);
    say(&project, &home, &["trust", "p.yaml"]).code(0);
    say(&project, &home, &["run", "p.yaml"]).code(0);
    say(&project, &home, &["trust", "p.yaml", "--revoke"]).code(0);
    say(&project, &home, &["run", "p.yaml"]).code(3);
}

/// A repository cannot bring its own trust, wherever a home folder is missing.
#[test]
fn without_a_home_folder_nothing_is_trusted() {
    for home in [
        &[][..],
        &[("HOME", "")],
        &[("HOME", ".")],
        &[("HOME", "sub")],
        &[("XDG_CACHE_HOME", ".cache")],
        &[("GENIUS_HOME", ".cache/genius")],
        &[("GENIUS_HOME", ""), ("XDG_CACHE_HOME", ""), ("HOME", "./")],
    ] {
        let project = project();
        // What the fault was: a trust given by whoever had the folder before, or made it.
        let own = project.path("own");
        std::fs::create_dir(&own).expect("a folder");
        let given = [("HOME", own.to_str().expect("UTF-8"))];
        say(&project, &given, &["trust", "p.yaml"]).code(0);
        for place in [".cache", "sub/.cache"] {
            let to = project.path(place);
            std::fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(own.join(".cache")).arg(&to);
            assert!(copy.status().expect("cp starts").success());
        }
        say(&project, home, &["run", "p.yaml"])
            .code(3)
            .shows("there is no folder for trusts")
            .shows("set HOME, or GENIUS_HOME, to an absolute path");
        say(&project, home, &["trust", "p.yaml"])
            .code(4)
            .shows("there is no folder for trusts");
        say(&project, home, &["run", "p.yaml", "--allow-commands"]).code(0);
        // What needs no trust needs no home.
        say(&project, home, &["validate", "p.yaml"]).code(0);
    }
}

#[test]
fn a_relative_home_is_named_and_not_used() {
    let project = project();
    let home = tempfile::tempdir().expect("a folder");
    let set = [
        ("HOME", home.path().to_str().expect("UTF-8")),
        ("GENIUS_HOME", "mine"),
        ("XDG_CACHE_HOME", "cache-home"),
    ];
    say(&project, &set, &["trust", "p.yaml"])
        .code(0)
        .shows(
            "warning: GENIUS_HOME is `mine`, which is not an absolute path: it counts as not set",
        )
        .shows("warning: XDG_CACHE_HOME is `cache-home`");
    assert!(home.path().join(".cache/genius/trust").is_dir());
    assert!(!project.path("mine").exists() && !project.path("cache-home").exists());
}

/// A home folder that is the repository's: what it brings was not written there by
/// `genius trust`.
#[test]
fn a_trust_that_came_with_the_repository_is_none() {
    let project = project();
    let given = tempfile::tempdir().expect("a folder");
    let home = [("GENIUS_HOME", given.path().to_str().expect("UTF-8"))];
    say(&project, &home, &["trust", "p.yaml"]).code(0);
    say(&project, &home, &["run", "p.yaml"]).code(0);
    let mut copy = Command::new("cp");
    copy.arg("-r")
        .arg(given.path())
        .arg(project.path("brought"));
    assert!(copy.status().expect("cp starts").success());
    let brought = project.path("brought");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&brought, mode).expect("a mode");
    let home = [("GENIUS_HOME", brought.to_str().expect("UTF-8"))];
    say(&project, &home, &["run", "p.yaml"])
        .code(3)
        .shows("it is a copy");
}

/// The first stage writes the script that the second one runs.
#[test]
fn a_script_that_changes_during_the_run_is_not_run() {
    let project = Project::new("");
    let ran = project.path("ran");
    let script = project.write("s.sh", "echo one > $1/x\n");
    let text = format!(
        "version: 1
name: c
stages:
  first: {{ uses: command, with: {{ run: ['echo \"touch {ran}; echo > \\$1/x\" > {script}; echo > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}
  second: {{ uses: command, needs: {{ data: first }}, with: {{ run: [sh, '{{files.script}}', '{{outputs.o}}'], files: {{ script: s.sh }}, outputs: {{ o: {{}} }} }} }}
",
        ran = ran.display(),
        script = script.display()
    );
    project.write("p.yaml", &text);
    let home = tempfile::tempdir().expect("a folder");
    let home = [("HOME", home.path().to_str().expect("UTF-8"))];
    say(&project, &home, &["trust", "p.yaml"]).code(0);
    say(&project, &home, &["run", "p.yaml"])
        .code(1)
        .shows("s.sh has changed since it was trusted: the program was not started");
    assert!(!ran.exists(), "it ran");
    // Also where everything may run, what runs is what was planned.
    project.write("s.sh", "echo one > $1/x\n");
    say(
        &project,
        &home,
        &["run", "p.yaml", "--allow-commands", "--force", "first"],
    )
    .code(1)
    .shows("s.sh changed since the run began: the program was not started");
    assert!(!ran.exists(), "it ran");
}
