//! Why stages run: `plan`, `explain`, `diff` and `graph`, as programs.

use super::project::{Project, Said};

/// Three stages in a row and one beside them.
const PIPELINE: &str = "\
version: 1
name: explained
params: { word: one }
stages:
  first: { uses: command, with: { run: ['echo ${params.word} > {outputs.o}/x'], shell: true, outputs: { o: {} } } }
  second: { uses: command, needs: { i: first }, with: { run: ['tr a-z A-Z < {inputs.i}/x > {outputs.o}/x'], shell: true, outputs: { o: {} } } }
  third: { uses: command, needs: { i: second, q: side }, with: { run: [cp, '{inputs.i}/x', '{outputs.o}/x'], outputs: { o: {} } } }
  side: { uses: command, with: { run: [cp, '{files.q}', '{outputs.o}/q'], files: { q: q.jsonl }, outputs: { o: {} } } }
variants:
  shout: { set: { stages.second.with.env: { LOUD: 'yes' } } }
  words: { matrix: { params.word: [two, three] } }
";

fn project() -> Project {
    Project::new(PIPELINE)
}

fn run(project: &Project, more: &[&str]) -> Said {
    project.say(&[&["run", "p.yaml", "--allow-commands"], more].concat())
}

/// What is on stdout, hashes and times left out.
fn data(project: &Project, args: &[&str]) -> String {
    let mut text = project.say(args).code(0).stdout;
    for (pattern, with) in [
        (r"[0-9a-f]{64}", "HASH"),
        (
            r"content of (\S+): [0-9a-f]{8}\.\. -> [0-9a-f]{8}\.\.",
            "content of $1: OLD.. -> NEW..",
        ),
        (r"key [0-9a-f]{12}", "key KEY"),
        (r"\d{8}T\d{6}-[0-9a-f]{8}", "RUN"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"with: \S*genius", "with: genius"),
    ] {
        let pattern = regex::Regex::new(pattern).expect("a pattern");
        text = pattern.replace_all(&text, with).into_owned();
    }
    text
}

