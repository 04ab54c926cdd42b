//! Pipelines into graphs, with a world that is made up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::kind::{Need, StageKind, example};
use crate::spec::{self, Pipeline, Stage};
use crate::store::ContentHash;

pub(super) const CPU: Host = Host {
    cuda: false,
    metal: false,
    bf16: false,
    level: "avx2",
    cores: 2,
    memory_bytes: 8 << 30,
};

/// Paths and revisions with made-up content; counts what it is asked.
#[derive(Default)]
pub(super) struct World {
    pub(super) content: RefCell<BTreeMap<PathBuf, &'static str>>,
    pub(super) commit: RefCell<String>,
    asked: Cell<usize>,
}

impl World {
    pub(super) fn new() -> Self {
        let world = World {
            commit: RefCell::new("a".repeat(40)),
            ..World::default()
        };
        world
            .content
            .borrow_mut()
            .insert("/data/q.jsonl".into(), "queries");
        world
            .content
            .borrow_mut()
            .insert("/data/copy.jsonl".into(), "queries");
        world
            .content
            .borrow_mut()
            .insert("/data/q.csv".into(), "queries");
        world
            .content
            .borrow_mut()
            .insert("/data/bench.jsonl".into(), "items");
        world
    }
}

impl Resolver for World {
    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError> {
        self.asked.set(self.asked.get() + 1);
        match self.content.borrow().get(path) {
            Some(content) => Ok(ContentHash::of(content.as_bytes())),
            None => SystemResolver {
                hub_endpoint: None,
                hub_token: None,
                hub_cache: Some("/nowhere".into()),
                variables: BTreeMap::new(),
                memory: None,
            }
            .hash_path(path),
        }
    }

    fn hub_commit(&self, _repo: &str, _revision: &str) -> Result<String, PlanError> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.commit.borrow().clone())
    }
}

pub(super) fn stage(name: &str, kind: StageKind, needs: &[(&str, &str)], written: Value) -> Stage {
    Stage {
        name: name.to_owned(),
        needs: needs
            .iter()
            .map(|(slot, from)| {
                let artifact = kind.inputs().iter().find(|i| i.slot == *slot);
                let need = Need {
                    from: (*from).to_owned(),
                    output: artifact.unwrap().artifact.to_owned(),
                };
                ((*slot).to_owned(), need)
            })
            .collect(),
        outputs: kind.outputs().iter().map(|&o| o.to_owned()).collect(),
        policy: spec::Policy::default(),
        params: example::params(kind, &written),
        line: 7,
    }
}

pub(super) fn pipeline(stages: Vec<Stage>) -> Pipeline {
    Pipeline {
        path: "/p/quick.yaml".into(),
        name: "quick".to_owned(),
        seed: 42,
        stages,
        variants: Vec::new(),
        digest: String::new(),
    }
}

pub(super) fn whole() -> Vec<Stage> {
    use StageKind::*;
    let eval = json!({ "benchmarks": [{ "name": "sums", "path": "/data/bench.jsonl" }] });
    vec![
        stage(
            "queries",
            Queries,
            &[],
            json!({ "source": { "path": "/data/q.jsonl" } }),
        ),
        stage(
            "policy",
            Model,
            &[],
            json!({ "source": { "hub": { "repo": "a/b", "revision": "main" } } }),
        ),
        stage("before", Eval, &[("model", "policy")], eval.clone()),
        stage(
            "rollout",
            Rollout,
            &[("queries", "queries"), ("model", "policy")],
            json!({ "width": 8 }),
        ),
        stage("score", Score, &[("rollouts", "rollout")], json!({})),
        stage("pairs", Pairs, &[("scores", "score")], json!({})),
        stage(
            "train",
            Train,
            &[("model", "policy"), ("pairs", "pairs")],
            json!({ "micro_batch": 2 }),
        ),
        stage("after", Eval, &[("model", "train")], eval),
    ]
}

pub(super) fn build(stages: Vec<Stage>, world: &World) -> Result<Graph, PlanError> {
    Graph::build(&pipeline(stages), &CPU, &RunOptions::default(), world)
}

/// Plans one stage of queries or of another kind without needs.
fn alone(stage: Stage, world: &World) -> Node {
    build(vec![stage], world).unwrap().nodes.remove(0)
}

fn queries(written: Value) -> Stage {
    stage("queries", StageKind::Queries, &[], written)
}

// ---- order ----

