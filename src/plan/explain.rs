//! Why a stage would run, or was reused: [`explain`].

use serde::Serialize;
use serde_json::Value;

use super::compare::{Change, compare};
use super::earlier::{Earlier, Known};
use super::forecast::{Forecast, Outlook};
use super::{Graph, Need, Node};
use crate::store::{Key, Record, Store};

/// How far causes are followed.
const DEPTH: usize = 12;

/// Why something is as it is, with its own causes below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// A line for a person.
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
    /// What it says, and why.
    pub cause: Cause,
}

impl Explanation {
    /// The lines for a person, each cause indented below what it causes.
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

/// Explains what a forecast says of one node.
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
            let text = format!("stage {name} runs unless its inputs turn out as before:");
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

fn reused(name: &str, record: Option<&Record>) -> Cause {
    let text = format!("stage {name} is reused: nothing that its result depends on has changed");
    let Some(record) = record else {
        return plain(text);
    };
    let told = |field: &str| record.provenance[field].as_str().unwrap_or("?").to_owned();
    let mut because = vec![plain(format!(
        "key {}, computed {} by run {} of pipeline {} as stage {}",
        record.key.short(),
        told("started"),
        told("run_id"),
        told("pipeline"),
        told("stage"),
    ))];
    if let Some(command) = record.provenance["environment"]["command_line"].as_str() {
        because.push(plain(format!("with: {command}")));
    }
    if let Some(reason) = record.provenance["reason"].as_str() {
        because.push(plain(format!("it ran then because: {reason}")));
    }
    Cause { text, because }
}

struct Explainer<'a> {
    graph: &'a Graph,
    forecast: &'a Forecast,
    earlier: Option<&'a Earlier>,
}

impl Explainer<'_> {
    /// Why a node that is not reused is not, and what it was compared with.
    fn causes(&self, index: usize, depth: usize) -> (Vec<Cause>, Option<Known>) {
        let node = &self.graph.nodes[index];
        let stage = &self.forecast.stages[index];
        if stage.forced {
            return (vec![plain("it is asked for by --force or --from")], None);
        }
        let Some(earlier) = self.earlier else {
            return (vec![plain("there is no cache yet")], None);
        };
        let mut causes = Vec::new();
        // Without a key, what is known of it: everything but those inputs.
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
        let unknown: Vec<(&str, &Need)> = node
            .needs
            .iter()
            .filter(|(_, need)| self.content(need).is_none())
            .map(|(slot, need)| (slot.as_str(), need))
            .collect();
        let known = earlier.nearest(node, &preimage, stage.key);
        match &known {
            None if unknown.is_empty() => causes.push(plain("it was never computed here")),
            None => {}
            Some(known) => {
                if !known.kept {
                    let run = known.run_id.as_deref().unwrap_or("?");
                    causes.push(plain(format!(
                        "(compared with its attempt in run {run}, which has no result)"
                    )));
                }
                for change in compare(&known.preimage, &preimage) {
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

    fn content(&self, need: &Need) -> Option<crate::store::ContentHash> {
        self.forecast.stages[need.node]
            .outputs
            .get(&need.artifact)
            .copied()
    }

    fn known_inputs(
        &self,
        index: usize,
    ) -> std::collections::BTreeMap<String, crate::store::ContentHash> {
        self.graph.nodes[index]
            .needs
            .iter()
            .filter_map(|(slot, need)| Some((slot.clone(), self.content(need)?)))
            .collect()
    }

    /// An input whose stage would run.
    fn not_known(&self, slot: &str, need: &Need, depth: usize) -> Cause {
        let name = &self.graph.nodes[need.node].name;
        let because = if depth == 0 {
            Vec::new()
        } else {
            self.causes(need.node, depth - 1).0
        };
        let then = match self.forecast.stages[need.node].outlook {
            Outlook::Depends(_) => "it may run",
            _ => "it would run",
        };
        Cause {
            text: format!("input {slot}: not known before stage {name} has run; {then}:"),
            because,
        }
    }

    /// A change, followed into the stage that made it.
    fn cause(&self, node: &Node, change: &Change, depth: usize) -> Cause {
        let followed = change.input().and_then(|slot| {
            let need = node.needs.get(slot)?;
            let old = change.old.as_ref().and_then(Value::as_str)?;
            self.follow(slot, need, old, depth.checked_sub(1)?)
        });
        followed.unwrap_or_else(|| plain(change.to_string()))
    }

    /// Why the output of a stage is another than the one of that hash.
    fn follow(&self, slot: &str, need: &Need, old: &str, depth: usize) -> Option<Cause> {
        let maker = &self.graph.nodes[need.node];
        let before = self.earlier?.maker(maker.kind.name(), old)?;
        let now = &self.forecast.stages[need.node].preimage;
        let changes = compare(&before.preimage, now);
        let name = &maker.name;
        Some(match changes.as_slice() {
            [] => plain(format!(
                "input {slot}: changed, though stage {name} ran with the same: it gave other bytes than before"
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
