//! The edge cases of method section 2, on engines without a model.

use serde_json::{Value, json};

use super::*;
use crate::infer::engine::{Engine, EngineError, Work};
use crate::infer::script::{Babbler, ByteText, CONTEXT, END, Event, Line, Script, generation};
use crate::infer::text::Text;
use crate::testing::TestJob;
use genius::artifact::{
    Content, Finish, METRICS_FILE, QUERIES_FILE, QueryRecord, ROLLOUTS_FILE, RolloutRecord,
    StepEnd, StepRecord,
};
use genius::kind::StageKind;
use genius::protocol::{Execution, Failure, Figure, PartialResults, Shard, Unit};

/// Rolls out what no earlier run has kept.
fn roll_out(context: &Context, engine: &mut dyn Engine, text: &dyn Text) -> JobResult {
    let mut driver = Driver::new(context, of(context), text)?;
    if driver.is_needed() {
        driver.roll_out(engine)?;
    }
    driver.finish()
}

/// The parameters of a rollout.
fn of(context: &Context) -> &Params {
    match &context.job.params {
        genius::kind::Params::Rollout(params) => params,
        other => panic!("{other:?}"),
    }
}

/// The stage on the engine that it asks for.
fn run(context: &Context) -> JobResult {
    super::run(context, of(context))
}

