//! The whole pipeline through both programs, on a tiny model with random
//! weights: every stage for real, in seconds (`examples/tiny.yaml`).

use std::path::Path;

use super::programs::{genius, output_folder, package, run_json, statuses};

fn executed(report: &serde_json::Value) -> Vec<String> {
    statuses(report)
        .into_iter()
        .filter_map(|s| s.strip_suffix(" executed").map(str::to_owned))
        .collect()
}

#[test]
fn every_stage_runs_once_and_what_changes_reruns() {
    let cache = tempfile::tempdir().unwrap();
    let tiny = package("examples/tiny.yaml");
    let run = |set: &[&str]| run_json(&tiny, cache.path(), set);

    let first = run(&[]);
    assert_eq!(
        executed(&first),
        [
            "queries", "policy", "before", "rollout", "score", "pairs", "train", "after"
        ]
    );
    let trained = output_folder(&first, "train", "model");
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(
        weights(&trained) != weights(&package("examples/tiny-model")),
        "training changed no weight"
    );
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        assert!(
            trained.join(file).is_file(),
            "the trained folder lacks {file}"
        );
    }

    assert!(executed(&run(&[])).is_empty(), "nothing changed");
    let rate = run(&["stages.train.with.learning_rate=2e-3"]);
    assert_eq!(executed(&rate), ["train", "after"]);
    // Another rule for the negative: no rollout again.
    let negative = run(&["stages.pairs.with.negative=lowest"]);
    let again = executed(&negative);
    assert_eq!(again.first().map(String::as_str), Some("pairs"));
    assert!(!again.contains(&"rollout".to_owned()));
    // Knobs of execution, names and written-out defaults are not in any key.
    assert!(
        executed(&run(&[
            "stages.rollout.with.width=1",
            "stages.train.with.micro_batch=1",
            "stages.rollout.with.foresight=true",
            "name=other",
        ]))
        .is_empty()
    );
    // The ablation costs the stages that differ.
    let ablation = executed(&run(&["stages.rollout.with.foresight=false"]));
    assert_eq!(ablation.first().map(String::as_str), Some("rollout"));
    assert!(!ablation.contains(&"before".to_owned()));
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_another_cache() {
    let tiny = package("examples/tiny.yaml");
    let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let reports = caches
        .each_ref()
        .map(|cache| run_json(&tiny, cache.path(), &[]));
    for (stage, output) in [
        ("rollout", "rollouts"),
        ("rollout", "metrics"),
        ("pairs", "pairs"),
        ("train", "model"),
        ("after", "items"),
    ] {
        // Folders are named by the hash of their content.
        let [a, b] = reports.each_ref().map(|r| output_folder(r, stage, output));
        assert_eq!(a.file_name(), b.file_name(), "{stage}.{output}");
    }
}

#[test]
fn no_pairs_is_a_refusal_that_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let output = super::programs::genius()
        .args(["run", "--quiet", "--json", "--cache"])
        .arg(cache.path())
        .arg(package("examples/tiny.yaml"))
        // Greedy with one rollout: both sides of every pair are the same.
        .args([
            "--set",
            "stages.rollout.with.beams=1",
            "--set",
            "stages.rollout.with.rollouts=1",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = super::programs::last_json(&output);
    assert_eq!(
        statuses(&report)[4..],
        [
            "score executed",
            "pairs executed",
            "train failed",
            "after skipped"
        ]
    );
    let reason = report["stages"][6]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("no pair") || reason.contains("pairs"),
        "{reason}"
    );
}

/// Three rounds' trainings: of the model that rolled out, of the model that that one made,
/// on its own pairs, and on those of the first.
#[test]
fn pairs_of_another_policy_are_refused_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = dir.path().join("p.yaml");
    let examples = package("examples");
    let few = "beams: 2, rollouts: 2, steps: 1, max_step_tokens: 12, max_foresight_tokens: 12";
    let train = "learning_rate: 1.0e-3, batch_size: 2, dtype: f32";
    let text = format!(
        "version: 1\nname: rounds\nseed: 7\nstages:\n  \
         queries: {{ uses: queries, with: {{ source: {{ path: {0}/queries.jsonl, field: instruction }} }} }}\n  \
         policy: {{ uses: model, with: {{ source: {{ path: {0}/tiny-model }} }} }}\n  \
         rollout: {{ uses: rollout, needs: {{ queries: queries, model: policy }}, with: {{ {few} }} }}\n  \
         score: {{ uses: score, needs: {{ rollouts: rollout }} }}\n  \
         pairs: {{ uses: pairs, needs: {{ scores: score }} }}\n  \
         train: {{ uses: train, needs: {{ model: policy, pairs: pairs }}, with: {{ {train} }} }}\n  \
         rollout2: {{ uses: rollout, needs: {{ queries: queries, model: train }}, with: {{ {few} }} }}\n  \
         score2: {{ uses: score, needs: {{ rollouts: rollout2 }} }}\n  \
         pairs2: {{ uses: pairs, needs: {{ scores: score2 }} }}\n  \
         train2: {{ uses: train, needs: {{ model: train, pairs: pairs2 }}, with: {{ {train} }} }}\n  \
         stale: {{ uses: train, needs: {{ model: train2, pairs: pairs }}, with: {{ {train} }} }}\n",
        examples.display()
    );
    std::fs::write(&pipeline, text).unwrap();
    let cache = dir.path().join("cache");
    let output = genius()
        .args(["run", "--quiet", "--json", "--cache"])
        .arg(&cache)
        .arg(&pipeline)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = super::programs::last_json(&output);
    assert_eq!(
        statuses(&report)[9..],
        ["train2 executed", "stale failed"],
        "{}",
        super::programs::words(&output)
    );
    let reason = report["stages"][10]["reason"].as_str().unwrap_or_default();
    // Folders are named by the hash of their content.
    let hash = |stage: &str, output: &str| -> String {
        let folder = output_folder(&report, stage, output);
        folder.file_name().unwrap().to_str().unwrap().to_owned()
    };
    for model in [hash("policy", "model"), hash("train2", "model")] {
        assert!(reason.contains(&model), "{reason}");
    }
    let pairs = output_folder(&report, "pairs2", "pairs").join("pairs.jsonl");
    let line = std::fs::read_to_string(pairs).unwrap();
    let pair: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(pair["policy"], hash("train", "model"));

    let allowed = ["stages.stale.with.allow_other_policy=true"];
    assert_eq!(executed(&run_json(&pipeline, &cache, &allowed)), ["stale"]);
}

