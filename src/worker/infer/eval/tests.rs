//! Evaluation on an engine with scripted answers.

use serde_json::Value;

use super::*;
use crate::infer::script::{ByteText, Line, Script};
use crate::testing::TestJob;
use genius::artifact::Finish;
use genius::kind::StageKind;

/// A job over one benchmark file with `lines`, and `changes` to the benchmark.
fn job(folder: &tempfile::TempDir, lines: &str, changes: Value) -> TestJob {
    let path = folder.path().join("bench.jsonl");
    std::fs::write(&path, lines).unwrap();
    TestJob::new(
        StageKind::Eval,
        json!({
            "engine": "mistralrs", "dtype": "f32", "seed": 3, "width": 0, "kv_cache_gb": 0.0,
            "benchmarks": [benchmark(&path, changes)],
        }),
    )
}

fn benchmark(path: &std::path::Path, changes: Value) -> Value {
    let mut benchmark = json!({
        "name": "sums", "path": path, "answer": "number", "question_field": "question",
        "answer_field": "answer", "limit": null, "system": null, "template": "{question}",
        "response_prefix": "", "stop": [], "temperature": 0.0, "max_tokens": 16,
    });
    for (name, value) in changes.as_object().unwrap() {
        benchmark[name] = value.clone();
    }
    benchmark
}

fn run_with(job: &TestJob, script: &mut Script) -> JobResult {
    job.run(|context| {
        let genius::kind::Params::Eval(params) = &context.job.params else {
            panic!("{:?}", context.job.params);
        };
        let benchmarks = read_benchmarks(params)?;
        evaluate(context, params.seed, &benchmarks, script, &ByteText)
    })
}

const THREE: &str = r#"{"id": "s1", "question": "1+1", "answer": "1+1=2\n#### 2"}

{"question": "2+2", "answer": 4}
{"id": 7, "question": "3+3", "answer": "6"}
"#;

fn line(text: &'static str) -> Line {
    (text, -1.0, -1.0)
}

#[test]
fn items_are_matched_both_ways_and_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(&folder, THREE, json!({}));
    let mut script =
        Script::new(&[&[line("|The answer is 2$"), line("|It is 4"), line("|dunno$")]]);
    let figures = run_with(&job, &mut script).unwrap();
    let items: Vec<ItemRecord> = job.records("items", "sums.jsonl");
    assert_eq!(items[0].id, "s1");
    assert_eq!(items[1].id, blake3::hash(b"2+2").to_hex()[..32]);
    assert_eq!(items[2].id, "7");
    assert_eq!(items[0].response, "The answer is 2");
    assert_eq!(items[0].response_token_ids.len(), 16);
    assert_eq!(items[0].prompt, "<1+1>");
    assert_eq!(items[1].finish, Some(Finish::Limit));
    let found = |m: fn(&ItemRecord) -> &Match| -> Vec<(Option<&str>, bool)> {
        items
            .iter()
            .map(|i| (m(i).extracted.as_deref(), m(i).correct))
            .collect()
    };
    assert_eq!(
        found(|i| &i.standard),
        [(Some("2"), true), (None, false), (None, false)]
    );
    assert_eq!(
        found(|i| &i.paper),
        [(Some("2"), true), (Some("4"), true), (None, false)]
    );
    let text = std::fs::read_to_string(job.path("summary", SUMMARY_FILE)).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let third = 1.0 / 3.0;
    // sqrt(1/3 * 2/3 / 2) = 1/3, for one right of three and for two.
    let sums = &written["benchmarks"][0];
    assert_eq!(sums["name"], json!("sums"));
    assert_eq!((&sums["n"], &sums["truncated"]), (&json!(3), &json!(1)));
    assert_eq!(sums["standard"]["unextracted"], json!(2));
    assert_eq!(sums["paper"]["unextracted"], json!(1));
    let near = |v: &Value, x: f64| (v.as_f64().unwrap() - x).abs() < 1e-12;
    assert!(near(&sums["standard"]["accuracy"], third));
    assert!(near(&sums["standard"]["standard_error"], third));
    assert!(near(&sums["paper"]["accuracy"], 2.0 * third));
    let names: Vec<String> = figures.iter().map(Figure::full_name).collect();
    assert_eq!(
        names,
        [
            "sums/standard",
            "sums/standard_unextracted",
            "sums/paper",
            "sums/paper_unextracted",
            "sums/n"
        ]
    );
    let find = |name: &str| figures.iter().find(|f| f.full_name() == name).unwrap();
    let of = |name: &str| &find(name).value;
    assert!((find("sums/standard").standard_error.unwrap() - third).abs() < 1e-12);
    assert_eq!(of("sums/standard_unextracted"), &json!(2));
    assert_eq!(of("sums/paper_unextracted"), &json!(1));
    assert_eq!(of("sums/n"), &json!(3));
    assert_eq!(
        job.logged(Level::Warn),
        [
            "benchmark `sums`: of 3 responses, `standard` found no answer in 2 and `paper` none in 1; \
             they count as wrong (items/sums.jsonl)"
        ]
    );
}

