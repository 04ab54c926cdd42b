//! `score`: f, F_k and advantages of every candidate from the rollout record,
//! each with its whole response. See [`ScoreRecord`].

use serde_json::json;

use super::{Context, JobResult};
use crate::artifact::{
    Finish, JsonlReader, JsonlWriter, METRICS_FILE, ROLLOUTS_FILE, RolloutRecord, SCORES_FILE,
    ScoreRecord, ScoredCandidate, StepRecord, write_json,
};
use crate::kind::score::Params;
use crate::method::beam::distinct_parents;
use crate::method::figures::TerminalFigures;
use crate::method::mean::Mean;
use crate::method::score::{advantage, entropy, is_terminal, softmax};
use crate::protocol::{Failure, Figure, Level, Unit};

/// Computes the stage: a [`ScoreRecord`] a step, in the order of the rollouts.
///
/// f is the record's, since the rollout's parameters decided it; F_k is computed again
/// with this stage's tau.
///
/// # Errors
/// When the rollouts cannot be read, or contradict themselves.
pub fn run(context: &Context, params: &Params) -> JobResult {
    let path = context.input("rollouts")?.join(ROLLOUTS_FILE);
    let mut writer = JsonlWriter::create(&context.output("scores")?.join(SCORES_FILE))?;
    let mut totals = Totals::default();
    for rollout in JsonlReader::<RolloutRecord>::open(&path)? {
        context.check_cancelled()?;
        let rollout = rollout?;
        let scores = score_rollout(&rollout, params.tau.unwrap_or(rollout.tau)).map_err(|e| {
            Failure::new(format!(
                "{}: query {}: {e}",
                path.display(),
                rollout.query_id
            ))
            .hint("the file was changed or made by another program: run the rollout again")
        })?;
        totals.add(&rollout, &scores);
        for score in &scores {
            writer.write(score)?;
        }
    }
    writer.finish()?;
    write_json(
        &context.output("metrics")?.join(METRICS_FILE),
        &totals.metrics(),
    )?;
    if totals.skipped > 0 {
        context.log(
            Level::Info,
            format!(
                "{} of {} queries were skipped by the rollout",
                totals.skipped, totals.queries
            ),
        );
    }
    if totals.steps == 0 {
        context.log(
            Level::Warn,
            "the rollouts hold no step: there is nothing to score",
        );
    }
    Ok(vec![
        Figure::new("steps", totals.steps, Unit::Count),
        Figure::new("candidates", totals.candidates, Unit::Count),
        Figure::new("mean_f", totals.f.json(), Unit::Nats),
    ])
}

/// The records of one query's steps, F_k at `tau`.
///
/// # Errors
/// When the record contradicts itself, with the reason.
pub fn score_rollout(rollout: &RolloutRecord, tau: f64) -> Result<Vec<ScoreRecord>, String> {
    let mut scores = Vec::with_capacity(rollout.steps.len());
    let mut before: Option<(&StepRecord, Vec<String>)> = None;
    for step in &rollout.steps {
        let texts = beam_texts(
            step,
            before
                .as_ref()
                .map(|(step, texts)| (*step, texts.as_slice())),
        )
        .map_err(|e| format!("step {}: {e}", step.step))?;
        scores.push(ScoreRecord {
            query_id: rollout.query_id.clone(),
            query: rollout.query.clone(),
            policy: rollout.policy.clone(),
            system: rollout.system.clone(),
            step: step.step,
            prompt_token_ids: rollout.prompt_token_ids.clone(),
            prefix: rollout.prefix.clone(),
            prefix_token_ids: rollout.prefix_token_ids.clone(),
            tau,
            candidates: score_step(step, &texts, tau),
        });
        before = Some((step, texts));
    }
    Ok(scores)
}

