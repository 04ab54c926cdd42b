//! `variants:`: what each of them sets, a matrix taken apart into one for each
//! combination: [`expand`].

use std::collections::HashMap;

use super::diagnostic::{Problem, Report};
use super::overrides::Override;
use super::yaml::{Entry, Node, Size, Value};
use crate::kind::command::is_name;
use crate::text::suggest;

/// Variants of a pipeline.
const MAX_VARIANTS: usize = 1000;
/// Values of the file times variants: each variant is the whole file again.
const MAX_VALUES: usize = 20_000_000;
/// Bytes of text of the file times variants.
const MAX_TEXT: usize = 256 << 20;
/// Values that one variant sets, and axes of a matrix.
const MAX_SETS: usize = 1000;
/// Characters of a value in a name; a longer one stands as its index.
const MAX_VALUE_NAME: usize = 60;
/// Bytes of a variant's name.
const MAX_NAME: usize = 120;
/// What a variant may change.
const CHANGEABLE: [&str; 3] = ["seed", "params", "stages"];
const KEYS: [&str; 3] = ["set", "matrix", "description"];

/// A variant before the file is checked with it.
pub(super) struct Planned {
    pub name: String,
    pub group: String,
    /// In the order in which they are put into the file.
    pub sets: Vec<Override>,
    pub line: usize,
}

/// An axis of a matrix: what is set, to each of which.
struct Axis<'a> {
    entry: &'a Entry,
    path: Vec<String>,
    values: &'a [Node],
}

/// Reads the section `variants` of the file `root`.
pub(super) fn expand(section: &Node, root: &Node, report: &mut Report) -> Vec<Planned> {
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
        let Some((sets, axes)) = read(entry, report) else {
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
                Problem::new(entry.key_span, message)
                    .hint("make the axes shorter, or a pipeline file of some of them"),
            );
            return Vec::new();
        };
        total += count;
        groups.push((entry, sets, axes, count));
    }
    // Before any of them is made: what a variant sets is a part of the file.
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
                .hint("put some of them into a pipeline file of their own"),
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

/// What one entry sets, and its axes; `None` if that is not clear.
fn read<'a>(entry: &'a Entry, report: &mut Report) -> Option<(Vec<Override>, Vec<Axis<'a>>)> {
    let name = entry.key.as_str();
    let refuse_name =
        |message: String, hint: &str| Problem::new(entry.key_span, message).hint(hint);
    if name == "base" {
        report.add(refuse_name(
            "`base` cannot be the name of a variant".to_owned(),
            "`base` is the file as it stands: choose another name",
        ));
    } else if !is_name(name) {
        report.add(refuse_name(
            format!("`{name}` cannot be the name of a variant"),
            "a name begins with a letter or `_`; letters, digits, `_` and `-` follow",
        ));
    }
    let parts: &[Entry] = match &entry.value.value {
        Value::Map(parts) => parts,
        Value::Null => &[],
        Value::Invalid => return None,
        _ => {
            report.add(
                Problem::new(
                    entry.value.span,
                    format!(
                        "variant `{name}` must be a mapping, found {}",
                        entry.value.describe()
                    ),
                )
                .hint("write `{ set: { stages.train.with.epochs: 2 } }`"),
            );
            return None;
        }
    };
    for part in parts.iter().filter(|p| !KEYS.contains(&p.key.as_str())) {
        let hint = if CHANGEABLE
            .iter()
            .any(|c| part.key == *c || part.key.starts_with(&format!("{c}.")))
        {
            Some(format!(
                "write it under `set`: `set: {{ {}: ... }}`",
                part.key
            ))
        } else {
            suggest(&part.key, KEYS)
        };
        report.add(
            Problem::new(
                part.key_span,
                format!("variant `{name}` has no `{}`", part.key),
            )
            .maybe_hint(hint),
        );
    }
    if let Some(text) = entry.value.get("description")
        && !matches!(
            text.value.value,
            Value::Str(_) | Value::Null | Value::Invalid
        )
    {
        report.add(Problem::new(
            text.value.span,
            format!(
                "`description` must be text, found {}",
                text.value.describe()
            ),
        ));
    }
    for key in ["set", "matrix"] {
        let Some(entries) = entry.value.get(key) else {
            continue;
        };
        if let Value::Map(list) = &entries.value.value
            && list.len() > MAX_SETS
        {
            report.add(
                Problem::new(
                    entries.key_span,
                    format!("`{key}` of variant `{name}` has more than {MAX_SETS} entries"),
                )
                .hint("set a mapping as a whole, or write another pipeline file"),
            );
            return None;
        }
    }
    let mut sets = Vec::new();
    for set in mapping(entry, "set", "values", report) {
        sets.extend(change(set, &set.value, report));
    }
    let mut axes: Vec<Axis> = Vec::new();
    for axis in mapping(entry, "matrix", "lists of values", report) {
        let Some(path) = change(axis, &axis.value, report).map(|o| o.path().to_vec()) else {
            continue;
        };
        let values = match &axis.value.value {
            Value::Seq(values) if !values.is_empty() => values,
            Value::Invalid => continue,
            _ => {
                report.add(
                    Problem::new(
                        axis.value.span,
                        format!(
                            "an axis of a matrix must be a list of at least one value, found {}",
                            axis.value.describe()
                        ),
                    )
                    .hint(format!(
                        "write `{}: [{}, ...]`, or put it under `set`",
                        axis.key,
                        if axis.value.raw.is_empty() {
                            "VALUE"
                        } else {
                            &axis.value.raw
                        }
                    )),
                );
                continue;
            }
        };
        if let Some(first) = axes.iter().find(|a| a.path == path) {
            report.add(
                Problem::new(
                    axis.key_span,
                    format!("axis `{}` is written twice", axis.key),
                )
                .hint(format!(
                    "first written at line {} as `{}`: put the values into one list",
                    first.entry.key_span.line, first.entry.key
                )),
            );
            continue;
        }
        axes.push(Axis {
            entry: axis,
            path,
            values,
        });
    }
    Some((sets, axes))
}

