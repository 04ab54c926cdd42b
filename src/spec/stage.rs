//! One stage of the file: its kind, its needs and its parameters, as a
//! [`Draft`].

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::Need;
use super::check::Checker;
use super::diagnostic::{Problem, Report, choice, list, nearest, suggest};
use super::params::Params;
use super::yaml::{Entry, Node, Span, Value};
use crate::stage::StageKind;
use crate::stage::command::is_name;

const STAGE: [&str; 3] = ["uses", "needs", "with"];

/// A stage while it is read.
pub(super) struct Draft<'a> {
    pub entry: &'a Entry,
    pub kind: Option<StageKind>,
    /// Slot, what is written there (`STAGE` or `STAGE.OUTPUT`), where.
    pub needs: Vec<(String, String, Span)>,
    /// Slot -> the output that it means, as far as that is clear.
    pub resolved: BTreeMap<String, Need>,
    pub outputs: Vec<String>,
    pub with: Json,
}

impl Draft<'_> {
    pub fn name(&self) -> &str {
        &self.entry.key
    }
}

/// Reads one stage; `None` if it is no stage at all.
pub(super) fn stage<'a>(
    entry: &'a Entry,
    all: &[Entry],
    params: Option<&Node>,
    seed: u64,
    base: &Path,
    report: &mut Report,
) -> Option<Draft<'a>> {
    let name = entry.key.as_str();
    let at = entry.key_span;
    let node = &entry.value;
    // `--set stages.trian.with.epochs=2` makes a stage that is none.
    if at.set.is_some() && node.get("uses").is_none() {
        let others = all
            .iter()
            .filter(|e| e.key != name && e.key_span.set.is_none())
            .map(|e| e.key.as_str());
        report.add(
            Problem::new(at, format!("there is no stage `{name}`"))
                .maybe_hint(suggest(name, others.collect::<Vec<_>>())),
        );
        return None;
    }
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !(name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(letters))
    {
        report.add(
            Problem::new(at, format!("`{name}` cannot be the name of a stage"))
                .hint("a name begins with a letter or `_`; letters, digits, `_` and `-` follow"),
        );
    }
    let Value::Map(entries) = &node.value else {
        report.add(
            Problem::new(
                node.span,
                format!(
                    "stage `{name}` must be a mapping, found {}",
                    node.describe()
                ),
            )
            .hint("write `{ uses: KIND, needs: { ... }, with: { ... } }`"),
        );
        return Some(Draft {
            entry,
            kind: None,
            needs: Vec::new(),
            resolved: BTreeMap::new(),
            outputs: Vec::new(),
            with: Json::Null,
        });
    };
    for unknown in entries.iter().filter(|e| !STAGE.contains(&e.key.as_str())) {
        report.add(
            Problem::new(
                unknown.key_span,
                format!("stage `{name}` has no `{}`", unknown.key),
            )
            .maybe_hint(stage_key_hint(&unknown.key, node)),
        );
    }
    let kind = uses(node, name, at, params, report);
    let mut needs = Vec::new();
    if let Some(given) = node.get("needs").filter(|e| e.value.value != Value::Null) {
        let expanded = Params::new(params, report).expand(&given.value);
        match &expanded.value {
            Value::Map(slots) => {
                for slot in slots {
                    match &slot.value.value {
                        Value::Str(stage) => {
                            needs.push((slot.key.clone(), stage.clone(), slot.value.span))
                        }
                        Value::Invalid => {
                            needs.push((slot.key.clone(), String::new(), slot.key_span))
                        }
                        _ => {
                            report.add(Problem::new(
                                slot.value.span,
                                format!(
                                    "`needs.{}` must be the name of a stage, found {}",
                                    slot.key,
                                    slot.value.describe()
                                ),
                            ));
                            needs.push((slot.key.clone(), String::new(), slot.key_span));
                        }
                    }
                }
                if let Some(kind) = kind {
                    check_slots(kind, name, slots, report);
                }
            }
            Value::Invalid => {}
            _ => report.add(
                Problem::new(
                    expanded.span,
                    format!(
                        "`needs` must be a mapping of inputs to stages, found {}",
                        expanded.describe()
                    ),
                )
                .maybe_hint(kind.and_then(needs_hint)),
            ),
        }
    }
    if let Some(kind) = kind {
        let lacking: Vec<&str> = kind
            .inputs()
            .iter()
            .map(|i| i.slot)
            .filter(|slot| !needs.iter().any(|(given, ..)| given == slot))
            .collect();
        let misspelt = |slot: &str| {
            needs
                .iter()
                .any(|(given, ..)| nearest(given, [slot]).is_some())
        };
        let written = node
            .get("needs")
            .is_none_or(|e| matches!(e.value.value, Value::Map(_) | Value::Null));
        for slot in lacking
            .into_iter()
            .filter(|slot| written && !misspelt(slot))
        {
            report.add(
                Problem::new(
                    at,
                    format!("stage `{name}` ({}) misses the input `{slot}`", kind.name()),
                )
                .hint(format!(
                    "write `needs: {{ {slot}: {} }}`",
                    fitting(kind, slot, name, all)
                )),
            );
        }
    }
    let with = kind.map_or(Json::Null, |kind| {
        let given = node.get("with").filter(|e| e.value.value != Value::Null);
        let expanded = given.map(|e| Params::new(params, report).expand(&e.value));
        let entries: &[Entry] = match expanded.as_ref().map(|n| (&n.value, n)) {
            None | Some((Value::Invalid, _)) => &[],
            Some((Value::Map(entries), _)) => entries,
            Some((_, other)) => {
                report.add(Problem::new(
                    other.span,
                    format!(
                        "`with` must be a mapping of parameters, found {}",
                        other.describe()
                    ),
                ));
                return Json::Null;
            }
        };
        let owner = format!("stage `{name}` ({})", kind.name());
        Checker { seed, base, report }.object(&kind.schema(), entries, "", &owner, at)
    });
    Some(Draft {
        entry,
        kind,
        needs,
        resolved: BTreeMap::new(),
        outputs: outputs(kind, &with),
        with,
    })
}

