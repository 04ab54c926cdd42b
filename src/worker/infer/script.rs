//! Engines without a model, for tests of the stages: [`Script`] says what it
//! was told to, [`Babbler`] what its draws say. A token is a byte; [`END`] ends a turn.

use std::sync::Arc;

use super::engine::{Engine, EngineError, Generation, GenerationEnd, Request, StepBoundary};
use super::testkit::{IM_END, tiny_model};
use super::text::Text;
use super::token_bytes::TokenBytes;
use super::tracker::{Pushed, Tracker};

/// The end-of-turn token.
pub(crate) const END: u32 = IM_END;
/// Context of both engines.
pub(crate) const CONTEXT: usize = 64;

/// Text by bytes. A user turn with `refuse` in it has no prompt.
pub(crate) struct ByteText;

impl Text for ByteText {
    fn render(&self, system: Option<&str>, user: &str) -> Result<(String, Vec<u32>), String> {
        if user.contains("refuse") {
            return Err("the template refuses".into());
        }
        let text = format!("{}<{user}>", system.unwrap_or_default());
        let tokens = self.encode(&text)?;
        Ok((text, tokens))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .filter_map(|&t| u8::try_from(t).ok())
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A generation, written `STEP|AFTER`: `$` is the end token, a `!` at the end a
/// stop text's end, else a limit ended it. Without `|` it ended inside the step;
/// a `~` before `|` says that the step was cut. With the log-probability of
/// every token of the step, and of every one behind it; an end token has -50.
pub(crate) type Line = (&'static str, f32, f32);

/// The generation that a line describes.
pub(crate) fn generation((text, step_logprob, logprob): Line) -> Generation {
    let (step, after) = text.split_once('|').unwrap_or((text, ""));
    let step_boundary = match (text.contains('|'), step.ends_with('~')) {
        (false, _) => StepBoundary::Inside,
        (true, true) => StepBoundary::Limit,
        (true, false) => StepBoundary::Newline,
    };
    let mut g = Generation {
        tokens: Vec::new(),
        logprobs: Vec::new(),
        step_len: 0,
        step_boundary,
        end: GenerationEnd::Limit,
    };
    for (part, value) in [(step, step_logprob), (after, logprob)] {
        for b in part.bytes() {
            match b {
                b'~' => {}
                b'!' => g.end = GenerationEnd::StopText,
                b'$' => {
                    g.end = GenerationEnd::EndToken;
                    g.tokens.push(END);
                    g.logprobs.push(-50.0);
                }
                b => {
                    g.tokens.push(b.into());
                    g.logprobs.push(value);
                }
            }
        }
        if part == step && g.step_len == 0 {
            g.step_len = g.tokens.iter().filter(|&&t| t != END).count();
        }
    }
    g
}

/// Answers call by call, request by request, and keeps what it was asked.
#[derive(Default)]
pub(crate) struct Script {
    lines: std::collections::VecDeque<Vec<Line>>,
    /// The requests of each call.
    pub(crate) asked: Vec<Vec<Request>>,
}

impl Script {
    /// A script with a list of lines a call. `("#", ..)` is a request that cannot be served.
    pub(crate) fn new(calls: &[&[Line]]) -> Self {
        Self {
            lines: calls.iter().map(|call| call.to_vec()).collect(),
            asked: Vec::new(),
        }
    }

    /// Whether all of it was said.
    pub(crate) fn is_over(&self) -> bool {
        self.lines.is_empty()
    }
}

impl Engine for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn context_len(&self) -> usize {
        CONTEXT
    }

    fn generate(
        &mut self,
        requests: Vec<Request>,
        done: &mut dyn FnMut(usize, Result<Generation, EngineError>) -> bool,
    ) -> Result<(), EngineError> {
        let lines = self.lines.pop_front().unwrap_or_default();
        assert_eq!(lines.len(), requests.len(), "call {}", self.asked.len());
        self.asked.push(requests);
        for (i, line) in lines.into_iter().enumerate() {
            let result = match line.0 {
                "#" => Err(EngineError::Request("no".into())),
                _ => Ok(generation(line)),
            };
            if !done(i, result) {
                return Err(EngineError::Cancelled);
            }
        }
        Ok(())
    }
}

/// Draws letters, newlines and ends from each request's own stream, and
/// answers the last request first.
pub(crate) struct Babbler {
    table: Arc<TokenBytes>,
    /// The most requests it got at once.
    pub(crate) widest: usize,
}

impl Babbler {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_model(folder.path(), 1);
        Self {
            table: Arc::new(TokenBytes::load(folder.path()).unwrap()),
            widest: 0,
        }
    }

    fn babble(&self, request: Request) -> Generation {
        const TOKENS: [u32; 8] = [97, 98, 99, 100, 32, 10, 10, END];
        let room = CONTEXT - request.context.len();
        let mut tracker = Tracker::new(
            request.limits,
            room,
            &request.context[request.response_start..],
            Arc::clone(&self.table),
        );
        let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
        while tracker.end().is_none() {
            let u = request.stream.uniform(tokens.len() as u64, 0);
            let token = TOKENS[(u * TOKENS.len() as f64) as usize];
            if tracker.push(token) == Pushed::Kept {
                tokens.push(token);
                logprobs.push(-(u as f32));
            }
        }
        Generation {
            tokens,
            logprobs,
            step_len: tracker.step_len(),
            step_boundary: tracker.boundary(),
            end: tracker.end().unwrap(),
        }
    }
}

impl Engine for Babbler {
    fn name(&self) -> &'static str {
        "babbler"
    }

    fn context_len(&self) -> usize {
        CONTEXT
    }

    fn generate(
        &mut self,
        requests: Vec<Request>,
        done: &mut dyn FnMut(usize, Result<Generation, EngineError>) -> bool,
    ) -> Result<(), EngineError> {
        self.widest = self.widest.max(requests.len());
        for (i, request) in requests.into_iter().enumerate().rev() {
            if !done(i, Ok(self.babble(request))) {
                return Err(EngineError::Cancelled);
            }
        }
        Ok(())
    }
}
