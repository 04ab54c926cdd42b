//! Where a record has its query: [`Layout`].

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::read::Record;
use super::turns::first_user_turn;
use crate::kind::queries::{Layout as Asked, Source};
use crate::protocol::Failure;

/// Fields that hold a query in common data sets, looked for when none is named.
const USUAL_FIELDS: [&str; 5] = ["query", "question", "prompt", "problem", "text"];

/// Names of a table's only column that is taken for the queries.
const COLUMN_NAMES: [&str; 10] = [
    "q",
    "instruction",
    "input",
    "task",
    "queries",
    "questions",
    "prompts",
    "problems",
    "texts",
    "instructions",
];

/// Fields that hold a model's answers: never taken for the query unless named.
const ANSWER_FIELDS: [&str; 10] = [
    "answer",
    "answers",
    "output",
    "response",
    "completion",
    "label",
    "target",
    "solution",
    "chosen",
    "rejected",
];

/// Fields that, beside the question, are a part of it.
const PARTS_OF_A_QUESTION: [&str; 14] = [
    "input",
    "context",
    "passage",
    "options",
    "choices",
    "article",
    "paragraph",
    "premise",
    "hypothesis",
    "story",
    "document",
    "documents",
    "table",
    "instances",
];

/// The same, where text cannot hold them.
const MEDIA_FIELDS: [&str; 9] = [
    "image",
    "images",
    "image_url",
    "image_path",
    "picture",
    "audio",
    "audios",
    "video",
    "videos",
];

/// A record's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// This text, which may be blank.
    Text(String),
    /// Null in its place.
    Null,
    /// A conversation without a turn of the user.
    NoUserTurn,
    /// A question of which a picture, a sound or a file is a part.
    NotText,
}

/// A layout with the names of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// The record itself is the text.
    Plain,
    /// A field holds the text. Unless it was `named`, nothing else of the record
    /// may be a part of the question.
    Field {
        /// Of the field.
        name: String,
        /// Whether the pipeline file names it.
        named: bool,
    },
    /// This field and its input, joined by a blank line, as Stanford Alpaca has it.
    /// The input is in `input`, in `context` (Dolly) or in the first of `instances`
    /// (self-instruct).
    Alpaca(String),
    /// A field holds a list of turns; the first turn of the user is the query.
    /// sharegpt uses `from` and `value`, chat messages use `role` and `content`.
    Turns(String),
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Plain => write!(f, "every record is a query"),
            Layout::Field { name, .. } => write!(f, "queries are in field `{name}`"),
            Layout::Alpaca(name) => write!(f, "queries are in field `{name}`, with its input"),
            Layout::Turns(name) => write!(f, "queries are the first user turns of `{name}`"),
        }
    }
}

/// Whether a field of this name may be taken for the query.
pub(super) fn is_usual(name: &str) -> bool {
    let name = name.to_lowercase();
    USUAL_FIELDS.contains(&name.as_str()) || COLUMN_NAMES.contains(&name.as_str())
}

/// Whether a field of this name holds turns.
pub(super) fn holds_turns(name: &str) -> bool {
    matches!(name, "conversations" | "messages")
}

impl Layout {
    /// The layout of a file with these records: the one in `source`, or with `auto` that
    /// of the first record that has a query.
    pub(super) fn detect(source: &Source, records: &[Record]) -> Result<Self, Failure> {
        let mut fallback = None;
        for record in records {
            let found = Self::of_record(source, record);
            let decides = match &found {
                Ok(Layout::Field { name, named }) => {
                    *named || record.value.get(name).is_some_and(|v| !v.is_null())
                }
                Ok(_) => true,
                Err(_) => !has_nulls(record),
            };
            if decides {
                return found;
            }
            fallback = fallback.or(Some(found));
        }
        fallback.unwrap_or_else(|| Err(Failure::new("no record")))
    }

    fn of_record(source: &Source, record: &Record) -> Result<Self, Failure> {
        let named = |usual: &str| source.field.clone().unwrap_or_else(|| usual.to_owned());
        match (source.layout, &source.field) {
            (Asked::Alpaca, _) => Ok(Layout::Alpaca(named("instruction"))),
            (Asked::Sharegpt, _) => Ok(Layout::Turns(named("conversations"))),
            (Asked::Messages, _) => Ok(Layout::Turns(named("messages"))),
            (_, Some(field)) => Ok(Layout::Field {
                name: field.clone(),
                named: true,
            }),
            (Asked::Auto, None) => Self::unasked(source, record),
            (Asked::Field, None) => Self::plain_field(source, record),
        }
    }

