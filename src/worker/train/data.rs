//! Pairs as token sequences ([`Example`]) and the order in which an epoch sees them.

use serde::Serialize;

use genius::artifact::PairRecord;
use genius::method::random::Stream;
use genius::protocol::Failure;

/// A pair ready for training. The context (prompt and response prefix) is read
/// by the model and masked in the loss; only response tokens are scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Identity of the query.
    pub query_id: String,
    /// Step of the rollout, from 1.
    pub step: u32,
    /// Tokens of prompt and response prefix; never empty.
    pub context: Vec<i64>,
    /// Tokens of the chosen response; never empty.
    pub chosen: Vec<i64>,
    /// Tokens of the rejected response; never empty.
    pub rejected: Vec<i64>,
    /// A^w.
    pub chosen_advantage: f64,
    /// A^l.
    pub rejected_advantage: f64,
}

impl Example {
    /// Tokens of the longer of both sequences.
    pub fn longest(&self) -> usize {
        self.context.len() + self.chosen.len().max(self.rejected.len())
    }
}

/// What became of the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records read.
    pub read: usize,
    /// Examples to train on.
    pub used: usize,
    /// Pairs with a response cut at its end by `max_length` (used nevertheless).
    pub cut: usize,
    /// Pairs dropped because their prompt leaves a response no token within `max_length`.
    pub dropped_long_prompt: usize,
    /// Pairs dropped because a response is empty.
    pub dropped_empty: usize,
    /// Pairs dropped because both responses are the same tokens (after cutting).
    pub dropped_equal: usize,
}

/// Examples of `records`: at most `max_length` tokens of context and response.
///
/// # Errors
/// A token outside the vocabulary, or a pair without any context: the pairs were
/// not made with this model.
pub fn examples(
    records: &[PairRecord],
    max_length: usize,
    vocab_size: i64,
) -> Result<(Vec<Example>, Counts), Failure> {
    let mut counts = Counts {
        read: records.len(),
        ..Counts::default()
    };
    let mut examples = Vec::new();
    for record in records {
        let name = || {
            format!(
                "the pair of query {}, step {}",
                record.query_id, record.step
            )
        };
        let context: Vec<i64> = ids(&record.prompt_token_ids)
            .chain(ids(&record.prefix_token_ids))
            .collect();
        let mut chosen: Vec<i64> = ids(&record.chosen_token_ids).collect();
        let mut rejected: Vec<i64> = ids(&record.rejected_token_ids).collect();
        if let Some(token) = [&context, &chosen, &rejected]
            .into_iter()
            .flatten()
            .find(|t| **t >= vocab_size)
        {
            return Err(Failure::new(format!(
                "{} has the token {token}; the model's vocabulary has {vocab_size}",
                name()
            ))
            .hint("train the model that the pairs were rolled out with"));
        }
        if context.is_empty() {
            return Err(Failure::new(format!("{} has no prompt tokens", name()))
                .hint("pairs must hold `prompt_token_ids`"));
        }
        if chosen.is_empty() || rejected.is_empty() {
            counts.dropped_empty += 1;
            continue;
        }
        let room = max_length.saturating_sub(context.len());
        if room == 0 {
            counts.dropped_long_prompt += 1;
            continue;
        }
        let cut = chosen.len() > room || rejected.len() > room;
        chosen.truncate(room);
        rejected.truncate(room);
        if chosen == rejected {
            counts.dropped_equal += 1;
            continue;
        }
        counts.cut += usize::from(cut);
        examples.push(Example {
            query_id: record.query_id.clone(),
            step: record.step,
            context,
            chosen,
            rejected,
            chosen_advantage: record.chosen_advantage,
            rejected_advantage: record.rejected_advantage,
        });
    }
    counts.used = examples.len();
    Ok((examples, counts))
}

fn ids(tokens: &[u32]) -> impl Iterator<Item = i64> {
    tokens.iter().map(|&t| i64::from(t))
}

