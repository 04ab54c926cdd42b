//! What `metrics.json` of a rollout says: [`Totals`], made of the records alone.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use genius::artifact::{Finish, RolloutRecord, StepEnd, StepRecord};
use genius::method::mean::Mean;
use genius::method::score::{is_empty, is_terminal};

use super::query::distinct_parents;

/// Counts over rollout records.
#[derive(Debug, Default)]
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
    finished_beams: u64,
    light: u64,
    truncated: Mean,
    step_tokens: Mean,
    pub(super) f: Mean,
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
        let parents = distinct_parents(&step.beams);
        let mut seen = HashSet::new();
        for c in &step.candidates {
            let tokens = c.step_token_ids.len() + c.foresight_token_ids.len();
            let new = seen.insert((parents[c.parent as usize], &c.step_token_ids));
            self.candidates += 1;
            self.tokens += tokens as u64;
            self.cut += u64::from(c.step_end == StepEnd::Limit);
            self.terminal += u64::from(is_terminal(c));
            self.duplicates += u64::from(!new);
            self.empty += u64::from(is_empty(c));
            self.truncated.add_if(c.finish == Finish::Limit);
            self.step_tokens.add(c.step_token_ids.len() as f64);
            if let Some(f) = c.f {
                self.f.add(f);
            }
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
        json!({
            "queries": self.queries,
            "skipped": self.skipped,
            "steps": self.steps,
            "candidates": self.candidates,
            "generated_tokens": self.tokens,
            "cut_steps": self.cut,
            "terminal_candidates": self.terminal,
            "duplicate_candidates": self.duplicates,
            "empty_steps": self.empty,
            "finished_beams": self.finished_beams,
            "light_steps": self.light,
            "mean_f": self.f.json(),
            "mean_step_tokens": self.step_tokens.json(),
            "truncated_share": self.truncated.json(),
        })
    }
}
