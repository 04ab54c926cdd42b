//! Variants of a whole file.

use insta::assert_snapshot;
use serde_json::json;

use super::{Folder, GOOD, stages};
use crate::spec::Stage;

fn with<'a>(stages: &'a [Stage], name: &str) -> &'a serde_json::Value {
    &stages.iter().find(|s| s.name == name).unwrap().with
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
fn mistakes_of_variants_are_shown_in_them() {
    assert_snapshot!(errors("  v: { set: { stages.c.retry: 200, stages.cc.with.shell: true, stages.c.needs.m: q } }\n", &[]), @"");
}

#[test]
fn what_is_no_variant_is_refused() {
    assert_snapshot!(errors("  base: {}\n  1st: {}\n  v: 3\n  w: { sets: {}, seed: 1, description: 3 }\n  x: { set: [a], matrix: { seed: 1, params.a: [] } }\n  y: { set: { a..b: 1, name: z, stage.c.retry: 1 } }\n", &[]), @"");
    assert_snapshot!(errors("  v: { matrix: { seed: [1, 1] } }\n  w: { matrix: { stages.c.with.run[0]: [a], stages.c.with.run.0: [b] } }\n", &[]), @"");
}

#[test]
fn there_are_so_many_and_no_more() {
    let axis = |name: &str| {
        format!(
            "params.{name}: [{}]",
            (0..40)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    assert_snapshot!(errors(&format!("  v:\n    matrix: {{ {}, {} }}\n", axis("a"), axis("b")), &[]).lines().filter(|l| !l.contains("matrix")).collect::<Vec<_>>().join("\n"), @"");
}

#[test]
fn what_the_file_has_too_is_said_once() {
    assert_snapshot!(errors("  v: { set: { seed: 1 } }\n  w: { matrix: { seed: [2, 3], params.x: [1, 2] }, set: { stages.c.retry: 300 } }\n", &["stages.c.timeout_secs=0"]), @"");
}

#[test]
fn what_set_does_to_a_variant_alone_names_it() {
    assert_snapshot!(errors("  v: { set: { stages.c.with.run: text } }\n", &["stages.c.with.run[1]=b"]), @"");
}
