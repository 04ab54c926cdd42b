//! How far a rollout is, in candidates: [`Pace`].

use std::time::Instant;

use genius::kind::rollout::Params;
use genius::protocol::{Context, Progress};

use super::super::engine::Generation;

/// Progress of the queries that are rolled out.
pub(super) struct Pace {
    started: Instant,
    /// Candidates of one query at most: M N K.
    of_query: u64,
    queries: u64,
    queries_done: u64,
    /// Queries that an earlier run has kept: no part of the above.
    kept: usize,
    tokens: u64,
}

impl Pace {
    pub(super) fn new(params: &Params, queries: usize, kept: usize) -> Self {
        Self {
            started: Instant::now(),
            of_query: (params.beams * params.rollouts * params.steps) as u64,
            queries: queries as u64,
            queries_done: 0,
            kept,
            tokens: 0,
        }
    }

    /// A candidate was made.
    pub(super) fn candidate(&mut self, generation: &Generation) {
        self.tokens += generation.tokens.len() as u64;
    }

    /// A query is done; it counts with all the candidates that it might have had.
    pub(super) fn query(&mut self) {
        self.queries_done += 1;
    }

    /// A query that was kept is no longer there.
    pub(super) fn one_more(&mut self) {
        self.queries += 1;
        self.kept = self.kept.saturating_sub(1);
    }

    /// Reports progress; `under_way` candidates of unfinished queries were made.
    pub(super) fn report(&self, context: &Context, under_way: u64) {
        let kept = match self.kept {
            0 => String::new(),
            n => format!(" ({n} more from before)"),
        };
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        context.progress(Progress {
            phase: match context.job.shard {
                Some(shard) => format!("rolling out, {shard}"),
                None => "rolling out".into(),
            },
            done: self.queries_done * self.of_query + under_way,
            total: Some(self.queries * self.of_query),
            unit: "candidates".into(),
            detail: format!(
                "{}/{} queries{kept}, {rate:.1} tok/s",
                self.queries_done, self.queries
            ),
        });
    }
}
