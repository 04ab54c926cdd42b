//! The kinds of stage: what each takes, makes and accepts as parameters, and,
//! for those that need no model, the computation itself.
//!
//! A kind is a variant of [`StageKind`] and a file here that holds its
//! `Params` struct and its [`schema::Schema`]. Kinds that need libtorch or
//! mistral.rs are computed in `genius-worker` (`src/worker`).

pub mod command;
pub mod eval;
pub mod hub;
pub mod model;
pub mod pairs;
pub mod queries;
pub mod rollout;
pub mod schema;
pub mod score;
pub mod script;
#[cfg(test)]
mod testing;
pub mod train;

pub use crate::protocol::{Context, JobResult, StageKind};
use schema::Schema;

/// An input of a kind: its slot name and the artifact that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Name under `needs:`.
    pub slot: &'static str,
    /// Name of the output, of any kind that has one so named, that fits.
    pub artifact: &'static str,
}

impl StageKind {
    /// Every kind, in the order of the method.
    pub const ALL: [StageKind; 8] = [
        StageKind::Queries,
        StageKind::Model,
        StageKind::Rollout,
        StageKind::Score,
        StageKind::Pairs,
        StageKind::Train,
        StageKind::Eval,
        StageKind::Command,
    ];

    /// Name in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            StageKind::Queries => "queries",
            StageKind::Model => "model",
            StageKind::Rollout => "rollout",
            StageKind::Score => "score",
            StageKind::Pairs => "pairs",
            StageKind::Train => "train",
            StageKind::Eval => "eval",
            StageKind::Command => "command",
        }
    }

    /// Version of the computation: raised when the same parameters and inputs
    /// give other outputs than before, so that old results are not reused.
    pub fn version(self) -> u32 {
        match self {
            // 2: histograms in metrics.json. 3: four tokens share a block of random numbers.
            // 4: candidates that end at once, distinct beams, white space behind a step; the
            // policy; prompts as transformers renders and tokenises them.
            StageKind::Rollout => 4,
            // 2: parents by their tokens, terminal candidates, the policy.
            StageKind::Score | StageKind::Pairs => 2,
            // 2: as rollout 3. 3: draws named by benchmark and question; answers are read
            // whole, and as exact numbers; `unextracted` in the figures; prompts as rollout 4.
            StageKind::Eval => 3,
            // 2: shards are renamed, their index decides, and an end token that only
            // tokenizer_config.json names is written out.
            StageKind::Model => 2,
            // 2: files are read strictly, or refused; what is dropped is counted by reason.
            StageKind::Queries => 2,
            // 2: what an output's files may be run as is kept.
            StageKind::Command => 2,
            // 2: residual stream and logits in f32; `changed_share` in metrics.json.
            StageKind::Train => 2,
        }
    }

    /// What it needs. A command has the inputs that it declares, of any artifact.
    pub fn inputs(self) -> &'static [Input] {
        const MODEL: Input = Input {
            slot: "model",
            artifact: "model",
        };
        match self {
            StageKind::Queries | StageKind::Model | StageKind::Command => &[],
            StageKind::Rollout => &[
                Input {
                    slot: "queries",
                    artifact: "queries",
                },
                MODEL,
            ],
            StageKind::Score => &[Input {
                slot: "rollouts",
                artifact: "rollouts",
            }],
            StageKind::Pairs => &[Input {
                slot: "scores",
                artifact: "scores",
            }],
            StageKind::Train => &[
                MODEL,
                Input {
                    slot: "pairs",
                    artifact: "pairs",
                },
            ],
            StageKind::Eval => &[MODEL],
        }
    }

    /// Names of the outputs: each is a folder of files. The first is the main one.
    /// A command has those that it declares.
    pub fn outputs(self) -> &'static [&'static str] {
        match self {
            StageKind::Queries => &["queries", "metrics"],
            StageKind::Model => &["model"],
            StageKind::Rollout => &["rollouts", "metrics"],
            StageKind::Score => &["scores", "metrics"],
            StageKind::Pairs => &["pairs", "metrics"],
            StageKind::Train => &["model", "metrics"],
            StageKind::Eval => &["summary", "items"],
            StageKind::Command => &[],
        }
    }

    /// Whether it needs `genius-worker`; the others run in a process of
    /// `genius` itself.
    pub fn needs_worker(self) -> bool {
        matches!(
            self,
            StageKind::Model | StageKind::Rollout | StageKind::Train | StageKind::Eval
        )
    }

    /// The parameters under `with:`.
    pub fn schema(self) -> Schema {
        match self {
            StageKind::Queries => queries::schema(),
            StageKind::Model => model::schema(),
            StageKind::Rollout => rollout::schema(),
            StageKind::Score => score::schema(),
            StageKind::Pairs => pairs::schema(),
            StageKind::Train => train::schema(),
            StageKind::Eval => eval::schema(),
            StageKind::Command => command::schema(),
        }
    }
}

/// Computes a stage that needs no model.
///
/// # Errors
/// When it cannot be computed, or needs `genius-worker`.
pub fn run_light(context: &Context) -> JobResult {
    match context.job.kind {
        StageKind::Queries => queries::run(context),
        StageKind::Score => score::run(context),
        StageKind::Pairs => pairs::run(context),
        StageKind::Command => Err(crate::protocol::Failure::new(
            "a `command` stage is started by genius itself",
        )),
        kind @ (StageKind::Model | StageKind::Rollout | StageKind::Train | StageKind::Eval) => Err(
            crate::protocol::Failure::new(format!("a `{}` stage needs genius-worker", kind.name())),
        ),
    }
}
