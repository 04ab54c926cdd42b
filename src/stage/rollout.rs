//! `rollout`: stepwise foresight re-sampling (paper 2.2, method section 2).
//! Computed in `genius-worker` (`src/worker/infer`).

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{Field, Schema, Type};

/// Parameters of the kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Params {
    pub engine: String,
    pub dtype: String,
    pub beams: usize,
    pub rollouts: usize,
    pub steps: usize,
    pub foresight: bool,
    pub temperature: f64,
    pub foresight_temperature: f64,
    pub top_k: Option<usize>,
    pub top_p: f64,
    pub min_p: f64,
    pub tau: f64,
    pub replacement: bool,
    pub selection: Selection,
    pub terminal_score: TerminalScore,
    pub light: Option<Light>,
    pub system: Option<String>,
    pub response_prefix: String,
    pub stop: Vec<String>,
    pub max_step_tokens: usize,
    pub max_foresight_tokens: usize,
    pub max_response_tokens: Option<usize>,
    pub seed: u64,
}

/// How the next beams are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Drawn from F_k.
    Categorical,
    /// The highest f (w/o sampling).
    Greedy,
}

/// The score of a candidate that has no foresight tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminalScore {
    /// Mean log-probability of the step itself.
    Step,
    /// 0, as the released code has it.
    Zero,
}

/// Skip foresight at a step whose candidates are all sure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Light {
    /// Mean step log-probability above which a candidate is sure.
    pub threshold: f64,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    Schema::new(vec![
        Field::with_default(
            "engine",
            Type::Choice(&["auto", "mistralrs", "libtorch"]),
            "auto",
            "Inference engine; `auto` takes the best for the device, and the key holds which.",
        ),
        Field::with_default(
            "dtype",
            Type::Choice(&["auto", "f32", "bf16"]),
            "auto",
            "Precision of the forward pass; `auto` is bf16 on a GPU, on a CPU f32 (with libtorch bf16 where the processor is fast at it).",
        ),
        Field::with_default(
            "beams",
            Type::Int { min: 1, max: 1024 },
            2,
            "M: beams kept a step.",
        ),
        Field::with_default(
            "rollouts",
            Type::Int { min: 1, max: 1024 },
            4,
            "N: candidate steps a beam.",
        ),
        Field::with_default(
            "steps",
            Type::Int { min: 1, max: 4096 },
            4,
            "K: steps a query, and so pairs a query at most.",
        ),
        Field::with_default(
            "foresight",
            Type::Bool,
            true,
            "Score candidates by simulated futures; false scores the step itself (w/o foresight).",
        ),
        Field::with_default(
            "temperature",
            Type::positive(),
            0.6,
            "Temperature of a step.",
        ),
        Field::same_as(
            "foresight_temperature",
            Type::positive(),
            "temperature",
            "Temperature after the step's end; the step's unless given, so that every f is a mean over tokens drawn alike. The released code has 1.",
        ),
        Field::optional(
            "top_k",
            Type::at_least(1),
            "Draw from the k likeliest tokens only.",
        ),
        Field::with_default(
            "top_p",
            Type::Float {
                min: 0.0,
                min_open: true,
                max: 1.0,
                max_open: false,
            },
            1.0,
            "Draw from the likeliest tokens that together have this probability.",
        ),
        Field::with_default(
            "min_p",
            Type::unit(),
            0.0,
            "Draw from tokens with at least this share of the likeliest one's probability.",
        ),
        Field::with_default(
            "tau",
            Type::positive(),
            0.1,
            "Temperature of the softmax over foresight scores that exploration draws from (eq. 2).",
        ),
        Field::with_default(
            "replacement",
            Type::Bool,
            false,
            "Draw beams with replacement.",
        ),
        Field::with_default(
            "selection",
            Type::Choice(&["categorical", "greedy"]),
            "categorical",
            "How the next beams are taken: drawn from F_k, or the highest f (w/o sampling).",
        ),
        Field::with_default(
            "terminal_score",
            Type::Choice(&["step", "zero"]),
            "step",
            "Score of a candidate without foresight tokens: mean log-probability of its step, or 0 as in the released code. One that ends at once has its beam's Q either way.",
        ),
        Field {
            default: super::schema::Default::Null,
            ..Field::object(
                "light",
                Schema::new(vec![Field::with_default(
                    "threshold",
                    Type::Float {
                        min: f64::NEG_INFINITY,
                        min_open: true,
                        max: 0.0,
                        max_open: false,
                    },
                    -0.25,
                    "Mean step log-probability above which a candidate counts as sure.",
                )]),
                "Skip foresight at a step where every candidate's step score is above a threshold.",
            )
        },
        Field::optional("system", Type::Text, "System prompt."),
        Field::with_default(
            "response_prefix",
            Type::Text,
            "The reasoning steps are:\n\n",
            "Text that every response starts with: context, masked in training.",
        ),
        Field::with_default(
            "stop",
            Type::List {
                items: Box::new(Type::NonEmpty),
                min: 0,
            },
            json!(["<end_of_reasoning>"]),
            "Texts that end a response.",
        ),
        Field::with_default(
            "max_step_tokens",
            Type::at_least(1),
            1024,
            "Tokens a step at most.",
        ),
        Field::with_default(
            "max_foresight_tokens",
            Type::Int {
                min: 0,
                max: i64::MAX,
            },
            1024,
            "Tokens a foresight at most.",
        ),
        Field::optional(
            "max_response_tokens",
            Type::at_least(1),
            "Tokens a response at most; the model's context unless given.",
        ),
        Field::seed(),
        Field::width(),
        Field::kv_cache_gb(),
        Field::with_default(
            "shards",
            Type::Int {
                min: 0,
                max: 65536,
            },
            0,
            "Parts that the queries are cut into, each rolled out by a process of its own, as many at a time as the stage has GPUs; 0 or 1: one process for all.",
        )
        .execution(),
    ])
}
