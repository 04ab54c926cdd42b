//! One stage of the file: its kind, its needs and its parameters, as a
//! [`Draft`].

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::check::Checker;
use super::diagnostic::{Problem, Report, choice, list, nearest, suggest};
use super::params::Params;
use super::pipeline::Context;
use super::yaml::{Entry, Node, Span, Value};
use super::{Need, Policy, command, policy};
use crate::kind::StageKind;
use crate::kind::command::is_name;

const STAGE: [&str; 6] = [
    "uses",
    "needs",
    "with",
    "resources",
    "retry",
    "timeout_secs",
];

/// Characters of a stage's name: with a variant's it still names a file.
const MAX_NAME: usize = 100;

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
    pub policy: Policy,
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
    context: &Context,
    report: &mut Report,
) -> Option<Draft<'a>> {
    let name = entry.key.as_str();
    let at = entry.key_span;
    let node = &entry.value;
    // `--set stages.trian.with.epochs=2` makes a stage that is none.
    if !context.written.contains(name) && node.get("uses").is_none() {
        let others = all
            .iter()
            .map(|e| e.key.as_str())
            .filter(|other| context.written.contains(*other));
        report.add(
            Problem::new(at, format!("there is no stage `{name}`"))
                .maybe_hint(suggest(name, others.collect::<Vec<_>>())),
        );
        return None;
    }
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() > MAX_NAME {
        report.add(
            Problem::new(
                at,
                format!("the name of a stage has at most {MAX_NAME} characters"),
            )
            .hint("its log is a file of that name"),
        );
    }
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
            policy: Policy::default(),
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
            .filter(|i| !i.optional)
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
        if let Some(with) = &expanded
            && kind == StageKind::Command
        {
            command::check(with, &needs, name, report);
        }
        let owner = format!("stage `{name}` ({})", kind.name());
        let base = context.base;
        let resolved =
            Checker { seed, base, report }.object(kind.schema(), entries, "", &owner, at);
        if let Some(with) = &expanded
            && kind == StageKind::Command
        {
            command::check_code(with, &resolved, report);
        }
        resolved
    });
    let entries: Vec<Entry> = entries
        .iter()
        .filter(|e| context.policy.field(&e.key).is_some())
        .map(|e| Entry {
            key: e.key.clone(),
            key_span: e.key_span,
            value: Params::new(params, report).expand(&e.value),
        })
        .collect();
    let mut checker = Checker {
        seed,
        base: context.base,
        report,
    };
    let policy = policy::policy(
        &mut checker,
        &context.policy,
        &entries,
        &format!("stage `{name}`"),
        at,
    );
    Some(Draft {
        entry,
        kind,
        needs,
        resolved: BTreeMap::new(),
        outputs: outputs(kind, &with),
        with,
        policy,
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
        Some(Value::Str(uses)) => StageKind::ALL.iter().copied().find(|k| k.name() == uses),
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
            let kind = StageKind::ALL.iter().copied().find(|k| k.name() == word);
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
