//! A query as a tree.

use super::*;
use crate::artifact::{
    BeamRecord, CandidateRecord, Content, Finish, PairRecord, RolloutRecord, StepEnd, StepRecord,
};
use crate::method::score::softmax;
use crate::report::show::{PairsOf, ScoreTau};

/// As it is shown, without colour.
fn tree(view: &View, style: &Style) -> String {
    super::tree(view, style).render(false)
}

const PLAIN: Style = Style {
    columns: 110,
    full: false,
};

fn candidate(
    (index, parent): (u32, u32),
    (token, step): (u32, &str),
    foresight: &str,
    f: Option<f64>,
) -> CandidateRecord {
    let end = if step.ends_with('\n') {
        StepEnd::Newline
    } else {
        StepEnd::Limit
    };
    CandidateRecord {
        index,
        parent,
        rollout: 0,
        step_token_ids: vec![token, 9],
        step_logprobs: vec![-1.0, -1.0],
        step_text: step.into(),
        step_end: end,
        content: Content::Text,
        foresight_token_ids: vec![50 + index],
        foresight_logprobs: vec![-1.0],
        foresight_text: foresight.into(),
        completion: false,
        finish: Finish::EndToken,
        f,
        probability: 0.0,
        ended: false,
    }
}

fn step(
    step: u32,
    beams: Vec<BeamRecord>,
    mut candidates: Vec<CandidateRecord>,
    selected: Vec<u32>,
) -> StepRecord {
    let f: Vec<Option<f64>> = candidates.iter().map(|c| c.f).collect();
    for (c, probability) in candidates.iter_mut().zip(softmax(&f, 0.1)) {
        c.probability = probability;
    }
    StepRecord {
        step,
        beams,
        candidates,
        selected,
        light: false,
    }
}

/// Two beams, two rollouts each, two steps; the second step has all that is special.
fn record() -> RolloutRecord {
    let empty = || BeamRecord {
        token_ids: vec![],
        q: 0.0,
        origin: None,
    };
    let grown = |token: u32, q: f64, origin: u32| BeamRecord {
        token_ids: vec![token, 9],
        q,
        origin: Some(origin),
    };
    let mut ended = candidate((2, 1), (6, "The answer is 5."), "", Some(-0.25));
    ended.step_end = StepEnd::Response;
    ended.foresight_token_ids.clear();
    ended.foresight_logprobs.clear();
    ended.ended = true;
    let mut cut = candidate(
        (3, 1),
        (7, "So \u{1b}[31mred and on and on and on it goes"),
        "...",
        Some(-1.5),
    );
    cut.finish = Finish::Limit;
    RolloutRecord {
        query_id: "68bd1520f6acc73b5d61362ad4d1435b".into(),
        query: "What is 2 + 3?\nThink.".into(),
        policy: None,
        system: Some("Be brief.".into()),
        prompt: String::new(),
        prompt_token_ids: vec![90, 91],
        prefix: "The reasoning steps are:\n\n".into(),
        prefix_token_ids: vec![92],
        tau: 0.1,
        steps: vec![
            step(
                1,
                vec![empty(), empty()],
                vec![
                    candidate((0, 0), (1, "Let us add.\n"), "It is 5.", Some(-0.5)),
                    candidate((1, 0), (2, "Two and three.\n"), "Five.\nYes.", Some(-0.6)),
                    candidate((2, 1), (1, "Let us add.\n"), "It is 6.", Some(-0.75)),
                    candidate((3, 1), (3, "\n"), "", None),
                ],
                vec![1, 0],
            ),
            step(
                2,
                vec![grown(2, -0.6, 1), grown(1, -0.5, 0)],
                vec![
                    candidate((0, 0), (5, "2 + 3 = 5\n"), "Done.", Some(-0.75)),
                    candidate((1, 0), (5, "2 + 3 = 5\n"), "So 5.", Some(-0.3)),
                    ended,
                    cut,
                ],
                vec![2, 1],
            ),
        ],
        skipped: None,
    }
}

