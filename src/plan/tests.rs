//! Pipelines into graphs, with a world that is made up.

mod identity;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::kind::{Need, StageKind, example};
use crate::protocol::{DeviceKind, example as announcement};
use crate::spec::{self, Pipeline, Stage};
use crate::store::ContentHash;

/// A machine with a processor and nothing beside it.
pub(super) fn cpu() -> Machine<'static> {
    Machine::known(announcement::cpu("avx2"))
}

fn gpus(level: &str, count: usize) -> Machine<'static> {
    let devices = vec![DeviceKind::Cuda; count];
    Machine::known(announcement::with_gpus(level, &devices))
}

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
    Graph::build(&pipeline(stages), &cpu(), &RunOptions::default(), world)
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
fn files_and_revisions_are_resolved_once() {
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
fn a_commit_needs_no_network_and_an_unreachable_hub_is_explained() {
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
            .starts_with("cannot determine which commit `main` of a/b is: "),
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
    insta::assert_snapshot!(hint, @"with the commit no network is needed: the copy of a/b on this machine is `revision: 0123456789abcdef0123456789abcdef01234567`");
}

#[test]
fn the_hub_reports_the_commit() {
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
