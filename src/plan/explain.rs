//! Why a stage would run, or was reused: [`explain`].

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::compare::Change;
use super::earlier::{Earlier, Known};
use super::forecast::{Forecast, Outlook};
use super::{Graph, Node};
use crate::kind::Need;
use crate::store::{ContentHash, Key, Record, Store};

/// How many stages up causes are followed.
const DEPTH: usize = 12;

/// Why something is as it is, with its own causes below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The line shown.
    pub text: String,
    /// Why that is so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Cause>,
}

/// Why a stage would run, or is reused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Name of the node.
    pub stage: String,
    /// `run`, `reuse` or `depends`.
    pub outlook: &'static str,
    /// Its key, if its inputs are known.
    pub key: Option<Key>,
    /// The key that it was compared with.
    pub compared_with: Option<Key>,
    /// The answer, with its reasons.
    pub cause: Cause,
}

impl Explanation {
    /// The lines shown, each cause indented below its effect.
    pub fn render(&self) -> String {
        let mut text = String::new();
        write(&self.cause, 0, &mut text);
        text
    }
}

fn write(cause: &Cause, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for line in cause.text.lines() {
        text.push_str(&format!("{indent}{line}\n"));
    }
    for below in &cause.because {
        write(below, depth + 1, text);
    }
}

fn plain(text: impl Into<String>) -> Cause {
    Cause {
        text: text.into(),
        because: Vec::new(),
    }
}

/// Explains the forecast for one node.
pub fn explain(
    graph: &Graph,
    forecast: &Forecast,
    store: Option<&Store>,
    earlier: Option<&Earlier>,
    index: usize,
) -> Explanation {
    let explainer = Explainer {
        graph,
        forecast,
        earlier,
        explained: RefCell::default(),
    };
    let node = &graph.nodes[index];
    let stage = &forecast.stages[index];
    let name = &node.name;
    let (outlook, cause, compared) = match &stage.outlook {
        Outlook::Reuse => {
            let record = store.zip(stage.key).and_then(|(s, key)| s.record(&key));
            ("reuse", reused(name, record.as_ref()), None)
        }
        Outlook::Run => {
            let (because, known) = explainer.causes(index, DEPTH);
            let text = format!("stage {name} would run:");
            ("run", Cause { text, because }, known.map(|k| k.key))
        }
        Outlook::Depends(_) => {
            let (because, known) = explainer.causes(index, DEPTH);
            let text = format!("stage {name} runs unless its inputs turn out the same as before:");
            ("depends", Cause { text, because }, known.map(|k| k.key))
        }
    };
    Explanation {
        stage: name.clone(),
        outlook,
        key: stage.key,
        compared_with: compared,
        cause,
    }
}

/// What a stage is compared with, unless it is its result in the last run.
fn what_with(known: &Known) -> Option<String> {
    match &known.run_id {
        Some(run) if !known.kept => Some(format!(
            "(compared with its attempt in run {run}, which has no result)"
        )),
        Some(_) => None,
        None => {
            let maker = known.maker.as_deref();
            Some(format!(
                "(no run of this file had it: compared with the most similar result: key {}{})",
                known.key.short(),
                maker.map_or_else(String::new, |maker| format!(" of {maker}")),
            ))
        }
    }
}

fn reused(name: &str, record: Option<&Record>) -> Cause {
    let text = format!("stage {name} is reused: nothing its result depends on has changed");
    let Some(record) = record else {
        return plain(text);
    };
    let provenance = |field: &str| record.provenance[field].as_str().unwrap_or("?").to_owned();
    let mut because = vec![plain(format!(
        "key {}, computed {} by run {} of pipeline {} as stage {}",
        record.key.short(),
        provenance("started"),
        provenance("run_id"),
        provenance("pipeline"),
        provenance("stage"),
    ))];
    if let Some(command) = record.provenance["environment"]["command_line"].as_str() {
        because.push(plain(format!("with: {command}")));
    }
    if let Some(reason) = record.provenance["reason"].as_str() {
        because.push(plain(format!("it ran because: {reason}")));
    }
    Cause { text, because }
}

struct Explainer<'a> {
    graph: &'a Graph,
    forecast: &'a Forecast,
    earlier: Option<&'a Earlier>,
    /// What was explained already, so that a stage that feeds several is explained once.
    explained: RefCell<HashSet<(usize, Option<Key>)>>,
}

