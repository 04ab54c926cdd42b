//! Where in a record the query stands: [`Layout`].

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::Source;
use super::read::Record;
use crate::protocol::Failure;

/// Fields that hold a query in common data sets, looked for when none is named.
const USUAL_FIELDS: [&str; 5] = ["query", "question", "prompt", "problem", "text"];

/// A layout with the names of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// The record itself is the text.
    Plain,
    /// A field holds the text.
    Field(String),
    /// This field, and `input` if there is any, joined by a blank line, as Stanford Alpaca has it.
    Alpaca(String),
    /// A field holds a list of turns; the first human or user turn is the query.
    /// sharegpt says `from` and `value`, chat messages say `role` and `content`.
    Turns(String),
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Plain => write!(f, "every record is a query"),
            Layout::Field(name) => write!(f, "queries are in field `{name}`"),
            Layout::Alpaca(name) => write!(f, "queries are in field `{name}`, with `input`"),
            Layout::Turns(name) => write!(f, "queries are the first user turns of `{name}`"),
        }
    }
}

impl Layout {
    /// The layout of a file with this first record: what `source` says, and where
    /// it says `auto`, what the record looks like.
    pub(super) fn of(source: &Source, first: &Record) -> Result<Self, Failure> {
        let named = |usual: &str| source.field.clone().unwrap_or_else(|| usual.to_owned());
        let has_list = |name: &str| first.value.get(name).is_some_and(Value::is_array);
        match (source.layout.as_str(), &source.field) {
            ("alpaca", _) => Ok(Layout::Alpaca(named("instruction"))),
            ("sharegpt", _) => Ok(Layout::Turns(named("conversations"))),
            ("messages", _) => Ok(Layout::Turns(named("messages"))),
            (_, Some(field)) => Ok(Layout::Field(field.clone())),
            ("auto", None) if has_list("conversations") => {
                Ok(Layout::Turns("conversations".into()))
            }
            ("auto", None) if has_list("messages") => Ok(Layout::Turns("messages".into())),
            ("auto", None) if first.value.get("instruction").is_some() => {
                Ok(Layout::Alpaca("instruction".into()))
            }
            _ => Self::plain_field(source, first),
        }
    }

    fn plain_field(source: &Source, first: &Record) -> Result<Self, Failure> {
        let Value::Object(fields) = &first.value else {
            return match first.value {
                Value::String(_) => Ok(Layout::Plain),
                _ => Err(not_a_record(first, &source.path)),
            };
        };
        let mut names = fields.keys();
        let field = match (names.next(), names.next()) {
            (Some(only), None) => Some(only.as_str()),
            _ => USUAL_FIELDS
                .into_iter()
                .find(|name| fields.contains_key(*name)),
        };
        field.map(|name| Layout::Field(name.into())).ok_or_else(|| {
            Failure::new(format!(
                "{}, {}: which field holds the query? There are {}",
                source.path.display(),
                first.place,
                names_of(fields)
            ))
            .hint("name it: `source.field`")
        })
    }

    /// The query of a record as it stands there; an empty text where the record has
    /// none (null, no user turn).
    ///
    /// # Errors
    /// When the record is not of this layout, naming file, place and remedy.
    pub(super) fn text(&self, record: &Record, path: &Path) -> Result<String, Failure> {
        let at = || format!("{}, {}", path.display(), record.place);
        let wrong = |name: &str, is: &str, value: &Value| {
            Failure::new(format!("{}: field `{name}` is {}, not {is}", at(), kind_of(value)))
                .hint("`source.layout` and `source.field` say where the query stands; leave out records that have none")
        };
        let (name, fields) = match (self, &record.value) {
            (Layout::Plain, Value::String(text)) => return Ok(text.clone()),
            (Layout::Plain, _) => {
                return Err(Failure::new(format!(
                    "{}: a text was expected, as in the first record",
                    at()
                ))
                .hint("records must all be texts or all be objects"));
            }
            (
                Layout::Field(name) | Layout::Alpaca(name) | Layout::Turns(name),
                Value::Object(fields),
            ) => (name, fields),
            _ => return Err(not_a_record(record, path)),
        };
        let Some(value) = fields.get(name) else {
            return Err(Failure::new(format!(
                "{}: no field `{name}`; there are {}",
                at(),
                names_of(fields)
            ))
            .hint("name the field that holds the query: `source.field`"));
        };
        if let Layout::Turns(_) = self {
            return match value {
                Value::Array(turns) => Ok(first_user_turn(turns)),
                Value::Null => Ok(String::new()),
                other => Err(wrong(name, "a list of turns", other)),
            };
        }
        let text = optional_text(value).ok_or_else(|| wrong(name, "text", value))?;
        let Layout::Alpaca(_) = self else {
            return Ok(text.to_owned());
        };
        let input = fields.get("input").unwrap_or(&Value::Null);
        let input = optional_text(input).ok_or_else(|| wrong("input", "text", input))?;
        Ok(match (text.trim().is_empty(), input.trim().is_empty()) {
            (_, true) => text.to_owned(),
            (true, false) => input.to_owned(),
            (false, false) => format!("{text}\n\n{input}"),
        })
    }
}

fn optional_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Null => Some(""),
        _ => None,
    }
}

/// The text of the first turn of a human; empty if there is none.
fn first_user_turn(turns: &[Value]) -> String {
    let either =
        |turn: &'_ Value, names: [&str; 2]| names.iter().find_map(|name| turn.get(*name)).cloned();
    turns
        .iter()
        .find(|turn| {
            let role = either(turn, ["from", "role"]);
            matches!(
                role.as_ref().and_then(Value::as_str),
                Some("human" | "user")
            )
        })
        .and_then(|turn| either(turn, ["value", "content"]))
        .map(|content| match content {
            Value::String(text) => text,
            // Content in parts: those of text.
            Value::Array(parts) => parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Value::as_str))
                .collect(),
            _ => String::new(),
        })
        .unwrap_or_default()
}

fn not_a_record(record: &Record, path: &Path) -> Failure {
    Failure::new(format!(
        "{}, {}: {} where an object with fields was expected",
        path.display(),
        record.place,
        kind_of(&record.value)
    ))
    .hint("a file of queries has one object a record, or one text a record")
}

fn names_of(fields: &Map<String, Value>) -> String {
    let names: Vec<String> = fields.keys().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
