//! Tests of the pipeline file as a whole.

mod growth;
mod json_schema;
mod mistakes;
mod policy_and_command;
mod variants;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::check::{Checker, expects};
use super::diagnostic::Report;
use super::yaml::{self, Value};
use super::*;
use crate::kind::declare::Declared;
use crate::kind::schema::{Default, Field, Role, Schema, Type};

/// A folder with a pipeline's data, removed at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/queries.jsonl"), "").unwrap();
        Self(folder)
    }

    fn load(&self, text: &str, sets: &[&str]) -> Result<Pipeline, LoadError> {
        let overrides: Vec<Override> = sets.iter().map(|s| Override::parse(s).unwrap()).collect();
        load_str(text, &self.0.path().join("pipeline.yaml"), &overrides)
    }

    /// What a user reads, with the folder left out.
    fn errors(&self, text: &str, sets: &[&str]) -> String {
        match self.load(text, sets) {
            Ok(pipeline) => panic!("accepted: {pipeline:?}"),
            Err(error) => error
                .to_string()
                .replace(&format!("{}/", self.0.path().display()), ""),
        }
    }
}

const GOOD: &str = r#"
version: 1
name: good
seed: 7
params: { lr: 1e-6, model: { source: { hub: { repo: some/model } } } }
stages:
  queries: { uses: queries, with: { source: { path: data/../data/./queries.jsonl }, sample: { n: 4 } } }
  policy: { uses: model, with: "${params.model}" }
  rollout: { uses: rollout, needs: { queries: queries, model: policy }, with: { tau: 1, top_k: null } }
  score: { uses: score, needs: { rollouts: rollout } }
  pairs: { uses: pairs, needs: { scores: score }, with: { seed: 3 } }
  train: { uses: train, needs: { model: policy, pairs: pairs }, with: { loss: dpo, learning_rate: "${params.lr}" } }
"#;

fn stage<'a>(pipeline: &'a Pipeline, name: &str) -> &'a Stage {
    pipeline.stages.iter().find(|s| s.name == name).unwrap()
}

fn errors(text: &str) -> String {
    Folder::new().errors(text, &[])
}

/// A pipeline of which only the stages matter.
fn stages(stages: &str) -> String {
    format!("version: 1\nname: x\nstages:\n{stages}")
}

#[test]
fn defaults_are_filled_in() {
    let folder = Folder::new();
    let pipeline = folder.load(GOOD, &[]).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("good", 7));
    let names: Vec<&str> = pipeline.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        ["queries", "policy", "rollout", "score", "pairs", "train"]
    );
    assert_eq!(stage(&pipeline, "queries").line, 7);

    let queries = &stage(&pipeline, "queries").with();
    assert_eq!(
        queries["source"]["path"],
        json!(folder.0.path().join("data/queries.jsonl"))
    );
    assert_eq!(
        queries["sample"],
        json!({ "n": 4, "seed": 7 }),
        "the pipeline's seed"
    );
    assert_eq!(
        stage(&pipeline, "pairs").with()["seed"],
        json!(3),
        "its own seed"
    );
    assert_eq!(
        stage(&pipeline, "policy").with()["source"],
        json!({ "hub": { "repo": "some/model", "revision": "main" } })
    );
    let rollout = &stage(&pipeline, "rollout").with();
    assert!(
        rollout["tau"].is_f64(),
        "a whole number for a float becomes one"
    );
    assert_eq!(
        (&rollout["top_k"], &rollout["light"], &rollout["width"]),
        (&Json::Null, &Json::Null, &json!(0))
    );
    let train = stage(&pipeline, "train");
    assert_eq!(train.with()["loss"], json!({ "dpo": { "beta": 0.1 } }));
    assert_eq!(
        train.with()["learning_rate"],
        json!(1e-6),
        "a reference keeps the type"
    );
    assert_eq!(train.needs["pairs"].from, "pairs");
    assert_eq!(train.needs["pairs"].output, "pairs");
}

