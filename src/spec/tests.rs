//! Tests of the pipeline file as a whole: what is accepted, and how every
//! mistake is shown.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::check::{Checker, expects};
use super::diagnostic::Report;
use super::yaml::{self, Value};
use super::*;
use crate::stage::schema::{Default, Field, Role, Schema, Type};

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
fn a_good_pipeline_comes_with_its_defaults() {
    let folder = Folder::new();
    let pipeline = folder.load(GOOD, &[]).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("good", 7));
    let names: Vec<&str> = pipeline.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        ["queries", "policy", "rollout", "score", "pairs", "train"]
    );
    assert_eq!(stage(&pipeline, "queries").line, 7);

    let queries = &stage(&pipeline, "queries").with;
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
        stage(&pipeline, "pairs").with["seed"],
        json!(3),
        "its own seed"
    );
    assert_eq!(
        stage(&pipeline, "policy").with["source"],
        json!({ "hub": { "repo": "some/model", "revision": "main" } })
    );
    let rollout = &stage(&pipeline, "rollout").with;
    assert!(
        rollout["tau"].is_f64(),
        "a whole number for a float becomes one"
    );
    assert_eq!(
        (&rollout["top_k"], &rollout["light"], &rollout["width"]),
        (&Json::Null, &Json::Null, &json!(0))
    );
    let train = stage(&pipeline, "train");
    assert_eq!(train.with["loss"], json!({ "dpo": { "beta": 0.1 } }));
    assert_eq!(
        train.with["learning_rate"],
        json!(1e-6),
        "a reference keeps the type"
    );
    assert_eq!(train.needs["pairs"], "pairs");
}

#[test]
fn what_is_written_out_is_what_is_left_out() {
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
    let train = &stage(&pipeline, "train").with;
    assert_eq!(
        (&train["learning_rate"], &train["loss"]),
        (&json!(5e-7), &json!({ "dpo": { "beta": 1.0 } }))
    );
    assert_eq!(stage(&pipeline, "score").with["tau"], json!(0.5));
    assert_eq!(
        stage(&pipeline, "policy").with["source"]["hub"]["revision"],
        json!("abc")
    );
    assert_eq!(stage(&pipeline, "train").with["seed"], json!(9));
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
    assert_eq!(stage(&pipeline, "r").with["stop"], json!(["a", "c", "d"]));
}

#[test]
fn references_are_interpolated_nested_and_escaped() {
    let text = "version: 1\nname: x\nparams: { a: { b: 5.0e-7 }, c: 'lr-${params.a.b}', d: '${params.c}!' }\nstages:\n  m: { uses: model, with: { source: { hub: { repo: \"${params.d}\", revision: \"$${x} ${params.a.b}\" } } } }\n";
    let pipeline = Folder::new().load(text, &[]).unwrap();
    assert_eq!(
        stage(&pipeline, "m").with["source"]["hub"],
        json!({ "repo": "lr-5.0e-7!", "revision": "${x} 5.0e-7" })
    );
}

