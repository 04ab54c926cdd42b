//! Between dispatcher and executor: [`Launch`] starts a job, [`WorkerEvent`]s
//! come back over a channel.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::{mpsc, watch};

use crate::protocol::{Failure, Job, Level, Outcome, Progress};
use crate::run::Exit;

/// How urgently to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    No,
    /// Ask the worker, and end it if it does not answer soon.
    Soon,
    /// End it now.
    Now,
}

/// From an executor to the dispatcher; `usize` is the node.
#[derive(Debug)]
pub enum WorkerEvent {
    /// How far it is.
    Progress(usize, Progress),
    /// It said something.
    Log(usize, Level, String),
}

/// How a job ended, and its process.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEnd {
    /// How the job ended: as the worker reported it, or as its process showed.
    pub outcome: Outcome,
    /// Highest resident memory, as far as it is known.
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

/// Starts jobs. The real one is [`super::ProcessLauncher`].
pub trait Launch: Send + Sync {
    /// Runs `job` to its end, telling `events` on the way (not of the end itself).
    /// What the process writes on stderr goes to the end of `log`.
    fn launch(
        &self,
        node: usize,
        job: Job,
        log: PathBuf,
        events: mpsc::Sender<WorkerEvent>,
        stop: watch::Receiver<Stop>,
    ) -> Pin<Box<dyn Future<Output = JobEnd> + Send>>;
}