#[test]
fn a_plan_writes_nothing_and_says_what_would_run() {
    let project = project();
    insta::assert_snapshot!(data(&project, &["plan", "p.yaml"]), @r"
    first   run      never computed here
    second  depends  on whether first changes
    side    run      never computed here
    third   depends  on whether second, side change

    2 to run, 0 reused, 2 depend on those
    ");
    assert!(!project.path("cache").exists());

    run(&project, &[]).code(0).shows("4 executed");
    insta::assert_snapshot!(data(&project, &["plan", "p.yaml"]), @r"
    first   reuse    same key
    second  reuse    same key
    side    reuse    same key
    third   reuse    same key

    0 to run, 4 reused
    ");
    insta::assert_snapshot!(data(&project, &["run", "p.yaml", "--dry-run", "--set", "stages.second.with.env.A=b", "--target", "second"]), @r#"
    first   reuse    same key
    second  run      with.env.A: (none) -> "b"

    1 to run, 1 reused
    "#);
    insta::assert_snapshot!(data(&project, &["plan", "p.yaml", "--from", "second"]), @r"
    first   reuse    same key
    second  run      asked for
    side    reuse    same key
    third   run      asked for

    2 to run, 2 reused
    ");
    let plan = project
        .say(&["plan", "p.yaml", "--json", "--force", "side"])
        .json();
    assert_eq!(
        (&plan["run"], &plan["reuse"], &plan["depends"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert_eq!(plan["stages"][3]["depends_on"][0], "side");
}

#[test]
fn changes_are_followed_to_where_they_began() {
    let project = project();
    insta::assert_snapshot!(data(&project, &["explain", "p.yaml", "third"]), @r"
    stage third runs unless its inputs turn out the same as before:
      there is no cache yet
    ");
    run(&project, &[]).code(0);
    insta::assert_snapshot!(data(&project, &["explain", "p.yaml", "second"]), @r"
    stage second is reused: nothing its result depends on has changed
      key KEY, computed TIME by run RUN of pipeline explained as stage second
      with: genius run p.yaml --allow-commands
      it ran because: never computed here
    ");
    // Not run yet: what is not known is said, and why.
    project.write("q.jsonl", "other\n");
    insta::assert_snapshot!(data(&project, &["explain", "p.yaml", "third", "--set", "params.word=two"]), @r#"
    stage third runs unless its inputs turn out the same as before:
      input i: not known before stage second has run; it may run:
        input i: not known before stage first has run; it would run:
          with.run[0]: "echo one > {outputs.o}/x" -> "echo two > {outputs.o}/x"
      input q: not known before stage side has run; it would run:
        content of with.files.q: OLD.. -> NEW.. (q.jsonl)
    "#);
    // The stages before it have run: the cause is followed.
    run(
        &project,
        &["--set", "params.word=two", "--target", "second"],
    )
    .code(0);
    run(&project, &["--set", "params.word=two", "--target", "side"]).code(0);
    insta::assert_snapshot!(data(&project, &["explain", "p.yaml", "third", "--set", "params.word=two"]), @r#"
    stage third would run:
      input i: changed, because stage second ran with:
        input i: changed, because stage first ran with with.run[0]: "echo one > {outputs.o}/x" -> "echo two > {outputs.o}/x"
      input q: changed, because stage side ran with content of with.files.q: OLD.. -> NEW.. (q.jsonl)
    "#);
    let json = project
        .say(&[
            "explain",
            "p.yaml",
            "third",
            "--set",
            "params.word=two",
            "--json",
        ])
        .json();
    assert_eq!(json[0]["outlook"], "run");
    assert_eq!(
        json[0]["cause"]["because"][0]["because"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_run_says_why_each_stage_ran() {
    let project = project();
    run(&project, &[]).code(0);
    let said = run(&project, &["--set", "params.word=two", "--json"]).code(0);
    let reasons: Vec<String> = said.json()["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|s| {
            format!(
                "{}: {}",
                s["stage"].as_str().unwrap_or_default(),
                s["reason"].as_str().unwrap_or_default()
            )
        })
        .collect();
    insta::assert_snapshot!(reasons.join("\n"), @r#"
    first: with.run[0]: "echo one > {outputs.o}/x" -> "echo two > {outputs.o}/x"
    second: input i: changed
    side: same key
    third: input i: changed
    "#);
    // What failed is explained too, and compared with.
    run(
        &project,
        &[
            "--set",
            "stages.first.with.env.A=b",
            "--set",
            "stages.first.with.run[0]=exit 3",
        ],
    )
    .code(1);
    insta::assert_snapshot!(data(&project, &["explain", "p.yaml", "first", "--set", "stages.first.with.env.A=c", "--set", "stages.first.with.run[0]=exit 3"]), @r#"
    stage first would run:
      (compared with its attempt in run RUN, which has no result)
      with.env.A: "b" -> "c"
    "#);
    insta::assert_snapshot!(data(&project, &["explain", "p.yaml", "first", "--set", "stages.first.with.env.A=b", "--set", "stages.first.with.run[0]=exit 3"]), @r"
    stage first would run:
      it failed in run RUN and has no result yet
    ");
}

#[test]
fn any_two_keys_can_be_compared() {
    let project = project();
    let key = |said: Said, at: usize| {
        said.json()["stages"][at]["key"]
            .as_str()
            .expect("a key")
            .to_owned()
    };
    let one = key(run(&project, &["--json"]), 0);
    let two = key(run(&project, &["--json", "--set", "params.word=two"]), 0);
    insta::assert_snapshot!(data(&project, &["diff", &one[..8], &two]), @r#"with.run[0]: "echo one > {outputs.o}/x" -> "echo two > {outputs.o}/x""#);
    insta::assert_snapshot!(data(&project, &["diff", &one, &one]), @"nothing differs: the keys are equal");
    let failed = key(
        run(
            &project,
            &["--json", "--set", "stages.first.with.run[0]=exit 3"],
        ),
        0,
    );
    insta::assert_snapshot!(data(&project, &["diff", &failed, &one]), @r#"
    (key KEY has no result: it is from an attempt in run RUN)
    with.run[0]: "exit 3" -> "echo one > {outputs.o}/x"
    "#);
    for (key, says) in [
        ("xyz", "`xyz` is not a key: write 6 to 64 hex digits"),
        (
            "000000",
            "no result and no attempt has a key that begins with `000000`",
        ),
    ] {
        project
            .say(&["diff", key, &one])
            .code(2)
            .shows(says)
            .shows("genius cache ls");
    }
    Project::new(PIPELINE)
        .say(&["diff", &one, &two])
        .code(4)
        .shows("there is no cache at");
}

#[test]
fn a_graph_in_three_forms() {
    let project = project();
    insta::assert_snapshot!(data(&project, &["graph", "p.yaml"]), @r"
    first   command
    second  command  <- i: first.o
    side    command
    third   command  <- i: second.o, q: side.o
    ");
    insta::assert_snapshot!(data(&project, &["graph", "p.yaml", "--variant", "base", "--variant", "shout"]), @r"
    first         command
    second        command  <- i: first.o  [base]
    side          command
    third         command  <- i: second.o, q: side.o  [base]
    second@shout  command  <- i: first.o  [shout]
    third@shout   command  <- i: second@shout.o, q: side.o  [shout]
    ");
    insta::assert_snapshot!(data(&project, &["graph", "p.yaml", "--format", "mermaid", "--target", "second"]), @r#"
    flowchart TD
      n0["first<br/>command"]
      n1["second<br/>command"]
      n0 -->|o| n1
    "#);
    insta::assert_snapshot!(data(&project, &["graph", "p.yaml", "--format", "dot", "--target", "second"]), @r#"
    digraph pipeline {
      node [shape=box];
      n0 [label="first\ncommand"];
      n1 [label="second\ncommand"];
      n0 -> n1 [label="o"];
    }
    "#);
    project
        .say(&["graph", "p.yaml", "--target", "secnd"])
        .code(2)
        .shows("there is no stage `secnd`");
    project
        .say(&["plan", "p.yaml", "--variant", "loud"])
        .code(2)
        .shows("there is no variant `loud`")
        .shows("the variants are base, shout, words:word=two, words:word=three");
}

#[test]
fn variants_share_what_is_the_same() {
    let project = project();
    run(&project, &["--all-variants"])
        .code(0)
        // first 3 times, second 4, side once; third 4 times, of which one has the same bytes to copy.
        .shows("11 executed, 1 cached");
    run(&project, &["--variant", "words"])
        .code(0)
        .shows("0 executed, 7 cached");
    run(&project, &["--variant", "words:word=two"])
        .code(0)
        .shows("0 executed, 4 cached");
    run(
        &project,
        &["--variant", "shout", "--set", "params.word=two"],
    )
    .code(0)
    .shows("1 executed, 3 cached");
    let said = run(&project, &["--all-variants", "--json"]).code(0).json();
    let names: Vec<&str> = said["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .filter_map(|s| s["stage"].as_str())
        .collect();
    assert!(names.contains(&"second@words:word=three"), "{names:?}");
    assert_eq!(
        said["stages"][2]["variants"].as_array().map(Vec::len),
        Some(4),
        "side is shared"
    );
}
