//! Mistakes in references and overrides, and values that could not work.

use super::*;

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
    error: parameters refer to each other in a cycle: a -> b -> a
     --> pipeline.yaml:3:42
      |
    3 | params: { rate: 1, a: "${params.b}", b: "${params.a}", s: fast }
      |                                          ^^^^^^^^^^^

    error: stages depend on each other in a cycle: t -> t
     --> pipeline.yaml:7:21
      |
    7 |     needs: { model: t, pairs: "${other}" }
      |                     ^ closes the cycle

    error: `${other}` is not a reference to a parameter
     --> pipeline.yaml:7:32
      |
    7 |     needs: { model: t, pairs: "${other}" }
      |                                ^^^^^^^^
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

    error: `seed` is the number 7: it has no `x`
     --> --set seed.x=1

    error: a pipeline has no `nmae`
     --> --set nmae=y
      = help: did you mean `name`?

    error: `stages.pairs.with.seed` is the number 3: it has no `0`
     --> --set stages.pairs.with.seed[0]=1
    "#);
}

#[test]
fn what_would_fail_later_is_refused_now() {
    assert_snapshot!(errors(&stages(
        "  q: { uses: queries, with: { source: { path: data } } }\n  m: { uses: model, with: { source: { pypi: { package: a, version: '1', file: b, sha256: abc } } } }"
    )), @r#"
    error: `source.path`: data is a folder
     --> pipeline.yaml:4:47
      |
    4 |   q: { uses: queries, with: { source: { path: data } } }
      |                                               ^^^^
      |
      = help: name a file in it

    error: `source.pypi.sha256` must be a SHA-256 in hex (64 digits), found the text "abc"
     --> pipeline.yaml:5:90
      |
    5 |   m: { uses: model, with: { source: { pypi: { package: a, version: '1', file: b, sha256: abc } } } }
      |                                                                                          ^^^
    "#);
}