/// The entries of `set` or `matrix`.
fn mapping<'a>(entry: &'a Entry, key: &str, what: &str, report: &mut Report) -> &'a [Entry] {
    match entry.value.get(key).map(|e| &e.value) {
        Some(Node {
            value: Value::Map(entries),
            ..
        }) => entries,
        None
        | Some(Node {
            value: Value::Null | Value::Invalid,
            ..
        }) => &[],
        Some(other) => {
            report.add(
                Problem::new(
                    other.span,
                    format!(
                        "`{key}` must be a mapping of paths to {what}, found {}",
                        other.describe()
                    ),
                )
                .hint("a path is what `--set` takes, as `stages.train.with.epochs`"),
            );
            &[]
        }
    }
}

/// One change of the file; `None` if its path is none.
fn change(entry: &Entry, value: &Node, report: &mut Report) -> Option<Override> {
    let (path, span) = (entry.key.as_str(), entry.key_span);
    match Override::in_file(path, span, value.clone()) {
        Err(reason) => {
            report.add(
                Problem::new(span, reason)
                    .hint("a path is what `--set` takes, as `stages.train.with.epochs`"),
            );
            None
        }
        Ok(change) => {
            let first = &change.path()[0];
            if CHANGEABLE.contains(&first.as_str()) {
                return Some(change);
            }
            let hint = match first.as_str() {
                "version" | "name" | "variants" => None,
                other => crate::text::nearest(other, CHANGEABLE)
                    .map(|near| format!("did you mean `{near}`?")),
            };
            report.add(
                Problem::new(span, format!("a variant cannot change `{first}`")).hint(
                    hint.unwrap_or_else(|| {
                        "it changes `seed`, `params` and `stages`; a value of a stage is `stages.NAME.with.PARAMETER`".to_owned()
                    }),
                ),
            );
            None
        }
    }
}

/// One variant for each combination; the last axis turns fastest.
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
            sets.extend(change(axis.entry, value, report));
            parts.push(format!("{label}={}", value_name(value, *index)));
        }
        let name = if parts.is_empty() {
            entry.key.clone()
        } else {
            format!("{}:{}", entry.key, parts.join(","))
        };
        // Logs are files of that name.
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

/// Two combinations cannot be told apart: points at the second value.
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
    .hint("leave one of the values out, or write them so that they differ in letters or digits")
}

