//! `pairs`: one preference pair a step (paper 2.2, eq. 5), from the scores.
//! See [`PairRecord`].

use serde_json::json;

use super::{Context, JobResult};
use crate::artifact::{
    ChatMessage, Finish, JsonlReader, JsonlWriter, METRICS_FILE, PAIRS_FILE, PairRecord,
    SCORES_FILE, ScoreRecord, ScoredCandidate, write_json,
};
use crate::kind::pairs::Params;
use crate::method::draw::{draw_rejected, greedy_order, pair_stream};
use crate::method::mean::Mean;
use crate::protocol::{Figure, Level, Unit};

/// Computes the stage.
///
/// # Errors
/// When the scores cannot be read.
pub fn run(context: &Context, params: &Params) -> JobResult {
    let path = context.input("scores")?.join(SCORES_FILE);
    let mut writer = JsonlWriter::create(&context.output("pairs")?.join(PAIRS_FILE))?;
    let mut totals = Totals::default();
    for record in JsonlReader::<ScoreRecord>::open(&path)? {
        context.check_cancelled()?;
        let record = record?;
        totals.add_step(&record);
        match make_pair(&record, params) {
            Ok((pair, sides)) => {
                totals.add_pair(&pair, sides);
                writer.write(&pair)?;
            }
            Err(reason) => totals.add_dropped(reason),
        }
    }
    writer.finish()?;
    write_json(
        &context.output("metrics")?.join(METRICS_FILE),
        &totals.metrics(),
    )?;
    if totals.pairs == 0 {
        context.log(
            Level::Warn,
            format!(
                "none of {} steps gave a pair ({}): there is nothing to train on; more rollouts, a higher temperature or longer limits give responses that differ",
                totals.steps,
                totals.dropped_in_words(),
            ),
        );
    } else if totals.dropped() > 0 {
        context.log(
            Level::Info,
            format!(
                "{} of {} steps gave no pair ({})",
                totals.dropped(),
                totals.steps,
                totals.dropped_in_words()
            ),
        );
    }
    Ok(totals.figures())
}

/// Why a step gave no pair: what left fewer than two different responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// There were no two from the start.
    NoDistinctResponse,
    /// The others have no f: they are empty, or begin with an empty step.
    Empty,
    /// The others are cut, and `drop_truncated` forbids them.
    Truncated,
}

impl Dropped {
    /// The reason as shown.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoDistinctResponse => "fewer than two different responses",
            Self::Empty => "all other responses are empty or have an empty step",
            Self::Truncated => "all other responses are truncated",
        }
    }
}

/// The chosen and the rejected candidate.
type Sides<'a> = [&'a ScoredCandidate; 2];

/// The pair of a step: the highest f (ties: the first) against one of the rest.
fn make_pair<'a>(
    record: &'a ScoreRecord,
    params: &Params,
) -> Result<(PairRecord, Sides<'a>), Dropped> {
    let candidates = &record.candidates;
    let eligible: Vec<bool> = candidates
        .iter()
        .map(|c| !(is_empty(c) || params.drop_truncated && c.finish == Finish::Limit))
        .collect();
    let scores: Vec<Option<f64>> = candidates
        .iter()
        .zip(&eligible)
        .map(|(c, &eligible)| c.f.filter(|_| eligible))
        .collect();
    let sides = greedy_order(&scores).first().and_then(|&chosen| {
        let stream = pair_stream(params.seed, &record.query_id, record.step);
        let rejected = draw_rejected(
            candidates,
            &eligible,
            chosen,
            params.negative,
            record.tau,
            &stream,
        )?;
        Some((&candidates[chosen], &candidates[rejected]))
    });
    let Some((chosen, rejected)) = sides else {
        return Err(why_dropped(candidates));
    };
    let message = |role: &str, content: String| ChatMessage {
        role: role.into(),
        content,
    };
    let turn = |c: &ScoredCandidate| {
        vec![message(
            "assistant",
            format!("{}{}", record.prefix, c.response),
        )]
    };
    let mut prompt: Vec<ChatMessage> = Vec::new();
    prompt.extend(
        record
            .system
            .clone()
            .map(|system| message("system", system)),
    );
    prompt.push(message("user", record.query.clone()));
    // Both have an f, and so an advantage.
    let value = |x: Option<f64>| x.unwrap_or_default();
    let pair = PairRecord {
        query_id: record.query_id.clone(),
        policy: record.policy.clone(),
        step: record.step,
        prompt,
        chosen: turn(chosen),
        rejected: turn(rejected),
        chosen_advantage: value(chosen.advantage),
        rejected_advantage: value(rejected.advantage),
        chosen_score: value(chosen.f),
        rejected_score: value(rejected.f),
        // At step 1 all beams are empty, whatever number a hand-made file gives them.
        same_parent: record.step == 1 || chosen.parent == rejected.parent,
        prompt_token_ids: record.prompt_token_ids.clone(),
        prefix_token_ids: record.prefix_token_ids.clone(),
        chosen_token_ids: chosen.response_token_ids.clone(),
        rejected_token_ids: rejected.response_token_ids.clone(),
        chosen_finish: chosen.finish,
        rejected_finish: rejected.finish,
    };
    Ok((pair, [chosen, rejected]))
}

