//! How every mistake is shown.

mod values;

use insta::assert_snapshot;

use super::{Folder, GOOD, errors, stages};

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

    error: stage `queries` (queries) does not produce `rollouts`
      --> pipeline.yaml:10:24
       |
    10 |     needs: { rollouts: queries }
       |                        ^^^^^^^ `rollouts` takes a stage that produces `rollouts`
       |
       = help: no stage here produces `rollouts`; a stage of kind `rollout` does

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
      = help: get a newer Genius, or write the pipeline in format version 1
    "#);
    assert_snapshot!(errors("version: 1\nname: ''\nseed: -1\nparams: 3\nstages: {}\nx-anchors: 1\n"), @r#"
    error: `name` must be non-empty text, found empty text
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

    error: `stages` must be a mapping of at least one stage, found an empty mapping
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
      = help: indent with spaces: YAML does not allow tabs there
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

    error: stage `q` (score)is missing the input `rollouts`
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
    error: `1st` is not a valid stage name
     --> pipeline.yaml:4:3
      |
    4 |   1st: { uses: model, with: { source: { hub: { repo: a } } } }
      |   ^^^
      |
      = help: a name starts with a letter or `_`, followed by letters, digits, `_` and `-`

    error: stage `b` must be a mapping, found the number 3
     --> pipeline.yaml:5:6
      |
    5 |   b: 3
      |      ^
      |
      = help: write `{ uses: KIND, needs: { ... }, with: { ... } }`

    error: stage `c` (train)is missing the input `model`
     --> pipeline.yaml:6:3
      |
    6 |   c: { learning_rate: 1, uses: train, use: x }
      |   ^
      |
      = help: write `needs: { model: 1st }`

    error: stage `c` (train)is missing the input `pairs`
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
      = help: its kind: `queries`, `model`, `rollout`, `score`, `pairs`, `train`, `eval` or `command`
    "#);
}

#[test]
fn needs_mistakes() {
    let text = stages(
        "  model: { uses: model, with: { source: { hub: { repo: a } } } }\n  e: { uses: eval, needs: { modle: model }, with: { benchmarks: [{ name: a, path: data/queries.jsonl }] } }\n  t: { uses: train, needs: { model: modell } }\n  s: { uses: score, needs: { rollouts: model } }\n  p: { uses: pairs, needs: s }\n  q: { uses: queries, needs: { x: s }, with: { source: { path: data/queries.jsonl } } }\n",
    );
    assert_snapshot!(errors(&text), @r#"
    error: stage `e` (eval) has no input `modle`
     --> pipeline.yaml:5:29
      |
    5 |   e: { uses: eval, needs: { modle: model }, with: { benchmarks: [{ name: a, path: data/queries.jsonl }] } }
      |                             ^^^^^
      |
      = help: did you mean `model`?

    error: stage `t` (train)is missing the input `pairs`
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

    error: stage `model` (model) does not produce `rollouts`
     --> pipeline.yaml:7:40
      |
    7 |   s: { uses: score, needs: { rollouts: model } }
      |                                        ^^^^^ `rollouts` takes a stage that produces `rollouts`
      |
      = help: no stage here produces `rollouts`; a stage of kind `rollout` does

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
    9 |   q: { uses: queries, needs: { x: s }, with: { source: { path: data/queries.jsonl } } }
      |                                ^
      |
      = help: `queries` needs nothing: remove it
    "#);
}

#[test]
fn cycles() {
    let text = stages(
        "  a: { uses: train, needs: { model: b, pairs: p } }\n  b: { uses: train, needs: { model: a, pairs: p } }\n  p: { uses: pairs, needs: { scores: p } }\n",
    );
    assert_snapshot!(errors(&text), @r#"
    error: stages depend on each other in a cycle: a -> b -> a
     --> pipeline.yaml:5:37
      |
    5 |   b: { uses: train, needs: { model: a, pairs: p } }
      |                                     ^ closes the cycle

    error: stage `p` (pairs) does not produce `scores`
     --> pipeline.yaml:6:38
      |
    6 |   p: { uses: pairs, needs: { scores: p } }
      |                                      ^ `scores` takes a stage that produces `scores`
      |
      = help: no stage here produces `scores`; a stage of kind `score` does

    error: stages depend on each other in a cycle: p -> p
     --> pipeline.yaml:6:38
      |
    6 |   p: { uses: pairs, needs: { scores: p } }
      |                                      ^ closes the cycle
    "#);
}

const PARAMETER_MISTAKES: &str = r#"  t:
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
  n: { uses: model, with: { source: { pypi: { version: 0.1, package: a, file: b, sha256: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc } } } }
  o: { uses: model }
  t2: { uses: train, needs: { model: m, pairs: p }, with: { loss: dppo } }
  t3: { uses: train, needs: { model: m, pairs: p }, with: { loss: { dpoo: {} } } }
"#;

/// Problems of [`PARAMETER_MISTAKES`], those of `half` 0 or 1.
fn parameter_mistakes(half: usize) -> String {
    let errors = errors(&stages(PARAMETER_MISTAKES));
    let problems: Vec<&str> = errors.trim_end().split("\n\n").collect();
    let (first, second) = problems.split_at(problems.len() / 2);
    [first, second][half].join("\n\n")
}

#[test]
fn parameter_mistakes_in_one_stage() {
    assert_snapshot!(parameter_mistakes(0), @r#"
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

    error: `adam_beta1` must be a number of at least 0 and below 1, found nothing (null)
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
    "#);
}

#[test]
fn parameter_mistakes_in_several_stages() {
    assert_snapshot!(parameter_mistakes(1), @r#"
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
       |                                                                      ^^^
       |
       = help: write it as a list: [x]

    error: stage `q` (queries) is missing the parameter `source.path`
      --> pipeline.yaml:21:39
       |
    21 |   q: { uses: queries, with: { source: { format: csv }, sample: {} } }
       |                                       ^
       |
       = help: `source.path` takes a path to a file

    error: stage `q` (queries) is missing the parameter `sample.n`
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

    error: `source.pypi.version` must be non-empty text, found the number 0.1
      --> pipeline.yaml:23:56
       |
    23 |   n: { uses: model, with: { source: { pypi: { version: 0.1, package: a, file: b, sha256: ccccccccccccccccccccccccccccccccccccccccccccccccccc…
       |                                                        ^^^
       |
       = help: put it in quotes: "0.1"

    error: stage `o` (model) is missing the parameter `source`
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