#[test]
fn foresight_temperature_defaults_to_that_of_the_step() {
    let folder = Folder::new();
    for (text, want) in [
        ("{}", 0.6),
        ("{temperature: 0.9}", 0.9),
        ("{temperature: 2}", 2.0),
        ("{foresight_temperature: 1}", 1.0),
        ("{foresight_temperature: 1.0, temperature: 0.9}", 1.0),
        ("{foresight_temperature: null}", 0.6),
        ("{foresight_temperature: ~, temperature: 0.7}", 0.7),
    ] {
        let with = check(StageKind::Rollout.schema(), text, folder.0.path());
        assert_eq!(with["foresight_temperature"], json!(want), "{text}");
    }
    // What moves the one moves the other, also from the command line.
    let pipeline = folder
        .load(GOOD, &["stages.rollout.with.temperature=0.9"])
        .unwrap();
    let with = &stage(&pipeline, "rollout").with();
    assert_eq!(with["foresight_temperature"], json!(0.9));
    let errors = errors(&stages(
        "  r: { uses: rollout, needs: { queries: q, model: m }, with: { temperature: 0 } }",
    ));
    assert_eq!(
        errors.matches("must be a number above 0").count(),
        1,
        "{errors}"
    );
}

/// A default that is another field's value needs that field before it, with its type.
#[test]
fn a_default_may_copy_an_earlier_field() {
    for kind in StageKind::ALL {
        let fields = &kind.schema().fields;
        for (at, field) in fields.iter().enumerate() {
            let Default::SameAs(other) = field.default else {
                continue;
            };
            let before = fields[..at].iter().find(|f| f.name == other);
            assert_eq!(before.map(|f| &f.ty), Some(&field.ty), "{}", field.name);
        }
    }
}

#[test]
fn explicit_defaults_equal_omitted_ones() {
    let folder = Folder::new();
    let short = folder.load(
        &stages("  q: { uses: queries, with: { source: { path: data/queries.jsonl } } }"),
        &[],
    );
    let long = folder.load(
        &stages("  q: { with: { sample: null, source: { field: ~, layout: 'auto', path: data/queries.jsonl, format: auto } }, uses: queries }"),
        &[],
    );
    assert_eq!(short.unwrap().stages, long.unwrap().stages);
}

#[test]
fn overrides_are_typed_and_create_what_is_missing() {
    let folder = Folder::new();
    let sets = [
        "stages.train.with.learning_rate=5e-7",
        "stages.train.with.loss.dpo.beta=1",
        "stages.score.with.tau=0.5",
        "seed=9",
        "params.model.source.hub.revision=abc",
    ];
    let pipeline = folder.load(GOOD, &sets).unwrap();
    let train = &stage(&pipeline, "train").with();
    assert_eq!(
        (&train["learning_rate"], &train["loss"]),
        (&json!(5e-7), &json!({ "dpo": { "beta": 1.0 } }))
    );
    assert_eq!(stage(&pipeline, "score").with()["tau"], json!(0.5));
    assert_eq!(
        stage(&pipeline, "policy").with()["source"]["hub"]["revision"],
        json!("abc")
    );
    assert_eq!(stage(&pipeline, "train").with()["seed"], json!(9));
}

#[test]
fn overrides_reach_into_lists() {
    let text = stages(
        "  r: { uses: rollout, needs: { queries: q, model: m }, with: { stop: [a, b] } }\n  q: { uses: queries, with: { source: { path: data/queries.jsonl } } }\n  m: { uses: model, with: { source: { hub: { repo: a/b } } } }",
    );
    let pipeline = Folder::new()
        .load(
            &text,
            &["stages.r.with.stop[1]=c", "stages.r.with.stop.2=d"],
        )
        .unwrap();
    assert_eq!(stage(&pipeline, "r").with()["stop"], json!(["a", "c", "d"]));
}

