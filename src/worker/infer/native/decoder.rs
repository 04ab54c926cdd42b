//! Continuous batching over a [`Forward`]: [`Decoder`], the engine.
//!
//! A number of sequences are under way; each step runs the tokens of each that
//! are not in the cache yet (one while it is decoding, a piece of its prompt
//! before) and hands the logits that a sequence's [`Task`] needs to it: to draw a
//! token, or to score a given one. One that ends makes room for the next at once. Since keys, values and logits of a token are a
//! function of the tokens up to it, sequences that begin alike share what one of
//! them computed, and one that has to give way when memory is short is simply
//! computed again: neither changes a result.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::super::engine::{Engine, EngineError, LikelihoodRequest, TokenLikelihood, Work};
use super::super::recorder::Recorder;
use super::super::token_bytes::TokenBytes;
use super::blocks::{BLOCK, BlockId, Blocks, alike};
use super::forward::{Forward, Row};
use super::task::{Scorer, Task};

/// Name of the engine in a pipeline file.
pub const NAME: &str = "native";

/// Tokens that another sequence is about to compute, for which one waits rather than compute them too.
const WORTH_WAITING: usize = 16;

/// The engine: a model, its cache, and what shares it.
pub struct Decoder {
    forward: Box<dyn Forward>,
    table: Arc<TokenBytes>,
    context_len: usize,
    width: usize,
    blocks: Blocks,
    times: Times,
}

/// Steps, the rows of their forward passes, and where their time went, seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    steps: u64,
    rows: u64,
    forward: f64,
    drawing: f64,
}

/// Memory and batching.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Sequences under way at most.
    pub width: usize,
    /// Bytes of keys and values at most (a lone sequence may need more).
    pub cache_bytes: usize,
    /// Whether finished sequences' keys and values are kept for later ones.
    pub keep: bool,
}

/// A request under way.
struct Sequence<T> {
    id: u64,
    task: T,
    /// Those given and what was generated.
    tokens: Vec<u32>,
    /// How many of them are in the cache.
    filled: usize,
    /// The first position whose logits the task still needs.
    needed_from: usize,
    blocks: Vec<BlockId>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not in the cache yet.
    Waiting,
    /// It gave way and waits until another has finished.
    GaveWay,
    /// In the cache up to `filled`.
    Running,
}

impl<T> Sequence<T> {
    fn remaining(&self) -> usize {
        self.tokens.len() - self.filled
    }
}

impl Decoder {
    /// An engine over a model; `table` is its tokenizer's.
    pub fn new(
        forward: Box<dyn Forward>,
        table: Arc<TokenBytes>,
        context_len: usize,
        capacity: Capacity,
    ) -> Self {
        let blocks = (capacity.cache_bytes / forward.block_bytes().max(1)).max(1);
        Self {
            forward,
            table,
            context_len,
            width: capacity.width.max(1),
            blocks: Blocks::new(blocks, capacity.keep),
            times: Times::default(),
        }
    }

    /// A line about where the time went since the last call.
    #[cfg(test)]
    pub fn times(&mut self) -> String {
        let Times {
            steps,
            forward,
            drawing,
            ..
        } = std::mem::take(&mut self.times);
        let each = |seconds: f64| seconds * 1e3 / steps as f64;
        format!(
            "{steps} steps, each {:.2} ms forward and {:.2} ms drawing",
            each(forward),
            each(drawing)
        )
    }

    /// Lets nothing end before its limit of tokens.
    #[cfg(test)]
    pub fn without_ends(&mut self) {
        self.table = Arc::new(self.table.without_ends());
    }

    /// Rows of all forward passes since [`Decoder::times`] was asked.
    #[cfg(test)]
    pub fn rows(&self) -> u64 {
        self.times.rows
    }

    /// Blocks of sequences under way.
    #[cfg(test)]
    pub fn held_blocks(&self) -> usize {
        self.blocks.held()
    }

    /// Serves until there is no more work.
    fn serve<T: Task>(
        &mut self,
        work: &mut dyn Work<T::Request, T::Answer>,
    ) -> Result<(), EngineError> {
        let mut active: Vec<Sequence<T>> = Vec::new();
        let served = self.serve_in(work, &mut active);
        for sequence in active {
            self.blocks.release(&sequence.blocks);
        }
        served
    }

