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
                "no pair came of {} steps ({}): there is nothing to train on; more rollouts, a higher temperature or longer limits give responses that differ",
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
    /// For people.
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
        // At step 1 all beams are empty, whatever number a file of one's own gives them.
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

/// Whether a candidate may be no side: it has no f, or (in a file of one's own) its
/// response has no text.
fn is_empty(c: &ScoredCandidate) -> bool {
    c.f.is_none() || c.response.trim().is_empty()
}

/// The first filter behind which fewer than two different responses are left: why
/// a step without a pair has none.
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

/// What the metrics are made from.
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
mod tests {
    use super::*;
    use crate::kind::StageKind;
    use crate::stage::run_light;
    use crate::stage::testing::TestJob;

    /// A step of candidates (parent, response token, f, finish); Q is -1 at parent 1,
    /// else 0. Those of odd tokens are terminal.
    fn step(query_id: &str, candidates: &[(u32, u32, Option<f64>, Finish)]) -> ScoreRecord {
        ScoreRecord {
            query_id: query_id.into(),
            query: " 1+1?".into(),
            policy: Some("ab".repeat(32)),
            system: None,
            step: 2,
            prompt_token_ids: vec![90, 91],
            prefix: "Steps:\n\n".into(),
            prefix_token_ids: vec![92],
            tau: 0.1,
            candidates: candidates
                .iter()
                .enumerate()
                .map(|(index, &(parent, token, f, finish))| {
                    let q = -f64::from(parent);
                    ScoredCandidate {
                        index: index as u32,
                        parent,
                        terminal: token % 2 == 1,
                        f,
                        q,
                        advantage: f.map(|f| f - q),
                        probability: 0.0,
                        response_token_ids: vec![token, 2],
                        response: format!(" token {token}\n"),
                        finish,
                    }
                })
                .collect(),
        }
    }

    const END: Finish = Finish::EndToken;
    const CUT: Finish = Finish::Limit;

    fn job(negative: &str, drop_truncated: bool, steps: &[ScoreRecord]) -> TestJob {
        let params = json!({ "negative": negative, "drop_truncated": drop_truncated, "seed": 3 });
        TestJob::new(StageKind::Pairs, params).with_input("scores", SCORES_FILE, steps)
    }

    #[test]
    fn the_highest_f_is_chosen_and_the_lowest_rejected() {
        let steps = [step(
            "q",
            &[
                (0, 5, Some(-0.5), END),
                (1, 6, Some(-0.25), CUT),
                (1, 7, Some(-0.25), END),
                (0, 8, Some(-0.75), END),
            ],
        )];
        let job = job("lowest", false, &steps);
        assert_eq!(
            job.run(run_light).unwrap(),
            [
                Figure::new("pairs", 1, Unit::Count),
                Figure::new("dropped", 0, Unit::Count),
                Figure::new("chosen_terminal_share", 0.0, Unit::Fraction),
                Figure::new("rejected_terminal_share", 0.0, Unit::Fraction),
                Figure::new("same_parent_share", 0.0, Unit::Fraction),
            ]
        );
        let pairs: Vec<PairRecord> = job.records("pairs", PAIRS_FILE);
        let message = |role: &str, content: &str| ChatMessage {
            role: role.into(),
            content: content.into(),
        };
        assert_eq!(
            pairs,
            [PairRecord {
                query_id: "q".into(),
                policy: Some("ab".repeat(32)),
                step: 2,
                prompt: vec![message("user", " 1+1?")],
                // Prefix and response as they stand, white space included.
                chosen: vec![message("assistant", "Steps:\n\n token 6\n")],
                rejected: vec![message("assistant", "Steps:\n\n token 8\n")],
                chosen_advantage: 0.75,
                rejected_advantage: -0.75,
                chosen_score: -0.25,
                rejected_score: -0.75,
                same_parent: false,
                prompt_token_ids: vec![90, 91],
                prefix_token_ids: vec![92],
                chosen_token_ids: vec![6, 2],
                rejected_token_ids: vec![8, 2],
                chosen_finish: CUT,
                rejected_finish: END,
            }]
        );
    }

    #[test]
    fn an_empty_response_is_never_a_side() {
        let mut record = step(
            "q",
            &[
                (0, 5, Some(-0.1), END),
                (0, 6, Some(-0.5), END),
                (0, 7, Some(-0.6), END),
                (0, 8, Some(-0.9), END),
            ],
        );
        record.candidates[0].response = String::new();
        record.candidates[3].response = " \n".into();
        let job = job("lowest", false, &[record]);
        job.run(run_light).unwrap();
        let pairs: Vec<PairRecord> = job.records("pairs", PAIRS_FILE);
        assert_eq!(
            (pairs[0].chosen_score, pairs[0].rejected_score),
            (-0.5, -0.6)
        );
        assert_eq!(job.metrics()["empty_candidates"], json!(2));
    }

    #[test]
    fn a_system_prompt_comes_first() {
        let mut record = step("q", &[(0, 5, Some(-0.5), END), (0, 6, Some(-0.6), END)]);
        record.system = Some("Be brief.".into());
        let job = job("lowest", false, &[record]);
        job.run(run_light).unwrap();
        let pairs: Vec<PairRecord> = job.records("pairs", PAIRS_FILE);
        let roles: Vec<&str> = pairs[0].prompt.iter().map(|m| m.role.as_str()).collect();
        assert_eq!(roles, ["system", "user"]);
        assert!(pairs[0].same_parent);
    }

