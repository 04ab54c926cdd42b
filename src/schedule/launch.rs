//! The interface between dispatcher and executor: [`Launch`] starts a job,
//! [`WorkerEvent`]s come back over a channel.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::{mpsc, watch};

use crate::protocol::{Failure, Job, Level, Outcome, Progress};
use crate::run::Exit;

/// How urgently to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Do not stop.
    No,
    /// Ask the worker to stop, and kill it if it does not soon.
    Soon,
    /// Kill it now.
    Now,
}

/// From an executor to the dispatcher; `usize` is the node.
#[derive(Debug)]
pub enum WorkerEvent {
    /// How far the job has got.
    Progress(usize, Progress),
    /// A log message.
    Log(usize, Level, String),
}

/// How a job and its process ended.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEnd {
    /// How the job ended: as the worker reported it, or as its process showed.
    pub outcome: Outcome,
    /// Highest resident memory, as far as known.
    pub peak_memory_bytes: u64,
    /// How its process ended, if there was one.
    pub exit: Option<Exit>,
}

impl JobEnd {
    /// A failure without a process.
    pub fn failed(failure: Failure) -> Self {
        Self {
            outcome: Outcome::Failed(failure),
            peak_memory_bytes: 0,
            exit: None,
        }
    }

    /// A stop on request; what became of its process does not matter.
    pub fn cancelled() -> Self {
        Self {
            outcome: Outcome::Cancelled,
            peak_memory_bytes: 0,
            exit: None,
        }
    }
}

/// Starts jobs: [`super::ProcessLauncher`], or a test's own.
pub trait Launch: Send + Sync {
    /// Runs `job` to its end and sends `events` on the way, but not for the end itself.
    /// What the process writes to stderr is appended to `log`.
    fn launch(
        &self,
        node: usize,
        job: Job,
        log: PathBuf,
        events: mpsc::Sender<WorkerEvent>,
        stop: watch::Receiver<Stop>,
    ) -> Pin<Box<dyn Future<Output = JobEnd> + Send>>;
}