#[test]
fn two_benchmarks_over_one_file_draw_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.jsonl");
    // Two questions of one id, as where the parts of a benchmark number their own.
    std::fs::write(
        &path,
        "{\"id\": 1, \"question\": \"q\", \"answer\": 1}\n\
         {\"id\": 1, \"question\": \"r\", \"answer\": 1}\n",
    )
    .unwrap();
    let job = TestJob::new(
        StageKind::Eval,
        json!({
            "engine": "mistralrs", "dtype": "f32", "seed": 3, "width": 0, "kv_cache_gb": 0.0,
            "benchmarks": [
                benchmark(&path, json!({"name": "plain", "temperature": 1.0})),
                benchmark(&path, json!({"name": "prefixed", "temperature": 1.0})),
            ],
        }),
    );
    let mut script = Script::new(&[&[line("|1$"), line("|1$"), line("|1$"), line("|1$")]]);
    run_with(&job, &mut script).unwrap();
    let streams: Vec<Stream> = script.asked[0].iter().map(|r| r.stream).collect();
    assert_eq!(streams.len(), 4);
    for (i, a) in streams.iter().enumerate() {
        assert!(!streams[..i].contains(a), "{streams:?}");
    }
}

#[test]
fn the_response_prefix_is_matched_and_is_context() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(
        &folder,
        "{\"question\": \"1+1\", \"answer\": \"2\"}\n",
        json!({"response_prefix": "The answer is", "template": "Q: {question}", "system": "S"}),
    );
    let mut script = Script::new(&[&[line("| 2.$")]]);
    run_with(&job, &mut script).unwrap();
    let items: Vec<ItemRecord> = job.records("items", "sums.jsonl");
    assert!(items[0].standard.correct);
    assert_eq!(items[0].response, " 2.");
    let request = &script.asked[0][0];
    assert_eq!(ByteText.decode(&request.context), "S<Q: 1+1>The answer is");
    assert_eq!(request.sampling.temperature, 0.0);
    assert!(!request.limits.step);
    assert_eq!(request.limits.max_tokens, 16);
    // One question has no standard error.
    let text = std::fs::read_to_string(job.path("summary", SUMMARY_FILE)).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        written["benchmarks"][0]["standard"]["standard_error"],
        Value::Null
    );
}

#[test]
fn letters_are_matched_too() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(
        &folder,
        "{\"question\": \"A or B?\", \"answer\": \"(B)\"}\n",
        json!({"answer": "choice"}),
    );
    let mut script = Script::new(&[&[line("|The answer is not A$")]]);
    run_with(&job, &mut script).unwrap();
    let items: Vec<ItemRecord> = job.records("items", "sums.jsonl");
    assert_eq!(items[0].standard.extracted, None);
    assert_eq!(items[0].paper.extracted, None);
    assert!(!items[0].paper.correct);
}

#[test]
fn the_limit_takes_the_first_items() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(&folder, THREE, json!({"limit": 2}));
    let mut script = Script::new(&[&[line("|2$"), line("|4$")]]);
    run_with(&job, &mut script).unwrap();
    assert_eq!(job.records::<ItemRecord>("items", "sums.jsonl").len(), 2);
}

