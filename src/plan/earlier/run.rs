//! [`EarlierRun`]: the folder of a run, read as far as it tells which stage had
//! which key.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::Ended;
use crate::store::{Key, Store, plain};

/// Newest first: ids sort by time.
pub(super) fn run_ids(store: &Store) -> Vec<String> {
    // What cannot be read explains nothing.
    let mut ids = store.run_ids().unwrap_or_default();
    ids.reverse();
    ids
}

/// The folder of a run. Its files are read when they are first asked for.
pub(super) struct EarlierRun {
    pub(super) id: String,
    dir: PathBuf,
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

/// `run.json`, as far as it is needed.
#[derive(Deserialize)]
struct RunJson {
    pipeline_path: PathBuf,
    stages: Vec<StageJson>,
}

#[derive(Deserialize)]
struct StageJson {
    stage: String,
    #[serde(default)]
    variants: Vec<String>,
    key: Option<Key>,
    #[serde(default)]
    status: String,
}

/// `pipeline.json`, as far as it is needed.
#[derive(Deserialize)]
struct PipelineJson {
    path: PathBuf,
    stages: Vec<NodeJson>,
}

#[derive(Deserialize)]
struct NodeJson {
    name: String,
    #[serde(default)]
    variants: Vec<String>,
}

/// A line of `events.jsonl` that is about a stage and its key.
#[derive(Deserialize)]
pub(super) struct Told {
    pub(super) event: String,
    #[serde(default)]
    stage: String,
    pub(super) key: Option<Key>,
    #[serde(default)]
    preimage: Value,
}

impl EarlierRun {
    pub(super) fn new(store: &Store, id: String) -> Self {
        Self {
            dir: store.runs_dir().join(&id),
            id,
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
            .get_or_init(|| ended(&self.dir).or_else(|| cut(&self.dir)))
            .as_ref()
    }

    /// Key -> preimage of the stages that were started.
    pub(super) fn tried(&self) -> &HashMap<Key, Value> {
        self.tried.get_or_init(|| {
            told(&self.dir)
                .filter(|e| e.event == "stage_started" && !e.preimage.is_null())
                .filter_map(|e| Some((e.key?, e.preimage)))
                .collect()
        })
    }
}

/// What a run said at its end.
fn ended(dir: &Path) -> Option<RunContent> {
    let report: RunJson =
        serde_json::from_slice(&plain::read(&dir.join("run.json"), plain::LARGE).ok()?).ok()?;
    let mut stages = HashMap::new();
    for stage in report.stages {
        let ended = match stage.status.as_str() {
            "executed" | "cached" => Ended::Kept,
            "failed" => Ended::Failed,
            _ => Ended::Cut,
        };
        if let Some(key) = stage.key {
            note(
                &mut stages,
                &stage.stage,
                &stage.variants,
                Try { key, ended },
            );
        }
    }
    Some(RunContent {
        pipeline: report.pipeline_path,
        stages,
    })
}

/// What a run told that never came to its end, or goes on.
fn cut(dir: &Path) -> Option<RunContent> {
    let resolved: PipelineJson =
        serde_json::from_slice(&plain::read(&dir.join("pipeline.json"), plain::LARGE).ok()?)
            .ok()?;
    let mut tries: HashMap<String, Try> = HashMap::new();
    for event in told(dir) {
        let ended = match event.event.as_str() {
            "stage_finished" | "stage_cached" => Ended::Kept,
            "stage_failed" => Ended::Failed,
            _ => Ended::Cut,
        };
        if let Some(key) = event.key {
            tries.insert(event.stage, Try { key, ended });
        } else if let Some(known) = tries.get_mut(&event.stage) {
            known.ended = ended;
        }
    }
    let mut stages = HashMap::new();
    for node in resolved.stages {
        if let Some(found) = tries.get(&node.name) {
            note(&mut stages, &node.name, &node.variants, *found);
        }
    }
    Some(RunContent {
        pipeline: resolved.path,
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

/// What a run told of stages and their keys, and which failed.
pub(super) fn told(dir: &Path) -> impl Iterator<Item = Told> + use<> {
    let bytes = plain::read(&dir.join("events.jsonl"), plain::LARGE).unwrap_or_default();
    let text = String::from_utf8(bytes).unwrap_or_default();
    let lines: Vec<Told> = text
        .lines()
        .filter(|l| l.contains("\"key\"") || l.contains("\"stage_failed\""))
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    lines.into_iter()
}
