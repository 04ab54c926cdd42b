//! Verification and repair: one thing is broken at a time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::testing::read_run;
use super::*;

struct Fixture {
    _dir: TempDir,
    store: Store,
    trees: Vec<Tree>,
}

fn key(n: u8) -> Key {
    Key::from_bytes([n; 32])
}

/// The preimage of these tests says its key.
fn key_of(preimage: &Value) -> Option<Key> {
    preimage["is"].as_str()?.parse().ok()
}

/// Three results, of which 1 and 2 share a file; the first is laid out.
fn fixture() -> Fixture {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("cache"))
        .unwrap()
        .reading_runs(read_run);
    let mut trees = Vec::new();
    for (n, content) in [(1, "weights"), (2, "weights"), (3, "others")] {
        let job = store.job_dir("test").unwrap();
        fs::write(job.output().join("w"), content).unwrap();
        fs::write(job.output().join("n"), format!("only of {n}")).unwrap();
        let tree = store.ingest_whole(&job).unwrap();
        let record = Record {
            format: RECORD_FORMAT,
            key: key(n),
            kind: "train".to_owned(),
            preimage: json!({ "is": key(n) }),
            outputs: BTreeMap::from([("model".to_owned(), tree.clone())]),
            figures: json!([]),
            provenance: json!({ "stage": format!("stage-{n}"), "pipeline": "maker" }),
        };
        store.put(&record).unwrap();
        trees.push(tree);
    }
    store.materialise(&trees[0]).unwrap();
    let run = store.runs_dir().join("20200101T000000-abcd");
    fs::create_dir_all(&run).unwrap();
    let pipeline = json!({ "name": "user", "path": "/p/user.yaml" });
    fs::write(run.join("pipeline.json"), pipeline.to_string()).unwrap();
    fs::write(run.join("uses"), format!("{}\n", key(1))).unwrap();
    let report = json!({ "stages": [{ "stage": "as-reported", "key": key(1) }] });
    fs::write(run.join("run.json"), report.to_string()).unwrap();
    Fixture {
        _dir: dir,
        store,
        trees,
    }
}

impl Fixture {
    fn verify(&self, repair: bool) -> VerifyReport {
        self.store.verify(repair, &key_of, &|_| {}).unwrap()
    }

    fn hits(&self) -> Vec<u8> {
        let is_hit = |n: &u8| self.store.lookup(&key(*n)).is_some();
        (1..=3).filter(is_hit).collect()
    }

    fn blob(&self, tree: usize, file: &str) -> PathBuf {
        let files = &self.trees[tree].files;
        let file = files.iter().find(|f| f.path == file).unwrap();
        self.store.blob_path(&file.hash)
    }
}

/// Changes one byte behind the cache's back; size and name stay.
fn flip(path: &Path, at: usize) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn summary(report: &VerifyReport) -> Vec<(DamagedThing, String, Vec<Key>)> {
    let damage = report.damage.iter();
    damage
        .map(|d| {
            let touches = d.touches.iter().map(|t| t.key).collect();
            (d.what, d.why.clone(), touches)
        })
        .collect()
}

#[test]
fn a_sound_cache_is_sound() {
    let f = fixture();
    for repair in [false, true] {
        let report = f.verify(repair);
        assert_eq!(report.damage, []);
        assert_eq!((report.blobs, report.records, report.trees), (5, 3, 1));
        assert!(report.ok());
    }
    assert_eq!(f.hits(), [1, 2, 3]);
}

#[test]
fn progress_reaches_the_total() {
    let f = fixture();
    let last = std::sync::Mutex::new((0, 1));
    f.store
        .verify(false, &key_of, &|p| {
            *last.lock().unwrap() = (p.done_bytes, p.total_bytes);
        })
        .unwrap();
    let (done, total) = *last.lock().unwrap();
    assert_eq!((done, total), (13 + 3 * 9, 13 + 3 * 9));
}

