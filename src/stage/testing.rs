//! A job in a temporary folder, for the tests of stages: [`TestJob`]. A module
//! of the library's tests and of `genius-worker`'s.

#![allow(dead_code, reason = "each of the two crates uses a part of it")]

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use genius::artifact::{read_jsonl, write_jsonl};
use genius::kind::StageKind;
use genius::protocol::{Context, Execution, Job, JobResult, Level, Message, PartialResults, Shard};

/// A job, its folder, and its log.
pub struct TestJob {
    dir: tempfile::TempDir,
    job: Job,
    messages: Arc<Mutex<Vec<Message>>>,
}

impl TestJob {
    /// A job without inputs.
    pub fn new(kind: StageKind, params: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let job = Job {
            stage: kind.name().into(),
            params: kind.params(params).unwrap(),
            numerics: None,
            execution: Execution::default(),
            inputs: [].into(),
            input_hashes: [].into(),
            partial: None,
            shard: None,
            notes: Vec::new(),
            output_dir: dir.path().join("out"),
            scratch_dir: dir.path().join("scratch"),
        };
        Self {
            dir,
            job,
            messages: Arc::default(),
        }
    }

    /// Fills an input slot with a folder that holds one file of records.
    pub fn with_input<T: Serialize>(mut self, slot: &str, file: &str, records: &[T]) -> Self {
        let dir = self.dir.path().join("in").join(slot);
        std::fs::create_dir_all(&dir).unwrap();
        write_jsonl(&dir.join(file), records).unwrap();
        self.job.inputs.insert(slot.into(), dir);
        self
    }

    /// Gives an input slot a folder that is there already.
    pub fn with_folder(mut self, slot: &str, folder: &std::path::Path) -> Self {
        self.job.inputs.insert(slot.into(), folder.to_owned());
        self
    }

    /// Names the content of an input.
    pub fn with_hash(mut self, slot: &str, hash: &str) -> Self {
        self.job.input_hashes.insert(slot.into(), hash.into());
        self
    }

    /// Sets the knobs of execution.
    pub fn with_execution(mut self, execution: Execution) -> Self {
        self.job.execution = execution;
        self
    }

    /// Gives it a place for parts of its result.
    pub fn with_partial(mut self, partial: PartialResults) -> Self {
        self.job.partial = Some(partial);
        self
    }

    /// Makes it a part of the stage.
    pub fn with_shard(mut self, shard: Shard) -> Self {
        self.job.shard = Some(shard);
        self
    }

    /// Runs a stage's function.
    pub fn run(&self, stage: impl FnOnce(&Context) -> JobResult) -> JobResult {
        let messages = Arc::clone(&self.messages);
        let sink = Arc::new(move |message| messages.lock().unwrap().push(message));
        stage(&Context::new(
            self.job.clone(),
            sink,
            Arc::new(AtomicBool::new(false)),
        ))
    }

    /// A file of an output.
    pub fn path(&self, output: &str, file: &str) -> PathBuf {
        self.job.output_dir.join(output).join(file)
    }

    /// The records of a file of an output.
    pub fn records<T: DeserializeOwned>(&self, output: &str, file: &str) -> Vec<T> {
        read_jsonl(&self.path(output, file)).unwrap()
    }

    /// The stage's metrics.
    pub fn metrics(&self) -> Value {
        let text = std::fs::read_to_string(self.path("metrics", "metrics.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The messages logged at a level.
    pub fn logged(&self, wanted: Level) -> Vec<String> {
        self.messages
            .lock()
            .unwrap()
            .iter()
            .filter_map(|message| match message {
                Message::Log { level, text } if *level == wanted => Some(text.clone()),
                _ => None,
            })
            .collect()
    }
}