/// The pair of two candidates of a step.
fn pair(step: &StepRecord, chosen: usize, rejected: usize) -> PairRecord {
    let (w, l) = (&step.candidates[chosen], &step.candidates[rejected]);
    let tokens = |c: &CandidateRecord| {
        let beam = &step.beams[c.parent as usize].token_ids;
        [beam, &c.step_token_ids[..], &c.foresight_token_ids].concat()
    };
    let a = |c: &CandidateRecord| c.f.unwrap() - step.beams[c.parent as usize].q;
    PairRecord {
        query_id: "68bd1520f6acc73b5d61362ad4d1435b".into(),
        policy: None,
        step: step.step,
        prompt: vec![],
        chosen: vec![],
        rejected: vec![],
        chosen_advantage: a(w),
        rejected_advantage: a(l),
        chosen_score: w.f.unwrap(),
        rejected_score: l.f.unwrap(),
        same_parent: step.step == 1 || w.parent == l.parent,
        prompt_token_ids: vec![],
        prefix_token_ids: vec![],
        chosen_token_ids: tokens(w),
        rejected_token_ids: tokens(l),
        chosen_finish: w.finish,
        rejected_finish: l.finish,
    }
}

fn with_pairs(record: &RolloutRecord, pairs: Vec<PairRecord>) -> View {
    let of = PairsOf {
        stage: "pairs".into(),
        pairs: Ok(pairs),
    };
    let score = ScoreTau {
        stage: "score".into(),
        tau: None,
    };
    View::new(record, (2, 3), &[score], &[of])
}

fn view() -> View {
    let record = record();
    let pairs = vec![pair(&record.steps[0], 0, 2), pair(&record.steps[1], 2, 1)];
    with_pairs(&record, pairs)
}

