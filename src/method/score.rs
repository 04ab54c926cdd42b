//! Scores of a step's candidates: f, F and A (paper 2.2, eq. 2, 4 and 6).
//!
//! [`candidate_score`] is the one place where f is defined; rollouts explore by
//! it and every later stage reads what it gave.

use crate::artifact::{CandidateRecord, Content, Finish};
use crate::kind::rollout::TerminalScore;

/// Mean natural log-probability of some tokens, summed in f64.
///
/// `None` where there is no token, or where the mean is not a finite number:
/// such a candidate has no score and is never drawn.
pub fn mean_logprob(logprobs: &[f32]) -> Option<f64> {
    if logprobs.is_empty() {
        return None;
    }
    let sum: f64 = logprobs.iter().map(|&p| f64::from(p)).sum();
    Some(sum / logprobs.len() as f64).filter(|mean| mean.is_finite())
}

/// f_k from the log-probabilities of a step and of its foresight, the
/// end-of-turn token in neither (method 2.3).
///
/// Without foresight tokens `terminal` decides. `None` for an empty step.
pub fn foresight_score(step: &[f32], foresight: &[f32], terminal: TerminalScore) -> Option<f64> {
    let step_mean = mean_logprob(step)?;
    if !foresight.is_empty() {
        return mean_logprob(foresight);
    }
    Some(match terminal {
        TerminalScore::Step => step_mean,
        TerminalScore::Zero => 0.0,
    })
}

/// Log-probabilities of a candidate's step, without an end-of-turn token.
pub fn counted_step(c: &CandidateRecord) -> &[f32] {
    let ends_here = c.finish == Finish::EndToken && c.foresight_logprobs.is_empty();
    without_end(&c.step_logprobs, ends_here)
}

/// Log-probabilities of a candidate's foresight, without an end-of-turn token.
pub fn counted_foresight(c: &CandidateRecord) -> &[f32] {
    without_end(&c.foresight_logprobs, c.finish == Finish::EndToken)
}

fn without_end(logprobs: &[f32], ends_here: bool) -> &[f32] {
    match logprobs.split_last() {
        Some((_, rest)) if ends_here => rest,
        _ => logprobs,
    }
}

/// What a candidate adds to its beam (every field but `content`, `f` and
/// `probability` must be final). `step_text` is the text of its step up to a stop
/// text; `after_text` whether the response has text before it.
pub fn content(c: &CandidateRecord, step_text: &str, after_text: bool) -> Content {
    let ends_here = is_terminal(c) && (c.ended || c.finish == Finish::EndToken);
    if !step_text.trim().is_empty() && !counted_step(c).is_empty() {
        Content::Text
    } else if ends_here && after_text {
        Content::Stop
    } else {
        Content::Empty
    }
}

/// Whether a candidate is an empty response, or a step of white space alone that
/// does not end the response. It has no score, is never drawn and never becomes a
/// side of a pair.
pub fn is_empty(c: &CandidateRecord) -> bool {
    match c.content {
        Content::Text => c.step_text.trim().is_empty() || counted_step(c).is_empty(),
        Content::Stop => false,
        Content::Empty => true,
    }
}

/// Whether no token follows the step, or only the end-of-turn token does:
/// where the rule for candidates without foresight applies.
pub fn is_terminal(c: &CandidateRecord) -> bool {
    counted_foresight(c).is_empty()
}

/// Mean log-probability of the step itself ("step uncertainty" of the ablation
/// without foresight); `None` where there is no text, as in a candidate that ends at once.
pub fn step_score(c: &CandidateRecord) -> Option<f64> {
    if is_empty(c) || c.content == Content::Stop {
        return None;
    }
    mean_logprob(counted_step(c))
}

/// f_k of a candidate of a beam whose value is `q`: every field but `f` and
/// `probability` must be final.
///
/// The mean log-probability of the foresight; of the step where the foresight
/// is only a completion (`foresight: false`, a `light` step); what `terminal`
/// gives if there is no foresight. `q` if the candidate ends at once: stopping here is
/// worth what the beam is. `None` for an empty one.
pub fn candidate_score(c: &CandidateRecord, q: f64, terminal: TerminalScore) -> Option<f64> {
    if c.content == Content::Stop {
        return Some(q);
    }
    let step = step_score(c)?;
    if c.completion {
        return Some(step);
    }
    foresight_score(counted_step(c), counted_foresight(c), terminal)
}

