//! [`Project`]: a folder with pipelines in which the real `genius` runs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Four queries, one twice.
pub const QUERIES: &str = "{\"q\":\"one\"}\n{\"q\":\"two\"}\n{\"q\":\"three\"}\n{\"q\":\"two\"}\n";

/// A pipeline of one stage that needs no model.
pub const QUERIES_ONLY: &str = "\
version: 1
name: small
seed: 42
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl, field: q } } }
";

/// The same with a stage that needs a worker.
pub const WITH_MODEL: &str = "\
version: 1
name: small
seed: 42
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl, field: q } } }
  policy: { uses: model, with: { source: { path: model } } }
";

/// A folder of its own, removed afterwards.
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// With `q.jsonl`, a folder `model`, and `p.yaml`.
    pub fn new(pipeline: &str) -> Self {
        let project = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        project.write("q.jsonl", QUERIES);
        project.write("model/config.json", "{}");
        project.write("p.yaml", pipeline);
        project
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// `genius` in that folder, with nothing of this process's environment that it reads.
    pub fn genius(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genius"));
        command.args(args).current_dir(self.dir.path());
        for name in [
            "GENIUS_CACHE",
            "GENIUS_WORKER",
            "GENIUS_HOME",
            "NO_COLOR",
            "HF_TOKEN",
            "HF_ENDPOINT",
            "COLUMNS",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// What `genius` says to these arguments.
    pub fn say(&self, args: &[&str]) -> Said {
        Said::new(self.genius(args).output().expect("genius starts"))
    }

    /// Starts `genius`, its output kept for [`wait`].
    pub fn start(&self, mut command: Command) -> Child {
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("genius starts")
    }

    /// Names in the cache's folder of temporaries.
    pub fn temporaries(&self) -> Vec<String> {
        std::fs::read_dir(self.path("cache/tmp"))
            .expect("the cache's tmp")
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }
}

/// How a `genius` ended.
pub struct Said {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What was on stdout.
    pub stdout: String,
    /// What was on stderr.
    pub stderr: String,
}

impl Said {
    pub fn new(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// Stops the test with all that was said unless the exit code is this.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Stops the test unless stderr has these words.
    #[track_caller]
    pub fn shows(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "`{words}` in: {}", self.stderr);
        self
    }

    /// stdout as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("JSON on stdout")
    }
}

/// Longer than anything here takes on a loaded machine: only what never comes is stopped.
pub const FAR: Duration = Duration::from_secs(300);

/// Waits for what must come.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < FAR, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The content of a file once it is there and ends with a newline.
#[track_caller]
pub fn line_of(path: &Path) -> String {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until(&path.display().to_string(), || read().ends_with('\n'));
    read().trim().to_owned()
}
