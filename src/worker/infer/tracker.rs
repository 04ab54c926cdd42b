//! Decides, token by token, where a step ends and what ends a generation:
//! [`Tracker`]. It sees bytes only, so every engine decides alike.
//!
//! A step (method section 2) is the shortest run of tokens that has a newline
//! after some text that is not white space, with the white-space-only tokens
//! right after it. Tokens are not split: one such as "\nThe" that ends the
//! step belongs to it. An end token never belongs to a step.

use std::sync::Arc;

use super::engine::{GenerationEnd, Limits, StepBoundary};
use super::token_bytes::TokenBytes;

/// Where in its step a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Only white space so far.
    Blank,
    /// Text, and no newline after it yet.
    Text,
    /// The newline is there; white-space-only tokens still belong.
    Trailing,
    /// After the step.
    After,
}

/// What became of a token handed to [`Tracker::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It belongs to the generation.
    Kept,
    /// It was drawn only to learn that the step has ended, and is not wanted.
    Dropped,
}

/// State of one generation.
#[derive(Debug, Clone)]
pub struct Tracker {
    table: Arc<TokenBytes>,
    limits: Limits,
    /// Tokens at most: the generation's limit, and what the context leaves.
    room: usize,
    phase: Phase,
    boundary: StepBoundary,
    len: usize,
    step_len: usize,
    /// The last bytes, as many as a stop text may need.
    tail: Vec<u8>,
    longest_stop: usize,
    end: Option<GenerationEnd>,
}

impl Tracker {
    /// A generation that may have `context_room` tokens before the context is
    /// full, and that goes on where the response's tokens `before` end.
    pub fn new(
        limits: Limits,
        context_room: usize,
        before: &[u32],
        table: Arc<TokenBytes>,
    ) -> Self {
        let step = limits.step;
        let mut tracker = Self {
            room: limits.max_tokens.min(context_room),
            phase: if step { Phase::Blank } else { Phase::After },
            boundary: StepBoundary::Inside,
            len: 0,
            step_len: 0,
            tail: Vec::new(),
            longest_stop: limits.stop.iter().map(String::len).max().unwrap_or(0),
            end: None,
            limits,
            table,
        };
        // A stop text may have begun there; a whole one would have ended it.
        let wanted = tracker.longest_stop.saturating_sub(1);
        for &token in before.iter().rev() {
            if tracker.tail.len() >= wanted {
                break;
            }
            let bytes = tracker.table.bytes(token).to_vec();
            tracker.tail.splice(0..0, bytes);
        }
        let spare = tracker.tail.len().saturating_sub(wanted);
        tracker.tail.drain(..spare);
        tracker.check_limits();
        tracker
    }

    /// How the generation ended; nothing while it goes on. Ask before drawing a token.
    pub fn end(&self) -> Option<GenerationEnd> {
        self.end
    }

    /// Tokens kept so far, which is the position of the next one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tokens of the step so far (0 if the generation has none).
    pub fn step_len(&self) -> usize {
        self.step_len
    }

    /// How the step ended; [`StepBoundary::Inside`] while it goes on.
    pub fn boundary(&self) -> StepBoundary {
        self.boundary
    }

    /// Whether the next token is drawn at the step's temperature. After the
    /// newline too: the white space there belongs to the step, and a token that
    /// does not is seen only when it is drawn ([`Tracker::leaves_step`]).
    pub fn at_step_temperature(&self) -> bool {
        self.phase != Phase::After
    }

    /// Whether this token would be the first after the step's newline and white
    /// space, so that the step has ended without it.
    pub fn leaves_step(&self, token: u32) -> bool {
        let belongs = !self.table.is_end(token) && white_space_only(self.table.bytes(token));
        self.phase == Phase::Trailing && !belongs
    }

    /// Takes the token drawn. Nothing may be pushed after the end; such a token is dropped.
    pub fn push(&mut self, token: u32) -> Pushed {
        if self.end.is_some() {
            return Pushed::Dropped;
        }
        let table = Arc::clone(&self.table);
        let bytes = table.bytes(token);
        let is_end = table.is_end(token);
        if self.leaves_step(token) {
            self.phase = Phase::After;
            if self.limits.max_after_tokens == 0 && !is_end {
                self.end = Some(GenerationEnd::Limit);
                return Pushed::Dropped;
            }
        }
        self.len += 1;
        if is_end {
            self.end = Some(GenerationEnd::EndToken);
            return Pushed::Kept;
        }
        if self.phase != Phase::After {
            self.step_len += 1;
            self.advance(bytes);
        }
        if self.finds_stop(bytes) {
            self.end = Some(GenerationEnd::StopText);
        } else {
            self.check_limits();
        }
        Pushed::Kept
    }

    /// Moves through the step by the bytes of one of its tokens.
    fn advance(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match self.phase {
                    Phase::Blank if !c.is_whitespace() => self.phase = Phase::Text,
                    Phase::Text if c == '\n' => {
                        self.phase = Phase::Trailing;
                        self.boundary = StepBoundary::Newline;
                        return;
                    }
                    _ => {}
                }
            }
            // Part of a character: counted as text.
            if self.phase == Phase::Blank && !chunk.invalid().is_empty() {
                self.phase = Phase::Text;
            }
        }
    }

    fn check_limits(&mut self) {
        if self.phase != Phase::After && self.step_len >= self.limits.max_step_tokens {
            if self.phase != Phase::Trailing {
                self.boundary = StepBoundary::Limit;
            }
            self.phase = Phase::After;
        }
        let after_full =
            self.phase == Phase::After && self.len - self.step_len >= self.limits.max_after_tokens;
        if after_full || self.len >= self.room {
            self.end = Some(GenerationEnd::Limit);
        }
    }

    /// Whether the bytes so far hold a stop text; earlier calls found none, so
    /// only one that ends in the new bytes is new.
    fn finds_stop(&mut self, bytes: &[u8]) -> bool {
        if self.longest_stop == 0 {
            return false;
        }
        self.tail.extend_from_slice(bytes);
        let found = self.limits.stop.iter().any(|stop| {
            !stop.is_empty() && self.tail.windows(stop.len()).any(|w| w == stop.as_bytes())
        });
        let spare = self.tail.len().saturating_sub(self.longest_stop - 1);
        self.tail.drain(..spare);
        found
    }
}

/// Whether a token is white space and nothing else. Part of a character is not.
fn white_space_only(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(char::is_whitespace))
}

#[cfg(test)]
mod tests;
