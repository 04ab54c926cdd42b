//! One entry of `variants:`: [`read`].

use super::{Axis, MAX_SETS};
use crate::kind::command::is_name;
use crate::spec::diagnostic::{Problem, Report};
use crate::spec::overrides::Override;
use crate::spec::yaml::{Entry, Value, YamlNode};
use crate::text::suggest;

/// What a variant may change.
const CHANGEABLE: [&str; 3] = ["seed", "params", "stages"];
const KEYS: [&str; 3] = ["set", "matrix", "description"];

/// What one entry sets, and its axes; `None` if that is not clear.
pub(super) fn read<'a>(
    entry: &'a Entry,
    report: &mut Report,
) -> Option<(Vec<Override>, Vec<Axis<'a>>)> {
    check_name(entry, report);
    check_parts(entry, report)?;
    let mut sets = Vec::new();
    for set in mapping(entry, "set", "values", report) {
        sets.extend(change(set, &set.value, report));
    }
    Some((sets, axes(entry, report)))
}

fn check_name(entry: &Entry, report: &mut Report) {
    let name = entry.key.as_str();
    let (message, hint) = if name == "base" {
        (
            "`base` is not a valid variant name".to_owned(),
            "`base` means the file without a variant: choose another name",
        )
    } else if !is_name(name) {
        (
            format!("`{name}` is not a valid variant name"),
            "a name starts with a letter or `_`, followed by letters, digits, `_` and `-`",
        )
    } else {
        return;
    };
    report.add(Problem::new(entry.key_span, message).hint(hint));
}

/// The keys of an entry; `None` if it is not a mapping or sets too much.
fn check_parts(entry: &Entry, report: &mut Report) -> Option<()> {
    let name = entry.key.as_str();
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
    unknown_parts(name, parts, report);
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
                .hint("set a whole mapping at once, or use another pipeline file"),
            );
            return None;
        }
    }
    Some(())
}

fn unknown_parts(name: &str, parts: &[Entry], report: &mut Report) {
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
}

fn axes<'a>(entry: &'a Entry, report: &mut Report) -> Vec<Axis<'a>> {
    let mut axes: Vec<Axis> = Vec::new();
    for axis in mapping(entry, "matrix", "lists of values", report) {
        let Some(path) = change(axis, &axis.value, report).map(|o| o.path().to_vec()) else {
            continue;
        };
        let Some(values) = axis_values(axis, report) else {
            continue;
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
    axes
}

/// The values of an axis, if they are a list that is not empty.
fn axis_values<'a>(axis: &'a Entry, report: &mut Report) -> Option<&'a [YamlNode]> {
    match &axis.value.value {
        Value::Seq(values) if !values.is_empty() => return Some(values),
        Value::Invalid => return None,
        _ => {}
    }
    let message = format!(
        "an axis of a matrix must be a list of at least one value, found {}",
        axis.value.describe()
    );
    let example = if axis.value.raw.is_empty() {
        "VALUE"
    } else {
        &axis.value.raw
    };
    report.add(Problem::new(axis.value.span, message).hint(format!(
        "write `{}: [{example}, ...]`, or put it under `set`",
        axis.key
    )));
    None
}

/// The entries of `set` or `matrix`.
fn mapping<'a>(entry: &'a Entry, key: &str, what: &str, report: &mut Report) -> &'a [Entry] {
    match entry.value.get(key).map(|e| &e.value) {
        Some(YamlNode {
            value: Value::Map(entries),
            ..
        }) => entries,
        None
        | Some(YamlNode {
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

/// One change of the file; `None` if its path is invalid.
pub(super) fn change(entry: &Entry, value: &YamlNode, report: &mut Report) -> Option<Override> {
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
