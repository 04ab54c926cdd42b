//! One stage from its inputs to its record: lays out the inputs, runs the job, stores the
//! result. Runs beside the dispatcher.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::shards;
use super::{JobEnd, Launch, Stop, WorkerEvent};
use crate::kind::{Params, Program, StageKind};
use crate::plan::{Fingerprint, Node};
use crate::protocol::{Failure, Figure, Job, Outcome, PartialResults};
use crate::run::{Exit, Origin};
use crate::store::{
    Claim, ContentHash, JobDir, Key, Modes, RECORD_FORMAT, Record, Results, Stamp, Store,
    StoreError, Tree, Written,
};

/// Hashes a source of a stage as it is now.
pub type HashSource = Arc<dyn Fn(&Path) -> Option<ContentHash> + Send + Sync>;

/// Checks that a command may start: its program may have changed since the user allowed it.
pub type MayStart = Arc<dyn Fn(&Node) -> Result<(), Failure> + Send + Sync>;

/// What a stage's task needs to know.
pub(super) struct Task {
    pub index: usize,
    pub node: Node,
    pub key: Key,
    pub preimage: Value,
    /// Why it runs.
    pub reason: String,
    /// Whether to ignore partial results of earlier runs.
    pub fresh: bool,
    /// For each slot, the node that made the input, and its files.
    pub inputs: BTreeMap<String, (usize, Tree)>,
    /// Numbers of its devices, if the machine has several.
    pub gpus: Vec<u32>,
    pub store: Store,
    /// Held until the record is there; none if it could not be claimed.
    pub claim: Option<Claim>,
    pub log: PathBuf,
    pub pipeline: String,
    pub run_id: String,
    pub origin: Origin,
    pub hash_source: HashSource,
    pub may_start: MayStart,
}

/// How a task ended. Not the same as [`Outcome`], the end of a job: storing the result of a
/// finished job may fail, and a damaged input ends a task before it has a job.
pub(super) enum TaskEnd {
    /// The result is in the cache.
    Kept {
        outputs: BTreeMap<String, Tree>,
        figures: Vec<Figure>,
        peak_memory_bytes: u64,
        exit: Exit,
    },
    /// An input does not match its hash: the node that made it has to run again.
    InputDamaged(usize, StoreError),
    /// The result could not be computed or stored.
    Failed {
        failure: Failure,
        /// Whether a retry may succeed.
        may_pass: bool,
        peak_memory_bytes: u64,
        exit: Option<Exit>,
    },
    Cancelled,
}

impl From<Failure> for TaskEnd {
    fn from(failure: Failure) -> Self {
        TaskEnd::Failed {
            failure,
            may_pass: true,
            peak_memory_bytes: 0,
            exit: None,
        }
    }
}

pub(super) async fn run(
    task: Task,
    launcher: Arc<dyn Launch>,
    events: mpsc::Sender<WorkerEvent>,
    stop: watch::Receiver<Stop>,
) -> TaskEnd {
    match work(task, launcher, events, stop).await {
        Ok(end) | Err(end) => end,
    }
}

