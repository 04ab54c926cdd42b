//! The JSON Schema accepts what validation accepts, and refuses what is plainly wrong.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::super::json_schema;
use super::super::yaml::{self, Value, YamlNode};
use super::GOOD;

/// As an editor sees it: merge keys and aliases expanded.
fn to_json(node: &YamlNode) -> Json {
    match &node.value {
        Value::Null | Value::Invalid => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::Float(f) => json!(f),
        Value::Str(s) => json!(s),
        Value::Seq(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|e| (e.key.clone(), to_json(&e.value)))
                .collect(),
        ),
    }
}

fn problems(text: &str) -> Vec<String> {
    let schema = json_schema();
    let validator = jsonschema::draft202012::new(&schema).unwrap_or_else(|e| panic!("{e}"));
    let value = to_json(&yaml::parse(text).0.unwrap());
    validator
        .iter_errors(&value)
        .map(|e| format!("{}: {e}", e.instance_path))
        .collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect()
}

#[test]
fn the_schema_is_valid() {
    assert!(jsonschema::meta::is_valid(&json_schema()));
}

#[test]
fn shipped_pipelines_match_the_schema() {
    let shipped: Vec<PathBuf> = ["pipelines", "examples", "src/cli/init"]
        .into_iter()
        .flat_map(files)
        .collect();
    assert!(shipped.len() >= 4, "{shipped:?}");
    for path in shipped {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(problems(&text), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn what_validation_accepts_matches_the_schema() {
    for text in [
        GOOD,
        "version: 1\nname: x\nx-a: 1\nparams: ~\nstages:\n  c: { uses: command, needs: { a: c.b }, with: { run: ['true'], outputs: { b: { files: [x] } }, env: { A: '1' } }, retry: 2, resources: { gpu: 0, cores: '${params.c}' } }\n  t: { uses: train, needs: { model: a, pairs: b }, with: { loss: { aco: { clip: max } }, epochs: '${params.e}' }, retry: { times: 1 }, timeout_secs: 0.5 }\nvariants:\n  a:\n  b: { set: { seed: 1, 'stages.t.with.loss': dpo }, matrix: { params.x: [1, { a: 2 }] }, description: text }\n",
    ] {
        assert_eq!(problems(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn mistakes_do_not_match_the_schema() {
    let stage = |s: &str| format!("version: 1\nname: x\nstages: {{ s: {s} }}\n");
    for text in [
        "name: x\nstages: { s: { uses: score } }".to_owned(),
        "version: 2\nname: x\nstages: { s: { uses: score, needs: { rollouts: r } } }".to_owned(),
        "version: 1\nname: x\nsede: 1\nstages: { s: { uses: score, needs: { rollouts: r } } }"
            .to_owned(),
        "version: 1\nname: x\nstages: {}".to_owned(),
        stage("{ uses: scroe }"),
        stage("{ uses: score }"),
        stage("{ uses: score, needs: { rollout: r } }"),
        stage("{ uses: score, needs: { rollouts: r }, with: { tau: 0 } }"),
        stage("{ uses: score, needs: { rollouts: r }, with: { tua: 1 } }"),
        stage("{ uses: score, needs: { rollouts: r }, with: { tau: '1' } }"),
        stage("{ uses: score, needs: { rollouts: r }, wiht: {} }"),
        stage("{ uses: score, needs: { rollouts: r }, retry: 101 }"),
        stage("{ uses: score, needs: { rollouts: r }, resources: { gpus: 1 } }"),
        stage("{ uses: score, needs: { rollouts: r }, timeout_secs: 0 }"),
        stage("{ uses: model, with: { source: { path: a, hub: { repo: b } } } }"),
        stage("{ uses: pairs, needs: { scores: s }, with: { negative: best } }"),
        stage("{ uses: train, needs: { model: m, pairs: p }, with: { loss: dop } }"),
        stage("{ uses: command }"),
        stage("{ uses: command, with: { run: [] } }"),
        stage("{ uses: command, with: { run: [a], outputs: { '1': {} } } }"),
        stage("{ uses: score, needs: { rollouts: r } }\nvariants: { base: {} }"),
        format!(
            "{}variants: {{ base: {{}} }}\n",
            stage("{ uses: score, needs: { rollouts: r } }")
        ),
        format!(
            "{}variants: {{ v: {{ set: {{ name: y }} }} }}\n",
            stage("{ uses: score, needs: { rollouts: r } }")
        ),
        format!(
            "{}variants: {{ v: {{ matrix: {{ seed: 1 }} }} }}\n",
            stage("{ uses: score, needs: { rollouts: r } }")
        ),
    ] {
        let fits = yaml::parse(&text).0.is_some() && problems(&text).is_empty();
        assert!(!fits, "{text}");
    }
}

#[test]
fn the_schema_describes_parameters() {
    let schema = json_schema();
    insta::assert_snapshot!(schema["$defs"]["score"]["properties"]["tau"], @r##"{"description":"Temperature of the softmax that makes F_k for pairs (eq. 2); the rollout's unless given.","anyOf":[{"type":"number","exclusiveMinimum":0.0},{"$ref":"#/$defs/reference"},{"type":"null"}]}"##);
    insta::assert_snapshot!(schema["$defs"]["pairs"]["properties"]["negative"]["default"], @r#""categorical""#);
}
