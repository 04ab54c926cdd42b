//! [`EarlierRun`]: which stage of a run had which key, and how it ended.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use super::Ended;
use crate::run::{Event, Run, Status};
use crate::store::{Key, Store};

/// Newest first: ids sort by time.
pub(super) fn run_ids(store: &Store) -> Vec<String> {
    // What cannot be read explains nothing.
    let mut ids = store.run_ids().unwrap_or_default();
    ids.reverse();
    ids
}

/// The folder of a run. Its files are read on first use.
pub(super) struct EarlierRun {
    pub(super) run: Run,
    content: OnceCell<Option<RunContent>>,
    started: OnceCell<HashMap<Key, Value>>,
}

struct RunContent {
    pipeline: PathBuf,
    stages: HashMap<String, StageAttempts>,
}

/// A stage of a run in its variants.
pub(super) struct StageAttempts {
    pub(super) first: Attempt,
    pub(super) by_variant: HashMap<String, Attempt>,
}

#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub(super) key: Key,
    pub(super) ended: Ended,
}

impl EarlierRun {
    pub(super) fn new(store: &Store, id: &str) -> Self {
        Self {
            run: Run::new(&store.runs_dir().join(id)),
            content: OnceCell::new(),
            started: OnceCell::new(),
        }
    }

    /// The pipeline file, absolute.
    pub(super) fn pipeline(&self) -> Option<&PathBuf> {
        Some(&self.content()?.pipeline)
    }

    /// By the stage's name in the file.
    pub(super) fn stages(&self) -> Option<&HashMap<String, StageAttempts>> {
        Some(&self.content()?.stages)
    }

    fn content(&self) -> Option<&RunContent> {
        self.content
            .get_or_init(|| ended(&self.run).or_else(|| cut(&self.run)))
            .as_ref()
    }

    /// Key -> preimage of the stages that were started.
    pub(super) fn started(&self) -> &HashMap<Key, Value> {
        self.started.get_or_init(|| attempts(&self.run).collect())
    }
}

/// What a run reported at its end.
fn ended(run: &Run) -> Option<RunContent> {
    let report = run.report().ok()?;
    let mut stages = HashMap::new();
    for stage in report.stages {
        let ended = match stage.status {
            Status::Executed | Status::Cached => Ended::Kept,
            Status::Failed => Ended::Failed,
            Status::Skipped => Ended::Cut,
        };
        if let Some(key) = stage.key.and_then(|key| key.parse().ok()) {
            let found = Attempt { key, ended };
            note(&mut stages, &stage.stage, &stage.variants, found);
        }
    }
    Some(RunContent {
        pipeline: report.pipeline_path,
        stages,
    })
}

/// From the events of a run that was cut off, or is still going.
fn cut(run: &Run) -> Option<RunContent> {
    let plan = run.plan().ok()?;
    let mut attempts: HashMap<String, Attempt> = HashMap::new();
    for line in run.events() {
        let (stage, key, ended) = match line.event {
            Event::StageFinished { stage, key, .. } | Event::StageCached { stage, key } => {
                (stage, key, Ended::Kept)
            }
            Event::StageStarted { stage, key, .. } => (stage, key, Ended::Cut),
            Event::StageFailed { stage, .. } => (stage, String::new(), Ended::Failed),
            _ => continue,
        };
        if let Ok(key) = key.parse() {
            attempts.insert(stage, Attempt { key, ended });
        } else if let Some(known) = attempts.get_mut(&stage) {
            known.ended = ended;
        }
    }
    let mut stages = HashMap::new();
    for stage in plan.stages {
        if let Some(found) = attempts.get(&stage.name) {
            note(&mut stages, &stage.name, &stage.variants, *found);
        }
    }
    Some(RunContent {
        pipeline: plan.path,
        stages,
    })
}

/// Adds an attempt under the stage's name in the file.
fn note(
    stages: &mut HashMap<String, StageAttempts>,
    node: &str,
    variants: &[String],
    found: Attempt,
) {
    let stage = node.split_once('@').map_or(node, |(stage, _)| stage);
    let attempts = stages
        .entry(stage.to_owned())
        .or_insert_with(|| StageAttempts {
            first: found,
            by_variant: HashMap::new(),
        });
    for variant in variants {
        attempts.by_variant.insert(variant.clone(), found);
    }
}

/// Key and preimage of the stages that a run started.
pub(super) fn attempts(run: &Run) -> impl Iterator<Item = (Key, Value)> + use<> {
    run.attempts()
        .filter_map(|(key, preimage)| Some((key.parse().ok()?, preimage)))
}