    fn serve_in<T: Task>(
        &mut self,
        work: &mut dyn Work<T::Request, T::Answer>,
        active: &mut Vec<Sequence<T>>,
    ) -> Result<(), EngineError> {
        let mut logits = Vec::new();
        loop {
            while active.len() < self.width {
                let Some((id, request)) = work.next() else {
                    break;
                };
                let sequence = match T::begin(request, self.context_len, &self.table) {
                    Ok((task, tokens, needed_from)) => Sequence {
                        id,
                        task,
                        tokens,
                        filled: 0,
                        needed_from,
                        blocks: Vec::new(),
                        state: State::Waiting,
                    },
                    Err(e) => {
                        hand_over(work, id, Err(e))?;
                        continue;
                    }
                };
                active.push(sequence);
                self.put_away(active, work)?;
            }
            if active.is_empty() {
                return Ok(());
            }
            if !work.go_on() {
                return Err(EngineError::Cancelled);
            }
            self.step(active, &mut logits)?;
            self.put_away(active, work)?;
        }
    }

    /// Hands over what is finished, and keeps its keys and values.
    fn put_away<T: Task>(
        &mut self,
        active: &mut Vec<Sequence<T>>,
        work: &mut dyn Work<T::Request, T::Answer>,
    ) -> Result<(), EngineError> {
        let mut i = 0;
        while i < active.len() {
            let Some(result) = active[i].task.take() else {
                i += 1;
                continue;
            };
            let mut sequence = active.remove(i);
            sequence.tokens.truncate(sequence.filled);
            if result.is_ok() {
                self.blocks.keep(sequence.tokens, sequence.blocks);
            } else {
                self.blocks.release(&sequence.blocks);
            }
            for other in active.iter_mut() {
                if other.state == State::GaveWay {
                    other.state = State::Waiting;
                }
            }
            hand_over(work, sequence.id, result)?;
        }
        Ok(())
    }

