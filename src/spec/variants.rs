//! `variants:`: what each of them sets, with a matrix expanded into one variant for
//! each combination: [`expand`].

mod entry;

use std::collections::HashMap;

use super::diagnostic::{Problem, Report};
use super::overrides::Override;
use super::yaml::{Entry, Size, Value, YamlNode};

/// Variants of a pipeline.
const MAX_VARIANTS: usize = 1000;
/// Values of the file times variants, since each variant copies the whole file.
const MAX_VALUES: usize = 20_000_000;
/// Bytes of text of the file times variants.
const MAX_TEXT: usize = 256 << 20;
/// Values that one variant sets, and axes of a matrix.
const MAX_SETS: usize = 1000;
/// Characters of a value in a name; a longer one is replaced by its index.
const MAX_VALUE_NAME: usize = 60;
/// Bytes of a variant's name.
const MAX_NAME: usize = 120;

/// A variant before it is applied to the file and checked.
pub(super) struct Planned {
    pub name: String,
    pub group: String,
    /// In the order in which they are applied.
    pub sets: Vec<Override>,
    pub line: usize,
}

/// An axis of a matrix: a path and the values it takes.
struct Axis<'a> {
    entry: &'a Entry,
    path: Vec<String>,
    values: &'a [YamlNode],
}

/// Reads the section `variants` of the file `root`.
pub(super) fn expand(section: &YamlNode, root: &YamlNode, report: &mut Report) -> Vec<Planned> {
    let entries = match &section.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Null | Value::Invalid => &[],
        _ => {
            report.add(
                Problem::new(
                    section.span,
                    format!("`variants` must be a mapping, found {}", section.describe()),
                )
                .hint("a variant is written `NAME: { set: { stages.train.with.epochs: 2 } }`"),
            );
            &[]
        }
    };
    let mut groups = Vec::new();
    let mut total = 0usize;
    for entry in entries {
        let Some((sets, axes)) = entry::read(entry, report) else {
            continue;
        };
        let count = axes
            .iter()
            .try_fold(1usize, |n, axis| n.checked_mul(axis.values.len()))
            .filter(|n| total.saturating_add(*n) <= MAX_VARIANTS);
        let Some(count) = count else {
            let factors: Vec<String> = axes.iter().map(|a| a.values.len().to_string()).collect();
            let message = match factors.as_slice() {
                [] => format!("more than {MAX_VARIANTS} variants"),
                _ => format!(
                    "more than {MAX_VARIANTS} variants: `{}` alone is {}",
                    entry.key,
                    factors.join(" x ")
                ),
            };
            report.add(
                Problem::new(entry.key_span, message).hint(
                    "make the axes shorter, or move some variants into another pipeline file",
                ),
            );
            return Vec::new();
        };
        total += count;
        groups.push((entry, sets, axes, count));
    }
    // Checked before any is built: a variant's settings are part of the file.
    let Size { nodes, bytes, .. } = root.measure();
    for (size, unit, most) in [(nodes, "values", MAX_VALUES), (bytes, "bytes", MAX_TEXT)] {
        if size.saturating_mul(total) > most {
            report.add(
                Problem::new(
                    section.span,
                    format!(
                        "{total} variants of a file of {size} {unit} are too many: at most {} of this one",
                        most / size.max(1)
                    ),
                )
                .hint("move some of them into another pipeline file"),
            );
            return Vec::new();
        }
    }
    let mut planned: Vec<Planned> = Vec::with_capacity(total);
    for (entry, sets, axes, count) in &groups {
        combine(entry, sets, axes, *count, &mut planned, report);
    }
    planned
}

/// One variant for each combination; the last axis changes fastest.
fn combine(
    entry: &Entry,
    sets: &[Override],
    axes: &[Axis],
    count: usize,
    planned: &mut Vec<Planned>,
    report: &mut Report,
) {
    let labels = labels(axes);
    let mut names: HashMap<String, usize> = HashMap::new();
    for number in 0..count {
        let mut rest = number;
        let mut chosen = vec![0; axes.len()];
        for (at, axis) in axes.iter().enumerate().rev() {
            chosen[at] = rest % axis.values.len();
            rest /= axis.values.len();
        }
        let mut sets = sets.to_vec();
        let mut parts = Vec::new();
        for ((axis, index), label) in axes.iter().zip(&chosen).zip(&labels) {
            let value = &axis.values[*index];
            sets.extend(entry::change(axis.entry, value, report));
            parts.push(format!("{label}={}", value_name(value, *index)));
        }
        let name = if parts.is_empty() {
            entry.key.clone()
        } else {
            format!("{}:{}", entry.key, parts.join(","))
        };
        // Log files are named after it.
        let name = if name.len() > MAX_NAME {
            format!("{}:#{number}", entry.key)
        } else {
            name
        };
        if names.insert(name.clone(), number).is_some() {
            report.add(same_name(entry, axes, &chosen, &name));
            continue;
        }
        planned.push(Planned {
            name,
            group: entry.key.clone(),
            sets,
            line: entry.key_span.line,
        });
    }
}

/// Two combinations have the same name: points at the second value.
fn same_name(entry: &Entry, axes: &[Axis], chosen: &[usize], name: &str) -> Problem {
    let second = axes.iter().zip(chosen).find_map(|(axis, &index)| {
        let called = value_name(&axis.values[index], index);
        let before = axis.values[..index].iter().enumerate();
        before
            .clone()
            .any(|(i, v)| value_name(v, i) == called)
            .then(|| axis.values[index].span)
    });
    Problem::new(
        second.unwrap_or(entry.key_span),
        format!("two variants of `{}` are called `{name}`", entry.key),
    )
    .hint("remove one of the values, or write them so that they differ in letters or digits")
}

/// The last part of each path, or as many parts as make it unique.
fn labels(axes: &[Axis]) -> Vec<String> {
    let ending = |path: &[String], parts: usize| path[path.len().saturating_sub(parts)..].join(".");
    axes.iter()
        .enumerate()
        .map(|(at, axis)| {
            let unique = |parts: &usize| {
                let mine = ending(&axis.path, *parts);
                axes.iter()
                    .enumerate()
                    .all(|(other, a)| other == at || ending(&a.path, *parts) != mine)
            };
            let parts = (1..axis.path.len()).find(unique).unwrap_or(axis.path.len());
            clean(&ending(&axis.path, parts))
        })
        .collect()
}

/// A value in a name.
fn value_name(value: &YamlNode, index: usize) -> String {
    let text = match &value.value {
        // The shortest form of the number, not the file's.
        Value::Float(number) if number.is_finite() => serde_json::Value::from(*number).to_string(),
        Value::Int(number) => number.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Null => "null".to_owned(),
        Value::Float(_) => value.raw.clone(),
        Value::Str(text) => text.clone(),
        Value::Seq(_) | Value::Map(_) | Value::Invalid => String::new(),
    };
    if text.is_empty() || text.chars().count() > MAX_VALUE_NAME {
        format!("#{index}")
    } else {
        clean(&text)
    }
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-+".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
