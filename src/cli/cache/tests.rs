//! What `genius cache` prints, from real caches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;

use super::{Args, key_of, text};
use crate::cli::CliError;
use crate::store::{GcOptions, Key, Partials, RECORD_FORMAT, Record, Results, Store, Times};

/// The preimage of the n-th result.
fn preimage(n: u8) -> serde_json::Value {
    let with = json!({ "n": n });
    json!({ "format": 1, "kind": "score", "kind_version": 1, "with": with, "inputs": {} })
}

fn key(n: u8) -> Key {
    key_of(&preimage(n)).unwrap()
}

/// Two results of 5 and 2000 bytes, both laid out; a run of an existing pipeline
/// used the first, and one of a deleted pipeline the second.
fn fixture() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("cache"))
        .unwrap()
        .reading_runs(crate::run::facts);
    for (n, stage, bytes) in [(1, "score", 5), (2, "train", 2000)] {
        let job = store.job_dir("test").unwrap();
        fs::write(job.output().join("w"), "x".repeat(bytes)).unwrap();
        let tree = store.ingest_whole(&job).unwrap();
        store.materialise(&tree).unwrap();
        let record = Record {
            format: RECORD_FORMAT,
            key: key(n),
            kind: stage.to_owned(),
            preimage: preimage(n),
            outputs: BTreeMap::from([("model".to_owned(), tree)]),
            figures: json!([]),
            provenance: json!({ "stage": stage, "pipeline": "quickstart" }),
        };
        store.put(&record).unwrap();
    }
    fs::write(dir.path().join("here.yaml"), "").unwrap();
    for (id, name, n, began) in [
        ("20260101T000000-aaaa", "here", 1, 1_767_225_600),
        ("20260102T000000-bbbb", "deleted", 2, 1_767_312_000),
    ] {
        let run = store.runs_dir().join(id);
        fs::create_dir_all(&run).unwrap();
        let path = dir.path().join(format!("{name}.yaml"));
        let pipeline = json!({ "name": name, "path": path });
        let first = run.join("pipeline.json");
        fs::write(&first, pipeline.to_string()).unwrap();
        // As old as the run, by the file server's clock too.
        let began = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(began);
        let file = fs::File::options().write(true).open(&first).unwrap();
        file.set_modified(began).unwrap();
        fs::write(run.join("uses"), format!("{}\n", key(n))).unwrap();
    }
    (dir, store)
}

fn options() -> GcOptions {
    GcOptions {
        // Of the tests nothing is older.
        grace: Duration::ZERO,
        times: Times::default(),
        ..GcOptions::default()
    }
}

/// With the temporary folder as DIR, keys as k1 and k2, and the sizes of what
/// holds paths as SIZE.
fn tidy(text: &str, dir: &Path, sizes: &[String]) -> String {
    let mut text = text
        .replace(&dir.display().to_string(), "DIR")
        .replace(&key(1).short(), "k1----------")
        .replace(&key(2).short(), "k2----------");
    for size in sizes {
        text = text.replace(size, "SIZE");
    }
    text
}

