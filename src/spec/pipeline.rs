//! Checks the file's tree with its overrides applied: [`check`]. It is called for
//! the plain file and for each of its variants.

use std::collections::HashSet;
use std::path::Path;

use super::diagnostic::{Problem, Report};
use super::load::FORMAT_VERSION;
use super::needs::{check_cycles, check_needs};
use super::params::Params;
use super::stage::{Draft, stage};
use super::yaml::{Entry, Span, Value, YamlNode};
use super::{Policy, Stage};
use crate::kind::declare::Declared;
use crate::kind::schema::Schema;
use crate::text::suggest;

const TOP: [&str; 6] = ["version", "name", "seed", "params", "stages", "variants"];

/// What checking needs besides the tree; the same for every variant.
pub(super) struct CheckContext<'a> {
    /// The pipeline file's folder, absolute.
    pub base: &'a Path,
    /// Names of the stages that the file itself has.
    pub written: HashSet<String>,
    /// The keys of a stage beside `uses`, `needs` and `with`.
    pub policy: Schema,
}

/// The values of a checked tree.
pub(super) struct Checked {
    pub name: String,
    pub seed: u64,
    /// None where something was reported.
    pub stages: Option<Vec<Stage>>,
}

impl<'a> CheckContext<'a> {
    /// From a file's tree, before any override.
    pub fn new(root: &YamlNode, base: &'a Path) -> Self {
        let written = match root.get("stages").map(|e| &e.value.value) {
            Some(Value::Map(stages)) => stages.iter().map(|e| e.key.clone()).collect(),
            _ => HashSet::new(),
        };
        Self {
            base,
            written,
            policy: Policy::schema(),
        }
    }
}

/// `None` only if something was reported.
pub(super) fn check(
    root: &YamlNode,
    context: &CheckContext,
    report: &mut Report,
) -> Option<Checked> {
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
    check_version(root, report)?;
    for entry in top
        .iter()
        .filter(|e| !TOP.contains(&e.key.as_str()) && !e.key.starts_with("x-"))
    {
        report.add(
            Problem::new(entry.key_span, format!("a pipeline has no `{}`", entry.key))
                .maybe_hint(suggest(&entry.key, TOP)),
        );
    }
    let name = name(root, report);
    let seed = seed(root, report);
    let params = params(root, report);
    let stages = stages(root, report);
    let mut drafts: Vec<Draft> = Vec::with_capacity(stages.len());
    for entry in stages {
        // Every problem requires a search for the nearest name.
        if report.is_full() {
            return None;
        }
        drafts.extend(stage(entry, stages, params, seed, context, report));
    }
    let names: Vec<&str> = stages
        .iter()
        .filter(|e| context.written.contains(&e.key) || e.value.get("uses").is_some())
        .map(|e| e.key.as_str())
        .collect();
    check_needs(&mut drafts, &names, report);
    check_cycles(&drafts, report);
    Some(Checked {
        name,
        seed,
        stages: finish(drafts, report),
    })
}

fn missing(key: &str, hint: &str) -> Problem {
    Problem::new(Span::START, format!("the pipeline is missing `{key}`")).hint(hint.to_owned())
}

/// `None` for a newer version, to which this version's rules do not apply.
fn check_version(root: &YamlNode, report: &mut Report) -> Option<()> {
    match root.get("version").map(|e| &e.value) {
        None => report.add(missing("version", "write `version: 1`")),
        Some(YamlNode {
            value: Value::Int(FORMAT_VERSION),
            ..
        }) => {}
        Some(YamlNode {
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
                .hint("get a newer Genius, or write the pipeline in format version 1"),
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
    Some(())
}

fn name(root: &YamlNode, report: &mut Report) -> String {
    match root.get("name").map(|e| &e.value) {
        Some(YamlNode {
            value: Value::Str(name),
            ..
        }) if !name.trim().is_empty() => name.clone(),
        Some(node) => {
            report.add(Problem::new(
                node.span,
                format!("`name` must be non-empty text, found {}", node.describe()),
            ));
            String::new()
        }
        None => {
            report.add(missing("name", "write `name: my-pipeline`"));
            String::new()
        }
    }
}

fn seed(root: &YamlNode, report: &mut Report) -> u64 {
    match root.get("seed").map(|e| &e.value) {
        None => 0,
        Some(YamlNode {
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
    }
}

/// `params:`, checked whether they are used or not.
fn params<'n>(root: &'n YamlNode, report: &mut Report) -> Option<&'n YamlNode> {
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
    params
}

fn stages<'n>(root: &'n YamlNode, report: &mut Report) -> &'n [Entry] {
    match root.get("stages").map(|e| &e.value) {
        Some(YamlNode {
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
    }
}

/// The stages, if nothing is wrong with any.
fn finish(drafts: Vec<Draft>, report: &mut Report) -> Option<Vec<Stage>> {
    if !report.is_empty() {
        return None;
    }
    let mut stages = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let kind = draft.kind?;
        let params = kind.params(draft.with).map_err(|e| {
            // A parameter's declaration and its Rust type are one line, so this cannot happen.
            let what = format!(
                "the parameters of `{}` do not match their declared type: {e}",
                draft.entry.key
            );
            report.add(Problem::new(draft.entry.key_span, what).hint("this is a bug in Genius"));
        });
        stages.push(Stage {
            name: draft.entry.key.clone(),
            line: draft.entry.key_span.line,
            needs: draft.resolved,
            outputs: draft.outputs,
            policy: draft.policy,
            params: params.ok()?,
        });
    }
    Some(stages)
}
