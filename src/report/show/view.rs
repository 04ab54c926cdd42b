//! [`View`]: what is known of one query, from its rollout record and the pairs
//! that were made of it.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::artifact::{
    CandidateRecord, Content, Finish, PairRecord, RolloutRecord, ScoreRecord, StepEnd, StepRecord,
};
use crate::method::beam::{distinct_parents, grown};
use crate::method::score::{advantage, is_empty, softmax};
use crate::stage::pairs::why_dropped;
use crate::stage::score::score_rollout;

/// One query, from its first step to its pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Identity of the query.
    pub query_id: String,
    /// In the order of the rollouts, from 1.
    pub position: usize,
    /// How many queries the rollouts have.
    pub queries: usize,
    /// Text of the query.
    pub query: String,
    /// System prompt, if there was one.
    pub system: Option<String>,
    /// Response prefix.
    pub prefix: String,
    /// The tau that explored.
    pub tau: f64,
    /// Why the query was not rolled out, if it was not.
    pub skipped: Option<String>,
    /// In order, from step 1.
    pub steps: Vec<StepView>,
    /// One per stage that makes pairs of these rollouts.
    pub pairs: Vec<PairsView>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepView {
    /// From 1.
    pub step: u32,
    /// Whether `light` skipped look-ahead.
    pub light: bool,
    /// The beams that it starts from.
    pub beams: Vec<BeamView>,
    /// By beam, then by rollout.
    pub candidates: Vec<CandidateView>,
}

/// A beam.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BeamView {
    /// Index of the candidate of the step before that it was.
    pub origin: Option<u32>,
    /// Q.
    pub q: f64,
    /// Response tokens so far.
    pub tokens: usize,
}

/// A candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CandidateView {
    /// Position in the step.
    pub index: u32,
    /// Index of its beam.
    pub parent: u32,
    /// f; null for an empty candidate.
    pub f: Option<f64>,
    /// F at the rollout's tau: what beams were drawn from.
    pub probability: f64,
    /// F at the tau of a stage `score` that has another, by its name.
    pub score_probability: BTreeMap<String, f64>,
    /// A = f - Q of its beam.
    pub advantage: Option<f64>,
    /// Tokens of the step.
    pub step_tokens: usize,
    /// Tokens of the foresight.
    pub foresight_tokens: usize,
    /// Whether the foresight is only a completion: f is the step's own.
    pub completion: bool,
    /// How the step ended.
    pub step_end: StepEnd,
    /// How the response ended.
    pub finish: Finish,
    /// What happened to it, and what is special about it.
    pub marks: Vec<Mark>,
    /// The beams of the next step that it became.
    pub beams: Vec<usize>,
    /// Text of the step.
    pub step_text: String,
    /// Text of the foresight.
    pub foresight_text: String,
}

/// A remark about a candidate, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Drawn, and a beam of the next step.
    Beam,
    /// Drawn, and no beam: it had ended, or there was no step after.
    Drawn,
    /// The chosen side of a pair.
    Chosen,
    /// The rejected side of a pair.
    Rejected,
    /// It ends at once: a whole response that adds nothing to its beam.
    Stop,
    /// The response ended with the step.
    Ended,
    /// The step reached its limit without a newline.
    Cut,
    /// A limit cut the response.
    Truncated,
    /// An empty response, or a step of white space only: no f.
    Empty,
    /// The mean log-probability is not finite: no f.
    NoScore,
    /// An earlier candidate's beam would have the same tokens.
    Duplicate,
}

impl Mark {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Beam => "beam",
            Self::Drawn => "drawn",
            Self::Chosen => "chosen",
            Self::Rejected => "rejected",
            Self::Stop => "stop",
            Self::Ended => "ended",
            Self::Cut => "cut",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::NoScore => "no score",
            Self::Duplicate => "duplicate",
        }
    }
}

