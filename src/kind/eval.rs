//! `eval`: generates answers to benchmarks and matches them.
//! Computed in `genius-worker` (`src/worker/infer`).

use serde_json::Value;
use std::path::PathBuf;

use super::declare::{choice, params};
use super::engine::Options;
use super::{DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// The benchmarks.
        benchmarks: Vec<Benchmark> => list(declared::<Benchmark>(), 1),
        /// Seed of everything random in this stage; the pipeline's unless given.
        seed: u64 => seed(),
        ..options: Options,
    }
}

params! {
    /// One benchmark.
    pub struct Benchmark {
        /// Name in the report.
        name: String => non_empty(),
        /// JSONL file of items.
        path: PathBuf => file(),
        /// What an answer is: a number, or a letter A to D.
        answer: Answer => declared::<Answer>().or(Answer::Number),
        /// Field of the question.
        question_field: String => non_empty().or("question".to_owned()),
        /// Field of the reference answer; only what follows the last `####` counts, if there is
        /// one.
        answer_field: String => non_empty().or("answer".to_owned()),
        /// Only the first items.
        limit: Option<usize> => at_least(1).optional(),
        /// System prompt.
        system: Option<String> => text().optional(),
        /// User turn; {question} is replaced.
        template: String => non_empty().or("{question}".to_owned()),
        /// Text that the response starts with.
        response_prefix: String => text().or(String::new()),
        /// Texts that end a response.
        stop: Vec<String> => list(non_empty(), 0).or(Vec::new()),
        /// Sampling temperature; 0 is greedy. The paper samples at 1.
        temperature: f64 => non_negative().or(1.0),
        /// Tokens a response at most.
        max_tokens: usize => at_least(1).or(1024),
    }
}

choice! {
    /// What an answer is.
    pub enum Answer {
        /// A number.
        Number = "number",
        /// A capital letter A-D.
        Choice = "choice",
    }
}

impl Kind for Params {
    const NAME: &'static str = "eval";
    /// 2: as rollout 3. 3: draws named by benchmark and question; answers are read
    /// whole, and as exact numbers; `unextracted` in the figures; prompts as rollout 4.
    const VERSION: u32 = 3;
    const INPUTS: &'static [Input] = &[Input::new("model")];
    const OUTPUTS: &'static [&'static str] = &["summary", "items"];
    const PROGRAM: Program = Program::Worker;
    const PARTS: Option<Parts<Self>> = None;
    const DISK_BYTES: Option<DiskBytes<Self>> = None;

    fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported> {
        self.options.resolve(target)
    }

    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}
}
