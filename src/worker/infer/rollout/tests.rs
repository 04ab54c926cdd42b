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

mod contract;
mod ends;
mod kept;
mod models;

/// Rolls out what no earlier run has kept.
fn roll_out(context: &Context, engine: &mut dyn Engine, text: &dyn Text) -> JobResult {
    let mut driver = Driver::new(context, typed_params(context), text)?;
    if driver.is_needed() {
        driver.roll_out(engine)?;
    }
    driver.finish()
}

/// The parameters of a rollout.
fn typed_params(context: &Context) -> &Params {
    match &context.job.params {
        genius::kind::Params::Rollout(params) => params,
        other => panic!("{other:?}"),
    }
}

/// The stage on the engine that it asks for.
fn run(context: &Context) -> JobResult {
    super::run(context, typed_params(context))
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

/// Rolls one query out by a script that must be used up.
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
    // After "b", then after "a".
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
