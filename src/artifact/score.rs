//! Scores: f, F and A of every candidate of a step, with its whole response.

use serde::{Deserialize, Serialize};

use super::Finish;

/// A line of `scores.jsonl`: one step of one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// Identity of the query.
    pub query_id: String,
    /// Text of the query.
    pub query: String,
    /// As in the rollout's record.
    #[serde(default)]
    pub policy: Option<String>,
    /// System prompt, if there was one.
    pub system: Option<String>,
    /// From 1.
    pub step: u32,
    /// Token ids of the rendered prompt.
    pub prompt_token_ids: Vec<u32>,
    /// Response prefix.
    pub prefix: String,
    /// Token ids of the response prefix.
    pub prefix_token_ids: Vec<u32>,
    /// The tau of F_k.
    pub tau: f64,
    /// As in the rollout's record.
    pub candidates: Vec<ScoredCandidate>,
}

/// A candidate with its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredCandidate {
    /// Position in the step.
    pub index: u32,
    /// Index of its parent beam: of the first one with the same tokens, so that
    /// equal numbers mean equal parents.
    pub parent: u32,
    /// Whether it has no foresight tokens (an end token is not one).
    #[serde(default)]
    pub terminal: bool,
    /// f_k; null for an empty candidate, which never becomes a side of a pair.
    pub f: Option<f64>,
    /// Q_{k-1} of the parent beam.
    pub q: f64,
    /// A = f - q (eq. 6).
    pub advantage: Option<f64>,
    /// F_k (eq. 2) at `ScoreRecord::tau`.
    pub probability: f64,
    /// Tokens of the whole response (a_<k, a_k, a'_>k), the response prefix not included.
    pub response_token_ids: Vec<u32>,
    /// Text of the whole response, the response prefix not included.
    pub response: String,
    /// How the response ended.
    pub finish: Finish,
}
