//! [`Figure`]: something a stage reports about its result.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A figure of a stage's result, worth showing at the end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The benchmark that it was measured on: such figures are shown side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<String>,
    /// What was measured.
    pub name: String,
    /// A number, null if there is nothing to measure, or the text of a [`Unit::Text`].
    pub value: Value,
    /// Of an estimate from a sample of two or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// What `value` counts.
    pub unit: Unit,
}

/// What a figure's value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things: queries, pairs, parameters.
    Count,
    /// Tokens of a model.
    Tokens,
    /// Bytes.
    Bytes,
    /// Wall-clock seconds.
    Seconds,
    /// A share, from 0 to 1.
    Fraction,
    /// A logarithm of a probability, or a difference of two, in natural units.
    Nats,
    /// A number without a unit.
    Number,
    /// No number: a name or a description.
    Text,
}

impl Figure {
    /// A figure without a standard error, of no benchmark.
    pub fn new(name: impl Into<String>, value: impl Into<Value>, unit: Unit) -> Self {
        Self {
            benchmark: None,
            name: name.into(),
            value: value.into(),
            standard_error: None,
            unit,
        }
    }

    /// Its name in a table with several benchmarks.
    pub fn full_name(&self) -> String {
        match &self.benchmark {
            Some(benchmark) => format!("{benchmark}/{}", self.name),
            None => self.name.clone(),
        }
    }
}