/// Whether a candidate cannot be a side: it has no f, or (in a hand-made file) its
/// response has no text.
fn is_empty(c: &ScoredCandidate) -> bool {
    c.f.is_none() || c.response.trim().is_empty()
}

/// The first filter that leaves fewer than two different responses: the reason why a
/// step has no pair.
pub fn why_dropped(candidates: &[ScoredCandidate]) -> Dropped {
    let differ = |kept: &dyn Fn(&ScoredCandidate) -> bool| {
        let mut responses = candidates
            .iter()
            .filter(|c| kept(c))
            .map(|c| &c.response_token_ids);
        responses
            .next()
            .is_some_and(|first| responses.any(|other| other != first))
    };
    if !differ(&|_| true) {
        Dropped::NoDistinctResponse
    } else if !differ(&|c| !is_empty(c)) {
        Dropped::Empty
    } else {
        Dropped::Truncated
    }
}

/// The data of the metrics.
#[derive(Default)]
struct Totals {
    steps: u64,
    pairs: u64,
    no_distinct_response: u64,
    empty: u64,
    truncated: u64,
    empty_candidates: u64,
    truncated_candidates: u64,
    chosen_advantage: Mean,
    rejected_advantage: Mean,
    chosen_score: Mean,
    rejected_score: Mean,
    same_parent: Mean,
    weighted: Mean,
    chosen_terminal: Mean,
    rejected_terminal: Mean,
}

impl Totals {
    fn add_step(&mut self, record: &ScoreRecord) {
        self.steps += 1;
        for c in &record.candidates {
            self.empty_candidates += u64::from(is_empty(c));
            self.truncated_candidates += u64::from(c.finish == Finish::Limit);
        }
    }

    fn add_pair(&mut self, pair: &PairRecord, [chosen, rejected]: Sides<'_>) {
        self.chosen_terminal.add_if(chosen.terminal);
        self.rejected_terminal.add_if(rejected.terminal);
        self.pairs += 1;
        self.chosen_advantage.add(pair.chosen_advantage);
        self.rejected_advantage.add(pair.rejected_advantage);
        self.chosen_score.add(pair.chosen_score);
        self.rejected_score.add(pair.rejected_score);
        self.same_parent.add_if(pair.same_parent);
        self.weighted
            .add_if(pair.rejected_advantage > pair.chosen_advantage);
    }

    fn add_dropped(&mut self, reason: Dropped) {
        match reason {
            Dropped::NoDistinctResponse => self.no_distinct_response += 1,
            Dropped::Empty => self.empty += 1,
            Dropped::Truncated => self.truncated += 1,
        }
    }

    fn dropped(&self) -> u64 {
        self.no_distinct_response + self.empty + self.truncated
    }

    fn dropped_in_words(&self) -> String {
        format!(
            "{} without two different responses, {} with empty responses or steps, {} with truncated responses",
            self.no_distinct_response, self.empty, self.truncated
        )
    }

    /// The shares only where there is a pair.
    fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![
            Figure::new("pairs", self.pairs, Unit::Count),
            Figure::new("dropped", self.dropped(), Unit::Count),
        ];
        for (name, share) in [
            ("chosen_terminal_share", self.chosen_terminal),
            ("rejected_terminal_share", self.rejected_terminal),
            ("same_parent_share", self.same_parent),
        ] {
            let share = share.value();
            figures.extend(share.map(|share| Figure::new(name, share, Unit::Fraction)));
        }
        figures
    }

    fn metrics(&self) -> serde_json::Value {
        json!({
            "steps": self.steps,
            "pairs": self.pairs,
            "dropped": {
                "no_distinct_response": self.no_distinct_response,
                "empty": self.empty,
                "truncated": self.truncated,
            },
            "empty_candidates": self.empty_candidates,
            "truncated_candidates": self.truncated_candidates,
            "mean_chosen_advantage": self.chosen_advantage.json(),
            "mean_rejected_advantage": self.rejected_advantage.json(),
            "mean_chosen_score": self.chosen_score.json(),
            "mean_rejected_score": self.rejected_score.json(),
            "chosen_terminal_share": self.chosen_terminal.json(),
            "rejected_terminal_share": self.rejected_terminal.json(),
            "same_parent_share": self.same_parent.json(),
            "rejected_advantage_higher_share": self.weighted.json(),
        })
    }
}

#[cfg(test)]
mod tests;
