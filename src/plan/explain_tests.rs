//! Forecasts and explanations over caches that are filled by hand.

mod earlier;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tests::{World, build, cpu, pipeline, stage, whole};
use super::*;
use crate::kind::StageKind;
use crate::spec::{Pipeline, Stage, Variant};
use crate::store::{ContentHash, Key, Modes, RECORD_FORMAT, Record, Results, Store};

/// A cache, and the world that pipelines read.
struct Lab {
    _dir: TempDir,
    store: Store,
    world: World,
}

/// How a stage of a made-up run ends.
enum End {
    /// With these bytes.
    Makes(String),
    Fails,
}

/// Other bytes under every key.
fn by_key(_: &Node, key: Key) -> End {
    End::Makes(key.to_string())
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            store: Store::open(&dir.path().join("cache")).unwrap(),
            world: World::new(),
            _dir: dir,
        }
    }

    fn graph(&self, stages: Vec<Stage>) -> Graph {
        build(stages, &self.world).unwrap()
    }

    /// A run of `/p/quick.yaml`: what it would keep and leave behind.
    fn run(&self, id: &str, graph: &Graph, end: impl Fn(&Node, Key) -> End) {
        self.run_of("/p/quick.yaml", id, graph, end);
    }

    fn run_of(&self, file: &str, id: &str, graph: &Graph, end: impl Fn(&Node, Key) -> End) {
        let mut made: Vec<BTreeMap<String, ContentHash>> = Vec::new();
        let (mut stages, mut events) = (Vec::new(), String::new());
        for node in &graph.nodes {
            let inputs: Option<BTreeMap<String, ContentHash>> = node
                .needs
                .iter()
                .map(|(slot, need)| Some((slot.clone(), *made[need.from].get(&need.output)?)))
                .collect();
            let Some(inputs) = inputs else {
                made.push(BTreeMap::new());
                stages.push(json!({ "stage": node.name, "variants": node.variants, "key": null, "status": "skipped" }));
                continue;
            };
            let fingerprint = Fingerprint::new(node, &inputs);
            let key = fingerprint.key();
            let (outputs, status) = match (self.store.lookup(&key), end(node, key)) {
                (Some(record), _) => (record.outputs, "cached"),
                (None, End::Makes(bytes)) => {
                    let started = format!("{}Z", &id[..15]);
                    (
                        self.keep(node, &fingerprint, &bytes, id, &started),
                        "executed",
                    )
                }
                (None, End::Fails) => (BTreeMap::new(), "failed"),
            };
            if status != "cached" {
                let event = json!({ "event": "stage_started", "stage": node.name, "key": key, "preimage": fingerprint.preimage() });
                events.push_str(&format!("{event}\n"));
            }
            made.push(
                outputs
                    .into_iter()
                    .map(|(name, tree)| (name, tree.hash))
                    .collect(),
            );
            stages.push(json!({ "stage": node.name, "variants": node.variants, "key": key, "status": status }));
        }
        self.write(
            id,
            "run.json",
            &json!({ "pipeline_path": file, "stages": stages }).to_string(),
        );
        self.write(id, "events.jsonl", &events);
    }

    /// A record whose outputs hold these bytes.
    fn keep(
        &self,
        node: &Node,
        fingerprint: &Fingerprint,
        bytes: &str,
        id: &str,
        started: &str,
    ) -> BTreeMap<String, crate::store::Tree> {
        let job = self.store.job_dir("test").unwrap();
        let outputs: BTreeMap<_, _> = node
            .outputs
            .iter()
            .map(|name| {
                let folder = job.output().join(name);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("x"), format!("{name} {bytes}")).unwrap();
                let written = job.written(name).unwrap().unwrap();
                let tree = self.store.ingest(&job, &written, Modes::Plain).unwrap();
                (name.clone(), tree)
            })
            .collect();
        let record = Record {
            format: RECORD_FORMAT,
            key: fingerprint.key(),
            kind: node.kind().name().to_owned(),
            preimage: fingerprint.preimage(),
            outputs: outputs.clone(),
            figures: json!([]),
            provenance: json!({
                "stage": node.stage, "pipeline": "quick", "run_id": id, "started": started,
                "reason": "never computed here", "sources": node.provenance,
                "environment": { "command_line": "genius run quick.yaml" },
            }),
        };
        self.store.put(&record).unwrap();
        outputs
    }

    fn write(&self, id: &str, file: &str, text: &str) {
        let folder = self.store.runs_dir().join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }

    fn earlier(&self) -> Earlier {
        Earlier::new(&self.store, Path::new("/p/quick.yaml"), None)
    }

    /// `stage: outlook, reason` of every stage.
    fn plan(&self, graph: &Graph, forced: &[bool]) -> String {
        let forecast = Forecast::new(graph, Some(&self.store), forced);
        let earlier = self.earlier();
        let lines = graph
            .nodes
            .iter()
            .zip(&forecast.stages)
            .map(|(node, stage)| {
                let name = &node.name;
                match &stage.outlook {
                    Outlook::Reuse => format!("{name}: reuse"),
                    Outlook::Run if stage.forced => format!("{name}: run, forced"),
                    Outlook::Run => {
                        format!("{name}: run, {}", earlier.reason(node, &stage.preimage))
                    }
                    Outlook::Depends(on) => format!("{name}: depends on {on:?}"),
                }
            });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn explain(&self, graph: &Graph, name: &str) -> String {
        self.explain_for("/p/quick.yaml", graph, name)
    }

    fn explain_for(&self, file: &str, graph: &Graph, name: &str) -> String {
        let forecast = Forecast::new(graph, Some(&self.store), &[]);
        let earlier = Earlier::new(&self.store, Path::new(file), None);
        let index = graph.find(name).unwrap();
        let explanation = explain(graph, &forecast, Some(&self.store), Some(&earlier), index);
        without_keys(&explanation.render())
    }

    fn remove_record(&self, key: Key) {
        let hex = key.to_string();
        let path = self
            .store
            .root()
            .join("records")
            .join(&hex[..2])
            .join(format!("{hex}.json"));
        fs::remove_file(path).unwrap();
    }

    fn key(&self, graph: &Graph, name: &str) -> Key {
        let forecast = Forecast::new(graph, Some(&self.store), &[]);
        forecast.stages[graph.find(name).unwrap()].key.unwrap()
    }
}

