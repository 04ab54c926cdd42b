//! Rollouts with the engines themselves on a tiny model.

use super::*;

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
