//! Running `genius` as a person does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder of this package.
pub fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The program, without a person's environment.
pub fn genius() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genius"));
    for name in ["GENIUS_CACHE", "GENIUS_WORKER", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// The object that `run --json` prints last; the run must have ended well.
pub fn run_json(pipeline: &Path, cache: &Path, set: &[&str]) -> Value {
    let mut command = genius();
    command
        .arg("run")
        .arg(pipeline)
        .arg("--json")
        .arg("--cache")
        .arg(cache);
    for value in set {
        command.args(["--set", value]);
    }
    let output = command.output().expect("genius starts");
    assert!(output.status.success(), "{}", words(&output));
    last_json(&output)
}

/// The last line of stdout.
pub fn last_json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {}", words(output)))
}

/// All that a program said.
pub fn words(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `stage status` of every stage, in order.
pub fn statuses(report: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    report["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|s| format!("{} {}", text(&s["stage"]), text(&s["status"])))
        .collect()
}

/// The folder of a stage's output.
pub fn output_folder(report: &Value, stage: &str, output: &str) -> PathBuf {
    report["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .find(|s| s["stage"] == stage)
        .and_then(|s| s["outputs"][output].as_str())
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("`{stage}` has no output `{output}`"))
}
