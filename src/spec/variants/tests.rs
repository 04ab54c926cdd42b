//! Names of combinations, the order of their settings, and the bounds.

use super::*;
use crate::spec::yaml::{self, Span};

fn names(section: &str) -> String {
    let root = yaml::parse(&format!("variants:\n{section}")).0.unwrap();
    let mut report = Report::default();
    let planned = expand(&root.get("variants").unwrap().value, &root, &mut report);
    assert!(report.is_empty(), "{report:?}");
    let names: Vec<String> = planned.into_iter().map(|p| p.name).collect();
    names.join("\n")
}

#[test]
fn a_matrix_is_named_after_its_values() {
    insta::assert_snapshot!(names("
  plain: { set: { seed: 1 } }
  nothing:
  sweep:
    matrix:
      stages.train.with.learning_rate: [5.0e-7, 0.10, 1]
      stages.train.with.loss: [aco, { dpo: { beta: 1 } }]
"), @r"
        plain
        nothing
        sweep:learning_rate=5e-7,loss=aco
        sweep:learning_rate=5e-7,loss=#1
        sweep:learning_rate=0.1,loss=aco
        sweep:learning_rate=0.1,loss=#1
        sweep:learning_rate=1,loss=aco
        sweep:learning_rate=1,loss=#1
        ");
}

#[test]
fn a_label_is_as_long_as_necessary() {
    insta::assert_snapshot!(names("
  s:
    matrix:
      stages.a.with.seed: [1]
      stages.b.with.seed: [2]
      stages.b.with.stop[0]: ['end of/it', ~, true, '']
"), @r"
        s:a.with.seed=1,b.with.seed=2,0=end_of_it
        s:a.with.seed=1,b.with.seed=2,0=null
        s:a.with.seed=1,b.with.seed=2,0=true
        s:a.with.seed=1,b.with.seed=2,0=#3
        ");
}

/// The problems of `variants` as a whole.
fn problems(text: &str) -> String {
    let root = yaml::parse(text).0.unwrap();
    let mut report = Report::default();
    let section = &root.get("variants").unwrap().value;
    assert!(expand(section, &root, &mut report).is_empty());
    report
        .finish("p.yaml".as_ref(), text, &[])
        .to_string()
        .chars()
        .take(300)
        .collect()
}

#[test]
fn a_matrix_of_a_billion_is_refused() {
    let axis: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let axes: String = (0..9)
        .map(|n| format!("      params.a{n}: [{}]\n", axis.join(",")))
        .collect();
    let problems = problems(&format!("variants:\n  v:\n    matrix:\n{axes}"));
    assert!(
        problems.contains("more than 1000 variants: `v` alone is 10 x 10 x 10"),
        "{problems}"
    );
    assert!(problems.contains("p.yaml:2:3"), "{problems}");
}

#[test]
fn a_variant_sets_no_more_than_a_thousand_values() {
    for (key, value) in [("set", "1"), ("matrix", "[1]")] {
        let entries: String = (0..1001)
            .map(|n| format!("      params.a{n}: {value}\n"))
            .collect();
        let problems = problems(&format!("variants:\n  v:\n    {key}:\n{entries}"));
        assert!(
            problems.contains(&format!("`{key}` of variant `v` has more than 1000")),
            "{problems}"
        );
        assert!(problems.contains("p.yaml:3:5"), "{problems}");
    }
}

#[test]
fn variants_are_bounded_by_the_text_they_repeat() {
    let long = "x".repeat(600_000);
    let values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let problems = problems(&format!(
        "params: {{ p: {long} }}\nvariants: {{ v: {{ matrix: {{ params.n: [{}] }} }} }}\n",
        values.join(",")
    ));
    assert!(
        problems.contains("500 variants of a file of 60"),
        "{problems}"
    );
    assert!(
        problems.contains("bytes are too many: at most 44"),
        "{problems}"
    );
}

fn span() -> Span {
    Span::START
}

#[test]
fn changes_are_put_in_the_order_set_then_matrix() {
    let root = yaml::parse("variants: { s: { matrix: { seed: [2] }, set: { seed: 1 } } }")
        .0
        .unwrap();
    let mut report = Report::default();
    let planned = expand(&root.get("variants").unwrap().value, &root, &mut report);
    let mut tree = YamlNode::new(span(), Value::Null);
    for set in &planned[0].sets {
        set.apply(&mut tree, 0).unwrap();
    }
    assert_eq!(tree.get("seed").unwrap().value.value, Value::Int(2));
}