/// `key 0123456789ab` as `key KEY`.
fn without_keys(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find("key ") {
        let (before, after) = rest.split_at(at + 4);
        out.push_str(before);
        let digits = after.chars().take_while(char::is_ascii_hexdigit).count();
        rest = if digits == 12 {
            out.push_str("KEY");
            &after[digits..]
        } else {
            after
        };
    }
    out + rest
}

/// The whole pipeline with other parameters of a stage.
fn with(changes: &[(&str, &str, Value)]) -> Vec<Stage> {
    let mut stages = whole();
    for (stage, pointer, value) in changes {
        let found = stages.iter_mut().find(|s| s.name == *stage).unwrap();
        let mut with = found.params.to_value();
        *with.pointer_mut(pointer).unwrap() = value.clone();
        found.params = found.kind().params(with).unwrap();
    }
    stages
}

const FIRST: &str = "20260101T000000-aaaa";
const SECOND: &str = "20260102T000000-bbbb";
const THIRD: &str = "20260103T000000-cccc";

// ---- what would happen ----

#[test]
fn without_a_cache_everything_runs_or_depends() {
    let graph = build(whole(), &World::new()).unwrap();
    let forecast = Forecast::new(&graph, None, &[]);
    assert_eq!(forecast.counts(), (2, 0, 6));
    assert!(forecast.stages[0].key.is_some(), "it needs nothing");
    assert!(forecast.stages[7].key.is_none());
}

