//! One generation in the making: [`Recorder`] draws a token from each row of
//! logits, records it with its log-probability, and knows when to end. The same
//! for every engine, so that they differ in their logits only.

use std::sync::Arc;

use super::engine::{EngineError, Generation, Request, Sampling};
use super::sampler;
use super::token_bytes::TokenBytes;
use super::tracker::{Pushed, Tracker};
use genius::method::random::Stream;

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
        let Some(room) = context_len.checked_sub(request.context.len()) else {
            return Err(EngineError::Request(format!(
                "the prompt has {} tokens, the model's context only {context_len}",
                request.context.len(),
            )));
        };
        if request.context.is_empty() {
            return Err(EngineError::Request("the prompt has no tokens".into()));
        }
        let outside = |&&id: &&u32| id as usize >= table.len();
        if let Some(id) = request.context.iter().find(outside) {
            return Err(EngineError::Request(format!(
                "the prompt has token {id}, outside the vocabulary of {} tokens",
                table.len()
            )));
        }
        Ok(Self {
            tracker: Tracker::new(request.limits.clone(), room, Arc::clone(table)),
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
        let temperature = if self.tracker.at_step_temperature() {
            self.sampling.step_temperature
        } else {
            self.sampling.temperature
        };
        let position = self.tracker.len() as u64;
        let drawn = sampler::draw(
            logits,
            self.vocab,
            temperature,
            &self.sampling,
            &self.stream,
            position,
        );
        match drawn {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::engine::Limits;

    fn recorder(table: &Arc<TokenBytes>) -> Recorder {
        let request = Request {
            context: vec![0],
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
        Arc::new(TokenBytes::of(&[b"a", b"\n", b"<end>"], vec![2]))
    }

    #[test]
    fn what_is_recorded_is_what_was_kept() {
        let mut r = recorder(&table());
        assert_eq!(r.next(&[1.0, 0.0, 0.0]), Some(0));
        assert_eq!(r.next(&[0.0, 1.0, 0.0]), Some(1));
        assert!(r.take().is_none());
        // "a" again is behind the step: drawn, and not recorded.
        assert_eq!(r.next(&[1.0, 0.0, 0.0]), None);
        assert_eq!(r.next(&[1.0, 0.0, 0.0]), None);
        let g = r.take().unwrap().unwrap();
        assert_eq!((g.tokens, g.logprobs.len(), g.step_len), (vec![0, 1], 2, 2));
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
