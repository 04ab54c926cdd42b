//! What goes into a key, and what does not.

use super::*;

#[test]
fn a_path_is_keyed_by_its_content() {
    let world = World::new();
    let node = alone(
        queries(json!({ "source": { "path": "/data/q.jsonl" } })),
        &world,
    );
    assert_eq!(
        node.identity["source"]["path"],
        json!({ "content": ContentHash::of(b"queries") })
    );
    assert_eq!(node.params.to_value()["source"]["path"], "/data/q.jsonl");
    assert_eq!(
        node.provenance["paths"],
        json!({ "with.source.path": "/data/q.jsonl" })
    );

    let copy = alone(
        queries(json!({ "source": { "path": "/data/copy.jsonl" } })),
        &world,
    );
    assert_eq!(copy.identity, node.identity, "where it lies does not count");

    world
        .content
        .borrow_mut()
        .insert("/data/q.jsonl".into(), "other queries");
    let changed = alone(
        queries(json!({ "source": { "path": "/data/q.jsonl" } })),
        &world,
    );
    assert_ne!(changed.identity, node.identity);
}

#[test]
fn an_extension_counts_only_while_it_decides_the_format() {
    let world = World::new();
    let identity = |path: &str, format: &str| {
        alone(
            queries(json!({ "source": { "path": path, "format": format } })),
            &world,
        )
        .identity
    };
    assert_ne!(
        identity("/data/q.jsonl", "auto"),
        identity("/data/q.csv", "auto")
    );
    assert_eq!(
        identity("/data/q.jsonl", "csv"),
        identity("/data/q.csv", "csv")
    );
}

#[test]
fn paths_in_lists_of_mappings_are_found() {
    let written = json!({ "benchmarks": [
        { "name": "a", "path": "/data/bench.jsonl" }, { "name": "b", "path": "/data/q.jsonl" },
    ] });
    let policy = || whole().remove(1);
    let eval = stage("eval", StageKind::Eval, &[("model", "policy")], written);
    let graph = build(vec![policy(), eval], &World::new()).unwrap();
    let benchmarks = &graph.nodes[1].identity["benchmarks"];
    assert_eq!(
        benchmarks[0]["path"],
        json!({ "content": ContentHash::of(b"items") })
    );
    assert_eq!(
        benchmarks[1]["path"],
        json!({ "content": ContentHash::of(b"queries") })
    );
    assert_eq!(
        graph.nodes[1].provenance["paths"]["with.benchmarks[1].path"],
        "/data/q.jsonl"
    );
}

#[test]
fn a_path_inside_a_choice_of_sources_is_found() {
    let model = stage(
        "policy",
        StageKind::Model,
        &[],
        json!({ "source": { "path": "/data/q.jsonl" } }),
    );
    let node = alone(model, &World::new());
    assert_eq!(
        node.identity,
        json!({ "source": { "path": { "content": ContentHash::of(b"queries") } } })
    );
}

#[test]
fn a_hub_revision_is_keyed_by_its_commit() {
    let world = World::new();
    let model = |revision: &str| {
        stage(
            "policy",
            StageKind::Model,
            &[],
            json!({ "source": { "hub": { "repo": "a/b", "revision": revision } } }),
        )
    };
    let node = alone(model("main"), &world);
    assert_eq!(node.identity["source"]["hub"]["revision"], "a".repeat(40));
    assert_eq!(
        node.params.to_value()["source"]["hub"]["revision"],
        "a".repeat(40),
        "the worker fetches what the key says"
    );
    assert_eq!(node.provenance["hub_revision"], "main");
    assert_eq!(alone(model("v1.0"), &world).identity, node.identity);
    *world.commit.borrow_mut() = "b".repeat(40);
    assert_ne!(alone(model("main"), &world).identity, node.identity);
}

#[test]
fn knobs_of_execution_are_not_in_the_identity() {
    let graph = build(whole(), &World::new()).unwrap();
    let rollout = &graph.nodes[graph.find("rollout").unwrap()];
    let train = &graph.nodes[graph.find("train").unwrap()];
    assert_eq!(rollout.params.knobs()["width"], 8);
    assert_eq!(train.params.knobs()["micro_batch"], 2);
    assert_eq!(rollout.execution.device, "cpu");
    for node in &graph.nodes {
        for name in [
            "width",
            "kv_cache_gb",
            "shards",
            "micro_batch",
            "device",
            "threads",
        ] {
            assert!(node.identity.get(name).is_none(), "{name} of {}", node.name);
        }
    }
    let options = RunOptions {
        device: "cpu".to_owned(),
        threads: 7,
        ..RunOptions::default()
    };
    let other = Graph::build(&pipeline(whole()), &cpu(), &options, &World::new()).unwrap();
    assert_eq!(other.nodes[0].execution.threads, 7);
    for (a, b) in graph.nodes.iter().zip(&other.nodes) {
        assert_eq!(a.identity, b.identity);
    }
}