#[test]
fn references_are_interpolated_nested_and_escaped() {
    let text = "version: 1\nname: x\nparams: { a: { b: 5.0e-7 }, c: 'lr-${params.a.b}', d: '${params.c}!' }\nstages:\n  m: { uses: model, with: { source: { hub: { repo: \"${params.d}\", revision: \"$${x} ${params.a.b}\" } } } }\n";
    let pipeline = Folder::new().load(text, &[]).unwrap();
    assert_eq!(
        stage(&pipeline, "m").with()["source"]["hub"],
        json!({ "repo": "lr-5.0e-7!", "revision": "${x} 5.0e-7" })
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("no/such.yaml"), &[]).unwrap_err();
    assert!(error.to_string().starts_with("no/such.yaml: "), "{error}");
}

#[test]
fn parameters_that_multiply_are_stopped() {
    let mut text = String::from("version: 1\nname: x\nparams:\n  p0: \"0123456789\"\n");
    for level in 1..30 {
        let last = level - 1;
        text += &format!(
            "  p{level}: [\"${{params.p{last}}}\", \"${{params.p{last}}}\", \"${{params.p{last}}}\"]\n"
        );
    }
    text += "stages: { s: { uses: model, with: { source: { hub: { repo: a } } } } }\n";
    assert!(errors(&text).contains("expand to too much"));
}

/// The default, as text in the documentation.
fn default_text(field: &Field) -> String {
    match &field.default {
        Default::Required => "required".to_owned(),
        Default::Value(value) => format!("`{value}`"),
        Default::PipelineSeed => "the pipeline's `seed`".to_owned(),
        Default::Null => "`null`".to_owned(),
        Default::SameAs(other) => format!("the value of `{other}`"),
        Default::Object => "its own defaults".to_owned(),
    }
}

fn rows(schema: &Schema, prefix: &str, out: &mut String) {
    for field in &schema.fields {
        let name = format!("{prefix}{}", field.name);
        let role = if field.role == Role::Execution {
            " Not part of the key."
        } else {
            ""
        };
        out.push_str(&format!(
            "| `{name}` | {} | {} | {}{role} |\n",
            expects(&field.ty),
            default_text(field),
            field.doc
        ));
        match &field.ty {
            Type::Object(inner) => rows(inner, &format!("{name}."), out),
            Type::OneOf { fields, .. } => {
                rows(&Schema::new(fields.clone()), &format!("{name}."), out)
            }
            Type::List { items, .. } => {
                if let Type::Object(inner) = &**items {
                    rows(inner, &format!("{name}[]."), out);
                }
            }
            Type::Map(items) => {
                if let Type::Object(inner) = &**items {
                    rows(inner, &format!("{name}.NAME."), out);
                }
            }
            _ => {}
        }
    }
}

/// `UPDATE_DOCS=1 cargo test` rewrites the tables.
#[test]
fn every_parameter_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipeline-file.md");
    let mut doc = std::fs::read_to_string(&path).unwrap();
    let mut wrong = Vec::new();
    let policy = Policy::schema();
    let kinds = StageKind::ALL.iter().map(|k| (k.name(), k.schema()));
    for (name, schema) in [("stage", &policy)].into_iter().chain(kinds) {
        let head = if name == "stage" { "Key" } else { "Parameter" };
        let mut table = format!("| {head} | Takes | Default | Meaning |\n|---|---|---|---|\n");
        rows(schema, "", &mut table);
        let (open, close) = (
            format!("<!-- {name} -->\n"),
            format!("<!-- end of {name} -->"),
        );
        let start = doc.find(&open).unwrap() + open.len();
        let end = start + doc[start..].find(&close).unwrap();
        if doc[start..end] != table {
            wrong.push(format!("{name}:\n{table}"));
            doc.replace_range(start..end, &table);
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, doc).unwrap();
    } else {
        assert!(
            wrong.is_empty(),
            "{} differs from the schemas (UPDATE_DOCS=1 rewrites it):\n{}",
            path.display(),
            wrong.join("\n")
        );
    }
}

/// Checks a value as if it stood in a file.
fn check(schema: &Schema, text: &str, base: &Path) -> Json {
    let (node, problems) = yaml::parse(text);
    assert!(problems.is_empty(), "{problems:?}");
    let node = node.unwrap();
    let Value::Map(entries) = &node.value else {
        panic!("{text}")
    };
    let mut report = Report::default();
    let value = Checker {
        seed: 11,
        base,
        report: &mut report,
    }
    .object(schema, entries, "", "it", node.span);
    assert!(
        report.is_empty(),
        "{}",
        report.finish(Path::new("p"), text, &[])
    );
    value
}