async fn work(
    task: Task,
    launcher: Arc<dyn Launch>,
    events: mpsc::Sender<WorkerEvent>,
    stop: watch::Receiver<Stop>,
) -> Result<TaskEnd, TaskEnd> {
    let mut asked = stop.clone();
    let inputs = tokio::select! {
        // The reading itself continues, but its result is dropped.
        _ = asked.wait_for(|stop| *stop != Stop::No) => return Ok(TaskEnd::Cancelled),
        inputs = lay_out(&task) => inputs?,
    };
    check_disk(&task.store, &task.node, &inputs)?;
    let dir = task.store.job_dir(&task.node.name).map_err(store_failure)?;
    let mut job = job(&task, inputs, &dir);
    // What a source held is in the key. Whether it was written meanwhile, only its times
    // show, since the old content may have been written back.
    let stamps = Stamps::read(&task);
    let (started, started_at) = (Instant::now(), jiff::Timestamp::now());
    if task.node.params.shards() > 1 {
        shards::run(&task, &job, &launcher, &events, &stop).await?;
        if let Some(partial) = &mut job.partial {
            partial.fresh = false;
        }
    }
    if task.node.kind().program() == Program::Own {
        check_program(&task).await?;
    }
    let execution = job.execution.clone();
    let JobEnd {
        outcome,
        peak_memory_bytes,
        exit,
    } = launcher
        .launch(task.index, job, task.log.clone(), events, stop)
        .await;
    let failed = |failure, may_pass, exit| TaskEnd::Failed {
        failure,
        may_pass,
        peak_memory_bytes,
        exit,
    };
    let figures = match outcome {
        Outcome::Done { figures, .. } => figures,
        Outcome::Failed(failure) => return Err(failed(failure, true, exit)),
        Outcome::Cancelled => return Ok(TaskEnd::Cancelled),
    };
    let exit = exit.unwrap_or_default();
    let provenance = json!({
        "stage": task.node.stage,
        "variants": task.node.variants,
        "pipeline": task.pipeline,
        "run_id": task.run_id,
        "started": started_at.to_string(),
        "seconds": started.elapsed().as_secs_f64(),
        "peak_memory_bytes": peak_memory_bytes,
        "exit": exit,
        "reason": task.reason,
        "execution": execution,
        "knobs": task.node.params.knobs(),
        "sources": task.node.provenance,
        "environment": task.origin,
    });
    let stored = store_result(task, dir, stamps, figures.clone(), provenance).await;
    match stored {
        Ok(outputs) => Ok(TaskEnd::Kept {
            outputs,
            figures,
            peak_memory_bytes,
            exit,
        }),
        Err((failure, may_pass)) => Err(failed(failure, may_pass, Some(exit))),
    }
}

/// Stores a result that still matches its key. An error has whether a retry may succeed.
async fn store_result(
    mut task: Task,
    dir: JobDir,
    before: Stamps,
    figures: Vec<Figure>,
    provenance: Value,
) -> Result<BTreeMap<String, Tree>, (Failure, bool)> {
    let claim = task.claim.take();
    blocking(move || {
        let stored = unchanged(&task, &before)
            .map_err(|failure| (failure, false))
            .and_then(|()| {
                keep(&task, &dir, figures, provenance).map_err(|failure| (failure, true))
            });
        // The record is written or never will be: processes that wait for it may continue.
        drop(claim);
        stored
    })
    .await
}

/// The job that a worker gets.
fn job(task: &Task, inputs: BTreeMap<String, PathBuf>, dir: &JobDir) -> Job {
    let mut execution = task.node.execution.clone();
    execution.gpus.clone_from(&task.gpus);
    Job {
        stage: task.node.name.clone(),
        params: task.node.params.clone(),
        numerics: task.node.numerics.clone(),
        execution,
        inputs,
        input_hashes: task
            .inputs
            .iter()
            .map(|(slot, (_, tree))| (slot.clone(), tree.hash.to_string()))
            .collect(),
        partial: partial_results(task),
        shard: None,
        notes: notes(&task.node),
        output_dir: dir.output(),
        scratch_dir: dir.scratch(),
    }
}

/// Refuses to start a program whose files have changed since the plan was made or since the
/// user allowed them.
async fn check_program(task: &Task) -> Result<(), TaskEnd> {
    let node = task.node.clone();
    let (hash, may_start) = (Arc::clone(&task.hash_source), Arc::clone(&task.may_start));
    let allowed = blocking(move || {
        may_start(&node)?;
        let mut sources = node.sources.iter();
        match sources.find(|(path, planned)| hash(path) != Some(**planned)) {
            Some((path, _)) => {
                let path = path.display();
                let what =
                    format!("{path} changed since the run began: the program was not started");
                Err(Failure::new(what).hint("run again, and do not change it meanwhile"))
            }
            None => Ok(()),
        }
    })
    .await;
    allowed.map_err(|failure| TaskEnd::Failed {
        failure,
        may_pass: false,
        peak_memory_bytes: 0,
        exit: None,
    })
}