/// Whether a `light` rollout skips look-ahead at this step: every candidate
/// that has a step score has one above `threshold` (released code), and there is
/// such a candidate.
pub fn all_sure(candidates: &[CandidateRecord], threshold: f64) -> bool {
    let mut scores = candidates.iter().filter_map(step_score).peekable();
    scores.peek().is_some() && scores.all(|score| score > threshold)
}

/// F_k = softmax(f / tau) (eq. 2); 0 where there is no score, and all 0 where
/// no candidate has one. `tau` is above 0.
pub fn softmax(scores: &[Option<f64>], tau: f64) -> Vec<f64> {
    let weights: Vec<f64> = log_weights(scores, tau)
        .iter()
        .map(|w| w.map_or(0.0, f64::exp))
        .collect();
    let sum: f64 = weights.iter().sum();
    if sum == 0.0 {
        return weights;
    }
    weights.iter().map(|w| w / sum).collect()
}

/// (f - max f) / tau: ln F_k up to a constant, also where F_k itself underflows.
pub fn log_weights(scores: &[Option<f64>], tau: f64) -> Vec<Option<f64>> {
    let finite = |score: &Option<f64>| score.filter(|f| f.is_finite());
    let max = scores
        .iter()
        .filter_map(finite)
        .fold(f64::NEG_INFINITY, f64::max);
    scores
        .iter()
        .map(|score| {
            finite(score).map(|f| {
                // Not 0 / tau: it is NaN where a tiny tau has become 0.
                if f == max { 0.0 } else { (f - max) / tau }
            })
        })
        .collect()
}

/// A = f_k - Q_{k-1} of the candidate's own parent beam (eq. 6).
pub fn advantage(f: f64, q: f64) -> f64 {
    f - q
}

