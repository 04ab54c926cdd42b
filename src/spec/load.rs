//! From a file to a checked [`Pipeline`]: [`load`].

use std::io::Read;
use std::path::{Path, PathBuf};

use super::check::normalise;
use super::diagnostic::{Diagnostics, Problem, Report};
use super::overrides::Override;
use super::pipeline::{CheckContext, check};
use super::variants::Planned;
use super::yaml::{self, Span, Value, YamlNode};
use super::{Pipeline, Variant, variants};

/// Version of the pipeline file's format.
pub const FORMAT_VERSION: i64 = 1;
/// Far more than a pipeline written by hand.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Approximate memory for the parameters of all variants.
const MAX_KEPT: usize = 1 << 30;

/// Why a pipeline could not be loaded.
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
    let mut bytes = Vec::new();
    // The size of a pipe is not known in advance.
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io(std::io::Error::other(format!(
            "a pipeline file can have at most {MAX_BYTES} bytes, and this one has more"
        ))));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let before =
            String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]).into_owned();
        let line = before.matches('\n').count() + 1;
        io(std::io::Error::other(format!("line {line} is not UTF-8")))
    })?;
    load_str(&text, path, overrides)
}

/// The path by which a pipeline file is identified ([`Pipeline::path`]).
///
/// # Errors
/// When the current folder cannot be determined.
pub fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    Ok(normalise(&std::path::absolute(path)?))
}

/// Checks the text of a pipeline file that lies, or would lie, at `path`.
///
/// # Errors
/// As [`load`].
pub fn load_str(text: &str, path: &Path, overrides: &[Override]) -> Result<Pipeline, LoadError> {
    let place = absolute(path).map_err(|source| LoadError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut report = Report::default();
    let pipeline = read(text, place, overrides, &mut report);
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
    let mut root = parse(text, report)?;
    let folder = path.parent().unwrap_or(&path).to_owned();
    let context = CheckContext::new(&root, &folder);
    // Variants start from the plain file; a large file without any is not copied.
    let has_variants = root.get("variants").is_some()
        || overrides
            .iter()
            .any(|o| o.path().first().is_some_and(|p| p == "variants"));
    let file = has_variants.then(|| root.clone());
    apply(&mut root, overrides, report);
    let base = check(&root, &context, report)?;
    let planned = root
        .get("variants")
        .map(|e| variants::expand(&e.value, &root, report))
        .unwrap_or_default();

    let file = file.unwrap_or(root);
    let variants = check_variants(planned, file, &context, overrides, report)?;
    Some(Pipeline {
        name: base.name,
        seed: base.seed,
        stages: base.stages?,
        variants,
        digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
        path,
    })
}

/// The file's tree; what is wrong with its syntax is explained.
fn parse(text: &str, report: &mut Report) -> Option<YamlNode> {
    let (root, problems) = yaml::parse(text);
    report.extend(match root {
        Some(_) => problems,
        None => problems.into_iter().map(|p| explain(p, text)).collect(),
    });
    root
}

/// The variants, each checked as the whole file with its settings; `None` only if
/// something was reported.
fn check_variants(
    planned: Vec<Planned>,
    mut file: YamlNode,
    context: &CheckContext,
    overrides: &[Override],
    report: &mut Report,
) -> Option<Vec<Variant>> {
    let mut variants = Vec::with_capacity(planned.len());
    if let Value::Map(top) = &mut file.value {
        top.retain(|e| e.key != "variants" && !e.key.starts_with("x-"));
    }
    // `variants` was read above, with its `--set` overrides applied.
    let overrides_of_base: Vec<(usize, &Override)> = overrides
        .iter()
        .enumerate()
        .filter(|(_, o)| o.path().first().is_none_or(|p| p != "variants"))
        .collect();
    let mut kept = 0usize;
    for planned in planned {
        if report.is_full() {
            return None;
        }
        if kept > MAX_KEPT {
            report.add(too_many_parameters(&planned));
            return None;
        }
        let mut tree = file.clone();
        let mut found = Report::default();
        for set in &planned.sets {
            if let Err(problem) = set.apply(&mut tree, 0) {
                found.add(problem);
            }
        }
        for (index, set) in &overrides_of_base {
            if let Err(problem) = set.apply(&mut tree, *index) {
                found.add(problem);
            }
        }
        let checked = check(&tree, context, &mut found);
        report.add_from_variant(&planned.name, found);
        if let Some((seed, stages)) = checked.and_then(|c| Some((c.seed, c.stages?))) {
            for stage in &stages {
                kept = kept.saturating_add(memory(&stage.params.to_value()));
            }
            variants.push(Variant {
                name: planned.name,
                group: planned.group,
                seed,
                stages,
                line: planned.line,
            });
        }
    }
    Some(variants)
}

fn too_many_parameters(variant: &Planned) -> Problem {
    let message = format!(
        "the variants up to `{}` hold more than {} MiB of parameters",
        variant.name,
        MAX_KEPT >> 20
    );
    let span = Span {
        line: variant.line,
        ..Span::START
    };
    Problem::new(span, message)
        .hint("move some of them into another pipeline file, or shorten what `params` multiplies")
}

/// Approximate memory of a value, in bytes.
fn memory(value: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    let own = size_of::<Json>();
    match value {
        Json::String(text) => own + text.len(),
        Json::Array(items) => own + items.iter().map(memory).sum::<usize>(),
        Json::Object(fields) => {
            let entry = |(key, value): (&String, &Json)| own + key.len() + memory(value);
            own + fields.iter().map(entry).sum::<usize>()
        }
        _ => own,
    }
}

fn apply(root: &mut YamlNode, overrides: &[Override], report: &mut Report) {
    for (index, set) in overrides.iter().enumerate() {
        if let Err(problem) = set.apply(root, index) {
            report.add(problem);
        }
    }
}

/// Adds hints for common mistakes in YAML's syntax.
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
        return problem.hint("indent with spaces: YAML does not allow tabs there");
    }
    if line.contains("${") {
        return problem
            .hint("inside { } and [ ] a reference is written in quotes: \"${params.NAME}\"");
    }
    problem
}
