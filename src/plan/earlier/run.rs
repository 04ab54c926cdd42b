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

/// The folder of a run. Its files are read when they are first asked for.
pub(super) struct EarlierRun {
    pub(super) run: Run,
    content: OnceCell<Option<RunContent>>,
    tried: OnceCell<HashMap<Key, Value>>,
}

struct RunContent {
    pipeline: PathBuf,
    stages: HashMap<String, Tries>,
}

/// A stage of a run in its variants.
pub(super) struct Tries {
    pub(super) first: Try,
    pub(super) of: HashMap<String, Try>,
}

#[derive(Clone, Copy)]
pub(super) struct Try {
    pub(super) key: Key,
    pub(super) ended: Ended,
}

impl EarlierRun {
    pub(super) fn new(store: &Store, id: &str) -> Self {
        Self {
            run: Run::new(&store.runs_dir().join(id)),
            content: OnceCell::new(),
            tried: OnceCell::new(),
        }
    }

    /// The pipeline file, absolute.
    pub(super) fn pipeline(&self) -> Option<&PathBuf> {
        Some(&self.content()?.pipeline)
    }

    /// By the name that the stage has in the file.
    pub(super) fn stages(&self) -> Option<&HashMap<String, Tries>> {
        Some(&self.content()?.stages)
    }

    fn content(&self) -> Option<&RunContent> {
        self.content
            .get_or_init(|| ended(&self.run).or_else(|| cut(&self.run)))
            .as_ref()
    }

    /// Key -> preimage of the stages that were started.
    pub(super) fn tried(&self) -> &HashMap<Key, Value> {
        self.tried.get_or_init(|| attempts(&self.run).collect())
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
            let found = Try { key, ended };
            note(&mut stages, &stage.stage, &stage.variants, found);
        }
    }
    Some(RunContent {
        pipeline: report.pipeline_path,
        stages,
    })
}

/// The events of a run that never reached its end, or goes on.
fn cut(run: &Run) -> Option<RunContent> {
    let plan = run.plan().ok()?;
    let mut tries: HashMap<String, Try> = HashMap::new();
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
            tries.insert(stage, Try { key, ended });
        } else if let Some(known) = tries.get_mut(&stage) {
            known.ended = ended;
        }
    }
    let mut stages = HashMap::new();
    for stage in plan.stages {
        if let Some(found) = tries.get(&stage.name) {
            note(&mut stages, &stage.name, &stage.variants, *found);
        }
    }
    Some(RunContent {
        pipeline: plan.path,
        stages,
    })
}

/// Notes what was tried under the stage's name in the file.
fn note(stages: &mut HashMap<String, Tries>, node: &str, variants: &[String], found: Try) {
    let stage = node.split_once('@').map_or(node, |(stage, _)| stage);
    let tries = stages.entry(stage.to_owned()).or_insert_with(|| Tries {
        first: found,
        of: HashMap::new(),
    });
    for variant in variants {
        tries.of.insert(variant.clone(), found);
    }
}

/// Key and preimage of the stages that a run started.
pub(super) fn attempts(run: &Run) -> impl Iterator<Item = (Key, Value)> + use<> {
    run.attempts()
        .filter_map(|(key, preimage)| Some((key.parse().ok()?, preimage)))
}