/// Entropy of a distribution, in nats.
pub fn entropy(probabilities: &[f64]) -> f64 {
    probabilities
        .iter()
        .filter(|&&p| p > 0.0)
        .map(|p| -p * p.ln())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::StepEnd;
    use proptest::prelude::*;

    /// Value of the candidates' beam: nothing but a stop may take it.
    const Q: f64 = -77.0;

    /// A candidate whose step and foresight have these log-probabilities.
    fn candidate(step: &[f32], foresight: &[f32], finish: Finish) -> CandidateRecord {
        CandidateRecord {
            index: 0,
            parent: 0,
            rollout: 0,
            step_token_ids: (0..step.len() as u32).collect(),
            step_logprobs: step.to_vec(),
            step_text: "So 2.\n".into(),
            step_end: StepEnd::Newline,
            content: Content::Text,
            foresight_token_ids: (0..foresight.len() as u32).collect(),
            foresight_logprobs: foresight.to_vec(),
            foresight_text: String::new(),
            completion: false,
            finish,
            f: None,
            probability: 0.0,
            ended: foresight.is_empty(),
        }
    }

    #[test]
    fn f_is_the_mean_of_the_foresight_without_the_end_token() {
        let c = candidate(&[-9.0], &[-1.0, -2.0, -50.0], Finish::EndToken);
        assert_eq!(candidate_score(&c, Q, TerminalScore::Step), Some(-1.5));
        // A limit or a stop text ends it with a token like any other.
        for finish in [Finish::Limit, Finish::StopText] {
            let c = candidate(&[-9.0], &[-1.0, -2.0, -6.0], finish);
            assert_eq!(candidate_score(&c, Q, TerminalScore::Step), Some(-3.0));
        }
    }

    #[test]
    fn without_foresight_tokens_the_step_is_scored_or_zero() {
        // The step ends the response; its end token is not counted.
        let ended = candidate(&[-1.0, -3.0, -50.0], &[], Finish::EndToken);
        // Only the end token follows: the step's own tokens all count.
        let followed = candidate(&[-1.0, -3.0], &[-50.0], Finish::EndToken);
        for c in [ended, followed] {
            assert!(is_terminal(&c));
            assert_eq!(candidate_score(&c, Q, TerminalScore::Step), Some(-2.0));
            assert_eq!(candidate_score(&c, Q, TerminalScore::Zero), Some(0.0));
        }
        // A limit that left no room for a foresight.
        let cut = candidate(&[-1.0, -3.0], &[], Finish::Limit);
        assert_eq!(candidate_score(&cut, Q, TerminalScore::Step), Some(-2.0));
    }

    #[test]
    fn an_empty_step_has_no_score() {
        let only_end = candidate(&[-0.5], &[], Finish::EndToken);
        let nothing = candidate(&[], &[], Finish::Limit);
        let mut blank = candidate(&[-0.5, -0.5], &[], Finish::EndToken);
        blank.step_text = " \n".into();
        let mut blank_with_foresight = candidate(&[-0.5], &[-1.0], Finish::Limit);
        blank_with_foresight.step_text = "\n".into();
        for c in [only_end, nothing, blank, blank_with_foresight] {
            assert!(is_empty(&c));
            for terminal in [TerminalScore::Step, TerminalScore::Zero] {
                assert_eq!(candidate_score(&c, Q, terminal), None);
            }
        }
    }

    /// A candidate whose step has that text.
    fn saying(text: &str, foresight: &[f32], finish: Finish, ended: bool) -> CandidateRecord {
        let step: &[f32] = if text.is_empty() && !ended {
            &[]
        } else {
            &[-0.5]
        };
        CandidateRecord {
            step_text: text.into(),
            ended,
            ..candidate(step, foresight, finish)
        }
    }

    #[test]
    fn ending_at_once_after_text_is_a_whole_response() {
        use Finish::{EndToken, Limit, StopText};
        // The text before a stop text, and what follows the step.
        for (c, step_text) in [
            (saying("", &[], EndToken, true), ""),
            (saying("\n", &[], EndToken, true), "\n"),
            (saying(" \n\t\n", &[], EndToken, true), " \n\t\n"),
            (saying("<end>", &[], StopText, true), ""),
            (saying("\n<end>\n", &[], StopText, true), "\n"),
            // The response's limit leaves nothing after the white space.
            (saying("\n", &[], Limit, true), "\n"),
            // White space up to the step's limit, and only the end token after it.
            (saying("\n", &[-0.1], EndToken, false), "\n"),
        ] {
            let words = format!("{:?} {:?}", c.step_text, c.finish);
            assert_eq!(content(&c, step_text, true), Content::Stop, "{words}");
            // After nothing it is an empty response.
            assert_eq!(content(&c, step_text, false), Content::Empty, "{words}");
        }
    }

    #[test]
    fn white_space_that_ends_no_response_is_empty() {
        use Finish::{EndToken, Limit, StopText};
        for c in [
            saying("\n", &[-1.0], Limit, false),
            saying("\n", &[-1.0, -0.1], EndToken, false),
            saying("\n", &[-1.0], StopText, false),
            // No token of foresight was asked for: the beam could go on.
            saying("\n", &[], Limit, false),
        ] {
            for after_text in [false, true] {
                assert_eq!(content(&c, "\n", after_text), Content::Empty, "{c:?}");
            }
        }
        let text = saying("So.", &[], EndToken, true);
        let mut text = CandidateRecord {
            step_logprobs: vec![-0.5, -50.0],
            ..text
        };
        for finish in [EndToken, Limit, StopText] {
            text.finish = finish;
            assert_eq!(content(&text, "So.", true), Content::Text);
            assert_eq!(content(&text, "So.", false), Content::Text);
        }
    }

    #[test]
    fn a_stop_is_worth_what_its_beam_is() {
        let mut c = saying("", &[], Finish::EndToken, true);
        c.content = Content::Stop;
        assert!(!is_empty(&c) && is_terminal(&c));
        for completion in [false, true] {
            c.completion = completion;
            for terminal in [TerminalScore::Step, TerminalScore::Zero] {
                let f = candidate_score(&c, -0.75, terminal);
                assert_eq!(f, Some(-0.75));
                assert_eq!(f.map(|f| advantage(f, -0.75)), Some(0.0));
            }
        }
        // It is neither sure nor unsure.
        assert_eq!(step_score(&c), None);
        let sure = candidate(&[-0.1], &[-9.0], Finish::Limit);
        assert!(all_sure(&[sure, c.clone()], -0.25));
        assert!(!all_sure(&[c], -0.25));
    }

    #[test]
    fn a_completion_scores_the_step_whatever_follows() {
        let mut c = candidate(&[-1.0, -2.0], &[-7.0, -8.0], Finish::EndToken);
        c.completion = true;
        assert_eq!(candidate_score(&c, Q, TerminalScore::Step), Some(-1.5));
        assert_eq!(candidate_score(&c, Q, TerminalScore::Zero), Some(-1.5));
        // Also where nothing follows: `zero` is for foresight only.
        let mut c = candidate(&[-1.0, -2.0, -9.0], &[], Finish::EndToken);
        c.completion = true;
        assert_eq!(candidate_score(&c, Q, TerminalScore::Zero), Some(-1.5));
    }

    #[test]
    fn numbers_that_are_none_make_no_score() {
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let c = candidate(&[-1.0], &[-1.0, bad], Finish::Limit);
            assert_eq!(candidate_score(&c, Q, TerminalScore::Step), None);
        }
    }

    #[test]
    fn light_wants_every_candidate_sure() {
        let sure = candidate(&[-0.1, -0.2], &[-9.0], Finish::Limit);
        let unsure = candidate(&[-0.1, -0.9], &[-9.0], Finish::Limit);
        let empty = candidate(&[-3.0], &[], Finish::EndToken);
        assert!(all_sure(&[sure.clone(), empty.clone()], -0.25));
        assert!(!all_sure(&[sure.clone(), unsure], -0.25));
        assert!(!all_sure(&[empty], -0.25));
        let at_it = candidate(&[-0.25], &[-9.0], Finish::Limit);
        assert!(!all_sure(&[sure, at_it], -0.25));
    }

    /// By hand: weights e^0, e^-1, e^-2 over 1 + 0.36788 + 0.13534.
    #[test]
    fn softmax_of_a_small_example() {
        let p = softmax(&[Some(-0.1), None, Some(-0.2), Some(-0.3)], 0.1);
        for (got, want) in p
            .iter()
            .zip([0.665_240_96, 0.0, 0.244_728_47, 0.090_030_57])
        {
            assert!((got - want).abs() < 1e-8, "{p:?}");
        }
    }

    #[test]
    fn softmax_without_scores_is_all_zero() {
        assert_eq!(softmax(&[None, None], 0.1), [0.0, 0.0]);
        assert!(softmax(&[], 0.1).is_empty());
    }

    #[test]
    fn advantage_is_against_the_parent() {
        assert_eq!(advantage(-0.25, -0.75), 0.5);
        assert_eq!(advantage(-0.25, 0.0), -0.25);
    }

    #[test]
    fn entropy_of_even_chances() {
        assert!((entropy(&[0.25; 4]) - 4f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&[1.0, 0.0]), 0.0);
    }

    proptest! {
        #[test]
        fn softmax_is_a_distribution_in_the_order_of_f(
            scores in prop::collection::vec(prop::option::weighted(0.8, -1e4f64..0.0), 1..12),
            tau in 1e-6f64..1e6,
        ) {
            let p = softmax(&scores, tau);
            prop_assert_eq!(p.len(), scores.len());
            let sum: f64 = p.iter().sum();
            if scores.iter().any(Option::is_some) {
                prop_assert!((sum - 1.0).abs() < 1e-12);
            } else {
                prop_assert_eq!(sum, 0.0);
            }
            for (i, a) in scores.iter().enumerate() {
                prop_assert!((0.0..=1.0).contains(&p[i]));
                prop_assert!(a.is_some() || p[i] == 0.0);
                for (j, b) in scores.iter().enumerate() {
                    if let (Some(a), Some(b)) = (a, b) && a < b {
                        prop_assert!(p[i] <= p[j]);
                    }
                }
            }
        }

        #[test]
        fn softmax_does_not_see_a_shift(
            scores in prop::collection::vec(-10.0f64..0.0, 1..12),
            shift in -5.0f64..5.0,
        ) {
            let a: Vec<_> = scores.iter().map(|&f| Some(f)).collect();
            let b: Vec<_> = scores.iter().map(|&f| Some(f + shift)).collect();
            for (a, b) in softmax(&a, 0.5).iter().zip(softmax(&b, 0.5)) {
                prop_assert!((a - b).abs() < 1e-9);
            }
        }
    }
}
