//! [`Earlier`]: what a stage was computed from before, to explain why it is computed
//! again. Reads the files of runs and the cache; decides nothing.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::compare::{Change, compare, name_files, summarise};
use super::{Fingerprint, Node};
use crate::run::Run;
use crate::store::{ContentHash, Key, Lookup, Record, Results, Store};

mod run;

use run::{Attempt, EarlierRun, StageAttempts, attempts, run_ids};

/// Earlier runs that are looked at.
const RUNS: usize = 50;
/// Of them, runs of the same pipeline; several, since the last one may lack stages.
const RUNS_OF_PIPELINE: usize = 5;

/// What earlier runs of a pipeline did. Everything is read once, on first use.
pub struct Earlier {
    store: Store,
    pipeline: PathBuf,
    /// The current run, which is left out.
    not: Option<String>,
    runs: OnceCell<Vec<EarlierRun>>,
    records: OnceCell<Vec<Record>>,
}

/// How a stage ended in an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It produced a result.
    Kept,
    /// It failed.
    Failed,
    /// The run ended before the stage.
    Cut,
}

/// An earlier computation of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its key.
    pub key: Key,
    /// What the key is the hash of.
    pub preimage: Value,
    /// The run that it was found in, if any.
    pub run_id: Option<String>,
    /// How it ended in that run.
    pub ended: Option<Ended>,
    /// Whether it has a record; a stage that failed has none.
    pub kept: bool,
    /// The stage that computed it, to be shown: `stage train of pipeline quick`.
    pub maker: Option<String>,
    /// Field -> path of the files that it read.
    pub paths: Value,
}

impl Known {
    /// What differs in `preimage`, with the names of files from `paths`.
    pub fn compare(&self, preimage: &Value, paths: &Value) -> Vec<Change> {
        let mut changes = compare(&self.preimage, preimage);
        name_files(&mut changes, &self.paths, paths);
        changes
    }

    fn of_record(record: &Record) -> Self {
        let provenance = |field: &str| record.provenance[field].as_str();
        let maker = provenance("stage").zip(provenance("pipeline"));
        Self {
            key: record.key,
            preimage: record.preimage.clone(),
            run_id: None,
            ended: None,
            kept: true,
            maker: maker.map(|(stage, pipeline)| format!("stage {stage} of pipeline {pipeline}")),
            paths: record.provenance["sources"]["paths"].clone(),
        }
    }
}

impl Earlier {
    /// Of a pipeline file (absolute), in a cache; `not` is the current run.
    pub fn new(store: &Store, pipeline: &Path, not: Option<String>) -> Self {
        Self {
            store: store.clone(),
            pipeline: pipeline.to_owned(),
            not,
            runs: OnceCell::new(),
            records: OnceCell::new(),
        }
    }

    /// Why a stage without a result has to run, in one line.
    pub fn reason(&self, node: &Node, preimage: &Value) -> String {
        let key = serde_json::from_value::<Fingerprint>(preimage.clone()).map(|f| f.key());
        if let Some(why) = key.as_ref().ok().and_then(|key| self.damage(key)) {
            return format!("its result is damaged: {why}");
        }
        let Some(known) = self.last_run(node) else {
            return "never computed here".to_owned();
        };
        if !key.is_ok_and(|key| key == known.key) {
            return summarise(&known.compare(preimage, &node.provenance["paths"]));
        }
        let run = known.run_id.as_deref().unwrap_or("?");
        match known.ended {
            Some(Ended::Failed) => format!("it failed in run {run} and has no result yet"),
            Some(Ended::Cut) => format!("run {run} ended before it finished"),
            _ => format!("its result of run {run} is no longer in the cache"),
        }
    }

    /// Why the record under a key cannot be used, if it exists and is damaged.
    pub fn damage(&self, key: &Key) -> Option<String> {
        match self.store.lookup_state(key) {
            Lookup::Damaged(why) => Some(why),
            Lookup::Hit(_) | Lookup::Absent => None,
        }
    }

