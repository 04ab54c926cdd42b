//! `queries`: reads unlabelled queries, drops empty and duplicate ones, and
//! samples by hash, so that a larger sample contains a smaller one.

use serde::Deserialize;
use serde_json::json;

use super::schema::{Field, Schema, Type};
use super::{Context, JobResult};

/// Parameters of the kind.
#[derive(Debug, Clone, Deserialize)]
pub struct Params {
    /// Where they come from.
    pub source: Source,
    /// How many of them to take; all if null.
    pub sample: Option<Sample>,
}

/// Where queries come from.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    /// The file.
    pub path: std::path::PathBuf,
    /// `auto`, `jsonl`, `json` or `csv`.
    pub format: String,
    /// `auto`, `field`, `alpaca`, `sharegpt` or `messages`.
    pub layout: String,
    /// The field that holds the query, for layout `field`.
    pub field: Option<String>,
}

/// A sample of queries: those with the smallest hash of (seed, text).
#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    /// How many.
    pub n: usize,
    /// Of the hash.
    pub seed: u64,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    Schema::new(vec![
        Field::object(
            "source",
            Schema::new(vec![
                Field::required(
                    "path",
                    Type::Path,
                    "File of queries: JSONL, a JSON array, or CSV with a header.",
                ),
                Field::with_default(
                    "format",
                    Type::Choice(&["auto", "jsonl", "json", "csv"]),
                    "auto",
                    "Format of the file; `auto` goes by its name, then by its first character.",
                ),
                Field::with_default(
                    "layout",
                    Type::Choice(&["auto", "field", "alpaca", "sharegpt", "messages"]),
                    "auto",
                    "Layout of a record: a plain field, alpaca (instruction and input), sharegpt (conversations, first human turn) or chat messages (first user turn). `auto` looks at the first record, and is `field` when `field` is given.",
                ),
                Field::optional(
                    "field",
                    Type::NonEmpty,
                    "Name of the field that holds the query.",
                ),
            ]),
            "Where the queries come from.",
        ),
        Field {
            default: super::schema::Default::Null,
            ..Field::object(
                "sample",
                Schema::new(vec![
                    Field::required(
                        "n",
                        Type::at_least(1),
                        "How many queries to take; a larger n contains the smaller.",
                    ),
                    Field::seed(),
                ]),
                "Take a sample; all queries unless given.",
            )
        },
    ])
}

/// Computes the stage.
///
/// # Errors
/// When the file cannot be read, or holds no query.
pub fn run(_context: &Context) -> JobResult {
    let _ = json!(null);
    Err(crate::protocol::Failure::new("not built yet"))
}
