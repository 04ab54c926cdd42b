//! [`Forecast`]: what a run would do, without running or writing anything.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Fingerprint, Graph};
use crate::store::{ContentHash, Key, Results, Store};

/// What a run would do with a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// It has a result.
    Reuse,
    /// It runs: its key has no result, or it is forced.
    Run,
    /// The stages at these indices, whose output it takes, would run; it depends on
    /// what they produce.
    Depends(Vec<usize>),
}

/// A stage in a [`Forecast`].
#[derive(Debug, Clone, PartialEq)]
pub struct StageForecast {
    /// What would happen.
    pub outlook: Outlook,
    /// Whether it is forced to run.
    pub forced: bool,
    /// Its key, if its inputs are known.
    pub key: Option<Key>,
    /// What the key is the hash of; null without a key.
    pub preimage: Value,
    /// Content of its outputs, if they are known.
    pub outputs: BTreeMap<String, ContentHash>,
}

/// What a run would do, in the order of the graph's nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// One for each node.
    pub stages: Vec<StageForecast>,
}

impl Forecast {
    /// Looks up every stage whose inputs are known. Without a store (there is no cache
    /// yet) nothing is reused. `forced` has one entry for each node.
    pub fn new(graph: &Graph, store: Option<&Store>, forced: &[bool]) -> Self {
        let mut stages: Vec<StageForecast> = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let forced = forced.get(index).copied().unwrap_or(false);
            let mut unknown: Vec<usize> = Vec::new();
            let mut inputs = BTreeMap::new();
            for (slot, need) in &node.needs {
                match stages[need.from].outputs.get(&need.output) {
                    Some(hash) => {
                        inputs.insert(slot.clone(), *hash);
                    }
                    None if unknown.contains(&need.from) => {}
                    None => unknown.push(need.from),
                }
            }
            let mut stage = StageForecast {
                outlook: Outlook::Run,
                forced,
                key: None,
                preimage: Value::Null,
                outputs: BTreeMap::new(),
            };
            if unknown.is_empty() {
                let fingerprint = Fingerprint::new(node, &inputs);
                let key = fingerprint.key();
                stage.key = Some(key);
                stage.preimage = fingerprint.preimage();
                let kept = store.filter(|_| !forced).and_then(|s| s.lookup(&key));
                if let Some(record) = kept {
                    stage.outlook = Outlook::Reuse;
                    let outputs = record.outputs.into_iter();
                    stage.outputs = outputs.map(|(name, tree)| (name, tree.hash)).collect();
                }
            } else if !forced {
                stage.outlook = Outlook::Depends(unknown);
            }
            stages.push(stage);
        }
        Self { stages }
    }

    /// How many would run, would be reused, and depend on others.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |is: fn(&Outlook) -> bool| self.stages.iter().filter(|s| is(&s.outlook)).count();
        (
            count(|o| *o == Outlook::Run),
            count(|o| *o == Outlook::Reuse),
            count(|o| matches!(o, Outlook::Depends(_))),
        )
    }
}
