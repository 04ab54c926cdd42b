//! One stage of the file: its kind, its needs and its parameters, as a
//! [`Draft`].

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::check::Checker;
use super::diagnostic::{Problem, Report};
use super::params::Params;
use super::pipeline::CheckContext;
use super::yaml::{Entry, Span, Value, YamlNode};
use super::{Policy, command, policy};
use crate::kind::command::is_name;
use crate::kind::{Need, StageKind};
use crate::text::{choice, list, nearest, suggest};

const STAGE: [&str; 6] = [
    "uses",
    "needs",
    "with",
    "resources",
    "retry",
    "timeout_secs",
];

/// Characters of a stage's name, short enough for a file name together with a variant's.
const MAX_NAME: usize = 100;

/// A stage while it is read.
pub(super) struct Draft<'a> {
    pub entry: &'a Entry,
    pub kind: Option<StageKind>,
    /// Slot, what is written there (`STAGE` or `STAGE.OUTPUT`), where.
    pub needs: Vec<(String, String, Span)>,
    /// Slot -> the output it refers to, where that is clear.
    pub resolved: BTreeMap<String, Need<String>>,
    pub outputs: Vec<String>,
    pub with: Json,
    pub policy: Policy,
}

impl Draft<'_> {
    pub fn name(&self) -> &str {
        &self.entry.key
    }
}

