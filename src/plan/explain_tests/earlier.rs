//! Comparing with earlier results of this and other pipelines.

use super::*;

#[test]
fn an_equal_stage_of_another_pipeline_is_compared_with_and_named() {
    let lab = Lab::new();
    lab.run_of("/p/other.yaml", FIRST, &lab.graph(whole()), by_key);
    let mine = lab.graph(with(&[("queries", "/source/field", json!("q"))]));
    insta::assert_snapshot!(lab.explain(&mine, "queries"), @r#"
    stage queries would run:
      (no run of this file had it: compared with the most similar result: key KEY of stage queries of pipeline quick)
      with.source.field: (none) -> "q"
    "#);
    assert!(
        lab.plan(&mine, &[])
            .starts_with("queries: run, never computed here")
    );
}

#[test]
fn damage_is_reported_whichever_run_made_the_result() {
    let lab = Lab::new();
    let graph = lab.graph(whole());
    lab.run_of("/p/other.yaml", FIRST, &graph, by_key);
    let record = lab.store.lookup(&lab.key(&graph, "queries")).unwrap();
    let blob = record.outputs.values().next().unwrap().files[0]
        .hash
        .to_string();
    fs::remove_file(lab.store.root().join("blobs").join(&blob[..2]).join(&blob)).unwrap();
    let explained = lab.explain(&graph, "queries");
    assert!(
        explained.starts_with(
            "stage queries would run:\n  its result is damaged: the content of x of output `"
        ),
        "{explained}"
    );
    assert!(
        lab.plan(&graph, &[])
            .starts_with("queries: run, its result is damaged: ")
    );
}

#[test]
fn missing_failed_and_cut_off_results_are_distinguished() {
    let lab = Lab::new();
    let graph = lab.graph(whole());
    lab.run(FIRST, &graph, |node, key| match node.stage.as_str() {
        "policy" => End::Fails,
        _ => by_key(node, key),
    });
    lab.remove_record(lab.key(&graph, "queries"));
    let reasons = |lab: &Lab| {
        lab.plan(&graph, &[])
            .lines()
            .take(2)
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(reasons(&lab), @r"
    queries: run, its result of run 20260101T000000-aaaa is no longer in the cache
    policy: run, it failed in run 20260101T000000-aaaa and has no result yet
    ");
    insta::assert_snapshot!(lab.explain(&graph, "policy"), @r"
    stage policy would run:
      it failed in run 20260101T000000-aaaa and has no result yet
    ");
    // A run that was killed records no end.
    let plan = json!({ "path": "/p/quick.yaml", "stages": [{ "name": "queries", "variants": ["base"] }, { "name": "policy", "variants": ["base"] }] });
    let preimage = |name: &str| {
        let node = &graph.nodes[graph.find(name).unwrap()];
        Fingerprint::new(node, &BTreeMap::new()).preimage()
    };
    let started = |name: &str| json!({ "event": "stage_started", "stage": name, "key": lab.key(&graph, name), "preimage": preimage(name) });
    let failed =
        json!({ "event": "stage_failed", "stage": "queries", "failure": { "message": "no" } });
    let events = format!(
        "{}\n{failed}\n{}\n{{\"event\":\"stage_",
        started("queries"),
        started("policy")
    );
    lab.write(SECOND, "pipeline.json", &plan.to_string());
    lab.write(SECOND, "events.jsonl", &events);
    insta::assert_snapshot!(reasons(&lab), @r"
    queries: run, it failed in run 20260102T000000-bbbb and has no result yet
    policy: run, run 20260102T000000-bbbb ended before it finished
    ");
}

#[test]
fn a_stage_is_compared_with_its_own_variant() {
    let lab = Lab::new();
    let mut file: Pipeline = pipeline(whole());
    file.variants.push(Variant {
        name: "short".to_owned(),
        group: "short".to_owned(),
        seed: 42,
        stages: with(&[("queries", "/source/field", json!("q"))]),
        line: 9,
    });
    let graph = |file: &Pipeline, variants: &[&str]| {
        let variants: Vec<String> = variants.iter().map(|&v| v.to_owned()).collect();
        Graph::build_variants(file, &variants, &cpu(), &RunOptions::default(), &lab.world).unwrap()
    };
    lab.run(FIRST, &graph(&file, &[BASE]), by_key);
    // A later run of the variant alone, in which its node has the name of the stage.
    lab.run(SECOND, &graph(&file, &["short"]), by_key);
    for stages in [&mut file.stages, &mut file.variants[0].stages] {
        let mut with = stages[0].params.to_value();
        with["source"]["layout"] = json!("field");
        stages[0].params = StageKind::Queries.params(with).unwrap();
    }
    let changed = graph(&file, &[BASE, "short"]);
    let plan = lab.plan(&changed, &[]);
    let lines: Vec<&str> = plan.lines().filter(|l| l.starts_with("queries")).collect();
    assert_eq!(lines.len(), 2, "{plan}");
    assert!(
        lines
            .iter()
            .all(|l| l.ends_with("run, with.source.layout: \"auto\" -> \"field\"")),
        "{plan}"
    );

    // A variant that never ran is compared with what did.
    file.variants[0].name = "new".to_owned();
    lab.run(THIRD, &graph(&file, &[BASE]), by_key);
    let plan = lab.plan(&graph(&file, &["new"]), &[]);
    assert!(
        plan.starts_with("queries: run, with.source.field: (none) -> \"q\""),
        "{plan}"
    );
}
