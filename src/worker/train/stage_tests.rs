//! The stage as a whole: from files to files.

use super::*;

#[test]
fn two_runs_write_the_same_bytes_whatever_the_order_of_the_file() {
    let mut bench = Bench::new();
    let figures = run(&bench.context("a")).unwrap();
    bench.records.reverse();
    run(&bench.context("b")).unwrap();
    assert_eq!(bench.weights("a"), bench.weights("b"));
    bench.params["seed"] = 4.into();
    run(&bench.context("c")).unwrap();
    assert_ne!(bench.weights("a"), bench.weights("c"));

    // 5 pairs, 2 a step, 2 epochs: the last batch of an epoch is smaller and kept.
    let metrics = bench.metrics("a");
    let sizes: Vec<i64> = metrics
        .iter()
        .map(|m| m["pairs"].as_i64().unwrap())
        .collect();
    assert_eq!(sizes, [2, 2, 1, 2, 2, 1]);
    assert_eq!(figures[0], Figure::new("steps", 6, Unit::Count));
    assert_eq!(figures[1], Figure::new("pairs", 5, Unit::Count));
    // Policy and reference agree to the bit before the first step.
    assert_eq!(
        (&metrics[0]["margin"], &metrics[0]["reward_chosen"]),
        (&json!(0.0), &json!(0.0))
    );
    // One step in warm-up (a tenth of six, rounded up), then down to a sixth of the peak; the
    // smaller batches' too.
    for (metrics, factor) in metrics.iter().zip([6, 5, 4, 3, 2, 1]) {
        let rate = 1e-3 * f64::from(factor) / 6.0;
        near(read(&metrics["lr"]), rate, 1e-12, "rate");
    }
    let loss = |at: usize| metrics[at]["loss"].as_f64().unwrap();
    near(loss(0), std::f64::consts::LN_2, 1e-6, "first loss");
    assert!(loss(5) < loss(0));
}

#[test]
fn bf16_training_changes_the_weights_at_the_papers_rate() {
    let mut bench = Bench::new();
    bench.params["dtype"] = "bf16".into();
    bench.params["learning_rate"] = 5e-7.into();
    run(&bench.context("a")).unwrap();
    let (_, before) = Llama::read(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    let (_, after) =
        Llama::read(&bench.dir.path().join("a/model"), Device::Cpu, Kind::Float).unwrap();
    for (name, tensor) in &before {
        let moved = (tensor - &after[name]).abs().max().double_value(&[]);
        // Six steps of at most 5e-7 each.
        assert!(moved > 1e-7 && moved < 4e-6, "{name}: {moved}");
    }
}

#[test]
fn the_trained_folder_is_a_model_folder() {
    let mut bench = Bench::new();
    bench.params["save_dtype"] = "bf16".into();
    run(&bench.context("a")).unwrap();
    let folder = bench.dir.path().join("a/model");
    assert!(Llama::load(&folder, Device::Cpu, Kind::BFloat16).is_ok());
    let config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
}

#[test]
fn no_pairs_is_a_clear_refusal() {
    let mut bench = Bench::new();
    bench.records.clear();
    let failure = run(&bench.context("a")).unwrap_err();
    assert_eq!(failure.message, "there are no pairs to train on");
    assert!(failure.hint.is_some());

    bench.records = records();
    bench.params["max_length"] = 5.into();
    insta::assert_snapshot!(
        run(&bench.context("a")).unwrap_err().message,
        @"none of 5 pairs can be trained on: 5 have a prompt that leaves no room within max_length, 0 an empty side, 0 two equal sides"
    );
}

#[test]
fn the_context_caps_the_longest_sequence() {
    let model = stored_as(Kind::Float);
    let path = model.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replace(
        r#""max_position_embeddings": 128"#,
        r#""max_position_embeddings": 5"#,
    );
    assert_ne!(text, changed);
    std::fs::write(&path, changed).unwrap();
    let bench = Bench::new();
    let mut job = bench.context("a").job;
    job.inputs
        .insert("model".to_owned(), model.path().to_owned());
    // As with a `max_length` of 5 above.
    let failure = run(&Context::silent(job)).unwrap_err();
    assert!(
        failure.message.contains("5 have a prompt"),
        "{}",
        failure.message
    );
}

/// A batch's loss is a mean over its own pairs, however few.
#[test]
fn the_last_batch_s_pairs_weigh_more() {
    let norm = |pairs: std::ops::Range<usize>, batch_size: usize| {
        let mut bench = Bench::new();
        bench.params["batch_size"] = batch_size.into();
        bench.params["epochs"] = 1.into();
        bench.records = records()[pairs].to_vec();
        run(&bench.context("a")).unwrap();
        let first: f64 = read(&bench.metrics("a")[0]["grad_norm"]);
        first
    };
    near(norm(0..1, 1), norm(0..1, 128), 1e-9, "norm");
}

#[test]
fn a_loss_that_is_not_a_number_writes_nothing() {
    let mut bench = Bench::new();
    bench.params["learning_rate"] = 1e38.into();
    let failure = run(&bench.context("a")).unwrap_err();
    assert!(
        failure
            .message
            .starts_with("step 2 of 6: the loss of the pair of query q"),
        "{}",
        failure.message
    );
    assert!(!bench.dir.path().join("a").exists());
}

#[test]
fn a_cancelled_job_stops_before_its_first_micro_batch() {
    let bench = Bench::new();
    let job = bench.context("a").job;
    let ctx = Context::new(job, Arc::new(|_| {}), Arc::new(AtomicBool::new(true)));
    assert_eq!(run(&ctx).unwrap_err().message, "cancelled");
    assert!(!bench.dir.path().join("a").exists());
}
