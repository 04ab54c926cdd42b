//! From a file to a checked [`Pipeline`]: [`load`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::check::{Checker, normalise};
use super::diagnostic::{Diagnostics, Problem, Report, choice, list, nearest, suggest};
use super::overrides::Override;
use super::params::Params;
use super::yaml::{self, Entry, Node, Span, Value};
use super::{Pipeline, Stage};
use crate::stage::StageKind;

/// Version of the pipeline file that is read.
pub const FORMAT_VERSION: i64 = 1;
/// No one writes a pipeline of this size.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

const TOP: [&str; 5] = ["version", "name", "seed", "params", "stages"];
const STAGE: [&str; 3] = ["uses", "needs", "with"];

/// Why there is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its content, or a `--set`, is wrong.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

/// Reads and checks a pipeline file.
///
/// # Errors
/// When it cannot be read; when anything is wrong with it, with everything
/// that is wrong at once.
pub fn load(path: &Path, overrides: &[Override]) -> Result<Pipeline, LoadError> {
    let io = |source| LoadError::Io {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_BYTES {
        return Err(io(std::io::Error::other(format!(
            "{size} bytes are too many for a pipeline file"
        ))));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let before =
            String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]).into_owned();
        let line = before.matches('\n').count() + 1;
        io(std::io::Error::other(format!("line {line} is not UTF-8")))
    })?;
    load_str(&text, path, overrides)
}

/// Checks the text of a pipeline file that lies, or would lie, at `path`.
///
/// # Errors
/// As [`load`].
pub fn load_str(text: &str, path: &Path, overrides: &[Override]) -> Result<Pipeline, LoadError> {
    let absolute = std::path::absolute(path).map_err(|source| LoadError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut report = Report::default();
    let pipeline = read(text, normalise(&absolute), overrides, &mut report);
    match pipeline {
        Some(pipeline) if report.is_empty() => Ok(pipeline),
        _ => {
            let sets: Vec<String> = overrides.iter().map(|o| o.text().to_owned()).collect();
            Err(report.finish(path, text, &sets).into())
        }
    }
}

/// A stage while it is read.
struct Draft<'a> {
    entry: &'a Entry,
    kind: Option<StageKind>,
    /// Slot, name of the stage, where that is written.
    needs: Vec<(String, String, Span)>,
    with: Json,
}

impl Draft<'_> {
    fn name(&self) -> &str {
        &self.entry.key
    }
}

/// `None` only if something was reported.
fn read(
    text: &str,
    path: PathBuf,
    overrides: &[Override],
    report: &mut Report,
) -> Option<Pipeline> {
    let (root, problems) = yaml::parse(text);
    let syntax = root.is_none();
    report.extend(if syntax {
        problems.into_iter().map(|p| explain(p, text)).collect()
    } else {
        problems
    });
    let mut root = root?;
    for (index, set) in overrides.iter().enumerate() {
        if let Err(problem) = set.apply(&mut root, index) {
            report.add(problem);
        }
    }
    let Value::Map(top) = &root.value else {
        report.add(
            Problem::new(
                root.span,
                format!("a pipeline file is a mapping, found {}", root.describe()),
            )
            .hint("it begins with `version: 1`"),
        );
        return None;
    };
    let start = Span {
        set: None,
        line: 1,
        column: 1,
        length: 1,
    };
    let missing = |key: &str, hint: &str| {
        Problem::new(start, format!("the pipeline misses `{key}`")).hint(hint.to_owned())
    };
    // A file of another version is not judged by this one's rules.
    match root.get("version").map(|e| &e.value) {
        None => report.add(missing("version", "write `version: 1`")),
        Some(Node {
            value: Value::Int(FORMAT_VERSION),
            ..
        }) => {}
        Some(Node {
            value: Value::Int(newer),
            span,
            ..
        }) if *newer > FORMAT_VERSION => {
            report.add(
                Problem::new(
                    *span,
                    format!(
                        "version {newer} is too new: this Genius reads version {FORMAT_VERSION}"
                    ),
                )
                .hint("get a newer Genius, or write the pipeline for version 1"),
            );
            return None;
        }
        Some(node) => report.add(Problem::new(
            node.span,
            format!(
                "`version` must be {FORMAT_VERSION}, found {}",
                node.describe()
            ),
        )),
    }
    for entry in top
        .iter()
        .filter(|e| !TOP.contains(&e.key.as_str()) && !e.key.starts_with("x-"))
    {
        report.add(
            Problem::new(entry.key_span, format!("a pipeline has no `{}`", entry.key))
                .maybe_hint(suggest(&entry.key, TOP)),
        );
    }
    let name = match root.get("name").map(|e| &e.value) {
        Some(Node {
            value: Value::Str(name),
            ..
        }) if !name.trim().is_empty() => name.clone(),
        Some(node) => {
            report.add(Problem::new(
                node.span,
                format!(
                    "`name` must be text that is not empty, found {}",
                    node.describe()
                ),
            ));
            String::new()
        }
        None => {
            report.add(missing("name", "write `name: my-pipeline`"));
            String::new()
        }
    };
    let seed = match root.get("seed").map(|e| &e.value) {
        None => 0,
        Some(Node {
            value: Value::Int(seed),
            ..
        }) if *seed >= 0 => seed.unsigned_abs(),
        Some(node) => {
            report.add(Problem::new(
                node.span,
                format!(
                    "`seed` must be a whole number of at least 0, found {}",
                    node.describe()
                ),
            ));
            0
        }
    };
    let params = root
        .get("params")
        .map(|e| &e.value)
        .filter(|n| n.value != Value::Null);
    if let Some(node) = params.filter(|n| !matches!(n.value, Value::Map(_))) {
        report.add(Problem::new(
            node.span,
            format!("`params` must be a mapping, found {}", node.describe()),
        ));
    }
    Params::new(params, report).check();

    let stages = match root.get("stages").map(|e| &e.value) {
        Some(Node {
            value: Value::Map(entries),
            ..
        }) if !entries.is_empty() => entries.as_slice(),
        Some(node) => {
            report.add(
                Problem::new(
                    node.span,
                    format!(
                        "`stages` must be a mapping of at least one stage, found {}",
                        node.describe()
                    ),
                )
                .hint("a stage is written `NAME: { uses: KIND, needs: { ... }, with: { ... } }`"),
            );
            &[]
        }
        None => {
            report.add(missing("stages", "write `stages:` and under it `NAME: { uses: KIND, needs: { ... }, with: { ... } }`"));
            &[]
        }
    };
    let base = path.parent().unwrap_or(&path).to_owned();
    let drafts: Vec<Draft> = stages
        .iter()
        .filter_map(|e| stage(e, stages, params, seed, &base, report))
        .collect();
    let names: Vec<&str> = stages.iter().map(|e| e.key.as_str()).collect();
    check_needs(&drafts, &names, report);
    check_cycles(&drafts, report);
    let finished = drafts.into_iter().map(|draft| {
        Some(Stage {
            name: draft.name().to_owned(),
            kind: draft.kind?,
            line: draft.entry.key_span.line,
            needs: draft
                .needs
                .into_iter()
                .map(|(slot, stage, _)| (slot, stage))
                .collect::<BTreeMap<_, _>>(),
            with: draft.with,
        })
    });
    Some(Pipeline {
        name,
        seed,
        stages: finished.collect::<Option<_>>()?,
        path,
    })
}

