//! [`Command`]: everything a pipeline sets for what a `command` stage runs, and how;
//! [`differences`] between two.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kind::{Need, Program};
use crate::spec::{Pipeline, Policy, Resources, Retry, Stage};
use crate::text::strict;

/// The settings of a command stage, by key: `run`,
/// `env.NAME`, `files.NAME`, `timeout_secs`.
pub type Facts = BTreeMap<String, Value>;

/// A command stage of the plain file, or of a variant in which it differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The stage.
    pub stage: String,
    /// The variant, if it differs from the plain file.
    pub variant: Option<String>,
    /// Its settings.
    pub facts: Facts,
}

impl Command {
    /// `make`, `make@fast`.
    pub fn name(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{}@{variant}", self.stage),
            None => self.stage.clone(),
        }
    }
}

/// Every command stage; of a variant only those that differ from the stage of that
/// name in the plain file.
pub fn commands(pipeline: &Pipeline) -> Vec<Command> {
    let of = |stages: &[Stage], variant: Option<&str>| -> Vec<Command> {
        let commands = stages.iter().filter(|s| s.kind().program() == Program::Own);
        commands
            .map(|stage| Command {
                stage: stage.name.clone(),
                variant: variant.map(str::to_owned),
                facts: facts(stage),
            })
            .collect()
    };
    let mut all = of(&pipeline.stages, None);
    let base = all.clone();
    for variant in &pipeline.variants {
        let own = of(&variant.stages, Some(&variant.name));
        all.extend(own.into_iter().filter(|c| {
            let same = |b: &Command| b.stage == c.stage && b.facts == c.facts;
            !base.iter().any(same)
        }));
    }
    all
}

/// The command of a variant's stage: its own, or that of the plain file.
pub fn find<'a>(all: &'a [Command], stage: &str, variant: Option<&str>) -> Option<&'a Command> {
    let exact = |variant: Option<&str>| {
        all.iter()
            .find(|c| c.stage == stage && c.variant.as_deref() == variant)
    };
    exact(variant).or_else(|| exact(None))
}

fn facts(stage: &Stage) -> Facts {
    let Stage {
        params,
        needs,
        policy,
        ..
    } = stage;
    let mut facts = Facts::new();
    for (key, value) in params.to_value().as_object().into_iter().flatten() {
        match value {
            Value::Object(entries) => {
                let named = entries
                    .iter()
                    .map(|(n, v)| (format!("{key}.{n}"), v.clone()));
                facts.extend(named);
            }
            other => {
                facts.insert(key.clone(), other.clone());
            }
        }
    }
    for (slot, Need { from, output }) in needs {
        facts.insert(format!("needs.{slot}"), json!(format!("{from}.{output}")));
    }
    // Whatever is added to these is shown and covered, or does not compile.
    let Policy {
        resources,
        retry,
        timeout_secs,
    } = policy;
    let Resources {
        gpu,
        memory_gb,
        cores,
    } = resources.unwrap_or_default();
    let mut some = |key: &str, value: Value| {
        if !value.is_null() {
            facts.insert(key.to_owned(), value);
        }
    };
    some("resources.gpu", json!(gpu));
    some("resources.memory_gb", json!(memory_gb));
    some("resources.cores", json!(cores));
    some("timeout_secs", json!(timeout_secs));
    if let Some(Retry {
        times: times @ 1..,
        backoff_secs,
    }) = retry
    {
        some("retry.times", json!(times));
        some("retry.backoff_secs", json!(backoff_secs));
    }
    facts
}

/// What differs between two, a line each: `env.X: "a" -> "b"`.
pub fn differences(old: &Facts, new: &Facts) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let fact = |facts: &Facts, key: &str| {
        let value = facts.get(key);
        value.map_or_else(
            || "(none)".to_owned(),
            |v| strict(&v.to_string()).into_owned(),
        )
    };
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key}: {} -> {}", fact(old, key), fact(new, key)))
        .collect()
}
