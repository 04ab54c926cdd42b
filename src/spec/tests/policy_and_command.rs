//! The keys beside `with`, commands, and what needs them.

use insta::assert_snapshot;

use super::{Folder, errors, stages};
use crate::spec::{Policy, Resources, Retry};

fn command(rest: &str) -> String {
    stages(&format!(
        "  p: {{ uses: model, with: {{ source: {{ hub: {{ repo: a/b }} }} }} }}\n  c: {{ uses: command, needs: {{ m: p }}, {rest} }}\n"
    ))
}

#[test]
fn policies_are_read() {
    let policy = |rest: &str| {
        let text = command(&format!("with: {{ run: ['true'] }}{rest}"));
        let text = format!("params: {{ n: 3 }}\n{text}");
        Folder::new()
            .load(&text, &[])
            .unwrap()
            .stages
            .remove(1)
            .policy
    };
    assert_eq!(policy(""), Policy::default());
    assert_eq!(
        policy(", retry: '${params.n}'"),
        Policy {
            retry: Some(Retry {
                times: 3,
                backoff_secs: 1.0
            }),
            ..Policy::default()
        }
    );
    assert_eq!(
        policy(
            ", resources: { gpu: 0, memory_gb: 20, cores: 2 }, retry: { times: 2, backoff_secs: 5 }, timeout_secs: 60"
        ),
        Policy {
            resources: Some(Resources {
                gpu: Some(0),
                memory_gb: Some(20.0),
                cores: Some(2)
            }),
            retry: Some(Retry {
                times: 2,
                backoff_secs: 5.0
            }),
            timeout_secs: Some(60.0),
        }
    );
}

#[test]
fn policies_are_bounded() {
    assert_snapshot!(errors(&command("with: { run: ['true'] }, resources: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0")), @r"
    error: `resources` has no parameter `gpus`
     --> pipeline.yaml:5:78
      |
    5 | …uses: command, needs: { m: p }, with: { run: ['true'] }, resources: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0 }
      |                                                                        ^^^^
      |
      = help: did you mean `gpu`?

    error: `resources.memory_gb` must be a number above 0, found 0
     --> pipeline.yaml:5:98
      |
    5 | …: { m: p }, with: { run: ['true'] }, resources: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0 }
      |                                                                        ^

    error: `resources.cores` must be a whole number from 1 to 4294967295, found 0
     --> pipeline.yaml:5:108
      |
    5 | …, with: { run: ['true'] }, resources: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0 }
      |                                                                        ^

    error: `retry.times` must be a whole number from 0 to 100, found 101
     --> pipeline.yaml:5:120
      |
    5 | …n: ['true'] }, resources: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0 }
      |                                                                        ^^^

    error: `timeout_secs` must be a number above 0, found 0
     --> pipeline.yaml:5:139
      |
    5 | …urces: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0 }
      |                                                                        ^
    ");
    assert_snapshot!(errors(&command("with: { run: ['true'] }, retry: often, timeout: 5")), @r#"
    error: `retry` must be a whole number or a mapping, found the text "often"
     --> pipeline.yaml:5:72
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: ['true'] }, retry: often, timeout: 5 }
      |                                                                        ^^^^^
      |
      = help: write `retry: 2` or `retry: { times: 2, backoff_secs: 5 }`

    error: stage `c` has no `timeout`
     --> pipeline.yaml:5:79
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: ['true'] }, retry: often, timeout: 5 }
      |                                                                               ^^^^^^^
      |
      = help: there is `uses`, `needs`, `with`, `resources`, `retry` and `timeout_secs`
    "#);
    assert_snapshot!(errors(&command("with: { run: ['true'] }, retry: { backoff_secs: -1 }")), @r"
    error: stage `c` is missing the parameter `retry.times`
     --> pipeline.yaml:5:72
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: ['true'] }, retry: { backoff_secs: -1 } }
      |                                                                        ^
      |
      = help: `retry.times` takes a whole number from 0 to 100

    error: `retry.backoff_secs` must be a number of at least 0, found -1
     --> pipeline.yaml:5:88
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: ['true'] }, retry: { backoff_secs: -1 } }
      |                                                                                        ^^
    ");
}

