//! Where steps and responses end, and what is scored then.

use super::*;

/// The next step goes on after the white space of the one before.
#[test]
fn a_beam_ends_behind_its_white_space() {
    let (_, steps, script) = scripted(
        json!({"beams": 1, "rollouts": 1}),
        &[&[("a\n\n  |x$", -1.0, -0.5)], &[("b\n|y$", -1.0, -0.5)]],
    );
    assert_eq!(steps[1].beams[0].token_ids, tokens("a\n\n  "));
    assert_eq!(script.asked[1][0].context, tokens("<q>>a\n\n  "));
}

#[test]
fn without_foresight_tokens_the_terminal_score_decides() {
    let lines: &[Line] = &[
        ("a$", -1.0, 0.0),
        ("b\n|$", -2.0, 0.0),
        ("c\n|", -3.0, 0.0),
        ("d\n|x", -3.0, -0.5),
    ];
    for (terminal, f) in [
        ("step", [-1.0, -2.0, -3.0, -0.5]),
        ("zero", [0.0, 0.0, 0.0, -0.5]),
    ] {
        let (job, steps, _) = scripted(json!({"steps": 1, "terminal_score": terminal}), &[lines]);
        let got: Vec<f64> = steps[0].candidates.iter().filter_map(|c| c.f).collect();
        assert_eq!(got, f, "{terminal}");
        assert_eq!(job.metrics()["terminal_candidates"], json!(3));
        assert_eq!(job.metrics()["truncated_share"], json!(0.5));
        // Only the first ended inside its step.
        let ended: Vec<bool> = steps[0].candidates.iter().map(|c| c.ended).collect();
        assert_eq!(ended, [true, false, false, false]);
    }
}

#[test]
fn a_light_step_scores_the_step_alone() {
    let sure: &[Line] = &[
        ("a\n|x$", -0.1, -9.0),
        ("b\n|x$", -0.2, -9.0),
        ("c\n|x$", -0.1, -9.0),
        ("d\n|x$", -0.2, -9.0),
    ];
    let unsure: &[Line] = &[
        ("a\n|x$", -0.1, -9.0),
        ("b\n|x$", -0.3, -9.0),
        ("c\n|x$", -0.1, -9.0),
        ("d\n|x$", -0.2, -9.0),
    ];
    let (job, steps, _) = scripted(json!({"light": {"threshold": -0.25}}), &[sure, unsure]);
    assert!(steps[0].light && !steps[1].light);
    assert!(steps[0].candidates.iter().all(|c| c.completion));
    assert!(steps[1].candidates.iter().all(|c| !c.completion));
    assert_eq!(steps[0].candidates[1].f.map(|f| f as f32), Some(-0.2));
    assert_eq!(steps[1].candidates[1].f, Some(-9.0));
    // The completion is there for pairs all the same.
    assert_eq!(steps[0].candidates[0].foresight_text, "x");
    assert_eq!(job.metrics()["light_steps"], json!(1));
}

#[test]
fn without_foresight_nothing_depends_on_the_completion() {
    let run = |after: f32, light: Value| {
        let lines: &[Line] = &[
            ("a\n|x$", -1.0, after),
            ("b\n|x$", -1.1, -3.0),
            ("c\n|x$", -1.2, after),
            ("d$", -1.3, 0.0),
        ];
        let (_, steps, _) = scripted(
            json!({"steps": 1, "foresight": false, "terminal_score": "zero", "light": light}),
            &[lines],
        );
        steps.into_iter().next().unwrap()
    };
    let (a, b) = (run(-0.1, Value::Null), run(-7.0, json!({"threshold": 0.0})));
    let scores =
        |s: &StepRecord| -> Vec<_> { s.candidates.iter().map(|c| (c.f, c.probability)).collect() };
    assert_eq!(scores(&a), scores(&b));
    assert_eq!(a.selected, b.selected);
    assert_eq!(a.candidates[3].f.map(|f| f as f32), Some(-1.3));
    assert!(a.candidates.iter().all(|c| c.completion));
    // `light` has no look-ahead to skip there.
    assert!(!b.light);
}

#[test]
fn a_cut_step_is_what_there_is() {
    let (job, steps, _) = scripted(
        json!({"beams": 1, "rollouts": 1}),
        &[&[("abcdefgh~|ij$", -1.0, -0.5)], &[("k\n|l$", -1.0, -0.5)]],
    );
    let c = &steps[0].candidates[0];
    assert_eq!(c.step_end, StepEnd::Limit);
    assert!(!c.ended);
    assert_eq!(steps[1].beams[0].token_ids, tokens("abcdefgh"));
    assert_eq!(job.metrics()["cut_steps"], json!(1));
    assert_eq!(job.metrics()["mean_step_tokens"], json!(5.0));
}

#[test]
fn a_step_that_ends_with_a_stop_text_or_the_last_token_has_ended() {
    let (_, steps, _) = scripted(
        json!({"beams": 1, "rollouts": 2, "max_response_tokens": 3}),
        &[&[("a\n|!", -1.0, 0.0), ("ab\n|", -1.0, 0.0)]],
    );
    assert!(steps[0].candidates.iter().all(|c| c.ended));
    assert_eq!(steps[0].candidates[0].finish, Finish::StopText);
    assert_eq!(steps[0].candidates[1].finish, Finish::Limit);
}

#[test]
fn the_limit_of_a_response_counts_the_beam() {
    let (_, _, script) = scripted(
        json!({"beams": 1, "rollouts": 1, "max_response_tokens": 10}),
        &[&[("abc\n|x$", -1.0, -0.5)], &[("k$", -1.0, -0.5)]],
    );
    let limits = &script.asked[1][0].limits;
    assert_eq!(limits.max_tokens, 6);
    assert_eq!((limits.max_step_tokens, limits.max_after_tokens), (8, 8));
}