/// Texts of a step's beams: those of the steps that they grew from, joined.
/// Also checks what the rest of the stage assumes of a record.
fn beam_texts(
    step: &StepRecord,
    before: Option<(&StepRecord, &[String])>,
) -> Result<Vec<String>, String> {
    for (position, c) in step.candidates.iter().enumerate() {
        if c.index as usize != position || c.parent as usize >= step.beams.len() {
            return Err(format!(
                "candidate {position} has index {} and parent {}",
                c.index, c.parent
            ));
        }
    }
    let mut texts = Vec::with_capacity(step.beams.len());
    for (position, beam) in step.beams.iter().enumerate() {
        let (tokens, text) = match (beam.origin, before) {
            (None, _) => (Vec::new(), String::new()),
            (Some(origin), Some((before, texts))) => {
                let c = before
                    .candidates
                    .get(origin as usize)
                    .ok_or_else(|| format!("beam {position} grew from no candidate ({origin})"))?;
                let parent = c.parent as usize;
                (
                    [&before.beams[parent].token_ids[..], &c.step_token_ids].concat(),
                    format!("{}{}", texts[parent], c.step_text),
                )
            }
            (Some(origin), None) => {
                return Err(format!(
                    "beam {position} grew from {origin}, but there is no step before it"
                ));
            }
        };
        if tokens != beam.token_ids {
            return Err(format!(
                "beam {position} has other tokens than the candidate it grew from"
            ));
        }
        texts.push(text);
    }
    Ok(texts)
}

/// A step's candidates with F_k, A and their whole responses.
fn score_step(step: &StepRecord, beam_texts: &[String], tau: f64) -> Vec<ScoredCandidate> {
    let scores: Vec<Option<f64>> = step.candidates.iter().map(|c| c.f).collect();
    let probabilities = softmax(&scores, tau);
    let parents = distinct_parents(&step.beams);
    step.candidates
        .iter()
        .zip(probabilities)
        .map(|(c, probability)| {
            let parent = c.parent as usize;
            let beam = &step.beams[parent];
            ScoredCandidate {
                index: c.index,
                parent: parents[parent],
                terminal: is_terminal(c),
                f: c.f,
                q: beam.q,
                advantage: c.f.map(|f| advantage(f, beam.q)),
                probability,
                response_token_ids: [
                    &beam.token_ids[..],
                    &c.step_token_ids,
                    &c.foresight_token_ids,
                ]
                .concat(),
                response: [&beam_texts[parent], c.step_text.as_str(), &c.foresight_text].concat(),
                finish: c.finish,
            }
        })
        .collect()
}

/// The data of the metrics.
#[derive(Default)]
struct Totals {
    queries: u64,
    skipped: u64,
    steps: u64,
    candidates: u64,
    empty: u64,
    terminal: TerminalFigures,
    truncated: Mean,
    f: Mean,
    advantage: Mean,
    entropy: Mean,
}

impl Totals {
    fn add(&mut self, rollout: &RolloutRecord, scores: &[ScoreRecord]) {
        self.queries += 1;
        self.skipped += u64::from(rollout.skipped.is_some());
        self.steps += scores.len() as u64;
        for step in &rollout.steps {
            self.terminal.add(step);
            self.candidates += step.candidates.len() as u64;
            for c in &step.candidates {
                self.truncated.add_if(c.finish == Finish::Limit);
            }
        }
        for score in scores {
            let mut probabilities = Vec::with_capacity(score.candidates.len());
            for c in &score.candidates {
                match (c.f, c.advantage) {
                    (Some(f), Some(advantage)) => {
                        self.f.add(f);
                        self.advantage.add(advantage);
                        probabilities.push(c.probability);
                    }
                    _ => self.empty += 1,
                }
            }
            if !probabilities.is_empty() {
                self.entropy.add(entropy(&probabilities));
            }
        }
    }

