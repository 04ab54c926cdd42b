//! Outputs on their way into the cache, and what may be run in them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    (dir, store)
}

/// A job whose output `o` has these files.
fn job(store: &Store, files: &[(&str, &str, u32)]) -> JobDir {
    let job = store.job_dir("t").unwrap();
    for (path, content, mode) in files {
        let path = job.output().join("o").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    job
}

fn ingest(store: &Store, files: &[(&str, &str, u32)]) -> Tree {
    let job = job(store, files);
    let written = job.written("o").unwrap().unwrap();
    store.ingest(&job, &written, Modes::Executables).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_link_in_place_of_an_output_is_not_followed() {
    let (dir, store) = store();
    let mine = dir.path().join("mine");
    fs::create_dir_all(mine.join("o")).unwrap();
    fs::write(mine.join("o/x"), "mine").unwrap();
    fs::set_permissions(mine.join("o/x"), fs::Permissions::from_mode(0o640)).unwrap();
    let refused = |job: &JobDir| job.written("o").unwrap_err();

    let linked = job(&store, &[]);
    symlink(mine.join("o"), linked.output().join("o")).unwrap();
    assert!(
        matches!(refused(&linked), StoreError::NotAFolder { what, .. } if what == "symbolic link")
    );

    let above = job(&store, &[("x", "x", 0o644)]);
    fs::rename(above.output(), above.path().join("away")).unwrap();
    symlink(&mine, above.output()).unwrap();
    assert!(matches!(refused(&above), StoreError::Moved { path } if path == above.output()));

    let whole = job(&store, &[("x", "x", 0o644)]);
    let place = whole.path().to_owned();
    fs::rename(&place, dir.path().join("away")).unwrap();
    fs::create_dir(&place).unwrap();
    fs::create_dir(place.join("output")).unwrap();
    symlink(mine.join("o"), place.join("output/o")).unwrap();
    assert!(matches!(refused(&whole), StoreError::Moved { path } if path == place));
    drop(whole);
    assert!(place.join("output").exists(), "it is somebody else's");

    assert_eq!(fs::read(mine.join("o/x")).unwrap(), b"mine");
    assert_eq!(mode(&mine.join("o/x")), 0o640);
}

#[test]
fn what_changes_after_it_was_listed_is_refused() {
    let (dir, store) = store();
    let mine = dir.path().join("mine");
    fs::create_dir_all(mine.join("d")).unwrap();
    fs::write(mine.join("d/x"), "mine").unwrap();
    type Change<'a> = &'a dyn Fn(&Path);
    let (link, folder) = (mine.join("d/x"), mine.join("d"));
    let changes: [Change; 6] = [
        &|o| fs::write(o.join("d/x"), "longer").unwrap(),
        &|o| {
            fs::remove_file(o.join("d/x")).unwrap();
            symlink(&link, o.join("d/x")).unwrap();
        },
        &|o| {
            fs::remove_file(o.join("d/x")).unwrap();
            fs::hard_link(&link, o.join("d/x")).unwrap();
        },
        &|o| {
            fs::rename(o.join("d"), o.join("e")).unwrap();
            symlink(&folder, o.join("d")).unwrap();
        },
        &|o| fs::remove_file(o.join("d/x")).unwrap(),
        &|o| {
            fs::remove_file(o.join("d/x")).unwrap();
            nix::unistd::mkfifo(&o.join("d/x"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        let job = job(&store, &[("d/x", "made", 0o644)]);
        let written = job.written("o").unwrap().unwrap();
        change(&job.output().join("o"));
        let error = store.ingest(&job, &written, Modes::Plain).unwrap_err();
        assert!(matches!(error, StoreError::Changed { .. }), "{at}: {error}");
        assert_eq!(fs::read(mine.join("d/x")).unwrap(), b"mine", "{at}");
    }
}

/// It was listed, and is swapped for a link: what is held open is still the output.
#[test]
fn an_output_swapped_after_it_was_listed_is_kept() {
    let (dir, store) = store();
    let job = job(&store, &[("d/x", "made", 0o644)]);
    let written = job.written("o").unwrap().unwrap();
    fs::rename(job.output().join("o"), job.path().join("away")).unwrap();
    symlink(dir.path(), job.output().join("o")).unwrap();
    let tree = store.ingest(&job, &written, Modes::Plain).unwrap();
    assert_eq!(tree.files[0].hash, ContentHash::of(b"made"));
    assert_eq!(
        fs::read(store.materialise(&tree).unwrap().join("d/x")).unwrap(),
        b"made"
    );
}

#[test]
fn a_second_name_of_a_file_keeps_its_mode() {
    let (dir, store) = store();
    let mine = dir.path().join("mine");
    fs::write(&mine, "mine").unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o640)).unwrap();
    let job = job(&store, &[("x", "x", 0o644)]);
    fs::hard_link(&mine, job.output().join("o/second")).unwrap();
    let written = job.written("o").unwrap().unwrap();
    let tree = store.ingest(&job, &written, Modes::Plain).unwrap();
    assert_eq!(tree.files.len(), 2);
    drop(job);
    assert_eq!(mode(&mine), 0o640);
    assert_eq!(fs::metadata(&mine).unwrap().nlink(), 1);
}

/// `trees/` is a place where others of a shared cache can put links.
#[test]
fn a_link_in_place_of_a_tree_is_replaced() {
    let (dir, store) = store();
    let mine = dir.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("precious"), "mine").unwrap();
    let tree = ingest(&store, &[("x", "x", 0o644)]);
    symlink(&mine, store.tree_path(&tree.hash)).unwrap();
    let folder = store.materialise(&tree).unwrap();
    assert!(fs::symlink_metadata(&folder).unwrap().is_dir());
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
    assert_eq!(fs::read(mine.join("precious")).unwrap(), b"mine");
}

#[test]
fn endlessly_nested_folders_are_refused() {
    let (_dir, store) = store();
    let job = job(&store, &[]);
    fs::create_dir(job.output().join("o")).unwrap();
    let mut here = super::folder::Folder::open(&job.output().join("o")).unwrap();
    for _ in 0..400 {
        here = here.make("d".repeat(30).as_ref()).unwrap();
    }
    let error = job.written("o").unwrap_err().to_string();
    assert!(
        error.contains("a path in it is longer than 3,000 bytes"),
        "{error}"
    );
    let place = job.path().to_owned();
    drop((here, job));
    assert!(!place.exists());
}

#[test]
fn equal_bytes_keep_two_modes() {
    let (_dir, store) = store();
    let plain = ingest(&store, &[("tool", "#!/bin/sh\n", 0o644)]);
    let both = ingest(
        &store,
        &[
            ("tool", "#!/bin/sh\n", 0o755),
            ("text", "#!/bin/sh\n", 0o644),
            ("group", "g", 0o654),
        ],
    );
    assert_ne!(
        plain.hash,
        ingest(&store, &[("tool", "#!/bin/sh\n", 0o700)]).hash
    );
    assert!(plain.is_sound() && both.is_sound());
    for _ in 0..2 {
        let folder = store.materialise(&both).unwrap();
        let modes = ["tool", "text", "group"].map(|name| mode(&folder.join(name)));
        assert_eq!(modes, [0o555, 0o444, 0o444], "what the owner may run");
        assert_eq!(
            mode(&store.materialise(&plain).unwrap().join("tool")),
            0o444
        );
        assert_eq!(mode(&store.blob_path(&plain.files[0].hash)), 0o444);
        assert_eq!(store.laid_out(&both), Some(folder));
    }
    // Of the stages of Genius, whose models may have been copied from anywhere.
    let job = job(&store, &[("tool", "#!/bin/sh\n", 0o755)]);
    let written = job.written("o").unwrap().unwrap();
    assert_eq!(store.ingest(&job, &written, Modes::Plain).unwrap(), plain);
}

#[test]
fn an_executable_that_lost_its_bit_is_laid_out_again() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("bin/tool", "tool", 0o755), ("x", "x", 0o644)]);
    let folder = store.materialise(&tree).unwrap();
    let tool = folder.join("bin/tool");
    for change in [0o444, 0o644] {
        fs::set_permissions(&tool, fs::Permissions::from_mode(change)).unwrap();
        assert_eq!(store.laid_out(&tree), None);
        store.materialise(&tree).unwrap();
        assert_eq!(mode(&tool), 0o555);
    }
    // In place of the copy the blob itself, which is not executable.
    fs::remove_file(&tool).unwrap();
    fs::hard_link(store.blob_path(&tree.files[0].hash), &tool).unwrap();
    store.materialise(&tree).unwrap();
    assert_eq!(mode(&tool), 0o555);
    // Its content counts as before.
    fs::remove_file(&tool).unwrap();
    fs::write(&tool, "evil").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o555)).unwrap();
    store.materialise(&tree).unwrap();
    assert_eq!(fs::read(&tool).unwrap(), b"tool");
}