#[test]
fn all_problems_are_shown_at_once() {
    let text = r#"version: 1
name: x
sede: 1
stages:
  queries: { uses: queries, with: { source: { path: data/querys.jsonl } } }
  train:
    uses: trian
  score:
    uses: score
    needs: { rollouts: queries }
    with: { tua: 0.1 }
"#;
    assert_snapshot!(errors(text), @r#"
    error: a pipeline has no `sede`
     --> pipeline.yaml:3:1
      |
    3 | sede: 1
      | ^^^^
      |
      = help: did you mean `seed`?

    error: `source.path`: data/querys.jsonl does not exist
     --> pipeline.yaml:5:53
      |
    5 |   queries: { uses: queries, with: { source: { path: data/querys.jsonl } } }
      |                                                     ^^^^^^^^^^^^^^^^^ relative to the pipeline file's folder
      |
      = help: did you mean `queries.jsonl`?

    error: there is no stage kind `trian`
     --> pipeline.yaml:7:11
      |
    7 |     uses: trian
      |           ^^^^^
      |
      = help: did you mean `train`?

    error: stage `queries` (queries) makes no `rollouts`
      --> pipeline.yaml:10:24
       |
    10 |     needs: { rollouts: queries }
       |                        ^^^^^^^ `rollouts` takes `rollouts`
       |
       = help: no stage here makes `rollouts`; a stage of kind `rollout` does

    error: stage `score` (score) has no parameter `tua`
      --> pipeline.yaml:11:13
       |
    11 |     with: { tua: 0.1 }
       |             ^^^
       |
       = help: did you mean `tau`?
    "#);
}

#[test]
fn top_level_mistakes() {
    assert_snapshot!(errors(""), @r#"
    error: a pipeline file is a mapping, found nothing (null)
     --> pipeline.yaml:1:1
      |
    1 | 
      | ^
      |
      = help: it begins with `version: 1`
    "#);
    assert_snapshot!(errors("version: 2\nanything: goes\n"), @r#"
    error: version 2 is too new: this Genius reads version 1
     --> pipeline.yaml:1:10
      |
    1 | version: 2
      |          ^
      |
      = help: get a newer Genius, or write the pipeline for version 1
    "#);
    assert_snapshot!(errors("version: 1\nname: ''\nseed: -1\nparams: 3\nstages: {}\nx-anchors: 1\n"), @r#"
    error: `name` must be text that is not empty, found empty text
     --> pipeline.yaml:2:7
      |
    2 | name: ''
      |       ^^

    error: `seed` must be a whole number of at least 0, found the number -1
     --> pipeline.yaml:3:7
      |
    3 | seed: -1
      |       ^^

    error: `params` must be a mapping, found the number 3
     --> pipeline.yaml:4:9
      |
    4 | params: 3
      |         ^

    error: `stages` must be a mapping of at least one stage, found a mapping
     --> pipeline.yaml:5:9
      |
    5 | stages: {}
      |         ^
      |
      = help: a stage is written `NAME: { uses: KIND, needs: { ... }, with: { ... } }`
    "#);
}

#[test]
fn syntax_mistakes() {
    assert_snapshot!(errors("version: 1\nstages:\n\tq: 1\n"), @r#"
    error: this is not YAML: tabs disallowed within this context (block indentation)
     --> pipeline.yaml:3:2
      |
    3 | 	q: 1
      | 	^
      |
      = help: indent with blanks: YAML allows no tabs there
    "#);
    assert_snapshot!(errors("version: 1\nstages: { q: { uses: ${params.x} } }\n"), @r#"
    error: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
     --> pipeline.yaml:2:23
      |
    2 | stages: { q: { uses: ${params.x} } }
      |                       ^
      |
      = help: inside { } and [ ] a reference is written in quotes: "${params.NAME}"
    "#);
    assert_snapshot!(errors("version: 1\nname: x\nname: y\nstages: {q: {uses: score}}\n"), @r#"
    error: key `name` is written twice
     --> pipeline.yaml:3:1
      |
    3 | name: y
      | ^^^^
      |
      = help: first written at line 2, column 1: keep one of them

    error: stage `q` (score) misses the input `rollouts`
     --> pipeline.yaml:4:10
      |
    4 | stages: {q: {uses: score}}
      |          ^
      |
      = help: write `needs: { rollouts: STAGE }`
    "#);
}

#[test]
fn stage_mistakes() {
    assert_snapshot!(errors(&stages("  1st: { uses: model, with: { source: { hub: { repo: a } } } }\n  b: 3\n  c: { learning_rate: 1, uses: train, use: x }\n  d: {}\n")), @r#"
    error: `1st` cannot be the name of a stage
     --> pipeline.yaml:4:3
      |
    4 |   1st: { uses: model, with: { source: { hub: { repo: a } } } }
      |   ^^^
      |
      = help: a name begins with a letter or `_`; letters, digits, `_` and `-` follow

    error: stage `b` must be a mapping, found the number 3
     --> pipeline.yaml:5:6
      |
    5 |   b: 3
      |      ^
      |
      = help: write `{ uses: KIND, needs: { ... }, with: { ... } }`

    error: stage `c` (train) misses the input `model`
     --> pipeline.yaml:6:3
      |
    6 |   c: { learning_rate: 1, uses: train, use: x }
      |   ^
      |
      = help: write `needs: { model: 1st }`

    error: stage `c` (train) misses the input `pairs`
     --> pipeline.yaml:6:3
      |
    6 |   c: { learning_rate: 1, uses: train, use: x }
      |   ^
      |
      = help: write `needs: { pairs: STAGE }`

    error: stage `c` has no `learning_rate`
     --> pipeline.yaml:6:8
      |
    6 |   c: { learning_rate: 1, uses: train, use: x }
      |        ^^^^^^^^^^^^^
      |
      = help: `learning_rate` is a parameter: write it under `with`

    error: stage `c` has no `use`
     --> pipeline.yaml:6:39
      |
    6 |   c: { learning_rate: 1, uses: train, use: x }
      |                                       ^^^
      |
      = help: did you mean `uses`?

    error: stage `d` misses `uses`
     --> pipeline.yaml:7:3
      |
    7 |   d: {}
      |   ^
      |
      = help: its kind: `queries`, `model`, `rollout`, `score`, `pairs`, `train` or `eval`
    "#);
}

#[test]
fn needs_mistakes() {
    let text = stages(
        "  model: { uses: model, with: { source: { hub: { repo: a } } } }\n  e: { uses: eval, needs: { modle: model }, with: { benchmarks: [{ name: a, path: data }] } }\n  t: { uses: train, needs: { model: modell } }\n  s: { uses: score, needs: { rollouts: model } }\n  p: { uses: pairs, needs: s }\n  q: { uses: queries, needs: { x: s }, with: { source: { path: data } } }\n",
    );
    assert_snapshot!(errors(&text), @r#"
    error: stage `e` (eval) has no input `modle`
     --> pipeline.yaml:5:29
      |
    5 |   e: { uses: eval, needs: { modle: model }, with: { benchmarks: [{ name: a, path: data }] } }
      |                             ^^^^^
      |
      = help: did you mean `model`?

    error: stage `t` (train) misses the input `pairs`
     --> pipeline.yaml:6:3
      |
    6 |   t: { uses: train, needs: { model: modell } }
      |   ^
      |
      = help: write `needs: { pairs: p }`

    error: there is no stage `modell`
     --> pipeline.yaml:6:37
      |
    6 |   t: { uses: train, needs: { model: modell } }
      |                                     ^^^^^^
      |
      = help: did you mean `model`?

    error: stage `model` (model) makes no `rollouts`
     --> pipeline.yaml:7:40
      |
    7 |   s: { uses: score, needs: { rollouts: model } }
      |                                        ^^^^^ `rollouts` takes `rollouts`
      |
      = help: no stage here makes `rollouts`; a stage of kind `rollout` does

    error: `needs` must be a mapping of inputs to stages, found the text "s"
     --> pipeline.yaml:8:28
      |
    8 |   p: { uses: pairs, needs: s }
      |                            ^
      |
      = help: write `needs: { scores: STAGE }`

    error: stage `q` (queries) has no input `x`
     --> pipeline.yaml:9:32
      |
    9 |   q: { uses: queries, needs: { x: s }, with: { source: { path: data } } }
      |                                ^
      |
      = help: `queries` needs nothing: remove it
    "#);
}

#[test]
fn circles() {
    let text = stages(
        "  a: { uses: train, needs: { model: b, pairs: p } }\n  b: { uses: train, needs: { model: a, pairs: p } }\n  p: { uses: pairs, needs: { scores: p } }\n",
    );
    assert_snapshot!(errors(&text), @r#"
    error: stages need each other in a circle: a -> b -> a
     --> pipeline.yaml:5:37
      |
    5 |   b: { uses: train, needs: { model: a, pairs: p } }
      |                                     ^ closes the circle

    error: stage `p` (pairs) makes no `scores`
     --> pipeline.yaml:6:38
      |
    6 |   p: { uses: pairs, needs: { scores: p } }
      |                                      ^ `scores` takes `scores`
      |
      = help: no stage here makes `scores`; a stage of kind `score` does

    error: stages need each other in a circle: p -> p
     --> pipeline.yaml:6:38
      |
    6 |   p: { uses: pairs, needs: { scores: p } }
      |                                      ^ closes the circle
    "#);
}

#[test]
fn parameter_mistakes() {
    let text = stages(
        r#"  t:
    uses: train
    needs: { model: m, pairs: p }
    with:
      learning-rate: 1e-6
      batch_size: 0
      epochs: 1.5
      warmup_ratio: 1.5
      weight_decay: .nan
      adam_beta1: null
      max_length: "1300"
      dtype: fp16
      save_dtype: b16
      loss: { aco: {}, dpo: {} }
  p: { uses: pairs, needs: { scores: s }, with: { drop_truncated: 1 } }
  s: { uses: score, needs: { rollouts: r } }
  r: { uses: rollout, needs: { model: m, queries: q }, with: { stop: "x" } }
  q: { uses: queries, with: { source: { format: csv }, sample: {} } }
  m: { uses: model, with: { source: {} } }
  n: { uses: model, with: { source: { pypi: { version: 0.1, package: a, file: b, sha256: c } } } }
  o: { uses: model }
  t2: { uses: train, needs: { model: m, pairs: p }, with: { loss: dppo } }
  t3: { uses: train, needs: { model: m, pairs: p }, with: { loss: { dpoo: {} } } }
"#,
    );
    assert_snapshot!(errors(&text), @r#"
    error: stage `t` (train) has no parameter `learning-rate`
     --> pipeline.yaml:8:7
      |
    8 |       learning-rate: 1e-6
      |       ^^^^^^^^^^^^^
      |
      = help: did you mean `learning_rate`?

    error: `batch_size` must be a whole number of at least 1, found 0
     --> pipeline.yaml:9:19
      |
    9 |       batch_size: 0
      |                   ^

    error: `epochs` must be a whole number of at least 1, found the number 1.5
      --> pipeline.yaml:10:15
       |
    10 |       epochs: 1.5
       |               ^^^

    error: `warmup_ratio` must be a number of at least 0 and at most 1, found 1.5
      --> pipeline.yaml:11:21
       |
    11 |       warmup_ratio: 1.5
       |                     ^^^

    error: `weight_decay` must be a number of at least 0, found .nan
      --> pipeline.yaml:12:21
       |
    12 |       weight_decay: .nan
       |                     ^^^^

    error: `adam_beta1` must be a number of at least 0 and at most 1, found nothing (null)
      --> pipeline.yaml:13:19
       |
    13 |       adam_beta1: null
       |                   ^^^^

    error: `max_length` must be a whole number of at least 2, found the text "1300"
      --> pipeline.yaml:14:19
       |
    14 |       max_length: "1300"
       |                   ^^^^^^
       |
       = help: remove the quotes

    error: `dtype` must be one of `auto`, `f32` or `bf16`, found `fp16`
      --> pipeline.yaml:15:14
       |
    15 |       dtype: fp16
       |              ^^^^

    error: `save_dtype` must be one of `f32` or `bf16`, found `b16`
      --> pipeline.yaml:16:19
       |
    16 |       save_dtype: b16
       |                   ^^^
       |
       = help: did you mean `bf16`?

    error: `loss` must have exactly one of `aco` or `dpo`, found `aco` and `dpo`
      --> pipeline.yaml:17:24
       |
    17 |       loss: { aco: {}, dpo: {} }
       |                        ^^^
       |
       = help: keep one of them

    error: `drop_truncated` must be `true` or `false`, found the number 1
      --> pipeline.yaml:18:67
       |
    18 |   p: { uses: pairs, needs: { scores: s }, with: { drop_truncated: 1 } }
       |                                                                   ^

    error: `stop` must be a list, found the text "x"
      --> pipeline.yaml:20:70
       |
    20 |   r: { uses: rollout, needs: { model: m, queries: q }, with: { stop: "x" } }
       |                                                                      ^^^^
       |
       = help: write it as a list: [x]

    error: stage `q` (queries) misses the parameter `source.path`
      --> pipeline.yaml:21:39
       |
    21 |   q: { uses: queries, with: { source: { format: csv }, sample: {} } }
       |                                       ^^
       |
       = help: `source.path` takes a path

    error: stage `q` (queries) misses the parameter `sample.n`
      --> pipeline.yaml:21:64
       |
    21 |   q: { uses: queries, with: { source: { format: csv }, sample: {} } }
       |                                                                ^
       |
       = help: `sample.n` takes a whole number of at least 1

    error: `source` must have exactly one of `path`, `hub` or `pypi`, found none
      --> pipeline.yaml:22:37
       |
    22 |   m: { uses: model, with: { source: {} } }
       |                                     ^

    error: `source.pypi.version` must be text that is not empty, found the number 0.1
      --> pipeline.yaml:23:56
       |
    23 |   n: { uses: model, with: { source: { pypi: { version: 0.1, package: a, file: b, sha256: c } } } }
       |                                                        ^^^
       |
       = help: put it in quotes: "0.1"

    error: stage `o` (model) misses the parameter `source`
      --> pipeline.yaml:24:3
       |
    24 |   o: { uses: model }
       |   ^
       |
       = help: `source` takes a mapping with one of `path`, `hub` or `pypi`

    error: `loss` must be one of `aco` or `dpo`, found `dppo`
      --> pipeline.yaml:25:67
       |
    25 |   t2: { uses: train, needs: { model: m, pairs: p }, with: { loss: dppo } }
       |                                                                   ^^^^
       |
       = help: did you mean `dpo`?

    error: `loss` cannot be `dpoo`
      --> pipeline.yaml:26:69
       |
    26 |   t3: { uses: train, needs: { model: m, pairs: p }, with: { loss: { dpoo: {} } } }
       |                                                                     ^^^^
       |
       = help: did you mean `dpo`?
    "#);
}

#[test]
fn reference_mistakes() {
    let text = r#"version: 1
name: x
params: { rate: 1, a: "${params.b}", b: "${params.a}", s: fast }
stages:
  t:
    uses: train
    needs: { model: t, pairs: "${other}" }
    with:
      learning_rate: ${params.rat}
      epochs: ${params.s}
      dtype: f${params.rate
"#;
    assert_snapshot!(errors(text), @r#"
    error: parameters refer to each other in a circle: b -> a -> b
     --> pipeline.yaml:3:24
      |
    3 | params: { rate: 1, a: "${params.b}", b: "${params.a}", s: fast }
      |                        ^^^^^^^^^^^

    error: parameters refer to each other in a circle: a -> b -> a
     --> pipeline.yaml:3:42
      |
    3 | params: { rate: 1, a: "${params.b}", b: "${params.a}", s: fast }
      |                                          ^^^^^^^^^^^

    error: stages need each other in a circle: t -> t
     --> pipeline.yaml:7:21
      |
    7 |     needs: { model: t, pairs: "${other}" }
      |                     ^ closes the circle

    error: `${other}` refers to nothing
     --> pipeline.yaml:7:31
      |
    7 |     needs: { model: t, pairs: "${other}" }
      |                               ^^^^^^^^^^^
      |
      = help: only `${params.NAME}` is replaced; write `$${` for the characters `${` themselves

    error: `params` has no `rat`
     --> pipeline.yaml:9:22
      |
    9 |       learning_rate: ${params.rat}
      |                      ^^^^^^^^^^^^^
      |
      = help: did you mean `rate`?

    error: `epochs` must be a whole number of at least 1, found the text "fast"
      --> pipeline.yaml:10:15
       |
    10 |       epochs: ${params.s}
       |               ^^^^^^^^^^^

    error: `${` without `}`
      --> pipeline.yaml:11:15
       |
    11 |       dtype: f${params.rate
       |               ^^^
       |
       = help: write `$${` for the characters `${` themselves
    "#);
}

#[test]
fn override_mistakes() {
    let folder = Folder::new();
    let sets = [
        "stages.train.with.learning_rat=1e-6",
        "stages.trian.with.epochs=2",
        "stages.train.with.epochs=none",
        "seed.x=1",
        "nmae=y",
        "stages.pairs.with.seed[0]=1",
    ];
    assert_snapshot!(folder.errors(GOOD, &sets), @r#"
    error: stage `train` (train) has no parameter `learning_rat`
     --> --set stages.train.with.learning_rat=1e-6
      = help: did you mean `learning_rate`?

    error: there is no stage `trian`
     --> --set stages.trian.with.epochs=2
      = help: did you mean `train`?

    error: `epochs` must be a whole number of at least 1, found the text "none"
     --> --set stages.train.with.epochs=none

    error: `seed` is the number 7: it holds no `x`
     --> --set seed.x=1

    error: a pipeline has no `nmae`
     --> --set nmae=y
      = help: did you mean `name`?

    error: `stages.pairs.with.seed` is the number 3: it holds no `0`
     --> --set stages.pairs.with.seed[0]=1
    "#);
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
    assert!(errors(&text).contains("multiply to too much"));
}

/// The default, as text in the documentation.
fn default_text(field: &Field) -> String {
    match &field.default {
        Default::Required => "required".to_owned(),
        Default::Value(value) => format!("`{value}`"),
        Default::PipelineSeed => "the pipeline's `seed`".to_owned(),
        Default::Null => "`null`".to_owned(),
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
            _ => {}
        }
    }
}

/// `UPDATE_DOCS=1 cargo test` writes the tables anew.
#[test]
fn every_parameter_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipeline-file.md");
    let mut doc = std::fs::read_to_string(&path).unwrap();
    let mut wrong = Vec::new();
    for kind in StageKind::ALL {
        let mut table =
            String::from("| Parameter | Takes | Default | Meaning |\n|---|---|---|---|\n");
        rows(&kind.schema(), "", &mut table);
        let (open, close) = (
            format!("<!-- {} -->\n", kind.name()),
            format!("<!-- end of {} -->", kind.name()),
        );
        let start = doc.find(&open).unwrap() + open.len();
        let end = start + doc[start..].find(&close).unwrap();
        if doc[start..end] != table {
            wrong.push(format!("{}:\n{table}", kind.name()));
            doc.replace_range(start..end, &table);
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, doc).unwrap();
    } else {
        assert!(
            wrong.is_empty(),
            "{} differs from the schemas (UPDATE_DOCS=1 writes it anew):\n{}",
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
fn schema_and_struct_of_every_kind_fit() {
    use crate::stage::{eval, model, pairs, queries, rollout, score, train};
    let folder = Folder::new();
    for kind in StageKind::ALL {
        let minimal = match kind {
            StageKind::Queries => vec![
                "{source: {path: data}}",
                "{source: {path: data}, sample: {n: 1}}",
            ],
            StageKind::Model => vec![
                "{source: {path: data}}",
                "{source: {hub: {repo: a/b}}}",
                "{source: {pypi: {package: a, version: '1', file: b, sha256: c}}}",
            ],
            StageKind::Eval => vec![
                "{benchmarks: [{name: a, path: data}]}",
                "{benchmarks: [{name: a, path: data, answer: choice}]}",
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
        };
        for text in minimal {
            let with = check(&kind.schema(), text, folder.0.path());
            let fits = match kind {
                StageKind::Queries => serde_json::from_value::<queries::Params>(with.clone()).err(),
                StageKind::Model => serde_json::from_value::<model::Params>(with.clone()).err(),
                StageKind::Rollout => serde_json::from_value::<rollout::Params>(with.clone()).err(),
                StageKind::Score => serde_json::from_value::<score::Params>(with.clone()).err(),
                StageKind::Pairs => serde_json::from_value::<pairs::Params>(with.clone()).err(),
                StageKind::Train => serde_json::from_value::<train::Params>(with.clone()).err(),
                StageKind::Eval => serde_json::from_value::<eval::Params>(with.clone()).err(),
            };
            assert!(fits.is_none(), "{}: {fits:?} of {with}", kind.name());
            // Written out in full, it is the same: the defaults are valid.
            assert_eq!(
                check(&kind.schema(), &with.to_string(), folder.0.path()),
                with,
                "{}",
                kind.name()
            );
        }
    }
}

/// The pipelines that come with Genius are right.
#[test]
fn shipped_pipelines_are_good() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let Ok(files) = std::fs::read_dir(folder) else {
        return;
    };
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
