//! Records of JSON: a value a line ([`lines`]), an array ([`array`]), or values
//! one after the other ([`documents`]). A duplicate key is refused.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::bytes::line_of;
use super::read::{Place, Record, text_lines};
use crate::protocol::Failure;

const HINT: &str =
    "JSONL has one whole JSON object per line; a file with one array of objects is format `json`";

/// One value a line; blank lines are skipped.
pub(super) fn lines(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    text_lines(text)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let place = Place::Line(number);
            let value = parse(line).map_err(|e| {
                let what = without_line(&e);
                Failure::new(format!("{}, {place}: not JSON: {what}", path.display()))
                    .hint(remedy(line, HINT))
            })?;
            Ok(Record { place, value })
        })
        .collect()
}

/// The items of one array.
pub(super) fn array(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    let fail = |e: &dyn fmt::Display| {
        Failure::new(format!("{}: not a JSON array: {e}", path.display())).hint(remedy(
            text,
            "a file with one JSON object a line is format `jsonl`",
        ))
    };
    match parse(text).map_err(|e| fail(&e))? {
        Value::Array(items) => Ok(items
            .into_iter()
            .zip(1..)
            .map(|(value, number)| Record {
                place: Place::Item(number),
                value,
            })
            .collect()),
        _ => Err(fail(&"no list")),
    }
}

/// Values one after the other, over as many lines as they like.
pub(super) fn documents(path: &Path, text: &str) -> Result<Vec<Record>, Failure> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Strict>();
    let mut records = Vec::new();
    let (mut line, mut counted) = (1, 0);
    loop {
        let after = values.byte_offset();
        let Some(value) = values.next() else {
            return Ok(records);
        };
        let Strict(value) = value.map_err(|e| {
            let what = without_line(&e);
            let line = e.line();
            Failure::new(format!("{}, line {line}: not JSON: {what}", path.display())).hint(remedy(
                text,
                "a JSON file holds an array of objects, or objects one after the other",
            ))
        })?;
        let start = after + text[after..].len() - text[after..].trim_start().len();
        line += line_of(&text.as_bytes()[counted..start]) - 1;
        counted = start;
        records.push(Record {
            place: Place::Line(line),
            value,
        });
    }
}

/// Whether the first line that is not blank breaks off in the middle of a value.
pub(super) fn breaks_off(text: &str) -> bool {
    let first = text_lines(text).find(|(_, line)| !line.trim().is_empty());
    first.is_some_and(|(_, line)| parse(line).is_err_and(|e| e.is_eof()))
}

/// Whether a text is one JSON value, or its first line is.
pub(super) fn is_json(text: &str) -> bool {
    let first = text_lines(text).find(|(_, line)| !line.trim().is_empty());
    first.is_some_and(|(_, line)| parse(line).is_ok()) || parse(text).is_ok()
}

fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str::<Strict>(text).map(|Strict(value)| value)
}

/// What to do about a text that is not JSON.
fn remedy(text: &str, usual: &str) -> String {
    let not_a_number = ["NaN", "Infinity"]
        .iter()
        .any(|word| text.contains(&format!(": {word}")) || text.contains(&format!(":{word}")));
    if not_a_number || text.contains(":-Infinity") || text.contains(": -Infinity") {
        return "NaN and Infinity are not JSON: write null for them".to_owned();
    }
    usual.to_owned()
}

/// serde_json's message, without its "at line 1", which is not the file's line.
fn without_line(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", e.column()),
        None => text,
    }
}

/// A value in which no object has a key twice: serde_json would keep the last.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}