/// A stage that makes pairs of these rollouts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairsView {
    /// Its name.
    pub stage: String,
    /// The command that computes it, if it has no result.
    pub missing: Option<String>,
    /// One per step of the query; empty if it has no result.
    pub steps: Vec<PairView>,
}

/// What a step gave: a pair, or why none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairView {
    /// From 1.
    pub step: u32,
    /// Index of the chosen candidate.
    pub chosen: Option<u32>,
    /// Index of the rejected candidate.
    pub rejected: Option<u32>,
    /// Whether both grew from the same beam tokens; null without a pair.
    pub same_parent: Option<bool>,
    /// Why there is no pair, if there is none.
    pub none: Option<&'static str>,
}

/// A `score` stage of these rollouts.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreTau {
    /// Its name.
    pub stage: String,
    /// Its tau, if it is not the rollout's.
    pub tau: Option<f64>,
}

/// What a `pairs` stage of these rollouts made of the query.
#[derive(Debug, Clone, PartialEq)]
pub struct PairsOf {
    /// Its name.
    pub stage: String,
    /// The query's pairs; or the command that would compute them.
    pub pairs: Result<Vec<PairRecord>, String>,
}

impl View {
    /// The view of a query's record, the `position`th (from 1) of `queries`.
    pub fn new(
        record: &RolloutRecord,
        (position, queries): (usize, usize),
        scores: &[ScoreTau],
        pairs: &[PairsOf],
    ) -> Self {
        let mut steps: Vec<StepView> = Vec::with_capacity(record.steps.len());
        for (at, step) in record.steps.iter().enumerate() {
            let next = record.steps.get(at + 1);
            steps.push(step_view(step, next, record.tau, scores));
        }
        // A record that contradicts itself has no scores.
        let scored = score_rollout(record, record.tau).unwrap_or_default();
        let pairs: Vec<PairsView> = pairs
            .iter()
            .map(|of| pairs_view(record, &scored, of))
            .collect();
        for (at, step) in steps.iter_mut().enumerate() {
            let sides = pairs.iter().filter_map(|p| p.steps.get(at));
            for pair in sides {
                mark(step, pair.chosen, Mark::Chosen);
                mark(step, pair.rejected, Mark::Rejected);
            }
            for c in &mut step.candidates {
                c.marks.sort_by_key(|&mark| mark as u8);
                c.marks.dedup();
            }
        }
        Self {
            query_id: record.query_id.clone(),
            position,
            queries,
            query: record.query.clone(),
            system: record.system.clone(),
            prefix: record.prefix.clone(),
            tau: record.tau,
            skipped: record.skipped.clone(),
            steps,
            pairs,
        }
    }
}

fn mark(step: &mut StepView, index: Option<u32>, mark: Mark) {
    let candidate = index.and_then(|i| step.candidates.get_mut(i as usize));
    if let Some(candidate) = candidate {
        candidate.marks.push(mark);
    }
}

