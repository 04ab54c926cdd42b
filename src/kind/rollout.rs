//! `rollout`: stepwise foresight re-sampling (paper 2.2, method section 2).
//! Computed in `genius-worker` (`src/worker/infer`).

use serde_json::Value;

use super::declare::{choice, params};
use super::engine::Options;
use super::{DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// M: beams kept a step.
        beams: usize => int(1..=1024).or(2),
        /// N: candidate steps a beam.
        rollouts: usize => int(1..=1024).or(4),
        /// K: steps a query, and so pairs a query at most.
        steps: usize => int(1..=4096).or(4),
        /// Score candidates by simulated futures; false scores the step itself (w/o foresight).
        foresight: bool => boolean().or(true),
        /// Temperature of a step.
        temperature: f64 => positive().or(0.6),
        /// Temperature after the step's end; the step's unless given, so that every f is a mean
        /// over tokens drawn alike. The released code has 1.
        foresight_temperature: f64 => positive().or_as("temperature"),
        /// Draw from the k likeliest tokens only.
        top_k: Option<usize> => at_least(1).optional(),
        /// Draw from the likeliest tokens that together have this probability.
        top_p: f64 => probability().or(1.0),
        /// Draw from tokens with at least this share of the likeliest one's probability.
        min_p: f64 => unit().or(0.0),
        /// Temperature of the softmax over foresight scores that exploration draws from (eq. 2).
        tau: f64 => positive().or(0.1),
        /// Draw beams with replacement.
        replacement: bool => boolean().or(false),
        /// How the next beams are taken: drawn from F_k, or the highest f (w/o sampling).
        selection: Selection => declared::<Selection>().or(Selection::Categorical),
        /// Score of a candidate without foresight tokens: mean log-probability of its step, or 0
        /// as in the released code. One that ends at once has its beam's Q either way.
        terminal_score: TerminalScore => declared::<TerminalScore>().or(TerminalScore::Step),
        /// Skip foresight at a step where every candidate's step score is above a threshold.
        light: Option<Light> => declared::<Light>().optional(),
        /// System prompt.
        system: Option<String> => text().optional(),
        /// Text that every response starts with: context, masked in training.
        response_prefix: String => text().or("The reasoning steps are:\n\n".to_owned()),
        /// Texts that end a response.
        stop: Vec<String> => list(non_empty(), 0).or(vec!["<end_of_reasoning>".to_owned()]),
        /// Tokens a step at most.
        max_step_tokens: usize => at_least(1).or(1024),
        /// Tokens a foresight at most.
        max_foresight_tokens: usize => at_least(0).or(1024),
        /// Tokens a response at most; the model's context unless given.
        max_response_tokens: Option<usize> => at_least(1).optional(),
        /// Seed of everything random in this stage; the pipeline's unless given.
        seed: u64 => seed(),
        /// Parts that the queries are cut into, each rolled out by a process of its own, as many
        /// at a time as the stage has GPUs; 0 or 1: one process for all.
        shards: u32 => int(0..=65536).or(0).knob(),
        ..options: Options,
    }
}

choice! {
    /// How the next beams are taken.
    pub enum Selection {
        /// Drawn from F_k.
        Categorical = "categorical",
        /// The highest f (w/o sampling).
        Greedy = "greedy",
    }
}

choice! {
    /// The score of a candidate that has no foresight tokens.
    pub enum TerminalScore {
        /// Mean log-probability of the step itself.
        Step = "step",
        /// 0, as the released code has it.
        Zero = "zero",
    }
}

params! {
    /// Skip foresight at a step whose candidates are all sure.
    pub struct Light {
        /// Mean step log-probability above which a candidate counts as sure.
        threshold: f64 => non_positive().or(-0.25),
    }
}

impl Kind for Params {
    const NAME: &'static str = "rollout";
    /// 2: histograms in metrics.json. 3: four tokens share a block of random numbers.
    /// 4: candidates that end at once, distinct beams, white space after a step; the
    /// policy; prompts as transformers renders and tokenises them.
    const VERSION: u32 = 4;
    const INPUTS: &'static [Input] = &[Input::new("queries"), Input::new("model")];
    const OUTPUTS: &'static [&'static str] = &["rollouts", "metrics"];
    const PROGRAM: Program = Program::Worker;
    const PARTS: Option<Parts<Self>> = Some(Parts {
        input: "queries",
        shards: |params| params.shards,
    });
    const DISK_BYTES: Option<DiskBytes<Self>> = None;

    fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported> {
        self.options.resolve(target)
    }

    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}
}
