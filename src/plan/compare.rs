//! What differs between two preimages, field by field: [`compare`].

use std::fmt;
use std::path::Path;

use serde_json::Value;

/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// A field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `with.loss.aco.beta`, `inputs.pairs`, `kind_version`.
    pub path: String,
    /// The earlier value; `None` if there was none.
    pub old: Option<Value>,
    /// The current value; `None` if there is none.
    pub new: Option<Value>,
    /// A note for the reader: the names of files, what a version means.
    pub note: Option<String>,
}

impl Change {
    /// The input slot that it is about, if it is about one.
    pub fn input(&self) -> Option<&str> {
        self.path.strip_prefix("inputs.")
    }

    /// Whether it is about the content behind a path.
    fn is_content(&self) -> bool {
        let content = |v: &Option<Value>| v.as_ref().is_some_and(|v| content_hash(v).is_some());
        content(&self.old) || content(&self.new)
    }
}

/// `with.learning_rate: 5e-7 -> 1e-6`; of an input or a file, that its content changed.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)?;
        match &self.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}

impl Change {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (self.old.as_ref(), self.new.as_ref());
        if let Some(slot) = self.input() {
            return match (old, new) {
                (Some(_), Some(_)) => write!(f, "input {slot}: changed"),
                (None, _) => write!(f, "input {slot}: new"),
                (_, None) => write!(f, "input {slot}: gone"),
            };
        }
        if self.is_content()
            && let (Some(old), Some(new)) = (old.and_then(content_hash), new.and_then(content_hash))
        {
            let short = |hash: &str| hash.chars().take(8).collect::<String>();
            return write!(
                f,
                "content of {}: {}.. -> {}..",
                self.path,
                short(old),
                short(new)
            );
        }
        let (old, new) = side_by_side(old, new);
        write!(f, "{}: {old} -> {new}", self.path)
    }
}

/// The fields that differ between two preimages, in the order of their names.
pub fn compare(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    walk("", Some(old), Some(new), &mut changes);
    for change in &mut changes {
        change.note = match change.path.as_str() {
            "format" => Some("keys are computed differently now".to_owned()),
            path if path.starts_with("numerics.") => {
                Some("bits depend on the engine and hardware".to_owned())
            }
            "kind_version" => Some("this kind computes differently now".to_owned()),
            _ => None,
        };
    }
    changes
}

/// Adds the names of the files whose content changed. `old` and `new` map fields
/// to paths, as in provenance; other changes are left as they are.
pub fn name_files(changes: &mut [Change], old: &Value, new: &Value) {
    let name = |paths: &Value, field: &str| {
        let path = Path::new(paths[field].as_str()?).file_name()?;
        Some(path.to_string_lossy().into_owned())
    };
    for change in changes.iter_mut().filter(|c| c.is_content()) {
        change.note = match (name(old, &change.path), name(new, &change.path)) {
            (Some(old), Some(new)) if old != new => Some(format!("{old}, now {new}")),
            (old, new) => new.or(old),
        };
    }
}

/// One line for many changes: the first, and how many more.
pub fn summarise(changes: &[Change]) -> String {
    match changes {
        [] => "nothing differs".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => {
            let more = if rest.len() == 1 { "change" } else { "changes" };
            format!("{first}, and {} more {more}", rest.len())
        }
    }
}

fn walk(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b)))
            if content_hash_of(a).is_none() && content_hash_of(b).is_none() =>
        {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                walk(&below(name), a.get(name), b.get(name), changes);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                let here = format!("{path}[{index}]");
                walk(&here, a.get(index), b.get(index), changes);
            }
        }
        // `1` and `1.0` are different values here, but print alike as JSON.
        _ => changes.push(Change {
            path: path.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
            note: None,
        }),
    }
}

fn content_hash(value: &Value) -> Option<&str> {
    value.as_object().and_then(content_hash_of)
}

fn content_hash_of(object: &serde_json::Map<String, Value>) -> Option<&str> {
    match (object.len(), object.get("content")) {
        (1, Some(Value::String(hash))) if hash.len() == 64 => Some(hash),
        _ => None,
    }
}