    /// What the last run of this pipeline computed the stage from: in a variant
    /// that the node belongs to, else in any.
    pub fn last_run(&self, node: &Node) -> Option<Known> {
        let find = |pick: &dyn Fn(&StageAttempts) -> Option<Attempt>| {
            self.runs().find_map(|run| {
                let found = pick(run.stages()?.get(&node.stage)?)?;
                self.in_run(found, run)
            })
        };
        let of_variant = |attempts: &StageAttempts| {
            node.variants
                .iter()
                .find_map(|v| attempts.by_variant.get(v).copied())
        };
        find(&of_variant).or_else(|| find(&|attempts| Some(attempts.first)))
    }

    fn in_run(&self, found: Attempt, run: &EarlierRun) -> Option<Known> {
        let mut known = match self.store.record(&found.key) {
            Some(record) => Known::of_record(&record),
            None => attempt(found.key, run.started().get(&found.key)?),
        };
        known.run_id = Some(run.run.id().to_owned());
        known.ended = Some(found.ended);
        Some(known)
    }

    /// The earlier computation to compare with: that of the last run, else the
    /// most similar one in the cache, the newest of equals.
    pub fn nearest(&self, node: &Node, preimage: &Value, not: Option<Key>) -> Option<Known> {
        let other = |known: &Known| Some(known.key) != not;
        self.last_run(node).filter(other).or_else(|| {
            let of_kind = |r: &&Record| r.kind == node.kind().name() && Some(r.key) != not;
            most_similar(self.records().filter(of_kind), preimage).map(Known::of_record)
        })
    }

    /// The preimage of a key: from its record, or from a run that started it.
    pub fn known(&self, key: Key) -> Option<Known> {
        if let Some(record) = self.store.record(&key) {
            return Some(Known::of_record(&record));
        }
        run_ids(&self.store).into_iter().find_map(|id| {
            let run = EarlierRun::new(&self.store, &id);
            let mut known = attempt(key, run.started().get(&key)?);
            known.run_id = Some(id);
            Some(known)
        })
    }

    /// Keys that begin with these hex digits and that runs started.
    pub fn started_keys(&self, beginning: &str) -> Vec<Key> {
        let runs = run_ids(&self.store).into_iter();
        runs.flat_map(|id| attempts(&Run::new(&self.store.runs_dir().join(id))))
            .map(|(key, _)| key)
            .filter(|key| key.to_string().starts_with(beginning))
            .collect()
    }

    /// The record of an output with this content, of that kind: of several, the one
    /// most similar to `preimage`, since different stages may produce equal bytes.
    pub fn maker(&self, kind: &str, content: &str, preimage: &Value) -> Option<Known> {
        let hash: ContentHash = content.parse().ok()?;
        let made_it = |r: &&Record| r.kind == kind && r.outputs.values().any(|t| t.hash == hash);
        most_similar(self.records().filter(made_it), preimage).map(Known::of_record)
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.records
            .get_or_init(|| self.store.records().collect())
            .iter()
    }

    /// The last runs of this pipeline, newest first.
    fn runs(&self) -> impl Iterator<Item = &EarlierRun> {
        let runs = self.runs.get_or_init(|| {
            let ids = run_ids(&self.store).into_iter();
            ids.filter(|id| self.not.as_ref() != Some(id))
                .take(RUNS)
                .map(|id| EarlierRun::new(&self.store, &id))
                .collect()
        });
        runs.iter()
            .filter(|run| run.pipeline() == Some(&self.pipeline))
            .take(RUNS_OF_PIPELINE)
    }
}

/// A computation known from a run's files alone, without a record.
fn attempt(key: Key, preimage: &Value) -> Known {
    Known {
        key,
        preimage: preimage.clone(),
        run_id: None,
        ended: None,
        kept: false,
        maker: None,
        paths: Value::Null,
    }
}

/// The record with the fewest differences; the newest of equals.
fn most_similar<'a>(
    records: impl Iterator<Item = &'a Record>,
    preimage: &Value,
) -> Option<&'a Record> {
    records
        .map(|r| (distance(r, preimage), r))
        .min_by(|(a, x), (b, y)| a.cmp(b).then_with(|| made(y).cmp(made(x))))
        .map(|(_, record)| record)
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