#[test]
fn the_list_of_results() {
    let (_dir, store) = fixture();
    let mut results = store.usage().unwrap().results;
    let now: Timestamp = "2026-01-04T12:00:00Z".parse().unwrap();
    for result in &mut results {
        result.made = "2025-11-01T00:00:00Z".parse().unwrap();
    }
    let shown = tidy(&text::results(&results, now), Path::new("-"), &[]);
    insta::assert_snapshot!(shown, @"
    KEY           KIND   STAGE  PIPELINE       SIZE  MADE          LAST USED
    k2----------  train  train  quickstart  2.0 KiB  2 months ago  2 days ago
    k1----------  score  score  quickstart      5 B  2 months ago  3 days ago
    ");
    insta::assert_snapshot!(
        text::no_such_kind("trian", &["score".to_owned(), "train".to_owned()]),
        @"The cache has no results of kind `trian`, only of score, train."
    );
}

#[test]
fn the_disk_space_it_takes() {
    let (dir, store) = fixture();
    fs::write(store.root().join("notes.txt"), "mine").unwrap();
    let mut usage = store.usage().unwrap();
    // These depend on where the tests run.
    usage.runs.bytes = 300;
    usage.records.bytes = 1000;
    usage.total_bytes = 3309;
    let shown = tidy(&text::usage(store.root(), &usage), dir.path(), &[]);
    insta::assert_snapshot!(shown, @"
    DIR/cache  3.2 KiB
      blobs    2.0 KiB  2 files
      trees        0 B  2 folders, with 2.0 KiB of links to blobs
      records   1000 B  2 files
      runs       300 B  2 folders
      partial      0 B  0 files
      tmp          0 B  0 entries
      unknown      4 B  1 entry

    By stage kind
      train  2.0 KiB  1 result
      score      5 B  1 result

    By pipeline
      deleted  2.0 KiB  1 result
      here         5 B  1 result
    ");
}

#[test]
fn what_a_collection_would_remove_and_removed() {
    let (dir, store) = fixture();
    let options = options();
    let now: Timestamp = "2026-01-04T12:00:00Z".parse().unwrap();
    // The grace is nothing here: the file system's clock must have gone on.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let plan = store.plan_gc(&options).unwrap();
    let freed = [crate::cli::cache::units::size(plan.freed_bytes)];
    let shown = text::collection(&plan, None, &options, now);
    insta::assert_snapshot!(tidy(&shown, dir.path(), &freed), @"
    RESULT        STAGE  PIPELINE       SIZE  LAST USED   WHY
    k2----------  train  quickstart  2.0 KiB  2 days ago  its pipeline file is gone

    Would remove 1 result, 1 laid-out tree, 1 blob, 1 run: SIZE would be free.
    Kept: 1 result used by 1 run; 5 B of 1 blob.
    ");
    let done = store.apply_gc(&plan, &mut |_| {}).unwrap();
    let shown = text::collection(&plan, Some(&done), &options, now);
    insta::assert_snapshot!(tidy(&shown, dir.path(), &freed), @"
    RESULT        STAGE  PIPELINE       SIZE  LAST USED   WHY
    k2----------  train  quickstart  2.0 KiB  2 days ago  its pipeline file is gone

    Removed 1 result, 1 laid-out tree, 1 blob, 1 run: SIZE freed.
    Kept: 1 result used by 1 run; 5 B of 1 blob.
    ");
    let plan = store.plan_gc(&options).unwrap();
    let done = store.apply_gc(&plan, &mut |_| {}).unwrap();
    insta::assert_snapshot!(text::collection(&plan, Some(&done), &options, now), @"
    Nothing to remove.
    Kept: 1 result used by 1 run; 5 B of 1 blob.
    ");
}

#[test]
fn partial_results_are_shown_where_there_are_some() {
    let (dir, store) = fixture();
    let job = store.job_dir("test").unwrap();
    let partials = Partials::new(&store.partial_dir("rollout"), &job.scratch());
    let old = std::time::SystemTime::now() - Duration::from_secs(40 * 86_400);
    for n in [7, 8] {
        let key = Key::from_bytes([n; 32]);
        partials.put(&key, &[b'x'; 2000]).unwrap();
        let name = format!("{key}.json");
        let path = partials.dir().join(&name[..2]).join(&name);
        if n == 7 {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(old).unwrap();
        }
    }
    let options = GcOptions::default();
    let now = Timestamp::now();
    let plan = store.plan_gc(&options).unwrap();
    let shown = text::collection(&plan, None, &options, now);
    let (shown, kept) = shown.split_at(shown.find("Kept").unwrap());
    let freed = [crate::cli::cache::units::size(plan.freed_bytes)];
    insta::assert_snapshot!(
        tidy(shown, dir.path(), &freed),
        @"Would remove 1 partial result, 1 run: SIZE would be free."
    );
    insta::assert_snapshot!(kept, @"
    Kept: 2 results younger than 10 minutes; 2.0 KiB of 2 blobs.
      1 partial result of 2.1 KiB, used within 30 days.
    ");
    let report = store.verify(false, &key_of, &|_| {}).unwrap();
    let shown = tidy(&text::verification(&report, store.root()), dir.path(), &[]);
    insta::assert_snapshot!(shown, @"Read 2 blobs (2.0 KiB), 2 records, 2 laid-out trees and 2 partial results: all sound.");
}

#[test]
fn a_budget_that_cannot_be_met_is_explained() {
    let (_dir, store) = fixture();
    fs::write(store.root().join("notes.txt"), "mine").unwrap();
    let options = GcOptions {
        max_bytes: Some(1000),
        ..GcOptions::default()
    };
    let plan = store.plan_gc(&options).unwrap();
    let shown = text::collection(&plan, None, &options, Timestamp::now());
    let from = shown.find("Kept").unwrap();
    insta::assert_snapshot!(shown[from..], @"
    Kept: 2 results younger than 10 minutes; 2.0 KiB of 2 blobs.
      1 entry that Genius does not know: left alone.
    The budget of 1000 B cannot be met: what is left is 1005 B more, and is used by runs under way or younger than 10 minutes. Try again when they are done.
    ");
}

#[test]
fn what_verification_finds_and_repairs() {
    let (dir, store) = fixture();
    let verify = |repair| {
        let report = store.verify(repair, &key_of, &|_| {}).unwrap();
        let text = tidy(&text::verification(&report, store.root()), dir.path(), &[]);
        text.replace(&key(1).to_string(), "KEY1")
    };
    insta::assert_snapshot!(verify(false), @"Read 2 blobs (2.0 KiB), 2 records and 2 laid-out trees: all sound.");
    let record = store.lookup(&key(1)).unwrap();
    let tree = &record.outputs["model"];
    let hash = tree.files[0].hash.to_string();
    let blob = store.root().join("blobs").join(&hash[..2]).join(&hash);
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "yyyyy").unwrap();
    let tidy = |text: String| {
        let text = text.replace(&hash, "HASH").replace(&hash[..2], "ab");
        text.replace(&tree.hash.to_string(), "TREE")
    };
    insta::assert_snapshot!(tidy(verify(false)), @"
    broken blob blobs/ab/HASH
      its content has another hash
      touches stage score (k1----------) of here (DIR/here.yaml)

    Read 2 blobs (2.0 KiB), 2 records and 2 laid-out trees: 1 is broken.
    `genius cache verify --repair` removes what is damaged; results that need it are computed again.
    ");
    insta::assert_snapshot!(tidy(verify(true)), @"
    broken blob blobs/ab/HASH
      its content has another hash
      touches stage score (k1----------) of here (DIR/here.yaml)
      -> removed

    Read 2 blobs (2.0 KiB), 2 records and 2 laid-out trees: 1 was broken, and repaired.
    Removed, and computed again when next needed:
      stage score (k1----------) of here (DIR/here.yaml)
    ");
}

#[derive(Debug, Parser)]
#[command(name = "genius")]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn refused(args: &[&str]) -> String {
    let error = Cli::try_parse_from([&["genius"][..], args].concat()).unwrap_err();
    error.to_string()
}

#[test]
fn mistakes_in_ages_and_sizes_show_examples() {
    insta::assert_snapshot!(refused(&["gc", "--older-than", "30"]), @"
    error: invalid value '30' for '--older-than <AGE>': it has no unit: write an age as 90m, 12h, 30d or 8w

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(refused(&["gc", "--max-size", "50G"]), @"
    error: invalid value '50G' for '--max-size <SIZE>': `G` is not a unit: write a size as 500MB, 50GB or 1.5TiB (1 GB is 1000 MB, 1 GiB is 1024 MiB)

    For more information, try '--help'.
    ");
}

#[test]
fn the_key_of_a_record_is_that_of_its_fingerprint() {
    let preimage =
        json!({ "format": 1, "kind": "score", "kind_version": 1, "with": {}, "inputs": {} });
    assert!(key_of(&preimage).is_some());
    assert_eq!(key_of(&json!({ "with": {} })), None);
}

#[test]
fn inspecting_a_cache_creates_none() {
    let dir = tempfile::TempDir::new().unwrap();
    let root = dir.path().join("cache");
    assert!(Store::open_existing(&root).unwrap().is_none());
    assert!(!root.exists());
    let error = CliError::NoCache {
        root: "x/cache".into(),
    };
    insta::assert_snapshot!(error.render(false), @"
    error: there is no cache at x/cache
      = help: `genius run` makes one; `--cache DIR` or GENIUS_CACHE names another
    ");
    assert_eq!(error.exit_code(), 4);
    Store::open(&root).unwrap();
    assert!(Store::open_existing(&root).unwrap().is_some());
}
