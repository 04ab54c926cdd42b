//! The keys beside `with`, commands, and what needs them.

use insta::assert_snapshot;

use super::{Folder, errors, stages};
use crate::spec::{Policy, Resources};

fn command(rest: &str) -> String {
    stages(&format!(
        "  p: {{ uses: model, with: {{ source: {{ hub: {{ repo: a/b }} }} }} }}\n  c: {{ uses: command, needs: {{ m: p }}, {rest} }}\n"
    ))
}

#[test]
fn how_a_stage_is_run_is_read() {
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
    let none = Policy {
        backoff_secs: 1.0,
        ..Policy::default()
    };
    assert_eq!(policy(""), none);
    assert_eq!(
        policy(", retry: '${params.n}'"),
        Policy {
            retries: 3,
            ..none.clone()
        }
    );
    assert_eq!(
        policy(
            ", resources: { gpu: 0, memory_gb: 20, cores: 2 }, retry: { times: 2, backoff_secs: 5 }, timeout_secs: 60"
        ),
        Policy {
            resources: Resources {
                gpu: Some(0),
                memory_gb: Some(20.0),
                cores: Some(2)
            },
            retries: 2,
            backoff_secs: 5.0,
            timeout_secs: Some(60.0),
        }
    );
}

#[test]
fn how_a_stage_is_run_within_bounds() {
    assert_snapshot!(errors(&command("with: { run: ['true'] }, resources: { gpus: 1, memory_gb: 0, cores: 0 }, retry: 101, timeout_secs: 0")), @"");
    assert_snapshot!(errors(&command("with: { run: ['true'] }, retry: often, timeout: 5")), @"");
    assert_snapshot!(errors(&command("with: { run: ['true'] }, retry: { backoff_secs: -1 }")), @"");
}

#[test]
fn placeholders_are_declared() {
    assert_snapshot!(errors(&command("with: { run: [a, '{inputs.n}/x', 'b{outputs.result}', '{files.script} {outputs.reslt}'], outputs: { reslts: {} } }")), @"");
    let good = command(
        "with: { run: ['{files.f}', '{inputs.m} {outputs.o} {} {other.x}'], files: { f: data }, outputs: { o: {}, p: {} } }",
    );
    Folder::new().load(&good, &[]).unwrap();
}

#[test]
fn commands_are_possible() {
    assert_snapshot!(errors(&command("with: { shell: true, run: [a, b] }")), @"");
    assert_snapshot!(errors(&command("with: { run: [' ', \"a\\0b\"], env: { A-B: x, 'C D': y }, inherit: [A=1, OK], pass_through: ['1A'], outputs: { o: { files: [a/b, /a, a/../b, ./c] } } }")), @"");
}

#[test]
fn needs_name_outputs() {
    let needs = |needs: &str| {
        errors(&stages(&format!(
            "  c: {{ uses: command, with: {{ run: [a], outputs: {{ model: {{}}, log: {{}} }} }} }}\n  n: {{ uses: command, with: {{ run: [a] }} }}\n  q: {{ uses: queries, with: {{ source: {{ path: data/queries.jsonl }} }} }}\n  d: {{ uses: {needs} }}\n"
        )))
    };
    assert_snapshot!(needs("command, needs: { a: n, b: c.lgo, d: q.queris, e: x.model, '1': c }, with: { run: [a] }"), @"");
    assert_snapshot!(needs("rollout, needs: { queries: q.metrics, model: c.log2 }"), @"");
    assert_snapshot!(needs("eval, needs: { model: q }, with: { benchmarks: [] }"), @"");
}

#[test]
fn a_circle_of_parameters_is_told_once() {
    assert_snapshot!(errors("version: 1\nname: x\nparams: { a: '${params.b}', b: '${params.a}' }\nstages: { s: { uses: model, with: { source: { hub: { repo: '${params.b}' } } } } }\n"), @"");
}