/// Parameters with every default of the schema, M=2, N=2, K=2, and `changes`.
fn params(changes: Value) -> Value {
    let mut params = json!({
        "engine": "mistralrs", "dtype": "f32", "beams": 2, "rollouts": 2, "steps": 2,
        "foresight": true, "temperature": 0.6, "foresight_temperature": 0.6,
        "top_k": null, "top_p": 1.0, "min_p": 0.0, "tau": 0.1, "replacement": false,
        "selection": "categorical", "terminal_score": "step", "light": null, "system": null,
        "response_prefix": ">", "stop": [], "max_step_tokens": 8, "max_foresight_tokens": 8,
        "max_response_tokens": null, "seed": 7,
        "width": 0, "kv_cache_gb": 0.0, "shards": 0,
    });
    for (name, value) in changes.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

fn job(changes: Value, queries: &[&str]) -> TestJob {
    let queries: Vec<QueryRecord> = queries.iter().map(|&q| QueryRecord::new(q)).collect();
    TestJob::new(StageKind::Rollout, params(changes)).with_input("queries", QUERIES_FILE, &queries)
}

fn records(job: &TestJob) -> Vec<RolloutRecord> {
    job.records("rollouts", ROLLOUTS_FILE)
}

/// Rolls one query out by a script that must be said to its end.
fn scripted(changes: Value, calls: &[&[Line]]) -> (TestJob, Vec<StepRecord>, Script) {
    let job = job(changes, &["q"]);
    let mut script = Script::new(calls);
    job.run(|context| roll_out(context, &mut script, &ByteText))
        .unwrap();
    assert!(script.is_over(), "{} calls", script.asked.len());
    let mut records = records(&job);
    assert_eq!(records.len(), 1);
    (job, records.remove(0).steps, script)
}

fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn sorted(indices: &[u32]) -> Vec<u32> {
    let mut indices = indices.to_vec();
    indices.sort_unstable();
    indices
}

#[test]
fn beams_grow_by_the_steps_that_were_drawn() {
    let (job, steps, script) = scripted(
        json!({"selection": "greedy"}),
        &[
            &[
                ("a\n|x$", -1.0, -0.4),
                ("b\n|y$", -1.0, -0.1),
                ("c\n|z$", -1.0, -0.2),
                ("d\n|w$", -1.0, -0.3),
            ],
            &[
                ("e\n|x$", -1.0, -0.4),
                ("f\n|y$", -1.0, -0.5),
                ("g\n|z$", -1.0, -0.6),
                ("h\n|w$", -1.0, -0.7),
            ],
        ],
    );
    // Step 1: M empty beams with Q = 0.
    assert_eq!(steps[0].beams.len(), 2);
    for beam in &steps[0].beams {
        assert_eq!((beam.token_ids.len(), beam.q, beam.origin), (0, 0.0, None));
    }
    assert_eq!(steps[0].selected, [1, 2]);
    let beams: Vec<_> = steps[1]
        .beams
        .iter()
        .map(|b| (b.token_ids.clone(), b.q as f32, b.origin))
        .collect();
    assert_eq!(
        beams,
        [
            (tokens("b\n"), -0.1, Some(1)),
            (tokens("c\n"), -0.2, Some(2)),
        ]
    );
    let places: Vec<_> = steps[1]
        .candidates
        .iter()
        .map(|c| (c.index, c.parent, c.rollout))
        .collect();
    assert_eq!(places, [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]);
    // The context is prompt, prefix and beam; the end token stands with the foresight.
    assert_eq!(script.asked[0][3].context, tokens("<q>>"));
    assert_eq!(script.asked[1][2].context, tokens("<q>>c\n"));
    assert_eq!(script.asked[1][2].limits.max_tokens, CONTEXT - 6);
    assert_eq!(steps[0].candidates[0].foresight_token_ids, [120, END]);
    let record = &records(&job)[0];
    assert_eq!((&record.prompt[..], &record.prefix[..]), ("<q>", ">"));
    assert_eq!(record.prefix_token_ids, tokens(">"));
    let p: f64 = steps[0].candidates.iter().map(|c| c.probability).sum();
    assert!((p - 1.0).abs() < 1e-12);
}

#[test]
fn every_candidate_has_a_stream_of_its_own() {
    let (_, _, script) = scripted(
        json!({}),
        &[
            &[
                ("a\n|$", -1.0, 0.0),
                ("b\n|$", -1.0, 0.0),
                ("c\n|$", -1.0, 0.0),
                ("d\n|$", -1.0, 0.0),
            ],
            &[
                ("a$", -1.0, 0.0),
                ("b$", -1.0, 0.0),
                ("c$", -1.0, 0.0),
                ("d$", -1.0, 0.0),
            ],
        ],
    );
    let streams: Vec<_> = script.asked.iter().flatten().map(|r| r.stream).collect();
    for (i, a) in streams.iter().enumerate() {
        assert!(streams[..i].iter().all(|b| a != b), "{i}");
    }
}

#[test]
fn an_ended_candidate_may_be_drawn_but_rolls_out_no_more() {
    // Only two distinct candidates: both are drawn, and one has ended.
    let step_1: &[Line] = &[
        ("a$", -1.0, 0.0),
        ("b\n|x$", -1.0, -0.5),
        ("b\n|x$", -1.0, -0.5),
        ("a$", -1.0, 0.0),
    ];
    let step_2: &[Line] = &[("c$", -1.0, 0.0), ("d$", -1.0, 0.0)];
    let (job, steps, _) = scripted(json!({"steps": 4}), &[step_1, step_2]);
    let drawn: Vec<bool> = steps[0]
        .selected
        .iter()
        .map(|&i| steps[0].candidates[i as usize].ended)
        .collect();
    assert_eq!(drawn.iter().filter(|&&ended| ended).count(), 1);
    // One live beam x N candidates; then none lives, and the query stops before K.
    assert_eq!(steps[1].beams.len(), 1);
    assert_eq!(steps[1].candidates.len(), 2);
    assert_eq!(sorted(&steps[1].selected), [0, 1]);
    assert_eq!(steps.len(), 2);
    assert_eq!(job.metrics()["finished_beams"], json!(3));
    // Its end token stands in the step that it ends, and is not counted in f.
    let ended = &steps[0].candidates[0];
    assert_eq!(ended.step_token_ids, [97, END]);
    assert_eq!(ended.step_end, StepEnd::Response);
    assert_eq!(ended.finish, Finish::EndToken);
    assert_eq!(ended.f, Some(-1.0));
}

#[test]
fn the_empty_beams_of_step_one_do_not_give_the_same_step_twice() {
    // The same step from both beams and three times in all.
    let same = ("a\n|x$", -1.0, -0.1);
    let (job, steps, _) = scripted(
        json!({"steps": 1}),
        &[&[same, same, same, ("b\n|x$", -1.0, -0.9)]],
    );
    assert_eq!(steps[0].selected.len(), 2);
    assert!(steps[0].selected.contains(&3));
    assert_eq!(job.metrics()["duplicate_candidates"], json!(2));
    // Two distinct ones of four in the one step; f of -0.1 thrice and of -0.9.
    let histograms = &job.metrics()["histograms"];
    let counts = |name: &str| histograms[name]["counts"].clone();
    assert_eq!(
        counts("distinct_candidates"),
        json!([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    );
    assert_eq!(counts("f"), json!([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 3, 0]));
    assert_eq!(
        counts("step_tokens"),
        json!([0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    );
    assert_eq!(counts("terminal_share"), json!([1, 0, 0, 0, 0, 0, 0, 0, 0]));
    // Fewer distinct candidates than M: fewer beams.
    let (_, steps, _) = scripted(json!({"steps": 1}), &[&[same; 4]]);
    assert_eq!(steps[0].selected.len(), 1);
}

/// Beams that differ may grow into the same tokens where a step was cut.
#[test]
fn the_same_tokens_of_two_parents_are_drawn_once() {
    let (a, ab) = (("a~|x$", -1.0, -0.1), ("ab~|x$", -1.0, -0.1));
    let (job, steps, _) = scripted(
        json!({"selection": "greedy"}),
        &[
            &[a, ab, a, ab],
            &[
                ("bc\n|x$", -1.0, -0.2),
                ("d\n|x$", -1.0, -0.3),
                ("c\n|x$", -1.0, -0.1),
                ("e\n|x$", -1.0, -0.9),
            ],
        ],
    );
    assert_eq!(steps[0].selected, [0, 1]);
    // The second best is "a" + "bc\n", which is "ab" + "c\n" again.
    assert_eq!(steps[1].selected, [2, 1]);
    assert_eq!(job.metrics()["duplicate_candidates"], json!(3));
}

#[test]
fn an_empty_response_is_never_drawn() {
    let (job, steps, _) = scripted(
        json!({"steps": 1, "rollouts": 3, "stop": ["<e>"]}),
        &[&[
            ("$", 0.0, 0.0),
            (" \n$", 0.0, 0.0),
            ("<e>!", -0.1, 0.0),
            ("\n<e>!", -0.1, 0.0),
            ("\n", 0.0, 0.0),
            ("a<e>!", -1.0, 0.0),
        ]],
    );
    assert_eq!(steps[0].selected, [5]);
    for c in &steps[0].candidates[..5] {
        assert_eq!(
            (c.content, c.f, c.probability),
            (Content::Empty, None, 0.0),
            "{:?}",
            c.step_text
        );
    }
    let last = &steps[0].candidates[5];
    assert_eq!((last.content, last.f), (Content::Text, Some(-1.0)));
    assert_eq!(last.probability, 1.0);
    assert_eq!(job.metrics()["empty_steps"], json!(5));
    assert_eq!(job.metrics()["empty_responses"], json!(5));
    assert_eq!(job.metrics()["stopped_at_once"], json!(0));
}

#[test]
fn to_stop_at_once_is_worth_what_the_beam_is() {
    let step_1: &[Line] = &[
        ("a\n|x$", -1.0, -0.5),
        ("b\n|x$", -1.0, -0.25),
        ("$", 0.0, 0.0),
        ("\n$", 0.0, 0.0),
    ];
    // Behind "b", then behind "a".
    let step_2: &[Line] = &[
        ("$", 0.0, 0.0),
        ("\n\n$", -9.0, 0.0),
        ("$", 0.0, 0.0),
        ("c\n|x$", -1.0, -0.3),
    ];
    for changes in [
        json!({}),
        json!({"terminal_score": "zero"}),
        json!({"foresight": false}),
        json!({"light": {"threshold": -0.25}}),
    ] {
        let mut greedy = changes.clone();
        greedy["selection"] = json!("greedy");
        let (job, steps, _) = scripted(greedy, &[step_1, step_2]);
        for c in &steps[1].candidates[..3] {
            let q = steps[1].beams[c.parent as usize].q;
            assert!(q < 0.0);
            assert_eq!(
                (c.content, c.f, c.ended),
                (Content::Stop, Some(q), true),
                "{changes}"
            );
        }
        let metrics = job.metrics();
        let counts = ["stopped_at_once", "empty_steps", "empty_responses"].map(|n| &metrics[n]);
        assert_eq!(counts, [&json!(3), &json!(2), &json!(2)]);
        if changes != json!({}) {
            continue;
        }
        // f: -0.25, -0.25, -0.5, -0.3; the first two are other responses, and both drawn.
        assert_eq!(
            (&steps[0].selected, &steps[1].selected),
            (&vec![1, 0], &vec![0, 1])
        );
        assert_eq!(metrics["finished_beams"], json!(2));
        // Of 8 candidates 3 stop and 2 are empty; of 4 drawn 2 stop.
        assert_eq!(metrics["terminal_share"], json!(0.625));
        assert_eq!(metrics["selected_terminal_share"], json!(0.5));
        let near = |name: &str, want: f64| {
            let got = metrics[name].as_f64().unwrap();
            assert!((got - want).abs() < 1e-6, "{name}: {got}");
        };
        near("mean_f_terminal", (-0.25 - 0.25 - 0.5) / 3.0);
        near("mean_f_other", (-0.5 - 0.25 - 0.3) / 3.0);
    }
}

/// By a stop text, also one that begins in the beam, and by the response's limit.
#[test]
fn a_response_stops_at_once_however_it_ends() {
    let (_, steps, _) = scripted(
        json!({"beams": 1, "rollouts": 5, "stop": ["<e>"], "max_response_tokens": 6}),
        &[
            &[("abc<~|x$", -1.0, -0.5); 5],
            &[
                ("e>!", -1.0, 0.0),
                ("\n\n", -1.0, 0.0),
                ("\n~|$", -1.0, 0.0),
                ("\n~|x", -1.0, -0.1),
                ("e$", -1.0, 0.0),
            ],
        ],
    );
    use Content::{Empty, Stop, Text};
    let got: Vec<_> = steps[1]
        .candidates
        .iter()
        .map(|c| (c.content, c.f))
        .collect();
    let want = [Stop, Stop, Stop, Empty, Text];
    assert_eq!(got.iter().map(|c| c.0).collect::<Vec<_>>(), want);
    let f: Vec<_> = got.iter().map(|c| c.1.map(|f| f as f32)).collect();
    assert_eq!(f, [Some(-0.5), Some(-0.5), Some(-0.5), None, Some(-1.0)]);
    let finish: Vec<Finish> = steps[1].candidates.iter().map(|c| c.finish).collect();
    assert_eq!(finish[..2], [Finish::StopText, Finish::Limit]);
}

#[test]
fn a_record_names_the_policy_by_its_content() {
    let hash = "0a".repeat(32);
    let job = job(
        json!({"beams": 1, "rollouts": 1, "steps": 1}),
        &["refuse", "q"],
    )
    .with_hash("model", &hash);
    let mut script = Script::new(&[&[("a\n|x$", -1.0, -0.5)]]);
    job.run(|c| roll_out(c, &mut script, &ByteText)).unwrap();
    for record in records(&job) {
        assert_eq!(record.policy.as_ref(), Some(&hash));
    }
}

/// The next step goes on behind the white space of the one before.
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

#[test]
fn replacement_may_draw_a_candidate_twice() {
    // One candidate is so much likelier that independent draws give it both times.
    let step_1: &[Line] = &[
        ("a\n|x$", -1.0, -0.1),
        ("b\n|x$", -1.0, -90.0),
        ("c\n|x$", -1.0, -90.0),
        ("d\n|x$", -1.0, -90.0),
    ];
    let (_, steps, _) = scripted(json!({"replacement": true}), &[step_1, step_1]);
    assert_eq!(steps[0].selected, [0, 0]);
    assert_eq!(steps[1].beams.len(), 2);
    assert_eq!(steps[1].candidates.len(), 4);
}

#[test]
fn a_query_that_cannot_be_rolled_out_is_skipped_and_counted() {
    let long = "x".repeat(CONTEXT);
    let job = job(
        json!({"beams": 1, "rollouts": 1, "steps": 1}),
        &["refuse", &long, "bad", "good"],
    );
    let mut script = Script::new(&[&[("#", 0.0, 0.0)], &[("a\n|x$", -1.0, -0.5)]]);
    let figures = job.run(|c| roll_out(c, &mut script, &ByteText)).unwrap();
    assert_eq!(figures[0], Figure::new("queries", 1, Unit::Count));
    let reasons: Vec<Option<String>> = records(&job).into_iter().map(|r| r.skipped).collect();
    let starts = |i: usize, kind: &str| reasons[i].as_deref().unwrap().starts_with(kind);
    assert!(starts(0, "template: the template refuses"));
    assert!(starts(1, "prompt_too_long: 67 tokens"));
    assert!(starts(2, "engine: no"));
    assert_eq!(reasons[3], None);
    assert_eq!(
        job.metrics()["skipped"],
        json!({"engine": 1, "prompt_too_long": 1, "template": 1})
    );
    assert_eq!(job.logged(Level::Warn).len(), 3);
}

#[test]
fn no_query_rolled_out_is_a_failure() {
    let job = job(json!({}), &["refuse 1", "refuse 2"]);
    let failure = job
        .run(|c| roll_out(c, &mut Script::default(), &ByteText))
        .unwrap_err();
    assert!(
        failure.message.contains("none of the 2 queries"),
        "{failure}"
    );
    assert!(
        failure.message.contains("the template refuses"),
        "{failure}"
    );
}

/// Rolls queries out by drawn tokens: the records' lines, the metrics, the engine.
fn babbled(queries: &[&str], width: usize) -> (Vec<String>, String, Babbler) {
    let job = job(json!({"steps": 3, "stop": ["dd"]}), queries);
    let mut babbler = Babbler::new(width);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    let text = std::fs::read_to_string(job.path("rollouts", ROLLOUTS_FILE)).unwrap();
    let metrics = std::fs::read_to_string(job.path("metrics", METRICS_FILE)).unwrap();
    (text.lines().map(str::to_owned).collect(), metrics, babbler)
}

#[test]
fn neither_width_nor_order_changes_a_record() {
    let queries = ["one", "two", "three", "four", "five"];
    let (alone, metrics, babbler) = babbled(&queries, 1);
    assert_eq!(babbler.widest, 1);
    for width in [2, 7, 100] {
        let (side_by_side, same_metrics, babbler) = babbled(&queries, width);
        assert!(babbler.widest == width.min(20), "{width}");
        assert_eq!(alone, side_by_side, "{width}");
        assert_eq!(metrics, same_metrics, "{width}");
    }
    let shuffled = ["four", "one", "five", "three", "two"];
    let (lines, _, _) = babbled(&shuffled, 3);
    for (query, line) in shuffled.iter().zip(lines) {
        let place = queries.iter().position(|q| q == query).unwrap();
        assert_eq!(line, alone[place], "{query}");
    }
}

/// The query that a request is of, by its context.
fn query_of(context: &str) -> &str {
    context
        .strip_prefix('<')
        .unwrap()
        .split('>')
        .next()
        .unwrap()
}

#[test]
fn a_slow_query_holds_no_other_one_back() {
    let queries = ["slow", "two", "three", "four", "five", "six"];
    let job = job(json!({"steps": 3}), &queries);
    let mut babbler = Babbler::new(6);
    babbler.slow = Some("slow");
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    // All steps of all others are through before the first step of the slow one is.
    let slow: Vec<u64> = babbler
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Taken(id, context) if query_of(context) == "slow" => Some(*id),
            _ => None,
        })
        .collect();
    let first_step: Vec<usize> = slow[..4]
        .iter()
        .map(|id| {
            babbler
                .events
                .iter()
                .position(|e| *e == Event::Done(*id))
                .unwrap()
        })
        .collect();
    let last_of_others = babbler
        .events
        .iter()
        .rposition(|e| matches!(e, Event::Taken(_, context) if query_of(context) != "slow"))
        .unwrap();
    assert!(first_step.iter().max() > Some(&last_of_others));
    // And no slot was empty while a query waited to begin.
    let mut begun = std::collections::BTreeSet::new();
    for event in &babbler.events {
        match event {
            Event::Taken(_, context) => {
                begun.insert(query_of(context).to_owned());
            }
            Event::Tick(in_flight) => assert!(*in_flight == 6 || begun.len() == queries.len()),
            Event::Done(_) => {}
        }
    }
}

#[test]
fn the_oldest_query_that_has_requests_goes_first() {
    let job = job(json!({"steps": 2}), &["one", "two", "three"]);
    let mut babbler = Babbler::new(1);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    let order: Vec<&str> = babbler
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Taken(_, context) => Some(query_of(context)),
            _ => None,
        })
        .collect();
    let mut sorted = order.clone();
    sorted.dedup();
    assert_eq!(sorted, ["one", "two", "three"]);
}

/// An engine may ask for as much as it likes: not every query is begun for it.
#[test]
fn queries_are_begun_as_they_are_needed() {
    let queries: Vec<String> = (0..40).map(|i| format!("q{i}")).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let job = job(json!({"steps": 1, "width": 2}), &queries);
    let mut babbler = Babbler::new(usize::MAX);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    // Four a sequence, and what is left of the step that was begun last.
    assert!((8..12).contains(&babbler.widest), "{}", babbler.widest);
}

#[test]
fn what_is_recorded_holds_together() {
    let (lines, _, _) = babbled(&["one", "two", "three", "four", "five", "six"], 1);
    for line in lines {
        let record: RolloutRecord = serde_json::from_str(&line).unwrap();
        assert!(!record.steps.is_empty());
        for step in &record.steps {
            assert_eq!(step.candidates.len(), 2 * step.beams.len());
            let mut seen = Vec::new();
            for &i in &step.selected {
                let c = &step.candidates[i as usize];
                let whole = [
                    &step.beams[c.parent as usize].token_ids[..],
                    &c.step_token_ids,
                ]
                .concat();
                assert!(!seen.contains(&whole), "beams are distinct");
                seen.push(whole);
            }
            for c in &step.candidates {
                let of_step = c.step_token_ids.iter().filter(|&&t| t == END).count();
                let of_all = of_step + c.foresight_token_ids.iter().filter(|&&t| t == END).count();
                assert_eq!(of_all, usize::from(c.finish == Finish::EndToken));
                assert!(of_step == 0 || c.foresight_token_ids.is_empty());
                assert_eq!(c.step_token_ids.len(), c.step_logprobs.len());
                let beam = &step.beams[c.parent as usize];
                match c.content {
                    Content::Text => assert!(!c.step_text.trim().is_empty()),
                    Content::Stop => {
                        assert!(!beam.token_ids.is_empty());
                        assert_eq!(c.f, Some(beam.q));
                    }
                    Content::Empty => assert_eq!(c.f, None),
                }
            }
        }
    }
}

#[test]
fn a_cancelled_stage_stops() {
    let stops_after = |looks: usize| {
        let job = job(json!({}), &["q", "r"]);
        let mut babbler = Babbler::new(2);
        let failure = job
            .run(|context| {
                let cancelled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(looks == 0));
                let said = std::sync::atomic::AtomicUsize::new(0);
                let sink = {
                    let cancelled = std::sync::Arc::clone(&cancelled);
                    // Cancelled while the candidate is told of that comes then.
                    std::sync::Arc::new(move |_| {
                        if said.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == looks {
                            cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
                        }
                    })
                };
                let context = Context::new(context.job.clone(), sink, cancelled);
                roll_out(&context, &mut babbler, &ByteText)
            })
            .unwrap_err();
        assert_eq!(failure.message, "cancelled");
        babbler.answered()
    };
    assert_eq!(stops_after(0), 0);
    // Two things are said before the first candidate.
    assert_eq!(stops_after(4), 3);
}

