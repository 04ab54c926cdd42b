//! A stage cut into shards: [`run`]. Each shard is a job of its own that stores parts of the
//! stage's result one by one; the stage's own job runs after them and assembles the parts.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::task::{Task, TaskEnd, store_failure};
use super::{JobEnd, Launch, Stop, WorkerEvent};
use crate::protocol::{Failure, Job, Outcome, Shard};

/// Runs the shards of `job`, as many at a time as the stage has devices, each on one of them.
/// After a shard has failed no other starts.
///
/// # Errors
/// How the task ends, if a shard failed or was stopped.
pub(super) async fn run(
    task: &Task,
    job: &Job,
    launcher: &Arc<dyn Launch>,
    events: &mpsc::Sender<WorkerEvent>,
    stop: &watch::Receiver<Stop>,
) -> Result<(), TaskEnd> {
    let of = job.params.shards();
    let mut devices: Vec<Vec<u32>> = match &task.gpus[..] {
        [] => vec![Vec::new()],
        gpus => gpus.iter().map(|&gpu| vec![gpu]).collect(),
    };
    let mut waiting = 0..of;
    let mut running = JoinSet::new();
    let mut end = Ok(());
    loop {
        while end.is_ok()
            && !devices.is_empty()
            && let Some(index) = waiting.next()
            && let Some(gpus) = devices.pop()
        {
            let shard = Shard { index, of };
            // The shard's parts are stored elsewhere: this folder is deleted with all in it.
            let dir = task.store.job_dir(&task.node.name).map_err(store_failure)?;
            let mut job = job.clone();
            job.shard = Some(shard);
            job.execution.gpus.clone_from(&gpus);
            job.output_dir = dir.output();
            job.scratch_dir = dir.scratch();
            let launched = launcher.launch(
                task.index,
                job,
                task.log.clone(),
                events.clone(),
                stop.clone(),
            );
            running.spawn(async move {
                let end = launched.await;
                drop(dir);
                (shard, gpus, end)
            });
        }
        let Some(joined) = running.join_next().await else {
            return end;
        };
        let (shard, gpus, shard_end) = match joined {
            Ok(joined) => joined,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        };
        devices.push(gpus);
        // The first failure is the one reported.
        end = end.and_then(|()| shard_result(shard, shard_end));
    }
}

fn shard_result(shard: Shard, end: JobEnd) -> Result<(), TaskEnd> {
    match end.outcome {
        Outcome::Done { .. } => Ok(()),
        Outcome::Cancelled => Err(TaskEnd::Cancelled),
        Outcome::Failed(failure) => Err(TaskEnd::Failed {
            failure: Failure {
                message: format!("{shard}: {}", failure.message),
                hint: failure.hint,
            },
            may_pass: true,
            peak_memory_bytes: end.peak_memory_bytes,
            exit: end.exit,
        }),
    }
}
