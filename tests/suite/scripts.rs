//! Paths in arguments, variables and scripts of `command` stages: whatever a file is
//! called, it arrives as it is or is refused before anything runs.

use std::fs;

use serde_json::json;

use super::project::Project;

/// Names that a shell would take for something else.
const ODD: [&str; 17] = [
    "my file.txt",
    " leading and trailing ",
    "$(touch pwned).txt",
    "`touch pwned`.txt",
    "a;touch pwned;b",
    "a && touch pwned",
    "$HOME",
    "it's",
    "a\"b",
    "two\nlines",
    "a\tb",
    "-n -e x",
    "*",
    "[a-z]?",
    "#x",
    "a\\b",
    "{x,y}",
];

/// A pipeline of one stage `s` that reads a file of that name.
fn pipeline(name: &str, with: serde_json::Value) -> Project {
    let mut with = with;
    with["files"] = json!({ "f": format!("data/{name}") });
    with["outputs"] = json!({ "o": {} });
    let pipeline = json!({
        "version": 1, "name": "odd",
        "stages": { "s": { "uses": "command", "with": with } },
    });
    let project = Project::new(&pipeline.to_string());
    project.write(&format!("data/{name}"), "what it holds\n");
    project
}

/// What the stage wrote.
fn run(project: &Project, what: &str) -> String {
    let said = project
        .say(&["run", "p.yaml", "--allow-commands", "--json"])
        .code(0);
    let folder = said.json()["stages"][0]["outputs"]["o"]
        .as_str()
        .expect("a folder")
        .to_owned();
    let text = fs::read_to_string(project.path(&folder).join("x"));
    text.unwrap_or_else(|e| panic!("{what}: {e}"))
}

#[test]
fn any_name_arrives_as_argument_and_variable() {
    for name in ODD {
        let project = pipeline(
            name,
            json!({
                "run": ["sh", "-euc", "cat \"$1\" \"$F\" > \"$2/x\"; printf %s \"$${F##*/}\" >> \"$2/x\"", "sh", "{files.f}", "{outputs.o}"],
                "env": { "F": "{files.f}" },
            }),
        );
        assert_eq!(
            run(&project, name),
            format!("what it holds\nwhat it holds\n{name}")
        );
    }
}

#[test]
fn no_odd_name_gets_into_a_script() {
    let scripts = [
        "cat {files.f} > {outputs.o}/x",
        "cat '{files.f}' > {outputs.o}/x",
        "cat \"{files.f}\" > {outputs.o}/x",
        "cat < {files.f} > {outputs.o}/x",
        "eval \"cat {files.f}\" > {outputs.o}/x",
        "sh -c 'cat {files.f}' > {outputs.o}/x",
        "sh -c \"sh -c 'cat {files.f}'\" > {outputs.o}/x",
        "echo \"$(cat {files.f})\" > {outputs.o}/x",
        "echo `cat {files.f}` > {outputs.o}/x",
        "f={files.f}; cat \"$f\" > {outputs.o}/x",
        "cat << END > {outputs.o}/x\n$(cat {files.f})\nEND\n",
        "# {files.f}\necho what it holds > {outputs.o}/x",
    ];
    for (at, name) in ODD.iter().enumerate() {
        for (shape, script) in scripts.iter().enumerate() {
            // Each name in some shapes, so that each shape has some names.
            if (at + shape) % 4 != 0 {
                continue;
            }
            for with in [
                json!({ "run": [script], "shell": true }),
                json!({ "run": ["bash", "-eu", "-o", "pipefail", "-c", script] }),
            ] {
                let project = pipeline(name, with);
                for command in ["validate", "run"] {
                    project
                        .say(&[command, "p.yaml"])
                        .code(3)
                        .shows("`{files.f}` is in code (`run[")
                        .shows("env: { F: \"{files.f}\" }");
                }
                assert!(!project.path("pwned").exists() && !project.path("cache").exists());
            }
        }
    }
    for script in scripts {
        let project = pipeline(
            "plain-name_1.txt",
            json!({ "run": [script], "shell": true }),
        );
        assert_eq!(run(&project, script), "what it holds\n");
    }
}

#[test]
fn code_of_other_languages_is_guarded_too() {
    let python = "open('{outputs.o}/x', 'w').write(open('{files.f}').read())";
    let with = json!({ "run": ["python3", "-c", python] });
    pipeline("it's", with.clone())
        .say(&["validate", "p.yaml"])
        .code(3)
        .shows("`{files.f}` is in code (`run[2]`), and its path has `'` in it");
    assert_eq!(run(&pipeline("its", with), "python"), "what it holds\n");
}

#[test]
fn a_cache_with_a_blank_is_refused_in_scripts_alone() {
    let run = |project: &Project| {
        let args = ["run", "p.yaml", "--allow-commands", "--cache", "my cache"];
        project.say(&args)
    };
    let script =
        json!({ "run": ["cat {files.f} > {outputs.o}/x; touch ../../../../pwned"], "shell": true });
    let project = pipeline("plain", script);
    run(&project)
        .code(1)
        .shows("`{outputs.o}` is in code (`run[0]`), and its path has a blank in it")
        .shows("env: { O: \"{outputs.o}\" }");
    assert!(!project.path("pwned").exists(), "it did not run");
    let variable = json!({ "run": ["cat {files.f} > \"$O/x\""], "shell": true, "env": { "O": "{outputs.o}" } });
    let project = pipeline("plain", variable);
    run(&project).code(0);
    let said = project
        .say(&["out", "p.yaml", "s", "--cache", "my cache"])
        .code(0);
    let text = fs::read_to_string(project.path(said.stdout.trim()).join("x")).expect("a file");
    assert_eq!(text, "what it holds\n");
}

#[test]
fn placeholders_of_variables_are_declared() {
    pipeline(
        "x",
        json!({ "run": ["true"], "env": { "A": "{files.g}", "B": "{outputs.o}" } }),
    )
    .say(&["validate", "p.yaml"])
    .code(3)
    .shows("`{files.g}`: stage `s` has no file `g`")
    .shows("in `env.A`");
}

#[test]
fn what_is_too_large_to_pass_is_named() {
    let large = "x".repeat(40_000);
    let with = json!({
        "run": ["true"],
        "env": { "DATA": format!("{large}{large}{large}{large}"), "SMALL": "y" },
    });
    pipeline("x", with)
        .say(&["run", "p.yaml", "--allow-commands"])
        .code(1)
        .shows("the variable `DATA` (of env) has 160005 bytes, and the system takes at most 131071")
        .shows("name that under `files`");
}
