//! `train`: preference training with ACO (paper 2.3, method section 3).
//! Computed in `genius-worker` (`src/worker/train`).

use serde::{Deserialize, Serialize};

use super::schema::{Field, Schema, Type};

/// Parameters of the kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Params {
    pub loss: Loss,
    pub learning_rate: f64,
    pub batch_size: usize,
    pub epochs: usize,
    pub warmup_ratio: f64,
    pub weight_decay: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub max_grad_norm: f64,
    pub max_length: usize,
    pub allow_other_policy: bool,
    pub dtype: String,
    pub save_dtype: String,
    pub seed: u64,
}

/// The objective (method section 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Advantage-calibrated optimisation (eq. 11-12).
    Aco {
        /// Of the advantage gap's decay.
        alpha: f64,
        /// Of the log-ratios.
        beta: f64,
        /// `min` (paper) or `max` (released code).
        clip: Clip,
    },
    /// Direct preference optimisation.
    Dpo {
        /// Of the log-ratios.
        beta: f64,
    },
}

/// How the weight of the rejected side is clipped at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// w = min(1, ...), as in the paper's figure 3.
    Min,
    /// w = max(1, ...), as in the released code.
    Max,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    let beta = || {
        Field::with_default(
            "beta",
            Type::positive(),
            0.1,
            "Scale of the log-ratios between policy and reference.",
        )
    };
    Schema::new(vec![
        Field {
            default: super::schema::Default::Value(
                serde_json::json!({ "aco": { "alpha": 1.0, "beta": 0.1, "clip": "min" } }),
            ),
            ..Field::required(
                "loss",
                Type::OneOf {
                    bare: true,
                    fields: vec![
                        Field::object(
                            "aco",
                            Schema::new(vec![
                                Field::with_default(
                                    "alpha",
                                    Type::positive(),
                                    1.0,
                                    "Temperature of the weight's decay in the advantage gap.",
                                ),
                                beta(),
                                Field::with_default(
                                    "clip",
                                    Type::Choice(&["min", "max"]),
                                    "min",
                                    "w = min(1, exp(...)) as in the paper, or max as in the released code.",
                                ),
                            ]),
                            "Advantage-calibrated optimisation (eq. 11-12).",
                        ),
                        Field::object(
                            "dpo",
                            Schema::new(vec![beta()]),
                            "Direct preference optimisation.",
                        ),
                    ],
                },
                "The objective: `aco` or `dpo`.",
            )
        },
        Field::with_default(
            "learning_rate",
            Type::positive(),
            5e-7,
            "Peak learning rate.",
        ),
        Field::with_default(
            "batch_size",
            Type::at_least(1),
            128,
            "Pairs an optimiser step, accumulated over micro-batches.",
        ),
        Field::with_default("epochs", Type::at_least(1), 1, "Passes over the pairs."),
        Field::with_default(
            "warmup_ratio",
            Type::unit(),
            0.1,
            "Share of the optimiser steps in linear warm-up.",
        ),
        Field::with_default(
            "weight_decay",
            Type::non_negative(),
            0.0,
            "Decoupled weight decay of matrices; norms and biases do not decay.",
        ),
        Field::with_default(
            "adam_beta1",
            Type::share(),
            0.9,
            "AdamW's decay of the first moment.",
        ),
        Field::with_default(
            "adam_beta2",
            Type::share(),
            0.999,
            "AdamW's decay of the second moment.",
        ),
        Field::with_default("adam_epsilon", Type::positive(), 1e-8, "AdamW's epsilon."),
        Field::with_default(
            "max_grad_norm",
            Type::positive(),
            1.0,
            "Gradients are scaled down to this L2 norm.",
        ),
        Field::with_default(
            "max_length",
            Type::at_least(2),
            1300,
            "Tokens of prompt and response at most, and at most the model's context; a longer response is cut at its end, a pair whose prompt leaves it none is dropped and counted.",
        ),
        Field::with_default(
            "allow_other_policy",
            Type::Bool,
            false,
            "Train on pairs that another model than the input `model` rolled out; else they are refused.",
        ),
        Field::with_default(
            "dtype",
            Type::Choice(&["auto", "f32", "bf16"]),
            "auto",
            "Precision of the forward and backward pass; master weights, residual stream and logits are f32. `auto` is bf16 where the processor has it, else f32.",
        ),
        Field::with_default(
            "save_dtype",
            Type::Choice(&["f32", "bf16"]),
            "f32",
            "Precision of the weights written; bf16 loses what small steps change, see `changed_share`.",
        ),
        Field::seed(),
        Field::with_default(
            "micro_batch",
            Type::Int { min: 0, max: 65536 },
            0,
            "Pairs a forward pass; 0 leaves it to the trainer.",
        )
        .execution(),
    ])
}
