//! What a program leaves in the place of its outputs, with the real `genius`: what is
//! not its own stays as it was, and what is kept is what it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::project::{Project, Said, until};

/// A folder of a person's beside the pipeline, to which programs lead.
struct Mine {
    project: Project,
    before: BTreeMap<PathBuf, String>,
}

impl Mine {
    fn new() -> Self {
        let project = Project::new("");
        for name in [
            "mine/a.txt",
            "mine/deep/b.txt",
            "mine/o/c.txt",
            "mine/output/o/d.txt",
        ] {
            project.write(name, &format!("content of {name}\n"));
        }
        let mode = |name: &str, mode| {
            fs::set_permissions(project.path(name), fs::Permissions::from_mode(mode))
                .expect("a mode");
        };
        mode("mine/a.txt", 0o640);
        mode("mine/deep/b.txt", 0o755);
        mode("mine/deep", 0o750);
        let before = picture(&project.path("mine"));
        assert_eq!(before.len(), 9);
        Self { project, before }
    }

    /// A stage `s` with that script, which has the outputs `o` and `p` and an input.
    fn run(&self, script: &str) -> Said {
        self.pipeline(script);
        self.project
            .say(&["run", "p.yaml", "--allow-commands", "--json"])
    }

    fn pipeline(&self, script: &str) {
        let mine = self.project.path("mine").display().to_string();
        let script = script.replace("MINE", &mine).replace("${", "$${");
        let script: String = script.lines().map(|l| format!("          {l}\n")).collect();
        self.project.write(
            "p.yaml",
            &format!(
                "version: 1\nname: outputs\nstages:
  first: {{ uses: command, with: {{ run: ['echo from before > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}
  s:
    uses: command
    needs: {{ i: first }}
    with:
      shell: true
      run:
        - |
{script}      outputs: {{ o: {{}} }}
"
            ),
        );
    }

    #[track_caller]
    fn is_as_it_was(&self, what: &str) {
        assert_eq!(picture(&self.project.path("mine")), self.before, "{what}");
        self.project.say(&["cache", "verify"]).code(0);
    }
}

/// Everything in a folder, with content, mode and time.
fn picture(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let m = fs::symlink_metadata(&path).expect("it is there");
        let content = if m.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            left.extend(entries.map(|e| e.expect("an entry").path()));
            String::new()
        } else {
            fs::read_to_string(&path).expect("a file")
        };
        let words = format!("{:o} {}.{} {content}", m.mode(), m.mtime(), m.mtime_nsec());
        found.insert(path, words);
    }
    found
}

#[test]
fn what_an_output_leads_to_is_left_alone() {
    let mine = Mine::new();
    for (script, says) in [
        (
            "rmdir {outputs.o}; ln -s MINE {outputs.o}",
            "o is a symbolic link: an output is a folder",
        ),
        (
            "rmdir {outputs.o}; ln -s ../../../../mine {outputs.o}; ls {outputs.o}/a.txt",
            "o is a symbolic link",
        ),
        (
            "rmdir {outputs.o}; ln -s MINE/a.txt {outputs.o}",
            "o is a symbolic link",
        ),
        (
            "rmdir {outputs.o}; ln -s /no/such/folder {outputs.o}",
            "o is a symbolic link",
        ),
        (
            "rmdir {outputs.o}; ln -s {inputs.i} {outputs.o}",
            "o is a symbolic link",
        ),
        (
            "rmdir {outputs.o}; ln -s {inputs.i}/../.. {outputs.o}",
            "o is a symbolic link",
        ),
        (
            "rmdir {outputs.o}; echo x > {outputs.o}",
            "o is a file: an output is a folder",
        ),
        (
            "rmdir {outputs.o}; mkfifo {outputs.o}",
            "o is a pipe: an output is a folder",
        ),
        (
            "echo x > {outputs.o}/x; ln -s MINE {outputs.o}/d",
            "d is a symbolic link: only plain files and folders",
        ),
        (
            "echo x > {outputs.o}/x; ln -s MINE/a.txt {outputs.o}/d",
            "d is a symbolic link",
        ),
        (
            "mkdir {outputs.o}/e; ln -s x {outputs.o}/e/d; echo x > {outputs.o}/e/x",
            "e/d is a symbolic link",
        ),
        ("mkfifo {outputs.o}/d", "d is a pipe"),
        (
            "python3 -c 'import socket, sys, os; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).bind(\"d\")' {outputs.o}",
            "d is a socket",
        ),
        (
            "o={outputs.o}; out=${o%/o}; mv $out $out.old; ln -s MINE $out; ls {outputs.o}/c.txt",
            "/output is no longer the folder that the stage was given",
        ),
        (
            "o={outputs.o}; out=${o%/o}; mv $out $out.old; mkdir -p {outputs.o}; echo x > {outputs.o}/x",
            "/output is no longer the folder",
        ),
        (
            "o={outputs.o}; job=${o%/output/o}; mv $job $job.old; ln -s MINE $job; ls {outputs.o}/d.txt",
            "is no longer the folder that the stage was given",
        ),
        (
            "printf x > {outputs.o}/\"$(printf 'a\\\\b')\"",
            "holds a backslash",
        ),
        (
            "printf x > {outputs.o}/\"$(printf 'a\\377b')\"",
            "it is not UTF-8",
        ),
    ] {
        mine.run(script)
            .code(1)
            .shows(says)
            .shows("nothing was kept");
        mine.is_as_it_was(script);
    }
    // What was taken away from the job's place by its own hand is left to it.
    let kept = mine.project.temporaries();
    assert!(kept.iter().all(|name| name.ends_with(".old")), "{kept:?}");
}

#[test]
fn what_belongs_to_the_output_is_kept() {
    let mine = Mine::new();
    let content = |said: &Said, file: &str| {
        let folder = said.json()["stages"][1]["outputs"]["o"]
            .as_str()
            .expect("a folder")
            .to_owned();
        fs::read_to_string(mine.project.path(&folder).join(file)).expect("a file")
    };
    for (script, file, expected) in [
        // A second name of somebody's file: neither taken away nor made read-only.
        (
            "ln MINE/a.txt {outputs.o}/x",
            "x",
            "content of mine/a.txt\n",
        ),
        (
            "mkdir {outputs.o}/d; ln MINE/deep/b.txt {outputs.o}/d/x; ln MINE/deep/b.txt {outputs.o}/d/y",
            "d/y",
            "content of mine/deep/b.txt\n",
        ),
        ("ln {inputs.i}/x {outputs.o}/x", "x", "from before\n"),
        (
            "rmdir {outputs.o}; mkdir {outputs.o}; echo new > {outputs.o}/x",
            "x",
            "new\n",
        ),
        (
            "mkdir made; echo moved > made/x; rmdir {outputs.o}; mv made {outputs.o}",
            "x",
            "moved\n",
        ),
        (
            "echo x > {outputs.o}/x; chmod 400 {outputs.o}/x; chmod 500 {outputs.o}",
            "x",
            "x\n",
        ),
        (
            "d=$(printf 'd%.0s' $(seq 200)); cd {outputs.o}; for i in 1 2 3 4 5 6 7 8; do mkdir $d; cd $d; done; echo deep > x",
            &format!("{}x", format!("{}/", "d".repeat(200)).repeat(8)),
            "deep\n",
        ),
    ] {
        let said = mine.run(script).code(0);
        assert_eq!(content(&said, file), expected, "{script}");
        mine.is_as_it_was(script);
    }
    assert_eq!(mine.project.temporaries(), [""; 0]);
}

/// Links among outputs are those of another output as well.
#[test]
fn an_output_is_not_another_output() {
    let project = Project::new(
        "version: 1\nname: two\nstages:\n  s: { uses: command, with: { run: ['echo x > {outputs.o}/x; rmdir {outputs.p}; ln -s {outputs.o} {outputs.p}'], shell: true, outputs: { o: {}, p: { files: [x] } } } }\n",
    );
    project
        .say(&["run", "p.yaml", "--allow-commands"])
        .code(1)
        .shows("output `p`")
        .shows("p is a symbolic link");
    // It was refused before anything was moved.
    let blobs = fs::read_dir(project.path("cache/blobs"))
        .expect("blobs")
        .count();
    assert_eq!(blobs, 0);
}

/// A mount needs a namespace of its own; without the right to one there is no such risk.
#[test]
fn what_is_mounted_in_an_output_is_left_alone() {
    let mine = Mine::new();
    let may = Command::new("unshare").args(["-m", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return;
    }
    for (script, says) in [
        (
            "mount --bind MINE {outputs.o}",
            "o is a mount: what is in it lies elsewhere",
        ),
        (
            "mkdir {outputs.o}/d; mount --bind MINE {outputs.o}/d; echo x > {outputs.o}/x",
            "d is a mount",
        ),
        (
            "touch {outputs.o}/x; mount --bind MINE/a.txt {outputs.o}/x",
            "x is a mount",
        ),
        (
            "o={outputs.o}; mount --bind MINE ${o%/o}",
            "is no longer the folder",
        ),
        ("mount --bind MINE .; echo x > {outputs.o}/x", ""),
        ("mount --bind MINE .; exit 1", "exit code 1"),
        (
            "chmod u+w {inputs.i}; mkdir {inputs.i}/d; mount --bind MINE {inputs.i}/d; echo x > {outputs.o}/x",
            "was written to while it ran",
        ),
    ] {
        mine.pipeline(script);
        // The next run, in the same namespace, tidies up what the first one left.
        let twice = format!(
            "{0} run p.yaml --allow-commands; echo $?; {0} run p.yaml --allow-commands --target first >&2; {0} cache gc >&2",
            env!("CARGO_BIN_EXE_genius")
        );
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", &twice])
            .current_dir(mine.project.path(""))
            .env_remove("GENIUS_CACHE")
            .output()
            .expect("unshare starts");
        let code = if says.is_empty() { "0\n" } else { "1\n" };
        let said = Said::new(output);
        assert_eq!(said.stdout, code, "{script}: {}", said.stderr);
        said.shows(says);
        mine.is_as_it_was(script);
        fs::remove_dir_all(mine.project.path("cache")).expect("a cache may be deleted");
    }
}

/// What the program leaves running puts a link in its output's place while it is kept. The
/// program ends only after that has a session of its own: its group is killed with it.
#[test]
fn a_folder_swapped_behind_ones_back_leads_nowhere() {
    let mine = Mine::new();
    let folder = mine.project.path("").display().to_string();
    let (mut kept, mut refused) = (0, 0);
    for round in 0..12 {
        let swap = "mv $o/d $o.d && ln -s MINE $o/d; rm -f $o/d; mv $o.d $o/d; mv $o $o.o && ln -s MINE $o; rm -f $o; mv $o.o $o";
        let said = mine.run(&format!(
            "o={{outputs.o}}; mkdir $o/d; for i in $(seq 300); do echo {round} $i > $o/d/$i; done
export o; setsid sh -c 'touch {folder}/begun; while [ -d {folder} ] && [ ! -e {folder}/enough ]; do {swap}; done; touch {folder}/done' > /dev/null 2>&1 &
until [ -e {folder}/begun ]; do sleep 0.001; done
sleep 0.0{}",
            round % 10,
        ));
        match said.code {
            0 => {
                kept += 1;
                let folder = said.json()["stages"][1]["outputs"]["o"]
                    .as_str()
                    .expect("a folder")
                    .to_owned();
                for i in 1..=300 {
                    let file = mine.project.path(&folder).join(format!("d/{i}"));
                    let text = fs::read_to_string(file).expect("a file");
                    assert_eq!(text, format!("{round} {i}\n"));
                }
            }
            1 => refused += 1,
            code => panic!("{code}: {}", said.stderr),
        }
        fs::write(mine.project.path("enough"), "").expect("a file");
        until("the other one ends", || mine.project.path("done").exists());
        for flag in ["begun", "enough", "done"] {
            fs::remove_file(mine.project.path(flag)).expect("it is there");
        }
        mine.is_as_it_was(&format!("round {round}"));
    }
    assert_eq!(kept + refused, 12);
}

#[test]
fn what_was_made_executable_runs_in_the_next_stage() {
    let project = Project::new(
        "version: 1\nname: tools\nstages:
  make:
    uses: command
    with:
      shell: true
      run:
        - |
          echo '#!/bin/sh' > {outputs.tool}/run; echo 'echo it ran' >> {outputs.tool}/run
          cp {outputs.tool}/run {outputs.plain}/run
          mkdir {outputs.tool}/bin; cp {outputs.tool}/run {outputs.tool}/bin/same; cp {outputs.tool}/run {outputs.tool}/read
          chmod 755 {outputs.tool}/run {outputs.tool}/bin/same; chmod 644 {outputs.tool}/read {outputs.plain}/run
      outputs: { tool: {}, plain: {} }
  use: { uses: command, needs: { t: make.tool }, with: { run: ['{inputs.t}/run > {outputs.o}/x; {inputs.t}/bin/same >> {outputs.o}/x; test ! -x {inputs.t}/read'], shell: true, outputs: { o: {} } } }
  direct: { uses: command, needs: { t: make.tool }, with: { run: ['{inputs.t}/run'] } }
  refused: { uses: command, needs: { t: make.plain }, with: { run: ['{inputs.t}/run'] } }
",
    );
    let run = || {
        project.say(&[
            "run",
            "p.yaml",
            "--allow-commands",
            "--keep-going",
            "--json",
        ])
    };
    run()
        .code(1)
        .shows("3 executed, 0 cached, 1 failed")
        .shows("is not executable")
        .shows("in the stage that makes it");
    let mode = |path: PathBuf| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let laid = project.path(
        project
            .say(&["out", "p.yaml", "make.tool"])
            .code(0)
            .stdout
            .trim(),
    );
    assert_eq!(mode(laid.join("run")), 0o555);
    assert_eq!(mode(laid.join("bin/same")), 0o555);
    assert_eq!(mode(laid.join("read")), 0o444);
    let used = project.say(&["out", "p.yaml", "use"]).code(0);
    let text = fs::read_to_string(project.path(used.stdout.trim()).join("x")).expect("a file");
    assert_eq!(text, "it ran\nit ran\n");

    project
        .say(&["out", "p.yaml", "make.tool", "--copy", "copy"])
        .code(0);
    assert_eq!(mode(project.path("copy/run")), 0o755);
    assert_eq!(mode(project.path("copy/read")), 0o644);

    // Whoever takes the bit away damages the folder, and it is laid out again.
    fs::set_permissions(laid.join("run"), fs::Permissions::from_mode(0o444)).expect("a mode");
    let said = project.say(&["cache", "verify"]).code(1);
    let why = "`run` can no longer be run";
    assert!(said.stdout.contains(why), "{}", said.stdout);
    project.say(&["cache", "verify", "--repair"]).code(0);
    assert_eq!(mode(laid.join("run")), 0o555);
    fs::set_permissions(laid.join("bin/same"), fs::Permissions::from_mode(0o444)).expect("a mode");
    project
        .say(&[
            "run",
            "p.yaml",
            "--allow-commands",
            "--target",
            "use",
            "--force",
            "use",
        ])
        .code(0);
    assert_eq!(mode(laid.join("bin/same")), 0o555);
    project.say(&["cache", "gc"]).code(0);
    run().shows("0 executed, 3 cached, 1 failed");
    project.say(&["cache", "verify"]).code(0);
}