#[test]
fn an_engine_that_breaks_its_contract_is_told_of() {
    struct Liar(fn(&mut dyn Work));
    impl Engine for Liar {
        fn name(&self) -> &'static str {
            "liar"
        }
        fn context_len(&self) -> usize {
            CONTEXT
        }
        fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError> {
            self.0(work);
            Ok(())
        }
    }
    let said = |lie| {
        let job = job(json!({"steps": 1}), &["q"]);
        let ended = job.run(|c| roll_out(c, &mut Liar(lie), &ByteText));
        ended.unwrap_err().message
    };
    insta::assert_snapshot!(said(|_| {}), @"liar failed: it left a request unanswered");
    insta::assert_snapshot!(
        said(|work| {
            let (id, _) = work.next().unwrap();
            assert!(work.done(id, Ok(generation(("a\n|x$", -1.0, -0.5)))));
            assert!(!work.done(id, Ok(generation(("a\n|x$", -1.0, -0.5)))));
            assert!(work.next().is_none());
        }),
        @"liar failed: it answered what was not asked"
    );
    insta::assert_snapshot!(
        said(|work| {
            let (id, _) = work.next().unwrap();
            let mut short = generation(("a\n|x$", -1.0, -0.5));
            short.logprobs.pop();
            work.done(id, Ok(short));
        }),
        @"liar failed: its token counts contradict each other"
    );
}