#[test]
fn schema_and_struct_of_every_kind_agree() {
    let folder = Folder::new();
    for kind in StageKind::ALL {
        let minimal = match kind {
            StageKind::Queries => vec![
                "{source: {path: data/queries.jsonl}}",
                "{source: {path: data/queries.jsonl}, sample: {n: 1}}",
            ],
            StageKind::Model => vec![
                "{source: {path: data/queries.jsonl}}",
                "{source: {hub: {repo: a/b}}}",
                "{source: {pypi: {package: a, version: '1', file: b, sha256: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc}}}",
            ],
            StageKind::Eval => vec![
                "{benchmarks: [{name: a, path: data/queries.jsonl}]}",
                "{benchmarks: [{name: a, path: data/queries.jsonl, answer: choice}]}",
            ],
            StageKind::Rollout => {
                vec!["{}", "{light: {}, selection: greedy, terminal_score: zero}"]
            }
            StageKind::Pairs => vec!["{}", "{negative: uniform}", "{negative: lowest}"],
            StageKind::Train => vec![
                "{}",
                "{loss: dpo}",
                "{loss: aco}",
                "{loss: {aco: {clip: max}}}",
            ],
            StageKind::Score => vec!["{}", "{tau: 1}"],
            StageKind::Command => vec![
                "{run: ['true']}",
                "{run: [a], files: {f: data/queries.jsonl}, outputs: {x: {}, y: {files: [a], nonempty: true}}, env: {A: b}}",
            ],
        };
        for text in minimal {
            let with = check(kind.schema(), text, folder.0.path());
            let params = kind.params(with.clone());
            let params = params.unwrap_or_else(|e| panic!("{}: {e} of {with}", kind.name()));
            assert_eq!(params.to_value(), with, "{}", kind.name());
            // Written out in full, it is the same: the defaults are valid.
            assert_eq!(
                check(kind.schema(), &with.to_string(), folder.0.path()),
                with,
                "{}",
                kind.name()
            );
        }
    }
}

/// What an engine was called before is read as what it is called now.
#[test]
fn an_earlier_name_of_a_choice_is_accepted() {
    let folder = Folder::new();
    let with = |text| check(StageKind::Rollout.schema(), text, folder.0.path());
    assert_eq!(with("{engine: libtorch}"), with("{engine: native}"));
}

/// The pipelines that come with Genius are right.
#[test]
fn shipped_pipelines_are_valid() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).unwrap();
    for file in files
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
    {
        if let Err(error) = load(&file, &[]) {
            panic!("{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        let _ = load_str(&text, Path::new("p.yaml"), &[]);
    }

    #[test]
    fn text_that_looks_like_yaml_is_read_without_panic(text in r#"([ \t\n\r:{}\[\],&*!|>'"%@`#?<~-]|a|version: 1|\$\{params\.|stages|uses|é|<<|!!int|---|\.\.\.){0,60}"#) {
        let _ = load_str(&text, Path::new("p.yaml"), &[]);
    }

    /// A good file with a piece cut out or put elsewhere.
    #[test]
    fn a_damaged_pipeline_is_read_without_panic(from in 0..GOOD.len(), length in 0usize..40, to in 0..GOOD.len()) {
        let mut text = GOOD.to_owned();
        let piece: String = text.drain(from..(from + length).min(GOOD.len())).collect();
        text.insert_str(to.min(text.len()), &piece);
        if let Err(error) = load_str(&text, Path::new("p.yaml"), &[]) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_override_is_read_without_panic(path in "[a-z.\\[\\]0-9]{0,20}", value in any::<String>()) {
        if let Ok(set) = Override::parse(&format!("{path}={value}")) {
            let _ = load_str(GOOD, Path::new("p.yaml"), &[set]);
        }
    }
}
