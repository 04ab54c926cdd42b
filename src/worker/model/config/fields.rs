//! [`Fields`]: values of a config.json by key and type. Every refusal names the
//! key, in the form `rope_scaling.factor`.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::model::json::brief;

/// Why a configuration is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// A value that means nothing, whichever program reads it.
    Value {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A feature that is not built here.
    Unsupported(String),
}

/// An object of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Key of the object itself; empty for the file.
    prefix: &'a str,
}

impl<'a> Fields<'a> {
    /// The file.
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, prefix: "" }
    }

    /// The object under `key`; absent and null are none.
    pub fn object(&self, key: &'a str) -> Result<Option<Self>, Problem> {
        self.typed(key, "an object", |value| match value {
            Value::Object(map) => Some(Self { map, prefix: key }),
            _ => None,
        })
    }

    /// Its keys whose values are not null, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Whether the file has the key, with null or another value.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A refusal of what is under `key`.
    pub fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        let key = if self.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.prefix)
        };
        Problem::Value {
            key,
            what: what.into(),
        }
    }

    /// A whole number; absent and null are none.
    pub fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let (low, high) = (*range.start(), *range.end());
        let expected = format!("a whole number from {low} to {high}");
        self.typed(key, &expected, |value| {
            value.as_i64().filter(|n| range.contains(n))
        })
    }

    /// A whole number that there must be.
    pub fn required(&self, key: &str, range: RangeInclusive<i64>) -> Result<i64, Problem> {
        self.not_null(key, "a whole number")?;
        self.integer(key, range)?
            .ok_or_else(|| self.problem(key, "it is missing"))
    }

    /// A finite number; absent and null are none.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Problem> {
        let (low, high) = (*range.start(), *range.end());
        let expected = format!("a number from {low:e} to {high:e}");
        self.typed(key, &expected, |value| {
            value.as_f64().filter(|x| range.contains(x))
        })
    }

    /// A flag; absent and null are false, as transformers before 5 reads them.
    pub fn flag(&self, key: &str) -> Result<bool, Problem> {
        self.typed(key, "true or false", Value::as_bool)
            .map(Option::unwrap_or_default)
    }

    /// A text; absent and null are none.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Problem> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A list of texts; absent and null are none.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, Problem> {
        self.typed(key, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// Refuses a null where transformers has no use for one.
    pub fn not_null(&self, key: &str, expected: &str) -> Result<(), Problem> {
        match self.map.get(key) {
            Some(Value::Null) => Err(self.problem(key, format!("null is not {expected}"))),
            _ => Ok(()),
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.problem(key, format!("{} is not {expected}", brief(value)))),
            },
        }
    }
}