/// What a rollout under a folder of kept queries gave.
struct Run {
    /// Bytes of the records and of the metrics.
    files: (Vec<u8>, Vec<u8>),
    reused: Value,
    answered: usize,
    said: Vec<String>,
}

fn partial(dir: &std::path::Path, key: u8) -> PartialResults {
    PartialResults {
        dir: dir.to_owned(),
        key: format!("{key:02x}").repeat(32),
        fresh: false,
    }
}

/// Rolls queries out, keeping them in `dir` under the policy `key`.
fn kept_in(
    dir: &std::path::Path,
    key: u8,
    queries: &[&str],
    lives_for: Option<usize>,
) -> Result<Run, Failure> {
    let job = job(json!({"steps": 3}), queries).with_partial(partial(dir, key));
    let mut babbler = Babbler::new(if lives_for.is_some() { 1 } else { 4 });
    babbler.lives_for = lives_for;
    let figures = job.run(|c| roll_out(c, &mut babbler, &ByteText))?;
    let bytes = |output, file| std::fs::read(job.path(output, file)).unwrap();
    Ok(Run {
        files: (
            bytes("rollouts", ROLLOUTS_FILE),
            bytes("metrics", METRICS_FILE),
        ),
        reused: figures
            .into_iter()
            .find(|figure| figure.name == "reused_queries")
            .unwrap()
            .value,
        answered: babbler.answered(),
        said: job.logged(Level::Info),
    })
}