#[test]
fn verify_knows_what_may_be_run() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("tool", "tool", 0o755), ("x", "tool", 0o644)]);
    let record = Record {
        format: RECORD_FORMAT,
        key: Key::from_bytes([1; 32]),
        kind: "command".to_owned(),
        preimage: json!({}),
        outputs: [("o".to_owned(), tree.clone())].into(),
        figures: json!([]),
        provenance: json!({}),
    };
    store.put(&record).unwrap();
    assert_eq!(store.lookup(&record.key), Some(record.clone()));
    let folder = store.materialise(&tree).unwrap();
    let verify = |repair| {
        let key_of = |_: &serde_json::Value| Some(Key::from_bytes([1; 32]));
        store.verify(repair, &key_of, &|_| {}).unwrap()
    };
    assert_eq!(verify(false).damage, []);
    fs::set_permissions(folder.join("tool"), fs::Permissions::from_mode(0o444)).unwrap();
    let report = verify(true);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].why, "`tool` can no longer be run");
    assert_eq!(mode(&folder.join("tool")), 0o555);
    assert_eq!(verify(false).damage, []);
    // A tree that no record names is judged by its own modes.
    fs::remove_file(store.record_file(&record.key)).unwrap();
    assert_eq!(verify(false).damage, []);
}

/// A record of the format before: the same without executables.
#[test]
fn records_of_the_format_before_are_read() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("x", "x", 0o644)]);
    let record = Record {
        format: 2,
        key: Key::from_bytes([2; 32]),
        kind: "train".to_owned(),
        preimage: json!({}),
        outputs: [("o".to_owned(), tree)].into(),
        figures: json!([]),
        provenance: json!({}),
    };
    store.put(&record).unwrap();
    let text = fs::read_to_string(store.record_file(&record.key)).unwrap();
    assert!(!text.contains("executable"), "{text}");
    assert_eq!(store.lookup(&record.key), Some(record));
}