    fn metrics(&self) -> serde_json::Value {
        let mut metrics = json!({
            "queries": self.queries,
            "skipped_queries": self.skipped,
            "steps": self.steps,
            "candidates": self.candidates,
            "empty_candidates": self.empty,
            "truncated_share": self.truncated.json(),
            "mean_f": self.f.json(),
            "mean_advantage": self.advantage.json(),
            "mean_entropy": self.entropy.json(),
        });
        self.terminal.write(&mut metrics);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{BeamRecord, CandidateRecord, Content, StepEnd};
    use crate::kind::StageKind;
    use crate::stage::run_light;
    use crate::stage::testing::TestJob;

    fn candidate(
        index: u32,
        parent: u32,
        step: (u32, &str),
        foresight: (u32, &str),
        f: Option<f64>,
    ) -> CandidateRecord {
        CandidateRecord {
            index,
            parent,
            rollout: 0,
            step_token_ids: vec![step.0],
            step_logprobs: vec![-1.0],
            step_text: step.1.into(),
            step_end: StepEnd::Newline,
            content: Content::Text,
            foresight_token_ids: vec![foresight.0],
            foresight_logprobs: vec![-1.0],
            foresight_text: foresight.1.into(),
            completion: false,
            finish: Finish::Limit,
            f,
            probability: 0.0,
            ended: false,
        }
    }

    /// Two steps: the second grows from candidates 1 and 0 of the first.
    fn rollout() -> RolloutRecord {
        let mut ended = candidate(1, 1, (7, "c"), (0, ""), Some(-0.25));
        ended.foresight_token_ids.clear();
        ended.foresight_logprobs.clear();
        ended.finish = Finish::EndToken;
        ended.ended = true;
        RolloutRecord {
            query_id: "q".into(),
            query: "1+1?".into(),
            policy: Some("ab".repeat(32)),
            system: Some("Be brief.".into()),
            prompt: "<user>1+1?".into(),
            prompt_token_ids: vec![90, 91],
            prefix: "Steps:\n".into(),
            prefix_token_ids: vec![92],
            tau: 0.1,
            steps: vec![
                StepRecord {
                    step: 1,
                    beams: vec![BeamRecord {
                        token_ids: vec![],
                        q: 0.0,
                        origin: None,
                    }],
                    candidates: vec![
                        candidate(0, 0, (1, "a\n"), (11, "x"), Some(-0.5)),
                        candidate(1, 0, (2, "b\n"), (12, "y"), Some(-0.6)),
                    ],
                    selected: vec![1, 0],
                    light: false,
                },
                StepRecord {
                    step: 2,
                    beams: vec![
                        BeamRecord {
                            token_ids: vec![2],
                            q: -0.6,
                            origin: Some(1),
                        },
                        BeamRecord {
                            token_ids: vec![1],
                            q: -0.5,
                            origin: Some(0),
                        },
                    ],
                    candidates: vec![candidate(0, 0, (6, "d\n"), (13, "z"), Some(-0.75)), ended],
                    selected: vec![],
                    light: false,
                },
            ],
            skipped: None,
        }
    }

    fn job(tau: Option<f64>, rollouts: &[RolloutRecord]) -> TestJob {
        TestJob::new(StageKind::Score, json!({ "tau": tau })).with_input(
            "rollouts",
            ROLLOUTS_FILE,
            rollouts,
        )
    }

    #[test]
    fn a_response_is_beam_step_and_foresight() {
        let job = job(None, &[rollout()]);
        job.run(run_light).unwrap();
        let scores: Vec<ScoreRecord> = job.records("scores", SCORES_FILE);
        let responses: Vec<(&[u32], &str)> = scores
            .iter()
            .flat_map(|s| &s.candidates)
            .map(|c| (&c.response_token_ids[..], c.response.as_str()))
            .collect();
        assert_eq!(
            responses,
            [
                (&[1, 11][..], "a\nx"),
                (&[2, 12], "b\ny"),
                (&[2, 6, 13], "b\nd\nz"),
                (&[1, 7], "a\nc"),
            ]
        );
        assert_eq!(scores[1].policy, Some("ab".repeat(32)));
        assert_eq!(scores[1].prompt_token_ids, [90, 91]);
        assert_eq!(scores[1].prefix_token_ids, [92]);
        assert_eq!(scores[1].system.as_deref(), Some("Be brief."));
    }

    #[test]
    fn the_advantage_is_against_the_own_parent() {
        let job = job(None, &[rollout()]);
        job.run(run_light).unwrap();
        let scores: Vec<ScoreRecord> = job.records("scores", SCORES_FILE);
        let step_2: Vec<_> = scores[1]
            .candidates
            .iter()
            .map(|c| (c.q, c.advantage))
            .collect();
        assert_eq!(step_2, [(-0.6, Some(-0.75 + 0.6)), (-0.5, Some(0.25))]);
        assert_eq!(scores[0].candidates[1].advantage, Some(-0.6));
    }

    #[test]
    fn parents_with_the_same_tokens_are_one() {
        let mut record = rollout();
        let beam = |token_ids: &[u32], q: f64| BeamRecord {
            token_ids: token_ids.to_vec(),
            q,
            origin: None,
        };
        // The empty beams of step 1, as a rollout with M = 2 has them.
        record.steps[0].beams = vec![beam(&[], 0.0), beam(&[], 0.0)];
        record.steps[0].candidates[1].parent = 1;
        let scores = score_rollout(&record, 0.1).unwrap();
        let parents = |step: usize| -> Vec<u32> {
            scores[step].candidates.iter().map(|c| c.parent).collect()
        };
        assert_eq!(parents(0), [0, 0]);
        // Those of step 2 differ.
        assert_eq!(parents(1), [0, 1]);
        let terminal: Vec<bool> = scores[1].candidates.iter().map(|c| c.terminal).collect();
        assert_eq!(terminal, [false, true]);
    }

    #[test]
    fn tau_is_the_rollouts_unless_given() {
        for (given, used) in [(None, 0.1), (Some(0.05), 0.05)] {
            let job = job(given, &[rollout()]);
            job.run(run_light).unwrap();
            let scores: Vec<ScoreRecord> = job.records("scores", SCORES_FILE);
            assert_eq!(scores[0].tau, used);
            // Two candidates: the logistic function of the gap, 0.1 here.
            let first = 1.0 / (1.0 + (-0.1f64 / used).exp());
            assert!((scores[0].candidates[0].probability - first).abs() < 1e-12);
        }
    }

    #[test]
    fn metrics_count_what_there_was() {
        let mut skipped = rollout();
        skipped.steps.clear();
        skipped.skipped = Some("the prompt is longer than the context".into());
        let mut with_empty = rollout();
        with_empty.steps.truncate(1);
        with_empty.steps[0].candidates[0].f = None;
        let job = job(None, &[rollout(), skipped, with_empty]);
        let figures = job.run(run_light).unwrap();
        assert_eq!(figures[0], Figure::new("steps", 3, Unit::Count));
        let metrics = job.metrics();
        for (name, count) in [
            ("queries", 3),
            ("skipped_queries", 1),
            ("steps", 3),
            ("candidates", 6),
            ("empty_candidates", 1),
        ] {
            assert_eq!(metrics[name], json!(count), "{name}");
        }
        let number = |name: &str| metrics[name].as_f64().unwrap();
        assert!((number("terminal_share") - 1.0 / 6.0).abs() < 1e-12);
        // The terminal one was not drawn; its f is -0.25.
        assert_eq!(number("selected_terminal_share"), 0.0);
        assert_eq!(number("mean_f_terminal"), -0.25);
        assert!((number("mean_f_other") - (-0.5 - 0.6 - 0.75 - 0.6) / 4.0).abs() < 1e-12);
        assert!((number("truncated_share") - 5.0 / 6.0).abs() < 1e-12);
        assert!((number("mean_f") - (-0.5 - 0.6 - 0.75 - 0.25 - 0.6) / 5.0).abs() < 1e-12);
        assert!((number("mean_advantage") - (-0.5 - 0.6 - 0.15 + 0.25 - 0.6) / 5.0).abs() < 1e-12);
        // Entropies of (0.731, 0.269), (0.0067, 0.9933) and of a lone candidate.
        assert!((number("mean_entropy") - (0.582_203 + 0.040_179) / 3.0).abs() < 1e-4);
    }

    #[test]
    fn nothing_to_score_is_said() {
        let job = job(None, &[]);
        assert_eq!(job.run(run_light).unwrap()[2].value, json!(null));
        assert_eq!(job.logged(Level::Warn).len(), 1);
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let mut other_tokens = rollout();
        other_tokens.steps[1].beams[0].token_ids = vec![3];
        let mut no_parent = rollout();
        no_parent.steps[0].candidates[0].parent = 1;
        let mut no_origin = rollout();
        no_origin.steps[1].beams[0].origin = Some(9);
        let mut headless = rollout();
        headless.steps.remove(0);
        for (record, message) in [
            (other_tokens, "query q: step 2: beam 0 has other tokens"),
            (
                no_parent,
                "query q: step 1: candidate 0 has index 0 and parent 1",
            ),
            (
                no_origin,
                "query q: step 2: beam 0 grew from no candidate (9)",
            ),
            (
                headless,
                "query q: step 2: beam 0 grew from 1, but there is no step before it",
            ),
        ] {
            let failure = job(None, &[record]).run(run_light).unwrap_err();
            assert!(failure.message.contains(message), "{failure}");
        }
    }
}
