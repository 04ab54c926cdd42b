//! One generation in the making: [`Recorder`] draws a token from each row of
//! logits, records it with its log-probability, and knows when to end. The same
//! for every engine, so that they differ in their logits only.

use std::sync::Arc;

use super::engine::{EngineError, Generation, Request, Sampling};
use super::sampler::{self, DrawError, Drawn};
use super::token_bytes::TokenBytes;
use super::tracker::{Pushed, Tracker};
use genius::method::random::Stream;

/// Added to the position of a token that is drawn anew: no sequence is so long.
const ANEW: u64 = 1 << 48;

/// What a sequence has drawn, and what decides on the next token.
#[derive(Debug)]
pub struct Recorder {
    tracker: Tracker,
    sampling: Sampling,
    stream: Stream,
    vocab: usize,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    broken: Option<String>,
}

impl Recorder {
    /// The state of a new request to a model whose context has `context_len` tokens.
    ///
    /// # Errors
    /// [`EngineError::Request`] when its context is empty, too long, or has a
    /// token outside the vocabulary.
    pub fn new(
        request: &Request,
        context_len: usize,
        table: &Arc<TokenBytes>,
    ) -> Result<Self, EngineError> {
        let room = check_tokens("prompt", &request.context, context_len, table)?;
        let before = request.context.get(request.response_start..).unwrap_or(&[]);
        Ok(Self {
            tracker: Tracker::new(request.limits.clone(), room, before, Arc::clone(table)),
            sampling: request.sampling.clone(),
            stream: request.stream,
            vocab: table.len(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            broken: None,
        })
    }

    /// Draws and records the next token from raw logits; nothing when no
    /// further token is wanted (an end token has been recorded then).
    pub fn next(&mut self, logits: &[f32]) -> Option<u32> {
        if self.is_finished() {
            return None;
        }
        match self.draw(logits) {
            Ok(drawn) => {
                if self.tracker.push(drawn.token) == Pushed::Kept {
                    self.tokens.push(drawn.token);
                    self.logprobs.push(drawn.logprob);
                }
                self.tracker.end().is_none().then_some(drawn.token)
            }
            Err(e) => {
                self.broken = Some(e.to_string());
                None
            }
        }
    }

    /// Draws the token at the next position.
    ///
    /// After a step's newline the step's temperature decides whether its white
    /// space goes on. If not, the foresight has begun: with a temperature of its
    /// own its first token is drawn anew, with noise of its own, on condition that
    /// it is not white space, which would belong to the step.
    fn draw(&self, logits: &[f32]) -> Result<Drawn, DrawError> {
        let temperature = if self.tracker.at_step_temperature() {
            self.sampling.step_temperature
        } else {
            self.sampling.temperature
        };
        let position = self.tracker.len() as u64;
        let (sampling, stream) = (&self.sampling, &self.stream);
        let drawn = sampler::draw(logits, self.vocab, temperature, sampling, stream, position)?;
        if temperature == sampling.temperature || !self.tracker.leaves_step(drawn.token) {
            return Ok(drawn);
        }
        let after_step = |id: usize| u32::try_from(id).is_ok_and(|id| self.tracker.leaves_step(id));
        let anew = sampler::draw_among(
            logits,
            self.vocab,
            after_step,
            sampling.temperature,
            sampling,
            stream,
            position | ANEW,
        )?;
        Ok(anew.unwrap_or(drawn))
    }

    /// Tokens recorded so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether no further token is wanted.
    pub fn is_finished(&self) -> bool {
        self.broken.is_some() || self.tracker.end().is_some()
    }

    /// The result, leaving this one without tokens; nothing while it goes on.
    pub fn take(&mut self) -> Option<Result<Generation, EngineError>> {
        if let Some(reason) = self.broken.clone() {
            return Some(Err(EngineError::Request(reason)));
        }
        self.tracker.end().map(|end| {
            Ok(Generation {
                tokens: std::mem::take(&mut self.tokens),
                logprobs: std::mem::take(&mut self.logprobs),
                step_len: self.tracker.step_len(),
                step_boundary: self.tracker.boundary(),
                end,
            })
        })
    }
}

/// How many tokens a context of `room` has left after `tokens`, which the messages call `what`.
///
/// # Errors
/// [`EngineError::Request`] when there are none of them, too many, or one is outside the vocabulary.
pub fn check_tokens(
    what: &str,
    tokens: &[u32],
    room: usize,
    table: &TokenBytes,
) -> Result<usize, EngineError> {
    let outside = |&&id: &&u32| id as usize >= table.len();
    let reason = match (room.checked_sub(tokens.len()), tokens.iter().find(outside)) {
        (None, _) => format!(
            "the {what} has {} tokens, the model's context only {room}",
            tokens.len()
        ),
        _ if tokens.is_empty() => format!("the {what} has no tokens"),
        (_, Some(id)) => format!(
            "the {what} has token {id}, outside the vocabulary of {} tokens",
            table.len()
        ),
        (Some(left), None) => return Ok(left),
    };
    Err(EngineError::Request(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::engine::Limits;

    fn recorder(table: &Arc<TokenBytes>) -> Recorder {
        let request = Request {
            context: vec![0],
            response_start: 1,
            stream: Stream::new(1, "recorder test", "", &[]),
            sampling: Sampling {
                step_temperature: 0.0,
                temperature: 0.0,
                top_k: None,
                top_p: 1.0,
                min_p: 0.0,
            },
            limits: Limits {
                step: true,
                max_step_tokens: 9,
                max_after_tokens: 0,
                max_tokens: 9,
                stop: vec![],
            },
        };
        Recorder::new(&request, 100, table).unwrap()
    }

    /// Id 0 is "a", 1 a newline, 2 the end token.
    fn table() -> Arc<TokenBytes> {
        Arc::new(TokenBytes::from_words(&[b"a", b"\n", b"<end>"], vec![2]))
    }

    #[test]
    fn what_is_recorded_is_what_was_kept() {
        let mut r = recorder(&table());
        assert_eq!(r.next(&[1.0, 0.0, 0.0]), Some(0));
        assert_eq!(r.next(&[0.0, 1.0, 0.0]), Some(1));
        assert!(r.take().is_none());
        // "a" again is after the step: drawn, and not recorded.
        assert_eq!(r.next(&[1.0, 0.0, 0.0]), None);
        assert_eq!(r.next(&[1.0, 0.0, 0.0]), None);
        let g = r.take().unwrap().unwrap();
        assert_eq!((g.tokens, g.logprobs.len(), g.step_len), (vec![0, 1], 2, 2));
    }

    /// Id 0 is "a", 1 a newline, 2 the end token, 3 "b".
    fn wider() -> Arc<TokenBytes> {
        Arc::new(TokenBytes::from_words(
            &[b"a", b"\n", b"<end>", b"b"],
            vec![2],
        ))
    }

    /// A generation of "a", a newline, and what `logits` draw after it: its third token
    /// for each of `n` streams.
    fn after_the_newline(logits: &[f32], step: f64, after: f64, n: u64) -> Vec<u32> {
        let table = wider();
        let third = |i: u64| {
            let mut r = recorder(&table);
            r.tracker = Tracker::new(
                Limits {
                    step: true,
                    max_step_tokens: 9,
                    max_after_tokens: 9,
                    max_tokens: 9,
                    stop: vec![],
                },
                9,
                &[],
                Arc::clone(&table),
            );
            r.next(&[1.0, 0.0, 0.0, 0.0]);
            r.next(&[0.0, 1.0, 0.0, 0.0]);
            r.stream = Stream::new(1, "recorder test", "", &[i]);
            r.sampling.step_temperature = step;
            r.sampling.temperature = after;
            r.next(logits);
            r.tokens[2]
        };
        (0..n).map(third).collect()
    }

    /// The newline goes on with the chance that the step's temperature gives it; the
    /// rest is shared out as the foresight's does.
    #[test]
    fn the_step_s_temperature_decides_whether_its_white_space_goes_on() {
        const N: u64 = 20_000;
        let logits = [0.0, 0.5, -0.5, 1.0_f32];
        let weights = |t: f64| logits.map(|l| (f64::from(l) / t).exp());
        for (step, after) in [(0.5, 2.0), (2.0, 0.5), (0.7, 0.7)] {
            let (s, a) = (weights(step), weights(after));
            let newline = s[1] / s.iter().sum::<f64>();
            let others = a[0] + a[2] + a[3];
            let want = [0, 1, 2, 3].map(|id| match id {
                1 => newline,
                id => (1.0 - newline) * a[id] / others,
            });
            let mut got = [0.0; 4];
            for token in after_the_newline(&logits, step, after, N) {
                got[token as usize] += 1.0 / N as f64;
            }
            for (g, w) in got.iter().zip(want) {
                let bound = 5.0 * (w * (1.0 - w) / N as f64).sqrt();
                assert!(
                    (g - w).abs() < bound,
                    "{step}, {after}: {got:?}, not {want:?}"
                );
            }
        }
    }

    #[test]
    fn greedy_steps_keep_their_white_space() {
        // The newline is the likeliest: the step goes on, whatever the foresight would draw.
        assert_eq!(
            after_the_newline(&[0.0, 3.0, 0.0, 2.0], 0.0, 50.0, 20),
            [1; 20]
        );
        // It is not: the foresight begins, and never with white space.
        let drawn = after_the_newline(&[0.0, 3.0, 0.0, 3.5], 0.0, 50.0, 200);
        assert!(!drawn.contains(&1) && drawn.contains(&0) && drawn.contains(&2));
        assert_eq!(
            after_the_newline(&[0.0, 3.0, 0.0, 3.5], 0.0, 0.0, 20),
            [3; 20]
        );
    }

    #[test]
    fn broken_logits_are_an_error_of_the_request() {
        let mut r = recorder(&table());
        assert_eq!(r.next(&[f32::NAN; 3]), None);
        let e = r.take().unwrap().unwrap_err();
        assert!(
            matches!(&e, EngineError::Request(words) if words.contains("NaN")),
            "{e}"
        );
    }
}
