//! Between dispatcher and executor: [`Launch`] starts a job, [`WorkerEvent`]s
//! come back over a channel.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::{mpsc, watch};

use crate::protocol::{Failure, Job, Level, Progress};

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
    /// Its process is gone.
    Ended(usize, JobEnd),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// The outputs are written.
    Done {
        /// Figures of the outcome.
        summary: Vec<(String, serde_json::Value)>,
        /// Highest resident memory.
        peak_memory_bytes: u64,
    },
    /// It could not be computed.
    Failed(Failure),
    /// It was stopped.
    Cancelled,
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