#[test]
fn placeholders_are_declared() {
    assert_snapshot!(errors(&command("with: { run: [a, '{inputs.n}/x', 'b{outputs.result}', '{files.script} {outputs.reslt}'], outputs: { reslts: {} } }")), @r"
    error: `{inputs.n}`: stage `c` has no input `n`
     --> pipeline.yaml:5:57
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: [a, '{inputs.n}/x', 'b{outputs.result}', '{files.script} {outputs.reslt}'], outputs: { r…
      |                                                         ^^^^^^^^^^^^^^ in `run[1]`
      |
      = help: declare it: `needs: { n: STAGE }`

    error: `{outputs.result}`: stage `c` has no output `result`
     --> pipeline.yaml:5:73
      |
    5 | …c: { uses: command, needs: { m: p }, with: { run: [a, '{inputs.n}/x', 'b{outputs.result}', '{files.script} {outputs.reslt}'], outputs: { res…
      |                                                                        ^^^^^^^^^^^^^^^^^^^ in `run[2]`
      |
      = help: did you mean `{outputs.reslts}`?

    error: `{files.script}`: stage `c` has no file `script`
     --> pipeline.yaml:5:94
      |
    5 | …eeds: { m: p }, with: { run: [a, '{inputs.n}/x', 'b{outputs.result}', '{files.script} {outputs.reslt}'], outputs: { reslts: {} } } }
      |                                                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in `run[3]`
      |
      = help: declare it: `with: { files: { script: PATH } }`

    error: `{outputs.reslt}`: stage `c` has no output `reslt`
     --> pipeline.yaml:5:94
      |
    5 | …eeds: { m: p }, with: { run: [a, '{inputs.n}/x', 'b{outputs.result}', '{files.script} {outputs.reslt}'], outputs: { reslts: {} } } }
      |                                                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in `run[3]`
      |
      = help: did you mean `{outputs.reslts}`?
    ");
    let good = command(
        "with: { run: ['{files.f}', '{inputs.m} {outputs.o} {} {other.x}'], files: { f: data }, outputs: { o: {}, p: {} } }",
    );
    Folder::new().load(&good, &[]).unwrap();
}

#[test]
fn invalid_commands_are_refused() {
    assert_snapshot!(errors(&command("with: { shell: true, run: [a, b] }")), @r#"
    error: with `shell: true`, `run` is one script, found 2 items
     --> pipeline.yaml:5:70
      |
    5 |   c: { uses: command, needs: { m: p }, with: { shell: true, run: [a, b] } }
      |                                                                      ^
      |
      = help: write the script as one string: `run: ["first | second"]`
    "#);
    assert_snapshot!(errors(&command("with: { run: [' ', \"a\\0b\"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../b, ./c] } } }")), @r#"
    error: `run[0]` is the program: it must not be empty
     --> pipeline.yaml:5:54
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: [' ', "a\0b"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outp…
      |                                                      ^^^

    error: `run[1]` contains a NUL character, which cannot be passed to a program
     --> pipeline.yaml:5:59
      |
    5 |   c: { uses: command, needs: { m: p }, with: { run: [' ', "a\0b"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outp…
      |                                                           ^^^^^^

    error: `env`: `A-B` is not a valid name of an environment variable
     --> pipeline.yaml:5:75
      |
    5 | … { uses: command, needs: { m: p }, with: { run: [' ', "a\0b"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outputs:…
      |                                                                        ^^^
      |
      = help: a name starts with a letter or `_`, followed by letters, digits and `_`

    error: `C D` is not a valid name in `env`
     --> pipeline.yaml:5:83
      |
    5 | … command, needs: { m: p }, with: { run: [' ', "a\0b"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outputs: { o: { …
      |                                                                        ^^^^^
      |
      = help: a name starts with a letter or `_`, followed by letters, digits, `_` and `-`

    error: `inherit[0]`: `A=1` is not a valid name of an environment variable
     --> pipeline.yaml:5:105
      |
    5 | …p }, with: { run: [' ', "a\0b"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../…
      |                                                                        ^^^
      |
      = help: its name alone; to set it: `env: { A: "1" }`

    error: `pass_through[0]`: `1A` is not a valid name of an environment variable
     --> pipeline.yaml:5:130
      |
    5 | …a\0b"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../b, ./c] } } } }
      |                                                                        ^^^^
      |
      = help: a name starts with a letter or `_`, followed by letters, digits and `_`

    error: `outputs.o.files[1]` must be a path inside the output's folder, found the text "/a"
     --> pipeline.yaml:5:166
      |
    5 | …nherit: [A=1, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../b, ./c] } } } }
      |                                                                        ^^
      |
      = help: write it without `/` in front, and without `.` and `..`: `result.json`, `part/1.json`

    error: `outputs.o.files[2]` must be a path inside the output's folder, found the text "a/../b"
     --> pipeline.yaml:5:170
      |
    5 | …it: [A=1, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../b, ./c] } } } }
      |                                                                        ^^^^^^
      |
      = help: write it without `/` in front, and without `.` and `..`: `result.json`, `part/1.json`

    error: `outputs.o.files[3]` must be a path inside the output's folder, found the text "./c"
     --> pipeline.yaml:5:178
      |
    5 | …, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../b, ./c] } } } }
      |                                                                        ^^^
      |
      = help: write it without `/` in front, and without `.` and `..`: `result.json`, `part/1.json`
    "#);
}

#[test]
fn needs_may_name_outputs() {
    let needs = |needs: &str| {
        errors(&stages(&format!(
            "  c: {{ uses: command, with: {{ run: [a], outputs: {{ model: {{}}, log: {{}} }} }} }}\n  n: {{ uses: command, with: {{ run: [a] }} }}\n  q: {{ uses: queries, with: {{ source: {{ path: data/queries.jsonl }} }} }}\n  d: {{ uses: {needs} }}\n"
        )))
    };
    assert_snapshot!(needs("command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] }"), @r"
    error: stage `n` (command) produces nothing
     --> pipeline.yaml:7:35
      |
    7 |   d: { uses: command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] } }
      |                                   ^
      |
      = help: declare its outputs: `with: { outputs: { NAME: {} } }`

    error: stage `c` (command) does not produce `lgo`
     --> pipeline.yaml:7:41
      |
    7 |   d: { uses: command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] } }
      |                                         ^^^^^
      |
      = help: did you mean `c.log`?

    error: stage `q` (queries) does not produce `queris`
     --> pipeline.yaml:7:51
      |
    7 |   d: { uses: command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] } }
      |                                                   ^^^^^^^^
      |
      = help: did you mean `q.queries`?

    error: there is no stage `x`
     --> pipeline.yaml:7:64
      |
    7 |   d: { uses: command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] } }
      |                                                                ^^^^^^^
      |
      = help: there is `c`, `n` and `q`

    error: `1` is not a valid input name
     --> pipeline.yaml:7:73
      |
    7 |   d: { uses: command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] } }
      |                                                                         ^^^
      |
      = help: a name starts with a letter or `_`, followed by letters, digits, `_` and `-`
    ");
    assert_snapshot!(needs("rollout, needs: { queries: q.metrics, model: c.log2 }"), @r"
    error: input `queries` takes `queries`, not `metrics`
     --> pipeline.yaml:7:41
      |
    7 |   d: { uses: rollout, needs: { queries: q.metrics, model: c.log2 } }
      |                                         ^^^^^^^^^
      |
      = help: write `queries: q`

    error: stage `c` (command) does not produce `log2`
     --> pipeline.yaml:7:59
      |
    7 |   d: { uses: rollout, needs: { queries: q.metrics, model: c.log2 } }
      |                                                           ^^^^^^
      |
      = help: did you mean `c.log`?
    ");
    assert_snapshot!(needs("eval, needs: { model: q }, with: { benchmarks: [] }"), @r"
    error: stage `q` (queries) does not produce `model`
     --> pipeline.yaml:7:36
      |
    7 |   d: { uses: eval, needs: { model: q }, with: { benchmarks: [] } }
      |                                    ^ `model` takes a stage that produces `model`
      |
      = help: `model` comes from `c`

    error: `benchmarks` must be a list of at least 1, found 0
     --> pipeline.yaml:7:61
      |
    7 |   d: { uses: eval, needs: { model: q }, with: { benchmarks: [] } }
      |                                                             ^
    ");
}

#[test]
fn a_cycle_of_parameters_is_reported_once() {
    assert_snapshot!(errors("version: 1\nname: x\nparams: { a: '${params.b}', b: '${params.a}' }\nstages: { s: { uses: model, with: { source: { hub: { repo: '${params.b}' } } } } }\n"), @r"
    error: parameters refer to each other in a cycle: a -> b -> a
     --> pipeline.yaml:3:33
      |
    3 | params: { a: '${params.b}', b: '${params.a}' }
      |                                 ^^^^^^^^^^^
    ");
}
