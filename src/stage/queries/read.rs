//! Files of records: JSONL, JSON, tables and plain text. See [`read`] and [`Record`].

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::{bytes, json, layout, table};
use crate::kind::queries::{Delimiter, Format as Asked, Layout, Source};
use crate::protocol::Failure;

/// Where a record is in its file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A line.
    Line(u64),
    /// An item of a JSON array, or a row of its columns.
    Item(u64),
}

impl Place {
    /// What is counted, and the number.
    pub(super) fn parts(self) -> (&'static str, u64) {
        match self {
            Place::Line(n) => ("line", n),
            Place::Item(n) => ("record", n),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, number) = self.parts();
        write!(f, "{what} {number}")
    }
}

/// A record with its place. Fields of tables are texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Json,
    Table(char),
    Text,
}

/// Reads a file according to `source`. A byte order mark at its start is skipped;
/// lines may end in LF, CR LF or CR.
pub(super) fn read(source: &Source) -> Result<Vec<Record>, Failure> {
    let path = &source.path;
    let file = bytes::read(path)?;
    let text = &file.text;
    let mut is_table = matches!(source.format, Asked::Csv | Asked::Tsv);
    let records = match source.format {
        Asked::Jsonl => json::lines(path, text)?,
        Asked::Json => json_file(path, text)?,
        Asked::Csv => table(source, text, delimiter(source, text, None)?)?,
        Asked::Tsv => table(source, text, delimiter(source, text, Some('\t'))?)?,
        Asked::Txt => plain_lines(text),
        Asked::Auto => match guess(source, &file)? {
            Format::JsonLines if text.trim_start().starts_with('[') => {
                json::lines(path, text).or_else(|e| json::array(path, text).map_err(|_| e))?
            }
            // Objects over several lines each; or a line that is cut short.
            Format::JsonLines if json::breaks_off(text) => {
                json::documents(path, text).or_else(|_| json::lines(path, text))?
            }
            Format::JsonLines => json::lines(path, text)?,
            Format::Json => json_file(path, text)?,
            Format::Table(delimiter) => {
                is_table = true;
                table(source, text, delimiter)?
            }
            Format::Text => plain_lines(text),
        },
    };
    if !is_table && source.delimiter != Delimiter::Auto {
        return Err(Failure::new(format!(
            "{}: `source.delimiter` is given, but this is not a table",
            path.display()
        ))
        .hint("leave it out, or set `source.format: csv`"));
    }
    match &records[..] {
        [
            Record {
                value: Value::Array(items),
                ..
            },
        ] if source.format == Asked::Auto
            && items.iter().all(|i| i.is_object() || i.is_string()) =>
        {
            json::array(path, text)
        }
        [
            Record {
                value: Value::Object(one),
                ..
            },
        ] => Ok(columns(source, one)?.unwrap_or(records)),
        _ => Ok(records),
    }
}

/// The lines of a text with their numbers, without their ends (LF, CR LF or CR).
pub(super) fn text_lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut rest = Some(text);
    let lines = std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let (line, after) = text.split_at(end);
        let after = after.strip_prefix("\r\n").unwrap_or(&after[1..]);
        rest = Some(after);
        Some(line)
    });
    (1..).zip(lines)
}

/// By the file's name, then by its first character: much JSONL is called `.json`.
fn guess(source: &Source, file: &bytes::Text) -> Result<Format, Failure> {
    let (name, text) = (&file.name, &file.text);
    let extension = name.extension().map(|e| e.to_string_lossy().to_lowercase());
    let first = text.trim_start().chars().next();
    let table = |natural| delimiter(source, text, natural).map(Format::Table);
    match (extension.as_deref(), first) {
        (Some("jsonl" | "ndjson" | "jsonlines" | "jl"), _) => Ok(Format::JsonLines),
        (Some("json"), Some('{')) if !json::breaks_off(text) => Ok(Format::JsonLines),
        (Some("json"), _) => Ok(Format::Json),
        (Some("csv"), _) => table(None),
        (Some("tsv" | "tab"), _) => table(Some('\t')),
        (Some("txt" | "text"), Some('[' | '{')) if json::is_json(text) => Ok(json_by_start(first)),
        (Some("txt" | "text"), _) if looks_like_a_table(source, text) => {
            Err(unclear(source, "it may be a table with a header"))
        }
        (Some("txt" | "text"), _) => Ok(Format::Text),
        (Some("md" | "markdown" | "html" | "xml" | "yaml" | "yml" | "tex" | "py" | "sql"), _) => {
            Err(unclear(
                source,
                "its name does not show that it holds queries",
            ))
        }
        (_, None) => Ok(Format::Text),
        (_, Some('[' | '{' | '"')) if json::is_json(text) || first != Some('"') => {
            Ok(json_by_start(first))
        }
        _ if source.delimiter != Delimiter::Auto => table(None),
        _ if looks_like_a_table(source, text) => table(None),
        _ => Err(unclear(
            source,
            "neither its name nor its first line shows its format",
        )),
    }
}