    #[test]
    fn steps_without_two_sides_are_dropped_and_counted() {
        let steps = [
            step("a", &[(0, 5, Some(-0.5), END), (0, 5, Some(-0.6), END)]),
            step("b", &[(0, 5, Some(-0.5), END)]),
            step("c", &[(0, 5, Some(-0.5), END), (0, 6, None, END)]),
            step("d", &[(0, 5, None, END), (0, 6, None, END)]),
            step("e", &[(0, 5, Some(-0.5), END), (0, 6, Some(-0.5), CUT)]),
            step("f", &[(0, 5, Some(-0.5), CUT), (0, 6, Some(-0.5), CUT)]),
            step(
                "g",
                &[
                    (0, 5, Some(-0.1), CUT),
                    (0, 6, Some(-0.5), END),
                    (0, 7, Some(-0.6), END),
                ],
            ),
        ];
        let job = job("categorical", true, &steps);
        let figures = job.run(run_light).unwrap();
        assert_eq!(
            figures[..2],
            [
                Figure::new("pairs", 1, Unit::Count),
                Figure::new("dropped", 6, Unit::Count)
            ]
        );
        let metrics = job.metrics();
        assert_eq!(
            metrics["dropped"],
            json!({ "no_distinct_response": 2, "empty": 2, "truncated": 2 })
        );
        assert_eq!(metrics["empty_candidates"], json!(3));
        assert_eq!(metrics["truncated_candidates"], json!(4));
        // The highest f of g is cut: the next one is chosen.
        let pairs: Vec<PairRecord> = job.records("pairs", PAIRS_FILE);
        assert_eq!(
            (pairs[0].chosen_token_ids[0], pairs[0].rejected_token_ids[0]),
            (6, 7)
        );
        assert_eq!(job.said(Level::Info).len(), 1);
        assert!(job.said(Level::Warn).is_empty());
    }

    #[test]
    fn a_cut_response_may_be_a_side_unless_forbidden() {
        let steps = [step(
            "e",
            &[(0, 5, Some(-0.5), END), (0, 6, Some(-0.5), CUT)],
        )];
        let allowed = job("categorical", false, &steps);
        assert_eq!(allowed.run(run_light).unwrap()[0].value, json!(1));
        let forbidden = job("categorical", true, &steps);
        let nothing = forbidden.run(run_light).unwrap();
        assert_eq!((nothing.len(), &nothing[0].value), (2, &json!(0)));
        let warned = forbidden.said(Level::Warn);
        assert!(
            warned[0].starts_with("no pair came of 1 steps"),
            "{warned:?}"
        );
        assert_eq!(forbidden.metrics()["mean_chosen_advantage"], json!(null));
        assert_eq!(
            std::fs::read(forbidden.path("pairs", PAIRS_FILE)).unwrap(),
            b""
        );
    }

    #[test]
    fn shares_and_means_are_of_the_pairs() {
        let steps = [
            // A_w = -0.5, A_l = 0.4: across beams, and weighted.
            step("a", &[(0, 5, Some(-0.5), END), (1, 6, Some(-0.6), END)]),
            // A_w = -0.5, A_l = -1.
            step("b", &[(0, 5, Some(-0.5), END), (0, 7, Some(-1.0), END)]),
        ];
        let job = job("uniform", false, &steps);
        job.run(run_light).unwrap();
        let metrics = job.metrics();
        assert_eq!(metrics["same_parent_share"], json!(0.5));
        assert_eq!(metrics["rejected_advantage_higher_share"], json!(0.5));
        assert_eq!(metrics["chosen_terminal_share"], json!(1.0));
        assert_eq!(metrics["rejected_terminal_share"], json!(0.5));
        assert_eq!(metrics["mean_chosen_advantage"], json!(-0.5));
        assert!((metrics["mean_rejected_advantage"].as_f64().unwrap() + 0.3).abs() < 1e-12);
    }

    #[test]
    fn at_step_one_all_beams_are_one_parent() {
        let mut steps = [
            step("a", &[(0, 5, Some(-0.5), END), (1, 6, Some(-0.6), END)]),
            step("b", &[(0, 5, Some(-0.5), END), (1, 6, Some(-0.6), END)]),
        ];
        steps[0].step = 1;
        let job = job("lowest", false, &steps);
        job.run(run_light).unwrap();
        let pairs: Vec<PairRecord> = job.records("pairs", PAIRS_FILE);
        assert!(pairs[0].same_parent && !pairs[1].same_parent);
        assert_eq!(job.metrics()["same_parent_share"], json!(0.5));
    }

    #[test]
    fn a_pair_does_not_depend_on_the_other_queries() {
        let candidates: Vec<_> = (0..16).map(|i| (0, i, Some(-0.5), END)).collect();
        let steps: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|id| step(id, &candidates))
            .collect();
        let pairs = |steps: &[ScoreRecord]| {
            let job = job("categorical", false, steps);
            job.run(run_light).unwrap();
            job.records::<PairRecord>("pairs", PAIRS_FILE)
        };
        let all = pairs(&steps);
        assert_eq!(pairs(&steps[2..3]), all[2..3]);
        // And each draws for itself.
        let rejected: std::collections::BTreeSet<u32> =
            all.iter().map(|p| p.rejected_token_ids[0]).collect();
        assert!(rejected.len() > 1, "{rejected:?}");
    }
}