impl Explainer<'_> {
    /// Why a node is not reused, and what it was compared with.
    fn causes(&self, index: usize, depth: usize) -> (Vec<Cause>, Option<Known>) {
        let node = &self.graph.nodes[index];
        let stage = &self.forecast.stages[index];
        if stage.forced {
            return (vec![plain("it is asked for by --force or --from")], None);
        }
        let Some(earlier) = self.earlier else {
            return (vec![plain("there is no cache yet")], None);
        };
        if let Some(why) = stage.key.and_then(|key| earlier.damage(&key)) {
            return (vec![plain(format!("its result is damaged: {why}"))], None);
        }
        let mut causes = Vec::new();
        // Without a key, compare everything but the unknown inputs.
        let preimage = if stage.key.is_some() {
            stage.preimage.clone()
        } else {
            super::Fingerprint::new(node, &self.known_inputs(index)).preimage()
        };
        if let Some(key) = &stage.key {
            let same = earlier.last_run(node).filter(|known| known.key == *key);
            if let Some(known) = same {
                let why = earlier.reason(node, &preimage);
                causes.push(plain(why));
                return (causes, Some(known));
            }
        }
        let unknown: Vec<(&str, &Need<usize>)> = node
            .needs
            .iter()
            .filter(|(_, need)| self.content(need).is_none())
            .map(|(slot, need)| (slot.as_str(), need))
            .collect();
        let known = earlier.nearest(node, &preimage, stage.key);
        match &known {
            None if unknown.is_empty() => causes.push(plain("never computed here")),
            None => {}
            Some(known) => {
                if let Some(with) = what_with(known) {
                    causes.push(plain(with));
                }
                for change in known.compare(&preimage, &node.provenance["paths"]) {
                    let open = change
                        .input()
                        .is_some_and(|slot| unknown.iter().any(|(s, _)| *s == slot));
                    if !open {
                        causes.push(self.cause(node, &change, depth));
                    }
                }
            }
        }
        for (slot, need) in unknown {
            causes.push(self.not_known(slot, need, depth));
        }
        (causes, known)
    }

    fn content(&self, need: &Need<usize>) -> Option<ContentHash> {
        self.forecast.stages[need.from]
            .outputs
            .get(&need.output)
            .copied()
    }

    fn known_inputs(&self, index: usize) -> BTreeMap<String, ContentHash> {
        self.graph.nodes[index]
            .needs
            .iter()
            .filter_map(|(slot, need)| Some((slot.clone(), self.content(need)?)))
            .collect()
    }

    /// An input whose stage would run.
    fn not_known(&self, slot: &str, need: &Need<usize>, depth: usize) -> Cause {
        let name = &self.graph.nodes[need.from].name;
        let explained = (need.from, None);
        if self.explained.borrow().contains(&explained) {
            return plain(format!(
                "input {slot}: not known before stage {name} has run (see above)"
            ));
        }
        let Some(depth) = depth.checked_sub(1) else {
            return plain(format!(
                "input {slot}: not known before stage {name} has run; `genius explain` of {name} continues from there"
            ));
        };
        self.explained.borrow_mut().insert(explained);
        let because = self.causes(need.from, depth).0;
        let then = match self.forecast.stages[need.from].outlook {
            Outlook::Depends(_) => "it may run",
            _ => "it would run",
        };
        Cause {
            text: format!("input {slot}: not known before stage {name} has run; {then}:"),
            because,
        }
    }

    /// A change, followed into the stage that caused it.
    fn cause(&self, node: &Node, change: &Change, depth: usize) -> Cause {
        let followed = change.input().and_then(|slot| {
            let need = node.needs.get(slot)?;
            let old = change.old.as_ref().and_then(Value::as_str)?;
            self.follow(slot, need, old, depth.checked_sub(1)?)
        });
        followed.unwrap_or_else(|| plain(change.to_string()))
    }

    /// Why a stage's output differs from the one with that hash.
    fn follow(&self, slot: &str, need: &Need<usize>, old: &str, depth: usize) -> Option<Cause> {
        let maker = &self.graph.nodes[need.from];
        let now = &self.forecast.stages[need.from].preimage;
        let before = self.earlier?.maker(maker.kind().name(), old, now)?;
        let changes = before.compare(now, &maker.provenance["paths"]);
        let name = &maker.name;
        let single = changes.len() == 1 && changes[0].input().is_none();
        let new = self
            .explained
            .borrow_mut()
            .insert((need.from, Some(before.key)));
        if !changes.is_empty() && !single && !new {
            return Some(plain(format!(
                "input {slot}: changed, because stage {name} ran with other inputs or parameters (see above)"
            )));
        }
        Some(match changes.as_slice() {
            [] => plain(format!(
                "input {slot}: changed, though stage {name} ran with the same inputs and parameters: it produced other bytes"
            )),
            [one] if one.input().is_none() => plain(format!(
                "input {slot}: changed, because stage {name} ran with {one}"
            )),
            many => Cause {
                text: format!("input {slot}: changed, because stage {name} ran with:"),
                because: many.iter().map(|c| self.cause(maker, c, depth)).collect(),
            },
        })
    }
}