#[test]
fn a_query_is_a_tree_from_its_prompt_to_its_pairs() {
    insta::assert_snapshot!(tree(&view(), &PLAIN), @r"
    query 68bd1520f6acc73b5d61362ad4d1435b (#2 of 3)
      query    What is 2 + 3?⏎Think.
      system   Be brief.
      prefix   The reasoning steps are:⏎⏎
      tau      0.1

    step 1: 2 beams, 4 candidates
    ├─ beam 0: empty
    │  ├─ 0  f -0.500  F 0.690  A -0.500  2+1 tok  beam 1, chosen       Let us add.⏎
    │  └─ 1  f -0.600  F 0.254  A -0.600  2+1 tok  beam 0               Two and three.⏎
    └─ beam 1: empty
       ├─ 2  f -0.750  F 0.057  A -0.750  2+1 tok  rejected, duplicate  Let us add.⏎
       └─ 3  f      -  F 0.000  A      -  2+1 tok  empty                ⏎

    step 2: 2 beams, 4 candidates
    ├─ beam 0: candidate 1 of step 1, Q -0.600, 2 tokens
    │  ├─ 0  f -0.750  F 0.004  A -0.150  2+1 tok                              2 + 3 = 5⏎
    │  └─ 1  f -0.300  F 0.376  A  0.300  2+1 tok  drawn, rejected, duplicate  2 + 3 = 5⏎
    └─ beam 1: candidate 0 of step 1, Q -0.500, 2 tokens
       ├─ 2  f -0.250  F 0.620  A  0.250  2+0 tok  drawn, chosen, ended        The answer is 5.
       └─ 3  f -1.500  F 0.000  A -1.000  2+1 tok  cut, truncated              So \u{1b}[31mred and on and on and…

    pairs of stage `pairs`
    ├─ step 1: chosen 0 (f -0.500, A -0.500), rejected 2 (f -0.750, A -0.750), of one beam
    └─ step 2: chosen 2 (f -0.250, A 0.250), rejected 1 (f -0.300, A 0.300), of different beams, A of the rejected is higher
    ");
}

#[test]
fn where_a_line_has_no_room_its_text_is_below() {
    let style = Style {
        columns: 72,
        ..PLAIN
    };
    let text = tree(&view(), &style);
    let lines: Vec<&str> = text.lines().skip(19).take(4).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    ├─ beam 0: candidate 1 of step 1, Q -0.600, 2 tokens
    │  ├─ 0  f -0.750  F 0.004  A -0.150  2+1 tok
    │  │     2 + 3 = 5⏎
    │  └─ 1  f -0.300  F 0.376  A  0.300  2+1 tok  drawn, rejected, duplicate
    ");
}

#[test]
fn whole_texts_have_their_lines_and_foresights() {
    let style = Style {
        full: true,
        ..PLAIN
    };
    let mut view = view();
    view.steps.truncate(1);
    view.pairs[0].steps.truncate(1);
    insta::assert_snapshot!(tree(&view, &style), @r"
    query 68bd1520f6acc73b5d61362ad4d1435b (#2 of 3)
      query    What is 2 + 3?⏎
               Think.
      system   Be brief.
      prefix   The reasoning steps are:⏎
               ⏎
      tau      0.1

    step 1: 2 beams, 4 candidates
    ├─ beam 0: empty
    │  ├─ 0  f -0.500  F 0.690  A -0.500  2+1 tok  beam 1, chosen
    │  │     step       Let us add.⏎
    │  │     foresight  It is 5.
    │  └─ 1  f -0.600  F 0.254  A -0.600  2+1 tok  beam 0
    │        step       Two and three.⏎
    │        foresight  Five.⏎
    │                   Yes.
    └─ beam 1: empty
       ├─ 2  f -0.750  F 0.057  A -0.750  2+1 tok  rejected, duplicate
       │     step       Let us add.⏎
       │     foresight  It is 6.
       └─ 3  f      -  F 0.000  A      -  2+1 tok  empty
             step       ⏎

    pairs of stage `pairs`
    └─ step 1: chosen 0 (f -0.500, A -0.500), rejected 2 (f -0.750, A -0.750), of one beam
    ");
}

#[test]
fn colours_are_of_the_marks_and_take_no_room() {
    let colored = super::tree(&view(), &PLAIN).render(true);
    assert!(colored.contains("\x1b[32mchosen\x1b[0m"));
    assert!(colored.contains("\x1b[31mrejected\x1b[0m"));
    let codes = regex::Regex::new("\x1b\\[[0-9]+m").unwrap();
    assert_eq!(codes.replace_all(&colored, ""), tree(&view(), &PLAIN));
}

#[test]
fn a_step_without_a_pair_says_why() {
    let mut record = record();
    record.steps.truncate(1);
    for c in &mut record.steps[0].candidates[1..] {
        c.f = None;
    }
    let text = tree(&with_pairs(&record, vec![]), &PLAIN);
    insta::assert_snapshot!(text.lines().last().unwrap(), @"└─ step 1: none (all other responses are empty or have an empty step)");
}

#[test]
fn a_candidate_that_ends_at_once_is_marked() {
    let mut record = record();
    let c = &mut record.steps[1].candidates[2];
    c.content = Content::Stop;
    c.f = Some(-0.5);
    let text = tree(&View::new(&record, (1, 1), &[], &[]), &PLAIN);
    let line = text.lines().find(|l| l.contains("stop")).unwrap();
    assert!(line.contains("f -0.500"), "{line}");
    assert!(
        line.contains("A 0.000") || line.contains("A  0.000"),
        "{line}"
    );
    assert!(line.contains("drawn, stop, ended"), "{line}");
}

/// 1 + 2 3 and 1 2 + 3 are one beam, and were drawn from as one.
#[test]
fn duplicates_are_found_across_parents() {
    let mut record = record();
    let step = &mut record.steps[1];
    step.beams[1].token_ids = [&step.beams[0].token_ids[..], &[77]].concat();
    step.candidates[0].step_token_ids = vec![77, 78];
    step.candidates[3].step_token_ids = vec![78];
    let view = View::new(&record, (1, 1), &[], &[]);
    let duplicates: Vec<bool> = view.steps[1]
        .candidates
        .iter()
        .map(|c| c.marks.contains(&super::super::view::Mark::Duplicate))
        .collect();
    assert_eq!(duplicates, [false, false, false, true]);
}

#[test]
fn what_is_not_there_yet_is_named_with_its_command() {
    let of = PairsOf {
        stage: "pairs".into(),
        pairs: Err("genius run p.yaml --target pairs".into()),
    };
    let text = tree(&View::new(&record(), (1, 1), &[], &[of]), &PLAIN);
    insta::assert_snapshot!(text.lines().last().unwrap(), @"pairs: stage `pairs` has no result yet: `genius run p.yaml --target pairs` computes it");
    let text = tree(&View::new(&record(), (1, 1), &[], &[]), &PLAIN);
    insta::assert_snapshot!(text.lines().last().unwrap(), @"no pairs: no stage of the pipeline makes pairs of these rollouts");
}

#[test]
fn a_score_with_a_tau_of_its_own_has_its_f_beside() {
    let score = ScoreTau {
        stage: "score".into(),
        tau: Some(1.0),
    };
    let mut view = View::new(&record(), (1, 1), &[score], &[]);
    view.steps.truncate(1);
    let text = tree(&view, &PLAIN);
    insta::assert_snapshot!(text.lines().nth(8).unwrap(), @"│  ├─ 0  f -0.500  F 0.690  F of score 0.373  A -0.500  2+1 tok  beam 1     Let us add.⏎");
}

#[test]
fn a_query_that_was_skipped_has_its_reason_and_no_tree() {
    let mut record = record();
    record.steps.clear();
    record.system = None;
    record.skipped = Some("prompt_too_long: 9000 tokens of 8192".into());
    insta::assert_snapshot!(tree(&View::new(&record, (1, 1), &[], &[]), &PLAIN), @r"
    query 68bd1520f6acc73b5d61362ad4d1435b (#1 of 1)
      query    What is 2 + 3?⏎Think.
      prefix   The reasoning steps are:⏎⏎
      tau      0.1
      skipped  prompt_too_long: 9000 tokens of 8192
    ");
}

#[test]
fn light_steps_and_steps_without_foresight_say_what_f_is() {
    let mut record = record();
    record.steps[1].light = true;
    for c in &mut record.steps[0].candidates {
        c.completion = true;
    }
    let text = tree(&View::new(&record, (1, 1), &[], &[]), &PLAIN);
    let heads: Vec<&str> = text.lines().filter(|l| l.starts_with("step")).collect();
    assert_eq!(
        heads,
        [
            "step 1: 2 beams, 4 candidates, without foresight: f is the step's own",
            "step 2: 2 beams, 4 candidates, light: no look-ahead, f is the step's own"
        ]
    );
}

/// A user's own file may hold anything that parses.
#[test]
fn a_record_that_contradicts_itself_stops_nothing() {
    let mut record = record();
    record.steps[0].candidates[3].parent = 7;
    record.steps[0].selected = vec![40];
    record.steps[1].beams[0].origin = Some(40);
    let text = tree(&with_pairs(&record, vec![]), &PLAIN);
    assert!(text.contains("step 2: none (no reason is known)"), "{text}");
}

#[test]
fn numbers_are_never_nan_and_nothing_has_no_sign() {
    assert_eq!(number(None), "-");
    assert_eq!(number(Some(f64::NAN)), "-");
    assert_eq!(number(Some(f64::NEG_INFINITY)), "-");
    assert_eq!(number(Some(-0.000_001)), "0.000");
    assert_eq!(number(Some(-0.0)), "0.000");
    assert_eq!(number(Some(-1.25)), "-1.250");
}

#[test]
fn programs_get_the_same_as_json() {
    let json = serde_json::to_value(view()).unwrap();
    let c = &json["steps"][1]["candidates"][2];
    assert_eq!(c["marks"], serde_json::json!(["drawn", "chosen", "ended"]));
    assert_eq!(c["advantage"], 0.25);
    assert_eq!(
        json["steps"][0]["candidates"][0]["beams"],
        serde_json::json!([1])
    );
    assert_eq!(json["pairs"][0]["steps"][1]["rejected"], 1);
}
