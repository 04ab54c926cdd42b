//! Preference pairs, in TRL's conversational form, with token ids beside.

use serde::{Deserialize, Serialize};

use super::Finish;

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A line of `pairs.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairRecord {
    /// Identity of the query.
    pub query_id: String,
    /// Content hash (hex) of the model that rolled both sides out; null where that is
    /// not known. Training on the pairs of another model is refused by it.
    #[serde(default)]
    pub policy: Option<String>,
    /// From 1.
    pub step: u32,
    /// System (if any) and user turn.
    pub prompt: Vec<ChatMessage>,
    /// The assistant's turn with the highest f: response prefix and response.
    pub chosen: Vec<ChatMessage>,
    /// The other assistant's turn.
    pub rejected: Vec<ChatMessage>,
    /// A^w.
    pub chosen_advantage: f64,
    /// A^l.
    pub rejected_advantage: f64,
    /// f of the chosen response.
    pub chosen_score: f64,
    /// f of the rejected response.
    pub rejected_score: f64,
    /// Whether both grew from beams with the same tokens (then A^w >= A^l, and ACO is DPO);
    /// at step 1 all beams are empty.
    pub same_parent: bool,
    /// Token ids of the rendered prompt: context, masked.
    pub prompt_token_ids: Vec<u32>,
    /// Token ids of the response prefix: context, masked.
    pub prefix_token_ids: Vec<u32>,
    /// Token ids of the chosen response, its end token included if it ended by itself.
    pub chosen_token_ids: Vec<u32>,
    /// Token ids of the rejected response, likewise.
    pub rejected_token_ids: Vec<u32>,
    /// How the chosen response ended.
    pub chosen_finish: Finish,
    /// How the rejected response ended.
    pub rejected_finish: Finish,
}
