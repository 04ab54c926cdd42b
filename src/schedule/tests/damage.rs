//! Damaged blobs, changed sources and faulty records.

use super::*;
use crate::store::Results;

#[test]
fn the_stage_of_a_damaged_blob_is_recomputed() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    bench.damage("[\"rollouts\",");
    let ran = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    assert_eq!(ran.started, ["rollout", "score", "pairs", "train"]);
    assert!(ran.report.ok());
    assert_eq!(ran.stage("rollout").outputs, first.stage("rollout").outputs);
    let warned = ran.events.iter().any(|e| {
        matches!(e, Event::StageLog { stage, level: Level::Warn, text } if stage == "rollout" && text.contains("damaged"))
    });
    assert!(warned);
}

#[test]
fn a_damaged_blob_recomputed_to_other_bytes_replaces_the_record() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    bench.damage("[\"rollouts\",");
    bench.act("rollout", Act::Always("other bytes"));
    let ran = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    let key = ran.stage("score").key.clone().unwrap();
    let record = bench
        .cache()
        .join("records")
        .join(&key[..2])
        .join(format!("{key}.json"));
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let rollouts = ran.stage("rollout").outputs["rollouts"]
        .file_name()
        .unwrap();
    let preimage = record["preimage"].to_string();
    assert!(
        preimage.contains(rollouts.to_str().unwrap()),
        "the preimage names the new input: {preimage}"
    );
}

/// It may have read either; a result under the key of the old content would be reused forever.
#[test]
fn a_source_that_changes_while_its_stage_runs_is_not_kept_under_the_old_key() {
    let bench = Bench::new();
    let source = bench.dir.path().join("q.jsonl");
    bench.act("queries", Act::Overwrite(source));
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Failed), ["queries"]);
    let reason = &ran.stage("queries").reason;
    assert!(
        reason.contains("q.jsonl changed while the run used it"),
        "{reason}"
    );
    // The new content has a key of its own.
    bench.act("queries", Act::default());
    assert_eq!(
        bench.run(PIPELINE).stage("queries").status,
        Status::Executed
    );
}

/// One stage whose output four others take, two of which also take another; all side by side.
const FAN: &str = "
version: 1
name: fan
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl } } }
  other: { uses: queries, with: { source: { path: other.jsonl } } }
  c1: { uses: command, needs: { x: queries }, with: { run: [a] , outputs: { o: {} } } }
  c2: { uses: command, needs: { x: queries, y: other }, with: { run: [b], outputs: { o: {} } } }
  c3: { uses: command, needs: { x: queries, y: queries.metrics }, retry: { times: 1, backoff_secs: 0 }, with: { run: [c], outputs: { o: {} } } }
  c4: { uses: command, needs: { x: queries, y: other.metrics }, with: { run: [d], outputs: { o: {} } } }
  all: { uses: command, needs: { a: c1, b: c2, c: c3, d: c4 }, with: { run: [e], outputs: { o: {} } } }
";

#[test]
fn damage_found_by_several_stages_is_repaired_once() {
    for cores in [1, 2, 8] {
        for both in [false, true] {
            let bench = Bench {
                options: RunOptions {
                    resources: spec::Resources {
                        cores: Some(cores),
                        ..Default::default()
                    },
                    ..RunOptions::default()
                },
                ..Bench::new()
            };
            let first = bench.run(FAN);
            assert!(first.report.ok());
            // All but the first two have to run again, and find the damage.
            bench.damage_in("queries", &first);
            if both {
                bench.damage_in("other", &first);
            }
            let changed = FAN.replace("outputs: { o: {} }", "env: { A: b }, outputs: { o: {} }");
            let ran = bench.run(&changed);
            assert!(ran.report.ok(), "{cores} {both}: {:?}", ran.report);
            let mut started = ran.started.clone();
            started.sort();
            let again: &[&str] = if both {
                &["other", "queries"]
            } else {
                &["queries"]
            };
            let wanted: Vec<&str> = ["all", "c1", "c2", "c3", "c4"]
                .iter()
                .chain(again)
                .copied()
                .collect();
            assert_eq!(started, wanted, "{cores} {both}: each once");
            let again = bench.run(&changed);
            assert_eq!(again.with(Status::Cached).len(), 7, "{cores} {both}");
            for (a, b) in ran.report.stages.iter().zip(&again.report.stages) {
                assert_eq!((&a.key, &a.outputs), (&b.key, &b.outputs), "{}", a.stage);
            }
        }
    }
}

#[test]
fn a_record_without_an_output_is_an_error_not_another_key() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    let store = Store::open(&bench.cache()).unwrap();
    let key = first.stage("pairs").key.clone().unwrap().parse().unwrap();
    let mut record = store.lookup(&key).unwrap();
    record.outputs.remove("pairs");
    store.put(&record).unwrap();
    let second = bench.run(PIPELINE);
    assert_eq!(second.with(Status::Failed), ["train"]);
    let reason = &second.stage("train").reason;
    assert_eq!(
        reason,
        "the result that fills its input `pairs` lacks that output"
    );
    assert_eq!(second.stage("train").key, None);
}
