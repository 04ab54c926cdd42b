//! [`Earlier`]: what a stage was computed from before, for explaining why it is
//! computed again. Reads what runs left and what the cache keeps; never decides.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::compare::{Change, compare, summarise};
use super::{Fingerprint, Node};
use crate::store::{ContentHash, Key, Lookup, Record, Store};

/// Earlier runs that are looked at.
const RUNS: usize = 50;

/// What earlier runs of a pipeline did.
pub struct Earlier {
    store: Store,
    pipeline: PathBuf,
    /// Without that run, which asks.
    not: Option<String>,
    runs: OnceCell<Vec<EarlierRun>>,
}

/// A run: the key of each stage, by the name of its node.
struct EarlierRun {
    id: String,
    keys: HashMap<String, Key>,
}

/// An earlier computation of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its key.
    pub key: Key,
    /// What the key is the hash of.
    pub preimage: Value,
    /// The run that had it, if that is how it was found.
    pub run_id: Option<String>,
    /// Whether it has a result; a stage that failed has none.
    pub kept: bool,
}

impl Earlier {
    /// Of a pipeline file (absolute), in a cache; `not` is the run that asks.
    pub fn new(store: &Store, pipeline: &Path, not: Option<String>) -> Self {
        Self {
            store: store.clone(),
            pipeline: pipeline.to_owned(),
            not,
            runs: OnceCell::new(),
        }
    }

    /// Why a stage has to run whose key has no result, in one line.
    pub fn reason(&self, node: &Node, preimage: &Value) -> String {
        let key = serde_json::from_value::<Fingerprint>(preimage.clone()).map(|f| f.key());
        if let Ok(key) = &key
            && let Lookup::Damaged(why) = self.store.lookup_state(key)
        {
            return format!("its result is damaged: {why}");
        }
        match self.last_run(node) {
            None => "never computed here".to_owned(),
            Some(known) if key.as_ref().is_ok_and(|k| *k == known.key) => {
                if known.kept {
                    "its result is there no more".to_owned()
                } else {
                    "it has no result yet".to_owned()
                }
            }
            Some(known) => summarise(&compare(&known.preimage, preimage)),
        }
    }

    /// What the last run of this pipeline computed the stage from.
    pub fn last_run(&self, node: &Node) -> Option<Known> {
        self.runs().iter().find_map(|run| {
            let key = run
                .keys
                .get(&node.name)
                .or_else(|| run.keys.get(&node.stage))?;
            self.known(*key, Some(&run.id))
        })
    }

    /// The earlier computation to compare with: that of the last run, else the
    /// most similar one that is kept, the newest of equals.
    pub fn nearest(&self, node: &Node, preimage: &Value, not: Option<Key>) -> Option<Known> {
        let other = |known: &Known| Some(known.key) != not;
        self.last_run(node).filter(other).or_else(|| {
            let records = self.store.records().filter(|r| r.kind == node.kind.name());
            let nearest = records
                .filter(|r| Some(r.key) != not)
                .map(|r| (distance(&r, preimage), r))
                .min_by(|(a, x), (b, y)| a.cmp(b).then_with(|| made(y).cmp(made(x))));
            nearest.map(|(_, record)| Known {
                key: record.key,
                preimage: record.preimage,
                run_id: None,
                kept: true,
            })
        })
    }

    /// What a key is the hash of: from its record, or from a run that tried it.
    pub fn known(&self, key: Key, run_id: Option<&str>) -> Option<Known> {
        if let Some(record) = self.store.record(&key) {
            return Some(Known {
                key,
                preimage: record.preimage,
                run_id: run_id.map(ToOwned::to_owned),
                kept: true,
            });
        }
        let ids: Vec<String> = match run_id {
            Some(id) => vec![id.to_owned()],
            None => run_ids(&self.store),
        };
        ids.into_iter().find_map(|id| {
            let preimage = tried(&self.store.runs_dir().join(&id), &key)?;
            Some(Known {
                key,
                preimage,
                run_id: Some(id),
                kept: false,
            })
        })
    }