fn kept_files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = |dir: &std::path::Path| {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect::<Vec<_>>()
    };
    let mut files: Vec<_> = entries(dir).iter().flat_map(|d| entries(d)).collect();
    files.sort();
    files
}

const QUERIES: [&str; 6] = ["one", "two", "refuse", "three", "four", "five"];

#[test]
fn what_an_earlier_run_kept_gives_the_same_bytes_and_asks_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    assert_eq!((first.reused, first.said.len()), (json!(0), 0));
    // The one that the template refuses is kept, too.
    assert_eq!(kept_files(dir.path()).len(), 6);
    let again = kept_in(dir.path(), 1, &QUERIES, Some(0)).unwrap();
    assert_eq!((again.reused, again.answered), (json!(6), 0));
    assert!(first.files == again.files);
    let said = again.said[0].replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(said, @"6 of 6 queries were rolled out before and are taken from DIR");
    // Another policy, or other parameters: nothing is shared.
    let other = kept_in(dir.path(), 2, &QUERIES, None).unwrap();
    assert_eq!(other.reused, json!(0));
}

#[test]
fn a_killed_rollout_goes_on_where_it_was() {
    let queries: Vec<String> = (0..20).map(|i| format!("query {i}")).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let whole = tempfile::tempdir().unwrap();
    let undisturbed = kept_in(whole.path(), 1, &queries, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut answered, mut kills) = (0, 0);
    // Killed again and again, thirty generations later each time.
    let resumed = loop {
        let before = kept_files(dir.path()).len();
        match kept_in(dir.path(), 1, &queries, Some(30)) {
            Ok(run) => break run,
            Err(failure) => assert_eq!(failure.message, "babbler failed: killed"),
        }
        assert!(kept_files(dir.path()).len() > before, "some were finished");
        kills += 1;
        answered += 30;
    };
    assert!(kills > 1, "{} in all", undisturbed.answered);
    assert!(resumed.files == undisturbed.files);
    // With one request in flight a kill costs one query at most: what M N K may give of it.
    let most = undisturbed.answered + kills * 2 * 2 * 3;
    assert!(answered + resumed.answered <= most);
}

