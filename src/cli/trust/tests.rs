//! Trust: what it covers, what is shown of it, and what is believed.

mod keeping;

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const TEXT: &str = "\
version: 1
name: mine
stages:
  make:
    uses: command
    with: { run: [python, '{files.script}', 'two words'], files: { script: s.py }, outputs: { data: {} } }
  count:
    uses: command
    needs: { data: make.data }
    with: { run: ['wc -l {inputs.data}/* > {outputs.n}/n'], shell: true, outputs: { n: {} } }
";

/// A project, and a home folder apart from it.
struct Place {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Place {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("project")).unwrap();
        let mut environment = Environment::from_process();
        environment.folders.genius = Some(dir.path().join("home"));
        // A system with two programs.
        environment.variables = BTreeMap::new();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        environment
            .variables
            .insert("PATH".to_owned(), bin.display().to_string());
        let place = Self { dir, environment };
        for program in ["python", "sh"] {
            place.program(&format!("../bin/{program}"), "");
        }
        place.write("p.yaml", text);
        place.write("s.py", "print(1)\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("project").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn load(&self, set: &[&str]) -> Pipeline {
        let set: Vec<spec::Override> = set
            .iter()
            .map(|text| spec::Override::parse(text).unwrap())
            .collect();
        spec::load(&self.path("p.yaml"), &set).unwrap_or_else(|e| panic!("{e}"))
    }

    fn keeper(&self) -> Keeper {
        Keeper::new(self.environment.folders.genius.as_deref()).unwrap()
    }

    /// Trusts the file as it is; what was shown.
    fn trust(&self) -> String {
        let mut shown = String::new();
        let variables = &self.environment.variables;
        give(&self.keeper(), &self.load(&[]), variables, |seen| {
            shown = would_run(seen, variables).render(false);
        })
        .unwrap_or_else(|e| panic!("{e}"));
        self.plain(&shown)
    }

    /// The message of `run` without `--allow-commands`; empty if it continues.
    fn refusal_with(&self, set: &[&str]) -> String {
        match check(&self.environment, &self.load(set)) {
            Ok(_) => String::new(),
            Err(e) => {
                assert_eq!(e.exit_code(), 3);
                self.plain(&e.render(false))
            }
        }
    }

    fn refusal(&self) -> String {
        self.refusal_with(&[])
    }

    fn plain(&self, text: &str) -> String {
        let folder = self.dir.path().canonicalize().unwrap();
        let hashes = regex::Regex::new("covered([^(:]*): [0-9a-f]{12}\\)").unwrap();
        let text = text
            .replace(&folder.display().to_string(), "DIR")
            .replace(&self.dir.path().display().to_string(), "DIR");
        hashes.replace_all(&text, "covered$1: HASH)").into_owned()
    }

    fn trust_file(&self) -> PathBuf {
        self.keeper().file(&self.path("p.yaml"))
    }
}

/// A pipeline of one command stage with these parameters, outputs apart.
fn one(with: &str) -> String {
    format!(
        "version: 1\nname: n\nstages:\n  a:\n    uses: command\n    with:\n      outputs: {{ o: {{}} }}\n{}",
        with.lines()
            .map(|l| format!("      {l}\n"))
            .collect::<String>()
    )
}