    /// One forward pass, and what follows from its logits.
    fn step<T: Task>(
        &mut self,
        active: &mut [Sequence<T>],
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        for i in 0..active.len() {
            if active[i].state == State::Waiting {
                self.start(active, i);
            }
        }
        let planned = self.plan(active);
        let (mut rows, mut tables, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        let mut needed_by = Vec::new();
        for &(i, count) in &planned {
            let sequence = &active[i];
            let first = wanted.len();
            for position in sequence.filled..sequence.filled + count {
                if position >= sequence.needed_from {
                    wanted.push(rows.len());
                }
                rows.push(Row {
                    token: sequence.tokens[position],
                    position,
                    table: tables.len(),
                });
            }
            tables.push(&sequence.blocks[..]);
            if wanted.len() > first {
                needed_by.push((i, first..wanted.len()));
            }
        }
        let started = Instant::now();
        self.forward
            .run(&rows, &tables, &wanted, logits)
            .map_err(|reason| EngineError::Broken {
                engine: NAME,
                reason,
            })?;
        let forwarded = Instant::now();
        for (i, count) in planned {
            active[i].filled += count;
        }
        self.hand_out(active, needed_by, logits);
        self.times.steps += 1;
        self.times.rows += rows.len() as u64;
        self.times.forward += (forwarded - started).as_secs_f64();
        self.times.drawing += forwarded.elapsed().as_secs_f64();
        Ok(())
    }

    /// Hands each of the sequences `needed_by` its rows of logits.
    fn hand_out<T: Task>(
        &mut self,
        active: &mut [Sequence<T>],
        needed_by: Vec<(usize, Range<usize>)>,
        logits: &[f32],
    ) {
        let vocab = self.forward.vocab();
        let mut rows_of: Vec<Option<Range<usize>>> = vec![None; active.len()];
        for (i, rows) in needed_by {
            rows_of[i] = Some(rows);
        }
        let tasks: Vec<Mutex<(&mut Sequence<T>, &[f32])>> = active
            .iter_mut()
            .zip(rows_of)
            .filter_map(|(s, rows)| {
                let rows = rows?;
                let logits = &logits[rows.start * vocab..rows.end * vocab];
                Some(Mutex::new((s, logits)))
            })
            .collect();
        self.forward.share_out(tasks.len(), &|i| {
            let mut task = tasks[i].lock().unwrap_or_else(PoisonError::into_inner);
            let (sequence, rows) = &mut *task;
            for row in rows.chunks_exact(vocab) {
                sequence.needed_from += 1;
                if let Some(token) = sequence.task.next(row) {
                    sequence.tokens.push(token);
                }
            }
        });
    }

    /// Which sequences run how many tokens in this step: decoding ones first, then
    /// prompts, as many rows as fit.
    fn plan<T>(&mut self, active: &mut [Sequence<T>]) -> Vec<(usize, usize)> {
        let mut planned: Vec<(usize, usize)> = Vec::new();
        let mut room = self.forward.most_rows();
        for decoding in [true, false] {
            for i in 0..active.len() {
                let remaining = active[i].remaining();
                let fits = active[i].state == State::Running && (remaining == 1) == decoding;
                let count = remaining.min(room);
                if fits && count > 0 && self.find_blocks(active, i, count, &planned) {
                    planned.push((i, count));
                    room -= count;
                }
            }
        }
        planned
    }

    /// Gives sequence `i` blocks for `count` more tokens. Where there are none, the
    /// youngest that is not planned yet gives way, in the end this one.
    fn find_blocks<T>(
        &mut self,
        active: &mut [Sequence<T>],
        i: usize,
        count: usize,
        planned: &[(usize, usize)],
    ) -> bool {
        let needed = (active[i].filled + count).div_ceil(BLOCK);
        while active[i].blocks.len() < needed {
            if let Some(id) = self.blocks.take() {
                active[i].blocks.push(id);
                continue;
            }
            let free = |&j: &usize| {
                active[j].state == State::Running && planned.iter().all(|(p, _)| *p != j)
            };
            let youngest = (0..active.len()).rev().find(free).unwrap_or(i);
            let alone = planned.is_empty() && youngest == i && (0..i).all(|j| !free(&j));
            if alone {
                active[i].blocks.push(self.blocks.take_more());
                continue;
            }
            let loser = &mut active[youngest];
            self.blocks.release(&loser.blocks);
            loser.blocks.clear();
            loser.filled = 0;
            loser.state = State::GaveWay;
            if youngest == i {
                return false;
            }
        }
        true
    }

    /// Lets sequence `i` begin with what others have computed of its tokens; or
    /// wait, where another is about to compute much of them.
    fn start<T>(&mut self, active: &mut [Sequence<T>], i: usize) {
        // What it needs logits of must be run.
        let tokens = &active[i].tokens[..active[i].needed_from];
        let (mut best, mut coming) = ((0, None), 0);
        for (j, other) in active.iter().enumerate() {
            if other.state == State::Running {
                let alike = alike(&other.tokens, tokens);
                coming = coming.max(alike);
                let there = alike.min(other.filled);
                if there > best.0 {
                    best = (there, Some(j));
                }
            }
        }
        let (kept, of_kept) = self.blocks.longest(tokens);
        let (there, source) = match best.1 {
            Some(j) if best.0 >= kept => (best.0, &active[j].blocks[..]),
            _ => (kept, of_kept),
        };
        if coming >= there + WORTH_WAITING {
            return;
        }
        let source = source[..there.div_ceil(BLOCK)].to_vec();
        let whole = there / BLOCK;
        // Held before anything is taken, which may let go of what is kept.
        for &id in &source {
            self.blocks.share(id);
        }
        let sequence = &mut active[i];
        sequence.blocks = source[..whole].to_vec();
        sequence.filled = whole * BLOCK;
        if let Some(&partly) = source.get(whole) {
            if let Some(own) = self.blocks.take() {
                self.forward.copy_block(partly, own);
                sequence.blocks.push(own);
                sequence.filled = there;
            }
            self.blocks.release(&[partly]);
        }
        sequence.state = State::Running;
    }
}

fn hand_over<Q, A>(
    work: &mut dyn Work<Q, A>,
    id: u64,
    result: Result<A, EngineError>,
) -> Result<(), EngineError> {
    if work.done(id, result) {
        Ok(())
    } else {
        Err(EngineError::Cancelled)
    }
}

impl Engine for Decoder {
    fn name(&self) -> &'static str {
        NAME
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError> {
        self.serve::<Recorder>(work)
    }

    fn likelihoods(
        &mut self,
        work: &mut dyn Work<LikelihoodRequest, Vec<TokenLikelihood>>,
    ) -> Result<(), EngineError> {
        self.serve::<Scorer>(work)
    }
}
