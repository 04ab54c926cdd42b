//! The JSON files of a model folder: bounded in size, and without a key that is
//! given twice ([`read_object`]).
//!
//! Readers disagree on which of two equal keys counts, so such a file means
//! different models to different programs.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Largest config.json or generation_config.json, bytes; usual ones have a few thousand.
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Largest tokenizer_config.json or chat template, bytes; usual ones stay below two million.
pub const TOKENIZER_CONFIG_BYTES: u64 = 32 << 20;
/// Largest index of weights, bytes: half a million tensors.
pub const INDEX_BYTES: u64 = 64 << 20;
/// Largest tokenizer.json or list of its parts, bytes; the largest known has 35 million.
pub const TOKENIZER_BYTES: u64 = 256 << 20;

/// How a Git LFS pointer begins.
const POINTER_START: &[u8] = b"version https://git-lfs";
/// What to do about one.
pub const POINTER: &str = "is a Git LFS pointer, not the file itself: run `git lfs pull`";

/// Whether a file is a Git LFS pointer.
///
/// # Errors
/// The file system's.
pub fn begins_as_pointer(file: &std::fs::File) -> std::io::Result<bool> {
    let mut start = [0; POINTER_START.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(is_pointer(&start)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a file that begins with these bytes is a Git LFS pointer.
pub fn is_pointer(start: &[u8]) -> bool {
    start.starts_with(POINTER_START)
}

/// A JSON file that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Larger than any such file is.
    #[error("{path} is larger than {limit} bytes, which no such file is")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// What Git LFS leaves where it did not fetch the file.
    #[error("{path} {POINTER}")]
    Pointer {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, not an object, or with a key that is given twice.
    #[error("{path} is damaged: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl From<JsonError> for genius::protocol::Failure {
    fn from(e: JsonError) -> Self {
        Self::new(e.to_string())
    }
}

/// The bytes of a file of at most `limit` bytes. Reads no further than that, and
/// nothing that is not a plain file.
///
/// # Errors
/// With the path.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, JsonError> {
    let io = |source| JsonError::Io {
        path: path.to_owned(),
        source,
    };
    let too_large = || JsonError::TooLarge {
        path: path.to_owned(),
        limit,
    };
    let file = open_plain(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    if is_pointer(&bytes) {
        return Err(JsonError::Pointer {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Opens a plain file; opening a pipe would wait for its writer.
///
/// # Errors
/// The file system's, or that it is something else.
pub fn open_plain(path: &Path) -> std::io::Result<std::fs::File> {
    let found = std::fs::metadata(path)?;
    if found.is_dir() {
        return Err(std::io::Error::other("it is a folder, not a file"));
    }
    if !found.is_file() {
        return Err(std::io::Error::other("it is not a plain file"));
    }
    std::fs::File::open(path)
}

/// The JSON object in a file of at most `limit` bytes.
///
/// # Errors
/// With the path: unreadable, too large, not an object, a key given twice.
pub fn read_object(path: &Path, limit: u64) -> Result<Map<String, Value>, JsonError> {
    parse_object(&read_bytes(path, limit)?, path)
}

/// The same from its bytes; `path` is for messages.
///
/// # Errors
/// As [`read_object`].
pub fn parse_object(bytes: &[u8], path: &Path) -> Result<Map<String, Value>, JsonError> {
    parse(bytes).map_err(|source| JsonError::Parse {
        path: path.to_owned(),
        source,
    })
}

/// A JSON object without a key that is given twice, at any depth.
///
/// # Errors
/// The parser's, with line and column.
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::from_slice::<Strict>(bytes)?.0 {
        Value::Object(map) => Ok(map),
        other => Err(Error::custom(format!("{} is not an object", brief(&other)))),
    }
}

/// A value for a message: its JSON, cut where it is long.
pub fn brief(value: &Value) -> String {
    const SHOWN: usize = 40;
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}

/// A value that refuses a key given twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is not finite"))
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
            let Strict(value) = entries.next_value()?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is given twice")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"b": {"a": 1, "a": 2}}"#,
            r#"{"b": [{"a": 1, "c": 0, "a": 2}]}"#,
            r#"{"a": 1, "\u0061": 2}"#,
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("`a` is given twice"), "{text}: {error}");
        }
    }

    #[test]
    fn everything_else_is_what_serde_json_reads() {
        let text = r#"{"n": null, "b": true, "i": -3, "u": 18446744073709551615,
            "f": 1e-05, "t": "é\n", "l": [1, [2.5, {}]], "o": {"x": {"y": 1}}}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(parse(text.as_bytes()).unwrap()), plain);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in ["", "[]", "null", "{", "{} {}", "\u{feff}{}", "{\"a\": NaN}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_above_the_bound_is_not_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        // A hole of a terabyte: reading it would not end.
        std::fs::File::create(&path)
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        assert!(matches!(
            read_bytes(&path, 1000),
            Err(JsonError::TooLarge { limit: 1000, .. })
        ));
        std::fs::write(&path, [b'x'; 1000]).unwrap();
        assert_eq!(read_bytes(&path, 1000).unwrap().len(), 1000);
    }
}