/// What a CPU and a GPU compute of the same precision differs in its bits.
#[test]
fn processors_and_devices_share_a_key_only_where_bits_are_equal() {
    let key = |stage: &str, machine: &Machine<'_>, device: &str| {
        let options = RunOptions {
            device: device.to_owned(),
            ..RunOptions::default()
        };
        let mut stages = whole();
        for stage in &mut stages {
            let mut with = stage.params.to_value();
            for (name, value) in [("engine", "native"), ("dtype", "f32")] {
                if let Some(field) = with.get_mut(name) {
                    *field = value.into();
                }
            }
            stage.params = stage.kind().params(with).unwrap();
        }
        let graph = Graph::build(&pipeline(stages), machine, &options, &World::new()).unwrap();
        let node = &graph.nodes[graph.find(stage).unwrap()];
        Fingerprint::new(node, &BTreeMap::new()).key()
    };
    let gpu = gpus("avx2", 2);
    let wide = Machine::known(announcement::cpu("avx512"));
    let wide_gpu = gpus("avx512", 2);
    for stage in ["rollout", "train", "before"] {
        let here = key(stage, &cpu(), "cpu");
        assert_ne!(here, key(stage, &gpu, "cuda"), "{stage}");
        assert_ne!(here, key(stage, &wide, "cpu"), "{stage}");
        // A GPU's host is another matter; so is which of its GPUs it is.
        assert_eq!(
            key(stage, &gpu, "cuda"),
            key(stage, &wide_gpu, "cuda:1"),
            "{stage}"
        );
    }
    for stage in ["queries", "policy", "score", "pairs"] {
        assert_eq!(
            key(stage, &cpu(), "cpu"),
            key(stage, &wide_gpu, "cuda"),
            "{stage}"
        );
    }
}

#[test]
fn auto_is_resolved_before_anything_is_hashed() {
    let graph = build(whole(), &World::new()).unwrap();
    for name in ["rollout", "before"] {
        let node = &graph.nodes[graph.find(name).unwrap()];
        for side in [&node.identity, &node.params.to_value()] {
            assert_eq!(
                (&side["engine"], &side["dtype"]),
                (&json!("native"), &json!("f32"))
            );
        }
    }
    let gpu = gpus("avx2", 1);
    let there = Graph::build(
        &pipeline(whole()),
        &gpu,
        &RunOptions::default(),
        &World::new(),
    )
    .unwrap();
    assert_eq!(
        there.nodes[there.find("train").unwrap()].identity["dtype"],
        "bf16"
    );
}

#[test]
fn unset_fields_are_left_out_and_integers_become_floats_per_schema() {
    let with = |tau: Value| {
        let mut stages = whole();
        stages[4].params = example::params(StageKind::Score, &json!({ "tau": tau }));
        let graph = build(stages, &World::new()).unwrap();
        graph.nodes[graph.find("score").unwrap()].identity.clone()
    };
    assert_eq!(with(Value::Null), json!({}));
    assert_eq!(with(json!(1)), with(json!(1.0)));
    assert!(with(json!(1))["tau"].is_f64());
}

#[test]
fn names_and_order_of_stages_change_no_identity() {
    let world = World::new();
    let graph = build(whole(), &world).unwrap();
    let mut renamed = whole();
    renamed.reverse();
    for stage in &mut renamed {
        stage.name = format!("my-{}", stage.name);
        for from in stage.needs.values_mut() {
            from.from = format!("my-{}", from.from);
        }
    }
    let other = Graph::build(
        &Pipeline {
            name: "x".to_owned(),
            ..pipeline(renamed)
        },
        &cpu(),
        &RunOptions::default(),
        &world,
    )
    .unwrap();
    for node in &graph.nodes {
        let twin = &other.nodes[other.find(&format!("my-{}", node.name)).unwrap()];
        let key = |node: &Node| Fingerprint::new(node, &BTreeMap::new()).key();
        assert_eq!(key(node), key(twin), "{}", node.name);
    }
}