/// Both values as text; long ones are cut around the first difference.
fn side_by_side(old: Option<&Value>, new: Option<&Value>) -> (String, String) {
    let text = |value: Option<&Value>| match value {
        None => "(none)".to_owned(),
        Some(Value::Number(n)) => number(n),
        Some(value) => value.to_string(),
    };
    let (old, new) = (text(old), text(new));
    let (a, b): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    if a.len() <= SHOWN && b.len() <= SHOWN {
        return (old, new);
    }
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let from = same.saturating_sub(SHOWN / 3);
    let cut = |chars: &[char]| {
        let shown: String = chars.iter().skip(from).take(SHOWN).collect();
        let before = if from > 0 { "..." } else { "" };
        let after = if from + SHOWN < chars.len() {
            "..."
        } else {
            ""
        };
        format!("{before}{shown}{after}")
    };
    (cut(&a), cut(&b))
}

/// Floats in their usual form: `5e-7`, `0.1`, `1.0`.
fn number(n: &serde_json::Number) -> String {
    match n.as_f64().filter(|_| n.is_f64()) {
        Some(x) if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) => format!("{x:e}"),
        Some(x) => format!("{x:?}"),
        None => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(old: Value, new: Value) -> String {
        let changes = compare(&old, &new);
        let lines: Vec<String> = changes.iter().map(Change::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn fields_are_named_with_old_and_new() {
        insta::assert_snapshot!(
            shown(
                json!({ "kind": "train", "with": { "learning_rate": 5e-7, "loss": { "aco": { "beta": 0.1 } }, "stop": ["a"], "seed": 1 } }),
                json!({ "kind": "train", "with": { "learning_rate": 1e-6, "loss": { "dpo": {} }, "stop": ["a", "END"], "seed": 1.0 } }),
            ),
            @r#"
        with.learning_rate: 5e-7 -> 1e-6
        with.loss.aco: {"beta":0.1} -> (none)
        with.loss.dpo: (none) -> {}
        with.seed: 1 -> 1.0
        with.stop[1]: (none) -> "END"
        "#
        );
    }

    #[test]
    fn content_hashes_are_shortened() {
        let path = |byte: &str| json!({ "content": byte.repeat(32) });
        insta::assert_snapshot!(
            shown(
                json!({ "with": { "source": { "path": path("3f") } }, "inputs": { "pairs": "aa", "old": "cc" } }),
                json!({ "with": { "source": { "path": path("99") } }, "inputs": { "pairs": "bb", "new": "dd" } }),
            ),
            @r"
        input new: new
        input old: gone
        input pairs: changed
        content of with.source.path: 3f3f3f3f.. -> 99999999..
        "
        );
    }

    #[test]
    fn changed_files_have_names_and_changed_versions_a_meaning() {
        let record = |byte: &str, version: u32| json!({ "kind_version": version, "with": { "files": { "q": { "content": byte.repeat(32) } } } });
        let mut changes = compare(&record("3f", 1), &record("99", 2));
        let paths = |path: &str| json!({ "with.files.q": path });
        name_files(&mut changes, &Value::Null, &paths("/data/q.jsonl"));
        insta::assert_snapshot!(summarise(&changes[..1]), @"kind_version: 1 -> 2 (this kind computes differently now)");
        insta::assert_snapshot!(changes[1], @"content of with.files.q: 3f3f3f3f.. -> 99999999.. (q.jsonl)");
        name_files(
            &mut changes,
            &paths("/old/q.jsonl"),
            &paths("/data/q.jsonl"),
        );
        insta::assert_snapshot!(changes[1], @"content of with.files.q: 3f3f3f3f.. -> 99999999.. (q.jsonl)");
        name_files(
            &mut changes,
            &paths("/old/all.jsonl"),
            &paths("/data/q.jsonl"),
        );
        insta::assert_snapshot!(changes[1], @"content of with.files.q: 3f3f3f3f.. -> 99999999.. (all.jsonl, now q.jsonl)");
    }

    #[test]
    fn long_texts_are_cut_around_the_difference() {
        let long = |end: &str| json!({ "template": format!("{}{end}", "x".repeat(100)) });
        insta::assert_snapshot!(shown(long("A and more"), long("B")), @r#"template: ...xxxxxxxxxxxxxxxxxxxxA and more" -> ...xxxxxxxxxxxxxxxxxxxxB""#);
    }

    #[test]
    fn a_line_for_many() {
        let changes = compare(
            &json!({ "a": 1, "b": 1, "c": 1 }),
            &json!({ "a": 2, "b": 2, "c": 2 }),
        );
        assert_eq!(summarise(&changes), "a: 1 -> 2, and 2 more changes");
        assert_eq!(summarise(&changes[..1]), "a: 1 -> 2");
    }
}