/// Where a stage stores its partial results: under the key that it has without the input
/// that it works through part by part.
fn partial_results(task: &Task) -> Option<PartialResults> {
    let parts = task.node.kind().parts()?;
    let inputs = task
        .inputs
        .iter()
        .filter(|(slot, _)| *slot != parts)
        .map(|(slot, (_, tree))| (slot.clone(), tree.hash))
        .collect();
    Some(PartialResults {
        dir: task.store.partial_dir(task.node.kind().name()),
        key: Fingerprint::new(&task.node, &inputs).key().to_string(),
        fresh: task.fresh,
    })
}

/// What the plan decided for a stage, for its log.
fn notes(node: &Node) -> Vec<String> {
    let engine = node.provenance["engine"].as_str();
    engine.map(str::to_owned).into_iter().collect()
}

/// Lays out the inputs as folders, and verifies their hashes.
async fn lay_out(task: &Task) -> Result<BTreeMap<String, PathBuf>, TaskEnd> {
    let mut folders = BTreeMap::new();
    for (slot, (producer, tree)) in &task.inputs {
        let (store, tree) = (task.store.clone(), tree.clone());
        match blocking(move || store.materialise(&tree)).await {
            Ok(folder) => {
                folders.insert(slot.clone(), folder);
            }
            Err(e) if e.is_damage() => return Err(TaskEnd::InputDamaged(*producer, e)),
            Err(e) => return Err(store_failure(e).into()),
        }
    }
    Ok(folders)
}

/// Sizes and times of everything that a stage reads.
#[derive(PartialEq)]
struct Stamps {
    sources: Vec<Option<Stamp>>,
    inputs: Vec<Option<Stamp>>,
}

impl Stamps {
    fn read(task: &Task) -> Self {
        let sources = task.node.sources.keys();
        let inputs = task.inputs.values();
        let artifact = |tree: &Tree| Stamp::of_artifact(&task.store.tree_path(&tree.hash)).ok();
        Self {
            sources: sources.map(|path| Stamp::of_source(path).ok()).collect(),
            inputs: inputs.map(|(_, tree)| artifact(tree)).collect(),
        }
    }
}

/// Refuses a result whose sources or inputs changed while it was computed, since its key
/// would not describe it.
fn unchanged(task: &Task, before: &Stamps) -> Result<(), Failure> {
    let after = Stamps::read(task);
    let sources = task.node.sources.iter();
    for ((path, planned), (before, after)) in sources.zip(before.sources.iter().zip(&after.sources))
    {
        if before != after || (task.hash_source)(path) != Some(*planned) {
            let what = format!("{} changed while the run used it", path.display());
            return Err(Failure::new(what)
                .hint("nothing was kept; run again, and do not change it meanwhile"));
        }
    }
    let inputs = task.inputs.iter();
    for ((slot, (_, tree)), (before, after)) in inputs.zip(before.inputs.iter().zip(&after.inputs))
    {
        // Inputs are read-only, but root or a chmod gets around that. Every byte is read
        // once more; damaged blobs are deleted, and recomputed when they are next needed.
        let damaged = match task.store.materialise(tree) {
            Ok(_) => false,
            Err(e) if e.is_damage() => true,
            Err(e) => return Err(store_failure(e)),
        };
        if damaged || before != after {
            let what = format!(
                "its input `{slot}` was written to while it ran, by itself or by another stage"
            );
            return Err(Failure::new(what).hint(
                "nothing was kept; inputs are shared and read-only: a program copies what it wants to change",
            ));
        }
    }
    Ok(())
}

/// Checks what a stage wrote, and stores it: blobs first, the record last.
fn keep(
    task: &Task,
    dir: &JobDir,
    figures: Vec<Figure>,
    provenance: Value,
) -> Result<BTreeMap<String, Tree>, Failure> {
    // All outputs are checked before any is moved.
    let written = task.node.outputs.iter().map(|name| {
        let written = written_output(task.node.kind(), name, dir)?;
        Ok((name, written))
    });
    let written: Vec<(&String, Written)> = written.collect::<Result<_, Failure>>()?;
    if let Params::Command(params) = &task.node.params {
        super::command::check(params, &written)?;
    }
    let modes = match task.node.kind().program() {
        Program::Own => Modes::Executables,
        Program::Genius | Program::Worker => Modes::Plain,
    };
    let mut outputs = BTreeMap::new();
    for (name, written) in written {
        let tree = task.store.ingest(dir, &written, modes);
        outputs.insert(
            name.clone(),
            tree.map_err(|e| not_kept(task.node.kind(), name, e))?,
        );
    }
    let record = Record {
        format: RECORD_FORMAT,
        key: task.key,
        kind: task.node.kind().name().to_owned(),
        preimage: task.preimage.clone(),
        outputs,
        figures: json!(figures),
        provenance,
    };
    task.store.put(&record).map_err(store_failure)?;
    Ok(record.outputs)
}

