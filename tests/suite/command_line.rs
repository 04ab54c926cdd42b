//! The command line as scripts and people meet it: stdout, stderr, exit codes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::project::{Project, QUERIES_ONLY, Said, WITH_MODEL};

/// The events of the run that `--json` told of.
/// What `queries` reports first.
fn queries(n: u64) -> Value {
    json!({ "name": "queries", "value": n, "unit": "count" })
}

fn events(project: &Project, said: &Said) -> Vec<String> {
    let id = said.json()["run_id"].as_str().expect("a run id").to_owned();
    let path = project.path("cache/runs").join(id).join("events.jsonl");
    let text = std::fs::read_to_string(path).expect("events");
    text.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).expect("JSON");
            event["event"].as_str().expect("a name").to_owned()
        })
        .collect()
}

#[test]
fn the_second_run_starts_no_process() {
    let project = Project::new(QUERIES_ONLY);
    let first = project.say(&["run", "p.yaml", "--json"]).code(0);
    assert_eq!(first.json()["stages"][0]["status"], "executed");
    assert!(events(&project, &first).contains(&"stage_started".to_owned()));

    let second = project.say(&["run", "p.yaml", "--json"]).code(0);
    assert_eq!(second.json()["stages"][0]["status"], "cached");
    assert_eq!(
        events(&project, &second),
        ["run_started", "stage_cached", "run_finished"]
    );
    assert_ne!(first.json()["run_id"], second.json()["run_id"]);
}

