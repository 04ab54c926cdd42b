//! Queries and their rollouts: everything a later stage may decide from.

use serde::{Deserialize, Serialize};

/// A line of `queries.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// First 32 hex digits of the BLAKE3 hash of `text`: order and position change nothing.
    pub id: String,
    /// The query, as it stood in its source.
    pub text: String,
}

impl QueryRecord {
    /// The record of a query's text.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let id = blake3::hash(text.as_bytes()).to_hex()[..32].to_owned();
        Self { id, text }
    }
}

/// A line of `rollouts.jsonl`: one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Identity of the query.
    pub query_id: String,
    /// Text of the query.
    pub query: String,
    /// Content hash (hex) of the model that rolled it out, where that is known.
    #[serde(default)]
    pub policy: Option<String>,
    /// System prompt, if there was one.
    pub system: Option<String>,
    /// The prompt as the chat template renders it, generation prompt included.
    pub prompt: String,
    /// Token ids of `prompt`.
    pub prompt_token_ids: Vec<u32>,
    /// Response prefix: context of every response, not output.
    pub prefix: String,
    /// Token ids of `prefix`, which follow those of the prompt.
    pub prefix_token_ids: Vec<u32>,
    /// The tau that explored.
    pub tau: f64,
    /// In order, from step 1.
    pub steps: Vec<StepRecord>,
    /// Why the query was not rolled out at all (`steps` is then empty).
    pub skipped: Option<String>,
}

/// One step of one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// From 1.
    pub step: u32,
    /// The live beams that this step starts from.
    pub beams: Vec<BeamRecord>,
    /// Live beams x N candidates, by beam, then by rollout.
    pub candidates: Vec<CandidateRecord>,
    /// Indices into `candidates`, in the order drawn: the beams of the next step
    /// (those that ended roll out no more).
    pub selected: Vec<u32>,
    /// Whether look-ahead was skipped by `light`.
    pub light: bool,
}

/// A prefix that candidates grow from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BeamRecord {
    /// Response tokens so far (a_<k), the response prefix not included.
    pub token_ids: Vec<u32>,
    /// Q_{k-1}: the score of the candidate that it was; 0 at the first step.
    pub q: f64,
    /// Index of that candidate in the step before; null at the first step.
    pub origin: Option<u32>,
}

/// How a candidate's step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    /// A newline after some text.
    Newline,
    /// The limit of tokens a step: counted as cut.
    Limit,
    /// The response ended inside the step.
    Response,
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model's end-of-turn token, which is the last of its tokens.
    EndToken,
    /// A stop text, whose tokens stand at its end.
    StopText,
    /// Cut by a limit of tokens or of the context.
    Limit,
}

/// What a candidate adds to its beam, white space and the mark that ends the
/// response (end-of-turn token, stop text) left aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Its step has text.
    #[default]
    Text,
    /// Nothing, and the response ends there, after a beam that is not empty:
    /// "stop here", a whole response.
    Stop,
    /// Nothing: an empty response, or a step of white space that does not end it.
    Empty,
}

/// One candidate: a step, and the continuation of the response after it.
///
/// Log-probabilities are natural, of the untempered policy, one a token.
/// An end-of-turn token stands last among the tokens of the part that it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// Position in `StepRecord::candidates`.
    pub index: u32,
    /// Index of its beam in `StepRecord::beams`.
    pub parent: u32,
    /// Which of the N rollouts of that beam, from 0.
    pub rollout: u32,
    /// a_k.
    pub step_token_ids: Vec<u32>,
    /// One a token of `step_token_ids`.
    pub step_logprobs: Vec<f32>,
    /// Text of the step, rebuilt from its tokens, untrimmed.
    pub step_text: String,
    /// How the step ended.
    pub step_end: StepEnd,
    /// What the candidate adds to its beam. A hand-made file may leave it out.
    #[serde(default)]
    pub content: Content,
    /// a'_>k.
    pub foresight_token_ids: Vec<u32>,
    /// One a token of `foresight_token_ids`.
    pub foresight_logprobs: Vec<f32>,
    /// Text of the foresight, rebuilt from its tokens.
    pub foresight_text: String,
    /// Whether `foresight_*` is only a completion: no score and no beam depends on it
    /// (`foresight: false`, or a `light` step).
    pub completion: bool,
    /// How the whole response ended.
    pub finish: Finish,
    /// f_k: the score that exploration used (method 2.3); null for an empty
    /// candidate, which is never drawn.
    pub f: Option<f64>,
    /// F_k at the rollout's tau; 0 without `f`.
    pub probability: f64,
    /// Whether the response ended inside the step.
    pub ended: bool,
}
