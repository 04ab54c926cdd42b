//! What runs again and what is reused.

use super::*;

#[test]
fn the_first_run_executes_and_the_second_starts_nothing() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    assert_eq!(first.with(Status::Executed), ALL);
    assert!(first.report.ok() && !first.report.interrupted);
    assert!(first.stage("train").outputs["model"].join("data").is_file());

    let second = bench.run(PIPELINE);
    assert_eq!(second.with(Status::Cached), ALL);
    assert_eq!(second.started, [""; 0]);
    for (a, b) in first.report.stages.iter().zip(&second.report.stages) {
        assert_eq!(
            (&a.key, &a.outputs, &a.figures),
            (&b.key, &b.outputs, &b.figures)
        );
    }
    let temporary = std::fs::read_dir(bench.cache().join("tmp")).unwrap();
    assert_eq!(temporary.count(), 0, "job folders are gone");
}

#[test]
fn events_come_in_order() {
    let ran = Bench::new().run(
        "{ version: 1, name: p, seed: 1, stages: { q: { uses: queries, with: { source: { path: q.jsonl } } } } }",
    );
    let names: Vec<String> = ran
        .events
        .iter()
        .map(|e| {
            serde_json::to_value(e).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        names,
        [
            "run_started",
            "stage_started",
            "stage_progress",
            "stage_finished",
            "run_finished"
        ]
    );
}

#[test]
fn a_changed_parameter_reruns_only_what_depends_on_it() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let rate = bench.run(&PIPELINE.replace("5.0e-7", "1.0e-6"));
    assert_eq!(rate.started, ["train"]);
    let tau = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    assert_eq!(tau.started, ["score", "pairs", "train"]);
    assert_eq!(bench.run(PIPELINE).started, [""; 0], "the old results stay");
}

#[test]
fn names_comments_and_order_do_not_change_keys() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let written_otherwise = PIPELINE
        .replace("made-up", "another-name")
        .replace("policy", "base_model")
        .replace("stages:", "stages: # a comment")
        .replace(
            "{ model: base_model, pairs: pairs }",
            "{ pairs: pairs, model: base_model }",
        );
    assert_eq!(bench.run(&written_otherwise).started, [""; 0]);
}

#[test]
fn execution_knobs_do_not_change_keys() {
    let mut bench = Bench::new();
    bench.run(PIPELINE);
    bench.options.threads = 1;
    bench.options.device = "cpu".into();
    let knobs = PIPELINE
        .replace("learning_rate", "micro_batch: 1, learning_rate")
        .replace("model: policy } }", "model: policy }, with: { width: 3 } }");
    assert_ne!(knobs, PIPELINE);
    assert_eq!(bench.run(&knobs).started, [""; 0]);
}

#[test]
fn a_rollout_stores_partial_results_under_a_key_without_its_queries() {
    let mut bench = Bench::new();
    let place = |bench: &Bench, pipeline: &str| {
        bench.run(pipeline);
        let mut places = std::mem::take(&mut *bench.stages.partial.lock().unwrap());
        assert_eq!(places.len(), 1, "of the rollout alone");
        let (stage, place) = places.remove(0);
        assert_eq!(stage, "rollout");
        place
    };
    let first = place(&bench, PIPELINE);
    assert_eq!(first.dir, bench.cache().join("partial/rollout"));
    assert!(!first.fresh);
    // Other queries: the rollout runs, with the same place under the same key.
    std::fs::write(bench.dir.path().join("q.jsonl"), "more").unwrap();
    bench.act("queries", Act::Always("more"));
    assert_eq!(place(&bench, PIPELINE), first);
    // Another parameter, another model: another key.
    let needs = "needs: { queries: queries, model: policy }";
    let tau = PIPELINE.replace(needs, &format!("{needs}, with: {{ tau: 0.2 }}"));
    let tau = place(&bench, &tau);
    std::fs::write(bench.dir.path().join("model/name"), "other").unwrap();
    bench.act("policy", Act::Always("other"));
    let model = place(&bench, PIPELINE);
    assert!(tau.key != first.key && model.key != first.key && model.key != tau.key);
    // A forced rollout reuses nothing.
    bench.forced = vec!["rollout"];
    let forced = place(&bench, PIPELINE);
    assert!(forced.fresh && forced.key == model.key);
}

#[test]
fn a_stage_with_unchanged_output_ends_the_rerun() {
    let bench = Bench::new();
    bench.act("score", Act::Always("the same"));
    bench.run(PIPELINE);
    let ran = bench.run(&PIPELINE.replace("tau: 0.1", "tau: 0.2"));
    assert_eq!(ran.started, ["score"]);
    assert_eq!(ran.stage("pairs").status, Status::Cached);
    assert_eq!(ran.stage("train").status, Status::Cached);
}

#[test]
fn a_rollout_in_shards_runs_the_shards_and_then_assembles_them() {
    let mut bench = Bench::new();
    let whole = bench.run(PIPELINE);
    let keys = |ran: &Ran| ran.stage("rollout").key.clone();
    bench.forced = vec!["rollout"];
    bench.stages.shards.lock().unwrap().clear();
    let needs = "needs: { queries: queries, model: policy }";
    let cut = PIPELINE.replace(needs, &format!("{needs}, with: {{ shards: 3 }}"));
    assert_ne!(cut, PIPELINE);
    let ran = bench.run(&cut);
    assert_eq!(keys(&ran), keys(&whole), "how it is cut is in no key");
    let part = |index| (Some(Shard { index, of: 3 }), true);
    // Forced: the shards ignore earlier results; the whole stage takes what they made.
    assert_eq!(
        std::mem::take(&mut *bench.stages.shards.lock().unwrap()),
        [part(0), part(1), part(2), (None, false)]
    );
    // After a shard has failed no other starts.
    bench.act("rollout", Act::Fail);
    let ran = bench.run(&cut);
    assert_eq!(bench.stages.shards.lock().unwrap().len(), 1);
    let failure = ran.events.iter().find_map(|event| match event {
        Event::StageFailed { failure, .. } => Some(failure.message.clone()),
        _ => None,
    });
    assert_eq!(failure.as_deref(), Some("shard 1 of 3: it does not work"));
}