    fn unasked(source: &Source, record: &Record) -> Result<Self, Failure> {
        let lists = |name: &&str| record.value.get(*name).is_some_and(Value::is_array);
        let turns: Vec<&str> = ["conversations", "messages"]
            .into_iter()
            .filter(lists)
            .collect();
        match turns[..] {
            [one] => return Ok(Layout::Turns(one.into())),
            [one, other] => return Err(which(source, record, &[one, other])),
            _ => {}
        }
        let has = |name: &&str| record.value.get(*name).is_some_and(|v| !is_nothing(v));
        if has(&"instruction") {
            let rivals: Vec<&str> = USUAL_FIELDS[..4]
                .iter()
                .copied()
                .filter(|n| has(n))
                .collect();
            return if rivals.is_empty() {
                Ok(Layout::Alpaca("instruction".into()))
            } else {
                Err(which(
                    source,
                    record,
                    &[&["instruction"][..], &rivals[..]].concat(),
                ))
            };
        }
        if lists(&"prompt") {
            return Ok(Layout::Turns("prompt".into()));
        }
        Self::plain_field(source, record)
    }

    fn plain_field(source: &Source, record: &Record) -> Result<Self, Failure> {
        let Value::Object(fields) = &record.value else {
            return match record.value {
                Value::String(_) => Ok(Layout::Plain),
                _ => Err(not_a_record(record, &source.path)),
            };
        };
        let given = |name: &str| fields.get(name).filter(|v| !v.is_null());
        let usual = USUAL_FIELDS.into_iter().find(|name| given(name).is_some());
        let mut names = fields.keys();
        let only = match (names.next(), names.next()) {
            (Some(only), None) if !ANSWER_FIELDS.contains(&only.as_str()) => Some(only.as_str()),
            _ => None,
        };
        match usual.or(only) {
            Some(name) => Ok(Layout::Field {
                name: name.to_owned(),
                named: false,
            }),
            None => Err(Failure::new(format!(
                "{}, {}: which field holds the query? There are {}",
                source.path.display(),
                record.place,
                names_of(fields)
            ))
            .hint("name it: `source.field`; the first line of a table is its header")),
        }
    }

    /// The query of a record, unchanged.
    ///
    /// # Errors
    /// When the record is not of this layout, naming file, place and remedy.
    pub(super) fn text(&self, record: &Record, path: &Path) -> Result<Found, Failure> {
        let at = || format!("{}, {}", path.display(), record.place);
        let wrong = |name: &str, is: &str, value: &Value| {
            Failure::new(format!("{}: field `{name}` is {}, not {is}", at(), kind_of(value)))
                .hint("`source.layout` and `source.field` set where the query is; leave out records that have none")
        };
        let (name, fields) = match (self, &record.value) {
            (Layout::Plain, Value::String(text)) => return Ok(Found::Text(text.clone())),
            (Layout::Plain, _) => {
                return Err(Failure::new(format!(
                    "{}: a text was expected, as in the first record",
                    at()
                ))
                .hint("records must all be texts or all be objects"));
            }
            (
                Layout::Field { name, .. } | Layout::Alpaca(name) | Layout::Turns(name),
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
        let named = matches!(self, Layout::Field { named: true, .. });
        if !named
            && MEDIA_FIELDS
                .iter()
                .any(|n| *n != name.as_str() && fields.get(*n).is_some_and(|v| !is_nothing(v)))
        {
            return Ok(Found::NotText);
        }
        if let Layout::Turns(_) = self {
            return match value {
                Value::Array(turns) => first_user_turn(turns).map_err(|what| {
                    Failure::new(format!("{}: `{name}`: {what}", at()))
                        .hint("a turn is an object with `role` (or `from`), such as `user` and `assistant`, and `content` (or `value`, `text`); correct or remove the record")
                }),
                Value::Null => Ok(Found::Null),
                other => Err(wrong(name, "a list of turns", other)),
            };
        }
        let text = optional_text(value).ok_or_else(|| wrong(name, "text", value))?;
        let input = match self {
            Layout::Alpaca(_) => self.input(record, fields, path)?,
            Layout::Field { named: false, .. } => {
                self.is_whole(record, fields, path, name)?;
                None
            }
            _ => None,
        };
        Ok(match (text, input) {
            (None, None) => Found::Null,
            (Some(text), None) => Found::Text(text.to_owned()),
            (Some(text), Some(input)) if !text.trim().is_empty() => {
                Found::Text(format!("{text}\n\n{input}"))
            }
            (_, Some(input)) => Found::Text(input.to_owned()),
        })
    }

    /// The input of an instruction, unless it is blank.
    fn input<'r>(
        &self,
        record: &Record,
        fields: &'r Map<String, Value>,
        path: &Path,
    ) -> Result<Option<&'r str>, Failure> {
        let instance = fields
            .get("instances")
            .and_then(|list| list.get(0)?.get("input"));
        let places = [
            ("input", fields.get("input")),
            ("context", fields.get("context")),
            ("instances[0].input", instance),
        ];
        let mut found: Option<(&str, &str)> = None;
        for (name, value) in places {
            let Some(value) = value else { continue };
            let Some(text) = optional_text(value) else {
                return Err(Failure::new(format!(
                    "{}, {}: field `{name}` is {}, not text",
                    path.display(),
                    record.place,
                    kind_of(value)
                ))
                .hint("`source.layout` and `source.field` set where the query is; leave out records that have none"));
            };
            let text = text.unwrap_or_default();
            match found {
                _ if text.trim().is_empty() => {}
                Some((other, before)) if before != text => {
                    return Err(Failure::new(format!(
                        "{}, {}: both `{other}` and `{name}` are beside the instruction",
                        path.display(),
                        record.place
                    ))
                    .hint("write the whole question into one field and name it: `source.field`"));
                }
                _ => found = Some((name, text)),
            }
        }
        self.has_no_other_part(record, fields, path, &["input", "context", "instances"])?;
        Ok(found.map(|(_, text)| text))
    }

