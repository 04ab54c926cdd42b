//! Draws from F_k: the beams of the next step ([`select_beams`]) and the
//! rejected side of a pair ([`draw_rejected`]).
//!
//! A draw adds a Gumbel number to ln F of every candidate and takes the
//! largest (Gumbel-max; the M largest are a draw without replacement). Unlike
//! a walk along the cumulated F it needs no renormalisation when candidates
//! are removed, holds where F underflows to 0, and gives every candidate a
//! number of its own, so that rounding in one F moves no border of another:
//! a draw changes only where the two largest sums are within the rounding.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::beam::grown;
use super::random::Stream;
use super::score::log_weights;
use crate::artifact::{BeamRecord, CandidateRecord, ScoredCandidate};
use crate::kind::pairs::Negative;
use crate::kind::rollout::Selection;

/// The stream of [`select_beams`] at a step of a query.
pub fn beam_stream(seed: u64, query_id: &str, step: u32) -> Stream {
    Stream::new(seed, "beams", query_id, &[u64::from(step)])
}

/// The stream of [`draw_rejected`] at a step of a query.
pub fn pair_stream(seed: u64, query_id: &str, step: u32) -> Stream {
    Stream::new(seed, "pairs", query_id, &[u64::from(step)])
}

/// Indices of those candidates that have a score, in the order of a draw
/// without replacement from softmax(f / tau). `position` sets the draws of one
/// stream apart.
pub fn draw_order(scores: &[Option<f64>], tau: f64, stream: &Stream, position: u64) -> Vec<usize> {
    let keys: Vec<Option<f64>> = log_weights(scores, tau)
        .iter()
        .enumerate()
        .map(|(i, w)| w.map(|w| w + stream.gumbel(position, i as u64)))
        .collect();
    // Where weights are so far below the largest that they are -inf, f decides.
    descending(scores, |a, b| {
        compare(keys[b], keys[a]).then_with(|| compare(scores[b], scores[a]))
    })
}

/// Indices of those that have a score, highest first, ties by index.
pub fn greedy_order(scores: &[Option<f64>]) -> Vec<usize> {
    descending(scores, |a, b| compare(scores[b], scores[a]))
}

fn descending(scores: &[Option<f64>], order: impl Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len())
        .filter(|&i| scores[i].is_some_and(f64::is_finite))
        .collect();
    // Stable: what compares equal stays in the order of its index.
    indices.sort_by(|&a, &b| order(a, b));
    indices
}

fn compare(a: Option<f64>, b: Option<f64>) -> Ordering {
    let value = |x: Option<f64>| x.unwrap_or(f64::NEG_INFINITY);
    value(a).total_cmp(&value(b))
}

/// The at most `m` candidates of `beams` that become the beams of the next step,
/// in the order drawn (paper 2.2, exploration). Candidates need their `f`.
///
/// Beams are distinct: drawing a candidate removes the others whose beam would
/// have the same tokens, whichever the parent; so there are fewer than `m` where
/// there are fewer distinct ones. With `replacement`, draws are independent
/// and one candidate may come more than once (greedy selection draws nothing,
/// and is distinct always). A candidate without a score is never drawn; one
/// that has ended may be.
pub fn select_beams(
    candidates: &[CandidateRecord],
    beams: &[BeamRecord],
    m: usize,
    tau: f64,
    selection: Selection,
    replacement: bool,
    stream: &Stream,
) -> Vec<u32> {
    let scores: Vec<Option<f64>> = candidates.iter().map(|c| c.f).collect();
    let order = match selection {
        Selection::Greedy => greedy_order(&scores),
        Selection::Categorical if replacement => {
            return (0..m as u64)
                .filter_map(|draw| draw_order(&scores, tau, stream, draw).first().copied())
                .map(|i| i as u32)
                .collect();
        }
        Selection::Categorical => draw_order(&scores, tau, stream, 0),
    };
    let mut seen = HashSet::new();
    order
        .into_iter()
        .filter(|&i| seen.insert(grown(beams, &candidates[i])))
        .take(m)
        .map(|i| i as u32)
        .collect()
}