/// Indices of `examples` in the order of `epoch`, by the hash of (seed, epoch,
/// query, step): where a pair stands in its file changes nothing.
pub fn order(examples: &[Example], seed: u64, epoch: u64) -> Vec<usize> {
    let mut keyed: Vec<_> = examples
        .iter()
        .enumerate()
        .map(|(index, e)| {
            let words = Stream::new(
                seed,
                "train-order",
                &e.query_id,
                &[epoch, u64::from(e.step)],
            )
            .words([0; 4]);
            // The rest breaks ties, between records of one query and step too.
            ((words, &e.query_id, e.step, &e.chosen, &e.rejected), index)
        })
        .collect();
    keyed.sort();
    keyed.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use genius::artifact::{ChatMessage, Finish};

    /// A record with these token ids and nothing else of interest.
    pub(crate) fn record(
        query: &str,
        step: u32,
        prompt: &[u32],
        chosen: &[u32],
        rejected: &[u32],
    ) -> PairRecord {
        let side = |role: &str| {
            vec![ChatMessage {
                role: role.into(),
                content: String::new(),
            }]
        };
        PairRecord {
            query_id: query.into(),
            policy: None,
            step,
            prompt: side("user"),
            chosen: side("assistant"),
            rejected: side("assistant"),
            chosen_advantage: 0.1,
            rejected_advantage: 0.2,
            chosen_score: 0.0,
            rejected_score: 0.0,
            same_parent: false,
            prompt_token_ids: prompt.to_vec(),
            prefix_token_ids: vec![7],
            chosen_token_ids: chosen.to_vec(),
            rejected_token_ids: rejected.to_vec(),
            chosen_finish: Finish::EndToken,
            rejected_finish: Finish::Limit,
        }
    }

    #[test]
    fn the_prefix_is_context_and_long_responses_lose_their_end() {
        let records = [record("a", 1, &[1, 2], &[3, 4, 5], &[6])];
        let (e, counts) = examples(&records, 5, 10).unwrap();
        assert_eq!(e[0].context, [1, 2, 7]);
        assert_eq!(
            (e[0].chosen.as_slice(), e[0].rejected.as_slice()),
            ([3, 4].as_slice(), [6].as_slice())
        );
        assert_eq!(
            counts,
            Counts {
                read: 1,
                used: 1,
                cut: 1,
                ..Counts::default()
            }
        );
        assert_eq!(e[0].longest(), 5);
    }

    #[test]
    fn pairs_without_a_signal_are_dropped_and_counted() {
        let records = [
            record("long", 1, &[1, 2, 3, 4], &[5], &[6]),
            record("empty", 1, &[1], &[], &[6]),
            record("equal once cut", 1, &[1], &[5, 6, 7, 8], &[5, 6, 7, 9]),
            record("used", 1, &[1], &[5], &[6]),
        ];
        let (e, counts) = examples(&records, 5, 10).unwrap();
        assert_eq!(e.len(), 1);
        assert_eq!(
            counts,
            Counts {
                read: 4,
                used: 1,
                cut: 0,
                dropped_long_prompt: 1,
                dropped_empty: 1,
                dropped_equal: 1
            }
        );
    }

    #[test]
    fn pairs_of_another_model_are_refused() {
        let error = examples(&[record("q", 3, &[1], &[11], &[6])], 5, 10).unwrap_err();
        assert_eq!(
            error.message,
            "the pair of query q, step 3 has the token 11; the model's vocabulary has 10"
        );
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_and_not_on_the_file() {
        let records: Vec<_> = (0..40u32)
            .map(|i| record(&format!("q{}", i / 4), i % 4, &[1], &[2, i], &[3]))
            .collect();
        let (forward, _) = examples(&records, 9, 99).unwrap();
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        let names = |examples: &[Example], seed, epoch| -> Vec<_> {
            order(examples, seed, epoch)
                .into_iter()
                .map(|i| (examples[i].query_id.clone(), examples[i].step))
                .collect()
        };
        assert_eq!(names(&forward, 1, 0), names(&backward, 1, 0));
        assert_ne!(names(&forward, 1, 0), names(&forward, 1, 1));
        assert_ne!(names(&forward, 1, 0), names(&forward, 2, 0));
    }
}