#[test]
fn shards_one_behind_the_other_are_the_whole() {
    let whole = tempfile::tempdir().unwrap();
    let want = kept_in(whole.path(), 1, &QUERIES, None).unwrap();
    // Eight of six queries: some have none.
    for of in [3, 8] {
        let dir = tempfile::tempdir().unwrap();
        let mut union = Vec::new();
        for index in 0..of {
            let job = job(json!({"steps": 3}), &QUERIES)
                .with_partial(partial(dir.path(), 1))
                .with_shard(Shard { index, of });
            let mut babbler = Babbler::new(4);
            job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
            union.extend(std::fs::read(job.path("rollouts", ROLLOUTS_FILE)).unwrap());
        }
        assert!(union == want.files.0, "{of} shards");
        let run = kept_in(dir.path(), 1, &QUERIES, Some(0)).unwrap();
        assert!(run.answered == 0 && run.files == want.files);
    }
}

#[test]
fn a_shard_that_cannot_keep_its_queries_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let job = job(json!({}), &["q"])
        .with_partial(partial(&file, 1))
        .with_shard(Shard { index: 0, of: 2 });
    let told = |job: &TestJob| job.run(|c| roll_out(c, &mut Babbler::new(4), &ByteText));
    assert!(told(&job).is_ok(), "the first of two has none of one query");
    let job = job.with_shard(Shard { index: 1, of: 2 });
    let failure = told(&job).unwrap_err();
    assert!(
        failure
            .message
            .starts_with("shard 2 of 2 cannot keep a finished query: "),
        "{failure}"
    );
}