/// Position of the candidate that becomes the rejected side against `chosen`
/// (eq. 5), among the `eligible` ones whose whole response differs from the
/// chosen one's; `None` where there is none.
pub fn draw_rejected(
    candidates: &[ScoredCandidate],
    eligible: &[bool],
    chosen: usize,
    negative: Negative,
    tau: f64,
    stream: &Stream,
) -> Option<usize> {
    let scores: Vec<Option<f64>> = candidates
        .iter()
        .zip(eligible)
        .map(|(c, &eligible)| {
            let other = c.response_token_ids != candidates[chosen].response_token_ids;
            c.f.filter(|_| eligible && other)
        })
        .collect();
    match negative {
        Negative::Categorical => draw_order(&scores, tau, stream, 0).first().copied(),
        Negative::Uniform => {
            let even: Vec<Option<f64>> = scores.iter().map(|f| f.map(|_| 0.0)).collect();
            draw_order(&even, 1.0, stream, 0).first().copied()
        }
        Negative::Lowest => {
            let negated: Vec<Option<f64>> = scores.iter().map(|f| f.map(|f| -f)).collect();
            greedy_order(&negated).first().copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Content, Finish, StepEnd};
    use crate::method::score::softmax;

    /// Candidates of (parent, step token, f).
    fn candidates(of: &[(u32, u32, Option<f64>)]) -> Vec<CandidateRecord> {
        of.iter()
            .enumerate()
            .map(|(index, &(parent, token, f))| CandidateRecord {
                index: index as u32,
                parent,
                rollout: 0,
                step_token_ids: vec![token],
                step_logprobs: vec![-1.0],
                step_text: "a\n".into(),
                step_end: StepEnd::Newline,
                content: Content::Text,
                foresight_token_ids: vec![],
                foresight_logprobs: vec![],
                foresight_text: String::new(),
                completion: false,
                finish: Finish::Limit,
                f,
                probability: 0.0,
                ended: false,
            })
            .collect()
    }

    /// Scored candidates of (response token, f).
    fn scored(of: &[(u32, Option<f64>)]) -> Vec<ScoredCandidate> {
        of.iter()
            .enumerate()
            .map(|(index, &(token, f))| ScoredCandidate {
                index: index as u32,
                parent: 0,
                terminal: false,
                f,
                q: 0.0,
                advantage: f,
                probability: 0.0,
                response_token_ids: vec![token],
                response: String::new(),
                finish: Finish::EndToken,
            })
            .collect()
    }

    /// Asserts that counts over `n` draws are within five standard deviations of `expected`.
    fn assert_frequencies(counts: &[usize], n: usize, expected: &[f64]) {
        for (i, (&count, &p)) in counts.iter().zip(expected).enumerate() {
            let bound = 5.0 * (n as f64 * p * (1.0 - p)).sqrt();
            let off = (count as f64 - n as f64 * p).abs();
            assert!(
                off <= bound,
                "{i}: {count} of {n}, expected {p}; {counts:?}"
            );
        }
    }

    const N: usize = 20_000;

    fn draws(mut of: impl FnMut(&Stream) -> Option<usize>, len: usize) -> Vec<usize> {
        let mut counts = vec![0; len];
        for i in 0..N as u64 {
            if let Some(drawn) = of(&Stream::new(7, "test", "", &[i])) {
                counts[drawn] += 1;
            }
        }
        counts
    }

    #[test]
    fn the_first_draw_follows_the_softmax() {
        let scores = [Some(-1.0), Some(-1.1), None, Some(-1.3), Some(-0.9)];
        let counts = draws(|s| draw_order(&scores, 0.1, s, 0).first().copied(), 5);
        assert_frequencies(&counts, N, &softmax(&scores, 0.1));
    }

    #[test]
    fn two_draws_without_replacement_follow_the_renormalised_chances() {
        let scores = [Some(0.5f64.ln()), Some(0.3f64.ln()), Some(0.2f64.ln())];
        let counts = draws(
            |s| match draw_order(&scores, 1.0, s, 0)[..2] {
                [0, 1] => Some(0),
                [1, 0] => Some(1),
                [2, 0] => Some(2),
                _ => None,
            },
            3,
        );
        let expected = [0.5 * 0.3 / 0.5, 0.3 * 0.5 / 0.7, 0.2 * 0.5 / 0.8];
        assert_frequencies(&counts, N, &expected);
    }

    /// Two beams of different tokens.
    fn two_beams() -> Vec<BeamRecord> {
        [vec![1], vec![2, 3]]
            .map(|token_ids| BeamRecord {
                token_ids,
                q: 0.0,
                origin: None,
            })
            .into()
    }

    /// Where beams differ, so may what they grow into not: 1 + 2 3 4 and 1 2 + 3 4
    /// are one beam, and so are all that the empty beams of step 1 give.
    #[test]
    fn beams_are_distinct_whichever_the_parent() {
        let beam = |token_ids: &[u32]| BeamRecord {
            token_ids: token_ids.to_vec(),
            q: 0.0,
            origin: None,
        };
        let stream = beam_stream(1, "q", 1);
        for beams in [
            [beam(&[1]), beam(&[1, 2]), beam(&[1, 2, 3])],
            [beam(&[]), beam(&[]), beam(&[])],
        ] {
            let whole = if beams[0].token_ids.is_empty() {
                vec![9, 9]
            } else {
                vec![1, 2, 3, 4]
            };
            let mut c = candidates(&[(0, 0, Some(-0.3)), (1, 0, Some(-0.1)), (2, 0, Some(-0.2))]);
            for c in &mut c {
                c.step_token_ids = whole[beams[c.parent as usize].token_ids.len()..].to_vec();
            }
            for selection in [Selection::Categorical, Selection::Greedy] {
                let drawn = select_beams(&c, &beams, 3, 0.1, selection, false, &stream);
                assert_eq!(drawn.len(), 1, "{selection:?}");
            }
            let best = select_beams(&c, &beams, 3, 0.1, Selection::Greedy, false, &stream);
            assert_eq!(best, [1]);
        }
    }

    #[test]
    fn a_drawn_beam_removes_its_copies() {
        // 0 and 1 are the same step of the same parent; 2 is that step of another parent.
        let c = candidates(&[
            (0, 5, Some(0.4f64.ln())),
            (0, 5, Some(0.4f64.ln())),
            (1, 5, Some(0.15f64.ln())),
            (1, 6, Some(0.05f64.ln())),
        ]);
        let counts = draws(
            |s| {
                let beams =
                    select_beams(&c, &two_beams(), 2, 1.0, Selection::Categorical, false, s);
                assert_eq!(beams.len(), 2);
                assert!(!(beams.contains(&0) && beams.contains(&1)));
                // Which comes second when one of the copies came first.
                (beams[0] < 2).then(|| beams[1] as usize)
            },
            4,
        );
        // The copies hold 0.8; 2 and 3 follow, 3 to 1.
        assert_frequencies(&counts, N, &[0.0, 0.0, 0.6, 0.2]);
    }

    #[test]
    fn fewer_distinct_candidates_than_beams_are_all_taken() {
        let c = candidates(&[(0, 5, Some(-1.0)), (0, 5, Some(-1.0)), (0, 6, None)]);
        let stream = beam_stream(1, "q", 1);
        for selection in [Selection::Categorical, Selection::Greedy] {
            let drawn = select_beams(&c, &two_beams(), 3, 0.1, selection, false, &stream);
            assert_eq!(drawn.len(), 1);
        }
        let none = candidates(&[(0, 5, None)]);
        for replacement in [false, true] {
            let categorical = Selection::Categorical;
            let beams = select_beams(
                &none,
                &two_beams(),
                2,
                0.1,
                categorical,
                replacement,
                &stream,
            );
            assert!(beams.is_empty());
        }
    }

    #[test]
    fn where_probabilities_underflow_the_next_highest_f_is_drawn() {
        let c = candidates(&[
            (0, 1, Some(-900.0)),
            (0, 2, Some(-0.1)),
            (0, 3, Some(-500.0)),
        ]);
        for tau in [1e-3, 1e-310] {
            let f: Vec<_> = c.iter().map(|c| c.f).collect();
            assert_eq!(softmax(&f, tau), [0.0, 1.0, 0.0]);
            let stream = beam_stream(1, "q", 1);
            let categorical = Selection::Categorical;
            let beams = select_beams(&c, &two_beams(), 3, tau, categorical, false, &stream);
            assert_eq!(beams, [1, 2, 0]);
        }
    }

    #[test]
    fn greedy_takes_the_highest_distinct_ones_ties_by_index() {
        let c = candidates(&[
            (0, 1, Some(-2.0)),
            (0, 2, Some(-1.0)),
            (0, 2, Some(-0.5)),
            (1, 2, Some(-1.0)),
            (1, 3, Some(-1.0)),
        ]);
        let stream = beam_stream(1, "q", 1);
        for replacement in [false, true] {
            let greedy = Selection::Greedy;
            let beams = select_beams(&c, &two_beams(), 3, 0.1, greedy, replacement, &stream);
            assert_eq!(beams, [2, 3, 4]);
        }
    }

    #[test]
    fn with_replacement_a_candidate_may_come_twice() {
        let c = candidates(&[(0, 1, Some(0.7f64.ln())), (0, 2, Some(0.3f64.ln()))]);
        let counts = draws(
            |s| match select_beams(&c, &two_beams(), 2, 1.0, Selection::Categorical, true, s)[..] {
                [0, 0] => Some(0),
                [1, 1] => Some(1),
                _ => None,
            },
            2,
        );
        assert_frequencies(&counts, N, &[0.49, 0.09]);
    }

    #[test]
    fn the_rejected_side_follows_f_without_the_chosen_response() {
        // 0 is chosen; 1 is the same response; 4 is not eligible.
        let c = scored(&[
            (1, Some(0.5f64.ln())),
            (1, Some(0.2f64.ln())),
            (2, Some(0.2f64.ln())),
            (3, Some(0.1f64.ln())),
            (4, Some(0.3f64.ln())),
            (5, None),
        ]);
        let eligible = [true, true, true, true, false, true];
        let draw = |negative| {
            draws(
                |s| draw_rejected(&c, &eligible, 0, negative, 1.0, s),
                c.len(),
            )
        };
        let third = 1.0 / 3.0;
        assert_frequencies(
            &draw(Negative::Categorical),
            N,
            &[0.0, 0.0, 2.0 * third, third, 0.0, 0.0],
        );
        assert_frequencies(&draw(Negative::Uniform), N, &[0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
        assert_eq!(draw(Negative::Lowest), [0, 0, 0, N, 0, 0]);
    }

    #[test]
    fn the_lowest_of_equals_is_the_first() {
        let c = scored(&[(1, Some(-1.0)), (2, Some(-2.0)), (3, Some(-2.0))]);
        let stream = pair_stream(1, "q", 1);
        let drawn = draw_rejected(&c, &[true; 3], 0, Negative::Lowest, 0.1, &stream);
        assert_eq!(drawn, Some(1));
    }

    #[test]
    fn without_another_response_there_is_no_rejected_side() {
        let c = scored(&[(1, Some(-1.0)), (1, Some(-2.0)), (2, None)]);
        let stream = pair_stream(1, "q", 1);
        for negative in [Negative::Categorical, Negative::Uniform, Negative::Lowest] {
            assert_eq!(
                draw_rejected(&c, &[true; 3], 0, negative, 0.1, &stream),
                None
            );
        }
    }

    #[test]
    fn a_draw_is_a_function_of_seed_query_and_step() {
        let scores = vec![Some(-1.0); 64];
        let order = |stream: Stream| draw_order(&scores, 0.1, &stream, 0);
        let base = order(beam_stream(1, "q", 1));
        assert_eq!(base, order(beam_stream(1, "q", 1)));
        for other in [
            beam_stream(2, "q", 1),
            beam_stream(1, "r", 1),
            beam_stream(1, "q", 2),
            pair_stream(1, "q", 1),
        ] {
            assert_ne!(base, order(other));
        }
    }
}