#[test]
fn json_is_one_object_of_the_documented_shape() {
    let project = Project::new(WITH_MODEL);
    // Without a worker: the model fails.
    let said = project.say(&["run", "p.yaml", "--json"]).code(1);
    assert_eq!(said.stdout.lines().count(), 1);
    let json = said.json();
    assert!(json["run_id"].is_string());
    let stages = json["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), 2);
    for stage in stages {
        assert!(stage["stage"].is_string());
        assert_eq!(stage["variant"], Value::Null);
        assert_eq!(stage["key"].as_str().expect("a key").len(), 64);
        assert!(!stage["reason"].as_str().expect("a reason").is_empty());
        assert!(stage["seconds"].as_f64().expect("seconds") >= 0.0);
    }
    assert_eq!(stages[0]["status"], "executed");
    assert_eq!(stages[1]["status"], "failed");
    assert_eq!(stages[0]["figures"][0], queries(3));

    let run = project
        .path("cache/runs")
        .join(json["run_id"].as_str().expect("an id"));
    let kept: Value =
        serde_json::from_slice(&std::fs::read(run.join("run.json")).expect("run.json"))
            .expect("JSON");
    assert_eq!(kept, json);
}

#[test]
fn stdout_is_data_and_nothing_has_escape_codes_when_piped() {
    let project = Project::new(WITH_MODEL);
    for args in [
        &["run", "p.yaml"][..],
        &["run", "p.yaml", "--quiet"],
        &["validate", "p.yaml"],
        &["run", "p.yaml", "--set", "stages.nothing.with.x=1"],
        &["validate", "q.jsonl"],
    ] {
        let said = project.say(args);
        assert_eq!(said.stdout, "", "{args:?}");
        assert!(!said.stderr.contains('\u{1b}'), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn no_color_holds_in_a_terminal_too() {
    let project = Project::new(QUERIES_ONLY);
    let in_terminal = |no_color: &str| {
        let line = format!("{} validate q.jsonl", env!("CARGO_BIN_EXE_genius"));
        let output = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(project.path(""))
            .env("TERM", "xterm")
            .env("NO_COLOR", no_color)
            .output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    // Only where util-linux's `script`, which makes a terminal, is there.
    let (Ok(coloured), Ok(plain)) = (in_terminal(""), in_terminal("1")) else {
        return;
    };
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    assert!(
        plain.contains("error") && !plain.contains('\u{1b}'),
        "{plain}"
    );
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let project = Project::new(QUERIES_ONLY);
    let said = project.say(&["run", "p.yaml", "-q"]).code(0);
    assert_eq!(said.stderr, "");
}

#[test]
fn quiet_still_says_why_a_stage_failed() {
    let project = Project::new(WITH_MODEL);
    // Without a worker beside it, it does not start; with one, the model has no tokenizer.
    project
        .say(&["run", "p.yaml", "-q"])
        .code(1)
        .shows("policy   failed: ");
}

#[test]
fn what_a_run_says_when_piped() {
    let project = Project::new(QUERIES_ONLY);
    let said = project.say(&["run", "p.yaml"]).code(0);
    insta::with_settings!({ filters => vec![(r"\d+\.\d\ds", "[time]")] }, {
        insta::assert_snapshot!(said.stderr, @r"
        queries  started
        queries  done in [time]

          queries  executed   [time]  queries 3, read 4, empty 0, duplicates 1

        1 executed, 0 cached in [time]
        ");
    });
    let again = project.say(&["run", "p.yaml"]).code(0);
    insta::with_settings!({ filters => vec![(r"\d+\.\d\ds", "[time]"), (r"[0-9a-f]{12}", "[key]")] }, {
        insta::assert_snapshot!(again.stderr, @r"
        queries  cached ([key])

          queries  cached            queries 3, read 4, empty 0, duplicates 1

        0 executed, 1 cached in [time]
        ");
    });
}

#[test]
fn comments_order_and_names_rerun_nothing() {
    let project = Project::new(QUERIES_ONLY);
    project.say(&["run", "p.yaml"]).code(0);
    project.write(
        "other.yaml",
        "# The same, written otherwise.\nstages:\n  q:\n    with:\n      source: { field: q, layout: auto, path: ./q.jsonl }\n    uses: queries\nname: another\nseed: 42\nversion: 1\n",
    );
    project
        .say(&["run", "other.yaml"])
        .code(0)
        .shows("0 executed, 1 cached");
}

#[test]
fn a_value_is_overridden_and_checked_like_the_file() {
    let project = Project::new(QUERIES_ONLY);
    let sample = "stages.queries.with.sample={ n: 2, seed: 1 }";
    let said = project
        .say(&["run", "p.yaml", "--json", "--set", sample])
        .code(0);
    assert_eq!(said.json()["stages"][0]["figures"][0], queries(2));
    project
        .say(&["run", "p.yaml", "--set", "stages.queries.with.smaple=1"])
        .code(3)
        .shows("smaple")
        .shows("sample");
    project.say(&["run", "p.yaml", "--set", "nothing"]).code(2);
}

#[test]
fn the_cache_is_where_one_says() {
    let project = Project::new(QUERIES_ONLY);
    let mut command = project.genius(&["run", "p.yaml"]);
    command.env("GENIUS_CACHE", "by-environment");
    Said::new(command.output().expect("genius starts")).code(0);
    assert!(project.path("by-environment/CACHEDIR.TAG").is_file());

    let mut command = project.genius(&["run", "p.yaml", "--cache", "by-flag"]);
    command.env("GENIUS_CACHE", "by-environment");
    Said::new(command.output().expect("genius starts"))
        .code(0)
        .shows("1 executed");
    assert!(project.path("by-flag/CACHEDIR.TAG").is_file());
    assert!(!project.path("cache").exists());
}

#[test]
fn a_cache_that_cannot_be_one_is_refused() {
    let project = Project::new(QUERIES_ONLY);
    project
        .say(&["run", "p.yaml", "--cache", "q.jsonl"])
        .code(4)
        .shows("q.jsonl")
        .shows("--cache DIR");
    project
        .say(&["run", "p.yaml", "--cache", "model"])
        .code(4)
        .shows("it holds config.json and no format.json");
}

#[test]
fn a_pipeline_that_cannot_be_read_is_not_a_wrong_one() {
    let project = Project::new(QUERIES_ONLY);
    for command in ["run", "validate"] {
        project
            .say(&[command, "missing.yaml"])
            .code(4)
            .shows("missing.yaml");
        project.say(&[command, "model"]).code(4).shows("model");
    }
    let locked = project.path("p.yaml");
    std::fs::set_permissions(&locked, Permissions::from_mode(0o000)).expect("a mode");
    // Root reads it all the same.
    if std::fs::read(&locked).is_err() {
        project.say(&["run", "p.yaml"]).code(4).shows("p.yaml");
    }
}

#[test]
fn what_is_wrong_decides_the_exit_code() {
    let project = Project::new(QUERIES_ONLY);
    project.say(&[]).code(2);
    project.say(&["walk"]).code(2);
    project.say(&["run"]).code(2);
    project
        .say(&["run", "p.yaml", "--device", "toaster"])
        .code(2)
        .shows("toaster");
    project.write("node.json", &super::machine::announcement("avx2", 0));
    project
        .say(&[
            "run",
            "p.yaml",
            "--device",
            "metal",
            "--machine",
            "node.json",
        ])
        .code(4)
        .shows("can use 0 metal devices");
    project.write("p.yaml", &QUERIES_ONLY.replace("q.jsonl", "missing.jsonl"));
    project
        .say(&["run", "p.yaml"])
        .code(3)
        .shows("missing.jsonl");
    assert!(
        !project.path("cache").exists(),
        "nothing was made for a run that cannot be"
    );
}

#[test]
fn validate_tells_every_mistake_at_once() {
    let project = Project::new(QUERIES_ONLY);
    project
        .say(&["validate", "p.yaml"])
        .code(0)
        .shows("is valid");
    let good = project.say(&["validate", "p.yaml", "--json"]).code(0);
    assert_eq!(
        good.json(),
        json!({ "valid": true, "problems": [], "name": "small", "stages": 1, "variants": [] })
    );

    project.write(
        "bad.yaml",
        &QUERIES_ONLY.replace("field: q", "feild: q, format: yaml"),
    );
    let bad = project.say(&["validate", "bad.yaml"]).code(3);
    for words in ["bad.yaml:5:", "feild", "field", "format"] {
        assert!(bad.stderr.contains(words), "{words}: {}", bad.stderr);
    }
    let bad = project.say(&["validate", "bad.yaml", "--json"]).code(3);
    let json = bad.json();
    assert_eq!((bad.stderr.as_str(), &json["valid"]), ("", &json!(false)));
    let problems = json["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), 2);
    assert!(
        problems
            .iter()
            .all(|p| p["line"] == 5 && p["message"].is_string())
    );
    assert!(!project.path("cache").exists());
}

#[test]
fn a_starter_is_written_and_is_valid() {
    let project = Project::new(QUERIES_ONLY);
    let wrote = project.say(&["init"]).code(0);
    insta::assert_snapshot!(wrote.stderr.trim_end(), @r"
    wrote genius.yaml, queries.jsonl, benchmark.jsonl
    next: genius validate genius.yaml; genius run genius.yaml
    ");
    project
        .say(&["validate", "genius.yaml"])
        .code(0)
        .shows("with 8 stages and 5 variants is valid");
    project.say(&["init"]).code(4).shows("already exists");
    let schema = project.say(&["schema"]).code(0).json();
    assert_eq!(schema["title"], "Genius pipeline");
}

#[test]
fn completions_are_scripts() {
    let project = Project::new(QUERIES_ONLY);
    for (shell, words) in [
        ("bash", "complete -F _genius"),
        ("zsh", "#compdef genius"),
        ("fish", "complete -c genius"),
    ] {
        let said = project.say(&["completions", shell]).code(0);
        assert!(said.stdout.contains(words), "{shell}");
        assert_eq!(said.stderr, "");
    }
    project.say(&["completions", "abacus"]).code(2);
}

#[test]
fn help_names_commands_codes_and_environment() {
    let project = Project::new(QUERIES_ONLY);
    let help = project.say(&["--help"]).code(0).stdout;
    let from = help.find("Usage:").expect("usage");
    insta::assert_snapshot!(help[from..], @r"
    Usage: genius <COMMAND>

    Commands:
      run          Run a pipeline: compute what has no result yet, reuse the rest
      plan         Show what a run would do with every stage, and do nothing
      explain      Explain why a stage would run, or why it is reused
      diff         Show what differs between two keys, field by field
      graph        Show the stages of a pipeline and how they are connected
      validate     Check a pipeline file without running anything
      runs         List the runs of the cache, newest first
      status       Show the progress of a run: every stage with its state and time
      logs         Print the log of a stage of a run
      out          Print the folder of a stage's output
      show         Show how a query was rolled out
      cache        Inspect the cache, remove what is not needed, check for damage
      trust        Let the `command` stages of a pipeline file run, as the file is now
      init         Write a pipeline to start from: every stage of the method, with comments
      schema       Print a JSON Schema of the pipeline file, for editors
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Exit codes:
      0    all went well
      1    a stage failed or has no result, or `cache verify` found damage
      2    the command line is wrong
      3    the pipeline file is wrong, or runs commands and is not trusted
      4    the cache or the machine is in the way
      130  interrupted

    Environment:
      GENIUS_CACHE   folder of the cache (default: ./cache)
      GENIUS_WORKER  the genius-worker program (default: beside genius)
      GENIUS_HOME    per-user folder of downloads, trusts and workers (default: ~/.cache/genius)
      GENIUS_LEASE_SECS  a run without a sign of life for so long is dead (default: 20)
      COLUMNS        how wide `genius show` may be (default: the terminal)
      NO_COLOR       no colour
      HF_TOKEN, HF_HOME, HF_ENDPOINT   as for every Hugging Face tool

    stdout is data, stderr is status.
    ");
    let version = project.say(&["--version"]).code(0).stdout;
    assert_eq!(version, concat!("genius ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// The page says of every option, variable and exit code what the help does.
#[test]
fn the_page_of_the_command_line_is_complete() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md");
    let page = std::fs::read_to_string(page).expect("docs/command-line.md");
    let project = Project::new(QUERIES_ONLY);
    let mut words = Vec::new();
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["validate", "--help"],
        &["plan", "--help"],
        &["explain", "--help"],
        &["diff", "--help"],
        &["graph", "--help"],
        &["show", "--help"],
        &["cache", "ls", "--help"],
        &["cache", "du", "--help"],
        &["cache", "gc", "--help"],
        &["cache", "verify", "--help"],
        &["init", "--help"],
        &["schema", "--help"],
        &["completions", "--help"],
    ] {
        let help = project.say(args).code(0).stdout;
        let of_interest = |word: &&str| {
            word.starts_with("--") && word.len() > 2
                || ["GENIUS_", "HF_", "NO_COLOR"]
                    .iter()
                    .any(|p| word.starts_with(p))
        };
        words.extend(
            help.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)))
                .filter(of_interest)
                .map(str::to_owned),
        );
    }
    words.extend(["`0`", "`1`", "`2`", "`3`", "`4`", "`130`"].map(str::to_owned));
    words.sort();
    words.dedup();
    assert!(words.len() > 14, "{words:?}");
    let missing: Vec<_> = words.iter().filter(|w| !page.contains(*w)).collect();
    assert!(missing.is_empty(), "docs/command-line.md lacks {missing:?}");
}
