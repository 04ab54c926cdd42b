//! [`Context`]: a stage's job, and where it reports progress and logs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Failure, Figure, Job, Level, Message, Progress};

/// What a stage's function returns: figures of its result, in the order in which they
/// are shown.
pub type JobResult = Result<Vec<Figure>, Failure>;

/// Receives a stage's messages; must not block for long.
pub type Sink = Arc<dyn Fn(Message) + Send + Sync>;

/// What a stage's computation gets.
#[derive(Clone)]
pub struct Context {
    /// What to compute.
    pub job: Job,
    sink: Sink,
    cancelled: Arc<AtomicBool>,
}

impl Context {
    /// A context that reports to `sink` and stops when `cancelled` is set.
    pub fn new(job: Job, sink: Sink, cancelled: Arc<AtomicBool>) -> Self {
        Self {
            job,
            sink,
            cancelled,
        }
    }

    /// A context that reports nothing, for tests.
    pub fn silent(job: Job) -> Self {
        Self::new(job, Arc::new(|_| {}), Arc::new(AtomicBool::new(false)))
    }

    /// A file of an input artifact.
    ///
    /// # Errors
    /// When the job lacks that input.
    pub fn input(&self, slot: &str) -> Result<&Path, Failure> {
        self.job
            .inputs
            .get(slot)
            .map(PathBuf::as_path)
            .ok_or_else(|| {
                Failure::new(format!("stage `{}` got no input `{slot}`", self.job.stage))
            })
    }

    /// The folder of an output, created if missing.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn output(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.job.output_dir.join(name);
        std::fs::create_dir_all(&dir)
            .map_err(|e| Failure::new(format!("cannot create {}: {e}", dir.display())))?;
        Ok(dir)
    }

    /// Reports progress.
    pub fn progress(&self, progress: Progress) {
        (self.sink)(Message::Progress(progress));
    }

    /// Writes a line to the stage's log.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        (self.sink)(Message::Log {
            level,
            text: text.into(),
        });
    }

    /// Whether to stop now.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// # Errors
    /// When the stage was cancelled; long loops ask this.
    pub fn check_cancelled(&self) -> Result<(), Failure> {
        if self.cancelled() {
            Err(Failure::new("cancelled"))
        } else {
            Ok(())
        }
    }
}