#[test]
fn what_changed_runs_and_what_follows_depends_on_it() {
    let lab = Lab::new();
    let graph = lab.graph(whole());
    lab.run(FIRST, &graph, by_key);
    assert_eq!(
        Forecast::new(&graph, Some(&lab.store), &[]).counts(),
        (0, 8, 0)
    );
    let changed = lab.graph(with(&[("score", "/tau", json!(0.5))]));
    insta::assert_snapshot!(lab.plan(&changed, &[]), @r"
    queries: reuse
    policy: reuse
    before: reuse
    rollout: reuse
    score: run, with.tau: (none) -> 0.5
    pairs: depends on [4]
    train: depends on [5]
    after: depends on [6]
    ");
}

#[test]
fn equal_bytes_end_the_rerun() {
    let lab = Lab::new();
    lab.run(FIRST, &lab.graph(whole()), by_key);
    let changed = lab.graph(with(&[("score", "/tau", json!(0.5))]));
    let before = lab
        .store
        .lookup(&lab.key(&lab.graph(whole()), "score"))
        .unwrap();
    // It ran, and gave what it gave before.
    let score = &changed.nodes[changed.find("score").unwrap()];
    lab.run(SECOND, &changed, |node, key| {
        if node.stage == "score" {
            End::Makes(before.key.to_string())
        } else {
            by_key(node, key)
        }
    });
    assert_eq!(score.stage, "score");
    assert_eq!(
        Forecast::new(&changed, Some(&lab.store), &[]).counts(),
        (0, 8, 0)
    );
    assert_eq!(
        lab.store.records().count(),
        9,
        "only score was computed twice"
    );
}

#[test]
fn a_forced_stage_runs_and_makes_what_follows_depend_on_it() {
    let lab = Lab::new();
    let graph = lab.graph(whole());
    lab.run(FIRST, &graph, by_key);
    let mut forced = vec![false; 8];
    forced[graph.find("pairs").unwrap()] = true;
    insta::assert_snapshot!(lab.plan(&graph, &forced), @r"
    queries: reuse
    policy: reuse
    before: reuse
    rollout: reuse
    score: reuse
    pairs: run, forced
    train: depends on [5]
    after: depends on [6]
    ");
}

#[test]
fn ten_thousand_stages_are_planned_quickly() {
    let mut stages = vec![stage(
        "base",
        StageKind::Queries,
        &[],
        json!({ "source": { "path": "/data/q.jsonl" } }),
    )];
    for n in 0..10_000 {
        let query = json!({ "source": { "path": "/data/q.jsonl" }, "sample": { "n": n + 1 } });
        stages.push(stage(&format!("s{n}"), StageKind::Queries, &[], query));
    }
    let graph = build(stages, &World::new()).unwrap();
    assert_eq!(Forecast::new(&graph, None, &[]).counts(), (10_001, 0, 0));
    let lab = Lab::new();
    assert_eq!(
        Forecast::new(&graph, Some(&lab.store), &[]).counts(),
        (10_001, 0, 0)
    );
}

// ---- why ----

#[test]
fn a_reused_result_names_its_origin() {
    let lab = Lab::new();
    let graph = lab.graph(whole());
    lab.run(FIRST, &graph, by_key);
    insta::assert_snapshot!(lab.explain(&graph, "train"), @r"
    stage train is reused: nothing its result depends on has changed
      key KEY, computed 20260101T000000Z by run 20260101T000000-aaaa of pipeline quick as stage train
      with: genius run quick.yaml
      it ran because: never computed here
    ");
}

#[test]
fn inputs_are_followed_to_the_stages_that_changed() {
    let lab = Lab::new();
    lab.run(FIRST, &lab.graph(whole()), by_key);
    // The file, and what scores it, changed; everything before `train` has run.
    lab.world
        .content
        .borrow_mut()
        .insert("/data/q.jsonl".into(), "other queries");
    let changed = lab.graph(with(&[("score", "/tau", json!(0.5))]));
    let before_train = changed.restricted_to(&[changed.find("pairs").unwrap()]);
    lab.run(SECOND, &before_train, by_key);
    insta::assert_snapshot!(lab.explain(&changed, "train"), @r"
    stage train would run:
      input pairs: changed, because stage pairs ran with:
        input scores: changed, because stage score ran with:
          input rollouts: changed, because stage rollout ran with:
            input queries: changed, because stage queries ran with content of with.source.path: 54d7b208.. -> e65d5ccf.. (q.jsonl)
          with.tau: (none) -> 0.5
    ");
    insta::assert_snapshot!(lab.explain(&changed, "after"), @r"
    stage after runs unless its inputs turn out the same as before:
      input model: not known before stage train has run; it would run:
        input pairs: changed, because stage pairs ran with:
          input scores: changed, because stage score ran with:
            input rollouts: changed, because stage rollout ran with:
              input queries: changed, because stage queries ran with content of with.source.path: 54d7b208.. -> e65d5ccf.. (q.jsonl)
            with.tau: (none) -> 0.5
    ");
}

#[test]
fn a_stage_that_feeds_several_is_explained_once() {
    let lab = Lab::new();
    lab.run(FIRST, &lab.graph(whole()), by_key);
    *lab.world.commit.borrow_mut() = "b".repeat(40);
    let changed = lab.graph(whole());
    insta::assert_snapshot!(lab.explain(&changed, "train"), @r#"
    stage train runs unless its inputs turn out the same as before:
      input model: not known before stage policy has run; it would run:
        with.source.hub.revision: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" -> "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
      input pairs: not known before stage pairs has run; it may run:
        input scores: not known before stage score has run; it may run:
          input rollouts: not known before stage rollout has run; it may run:
            input model: not known before stage policy has run (see above)
    "#);
}

/// Each of 40 stages needs the last two: paths through it double with every one.
#[test]
fn many_paths_to_one_cause_are_followed_once() {
    let mut stages = vec![stage(
        "m0",
        StageKind::Model,
        &[],
        json!({ "source": { "path": "/data/q.jsonl" } }),
    )];
    stages.push(stage(
        "q",
        StageKind::Queries,
        &[],
        json!({ "source": { "path": "/data/q.jsonl" } }),
    ));
    for n in 1..=40 {
        let model = format!("m{}", n - 1);
        let name = |what: &str| format!("{what}{n}");
        let needs = [("queries", "q"), ("model", model.as_str())];
        stages.push(stage(&name("r"), StageKind::Rollout, &needs, json!({})));
        stages.push(stage(
            &name("s"),
            StageKind::Score,
            &[("rollouts", &name("r"))],
            json!({}),
        ));
        stages.push(stage(
            &name("p"),
            StageKind::Pairs,
            &[("scores", &name("s"))],
            json!({}),
        ));
        let needs = [("model", model.clone()), ("pairs", name("p"))];
        let needs: Vec<(&str, &str)> = needs.iter().map(|(s, f)| (*s, f.as_str())).collect();
        stages.push(stage(&name("m"), StageKind::Train, &needs, json!({})));
    }
    let lab = Lab::new();
    let text = lab.explain(&lab.graph(stages), "m40");
    assert!(text.lines().count() < 100, "{text}");
    assert!(text.contains("continues from there"), "{text}");
}