/// What a real rollout and real pairs are shown as, checked against each other.
#[test]
fn a_query_is_shown_from_its_first_step_to_its_pairs() {
    let cache = tempfile::tempdir().unwrap();
    let tiny = package("examples/tiny.yaml");
    run_json(&tiny, cache.path(), &[]);
    let output = genius()
        .arg("show")
        .arg(&tiny)
        .args(["--query=#2", "--json", "--cache"])
        .arg(cache.path())
        .output()
        .unwrap();
    let shown = super::programs::last_json(&output);
    assert_eq!(shown["stage"], "rollout");
    let steps = shown["steps"].as_array().unwrap();
    let pairs = shown["pairs"][0]["steps"].as_array().unwrap();
    assert_eq!((steps.len(), pairs.len()), (2, 2));
    let marked = |step: &serde_json::Value, mark: &str| -> Vec<usize> {
        let candidates = step["candidates"].as_array().unwrap();
        (0..candidates.len())
            .filter(|&c| {
                let marks = candidates[c]["marks"].as_array().unwrap();
                marks.iter().any(|m| m == mark)
            })
            .collect()
    };
    for (step, pair) in steps.iter().zip(pairs) {
        let candidates = step["candidates"].as_array().unwrap();
        assert_eq!(
            candidates.len(),
            2 * step["beams"].as_array().unwrap().len()
        );
        // Both sides were found again, and the chosen one has the highest f.
        let f = |c: usize| candidates[c]["f"].as_f64().unwrap_or(f64::NEG_INFINITY);
        let chosen = pair["chosen"].as_u64().unwrap() as usize;
        let rejected = pair["rejected"].as_u64().unwrap() as usize;
        assert!((0..candidates.len()).all(|c| f(c) <= f(chosen)));
        assert_eq!(marked(step, "chosen"), [chosen]);
        assert_eq!(marked(step, "rejected"), [rejected]);
        // Two are drawn; those that go on are the next step's beams.
        assert_eq!(marked(step, "beam").len() + marked(step, "drawn").len(), 2);
    }
    assert_eq!(
        marked(&steps[0], "beam").len(),
        steps[1]["beams"].as_array().unwrap().len()
    );
    assert_eq!(marked(&steps[1], "beam"), [0; 0]);
}

/// Files of kept queries in a cache.
fn kept_queries(cache: &Path) -> usize {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect::<Vec<_>>()
    };
    let shards = entries(&cache.join("partial/rollout"));
    shards.iter().map(|shard| entries(shard).len()).sum()
}

#[test]
fn a_rollout_that_is_killed_goes_on_to_the_same_bytes() {
    killed_and_resumed("engine: mistralrs, max_foresight_tokens: 120");
    killed_and_resumed("engine: native, dtype: f32, width: 2, max_foresight_tokens: 400");
    killed_and_resumed("engine: native, dtype: bf16, width: 2, max_foresight_tokens: 400");
}

/// kill -9 of genius in the middle of a rollout with these parameters, and the same command again.
fn killed_and_resumed(with: &str) {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = dir.path().join("p.yaml");
    let examples = package("examples");
    let text = format!(
        "version: 1\nname: killed\nseed: 7\nstages:\n  \
         queries: {{ uses: queries, with: {{ source: {{ path: {0}/queries.jsonl, field: instruction }} }} }}\n  \
         policy: {{ uses: model, with: {{ source: {{ path: {0}/tiny-model }} }} }}\n  \
         rollout:\n    uses: rollout\n    needs: {{ queries: queries, model: policy }}\n    \
         with: {{ {with}, steps: 3, max_step_tokens: 40 }}\n",
        examples.display()
    );
    std::fs::write(&pipeline, text).unwrap();
    let rollouts = |report: &serde_json::Value| {
        let bytes = |output: &str, file: &str| {
            std::fs::read(output_folder(report, "rollout", output).join(file)).unwrap()
        };
        (
            bytes("rollouts", "rollouts.jsonl"),
            bytes("metrics", "metrics.json"),
        )
    };
    let undisturbed = run_json(&pipeline, &dir.path().join("whole"), &[]);

    let cache = dir.path().join("cache");
    let mut killed = genius()
        .arg("run")
        .arg(&pipeline)
        .arg("--cache")
        .arg(&cache)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("genius starts");
    while kept_queries(&cache) == 0 {
        assert!(killed.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let kept = kept_queries(&cache);

    let resumed = run_json(&pipeline, &cache, &[]);
    assert!(rollouts(&resumed) == rollouts(&undisturbed));
    let stages = resumed["stages"].as_array().unwrap();
    let rollout = stages.iter().find(|s| s["stage"] == "rollout").unwrap();
    let figures = rollout["figures"].as_array().unwrap();
    let reused = figures.iter().find(|f| f["name"] == "reused_queries");
    let reused = reused.unwrap()["value"].as_u64().unwrap();
    assert!(
        reused >= kept as u64 && reused < 6,
        "{reused} of 6, {kept} kept"
    );
}