/// What a stage wrote into an output's folder, which must not be empty.
fn written_output(kind: StageKind, name: &str, dir: &JobDir) -> Result<Written, Failure> {
    let refuse = |what: &str| {
        let failure = Failure::new(format!(
            "the stage succeeded but {what} its output `{name}`"
        ));
        if kind.program() == Program::Own {
            failure.hint(format!(
                "the program must write at least one file into the folder `{{outputs.{name}}}`; nothing was kept"
            ))
        } else {
            failure.hint("this is a bug in Genius; nothing was kept")
        }
    };
    match dir.written(name) {
        Ok(None) => Err(refuse("did not write")),
        Ok(Some(written)) if written.files().next().is_none() => Err(refuse("wrote nothing into")),
        Ok(Some(written)) => Ok(written),
        Err(e) => Err(not_kept(kind, name, e)),
    }
}

/// Why an output is refused, and what the program should do instead.
fn not_kept(kind: StageKind, name: &str, error: StoreError) -> Failure {
    if kind.program() != Program::Own {
        return store_failure(error);
    }
    let cure = match &error {
        StoreError::NotAFile { what, .. } | StoreError::NotAFolder { what, .. }
            if *what == "symbolic link" =>
        {
            format!(
                "copy what it points at into `{{outputs.{name}}}` (`cp -rL`); what it points at was not touched"
            )
        }
        StoreError::NotAFile { .. } => {
            format!("remove it before the program ends, or make it outside `{{outputs.{name}}}`")
        }
        StoreError::NotAFolder { .. } => {
            format!("keep `{{outputs.{name}}}` a folder, and write the file into it")
        }
        StoreError::Mounted { path } => format!(
            "copy what is in it into `{{outputs.{name}}}`, and unmount it before the program ends (now: `umount {}`)",
            path.display()
        ),
        StoreError::Moved { .. } => {
            format!("write into `{{outputs.{name}}}`, and do not move the folders above it")
        }
        StoreError::Changed { .. } => {
            "wait for everything that the program starts (`wait`) before it ends".to_owned()
        }
        StoreError::BadName { .. } => {
            "give it a short name in UTF-8 without backslashes".to_owned()
        }
        StoreError::Io {
            action: "read",
            source,
            ..
        } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "the program must leave its outputs readable to you (`chmod -R u+rX`)".to_owned()
        }
        _ => return store_failure(error),
    };
    Failure::new(format!("output `{name}`: {error}")).hint(format!("{cure}; nothing was kept"))
}

pub(super) fn store_failure(error: StoreError) -> Failure {
    let failure = Failure::new(error.to_string());
    if error.is_of_space() {
        failure.hint(
            "free some space (`genius cache gc` deletes what no pipeline needs), or put the cache elsewhere: `--cache DIR`",
        )
    } else if error.is_of_disk() {
        failure.hint("put the cache where you may write: `--cache DIR`")
    } else {
        failure
    }
}

/// Refuses a stage whose outputs will not fit on the disk, before hours of work rather than after.
fn check_disk(
    store: &Store,
    node: &Node,
    inputs: &BTreeMap<String, PathBuf>,
) -> Result<(), Failure> {
    let needed = node.params.disk_bytes(inputs);
    if needed == 0 {
        return Ok(());
    }
    let free = store
        .free_bytes()
        .map_err(|e| Failure::new(e.to_string()))?;
    if free < needed {
        return Err(Failure::new(format!(
            "the disk of {} has {} MiB free, and this stage may write {} MiB",
            store.root().display(),
            free >> 20,
            needed >> 20
        ))
        .hint("free some space, or put the cache elsewhere with `--cache DIR`"));
    }
    Ok(())
}

/// Runs work on the disk beside the dispatcher.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
