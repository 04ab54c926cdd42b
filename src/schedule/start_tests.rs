//! What is reported when a program does not start.

use super::*;
use serde_json::{Value, json};

/// Message and hint when a file with that content and mode is started.
fn failure_of_file(content: &str, mode: u32) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tool");
    std::fs::write(&file, content).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    failure_to_start(&mut Command::new(&file), dir.path(), json!({}))
}

fn failure_to_start(command: &mut Command, dir: &Path, more: Value) -> (String, String) {
    let mut with = json!({
        "run": ["a"], "shell": false, "files": {}, "outputs": {}, "env": {},
        "inherit": [], "pass_through": [],
    });
    for (name, value) in more.as_object().unwrap() {
        with[name] = value.clone();
    }
    let params: Params = serde_json::from_value(with).unwrap();
    let error = command.current_dir(dir).spawn().unwrap_err();
    let failure = explain(&error, command, &params);
    let clean = |text: String| text.replace(&dir.display().to_string(), "DIR");
    (
        clean(failure.message),
        clean(failure.hint.unwrap_or_default()),
    )
}

#[track_caller]
fn check(failure: (String, String), why: &str, cure: &str) {
    assert!(failure.0.contains(why), "{why} in {}", failure.0);
    assert!(failure.1.contains(cure), "{cure} in {}", failure.1);
}

#[test]
fn the_reason_is_given_for_a_file_that_cannot_run() {
    check(
        failure_of_file("#!/bin/sh\n", 0o644),
        "DIR/tool is not executable",
        "chmod +x",
    );
    check(
        failure_of_file("#!/no/such/thing -x\n", 0o755),
        "names the interpreter `/no/such/thing`, which is not there",
        "install it",
    );
    check(
        failure_of_file("#!/bin/sh\r\nexit\r\n", 0o755),
        "followed by a Windows line end",
        "then `/bin/sh` is found",
    );
    check(
        failure_of_file("#!/etc/passwd\n", 0o755),
        "which is not executable",
        "in `run`",
    );
    check(
        failure_of_file("#! /etc\n", 0o755),
        "`/etc`, which is a folder",
        "install it",
    );
}

#[test]
fn a_missing_program_is_reported_with_the_folders_searched() {
    let dir = tempfile::tempdir().unwrap();
    let path = |path: &str| {
        let mut command = Command::new("no-such-program");
        command.env_clear();
        if !path.is_empty() {
            command.env("PATH", path);
        }
        command
    };
    check(
        failure_to_start(&mut path("/x:/y"), dir.path(), json!({})),
        "in none of the folders in PATH (/x:/y)",
        "`{files.NAME}`",
    );
    check(
        failure_to_start(&mut path(""), dir.path(), json!({})),
        "PATH is not passed through",
        "pass_through: [PATH]",
    );
    check(
        failure_to_start(&mut Command::new("./tool"), dir.path(), json!({})),
        "DIR/./tool does not exist",
        "`{files.NAME}`",
    );
    check(
        failure_to_start(&mut Command::new("/etc/passwd/x"), dir.path(), json!({})),
        "/etc/passwd/x cannot be read",
        "",
    );
    check(
        failure_to_start(&mut Command::new("/etc"), dir.path(), json!({})),
        "/etc is a folder",
        "name the file",
    );
    std::os::unix::fs::symlink("gone", dir.path().join("link")).unwrap();
    check(
        failure_to_start(&mut Command::new("./link"), dir.path(), json!({})),
        "is a broken link",
        "",
    );
    let gone = dir.path().join("gone");
    check(
        failure_to_start(&mut Command::new("true"), &gone, json!({})),
        "the folder to start it in is gone",
        "run again",
    );
}

#[test]
fn what_is_too_large_is_named_with_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let large = "x".repeat(200_000);
    let mut script = Command::new("sh");
    script.arg("-euc").arg(&large);
    check(
        failure_to_start(&mut script, dir.path(), json!({ "shell": true })),
        "`run[0]` has 200000 bytes",
        "`run: [sh, -eu, \"{files.NAME}\"]`",
    );
    let mut argument = Command::new("true");
    argument.args(["a", &large]);
    check(
        failure_to_start(&mut argument, dir.path(), json!({})),
        "`run[2]` has 200000 bytes, and the system takes at most 131071",
        "pass `{files.NAME}`",
    );
    for (list, params) in [
        ("env", json!({ "env": { "BIG": "" } })),
        ("inherit", json!({ "inherit": ["BIG"] })),
        ("pass_through", json!({ "pass_through": ["BIG"] })),
    ] {
        let mut variable = Command::new("true");
        variable.env("BIG", &large);
        let why = format!("the variable `BIG` (of {list}) has 200004 bytes");
        check(
            failure_to_start(&mut variable, dir.path(), params),
            &why,
            "",
        );
    }
    // None of them alone.
    let mut many = Command::new("true");
    many.args(vec!["y".repeat(100_000); 90])
        .arg("z".repeat(120_000));
    check(
        failure_to_start(&mut many, dir.path(), json!({})),
        "the largest is `run[91]` with 120000",
        "ulimit -s",
    );
}

#[test]
fn a_file_run_by_sh_by_mistake_gets_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tool");
    let failed = Exit {
        code: Some(2),
        signal: None,
    };
    let cure = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        hint_after_exit(&Command::new(&file), &failed).unwrap_or_default()
    };
    assert!(cure(b"import sys\n").contains("does not begin with `#!`"));
    assert_eq!(cure(b"#!/bin/sh\nexit 2\n"), "");
    let mut own = head_of_this_program();
    assert_eq!(cure(&own), "");
    own[18] ^= 0xff;
    assert!(cure(&own).contains("is a program for another machine"));
}