    /// Refuses a record if an unnamed field may not be the whole question.
    fn is_whole(
        &self,
        record: &Record,
        fields: &Map<String, Value>,
        path: &Path,
        name: &str,
    ) -> Result<(), Failure> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::trim);
        let differs = |other: &&str| {
            *other != name && text(other).is_some_and(|t| !t.is_empty() && text(name) != Some(t))
        };
        if let Some(other) = USUAL_FIELDS.iter().copied().find(differs) {
            return Err(Failure::new(format!(
                "{}, {}: which field holds the query, `{name}` or `{other}`?",
                path.display(),
                record.place
            ))
            .hint("name it: `source.field`"));
        }
        self.has_no_other_part(record, fields, path, &[name])
    }

    fn has_no_other_part(
        &self,
        record: &Record,
        fields: &Map<String, Value>,
        path: &Path,
        taken: &[&str],
    ) -> Result<(), Failure> {
        let parts: Vec<String> = PARTS_OF_A_QUESTION
            .into_iter()
            .filter(|part| !taken.contains(part))
            .filter(|part| fields.get(*part).is_some_and(|v| !is_nothing(v)))
            .map(|part| format!("`{part}`"))
            .collect();
        if parts.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{}, {}: {self}, and {} beside it may be a part of the question",
            path.display(),
            record.place,
            parts.join(", ")
        ))
        .hint("`source.field` takes the field that it names and nothing else; to ask the whole question, write it into one field first"))
    }
}

/// A text, or nothing where there is null; `None` for anything else.
#[expect(clippy::option_option, reason = "null is not another type")]
fn optional_text(value: &Value) -> Option<Option<&str>> {
    match value {
        Value::String(text) => Some(Some(text)),
        Value::Null => Some(None),
        _ => None,
    }
}

/// Null, false, or empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_nothing),
        Value::Object(fields) => fields.values().all(is_nothing),
        _ => false,
    }
}

fn has_nulls(record: &Record) -> bool {
    let fields = record.value.as_object();
    fields.is_some_and(|fields| fields.values().any(Value::is_null))
}

fn which(source: &Source, record: &Record, fields: &[&str]) -> Failure {
    let names: Vec<String> = fields.iter().map(|name| format!("`{name}`")).collect();
    Failure::new(format!(
        "{}, {}: which field holds the query, {}?",
        source.path.display(),
        record.place,
        names.join(" or ")
    ))
    .hint("name it: `source.field`, with `source.layout` where it holds turns")
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

/// The names of some fields, the first of them where there are many.
pub(super) fn names_of(fields: &Map<String, Value>) -> String {
    const SHOWN: usize = 20;
    let mut names: Vec<String> = fields
        .keys()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    match fields.len() {
        0 => return "none".into(),
        n if n > SHOWN => names.push(format!("and {} more", n - SHOWN)),
        _ => {}
    }
    names.join(", ")
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
