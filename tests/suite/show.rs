//! `genius show`: the queries of a rollout, and one of them as a tree. The rollouts
//! are a file that a `command` stage hands on.

use serde_json::{Value, json};

use super::project::Project;

const PIPELINE: &str = "\
version: 1
name: shown
seed: 42
stages:
  mine: { uses: command, with: { run: [cp, '{files.r}', '{outputs.rollouts}/rollouts.jsonl'], files: { r: r.jsonl }, outputs: { rollouts: {} } } }
  score: { uses: score, needs: { rollouts: mine } }
  pairs: { uses: pairs, needs: { scores: score } }
variants:
  lowest: { set: { stages.pairs.with.negative: lowest } }
";

const SHOW: &[&str] = &["show", "p.yaml", "--query", "ab", "--json"];

fn candidate(index: u32, token: u32, text: &str, f: f64, probability: f64) -> Value {
    json!({
        "index": index, "parent": 0, "rollout": index,
        "step_token_ids": [token], "step_logprobs": [-1.0], "step_text": text, "step_end": "newline",
        "foresight_token_ids": [], "foresight_logprobs": [], "foresight_text": "",
        "completion": false, "finish": "limit", "f": f, "probability": probability, "ended": false,
    })
}

/// A query of one step with three candidates, the first of which is drawn.
fn rollout(id: &str, query: &str) -> Value {
    json!({
        "query_id": id, "query": query, "system": null, "prompt": "", "prompt_token_ids": [1],
        "prefix": "", "prefix_token_ids": [], "tau": 0.1, "skipped": null,
        "steps": [ {
            "step": 1, "light": false, "selected": [0],
            "beams": [ { "token_ids": [], "q": 0.0, "origin": null } ],
            "candidates": [
                candidate(0, 5, "Five.\n", -0.25, 0.9),
                candidate(1, 6, "Six.\u{1b}[2J\n", -0.5, 0.08),
                candidate(2, 7, "Seven.\n", -1.0, 0.02),
            ],
        } ],
    })
}

fn project() -> Project {
    let project = Project::new(PIPELINE);
    let records = [rollout("abcd12", "2 + 3?"), rollout("aaaa34", "3 + 3?")];
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    project.write("r.jsonl", &lines.join("\n"));
    project
}

fn run(project: &Project, more: &[&str]) {
    let args = [&["run", "p.yaml", "-q", "--allow-commands"], more].concat();
    project.say(&args).code(0);
}

#[test]
fn a_rollout_is_listed_and_a_query_of_it_shown() {
    let project = project();
    project
        .say(&["show", "p.yaml", "mine"])
        .code(1)
        .shows("`genius run p.yaml --target mine` computes it");
    run(&project, &["--target", "mine"]);
    // Looking runs no program: it needs no trust.
    let list = project.say(&["show", "p.yaml"]).code(0);
    insta::assert_snapshot!(list.stdout, @r"
    #  ID      STEPS  CANDIDATES  BEST F  QUERY
    1  abcd12  1      3           -0.250  2 + 3?
    2  aaaa34  1      3           -0.250  3 + 3?
    ");
    let list = project.say(&["show", "p.yaml", "mine", "--json"]).code(0);
    assert_eq!(list.json()[1]["query_id"], "aaaa34");

    // The pairs are not there yet.
    let said = project.say(&["show", "p.yaml", "--query", "ab"]).code(0);
    assert!(
        said.stdout
            .ends_with("has no result yet: `genius run p.yaml --target pairs` computes it\n"),
        "{}",
        said.stdout
    );
    run(&project, &["--variant", "lowest"]);
    let args = [
        "show",
        "p.yaml",
        "mine",
        "--query=#1",
        "--variant",
        "lowest",
    ];
    let said = project.say(&args).code(0);
    insta::assert_snapshot!(said.stdout, @r"
    query abcd12 (#1 of 2)
      query    2 + 3?
      prefix
      tau      0.1

    step 1: 1 beam, 3 candidates
    └─ beam 0: empty
       ├─ 0  f -0.250  F 0.900  A -0.250  1+0 tok  drawn, chosen, truncated  Five.⏎
       ├─ 1  f -0.500  F 0.080  A -0.500  1+0 tok  truncated                 Six.\u{1b}[2J⏎
       └─ 2  f -1.000  F 0.020  A -1.000  1+0 tok  rejected, truncated       Seven.⏎

    pairs of stage `pairs`
    └─ step 1: chosen 0 (f -0.250, A -0.250), rejected 2 (f -1.000, A -1.000), of one beam
    ");
}

#[test]
fn every_variant_asked_for_has_its_pairs() {
    let project = project();
    run(&project, &["--all-variants"]);
    let said = project.say(&[SHOW, &["--all-variants"]].concat()).code(0);
    let json = said.json();
    let stages: Vec<&Value> = [0, 1].map(|i| &json["pairs"][i]["stage"]).to_vec();
    assert_eq!(stages, ["pairs", "pairs@lowest"]);
    assert_eq!(json["pairs"][1]["steps"][0]["rejected"], 2);
    assert_eq!(json["stage"], "mine");
    assert_eq!(json["key"].as_str().map(str::len), Some(64));
}

#[test]
fn the_width_of_the_terminal_is_kept() {
    let project = project();
    run(&project, &[]);
    let mut command = project.genius(&["show", "p.yaml", "--query", "ab"]);
    let output = command
        .env("COLUMNS", "60")
        .output()
        .expect("genius starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let widest = text.lines().map(|line| line.chars().count()).max();
    // The text has a line of its own; marks are never cut.
    assert!(text.contains("\n         Seven.⏎\n"), "{text}");
    assert!(widest < Some(90), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_cannot_be_shown_is_told_with_what_can() {
    let project = project();
    run(&project, &[]);
    project.say(&["show", "p.yaml", "score"]).code(2).shows(
        "error: stage `score` (score) does not produce rollouts\n  = help: there is `mine`\n",
    );
    project
        .say(&["show", "p.yaml", "--query", "a"])
        .code(2)
        .shows("error: the ids of 2 queries of stage `mine` begin with `a`\n  = help: write more of it: `abcd12`, `aaaa34`\n");
    project
        .say(&["show", "p.yaml", "--query", "abcx"])
        .code(2)
        .shows("error: stage `mine` has no query `abcx`\n  = help: did you mean `abcd`? `genius show p.yaml mine` lists them all\n");
    project
        .say(&["show", "p.yaml", "--full"])
        .code(2)
        .shows("--query <ID>");

    project.write("r.jsonl", "{\"query_id\":\"abcd12\"}\n");
    run(&project, &["--target", "mine"]);
    project
        .say(SHOW)
        .code(4)
        .shows("rollouts.jsonl:1: missing field `query`")
        .shows("  = help: docs/artifacts.md describes the file; correct the program that wrote it");

    let none = "version: 1\nname: n\nstages:\n  q: { uses: queries, with: { source: { path: q.jsonl, field: q } } }\n";
    project.write("none.yaml", none);
    project
        .say(&["show", "none.yaml"])
        .code(2)
        .shows("error: no stage of the pipeline produces rollouts\n  = help: a stage of kind `rollout` produces them\n");
    let two = PIPELINE.replace(
        "  score:",
        "  other: { uses: command, with: { run: ['true'], outputs: { rollouts: {} } } }\n  score:",
    );
    project.write("two.yaml", &two);
    project
        .say(&["show", "two.yaml"])
        .code(2)
        .shows("error: 2 stages of the pipeline produce rollouts\n  = help: name one after the file: `mine`, `other`\n");
}
