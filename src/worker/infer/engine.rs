//! The one interface to inference engines: [`Engine`].
//!
//! An engine turns [`Request`]s (exact context tokens and a plan of sampling)
//! into [`Generation`]s (tokens, natural log-probabilities, where the step ended),
//! and scores given tokens where it can ([`LikelihoodRequest`], [`TokenLikelihood`]).
//! It asks its caller's [`Work`] for them one by one, whenever it has room: how many are in
//! flight is the engine's business, and whose they are is the caller's.

use std::path::{Path, PathBuf};

use genius::method::random::Stream;

/// What one generation is to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// The whole context: prompt, response prefix, response so far.
    pub context: Vec<u32>,
    /// Where in `context` the response begins (after prompt and response prefix):
    /// a stop text may begin in what stands from there on.
    pub response_start: usize,
    /// Key of the draws; a token is a function of the logits, this and its position
    /// in the generation (0 is the first token generated).
    pub stream: Stream,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What ends the generation.
    pub limits: Limits,
}

/// How tokens are drawn. Recorded log-probabilities are always those of the untempered policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Temperature of the step: up to the token whose newline ends it, and of the
    /// white space after; 0: greedy.
    pub step_temperature: f64,
    /// Temperature of every token after the step.
    pub temperature: f64,
    /// Only the k likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together have this probability; 1: all.
    pub top_p: f64,
    /// Only tokens with at least this share of the likeliest one's probability; 0: all.
    pub min_p: f64,
}

/// What ends a generation, beside the end-of-turn token and the model's context.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Whether the generation begins with a step (method section 2): tokens up to the first newline
    /// after text that is not white space, with the white-space-only tokens after it. False: all is "after".
    pub step: bool,
    /// Tokens of the step at most; reaching it without a newline ends the step there ("cut") and goes on.
    pub max_step_tokens: usize,
    /// Tokens after the step at most; 0 ends the generation with the step (as soon as the first
    /// token that does not belong to the step would be needed to know its end, the step is taken as ended).
    pub max_after_tokens: usize,
    /// Tokens of the generation in all at most.
    pub max_tokens: usize,
    /// Texts that end it, found in the bytes of the generated tokens.
    pub stop: Vec<String>,
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationEnd {
    /// An end-of-turn token, which is the last of its tokens.
    EndToken,
    /// A stop text; the tokens up to the one that completes it are kept.
    StopText,
    /// A limit of tokens, or the context.
    Limit,
}

/// How the step at the start of a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepBoundary {
    /// A newline after some text.
    Newline,
    /// The limit of tokens a step.
    Limit,
    /// The generation ended inside the step.
    Inside,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Generated tokens, an end token included.
    pub tokens: Vec<u32>,
    /// Natural log-probability of each under the untempered policy.
    pub logprobs: Vec<f32>,
    /// Tokens that belong to the step (0 if `Limits::step` is false).
    pub step_len: usize,
    /// How the step ended.
    pub step_boundary: StepBoundary,
    /// How the generation ended.
    pub end: GenerationEnd,
}

/// Tokens to be scored after a context.
#[derive(Debug, Clone)]
pub struct LikelihoodRequest {
    /// What comes before; not scored.
    pub context: Vec<u32>,
    /// What is scored, token by token.
    pub continuation: Vec<u32>,
}

/// How likely a given token is after those before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLikelihood {
    /// Its natural log-probability under the untempered policy.
    pub logprob: f32,
    /// Whether greedy decoding would have chosen it.
    pub is_greedy: bool,
}

/// Why an engine could not serve.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model cannot be loaded.
    #[error("{engine} cannot load the model{}: {reason}", place(.path, .reason))]
    Load {
        /// Engine.
        engine: &'static str,
        /// Model folder.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// One request cannot be served; others can.
    #[error("{0}")]
    Request(String),
    /// The engine is broken.
    #[error("{engine} failed: {reason}")]
    Broken {
        /// Engine.
        engine: &'static str,
        /// Its words.
        reason: String,
    },
    /// The engine does not do this for any model.
    #[error("the engine `{engine}` cannot {what}")]
    Unsupported {
        /// Engine.
        engine: &'static str,
        /// What was wanted of it.
        what: &'static str,
    },
    /// The stage was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<EngineError> for genius::protocol::Failure {
    fn from(e: EngineError) -> Self {
        Self::new(e.to_string())
    }
}

/// Where the model is, unless the reason names a file there.
fn place(folder: &Path, reason: &str) -> String {
    let shown = folder.display().to_string();
    if reason.contains(&shown) {
        String::new()
    } else {
        format!(" in {shown}")
    }
}

/// Where an engine gets its work and leaves its results: requests `Q`, answers `A`.
pub trait Work<Q = Request, A = Generation> {
    /// The next request and a number of the caller's; `None`: none now (more may come when
    /// others are done).
    fn next(&mut self) -> Option<(u64, Q)>;

    /// A request is done. One that alone cannot be served is [`EngineError::Request`].
    /// `false`: stop, the stage was cancelled.
    fn done(&mut self, id: u64, result: Result<A, EngineError>) -> bool;

    /// Asked between decode steps and during long prefills; `false`: stop now.
    fn go_on(&mut self) -> bool;
}

/// An inference engine with one model loaded.
pub trait Engine {
    /// Its name in a pipeline file.
    fn name(&self) -> &'static str;

    /// Tokens of prompt and response together at most.
    fn context_len(&self) -> usize;

    /// Serves until `next` gives nothing and nothing is under way. It asks for a request whenever
    /// it has room for one, also after `next` gave nothing and a request was done since.
    ///
    /// # Errors
    /// When the engine is broken, or was stopped.
    fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError>;

    /// As [`Engine::generate`], for given tokens: the answer has a likelihood for each token
    /// of the continuation. It depends on the request alone, not on what is served with it.
    ///
    /// # Errors
    /// As [`Engine::generate`]; [`EngineError::Unsupported`] from an engine that cannot score.
    #[cfg_attr(not(test), expect(dead_code, reason = "no stage scores tokens yet"))]
    fn likelihoods(
        &mut self,
        _work: &mut dyn Work<LikelihoodRequest, Vec<TokenLikelihood>>,
    ) -> Result<(), EngineError> {
        Err(EngineError::Unsupported {
            engine: self.name(),
            what: "score given tokens",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_error_names_the_folder_once() {
        let words = |reason: &str| {
            EngineError::Load {
                engine: "native",
                path: "m".into(),
                reason: reason.into(),
            }
            .to_string()
        };
        assert_eq!(
            words("x is wrong"),
            "native cannot load the model in m: x is wrong"
        );
        let path = Path::new("some").join("folder");
        let message = EngineError::Load {
            engine: "native",
            reason: format!("{}: x is wrong", path.join("config.json").display()),
            path: path.clone(),
        }
        .to_string();
        assert_eq!(
            message.matches(&path.display().to_string()).count(),
            1,
            "{message}"
        );
    }
}