#[test]
fn a_flipped_byte_in_a_blob_is_found_with_what_it_touches() {
    let f = fixture();
    flip(&f.blob(1, "w"), 0);
    let report = f.verify(false);
    assert!(!report.ok());
    let why = "its content has another hash".to_owned();
    assert_eq!(
        summary(&report),
        [
            (DamagedThing::Blob, why, vec![key(1), key(2)]),
            (
                DamagedThing::Tree,
                "`w` was changed".to_owned(),
                vec![key(1)]
            ),
        ]
    );
    let touched = &report.damage[0].touches;
    assert_eq!(touched[0].stage.as_deref(), Some("stage-1"));
    assert_eq!(
        touched[0].pipelines,
        [PipelineName {
            name: "user".to_owned(),
            path: Some("/p/user.yaml".into())
        }]
    );
    assert_eq!(touched[1].pipelines[0].name, "maker");
    assert_eq!(f.hits(), [1, 2, 3], "looking changes nothing");

    let report = f.verify(true);
    assert!(report.ok());
    let forgotten: Vec<Key> = report.forgotten.iter().map(|t| t.key).collect();
    assert_eq!(forgotten, [key(1), key(2)]);
    assert_eq!(f.hits(), [3]);
    assert!(!f.blob(1, "w").exists());
    assert!(!f.store.tree_path(&f.trees[0].hash).exists());
    assert_eq!(f.verify(false).damage, []);
}

#[test]
fn a_missing_blob_is_found_by_the_records_that_name_it() {
    let f = fixture();
    fs::remove_file(f.blob(2, "w")).unwrap();
    let report = f.verify(false);
    let why = "it is missing".to_owned();
    assert_eq!(summary(&report), [(DamagedThing::Blob, why, vec![key(3)])]);
    assert!(f.verify(true).ok());
    assert!(!f.store.record_file(&key(3)).exists());
    assert_eq!(f.verify(false).damage, []);
}

#[test]
fn a_folder_in_the_place_of_a_blob_is_found_and_removed() {
    let f = fixture();
    let blob = f.blob(2, "w");
    fs::remove_file(&blob).unwrap();
    fs::create_dir(&blob).unwrap();
    let why = "it is not a file".to_owned();
    assert_eq!(
        summary(&f.verify(true)),
        [(DamagedThing::Blob, why, vec![key(3)])]
    );
    assert!(!blob.exists());
    assert_eq!(f.hits(), [1, 2]);
}

#[test]
fn a_damaged_record_is_found_and_forgotten() {
    let f = fixture();
    let path = f.store.record_file(&key(1));
    fs::write(&path, "{").unwrap();
    let report = f.verify(false);
    assert_eq!(report.damage[0].what, DamagedThing::Record);
    let touched = &report.damage[0].touches[0];
    assert_eq!(
        touched.stage.as_deref(),
        Some("as-reported"),
        "the run knew which stage it was"
    );
    assert_eq!(touched.pipelines[0].name, "user");
    assert!(f.verify(true).ok());
    assert!(!path.exists());
    assert_eq!(f.hits(), [2, 3]);
}

#[test]
fn a_record_whose_preimage_has_another_key_is_damaged() {
    let f = fixture();
    let path = f.store.record_file(&key(2));
    let mut record = f.store.lookup(&key(2)).unwrap();
    for (preimage, expected) in [
        (
            json!({ "is": key(9) }),
            "its fingerprint has another key (090909090909)",
        ),
        (json!({}), "its preimage is not a fingerprint"),
    ] {
        record.preimage = preimage;
        f.store.put(&record).unwrap();
        assert_eq!(f.verify(false).damage[0].why, expected);
    }
    assert!(f.verify(true).ok());
    assert!(!path.exists());
}

#[test]
fn a_changed_list_of_files_is_found() {
    let f = fixture();
    let path = f.store.record_file(&key(3));
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("\"w\"", "\"v\"");
    assert_ne!(changed, text);
    fs::write(&path, changed).unwrap();
    let report = f.verify(false);
    assert_eq!(report.damage[0].what, DamagedThing::Record);
    assert_eq!(report.damage[0].path, path);
}

