//! `genius cache` as scripts and people meet it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::project::{Project, QUERIES_ONLY, Said};

/// A project whose pipeline ran.
fn ran() -> Project {
    let project = Project::new(QUERIES_ONLY);
    project.say(&["run", "p.yaml"]).code(0);
    project
}

fn status(project: &Project) -> String {
    let said = project.say(&["run", "p.yaml", "--json"]).code(0);
    let status = said.json()["stages"][0]["status"].clone();
    status.as_str().expect("a status").to_owned()
}

/// The files under `cache/blobs`.
fn blobs(project: &Project) -> Vec<PathBuf> {
    let entries = |path: PathBuf| std::fs::read_dir(path).expect("a folder");
    entries(project.path("cache/blobs"))
        .flat_map(|shard| entries(shard.expect("an entry").path()))
        .map(|blob| blob.expect("an entry").path())
        .collect()
}

#[test]
fn looking_into_a_cache_makes_none() {
    let project = Project::new(QUERIES_ONLY);
    for command in ["ls", "du", "gc", "verify"] {
        let said = project.say(&["cache", command]).code(4);
        assert_eq!(said.stdout, "");
        said.shows("there is no cache at cache");
    }
    assert!(!project.path("cache").exists());
    let elsewhere = ["cache", "ls", "--cache", "model"];
    project.say(&elsewhere).code(4).shows("no cache at model");
}

#[test]
fn what_a_run_made_is_listed_and_measured() {
    let project = ran();
    let results = project.say(&["cache", "ls", "--json"]).code(0).json();
    let result = &results[0];
    assert_eq!(results.as_array().expect("an array").len(), 1);
    assert_eq!(result["kind"], "queries");
    assert_eq!(result["stage"], "queries");
    assert_eq!(result["pipeline"], "small");
    let table = project.say(&["cache", "ls"]).code(0);
    assert!(table.stdout.starts_with("KEY "), "{}", table.stdout);
    assert_eq!(table.stderr, "");
    let none = project.say(&["cache", "ls", "--kind", "train"]).code(0);
    assert_eq!(none.stdout, "");
    none.shows("has no results of kind `train`");

    let usage = project.say(&["cache", "du", "--json"]).code(0).json();
    assert_eq!(usage["blobs"]["count"], blobs(&project).len());
    assert_eq!(usage["by_kind"][0]["bytes"], usage["blobs"]["bytes"]);
    assert_eq!(usage["by_pipeline"][0]["name"], "small");
}

#[test]
fn a_collection_right_after_a_run_takes_nothing() {
    let project = ran();
    for args in [
        &["cache", "gc", "--json"][..],
        &["cache", "gc", "--max-size", "0", "--json"],
        &["cache", "gc", "--dry-run", "--older-than", "0s", "--json"],
    ] {
        let json = project.say(args).code(0).json();
        assert_eq!(
            json["plan"]["records"].as_array().expect("records").len(),
            0
        );
        assert_eq!(json["done"].is_null(), args.contains(&"--dry-run"));
    }
    assert_eq!(status(&project), "cached");
    let refused = project.say(&["cache", "gc", "--older-than", "old"]).code(2);
    refused.shows("write an age as 90m, 12h, 30d or 8w");
}

#[test]
fn damage_is_named_repaired_and_computed_again() {
    let project = ran();
    let verify = |args: &[&str]| -> Said { project.say(&[&["cache", "verify"], args].concat()) };
    assert!(verify(&[]).code(0).stdout.contains("all sound"));

    let blob = blobs(&project).remove(0);
    let mut bytes = std::fs::read(&blob).expect("a blob");
    bytes[0] ^= 1;
    std::fs::set_permissions(&blob, PermissionsExt::from_mode(0o644)).expect("a mode");
    std::fs::write(&blob, bytes).expect("a blob");
    let said = verify(&[]).code(1);
    let pipeline = project.path("p.yaml").canonicalize().expect("p.yaml");
    for words in ["broken blob", "stage queries", &pipeline.to_string_lossy()] {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
    let json = verify(&["--json"]).code(1).json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["damage"][0]["what"], "blob");

    let said = verify(&["--repair"]).code(0);
    assert!(said.stdout.contains("repaired"), "{}", said.stdout);
    assert!(verify(&[]).code(0).stdout.contains("all sound"));
    assert_eq!(status(&project), "executed");
    assert_eq!(status(&project), "cached");
}
