//! What a sequence does with the logits of its positions: [`Task`]. A
//! [`Recorder`] draws the next token from them, a [`Scorer`] looks a given one up.

use std::sync::Arc;

use super::super::engine::{EngineError, Generation, LikelihoodRequest, Request, TokenLikelihood};
use super::super::recorder::{Recorder, check_tokens};
use super::super::sampler;
use super::super::token_bytes::TokenBytes;

/// One request's use of logits.
pub trait Task: Sized + Send {
    /// What it is asked.
    type Request;
    /// What it answers.
    type Answer;

    /// The task; the tokens to run; and the first position whose logits it needs. From
    /// there on it needs those of every position.
    ///
    /// # Errors
    /// [`EngineError::Request`] when the request cannot be served.
    fn begin(
        request: Self::Request,
        context_len: usize,
        table: &Arc<TokenBytes>,
    ) -> Result<(Self, Vec<u32>, usize), EngineError>;

    /// Takes the logits of the next position; a token to be run after the others.
    fn next(&mut self, logits: &[f32]) -> Option<u32>;

    /// The result, once; nothing while more logits are needed.
    fn take(&mut self) -> Option<Result<Self::Answer, EngineError>>;
}

impl Task for Recorder {
    type Request = Request;
    type Answer = Generation;

    fn begin(
        request: Request,
        context_len: usize,
        table: &Arc<TokenBytes>,
    ) -> Result<(Self, Vec<u32>, usize), EngineError> {
        let recorder = Self::new(&request, context_len, table)?;
        let first = request.context.len() - 1;
        Ok((recorder, request.context, first))
    }

    fn next(&mut self, logits: &[f32]) -> Option<u32> {
        Self::next(self, logits)
    }

    fn take(&mut self) -> Option<Result<Generation, EngineError>> {
        Self::take(self)
    }
}

/// The likelihoods of given tokens, as far as they are known.
pub struct Scorer {
    continuation: Vec<u32>,
    vocab: usize,
    likelihoods: Vec<TokenLikelihood>,
    broken: Option<String>,
}

impl Task for Scorer {
    type Request = LikelihoodRequest;
    type Answer = Vec<TokenLikelihood>;

    fn begin(
        request: LikelihoodRequest,
        context_len: usize,
        table: &Arc<TokenBytes>,
    ) -> Result<(Self, Vec<u32>, usize), EngineError> {
        let LikelihoodRequest {
            context: mut tokens,
            continuation,
        } = request;
        check_tokens("prompt", &tokens, context_len, table)?;
        check_tokens("continuation", &continuation, context_len, table)?;
        let first = tokens.len() - 1;
        // Nothing comes after the last token, so it is not run.
        tokens.extend(&continuation[..continuation.len() - 1]);
        if tokens.len() >= context_len {
            return Err(EngineError::Request(format!(
                "the prompt and its continuation have {} tokens, the model's context only \
                 {context_len}",
                tokens.len() + 1
            )));
        }
        let scorer = Self {
            likelihoods: Vec::with_capacity(continuation.len()),
            continuation,
            vocab: table.len(),
            broken: None,
        };
        Ok((scorer, tokens, first))
    }

    fn next(&mut self, logits: &[f32]) -> Option<u32> {
        let token = *self.continuation.get(self.likelihoods.len())?;
        match sampler::likelihood(logits, self.vocab, token) {
            Ok(likelihood) => self.likelihoods.push(likelihood),
            Err(e) => self.broken = Some(e.to_string()),
        }
        None
    }

    fn take(&mut self) -> Option<Result<Vec<TokenLikelihood>, EngineError>> {
        if let Some(reason) = self.broken.take() {
            return Some(Err(EngineError::Request(reason)));
        }
        (self.likelihoods.len() == self.continuation.len())
            .then(|| Ok(std::mem::take(&mut self.likelihoods)))
    }
}