#[test]
fn an_item_without_a_prompt_counts_as_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"question\": \"refuse\", \"answer\": 1}\n{\"question\": \"q\", \"answer\": 1}\n";
    let job = job(&folder, lines, json!({}));
    let mut script = Script::new(&[&[line("|answer is 1$")]]);
    let figures = run_with(&job, &mut script).unwrap();
    // It has no response, so no answer could be missing from it.
    for figure in figures.iter().filter(|f| f.name.ends_with("unextracted")) {
        assert_eq!(figure.value, json!(0), "{}", figure.name);
    }
    let items: Vec<ItemRecord> = job.records("items", "sums.jsonl");
    assert_eq!(items[0].skipped.as_deref(), Some("the template refuses"));
    assert_eq!(items[0].finish, None);
    assert!(items[1].paper.correct);
    assert_eq!(job.logged(Level::Warn).len(), 1);
    // None at all is a failure.
    let job = self::job(
        &folder,
        "{\"question\": \"refuse\", \"answer\": 1}\n",
        json!({}),
    );
    let failure = run_with(&job, &mut Script::new(&[&[]])).unwrap_err();
    assert!(failure.message.contains("1 of 1 questions"), "{failure}");
}

#[test]
fn mistakes_in_a_benchmark_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    for (lines, changes, words) in [
        (
            "\n{\"question\": 1,\n",
            json!({}),
            "bench.jsonl:2: not a JSON object",
        ),
        (
            "{\"problem\": \"p\", \"answer\": 1}\n",
            json!({}),
            "bench.jsonl:1: no field `question`; there are: answer, problem",
        ),
        (
            "{\"question\": [], \"answer\": 1}\n",
            json!({}),
            ":1: field `question` is a list, not text or a number",
        ),
        (
            "{\"question\": \"q\", \"answer\": \"six\"}\n",
            json!({}),
            "`: the answer \"six\" is not one number",
        ),
        (
            "{\"question\": \"q\", \"answer\": 1}\n{\"id\": \"i7\", \"question\": \"q\", \"answer\": \"(3,4]\"}\n",
            json!({}),
            ":2: item `i7`: the answer \"(3,4]\" is not one number",
        ),
        (
            "{\"id\": 8, \"question\": \"q\", \"answer\": \"E\"}\n",
            json!({"answer": "choice"}),
            ":1: item `8`: the answer \"E\" is not a letter from A to D",
        ),
        (
            "{\"question\": \"q\", \"answer\": 123456789012345678901}\n",
            json!({}),
            "too large a number to be exact",
        ),
        ("\n", json!({}), "holds no question"),
        (
            "{}",
            json!({"template": "no place"}),
            "no place for the question",
        ),
    ] {
        let job = job(&folder, lines, changes);
        let failure = run_with(&job, &mut Script::default()).unwrap_err();
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[test]
fn a_field_of_another_kind_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (value, kind) in [
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("[1]", "a list"),
        ("{\"a\": 1}", "an object"),
    ] {
        for (question, answer, field) in [("\"q\"", value, "answer"), (value, "1", "question")] {
            let lines = format!("{{\"question\": {question}, \"answer\": {answer}}}\n");
            let job = job(&folder, &lines, json!({}));
            let failure = run_with(&job, &mut Script::default()).unwrap_err();
            let want = format!(":1: field `{field}` is {kind}, not text or a number");
            assert!(failure.message.ends_with(&want), "{failure}");
        }
    }
}

#[test]
fn a_long_answer_is_shortened_in_messages() {
    let folder = tempfile::tempdir().unwrap();
    let lines = format!(
        "{{\"question\": \"q\", \"answer\": \"{}x\"}}\n",
        "é".repeat(100_000)
    );
    let job = job(&folder, &lines, json!({}));
    let failure = run_with(&job, &mut Script::default()).unwrap_err();
    let want = format!("the answer \"{}...\" is not one number", "é".repeat(60));
    assert!(failure.message.ends_with(&want), "{failure}");
}

#[test]
fn two_benchmarks_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.jsonl");
    std::fs::write(&path, "{\"question\": \"q\", \"answer\": 1}\n").unwrap();
    for (a, b) in [("x", "x"), ("a/b", "a b"), ("GSM", "gsm")] {
        let params: Params = serde_json::from_value(json!({
            "engine": "mistralrs", "dtype": "f32", "seed": 3, "width": 0, "kv_cache_gb": 0.0,
            "benchmarks": [
                benchmark(&path, json!({"name": a})),
                benchmark(&path, json!({"name": b})),
            ],
        }))
        .unwrap();
        assert!(read_benchmarks(&params).is_err(), "{a} {b}");
    }
}