    /// Keys that begin with these hex digits and that runs tried.
    pub fn tried_keys(&self, beginning: &str) -> Vec<Key> {
        let runs = run_ids(&self.store).into_iter();
        runs.flat_map(|id| events(&self.store.runs_dir().join(id)))
            .filter(|e| e["event"] == "stage_started")
            .filter_map(|e| {
                let key = e["key"].as_str()?;
                key.starts_with(beginning).then(|| key.parse().ok())?
            })
            .collect()
    }

    /// The record that made an output with this content, of that kind.
    pub fn maker(&self, kind: &str, content: &str) -> Option<Record> {
        let hash: ContentHash = content.parse().ok()?;
        let made_it = |r: &Record| r.kind == kind && r.outputs.values().any(|t| t.hash == hash);
        self.store
            .records()
            .filter(made_it)
            .max_by(|a, b| made(a).cmp(made(b)))
    }

    fn runs(&self) -> &[EarlierRun] {
        self.runs.get_or_init(|| {
            let ids = run_ids(&self.store);
            let others = ids.into_iter().filter(|id| self.not.as_ref() != Some(id));
            others
                .take(RUNS)
                .filter_map(|id| {
                    let dir = self.store.runs_dir().join(&id);
                    let keys = keys_of(&dir, &self.pipeline)?;
                    Some(EarlierRun { id, keys })
                })
                // One is enough where it knows the stage; more are for stages that it lacks.
                .take(5)
                .collect()
        })
    }
}

/// Fields that differ; an input counts less than a parameter, since it is mostly
/// the consequence of one.
fn distance(record: &Record, preimage: &Value) -> usize {
    let changes = compare(&record.preimage, preimage);
    let inputs = changes
        .iter()
        .filter(|c| Change::input(c).is_some())
        .count();
    2 * (changes.len() - inputs) + inputs
}

fn made(record: &Record) -> &str {
    record.provenance["started"].as_str().unwrap_or_default()
}

/// Newest first: ids sort by time.
fn run_ids(store: &Store) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(store.runs_dir()) else {
        return Vec::new();
    };
    let mut ids: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

/// Node -> key of a run of that pipeline; none of another one.
fn keys_of(dir: &Path, pipeline: &Path) -> Option<HashMap<String, Key>> {
    let pair = |stage: &Value, key: &Value| {
        Some((stage.as_str()?.to_owned(), key.as_str()?.parse().ok()?))
    };
    if let Ok(bytes) = std::fs::read(dir.join("run.json")) {
        let report: Value = serde_json::from_slice(&bytes).ok()?;
        if Path::new(report["pipeline_path"].as_str()?) != pipeline {
            return None;
        }
        let stages = report["stages"].as_array()?.iter();
        return Some(
            stages
                .filter_map(|s| pair(&s["stage"], &s["key"]))
                .collect(),
        );
    }
    // It was cut: what it told until then.
    let resolved = std::fs::read(dir.join("pipeline.json")).ok()?;
    let resolved: Value = serde_json::from_slice(&resolved).ok()?;
    if Path::new(resolved["path"].as_str()?) != pipeline {
        return None;
    }
    let told = events(dir).filter_map(|e| pair(&e["stage"], &e["key"]));
    Some(told.collect())
}

/// The preimage of a key that a run tried.
fn tried(dir: &Path, key: &Key) -> Option<Value> {
    let key = key.to_string();
    events(dir)
        .find(|e| e["event"] == "stage_started" && e["key"] == key.as_str())
        .and_then(|mut e| e.get_mut("preimage").map(Value::take))
}

fn events(dir: &Path) -> impl Iterator<Item = Value> + use<> {
    let text = std::fs::read_to_string(dir.join("events.jsonl")).unwrap_or_default();
    let lines: Vec<Value> = text
        .lines()
        .filter(|l| l.contains("\"key\""))
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    lines.into_iter()
}
