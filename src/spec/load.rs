//! From a file to a checked [`Pipeline`]: [`load`].

use std::path::{Path, PathBuf};

use super::check::normalise;
use super::diagnostic::{Diagnostics, Problem, Report, suggest};
use super::needs::{check_cycles, check_needs};
use super::overrides::Override;
use super::params::Params;
use super::stage::{Draft, stage};
use super::yaml::{self, Node, Span, Value};
use super::{Pipeline, Policy, Stage};

/// Version of the pipeline file that is read.
pub const FORMAT_VERSION: i64 = 1;
/// No one writes a pipeline of this size.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

const TOP: [&str; 5] = ["version", "name", "seed", "params", "stages"];

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
    let mut drafts: Vec<Draft> = stages
        .iter()
        .filter_map(|e| stage(e, stages, params, seed, &base, report))
        .collect();
    let names: Vec<&str> = stages.iter().map(|e| e.key.as_str()).collect();
    check_needs(&mut drafts, &names, report);
    check_cycles(&drafts, report);
    let finished = drafts.into_iter().map(|draft| {
        Some(Stage {
            name: draft.name().to_owned(),
            kind: draft.kind?,
            line: draft.entry.key_span.line,
            needs: draft.resolved,
            outputs: draft.outputs,
            policy: Policy::default(),
            with: draft.with,
        })
    });
    Some(Pipeline {
        name,
        seed,
        stages: finished.collect::<Option<_>>()?,
        variants: Vec::new(),
        digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
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
