//! A cache that several people may write to: what one of them leaves there, in the
//! way of another's run, by the real `genius`.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use super::project::{Project, Said, until};

/// A stage that waits until it may end, and one behind it that says something.
fn project() -> Project {
    let project = Project::new("");
    let go = project.path("go");
    project.write(
        "p.yaml",
        &format!(
            "version: 1\nname: shared\nstages:\n  \
             first: {{ uses: command, with: {{ run: ['while [ ! -e {} ]; do sleep 0.02; done; echo x > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}\n  \
             second: {{ uses: command, needs: {{ i: first }}, with: {{ run: ['echo words; echo x > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}\n",
            go.display()
        ),
    );
    project.write("mine", "mine");
    project
}

/// The folder of the only run, once it is under way.
fn run_folder(project: &Project) -> PathBuf {
    let find = || {
        let runs = std::fs::read_dir(project.path("cache/runs")).ok()?;
        let mut folders = runs.filter_map(Result::ok).map(|e| e.path());
        folders.find(|folder| folder.join("events.jsonl").exists())
    };
    until("the run's folder", || find().is_some());
    find().expect("the run's folder")
}

/// Runs, and lets someone do something in the run's folder before the second stage.
fn meanwhile(project: &Project, act: impl FnOnce(&Path)) -> Said {
    let child = project.start(project.genius(&["run", "p.yaml", "--allow-commands"]));
    act(&run_folder(project));
    project.write("go", "");
    Said::new(child.wait_with_output().expect("an end"))
}

#[test]
fn a_planted_log_fails_its_stage_by_name() {
    for (kind, what) in [
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("pipe", "pipe"),
        ("second name", "second name of another file"),
    ] {
        let project = project();
        let (mine, gone) = (project.path("mine"), project.path("gone"));
        let said = meanwhile(&project, |folder| {
            let log = folder.join("second.log");
            match kind {
                "link" => symlink(&mine, &log).expect("a link"),
                "dangling" => symlink(&gone, &log).expect("a link"),
                "pipe" => nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a pipe"),
                _ => std::fs::hard_link(&mine, &log).expect("a link"),
            }
        });
        said.code(1).shows("second.log").shows(what);
        assert_eq!(std::fs::read(&mine).expect("mine"), b"mine", "{kind}");
        assert!(!gone.exists(), "{kind}");
    }
}

#[test]
fn a_folder_that_is_swapped_gets_nothing() {
    let project = project();
    let mine = project.path("other");
    std::fs::create_dir(&mine).expect("a folder");
    let away = project.path("cache/runs/.away");
    meanwhile(&project, |folder| {
        std::fs::rename(folder, &away).expect("a move");
        symlink(&mine, folder).expect("a link");
    })
    .code(0);
    assert_eq!(std::fs::read_dir(&mine).expect("other").count(), 0);
    let log = std::fs::read_to_string(away.join("second.log")).expect("a log");
    assert_eq!(log, "words\n");
    assert!(away.join("run.json").exists());
}

#[test]
fn a_linked_folder_of_the_cache_is_refused() {
    let project = project();
    project.write("go", "");
    project.say(&["run", "p.yaml", "--allow-commands"]).code(0);
    let victim = project.write("home/old", "mine");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1 << 24);
    let file = std::fs::File::options()
        .write(true)
        .open(&victim)
        .expect("it");
    file.set_modified(old).expect("a time");
    std::fs::remove_dir_all(project.path("cache/tmp")).expect("it goes");
    symlink(project.path("home"), project.path("cache/tmp")).expect("a link");
    for command in [
        &["run", "p.yaml", "--allow-commands"][..],
        &["cache", "gc"],
        &["runs"],
    ] {
        let said = project.say(command);
        assert_ne!(said.code, 0, "{command:?}");
        said.shows("cache/tmp is a symbolic link")
            .shows("remove the link");
    }
    assert_eq!(std::fs::read(victim).expect("it is there"), b"mine");
}

/// With a mask that lets everybody write, as people of a group have it.
#[test]
fn runs_and_jobs_are_their_owners_alone() {
    let project = project();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "umask 0; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_genius"))
        .args(["run", "p.yaml", "--allow-commands"])
        .env_remove("GENIUS_CACHE")
        .current_dir(project.path(""));
    let child = project.start(command);
    let folder = run_folder(&project);
    until("the first log", || folder.join("first.log").exists());
    let mode = |path: &Path| {
        let metadata = std::fs::symlink_metadata(path).expect("metadata");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&folder), 0o755);
    for entry in std::fs::read_dir(&folder).expect("the run's folder") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path) & 0o022, 0, "{}", path.display());
    }
    for entry in std::fs::read_dir(project.path("cache/tmp")).expect("tmp") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
        }
    }
    // What all of them write to stays so.
    assert_eq!(mode(&project.path("cache/blobs")), 0o777);
    project.write("go", "");
    Said::new(child.wait_with_output().expect("an end")).code(0);
}

/// Another user, where the tests may become one: reuses, waits, collects, and leaves
/// alone what is not theirs.
#[test]
fn two_users_share_a_cache() {
    let project = project();
    let owner = std::fs::metadata(project.path("")).expect("metadata").uid();
    if owner != 0 {
        return;
    }
    let open = |path: &str, mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(project.path(path), permissions).expect("a mode");
    };
    open("", 0o777);
    let with_mask = |args: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "umask 0; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_genius"))
            .args(args)
            .env("HOME", project.path(""))
            .env_remove("GENIUS_CACHE")
            .env_remove("GENIUS_HOME")
            .current_dir(project.path(""));
        command
    };
    let other = |args: &[&str]| {
        let mut command = with_mask(args);
        command.uid(65534).gid(65534);
        command
    };
    // Not everywhere may another user start what was built here.
    let may = other(&["--version"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return;
    }
    let run = ["run", "p.yaml", "--allow-commands"];
    let first = project.start(with_mask(&run));
    let folder = run_folder(&project);
    until("the first stage", || folder.join("first.log").exists());
    let second = project.start(other(&run));
    // Theirs waits for ours, which lives.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let list = Said::new(other(&["runs"]).output().expect("a list")).code(0);
    let running = list.stdout.matches("1 running, 1 waiting").count();
    assert_eq!(running, 2, "{}", list.stdout);
    project.write("go", "");
    Said::new(first.wait_with_output().expect("an end"))
        .code(0)
        .shows("2 executed, 0 cached");
    Said::new(second.wait_with_output().expect("an end"))
        .code(0)
        .shows("0 executed, 2 cached");
    // Ours is not theirs to remove, and that is said; theirs goes.
    std::fs::remove_file(project.path("p.yaml")).expect("it goes");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1 << 24);
    let runs = std::fs::read_dir(project.path("cache/runs")).expect("runs");
    for (number, entry) in runs.enumerate() {
        let path = entry.expect("a run").path();
        let first = std::fs::File::open(path.join("pipeline.json")).expect("it");
        first.set_modified(old).expect("a time");
        let earlier = path.with_file_name(format!("20200101T000000-{number:04}"));
        std::fs::rename(path, earlier).expect("another id");
    }
    let collect = other(&["cache", "gc", "--json"]).output();
    let said = Said::new(collect.expect("a collection")).code(0);
    let done = &said.json()["done"];
    assert_eq!(
        (&done["runs"], &done["refused"]),
        (&1.into(), &1.into()),
        "{done}"
    );
    let collect = other(&["cache", "gc"]).output();
    let said = Said::new(collect.expect("a collection")).code(0);
    assert!(
        said.stdout.contains("belong to another user"),
        "{}",
        said.stdout
    );
}
