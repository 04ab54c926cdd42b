//! Planning from what a worker announces: its own, or one kept in a file.

use std::os::unix::fs::PermissionsExt;

use super::project::{Project, Said};

const PIPELINE: &str = "\
version: 1
name: small
stages:
  policy: { uses: model, with: { source: { path: model } } }
  before: { uses: eval, needs: { model: policy }, with: { benchmarks: [{ name: b, path: q.jsonl }] } }
";

/// What a worker prints on a machine with that many GPUs and that instruction level.
pub fn announcement(level: &str, gpus: usize) -> String {
    let engine = |engine: &str, device: &str, arithmetic: &str| serde_json::json!({ "engine": engine, "device": device, "arithmetic": arithmetic });
    let mut engines = vec![engine("native", "cpu", "genius kernels 1")];
    if gpus > 0 {
        engines.push(engine("mistralrs", "cuda", "mistralrs 0.8.1"));
    }
    let announced = serde_json::json!({
        "format": 1,
        "version": "0",
        "processor": { "level": level, "fast_bf16": false, "cores": 4, "memory_bytes": 1_u64 << 33 },
        "devices": vec![serde_json::json!({ "kind": "cuda", "memory_bytes": 1_u64 << 36 }); gpus],
        "engines": engines,
    });
    format!("{announced}\n")
}

fn plan(project: &Project, args: &[&str]) -> Said {
    let mut command = project.genius(&["plan", "p.yaml", "--json"]);
    command.args(args);
    command.env("GENIUS_WORKER", project.path("worker"));
    Said::new(command.output().expect("genius starts"))
}

fn worker(project: &Project, lines: &str) {
    let path = project.write("worker", &format!("#!/bin/sh\n{lines}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

#[test]
fn auto_follows_the_worker_or_the_file_of_another_machine() {
    let project = Project::new(PIPELINE);
    project.write("here.json", &announcement("avx2", 0));
    worker(&project, "[ \"$1\" = --capabilities ] && cat here.json");
    plan(&project, &[]).code(0);
    project.write("node.json", &announcement("avx512", 4));
    // The worker here has no GPU; the other machine has four.
    plan(&project, &["--device", "cuda:3"])
        .code(4)
        .shows("can use 0 cuda devices");
    plan(&project, &["--device", "cuda", "--machine", "node.json"]).code(0);
    plan(&project, &["--device", "cuda:4", "--machine", "node.json"])
        .code(4)
        .shows("can use 4 cuda devices");
}

#[test]
fn a_worker_or_a_file_that_announces_nothing_is_named() {
    let project = Project::new(PIPELINE);
    worker(&project, "echo 'it takes no arguments' >&2; exit 2");
    plan(&project, &[])
        .code(4)
        .shows("worker does not announce what it computes with")
        .shows("it takes no arguments")
        .shows("--machine FILE");
    project.write("node.json", "{\n \"format\": 1,\n");
    plan(&project, &["--machine", "node.json"])
        .code(4)
        .shows("node.json: ")
        .shows("line 3")
        .shows("genius-worker --capabilities > FILE");
}
