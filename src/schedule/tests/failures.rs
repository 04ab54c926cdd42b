//! Failures, interruptions and limits.

use super::*;

#[test]
fn a_failure_skips_dependents_and_nothing_else() {
    let bench = Bench::new();
    bench.act("score", Act::Fail);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Failed), ["score"]);
    assert_eq!(ran.with(Status::Skipped), ["pairs", "train"]);
    assert_eq!(
        ran.with(Status::Executed),
        ["queries", "policy", "rollout", "other"]
    );
    assert_eq!(ran.stage("score").reason, "it does not work");
    assert!(ran.stage("pairs").reason.contains("`score`"));
    assert!(ran.stage("train").reason.contains("`pairs`"));
    assert!(!ran.report.ok());

    bench.act("score", Act::Compute);
    assert_eq!(bench.run(PIPELINE).started, ["score", "pairs", "train"]);
}

#[test]
fn keep_going_runs_independent_stages_after_a_failure() {
    let bench = Bench {
        keep_going: true,
        ..Bench::new()
    };
    bench.act("queries", Act::Fail);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Executed), ["policy", "other"]);
    assert_eq!(
        ran.with(Status::Skipped),
        ["rollout", "score", "pairs", "train"]
    );
}

#[test]
fn an_output_that_is_missing_or_empty_is_a_failure_and_nothing_is_kept() {
    for (act, words) in [
        (
            Act::LeaveOut("metrics"),
            "did not write its output `metrics`",
        ),
        (
            Act::LeaveEmpty("model"),
            "wrote nothing into its output `model`",
        ),
    ] {
        let bench = Bench::new();
        bench.act("train", act);
        let ran = bench.run(PIPELINE);
        assert_eq!(ran.with(Status::Failed), ["train"]);
        let reason = &ran.stage("train").reason;
        assert!(reason.contains(words), "{reason}");
        assert!(ran.stage("train").outputs.is_empty());

        bench.act("train", Act::Compute);
        assert_eq!(bench.run(PIPELINE).started, ["train"], "no record was kept");
    }
}

#[test]
fn an_interruption_keeps_what_is_finished() {
    let bench = Bench::new();
    bench.act("rollout", Act::UntilStopped);
    let ran = bench.run(PIPELINE);
    assert!(ran.report.interrupted && !ran.report.ok());
    assert_eq!(ran.with(Status::Executed), ["queries", "policy", "other"]);
    assert_eq!(
        ran.with(Status::Skipped),
        ["rollout", "score", "pairs", "train"]
    );
    assert!(ran.events.contains(&Event::Interrupted { times: 1 }));

    bench.act("rollout", Act::Compute);
    let again = bench.run(PIPELINE);
    assert_eq!(again.started, ["rollout", "score", "pairs", "train"]);
    assert!(again.report.ok() && !again.report.interrupted);
}

#[test]
fn a_stage_that_finishes_after_the_interruption_is_kept() {
    let bench = Bench::new();
    bench.act("rollout", Act::FinishAfterInterrupt);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.stage("rollout").status, Status::Executed);
    assert_eq!(ran.stage("score").status, Status::Skipped);
    assert_eq!(bench.run(PIPELINE).started, ["score", "pairs", "train"]);
}

#[test]
fn an_interruption_after_the_last_stage_does_not_count() {
    let bench = Bench::new();
    bench.act("train", Act::FinishAfterInterrupt);
    let ran = bench.run(PIPELINE);
    assert!(ran.report.ok() && !ran.report.interrupted);
}

#[test]
fn one_stage_with_a_model_at_a_time() {
    let bench = Bench::new();
    let models = "
version: 1
name: models
seed: 1
stages:
  a: { uses: model, with: { source: { path: a } } }
  b: { uses: model, with: { source: { path: b } } }
  c: { uses: model, with: { source: { path: c } } }
";
    let ran = bench.run(models);
    assert_eq!(ran.with(Status::Executed), ["a", "b", "c"]);
    assert_eq!(bench.stages.heavy.lock().unwrap().1, 1);
}

#[test]
fn a_panicking_launcher_fails_only_its_stage() {
    let bench = Bench::new();
    bench.act("score", Act::Panic);
    let ran = bench.run(PIPELINE);
    assert_eq!(ran.with(Status::Failed), ["score"]);
    assert_eq!(ran.stage("other").status, Status::Executed);
}

#[test]
fn a_model_that_the_disk_cannot_hold_is_refused_before_it_runs() {
    let bench = Bench::new();
    let model = bench.dir.path().join("model");
    // Sparse: it has a size but takes no space.
    let weights = std::fs::File::create(model.join("model.safetensors")).unwrap();
    if weights.set_len(8 << 40).is_err() {
        return; // a file system without files of such a size
    }
    let ran = bench.run(PIPELINE);
    assert!(!ran.started.contains(&"policy".to_owned()));
    let reason = &ran.stage("policy").reason;
    assert!(reason.contains("MiB free"), "{reason}");
    assert_eq!(ran.stage("train").status, Status::Skipped);
}