/// What people trip over in YAML's syntax.
fn explain(problem: Problem, text: &str) -> Problem {
    let line = problem
        .span
        .line
        .checked_sub(1)
        .and_then(|i| text.lines().nth(i))
        .unwrap_or_default();
    let before = text
        .lines()
        .take(problem.span.line)
        .any(|l| l.trim_start_matches(' ').starts_with('\t'));
    if before {
        return problem.hint("indent with blanks: YAML allows no tabs there");
    }
    if line.contains("${") {
        return problem
            .hint("inside { } and [ ] a reference is written in quotes: \"${params.NAME}\"");
    }
    problem
}

fn stage<'a>(
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
        with,
    })
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

/// Every need is a stage that makes what the slot takes.
fn check_needs(drafts: &[Draft], names: &[&str], report: &mut Report) {
    for draft in drafts {
        for (slot, wanted, span) in draft
            .needs
            .iter()
            .filter(|(_, wanted, _)| !wanted.is_empty())
        {
            let Some(target) = drafts.iter().find(|d| d.name() == wanted) else {
                let others = names.iter().copied().filter(|n| *n != draft.name());
                report.add(
                    Problem::new(*span, format!("there is no stage `{wanted}`"))
                        .maybe_hint(suggest(wanted, others.collect::<Vec<_>>())),
                );
                continue;
            };
            let input = draft
                .kind
                .and_then(|k| k.inputs().iter().find(|i| i.slot == slot));
            let (Some(input), Some(made)) = (input, target.kind) else {
                continue;
            };
            if !made.outputs().contains(&input.artifact) {
                let fit = drafts
                    .iter()
                    .filter(|d| {
                        d.name() != draft.name()
                            && d.kind
                                .is_some_and(|k| k.outputs().contains(&input.artifact))
                    })
                    .map(Draft::name);
                let fit = list(fit);
                let hint = if fit.is_empty() {
                    let kinds = StageKind::ALL
                        .iter()
                        .filter(|k| k.outputs().contains(&input.artifact))
                        .map(|k| k.name());
                    format!(
                        "no stage here makes `{}`; a stage of kind {} does",
                        input.artifact,
                        choice(kinds)
                    )
                } else {
                    format!("`{}` comes from {fit}", input.artifact)
                };
                report.add(
                    Problem::new(
                        *span,
                        format!(
                            "stage `{wanted}` ({}) makes no `{}`",
                            made.name(),
                            input.artifact
                        ),
                    )
                    .hint(hint)
                    .label(format!("`{slot}` takes `{}`", input.artifact)),
                );
            }
        }
    }
}

/// Each circle is reported once, where it is closed.
fn check_cycles(drafts: &[Draft], report: &mut Report) {
    let index: BTreeMap<&str, usize> = drafts
        .iter()
        .enumerate()
        .map(|(i, d)| (d.name(), i))
        .collect();
    let mut done = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        // Depth first, without recursion: (stage, next need to follow).
        let mut trail: Vec<(usize, usize)> = if done[start] {
            Vec::new()
        } else {
            vec![(start, 0)]
        };
        while let Some((stage, next)) = trail.last_mut() {
            let here = *stage;
            let Some((_, wanted, span)) = drafts[here].needs.get(*next) else {
                done[here] = true;
                trail.pop();
                continue;
            };
            *next += 1;
            let Some(&target) = index.get(wanted.as_str()) else {
                continue;
            };
            if let Some(from) = trail.iter().position(|(s, _)| *s == target) {
                let circle: Vec<&str> = trail[from..]
                    .iter()
                    .map(|(s, _)| drafts[*s].name())
                    .chain([wanted.as_str()])
                    .collect();
                report.add(
                    Problem::new(
                        *span,
                        format!(
                            "stages need each other in a circle: {}",
                            circle.join(" -> ")
                        ),
                    )
                    .label("closes the circle"),
                );
            } else if !done[target] {
                trail.push((target, 0));
            }
        }
    }
}
