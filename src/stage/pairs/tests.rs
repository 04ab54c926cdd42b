//! Which pairs are drawn, and what is reported of steps without one.

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
    assert_eq!(job.logged(Level::Info).len(), 1);
    assert!(job.logged(Level::Warn).is_empty());
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
    let warned = forbidden.logged(Level::Warn);
    assert!(
        warned[0].starts_with("none of 1 steps gave a pair"),
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