#[test]
fn trust_covers_one_content_and_can_be_revoked() {
    let place = Place::new(TEXT);
    assert!(place.refusal().contains("it is not trusted yet"));
    place.trust();
    assert_eq!(place.refusal(), "");

    place.write("p.yaml", &TEXT.replace("wc -l", "rm -r"));
    insta::assert_snapshot!(place.refusal(), @r#"
    error: DIR/project/p.yaml runs its own programs in stages `make`, `count`, and something has changed since it was trusted:
      stage `count`: run: ["wc -l {inputs.data}/* > {outputs.n}/n"] -> ["rm -r {inputs.data}/* > {outputs.n}/n"]
      the file itself: line 10
      = help: check the changes; `genius trust DIR/project/p.yaml` shows what would run and trusts it as it is now, `genius run --allow-commands` lets one run
    "#);
    let shown = place.plain(&table(&place.keeper().list(), None));
    assert!(
        shown.ends_with("DIR/project/p.yaml  (changed since: no longer trusted)\n"),
        "{shown}"
    );

    place.write("p.yaml", TEXT);
    assert_eq!(place.refusal(), "");
    // Also when the file is another by then.
    place.write("p.yaml", "no pipeline");
    let keeper = place.keeper();
    assert!(keeper.revoke(&place.path("p.yaml")).unwrap());
    assert!(!keeper.revoke(&place.path("p.yaml")).unwrap());
    place.write("p.yaml", TEXT);
    assert!(place.refusal().contains("it is not trusted yet"));
    assert_eq!(table(&keeper.list(), None), "");
}

#[test]
fn everything_that_decides_what_runs_is_shown() {
    let text = TEXT.replace(
        "outputs: { data: {} } }",
        "outputs: { data: { files: [a.txt] } }, env: { LD_PRELOAD: ./x.so, MODE: 'a b' }, inherit: [HF_TOKEN, PATH] }\n    timeout_secs: 60\n    retry: 2\n    resources: { cores: 4 }",
    ) + "variants:
  fast:
    set: { stages.make.with.env.MODE: quick, stages.make.timeout_secs: 5 }
  rates:
    matrix: { 'stages.count.with.run[0]': ['true', 'false'] }
";
    let place = Place::new(&text);
    insta::assert_snapshot!(place.trust(), @r#"
    make:
        run           python '{files.script}' 'two words'
        env.LD_PRELOAD ./x.so
        env.MODE      'a b'
        inherit       HF_TOKEN (not set), PATH (set)
        outputs.data  {"files":["a.txt"],"nonempty":false}
        pass_through  PATH (set)
        resources.cores 4
        retry.backoff_secs 1.0
        retry.times   2
        timeout_secs  60.0
        files.script  DIR/project/s.py (covered: HASH)
        program       DIR/bin/python (not covered: outside the project)
    count:
        sh -eu        | wc -l {inputs.data}/* > {outputs.n}/n
        needs.data    make.data
        outputs.n     a folder
        pass_through  PATH (set)
        program       DIR/bin/sh (not covered: outside the project)
    make@fast: as in the plain file, except
        env.MODE      quick
        timeout_secs  5.0
    count@rates:0=true: as in the plain file, except
        sh -eu        | true
    count@rates:0=false: as in the plain file, except
        sh -eu        | false
    Each program runs in its own empty folder and gets the variables above, TMPDIR, and
    CUDA_VISIBLE_DEVICES where it has devices. It may do whatever you may. Not covered: the values
    of inherited variables, programs outside the project, inputs, and what a program reads that is
    not named here.
    "#);
    let pipeline = place.load(&[]);
    insta::assert_snapshot!(place.plain(&revoked(&pipeline.path, true)), @"DIR/project/p.yaml is no longer trusted");
    insta::assert_snapshot!(place.plain(&revoked(&pipeline.path, false)), @"DIR/project/p.yaml was not trusted");
}

#[test]
fn control_characters_cannot_hide_anything() {
    let place = Place::new(&one(
        "run: [rm, \"x\\e[8m\\r\\u200B\\u202E\\u00A0\\u2028\\u3164\\n    env.A  harmless\"]\nenv: { A: \"\\e]0;t\\a\\u061C\" }",
    ));
    let shown = place.trust();
    assert!(!shown.contains(crate::text::is_unseen), "{shown:?}");
    insta::assert_snapshot!(shown.lines().take(3).collect::<Vec<_>>().join("\n"), @r"
    a:
        run           rm 'x\u{1b}[8m\r\u{200b}\u{202e}\u{a0}\u{2028}\u{3164}\n    env.A  harmless'
        env.A         '\u{1b}]0;t\u{7}\u{61c}'
    ");
    // Every line of a script begins with a mark, so that none looks like another fact.
    let place = Place::new(&one("shell: true\nrun: [\"true\\nb:\\n    run  true\"]"));
    insta::assert_snapshot!(place.trust().lines().take(4).collect::<Vec<_>>().join("\n"), @r"
    a:
        sh -eu        | true
                      | b:
                      |     run  true
    ");
}

#[test]
fn a_changed_script_needs_a_new_trust() {
    let place = Place::new(TEXT);
    place.trust();
    place.write("s.py", "import os; os.system('x')\n");
    insta::assert_snapshot!(place.refusal(), @r"
    error: DIR/project/p.yaml runs its own programs in stages `make`, `count`, and something has changed since it was trusted:
      DIR/project/s.py has changed (make: files.script)
      = help: check the changes; `genius trust DIR/project/p.yaml` shows what would run and trusts it as it is now, `genius run --allow-commands` lets one run
    ");
    let listed = place.plain(&table(&place.keeper().list(), None));
    assert!(
        listed.ends_with("(DIR/project/s.py changed since: no longer trusted)\n"),
        "{listed}"
    );
    place.write("s.py", "print(1)\n");
    assert_eq!(place.refusal(), "", "it is what was trusted again");
}

#[test]
fn a_script_added_later_needs_a_new_trust() {
    let place = Place::new("");
    let script = place.path("later.py").display().to_string();
    place.write("p.yaml", &one(&format!("run: [python, '{script}']")));
    place.trust();
    assert_eq!(place.refusal(), "");
    place.write("later.py", "x");
    let refused = place.refusal();
    assert!(
        refused.contains("later.py was not covered (a: run)"),
        "{refused}"
    );
    assert!(refused.contains("= help: check the changes"), "{refused}");
}

#[test]
fn undeclared_files_of_the_project_are_covered() {
    for with in [
        "run: [python, 'SCRIPT']",
        "run: ['SCRIPT']",
        "run: [python, '--script=SCRIPT']",
        "shell: true\nrun: ['python \"SCRIPT\" > {outputs.o}/x']",
        "run: [python]\nenv: { LD_PRELOAD: 'SCRIPT' }",
        "run: [curl, -d, '@SCRIPT']",
    ] {
        let place = Place::new("");
        place.program("tool/run.py", "print(1)");
        let script = place.path("tool/run.py").display().to_string();
        place.write("p.yaml", &one(&with.replace("SCRIPT", &script)));
        let shown = place.trust();
        assert!(
            shown.contains("run.py (covered, though not declared"),
            "{with}: {shown}"
        );
        assert_eq!(place.refusal(), "", "{with}");
        place.program("tool/run.py", "print(2)");
        assert!(place.refusal().contains("run.py has changed"), "{with}");
    }
}

#[test]
fn a_program_of_the_project_found_in_path_is_covered() {
    let mut place = Place::new(&one("run: [tool]"));
    let bin = place.path("bin").display().to_string();
    place.environment.variables.insert("PATH".to_owned(), bin);
    let shown = place.trust();
    assert!(shown.contains("program       not found"), "{shown}");
    assert_eq!(place.refusal(), "");
    place.program("bin/tool", "#!/bin/sh\n");
    assert!(
        place
            .refusal()
            .contains("bin/tool was not covered (a: program)")
    );
    place.trust();
    assert_eq!(place.refusal(), "");
    place.program("bin/tool", "#!/bin/sh\nrm -r /\n");
    assert!(
        place
            .refusal()
            .contains("bin/tool has changed (a: program)")
    );
}

#[test]
fn the_repository_around_a_pipeline_is_the_project() {
    let place = Place::new("");
    std::fs::create_dir(place.dir.path().join(".git")).unwrap();
    place.write("../lib/x.sh", "");
    let script = place.dir.path().join("lib/x.sh").display().to_string();
    place.write("p.yaml", &one(&format!("run: [sh, '{script}']")));
    assert!(place.trust().contains("x.sh (covered, though not declared"));
    // A link in the project that leads out of it is of the project.
    symlink("/bin/sh", place.path("mine")).unwrap();
    let link = place.path("mine").display().to_string();
    place.write("p.yaml", &one(&format!("run: ['{link}', -c, x]")));
    assert!(place.trust().contains("project/mine (covered"));
}

#[test]
fn an_undeclared_folder_is_named_as_not_covered() {
    let place = Place::new("");
    place.write("lib/x.py", "");
    let lib = place.path("lib").display().to_string();
    place.write(
        "p.yaml",
        &one(&format!("run: [python]\nenv: {{ PYTHONPATH: '{lib}' }}")),
    );
    let shown = place.trust();
    assert!(
        shown.contains("lib (not covered: declare the folder under `files`)"),
        "{shown}"
    );
    place.write("p.yaml", &one("run: [python]\nfiles: { lib: lib }"));
    place.trust();
    assert_eq!(place.refusal(), "");
    place.write("lib/y.py", "");
    assert!(place.refusal().contains("lib has changed (a: files.lib)"));
}

/// Whatever changes what runs, by the file, a variant or `--set`.
#[test]
fn every_fact_that_changes_is_named() {
    let base = one("run: [python, a]\nenv: { A: '1' }\nfiles: { script: s.py }");
    let place = Place::new(&base);
    place.write("t.py", "");
    place.trust();
    for (set, message) in [
        (
            "stages.a.with.run=[python, b]",
            r#"stage `a`: run: ["python","a"] -> ["python","b"]"#,
        ),
        (
            "stages.a.with.shell=true",
            "stage `a`: shell: false -> true",
        ),
        ("stages.a.with.env.A='2'", r#"stage `a`: env.A: "1" -> "2""#),
        (
            "stages.a.with.env.B='2'",
            r#"stage `a`: env.B: (none) -> "2""#,
        ),
        (
            "stages.a.with.inherit=[X]",
            r#"stage `a`: inherit: [] -> ["X"]"#,
        ),
        (
            "stages.a.with.pass_through=[PATH, LD_PRELOAD]",
            "stage `a`: pass_through: ",
        ),
        (
            "stages.a.with.files.script=t.py",
            "stage `a`: files.script: ",
        ),
        (
            "stages.a.with.outputs.p={}",
            "stage `a`: outputs.p: (none) -> ",
        ),
        (
            "stages.a.timeout_secs=1",
            "stage `a`: timeout_secs: (none) -> 1.0",
        ),
        ("stages.a.retry=3", "stage `a`: retry.times: (none) -> 3"),
        (
            "stages.a.resources={gpu: 1}",
            "stage `a`: resources.gpu: (none) -> 1",
        ),
    ] {
        if set.contains("shell") {
            // `run` must be one script then.
            let refused_both = place.refusal_with(&[set, "stages.a.with.run=[x]"]);
            assert!(refused_both.contains(message), "{set}: {refused_both}");
            continue;
        }
        let refused = place.refusal_with(&[set]);
        assert!(refused.contains(message), "{set}: {refused}");
        assert!(!refused.contains("the file itself"), "{set}: {refused}");
        assert!(
            refused.contains("= help: a trust covers the pipeline file"),
            "{set}: {refused}"
        );
    }
    assert_eq!(place.refusal_with(&["seed=7"]), "", "changes no command");
}

#[test]
fn a_variant_added_later_needs_a_new_trust() {
    let base = one("run: [python, a]");
    let place = Place::new(&base);
    place.trust();
    place.write(
        "p.yaml",
        &format!("{base}variants: {{ v: {{ set: {{ 'stages.a.with.run[1]': b }} }} }}\n"),
    );
    let refused = place.refusal();
    assert!(
        refused.contains(r#"stage `a@v`: run: ["python","a"] -> ["python","b"]"#),
        "{refused}"
    );
    place.trust();
    assert_eq!(place.refusal(), "");
    // Also one that changes no command, and a comment: the file is another.
    place.write("p.yaml", &format!("{base}# x\n"));
    let refused = place.refusal();
    assert!(!refused.contains("stage `a`:"), "{refused}");
    assert!(refused.contains("the file itself: line"), "{refused}");
}

#[test]
fn a_file_that_changes_after_the_check_is_not_run() {
    let place = Place::new(TEXT);
    place.trust();
    let pipeline = place.load(&[]);
    let guard = check(&place.environment, &pipeline).unwrap().unwrap();
    let graph = crate::plan::Graph::build_variants(
        &pipeline,
        &["base".to_owned()],
        &place.environment.machine(),
        &crate::plan::RunOptions::default(),
        &place.environment.resolver(None),
    )
    .unwrap();
    let node = |name: &str| graph.nodes.iter().find(|n| n.stage == name).unwrap();
    assert!(guard.may_start(node("make")).is_ok());
    place.write("s.py", "print(2)\n");
    let failure = guard.may_start(node("make")).unwrap_err();
    insta::assert_snapshot!(place.plain(&failure.message), @"DIR/project/s.py has changed since it was trusted: the program was not started");
    assert!(
        guard.may_start(node("count")).is_ok(),
        "it does not name the file"
    );
}
