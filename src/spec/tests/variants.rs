//! Variants of a whole file.

use insta::assert_snapshot;
use serde_json::json;

use super::{Folder, GOOD, stages};
use crate::spec::Stage;

fn with(stages: &[Stage], name: &str) -> serde_json::Value {
    stages.iter().find(|s| s.name == name).unwrap().with()
}

fn errors(variants: &str, sets: &[&str]) -> String {
    let text = stages(&format!(
        "  p: {{ uses: model, with: {{ source: {{ hub: {{ repo: a/b }} }} }} }}\n  c: {{ uses: command, needs: {{ m: p }}, with: {{ run: ['true'] }}, retry: 1 }}\nvariants:\n{variants}"
    ));
    Folder::new().errors(&text, sets)
}

#[test]
fn the_later_wins_file_set_matrix_command_line() {
    let text = format!(
        "{GOOD}variants:\n  a: {{ set: {{ seed: 1, params.lr: 1e-3 }} }}\n  m:\n    set: {{ seed: 1, stages.train.with.epochs: 3 }}\n    matrix: {{ seed: [2, 3], stages.train.with.learning_rate: ['${{params.lr}}', 1] }}\n  nothing: {{ description: the file as it stands }}\n"
    );
    let pipeline = Folder::new().load(&text, &[]).unwrap();
    assert_eq!(pipeline.seed, 7);
    let seen: Vec<String> = pipeline
        .variants
        .iter()
        .map(|v| {
            let train = with(&v.stages, "train");
            format!(
                "{} ({}, line {}): seed {}, train {} {} {}",
                v.name,
                v.group,
                v.line,
                v.seed,
                train["seed"],
                train["learning_rate"],
                train["epochs"]
            )
        })
        .collect();
    assert_snapshot!(seen.join("\n"), @r"
    a (a, line 14): seed 1, train 1 0.001 1
    m:seed=2,learning_rate=__params.lr_ (m, line 15): seed 2, train 2 1e-6 3
    m:seed=2,learning_rate=1 (m, line 15): seed 2, train 2 1.0 3
    m:seed=3,learning_rate=__params.lr_ (m, line 15): seed 3, train 3 1e-6 3
    m:seed=3,learning_rate=1 (m, line 15): seed 3, train 3 1.0 3
    nothing (nothing, line 18): seed 7, train 7 1e-6 1
    ");
    assert_eq!(pipeline.variants[5].stages, pipeline.stages);

    let set = Folder::new()
        .load(&text, &["stages.train.with.epochs=9", "seed=8"])
        .map(|p| {
            p.variants
                .into_iter()
                .map(|v| (v.seed, with(&v.stages, "train")["epochs"].clone()))
                .collect::<Vec<_>>()
        });
    assert!(set.unwrap().iter().all(|v| *v == (8, json!(9))));
}

#[test]
fn mistakes_in_variants_name_the_variant() {
    assert_snapshot!(errors("  v: { set: { stages.c.retry: 200, stages.cc.with.shell: true, stages.c.needs.m: q } }\n", &[]), @r"
    error: `retry.times` must be a whole number from 0 to 100, found 200
     --> pipeline.yaml:7:31
      |
    7 |   v: { set: { stages.c.retry: 200, stages.cc.with.shell: true, stages.c.needs.m: q } }
      |                               ^^^ in variant `v`

    error: there is no stage `cc`
     --> pipeline.yaml:7:36
      |
    7 |   v: { set: { stages.c.retry: 200, stages.cc.with.shell: true, stages.c.needs.m: q } }
      |                                    ^^^^^^^^^^^^^^^^^^^^ in variant `v`
      |
      = help: did you mean `c`?

    error: there is no stage `q`
     --> pipeline.yaml:7:82
      |
    7 |   v: { set: { stages.c.retry: 200, stages.cc.with.shell: true, stages.c.needs.m: q } }
      |                                                                                  ^ in variant `v`
      |
      = help: there is `p`
    ");
}

#[test]
fn names_and_shapes_of_variants_are_checked() {
    assert_snapshot!(errors("  base: {}\n  1st: {}\n  v: 3\n  w: { sets: {}, seed: 1, description: 3 }\n", &[]), @r"
    error: `base` is not a valid variant name
     --> pipeline.yaml:7:3
      |
    7 |   base: {}
      |   ^^^^
      |
      = help: `base` means the file without a variant: choose another name

    error: `1st` is not a valid variant name
     --> pipeline.yaml:8:3
      |
    8 |   1st: {}
      |   ^^^
      |
      = help: a name starts with a letter or `_`, followed by letters, digits, `_` and `-`

    error: variant `v` must be a mapping, found the number 3
     --> pipeline.yaml:9:6
      |
    9 |   v: 3
      |      ^
      |
      = help: write `{ set: { stages.train.with.epochs: 2 } }`

    error: variant `w` has no `sets`
      --> pipeline.yaml:10:8
       |
    10 |   w: { sets: {}, seed: 1, description: 3 }
       |        ^^^^
       |
       = help: did you mean `set`?

    error: variant `w` has no `seed`
      --> pipeline.yaml:10:18
       |
    10 |   w: { sets: {}, seed: 1, description: 3 }
       |                  ^^^^
       |
       = help: write it under `set`: `set: { seed: ... }`

    error: `description` must be text, found the number 3
      --> pipeline.yaml:10:40
       |
    10 |   w: { sets: {}, seed: 1, description: 3 }
       |                                        ^
    ");
}

#[test]
fn what_a_variant_changes_is_checked() {
    assert_snapshot!(errors("  x: { set: [a], matrix: { seed: 1, params.a: [] } }\n  y: { set: { a..b: 1, name: z, stage.c.retry: 1 } }\n", &[]), @r"
    error: `set` must be a mapping of paths to values, found a list
     --> pipeline.yaml:7:13
      |
    7 |   x: { set: [a], matrix: { seed: 1, params.a: [] } }
      |             ^
      |
      = help: a path is what `--set` takes, as `stages.train.with.epochs`

    error: an axis of a matrix must be a list of at least one value, found the number 1
     --> pipeline.yaml:7:34
      |
    7 |   x: { set: [a], matrix: { seed: 1, params.a: [] } }
      |                                  ^
      |
      = help: write `seed: [1, ...]`, or put it under `set`

    error: an axis of a matrix must be a list of at least one value, found an empty list
     --> pipeline.yaml:7:47
      |
    7 |   x: { set: [a], matrix: { seed: 1, params.a: [] } }
      |                                               ^
      |
      = help: write `params.a: [VALUE, ...]`, or put it under `set`

    error: `a..b` is not a path: a name is missing
     --> pipeline.yaml:8:15
      |
    8 |   y: { set: { a..b: 1, name: z, stage.c.retry: 1 } }
      |               ^^^^
      |
      = help: a path is what `--set` takes, as `stages.train.with.epochs`

    error: a variant cannot change `name`
     --> pipeline.yaml:8:24
      |
    8 |   y: { set: { a..b: 1, name: z, stage.c.retry: 1 } }
      |                        ^^^^
      |
      = help: it changes `seed`, `params` and `stages`; a value of a stage is `stages.NAME.with.PARAMETER`

    error: a variant cannot change `stage`
     --> pipeline.yaml:8:33
      |
    8 |   y: { set: { a..b: 1, name: z, stage.c.retry: 1 } }
      |                                 ^^^^^^^^^^^^^
      |
      = help: did you mean `stages`?
    ");
}

#[test]
fn two_equal_variants_or_axes_are_refused() {
    assert_snapshot!(errors("  v: { matrix: { seed: [1, 1] } }\n  w: { matrix: { 'stages.c.with.run[0]': [a], stages.c.with.run.0: [b] } }\n", &[]), @r"
    error: two variants of `v` are called `v:seed=1`
     --> pipeline.yaml:7:28
      |
    7 |   v: { matrix: { seed: [1, 1] } }
      |                            ^
      |
      = help: remove one of the values, or write them so that they differ in letters or digits

    error: axis `stages.c.with.run.0` is written twice
     --> pipeline.yaml:8:47
      |
    8 |   w: { matrix: { 'stages.c.with.run[0]': [a], stages.c.with.run.0: [b] } }
      |                                               ^^^^^^^^^^^^^^^^^^^
      |
      = help: first written at line 8 as `stages.c.with.run[0]`: put the values into one list
    ");
}

#[test]
fn the_number_of_variants_is_bounded() {
    let axis = |name: &str| {
        format!(
            "params.{name}: [{}]",
            (0..40)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    assert_snapshot!(errors(&format!("  v:\n    matrix: {{ {}, {} }}\n", axis("a"), axis("b")), &[]).lines().filter(|l| !l.contains("matrix")).collect::<Vec<_>>().join("\n"), @r"
    error: more than 1000 variants: `v` alone is 40 x 40
     --> pipeline.yaml:7:3
      |
    7 |   v:
      |   ^
      |
      = help: make the axes shorter, or move some variants into another pipeline file
    ");
}

#[test]
fn mistakes_of_the_plain_file_are_reported_once() {
    assert_snapshot!(errors("  v: { set: { seed: 1 } }\n  w: { matrix: { seed: [2, 3], params.x: [1, 2] }, set: { stages.c.retry: 300 } }\n", &["stages.c.timeout_secs=0"]), @r"
    error: `retry.times` must be a whole number from 0 to 100, found 300
     --> pipeline.yaml:8:75
      |
    8 |   w: { matrix: { seed: [2, 3], params.x: [1, 2] }, set: { stages.c.retry: 300 } }
      |                                                                           ^^^ in variant `w:seed=2,x=1`

    error: `timeout_secs` must be a number above 0, found 0
     --> --set stages.c.timeout_secs=0
    ");
}

#[test]
fn set_mistakes_in_one_variant_name_it() {
    assert_snapshot!(errors("  v: { set: { stages.c.with.run: text } }\n", &["stages.c.with.run[1]=b"]), @r#"
    error: `run` must be a list of at least 1, found the text "text"
     --> pipeline.yaml:7:34
      |
    7 |   v: { set: { stages.c.with.run: text } }
      |                                  ^^^^ in variant `v`
      |
      = help: write it as a list: [text]

    error: in variant `v`: `stages.c.with.run` is the text "text": it has no `1`
     --> --set stages.c.with.run[1]=b
    "#);
}