#[test]
fn stages_come_after_what_they_need_and_otherwise_as_in_the_file() {
    let names = |graph: &Graph| {
        graph
            .nodes
            .iter()
            .map(|n| n.name.clone())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let world = World::new();
    let graph = build(whole(), &world).unwrap();
    insta::assert_snapshot!(names(&graph), @"queries policy before rollout score pairs train after");

    let mut backwards = whole();
    backwards.reverse();
    let graph = build(backwards, &world).unwrap();
    insta::assert_snapshot!(names(&graph), @"policy before queries rollout score pairs train after");
    for (index, node) in graph.nodes.iter().enumerate() {
        assert!(node.needs.values().all(|need| need.from < index));
    }
}

#[test]
fn needs_and_dependents_point_at_each_other() {
    let graph = build(whole(), &World::new()).unwrap();
    let at = |name| graph.find(name).unwrap();
    assert_eq!(
        graph.dependents(at("policy")),
        [at("before"), at("rollout"), at("train")]
    );
    assert_eq!(
        graph.nodes[at("train")].needs["pairs"],
        Need {
            from: at("pairs"),
            output: "pairs".to_owned()
        }
    );
    assert!(graph.dependents(at("after")).is_empty());
    assert_eq!(graph.find("nobody"), None);
}

// ---- what is in the identity ----

#[test]
fn a_path_stands_for_its_content() {
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
fn a_hub_revision_stands_for_its_commit() {
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
    let other = Graph::build(&pipeline(whole()), &CPU, &options, &World::new()).unwrap();
    assert_eq!(other.nodes[0].execution.threads, 7);
    for (a, b) in graph.nodes.iter().zip(&other.nodes) {
        assert_eq!(a.identity, b.identity);
    }
}

/// What a CPU and a GPU compute of the same precision differs in its bits.
#[test]
fn processors_and_devices_share_a_key_only_where_bits_are_equal() {
    let key = |stage: &str, host: &Host, device: &str| {
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
        let graph = Graph::build(&pipeline(stages), host, &options, &World::new()).unwrap();
        let node = &graph.nodes[graph.find(stage).unwrap()];
        Fingerprint::new(node, &BTreeMap::new()).key()
    };
    let gpu = Host { cuda: true, ..CPU };
    let wide = Host {
        level: "avx512",
        ..CPU
    };
    let wide_gpu = Host {
        level: "avx512",
        ..gpu
    };
    for stage in ["rollout", "train", "before"] {
        let here = key(stage, &CPU, "cpu");
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
            key(stage, &CPU, "cpu"),
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
    let gpu = Host { cuda: true, ..CPU };
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
fn what_is_not_given_leaves_no_trace_and_integers_become_floats_where_the_schema_says() {
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
        &CPU,
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

#[test]
fn the_world_is_asked_once_for_each_thing() {
    let world = World::new();
    build(whole(), &world).unwrap();
    assert_eq!(
        world.asked.get(),
        3,
        "the queries, the revision, and the benchmark that two stages use"
    );
}

// ---- messages ----

#[test]
fn a_missing_file_is_named_with_stage_and_parameter() {
    let error = build(
        vec![queries(json!({ "source": { "path": "/data/lost.jsonl" } }))],
        &World::new(),
    )
    .unwrap_err();
    insta::assert_snapshot!(error, @"stage `queries`, with.source.path: cannot read /data/lost.jsonl: No such file or directory (os error 2)");
    insta::assert_snapshot!(error.hint().unwrap(), @"paths are relative to the folder of the pipeline file");
    assert_eq!(error.stage(), Some(("queries", 7)));
}

#[test]
fn a_commit_needs_no_network_and_a_hub_out_of_reach_is_explained() {
    let cache = tempfile::TempDir::new().unwrap();
    let resolver = SystemResolver {
        // Nothing listens on port 9 of this machine.
        hub_endpoint: Some("http://127.0.0.1:9".to_owned()),
        hub_token: None,
        hub_cache: Some(cache.path().to_owned()),
        variables: BTreeMap::new(),
        memory: None,
    };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(resolver.hub_commit("a/b", commit).unwrap(), commit);

    let error = resolver.hub_commit("a/b", "main").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot find out which commit `main` of a/b is: "),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("check the repository's name")
    );

    let refs = cache.path().join("models--a--b/refs");
    std::fs::create_dir_all(&refs).unwrap();
    std::fs::write(refs.join("main"), commit).unwrap();
    let hint = resolver
        .hub_commit("a/b", "main")
        .unwrap_err()
        .hint()
        .unwrap();
    insta::assert_snapshot!(hint, @"writing the commit needs no network: the copy of a/b on this machine is of `revision: 0123456789abcdef0123456789abcdef01234567`");
}

#[test]
fn a_hub_that_answers_tells_the_commit() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while reader.read_line(&mut request).unwrap() > 2 {}
        let body = json!({ "sha": "c".repeat(40), "siblings": [] }).to_string();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        request
    });
    let resolver = SystemResolver {
        hub_endpoint: Some(format!("http://{address}/")),
        hub_token: Some("secret".to_owned()),
        hub_cache: Some("/nowhere".into()),
        variables: BTreeMap::new(),
        memory: None,
    };
    assert_eq!(resolver.hub_commit("a/b", "dev").unwrap(), "c".repeat(40));
    let request = server.join().unwrap();
    assert!(
        request.starts_with("GET /api/models/a/b/revision/dev HTTP/1.1"),
        "{request}"
    );
    assert!(request.contains("Bearer secret"), "{request}");
}