fn step_view(
    step: &StepRecord,
    next: Option<&StepRecord>,
    tau: f64,
    scores: &[ScoreTau],
) -> StepView {
    let f: Vec<Option<f64>> = step.candidates.iter().map(|c| c.f).collect();
    let others: Vec<(&str, Vec<f64>)> = scores
        .iter()
        .filter_map(|score| Some((score.stage.as_str(), score.tau.filter(|t| *t != tau)?)))
        .map(|(stage, tau)| (stage, softmax(&f, tau)))
        .collect();
    let mut seen = HashSet::new();
    let candidates = step.candidates.iter().enumerate().map(|(at, c)| {
        let next = next.map(|n| n.beams.as_slice()).unwrap_or_default();
        let beams: Vec<usize> = (0..next.len())
            .filter(|&b| next[b].origin == Some(at as u32))
            .collect();
        let drawn = step.selected.contains(&(at as u32));
        let duplicate = !seen.insert(grown(&step.beams, c));
        let empty = c.f.is_none() && is_empty(c);
        let marks = [
            (!beams.is_empty(), Mark::Beam),
            (drawn && beams.is_empty(), Mark::Drawn),
            (c.content == Content::Stop, Mark::Stop),
            (c.ended, Mark::Ended),
            (c.step_end == StepEnd::Limit, Mark::Cut),
            (c.finish == Finish::Limit, Mark::Truncated),
            (empty, Mark::Empty),
            (c.f.is_none() && !empty, Mark::NoScore),
            (duplicate, Mark::Duplicate),
        ];
        let beam = step.beams.get(c.parent as usize);
        CandidateView {
            index: at as u32,
            parent: c.parent,
            f: c.f,
            probability: c.probability,
            score_probability: others
                .iter()
                .map(|(stage, of)| ((*stage).to_owned(), of[at]))
                .collect(),
            advantage: c.f.zip(beam).map(|(f, beam)| advantage(f, beam.q)),
            step_tokens: c.step_token_ids.len(),
            foresight_tokens: c.foresight_token_ids.len(),
            completion: c.completion,
            step_end: c.step_end,
            finish: c.finish,
            marks: marks
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, m)| *m)
                .collect(),
            beams,
            step_text: c.step_text.clone(),
            foresight_text: c.foresight_text.clone(),
        }
    });
    StepView {
        step: step.step,
        light: step.light,
        candidates: candidates.collect(),
        beams: step
            .beams
            .iter()
            .map(|beam| BeamView {
                origin: beam.origin,
                q: beam.q,
                tokens: beam.token_ids.len(),
            })
            .collect(),
    }
}

fn pairs_view(record: &RolloutRecord, scored: &[ScoreRecord], of: &PairsOf) -> PairsView {
    let (pairs, missing) = match &of.pairs {
        Ok(pairs) => (pairs, None),
        Err(command) => {
            return PairsView {
                stage: of.stage.clone(),
                missing: Some(command.clone()),
                steps: Vec::new(),
            };
        }
    };
    let steps = record.steps.iter().enumerate().map(|(at, step)| {
        let Some(pair) = pairs.iter().find(|pair| pair.step == step.step) else {
            return PairView {
                step: step.step,
                chosen: None,
                rejected: None,
                same_parent: None,
                none: Some(
                    scored
                        .get(at)
                        .map_or("no reason is known", |s| why_dropped(&s.candidates).words()),
                ),
            };
        };
        let (chosen, rejected) = sides(step, pair);
        PairView {
            step: step.step,
            chosen,
            rejected,
            same_parent: Some(pair.same_parent),
            none: None,
        }
    });
    PairsView {
        stage: of.stage.clone(),
        missing,
        steps: steps.collect(),
    }
}

/// The candidates that a pair was made of. A pair holds the tokens of both
/// sides, f and A; of candidates that agree in all of these, and in whether they
/// share a beam, the first is named.
fn sides(step: &StepRecord, pair: &PairRecord) -> (Option<u32>, Option<u32>) {
    let is = |c: &&CandidateRecord, tokens: &[u32], f: f64, a: f64| {
        step.beams.get(c.parent as usize).is_some_and(|beam| {
            let parts = [&beam.token_ids, &c.step_token_ids, &c.foresight_token_ids];
            c.f == Some(f)
                && advantage(f, beam.q) == a
                && parts.into_iter().flatten().eq(tokens.iter())
        })
    };
    let parents = distinct_parents(&step.beams);
    let parent = |c: &CandidateRecord| parents.get(c.parent as usize);
    let chosen = step.candidates.iter().find(|c| {
        is(
            c,
            &pair.chosen_token_ids,
            pair.chosen_score,
            pair.chosen_advantage,
        )
    });
    let rejected = step.candidates.iter().find(|c| {
        let kin = chosen.is_none_or(|w| (parent(w) == parent(c)) == pair.same_parent);
        kin && is(
            c,
            &pair.rejected_token_ids,
            pair.rejected_score,
            pair.rejected_advantage,
        )
    });
    (chosen.map(|c| c.index), rejected.map(|c| c.index))
}