fn json_by_start(first: Option<char>) -> Format {
    match first {
        Some('[') => Format::Json,
        _ => Format::JsonLines,
    }
}

fn unclear(source: &Source, why: &str) -> Failure {
    Failure::new(format!(
        "{}: which format is this? {why}",
        source.path.display()
    ))
    .hint("name it: `source.format`; `txt` is one query a line, `csv` and `tsv` are tables with a header line")
}

/// Whether the first line has columns, one of which may hold the query.
fn looks_like_a_table(source: &Source, text: &str) -> bool {
    table::in_header(text).into_iter().any(|delimiter| {
        let names = table::header(text, delimiter);
        let field = source.field.as_deref();
        names.len() > 1
            && names
                .iter()
                .any(|n| field == Some(n) || layout::is_usual(n))
    })
}

/// The delimiter that `source` names, else `natural`, else the header's.
fn delimiter(source: &Source, text: &str, natural: Option<char>) -> Result<char, Failure> {
    match table::delimiter(source.delimiter).or(natural) {
        Some(delimiter) => Ok(delimiter),
        None => table::sniff(&source.path, text),
    }
}

/// A table's records. A single column must have a name that is known or given:
/// else its header may be the first of the queries.
fn table(source: &Source, text: &str, delimiter: char) -> Result<Vec<Record>, Failure> {
    let records = table::read(&source.path, text, delimiter)?;
    let names = table::header(text, delimiter);
    if let ([name], None) = (&names[..], &source.field)
        && !layout::is_usual(name)
    {
        return Err(Failure::new(format!(
            "{}, line 1: is {name:?} the name of the column, or a query? The table has one column, with the delimiter `{}`",
            source.path.display(),
            table::word(delimiter)
        ))
        .hint("`source.field` with the column's name makes line 1 a header; `source.format: txt` makes every line a query; `source.delimiter` names another delimiter"));
    }
    Ok(records)
}

/// Every line a query; lines of white space alone are skipped.
fn plain_lines(text: &str) -> Vec<Record> {
    text_lines(text)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| Record {
            place: Place::Line(number),
            value: line.into(),
        })
        .collect()
}

/// An array of records, or objects one after the other.
fn json_file(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    match text.trim_start().chars().next() {
        None => Ok(Vec::new()),
        Some('{') => json::documents(path, text),
        _ => json::array(path, text),
    }
}

/// The rows of a file that is one object of columns; `None` if it is a record.
///
/// # Errors
/// When the records are a part of the object.
fn columns(source: &Source, object: &Map<String, Value>) -> Result<Option<Vec<Record>>, Failure> {
    let path = source.path.display();
    let named = source.field.as_deref();
    let wanted = |name: &str| match named {
        Some(field) => field == name,
        None => layout::is_usual(name) || layout::holds_turns(name),
    };
    let mut candidates = object.iter().filter(|(name, _)| wanted(name)).peekable();
    if candidates.peek().is_none() {
        let nested = object
            .values()
            .any(|v| v.is_object() || v.as_array().is_some_and(|a| !a.is_empty()));
        return if nested {
            Err(Failure::new(format!(
                "{path}: the file is one object with {}, and none of these holds the query",
                layout::names_of(object)
            ))
            .hint(match object.iter().find(|(_, v)| v.is_array()) {
                Some((key, _)) => format!("if the records are in `{key}`, write them to another file: `jq -c '.[{key:?}][]' IN.json > OUT.jsonl`"),
                None => "write the records to another file, one object per line".to_owned(),
            }))
        } else {
            Ok(None)
        };
    }
    let is_column = |(name, value): (&String, &Value)| {
        let Value::Array(items) = value else {
            return false;
        };
        let turns = layout::holds_turns(name)
            || matches!(source.layout, Layout::Sharegpt | Layout::Messages);
        !items.is_empty()
            && items.iter().all(|item| {
                item.is_null()
                    || if turns {
                        item.is_array()
                    } else {
                        item.is_string()
                    }
            })
    };
    let Some((first, rows)) = candidates
        .find(|&entry| is_column(entry))
        .and_then(|(name, value)| Some((name, value.as_array()?.len())))
    else {
        return Ok(None);
    };
    for (name, value) in object {
        match value {
            Value::Array(items) if items.len() == rows => {}
            Value::Array(items) => {
                return Err(Failure::new(format!(
                    "{path}: column `{name}` has {} items, `{first}` has {rows}",
                    items.len()
                ))
                .hint("a file of columns has as many items in each"));
            }
            _ => {
                return Err(Failure::new(format!(
                    "{path}: `{first}` is a column of {rows} items, `{name}` is not a list"
                ))
                .hint("write one object a record"));
            }
        }
    }
    let row = |index: usize| {
        let fields = object
            .iter()
            .map(|(name, column)| (name.clone(), column[index].clone()));
        Record {
            place: Place::Item(index as u64 + 1),
            value: Value::Object(fields.collect()),
        }
    };
    Ok(Some((0..rows).map(row).collect()))
}
