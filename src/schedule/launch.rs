//! Between dispatcher and executor: [`Launch`] starts a job, [`WorkerEvent`]s
//! come back over a channel.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::{mpsc, watch};

use crate::protocol::{Failure, Job, Level, Progress};
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

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// The outputs are written.
    Done {
        /// Figures of the outcome.
        summary: Vec<(String, serde_json::Value)>,
        /// Highest resident memory.
        peak_memory_bytes: u64,
        /// How its process ended.
        exit: Exit,
    },
    /// It could not be computed.
    Failed {
        /// Why.
        failure: Failure,
        /// Highest resident memory, as far as it is known.
        peak_memory_bytes: u64,
        /// How its process ended, if there was one.
        exit: Option<Exit>,
    },
    /// It was stopped.
    Cancelled,
}

impl JobEnd {
    /// A failure without a process.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed {
            failure,
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
