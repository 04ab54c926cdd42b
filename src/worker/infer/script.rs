//! Engines without a model, for tests of the stages: [`Script`] gives the generations that a
//! test wrote down, [`Babbler`] draws its own, tick by tick. A token is a byte; [`END`] ends a turn.

use std::sync::Arc;

use super::engine::{Engine, EngineError, Generation, GenerationEnd, Request, StepBoundary, Work};
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
/// with a `~` before `|` the step was cut. With the log-probability of
/// every token of the step, and of every one after it; an end token has -50.
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

/// Answers round by round, and keeps what it was asked. A round takes as many
/// requests as it has lines; when the script is over, there must be no more.
#[derive(Default)]
pub(crate) struct Script {
    lines: std::collections::VecDeque<Vec<Line>>,
    /// The requests of each round.
    pub(crate) asked: Vec<Vec<Request>>,
}

impl Script {
    /// A script with a list of lines a round. `("#", ..)` is a request that cannot be served.
    pub(crate) fn new(rounds: &[&[Line]]) -> Self {
        Self {
            lines: rounds.iter().map(|round| round.to_vec()).collect(),
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

    fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError> {
        while let Some(lines) = self.lines.pop_front() {
            let mut ids = Vec::new();
            let mut requests = Vec::new();
            while requests.len() < lines.len() {
                let round = self.asked.len();
                let (id, request) = work.next().unwrap_or_else(|| {
                    panic!("round {round}: {} of {}", requests.len(), lines.len())
                });
                ids.push(id);
                requests.push(request);
            }
            self.asked.push(requests);
            for (line, id) in lines.into_iter().zip(ids) {
                let result = match line.0 {
                    "#" => Err(EngineError::Request("no".into())),
                    _ => Ok(generation(line)),
                };
                if !work.done(id, result) {
                    return Err(EngineError::Cancelled);
                }
            }
        }
        assert!(work.next().is_none(), "more than the script has");
        Ok(())
    }
}

/// Something that happened to a request of a [`Babbler`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was taken, with its context as text.
    Taken(u64, String),
    /// It was handed back.
    Done(u64),
    /// All of so many in flight go on by a token.
    Tick(usize),
}

/// A request in flight.
struct Slot {
    id: u64,
    /// Ticks until it is done.
    left: usize,
    generation: Generation,
}

/// Draws letters, newlines and ends from each request's own stream. Every tick
/// gives each request in flight a token, as an engine that batches does, and
/// what is done makes room at once.
pub(crate) struct Babbler {
    table: Arc<TokenBytes>,
    /// Requests in flight at most.
    width: usize,
    /// A request with this text in its context takes a hundred ticks a token.
    pub(crate) slow: Option<&'static str>,
    /// After so many generations it is broken, as if the process were killed.
    pub(crate) lives_for: Option<usize>,
    /// The most requests it had in flight.
    pub(crate) widest: usize,
    /// What happened, in order.
    pub(crate) events: Vec<Event>,
}

impl Babbler {
    /// One with room for `width` requests.
    pub(crate) fn new(width: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_model(folder.path(), 1);
        Self {
            table: Arc::new(TokenBytes::load(folder.path()).unwrap()),
            width,
            slow: None,
            lives_for: None,
            widest: 0,
            events: Vec::new(),
        }
    }

    /// Generations handed back.
    pub(crate) fn answered(&self) -> usize {
        let done = |e: &&Event| matches!(e, Event::Done(_));
        self.events.iter().filter(done).count()
    }

    fn take(&mut self, (id, request): (u64, Request)) -> Slot {
        let context = ByteText.decode(&request.context);
        let pace = match self.slow {
            Some(text) if context.contains(text) => 100,
            _ => 1,
        };
        self.events.push(Event::Taken(id, context));
        let generation = self.babble(request);
        Slot {
            id,
            left: pace * generation.tokens.len(),
            generation,
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

    fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError> {
        let mut slots: Vec<Slot> = Vec::new();
        loop {
            while slots.len() < self.width
                && let Some(next) = work.next()
            {
                let slot = self.take(next);
                slots.push(slot);
            }
            self.widest = self.widest.max(slots.len());
            if slots.is_empty() {
                return Ok(());
            }
            self.events.push(Event::Tick(slots.len()));
            if !work.go_on() {
                return Err(EngineError::Cancelled);
            }
            let (done, going) = slots.into_iter().partition(|slot| slot.left == 0);
            slots = going;
            // The last one first: an order that nobody may rely on.
            for slot in Vec::<Slot>::into_iter(done).rev() {
                if self.lives_for == Some(self.answered()) {
                    return Err(EngineError::Broken {
                        engine: "babbler",
                        reason: "killed".into(),
                    });
                }
                self.events.push(Event::Done(slot.id));
                if !work.done(slot.id, Ok(slot.generation)) {
                    return Err(EngineError::Cancelled);
                }
            }
            for slot in &mut slots {
                slot.left = slot.left.saturating_sub(1);
            }
        }
    }
}