/// Reads one stage; `None` if it is not a stage at all.
pub(super) fn stage<'a>(
    entry: &'a Entry,
    all: &[Entry],
    params: Option<&YamlNode>,
    seed: u64,
    context: &CheckContext,
    report: &mut Report,
) -> Option<Draft<'a>> {
    let node = &entry.value;
    // `--set stages.trian.with.epochs=2` adds a stage that the file does not have.
    if !context.written.contains(&entry.key) && node.get("uses").is_none() {
        report.add(no_such_stage(entry, all, context));
        return None;
    }
    check_name(&entry.key, entry.key_span, report);
    let Value::Map(entries) = &node.value else {
        report.add(not_a_mapping(entry));
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
    let mut reader = Reader {
        name: &entry.key,
        at: entry.key_span,
        node,
        params,
        seed,
        context,
        report,
    };
    reader.unknown_keys(entries);
    let kind = reader.uses();
    let needs = reader.needs(kind);
    if let Some(kind) = kind {
        reader.missing_inputs(kind, &needs, all);
    }
    let with = kind.map_or(Json::Null, |kind| reader.with(kind, &needs));
    let policy = reader.policy(entries);
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

fn no_such_stage(entry: &Entry, all: &[Entry], context: &CheckContext) -> Problem {
    let others = all
        .iter()
        .map(|e| e.key.as_str())
        .filter(|other| context.written.contains(*other));
    Problem::new(entry.key_span, format!("there is no stage `{}`", entry.key))
        .maybe_hint(suggest(&entry.key, others.collect::<Vec<_>>()))
}

fn not_a_mapping(entry: &Entry) -> Problem {
    let found = entry.value.describe();
    Problem::new(
        entry.value.span,
        format!("stage `{}` must be a mapping, found {found}", entry.key),
    )
    .hint("write `{ uses: KIND, needs: { ... }, with: { ... } }`")
}

fn check_name(name: &str, at: Span, report: &mut Report) {
    if name.len() > MAX_NAME {
        report.add(
            Problem::new(
                at,
                format!("a stage name can have at most {MAX_NAME} characters"),
            )
            .hint("its log file is named after it"),
        );
    }
    if !is_name(name) {
        report.add(
            Problem::new(at, format!("`{name}` is not a valid stage name")).hint(
                "a name starts with a letter or `_`, followed by letters, digits, `_` and `-`",
            ),
        );
    }
}

/// Slot, what is written there, where.
type Written = (String, String, Span);

/// Reads the parts of one stage.
struct Reader<'r, 'c> {
    name: &'r str,
    at: Span,
    node: &'r YamlNode,
    params: Option<&'r YamlNode>,
    seed: u64,
    context: &'r CheckContext<'c>,
    report: &'r mut Report,
}

impl<'r> Reader<'r, '_> {
    fn expand(&mut self, node: &YamlNode) -> YamlNode {
        Params::new(self.params, self.report).expand(node)
    }

    fn unknown_keys(&mut self, entries: &[Entry]) {
        for unknown in entries.iter().filter(|e| !STAGE.contains(&e.key.as_str())) {
            self.report.add(
                Problem::new(
                    unknown.key_span,
                    format!("stage `{}` has no `{}`", self.name, unknown.key),
                )
                .maybe_hint(stage_key_hint(&unknown.key, self.node)),
            );
        }
    }

    fn needs(&mut self, kind: Option<StageKind>) -> Vec<Written> {
        let Some(given) = self.given("needs") else {
            return Vec::new();
        };
        let expanded = self.expand(given);
        match &expanded.value {
            Value::Map(slots) => {
                let needs = slots.iter().map(|slot| self.need(slot)).collect();
                if let Some(kind) = kind {
                    check_slots(kind, self.name, slots, self.report);
                }
                needs
            }
            Value::Invalid => Vec::new(),
            _ => {
                self.report.add(
                    Problem::new(
                        expanded.span,
                        format!(
                            "`needs` must be a mapping of inputs to stages, found {}",
                            expanded.describe()
                        ),
                    )
                    .maybe_hint(kind.and_then(needs_hint)),
                );
                Vec::new()
            }
        }
    }

    fn need(&mut self, slot: &Entry) -> Written {
        match &slot.value.value {
            Value::Str(stage) => (slot.key.clone(), stage.clone(), slot.value.span),
            Value::Invalid => (slot.key.clone(), String::new(), slot.key_span),
            _ => {
                self.report.add(Problem::new(
                    slot.value.span,
                    format!(
                        "`needs.{}` must be the name of a stage, found {}",
                        slot.key,
                        slot.value.describe()
                    ),
                ));
                (slot.key.clone(), String::new(), slot.key_span)
            }
        }
    }

    fn missing_inputs(&mut self, kind: StageKind, needs: &[Written], all: &[Entry]) {
        let given = self.node.get("needs");
        if !given.is_none_or(|e| matches!(e.value.value, Value::Map(_) | Value::Null)) {
            return;
        }
        let inputs = kind.inputs().iter().filter(|input| !input.optional);
        for slot in inputs.map(|input| input.slot) {
            let given_or_misspelt =
                |(given, ..): &Written| given == slot || nearest(given, [slot]).is_some();
            if needs.iter().any(given_or_misspelt) {
                continue;
            }
            let (name, kind_name) = (self.name, kind.name());
            self.report.add(
                Problem::new(
                    self.at,
                    format!("stage `{name}` ({kind_name})is missing the input `{slot}`"),
                )
                .hint(format!(
                    "write `needs: {{ {slot}: {} }}`",
                    fitting(kind, slot, name, all)
                )),
            );
        }
    }

    fn with(&mut self, kind: StageKind, needs: &[Written]) -> Json {
        let expanded = self.given("with").map(|given| self.expand(given));
        let entries: &[Entry] = match expanded.as_ref().map(|n| (&n.value, n)) {
            None | Some((Value::Invalid, _)) => &[],
            Some((Value::Map(entries), _)) => entries,
            Some((_, other)) => {
                self.report.add(Problem::new(
                    other.span,
                    format!(
                        "`with` must be a mapping of parameters, found {}",
                        other.describe()
                    ),
                ));
                return Json::Null;
            }
        };
        let command = expanded.as_ref().filter(|_| kind == StageKind::Command);
        if let Some(with) = command {
            command::check(with, needs, self.name, self.report);
        }
        let owner = format!("stage `{}` ({})", self.name, kind.name());
        let at = self.at;
        let resolved = self
            .checker()
            .object(kind.schema(), entries, "", &owner, at);
        if let Some(with) = command {
            command::check_code(with, &resolved, self.report);
        }
        resolved
    }

    fn policy(&mut self, entries: &[Entry]) -> Policy {
        let context = self.context;
        let known = entries
            .iter()
            .filter(|e| context.policy.field(&e.key).is_some());
        let entries: Vec<Entry> = known
            .map(|e| Entry {
                key: e.key.clone(),
                key_span: e.key_span,
                value: self.expand(&e.value),
            })
            .collect();
        let (owner, at) = (format!("stage `{}`", self.name), self.at);
        policy::policy(&mut self.checker(), &context.policy, &entries, &owner, at)
    }

    fn checker(&mut self) -> Checker<'_> {
        Checker {
            seed: self.seed,
            base: self.context.base,
            report: self.report,
        }
    }

    /// The value of a key, unless it is null.
    fn given(&self, key: &str) -> Option<&'r YamlNode> {
        let given = self.node.get(key)?;
        (given.value.value != Value::Null).then_some(&given.value)
    }

    fn uses(&mut self) -> Option<StageKind> {
        let kinds = || StageKind::ALL.iter().map(|k| k.name());
        let Some(given) = self.node.get("uses") else {
            // `use: train` is reported as an unknown key, with the right name.
            let Value::Map(entries) = &self.node.value else {
                return None;
            };
            if !entries
                .iter()
                .any(|e| nearest(&e.key, STAGE) == Some("uses"))
            {
                self.report.add(
                    Problem::new(self.at, format!("stage `{}` misses `uses`", self.name))
                        .hint(format!("its kind: {}", choice(kinds()))),
                );
            }
            return None;
        };
        let value = self.expand(&given.value);
        match &value.value {
            Value::Str(word) => {
                let kind = StageKind::ALL.iter().copied().find(|k| k.name() == word);
                if kind.is_none() {
                    self.report.add(
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
                self.report.add(Problem::new(
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

/// A hint for a common mistake: a parameter beside `with` instead of in it.
fn stage_key_hint(key: &str, stage: &YamlNode) -> Option<String> {
    let kind = match stage.get("uses").map(|e| &e.value.value) {
        Some(Value::Str(uses)) => StageKind::ALL.iter().copied().find(|k| k.name() == uses),
        _ => None,
    };
    if kind.is_some_and(|k| k.schema().field(key).is_some()) {
        return Some(format!("`{key}` is a parameter: write it under `with`"));
    }
    suggest(key, STAGE)
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
                    format!("`{}` is not a valid input name", slot.key),
                )
                .hint(
                    "a name starts with a letter or `_`, followed by letters, digits, `_` and `-`",
                ),
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