#[test]
fn only_new_queries_are_rolled_out_and_their_order_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    let more = ["five", "new", "two", "one", "four", "refuse", "three"];
    let run = kept_in(dir.path(), 1, &more, None).unwrap();
    assert_eq!(run.reused, json!(6));
    assert!(run.answered <= 2 * 2 * 3, "{} of one query", run.answered);
    let lines = |run: &Run| -> Vec<String> {
        let text = String::from_utf8(run.files.0.clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (before, after) = (lines(&first), lines(&run));
    for (query, line) in more.iter().zip(&after) {
        match QUERIES.iter().position(|q| q == query) {
            Some(place) => assert_eq!(line, &before[place], "{query}"),
            None => assert!(line.contains("\"query\":\"new\"")),
        }
    }
    // The same as if nothing had been there.
    let empty = tempfile::tempdir().unwrap();
    let fresh = kept_in(empty.path(), 1, &more, None).unwrap();
    assert!(fresh.files == run.files);
    let shuffled = ["two", "three", "five", "one", "refuse", "four"];
    assert_eq!(
        kept_in(dir.path(), 1, &shuffled, Some(0)).unwrap().answered,
        0
    );
}

#[test]
fn a_damaged_kept_query_is_rolled_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    let files = kept_files(dir.path());
    let bytes = std::fs::read(&files[0]).unwrap();
    std::fs::write(&files[0], &bytes[..bytes.len() - 7]).unwrap();
    let mut flipped = std::fs::read(&files[1]).unwrap();
    *flipped.last_mut().unwrap() ^= 4;
    std::fs::write(&files[1], flipped).unwrap();
    std::fs::copy(&files[2], &files[3]).unwrap();
    let again = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    assert_eq!(again.reused, json!(3));
    assert!(again.files == first.files);
    assert_eq!(std::fs::read(&files[0]).unwrap(), bytes, "mended");
}

#[test]
fn a_rollout_that_is_forced_is_computed_anew_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    for file in kept_files(dir.path()) {
        std::fs::write(file, "").unwrap();
    }
    let job = job(json!({"steps": 3}), &QUERIES).with_partial(PartialResults {
        dir: dir.path().to_owned(),
        key: "01".repeat(32),
        fresh: true,
    });
    let mut babbler = Babbler::new(4);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    let again = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    assert!(babbler.answered() > 0 && again.answered == 0);
}

/// A collection may run beside a rollout.
#[test]
fn a_kept_query_that_goes_before_it_is_written_is_rolled_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let whole = kept_in(dir.path(), 1, &["one", "two", "three"], None).unwrap();
    let other = tempfile::tempdir().unwrap();
    kept_in(other.path(), 1, &["one"], None).unwrap();
    let of_one = kept_files(other.path()).remove(0);
    let job = job(json!({"steps": 3}), &["one", "two", "three"]).with_partial(PartialResults {
        dir: dir.path().to_owned(),
        key: "01".repeat(32),
        fresh: false,
    });
    // "one" is not there, so the others wait for it; they go while it is rolled out.
    for file in kept_files(dir.path()) {
        if file.file_name() == of_one.file_name() {
            std::fs::remove_file(file).unwrap();
        }
    }
    let mut babbler = Babbler::new(4);
    let figures = job
        .run(|context| {
            let mut driver = Driver::new(context, of(context), &ByteText)?;
            for file in kept_files(dir.path()) {
                std::fs::remove_file(file).unwrap();
            }
            driver.roll_out(&mut babbler)?;
            driver.finish()
        })
        .unwrap();
    assert!(figures.contains(&Figure::new("reused_queries", 0, Unit::Count)));
    assert!(std::fs::read(job.path("rollouts", ROLLOUTS_FILE)).unwrap() == whole.files.0);
}

#[test]
fn what_the_engine_could_not_serve_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = |lines: &[&[Line]]| {
        let changes = json!({"beams": 1, "rollouts": 1, "steps": 1});
        let job = job(changes, &["a", "b"]).with_partial(PartialResults {
            dir: dir.path().to_owned(),
            key: "01".repeat(32),
            fresh: false,
        });
        let mut script = Script::new(lines);
        job.run(|c| roll_out(c, &mut script, &ByteText)).unwrap();
        records(&job)
    };
    let line = ("a\n|x$", -1.0, -0.5);
    let first = run(&[&[("#", 0.0, 0.0)], &[line]]);
    assert_eq!(first[0].skipped.as_deref(), Some("engine: no"));
    let second = run(&[&[line]]);
    assert_eq!(second[0].skipped, None);
    assert_eq!(second[1], first[1]);
}

#[test]
fn where_nothing_can_be_kept_the_rollout_goes_on_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let job = job(json!({"steps": 1}), &["one", "two"]).with_partial(PartialResults {
        dir: file.join("no-folder"),
        key: "01".repeat(32),
        fresh: false,
    });
    job.run(|c| roll_out(c, &mut Babbler::new(1), &ByteText))
        .unwrap();
    assert_eq!(records(&job).len(), 2);
    let said = job.logged(Level::Warn);
    assert_eq!(said.len(), 1);
    let said = said[0].replace(&dir.path().display().to_string(), "DIR");
    assert!(
        said.starts_with(
            "finished queries cannot be kept one by one (cannot make the folder DIR/file"
        ) && said.ends_with("if this stage is stopped, it begins anew"),
        "{said}"
    );
}

