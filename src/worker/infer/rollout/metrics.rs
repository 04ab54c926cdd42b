//! The contents of a rollout's `metrics.json`: [`Totals`], made of the records alone.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use genius::artifact::{Content, Finish, RolloutRecord, StepEnd, StepRecord};
use genius::method::beam::grown;
use genius::method::figures::TerminalFigures;
use genius::method::mean::Mean;
use genius::method::score::{is_empty, is_terminal};

/// Edges of the histograms, fixed so that two rollouts can be compared.
const STEP_TOKENS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];
const F: &[f64] = &[
    -8.0, -4.0, -3.0, -2.0, -1.5, -1.25, -1.0, -0.75, -0.5, -0.25, -0.1,
];
const DISTINCT: &[f64] = &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 16.0, 32.0];
/// With eight candidates a step one bucket each; the last is of all of them.
const SHARE: &[f64] = &[0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0];

/// How many values lie below the first edge, from one to below the next, and so
/// on; the last count is of the values from the last edge on.
#[derive(Debug)]
struct Histogram {
    edges: &'static [f64],
    counts: Vec<u64>,
}

impl Histogram {
    fn new(edges: &'static [f64]) -> Self {
        Self {
            edges,
            counts: vec![0; edges.len() + 1],
        }
    }

    fn add(&mut self, value: f64) {
        let bucket = self.edges.partition_point(|edge| *edge <= value);
        self.counts[bucket] += 1;
    }

    fn json(&self) -> Value {
        json!({ "edges": self.edges, "counts": self.counts })
    }
}

/// Counts over rollout records.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) queries: u64,
    pub(super) skipped: BTreeMap<String, u64>,
    pub(super) steps: u64,
    pub(super) candidates: u64,
    pub(super) tokens: u64,
    cut: u64,
    terminal: u64,
    duplicates: u64,
    empty: u64,
    empty_responses: u64,
    stops: u64,
    finished_beams: u64,
    light: u64,
    truncated: Mean,
    step_tokens: Mean,
    pub(super) f: Mean,
    pub(super) terminal_figures: TerminalFigures,
    step_token_counts: Histogram,
    f_values: Histogram,
    distinct: Histogram,
    terminal_shares: Histogram,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            queries: 0,
            skipped: BTreeMap::new(),
            steps: 0,
            candidates: 0,
            tokens: 0,
            cut: 0,
            terminal: 0,
            duplicates: 0,
            empty: 0,
            empty_responses: 0,
            stops: 0,
            finished_beams: 0,
            light: 0,
            truncated: Mean::default(),
            step_tokens: Mean::default(),
            f: Mean::default(),
            terminal_figures: TerminalFigures::default(),
            step_token_counts: Histogram::new(STEP_TOKENS),
            f_values: Histogram::new(F),
            distinct: Histogram::new(DISTINCT),
            terminal_shares: Histogram::new(SHARE),
        }
    }
}

impl Totals {
    /// Takes a record in.
    pub(super) fn add(&mut self, record: &RolloutRecord) {
        self.queries += 1;
        if let Some(reason) = &record.skipped {
            let kind = reason.split(':').next().unwrap_or(reason);
            *self.skipped.entry(kind.to_owned()).or_default() += 1;
        }
        for step in &record.steps {
            self.add_step(step);
        }
    }

    fn add_step(&mut self, step: &StepRecord) {
        self.steps += 1;
        self.light += u64::from(step.light);
        self.terminal_figures.add(step);
        let mut seen = HashSet::new();
        let mut terminal = Mean::default();
        for c in &step.candidates {
            let tokens = c.step_token_ids.len() + c.foresight_token_ids.len();
            let new = seen.insert(grown(&step.beams, c));
            self.candidates += 1;
            self.tokens += tokens as u64;
            self.cut += u64::from(c.step_end == StepEnd::Limit);
            self.terminal += u64::from(is_terminal(c));
            terminal.add_if(is_terminal(c));
            self.duplicates += u64::from(!new);
            self.empty += u64::from(is_empty(c));
            let over = c.ended || c.finish == Finish::EndToken;
            self.empty_responses += u64::from(is_empty(c) && is_terminal(c) && over);
            self.stops += u64::from(c.content == Content::Stop);
            self.truncated.add_if(c.finish == Finish::Limit);
            let length = c.step_token_ids.len() as f64;
            self.step_tokens.add(length);
            self.step_token_counts.add(length);
            if let Some(f) = c.f {
                self.f.add(f);
                self.f_values.add(f);
            }
        }
        self.distinct.add(seen.len() as f64);
        if let Some(share) = terminal.value() {
            self.terminal_shares.add(share);
        }
        let ended = |&&i: &&u32| step.candidates[i as usize].ended;
        self.finished_beams += step.selected.iter().filter(ended).count() as u64;
    }

    /// Queries given up.
    pub(super) fn skipped_queries(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// The file's content; `docs/artifacts.md` describes it.
    pub(super) fn metrics(&self) -> Value {
        let mut metrics = json!({
            "queries": self.queries,
            "skipped": self.skipped,
            "steps": self.steps,
            "candidates": self.candidates,
            "generated_tokens": self.tokens,
            "cut_steps": self.cut,
            "terminal_candidates": self.terminal,
            "duplicate_candidates": self.duplicates,
            "empty_steps": self.empty,
            "empty_responses": self.empty_responses,
            "stopped_at_once": self.stops,
            "finished_beams": self.finished_beams,
            "light_steps": self.light,
            "mean_f": self.f.json(),
            "mean_step_tokens": self.step_tokens.json(),
            "truncated_share": self.truncated.json(),
            "histograms": {
                "step_tokens": self.step_token_counts.json(),
                "f": self.f_values.json(),
                "distinct_candidates": self.distinct.json(),
                "terminal_share": self.terminal_shares.json(),
            },
        });
        self.terminal_figures.write(&mut metrics);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_an_edge_is_above_it() {
        let mut h = Histogram::new(&[0.0, 1.0]);
        for value in [-1.0, 0.0, 0.5, 1.0, 7.0] {
            h.add(value);
        }
        assert_eq!(h.counts, [1, 2, 2]);
        for edges in [STEP_TOKENS, F, DISTINCT, SHARE] {
            assert!(edges.is_sorted());
        }
    }
}