/// The last part of each path, or as many as tell it from the others.
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
fn value_name(value: &Node, index: usize) -> String {
    let text = match &value.value {
        // As a number is written shortest, not as it happens to be in the file.
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
mod tests {
    use super::*;
    use crate::spec::yaml::{self, Span};

    fn names(section: &str) -> String {
        let root = yaml::parse(&format!("variants:\n{section}")).0.unwrap();
        let mut report = Report::default();
        let planned = expand(&root.get("variants").unwrap().value, &root, &mut report);
        assert!(report.is_empty(), "{report:?}");
        let names: Vec<String> = planned.into_iter().map(|p| p.name).collect();
        names.join("\n")
    }

    #[test]
    fn a_matrix_is_named_after_its_values() {
        insta::assert_snapshot!(names("
  plain: { set: { seed: 1 } }
  nothing:
  sweep:
    matrix:
      stages.train.with.learning_rate: [5.0e-7, 0.10, 1]
      stages.train.with.loss: [aco, { dpo: { beta: 1 } }]
"), @r"
        plain
        nothing
        sweep:learning_rate=5e-7,loss=aco
        sweep:learning_rate=5e-7,loss=#1
        sweep:learning_rate=0.1,loss=aco
        sweep:learning_rate=0.1,loss=#1
        sweep:learning_rate=1,loss=aco
        sweep:learning_rate=1,loss=#1
        ");
    }

    #[test]
    fn a_label_is_as_long_as_need_be() {
        insta::assert_snapshot!(names("
  s:
    matrix:
      stages.a.with.seed: [1]
      stages.b.with.seed: [2]
      stages.b.with.stop[0]: ['end of/it', ~, true, '']
"), @r"
        s:a.with.seed=1,b.with.seed=2,0=end_of_it
        s:a.with.seed=1,b.with.seed=2,0=null
        s:a.with.seed=1,b.with.seed=2,0=true
        s:a.with.seed=1,b.with.seed=2,0=#3
        ");
    }

    /// The problems of `variants` as a whole.
    fn told(text: &str) -> String {
        let root = yaml::parse(text).0.unwrap();
        let mut report = Report::default();
        let section = &root.get("variants").unwrap().value;
        assert!(expand(section, &root, &mut report).is_empty());
        report
            .finish("p.yaml".as_ref(), text, &[])
            .to_string()
            .chars()
            .take(300)
            .collect()
    }

    #[test]
    fn a_matrix_of_a_billion_makes_none() {
        let axis: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let axes: String = (0..9)
            .map(|n| format!("      params.a{n}: [{}]\n", axis.join(",")))
            .collect();
        let told = told(&format!("variants:\n  v:\n    matrix:\n{axes}"));
        assert!(
            told.contains("more than 1000 variants: `v` alone is 10 x 10 x 10"),
            "{told}"
        );
        assert!(told.contains("p.yaml:2:3"), "{told}");
    }

    #[test]
    fn a_variant_sets_no_more_than_a_thousand_values() {
        for (key, value) in [("set", "1"), ("matrix", "[1]")] {
            let entries: String = (0..1001)
                .map(|n| format!("      params.a{n}: {value}\n"))
                .collect();
            let told = told(&format!("variants:\n  v:\n    {key}:\n{entries}"));
            assert!(
                told.contains(&format!("`{key}` of variant `v` has more than 1000")),
                "{told}"
            );
            assert!(told.contains("p.yaml:3:5"), "{told}");
        }
    }

    #[test]
    fn variants_are_bounded_by_the_text_they_repeat() {
        let long = "x".repeat(600_000);
        let values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        let told = told(&format!(
            "params: {{ p: {long} }}\nvariants: {{ v: {{ matrix: {{ params.n: [{}] }} }} }}\n",
            values.join(",")
        ));
        assert!(told.contains("500 variants of a file of 60"), "{told}");
        assert!(told.contains("bytes are too many: at most 44"), "{told}");
    }

    fn span() -> Span {
        Span::START
    }

    #[test]
    fn changes_are_put_in_the_order_set_then_matrix() {
        let root = yaml::parse("variants: { s: { matrix: { seed: [2] }, set: { seed: 1 } } }")
            .0
            .unwrap();
        let mut report = Report::default();
        let planned = expand(&root.get("variants").unwrap().value, &root, &mut report);
        let mut tree = Node::new(span(), Value::Null);
        for set in &planned[0].sets {
            set.apply(&mut tree, 0).unwrap();
        }
        assert_eq!(tree.get("seed").unwrap().value.value, Value::Int(2));
    }
}