/// The kind's outputs, or those that a command declares.
fn outputs(kind: Option<StageKind>, with: &Json) -> Vec<String> {
    match kind {
        Some(StageKind::Command) => with["outputs"]
            .as_object()
            .map(|outputs| outputs.keys().cloned().collect())
            .unwrap_or_default(),
        Some(kind) => kind.outputs().iter().map(|&o| o.to_owned()).collect(),
        None => Vec::new(),
    }
}

/// A parameter that stands beside `with` and not in it is a usual mistake.
fn stage_key_hint(key: &str, stage: &Node) -> Option<String> {
    let kind = match stage.get("uses").map(|e| &e.value.value) {
        Some(Value::Str(uses)) => StageKind::ALL.into_iter().find(|k| k.name() == uses),
        _ => None,
    };
    if kind.is_some_and(|k| k.schema().field(key).is_some()) {
        return Some(format!("`{key}` is a parameter: write it under `with`"));
    }
    suggest(key, STAGE)
}

fn uses(
    node: &Node,
    name: &str,
    at: Span,
    params: Option<&Node>,
    report: &mut Report,
) -> Option<StageKind> {
    let kinds = || StageKind::ALL.iter().map(|k| k.name());
    let Some(given) = node.get("uses") else {
        // `use: train` is reported as unknown, with the right name.
        let Value::Map(entries) = &node.value else {
            return None;
        };
        if !entries
            .iter()
            .any(|e| nearest(&e.key, STAGE) == Some("uses"))
        {
            report.add(
                Problem::new(at, format!("stage `{name}` misses `uses`"))
                    .hint(format!("its kind: {}", choice(kinds()))),
            );
        }
        return None;
    };
    let value = Params::new(params, report).expand(&given.value);
    match &value.value {
        Value::Str(word) => {
            let kind = StageKind::ALL.into_iter().find(|k| k.name() == word);
            if kind.is_none() {
                report.add(
                    Problem::new(value.span, format!("there is no stage kind `{word}`")).hint(
                        match nearest(word, kinds()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("the kinds are {}", list(kinds())),
                        },
                    ),
                );
            }
            kind
        }
        Value::Invalid => None,
        _ => {
            report.add(Problem::new(
                value.span,
                format!(
                    "`uses` must be one of {}, found {}",
                    choice(kinds()),
                    value.describe()
                ),
            ));
            None
        }
    }
}

fn needs_hint(kind: StageKind) -> Option<String> {
    let slots: Vec<String> = kind
        .inputs()
        .iter()
        .map(|i| format!("{}: STAGE", i.slot))
        .collect();
    (!slots.is_empty()).then(|| format!("write `needs: {{ {} }}`", slots.join(", ")))
}

fn check_slots(kind: StageKind, name: &str, slots: &[Entry], report: &mut Report) {
    if kind == StageKind::Command {
        for slot in slots.iter().filter(|s| !is_name(&s.key)) {
            report.add(
                Problem::new(
                    slot.key_span,
                    format!("`{}` cannot be the name of an input", slot.key),
                )
                .hint("a name begins with a letter or `_`; letters, digits, `_` and `-` follow"),
            );
        }
        return;
    }
    for slot in slots
        .iter()
        .filter(|s| !kind.inputs().iter().any(|i| i.slot == s.key))
    {
        let known: Vec<&str> = kind.inputs().iter().map(|i| i.slot).collect();
        let hint = if known.is_empty() {
            Some(format!("`{}` needs nothing: remove it", kind.name()))
        } else {
            suggest(&slot.key, known)
        };
        report.add(
            Problem::new(
                slot.key_span,
                format!(
                    "stage `{name}` ({}) has no input `{}`",
                    kind.name(),
                    slot.key
                ),
            )
            .maybe_hint(hint),
        );
    }
}

/// Names of stages that could fill the slot, or `STAGE`.
fn fitting(kind: StageKind, slot: &str, name: &str, all: &[Entry]) -> String {
    let Some(input) = kind.inputs().iter().find(|i| i.slot == slot) else {
        return "STAGE".to_owned();
    };
    let makes = |e: &&Entry| match e.value.get("uses").map(|u| &u.value.value) {
        Some(Value::Str(uses)) => {
            e.key != name
                && StageKind::ALL
                    .iter()
                    .any(|k| k.name() == uses && k.outputs().contains(&input.artifact))
        }
        _ => false,
    };
    all.iter()
        .find(makes)
        .map_or_else(|| "STAGE".to_owned(), |e| e.key.clone())
}