#[test]
fn a_broken_tree_of_sound_blobs_is_laid_out_again() {
    let f = fixture();
    let folder = f.store.tree_path(&f.trees[0].hash);
    let break_it: [(&dyn Fn(), &str); 4] = [
        (
            &|| fs::remove_file(folder.join("w")).unwrap(),
            "`w` is missing",
        ),
        (
            &|| fs::write(folder.join("x"), "").unwrap(),
            "`x` does not belong there",
        ),
        (
            &|| {
                fs::remove_file(folder.join("w")).unwrap();
                fs::write(folder.join("w"), "Weights").unwrap();
            },
            "`w` was changed",
        ),
        (
            &|| std::os::unix::fs::symlink("w", folder.join("link")).unwrap(),
            "link is a symbolic link: only plain files and folders can be hashed and kept",
        ),
    ];
    for (break_it, expected) in break_it {
        break_it();
        let report = f.verify(false);
        assert!(report.damage[0].why.ends_with(expected), "{report:?}");
        assert_eq!(report.damage[0].touches[0].key, key(1));
        let report = f.verify(true);
        assert_eq!(report.damage[0].repaired, Some(Repair::LaidOutAgain));
        assert_eq!(fs::read(folder.join("w")).unwrap(), b"weights");
        assert_eq!(f.verify(false).damage, []);
        assert_eq!(f.hits(), [1, 2, 3]);
    }
}

#[test]
fn a_copy_in_a_tree_is_read_as_well() {
    let f = fixture();
    let file = f.store.tree_path(&f.trees[0].hash).join("w");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "weights").unwrap();
    assert_eq!(f.verify(false).damage, []);
}

#[test]
fn a_broken_tree_that_no_record_names_is_removed() {
    let f = fixture();
    let folder = f.store.root().join("trees").join("0".repeat(64));
    fs::create_dir(&folder).unwrap();
    let report = f.verify(true);
    assert_eq!(report.damage[0].touches, []);
    assert_eq!(report.damage[0].repaired, Some(Repair::Removed));
    assert!(!folder.exists());
}

#[test]
fn records_of_other_formats_are_counted_not_judged() {
    let f = fixture();
    let other = json!({ "format": 1 }).to_string();
    fs::write(f.store.record_file(&key(3)), other).unwrap();
    let report = f.verify(true);
    assert_eq!(
        (report.records_of_other_formats, report.damage.len()),
        (1, 0)
    );
}

#[test]
fn a_flipped_bit_anywhere_in_a_record_is_found() {
    let f = fixture();
    let path = f.store.record_file(&key(1));
    let sound = fs::read(&path).unwrap();
    let format = sound.windows(9).position(|w| w == b"\"format\":").unwrap() + 9;
    // Also where it makes the format a newer one.
    for at in (0..sound.len()).step_by(11).chain([format]) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let report = f.verify(false);
        assert_eq!(report.damage.len(), 1, "byte {at}");
        assert_eq!(report.damage[0].what, DamagedThing::Record);
        assert_eq!(report.damage[0].touches[0].pipelines[0].name, "user");
    }
    fs::write(&path, sound).unwrap();
    assert!(f.verify(false).ok());
}

#[test]
fn a_broken_part_of_a_result_goes_and_touches_nothing() {
    let f = fixture();
    let dir = f.store.partial_dir("rollout");
    let scratch = f.store.job_dir("test").unwrap();
    let partials = Partials::new(&dir, &scratch.scratch());
    for n in [1, 2, 3] {
        partials.put(&key(n), b"a part").unwrap();
    }
    let path = |n: u8| {
        let hex = key(n).to_string();
        dir.join(&hex[..2]).join(format!("{hex}.json"))
    };
    assert_eq!(
        (f.verify(false).damage, f.verify(false).partials),
        (vec![], 3)
    );
    let length = fs::metadata(path(2)).unwrap().len();
    flip(&path(2), length as usize - 1);
    // One of a newer Genius is none of ours to judge.
    let newer = fs::read_to_string(path(3)).unwrap();
    fs::write(path(3), newer.replace("\"format\":1", "\"format\":2")).unwrap();
    let what = "its content has another hash".to_owned();
    let report = f.verify(false);
    assert_eq!(summary(&report), [(DamagedThing::Partial, what, vec![])]);
    assert!(!report.ok());
    let report = f.verify(true);
    assert_eq!(report.damage[0].repaired, Some(Repair::Removed));
    assert!(report.ok() && report.forgotten.is_empty());
    assert!(path(1).exists() && !path(2).exists() && path(3).exists());
}
