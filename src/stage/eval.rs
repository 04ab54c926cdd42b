//! `eval`: generates answers to benchmarks and matches them.
//! Computed in `genius-worker` (`src/worker/infer`).

use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;

use super::schema::{Field, Schema, Type};

/// Parameters of the kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Params {
    pub benchmarks: Vec<Benchmark>,
    pub engine: String,
    pub dtype: String,
    pub seed: u64,
}

/// One benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Benchmark {
    pub name: String,
    pub path: PathBuf,
    pub answer: Answer,
    pub question_field: String,
    pub answer_field: String,
    pub limit: Option<usize>,
    pub system: Option<String>,
    pub template: String,
    pub response_prefix: String,
    pub stop: Vec<String>,
    pub temperature: f64,
    pub max_tokens: usize,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A number.
    Number,
    /// A capital letter A-D.
    Choice,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    let benchmark = Schema::new(vec![
        Field::required("name", Type::NonEmpty, "Name in the report."),
        Field::required("path", Type::File, "JSONL file of items."),
        Field::with_default(
            "answer",
            Type::Choice(&["number", "choice"]),
            "number",
            "What an answer is: a number, or a letter A to D.",
        ),
        Field::with_default(
            "question_field",
            Type::NonEmpty,
            "question",
            "Field of the question.",
        ),
        Field::with_default(
            "answer_field",
            Type::NonEmpty,
            "answer",
            "Field of the reference answer; what stands after a last `####` counts, if there is one.",
        ),
        Field::optional("limit", Type::at_least(1), "Only the first items."),
        Field::optional("system", Type::Text, "System prompt."),
        Field::with_default(
            "template",
            Type::NonEmpty,
            "{question}",
            "User turn; {question} is replaced.",
        ),
        Field::with_default(
            "response_prefix",
            Type::Text,
            "",
            "Text that the response starts with.",
        ),
        Field::with_default(
            "stop",
            Type::List {
                items: Box::new(Type::NonEmpty),
                min: 0,
            },
            json!([]),
            "Texts that end a response.",
        ),
        Field::with_default(
            "temperature",
            Type::non_negative(),
            1.0,
            "Sampling temperature; 0 is greedy. The paper samples at 1.",
        ),
        Field::with_default(
            "max_tokens",
            Type::at_least(1),
            1024,
            "Tokens a response at most.",
        ),
    ]);
    Schema::new(vec![
        Field::required(
            "benchmarks",
            Type::List {
                items: Box::new(Type::Object(benchmark)),
                min: 1,
            },
            "The benchmarks.",
        ),
        Field::with_default(
            "engine",
            Type::Choice(&["auto", "mistralrs", "libtorch"]),
            "auto",
            "Inference engine, as for `rollout`.",
        ),
        Field::with_default(
            "dtype",
            Type::Choice(&["auto", "f32", "bf16"]),
            "auto",
            "Precision, as for `rollout`.",
        ),
        Field::seed(),
        Field::width(),
        Field::kv_cache_gb(),
    ])
}