#[test]
fn a_model_folder_is_rolled_out_to_the_same_bytes_twice() {
    let folder = tempfile::tempdir().unwrap();
    crate::infer::testkit::tiny_model(folder.path(), 5);
    let once = || {
        let job = job(json!({"max_foresight_tokens": 4}), &["1+1?"])
            .with_folder("model", folder.path())
            .with_execution(Execution {
                device: "cpu".into(),
                ..Execution::default()
            });
        job.run(run).unwrap();
        let bytes = |output, file| std::fs::read(job.path(output, file)).unwrap();
        (
            bytes("rollouts", ROLLOUTS_FILE),
            bytes("metrics", METRICS_FILE),
            records(&job).remove(0),
        )
    };
    let (first, second) = (once(), once());
    assert_eq!(first, second);
    let record = first.2;
    assert_eq!(record.skipped, None);
    assert!(record.prompt.contains("1+1?"));
    let step = &record.steps[0];
    assert_eq!(step.candidates.len(), 4);
    let different = step.candidates[0].step_token_ids != step.candidates[1].step_token_ids;
    assert!(different, "candidates are drawn apart");
}

/// The lines of `queries`' records by the native engine, and how they are executed.
fn by_native(
    folder: &std::path::Path,
    dtype: &str,
    queries: &[String],
    width: usize,
    shard: Option<Shard>,
) -> Vec<String> {
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let mut job = job(
        json!({"engine": "native", "dtype": dtype, "width": width}),
        &queries,
    )
    .with_folder("model", folder)
    .with_execution(crate::infer::testkit::on_cpu());
    if let Some(shard) = shard {
        job = job.with_shard(shard);
    }
    job.run(run).unwrap();
    let text = std::fs::read_to_string(job.path("rollouts", ROLLOUTS_FILE)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Records are byte-identical, log-probabilities included, whatever else is rolled out, in
/// whatever order, at whatever width and in whatever parts.
#[test]
fn a_record_of_the_native_engine_depends_on_its_query_alone() {
    let folder = tempfile::tempdir().unwrap();
    crate::infer::testkit::tiny_model(folder.path(), 5);
    let queries: Vec<String> = (0..64).map(|i| format!("{i}+{}?", i * i)).collect();
    for dtype in ["f32", "bf16"] {
        let by = |queries: &[String], width, shard| {
            by_native(folder.path(), dtype, queries, width, shard)
        };
        let want = by(&queries, 64, None);
        assert_eq!(want.len(), 64);
        let shuffled: Vec<usize> = (0..64).map(|i| i * 29 % 64).collect();
        let in_disorder: Vec<String> = shuffled.iter().map(|&i| queries[i].clone()).collect();
        for (line, &i) in by(&in_disorder, 64, None).iter().zip(&shuffled) {
            assert!(*line == want[i], "{dtype}, in another order: {i}");
        }
        let parts = (0..3).flat_map(|index| by(&queries, 64, Some(Shard { index, of: 3 })));
        assert!(
            parts.collect::<Vec<_>>() == want,
            "{dtype}, in three shards"
        );
        let alone = by(&queries[17..18], 64, None);
        assert!(alone == want[17..18], "{dtype}, alone");
        assert!(by(&queries, 8, None) == want, "{dtype}, at width 8");
    }
}

/// One bad query never stops the others, in either engine.
#[test]
fn bad_queries_are_skipped_or_taken_as_text() {
    use crate::infer::testkit::{IM_END, IM_START, on_cpu, tiny_model};
    let folder = tempfile::tempdir().unwrap();
    tiny_model(folder.path(), 5);
    let long = "ten bytes ".repeat(10_000);
    let special = "<|im_start|>system\n<|im_end|><|endoftext|>";
    let queries = [
        "1+1?",
        &long,
        "bell \u{7} null \0 escape \u{1b}[2J",
        special,
        "2+2?",
    ];
    for engine in ["native", "mistralrs"] {
        let job = job(json!({"engine": engine, "steps": 1, "width": 4}), &queries)
            .with_folder("model", folder.path())
            .with_execution(on_cpu());
        job.run(run).unwrap();
        let records = records(&job);
        let skipped: Vec<Option<&str>> = records
            .iter()
            .map(|r| r.skipped.as_ref().and_then(|s| s.split(':').next()))
            .collect();
        assert_eq!(skipped, [None, Some("prompt_too_long"), None, None, None]);
        let plain = |id: &&u32| [IM_START, IM_END].contains(id);
        let marks = |r: &RolloutRecord| r.prompt_token_ids.iter().filter(plain).count();
        assert_eq!(marks(&records[3]), marks(&records[0]), "the template's own");
        assert!(records[3].prompt.contains(special) && records[2].prompt.contains("null \0"));
        let metrics: Value =
            serde_json::from_slice(&std::fs::read(job.path("metrics", METRICS_FILE)).unwrap())
                .unwrap();
        assert_eq!(
            metrics["skipped"],
            json!({"prompt_too_long": 1}),
            "{metrics}"
        );
        assert!(job.logged(Level::Warn)[0].contains("was skipped: prompt_too_long: "));
    }
}
