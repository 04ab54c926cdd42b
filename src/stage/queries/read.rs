//! Files of records: JSONL, JSON array, CSV. See [`read`] and [`Record`].

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::protocol::Failure;

/// Where a record stands in its file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A line, of JSONL and CSV.
    Line(u64),
    /// An item of a JSON array.
    Item(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Item(n) => write!(f, "record {n}"),
        }
    }
}

/// A record with its place. Fields of CSV are texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// Reads a file in `format` (`auto`, `jsonl`, `json` or `csv`). A byte order
/// mark at its start is passed over; lines may end in CR LF.
pub(super) fn read(path: &Path, format: &str) -> Result<Vec<Record>, Failure> {
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::new(format!("cannot read {}: {e}", path.display()))
            .hint("`source.path` must be a file of queries that can be read")
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        Failure::new(format!("{}, line {line}: not UTF-8 text", path.display()))
            .hint("convert the file to UTF-8 first (for example with iconv)")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let format = match format {
        "auto" => guess(path, text),
        given => given,
    };
    match format {
        "json" => json_array(path, text),
        "csv" => csv_table(path, text),
        _ => json_lines(path, text),
    }
}

/// By the file's name, then by its first character: much JSONL is called `.json`.
fn guess(path: &Path, text: &str) -> &'static str {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let first = text.trim_start().chars().next();
    match (extension.as_deref(), first) {
        (Some("jsonl" | "ndjson"), _) => "jsonl",
        (Some("csv"), _) => "csv",
        (_, Some('[')) => "json",
        (Some("json"), Some('{')) | (_, Some('{' | '"')) => "jsonl",
        (Some("json"), _) => "json",
        _ => "csv",
    }
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    let mut records = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = Place::Line(index as u64 + 1);
        let value = serde_json::from_str(line).map_err(|e| {
            Failure::new(format!("{}, {place}: not JSON: {}", path.display(), without_line(&e)))
                .hint("JSONL has one whole JSON object a line; a file with one array of objects is format `json`")
        })?;
        records.push(Record { place, value });
    }
    Ok(records)
}

fn json_array(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<Value> = serde_json::from_str(text).map_err(|e| {
        Failure::new(format!("{}: not a JSON array: {e}", path.display()))
            .hint("a file with one JSON object a line is format `jsonl`")
    })?;
    let records = values.into_iter().enumerate();
    Ok(records
        .map(|(index, value)| Record {
            place: Place::Item(index as u64 + 1),
            value,
        })
        .collect())
}

fn csv_table(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    let fail = |e: csv::Error| {
        Failure::new(format!("{}: not CSV: {e}", path.display()))
            .hint("CSV needs a header line and as many fields in every record; quote texts that hold commas or newlines")
    };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(fail)?.clone();
    let mut records = Vec::new();
    for row in reader.records() {
        let row = row.map_err(fail)?;
        let fields: Map<String, Value> = header
            .iter()
            .zip(&row)
            .map(|(name, field)| (name.to_owned(), Value::from(field)))
            .collect();
        let line = row.position().map_or(0, csv::Position::line);
        records.push(Record {
            place: Place::Line(line),
            value: Value::Object(fields),
        });
    }
    Ok(records)
}

/// What serde_json says, without its "at line 1", which is not the file's line.
fn without_line(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", e.column()),
        None => text,
    }
}
