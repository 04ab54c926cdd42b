//! What an evaluation writes: [`ItemRecord`]s and a [`BenchmarkSummary`].

use serde::{Deserialize, Serialize};

use genius::artifact::Finish;

/// A line of `items/<benchmark>.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Field `id` of the item, else the first 32 hex digits of its question's BLAKE3 hash.
    pub id: String,
    /// The question.
    pub question: String,
    /// What the model saw, response prefix not included.
    pub prompt: String,
    /// What it wrote, after the response prefix.
    pub response: String,
    /// Its tokens, an end token included.
    pub response_token_ids: Vec<u32>,
    /// How it ended; null where nothing was generated.
    pub finish: Option<Finish>,
    /// The right answer, normalised.
    pub reference: String,
    /// By the strict matcher.
    pub standard: Match,
    /// By the paper's matcher.
    pub paper: Match,
    /// Why nothing was generated; such an item counts as wrong.
    pub skipped: Option<String>,
}

/// What a matcher makes of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The answer found, normalised.
    pub extracted: Option<String>,
    /// Whether it is the right one.
    pub correct: bool,
}

/// A benchmark in `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkSummary {
    /// Its name.
    pub name: String,
    /// Questions.
    pub n: usize,
    /// By the strict matcher.
    pub standard: MatchSummary,
    /// By the paper's matcher.
    pub paper: MatchSummary,
    /// Responses that a limit cut.
    pub truncated: usize,
    /// Questions that nothing could be generated for; they count as wrong.
    pub skipped: usize,
}

/// One matcher's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchSummary {
    /// Share of right answers.
    pub accuracy: f64,
    /// sqrt(p (1 - p) / (n - 1)); null of one question.
    pub standard_error: Option<f64>,
    /// Responses without an answer to be found; an item without a response is not one.
    pub unextracted: usize,
}

impl BenchmarkSummary {
    /// Sums up a benchmark's items.
    pub(super) fn new(name: &str, items: &[ItemRecord]) -> Self {
        let count = |holds: fn(&ItemRecord) -> bool| items.iter().filter(|i| holds(i)).count();
        Self {
            name: name.to_owned(),
            n: items.len(),
            standard: MatchSummary::new(items, |i| &i.standard),
            paper: MatchSummary::new(items, |i| &i.paper),
            truncated: count(|i| i.finish == Some(Finish::Limit)),
            skipped: count(|i| i.skipped.is_some()),
        }
    }
}

impl MatchSummary {
    fn new(items: &[ItemRecord], by: fn(&ItemRecord) -> &Match) -> Self {
        let (n, mut correct, mut unextracted) = (items.len(), 0usize, 0usize);
        for item in items {
            let m = by(item);
            correct += usize::from(m.correct);
            unextracted += usize::from(m.extracted.is_none() && item.skipped.is_none());
        }
        let accuracy = correct as f64 / n.max(1) as f64;
        Self {
            accuracy,
            standard_error: (n > 1)
                .then(|| (accuracy * (1.0 - accuracy) / (n as f64 - 1.0)).sqrt()),
            unextracted,
        }
    }
}
