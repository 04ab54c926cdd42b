//! The cache on a real file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    (dir, store)
}

/// Ingests files given as (path, content).
fn ingest(store: &Store, files: &[(&str, &str)]) -> Tree {
    let job = store.job_dir("test").unwrap();
    for (path, content) in files {
        let path = job.output().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    store.ingest_whole(&job).unwrap()
}

fn record(key: u8, tree: &Tree) -> Record {
    Record {
        format: RECORD_FORMAT,
        key: Key::from_bytes([key; 32]),
        kind: "train".to_owned(),
        preimage: json!({ "with": { "learning_rate": 5e-7 } }),
        outputs: BTreeMap::from([("model".to_owned(), tree.clone())]),
        figures: json!([{ "name": "loss", "value": 0.69, "unit": "nats" }]),
        provenance: json!({ "host": "here" }),
    }
}

fn blob(store: &Store, hash: &ContentHash) -> PathBuf {
    let hex = hash.to_string();
    store.root().join("blobs").join(&hex[..2]).join(hex)
}

fn record_file(store: &Store, key: &Key) -> PathBuf {
    let hex = key.to_string();
    store
        .root()
        .join("records")
        .join(&hex[..2])
        .join(format!("{hex}.json"))
}

/// Replaces a read-only file behind the cache's back.
fn tamper(path: &Path, content: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

// ---- the folder ----

#[test]
fn a_new_cache_is_tagged_and_ignored_by_git() {
    let (_dir, store) = store();
    let read = |name| fs::read_to_string(store.root().join(name)).unwrap();
    assert!(read("CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    assert_eq!(read(".gitignore"), "*\n");
    assert_eq!(read("format.json"), "{\"format\":1}\n");
    Store::open(store.root()).unwrap();
}

#[test]
fn a_newer_cache_is_refused() {
    let (_dir, store) = store();
    fs::write(store.root().join("format.json"), "{\"format\": 2}").unwrap();
    let error = Store::open(store.root()).unwrap_err().to_string();
    let error = error.replace(&store.root().display().to_string(), "ROOT");
    insta::assert_snapshot!(error, @"the cache ROOT has format 2, and this Genius knows formats up to 1: use a newer Genius, or another cache folder");
}

#[test]
fn somebodys_folder_does_not_become_a_cache() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    let error = error.replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(error, @"DIR is not empty and not a cache of Genius (it holds thesis.tex and no format.json): name another cache folder");
    assert!(!dir.path().join(".gitignore").exists());
}

#[test]
fn an_interrupted_creation_is_taken_up_again() {
    let (_dir, store) = store();
    fs::remove_file(store.root().join("format.json")).unwrap();
    Store::open(store.root()).unwrap();
    assert!(store.root().join("format.json").exists());
}

/// As root no permission stands in the way, so a file in place of the folder does.
#[test]
fn a_cache_that_cannot_be_written_still_answers() {
    let (_dir, store) = store();
    let record = record(1, &ingest(&store, &[("w", "weights")]));
    store.put(&record).unwrap();
    store.materialise(&record.outputs["model"]).unwrap();
    fs::remove_dir_all(store.root().join("tmp")).unwrap();
    fs::write(store.root().join("tmp"), "").unwrap();

    let store = Store::open(store.root()).unwrap();
    assert_eq!(store.lookup(&record.key), Some(record.clone()));
    store.materialise(&record.outputs["model"]).unwrap();
    assert!(matches!(store.job_dir("t"), Err(StoreError::Io { .. })));
    assert!(matches!(store.put(&record), Err(StoreError::Io { .. })));
}

#[test]
fn the_file_system_says_how_much_is_free() {
    assert!(store().1.free_bytes().unwrap() > 0);
}

// ---- hashes ----

#[test]
fn hashes_read_back_from_their_hex() {
    let hash = ContentHash::of(b"");
    assert_eq!(
        hash.to_string(),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    );
    assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
    assert_eq!(
        serde_json::from_value::<ContentHash>(json!(hash)).unwrap(),
        hash
    );
    assert!("af13".parse::<Key>().is_err());
}

/// Golden: a change here renames every tree in everyone's cache, so every stage
/// runs again once. If that is meant, raise the version in `TREE_DOMAIN` and in
/// its history; if not, undo what changed the encoding.
#[test]
fn the_encoding_of_trees_has_not_changed() {
    let file = |path: &str, content: &str| TreeFile {
        path: path.to_owned(),
        hash: ContentHash::of(content.as_bytes()),
        bytes: content.len() as u64,
        executable: false,
    };
    insta::assert_snapshot!(Tree::new(vec![]).hash, @"8eecd4e3703e793e82db34f9d7beba125bfc485ed324f8f90c4889c5ee931772");
    insta::assert_snapshot!(Tree::new(vec![file("b/c.txt", "two"), file("a.txt", "one")]).hash, @"c44187a29930490345c95bbac0858966c3abbd77277fac8a50dcacb0a6c610a6");
    let mut tool = file("a.txt", "one");
    tool.executable = true;
    insta::assert_snapshot!(Tree::new(vec![tool, file("b/c.txt", "two")]).hash, @"aeaf1ae48f7676791d7a0f0b76291fcb23cea1533d0b4d3e7cd6b716f3bb48da");
}

#[test]
fn a_folder_hashes_by_names_and_content_only() {
    let dir = TempDir::new().unwrap();
    let write = |path: &str, content: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("m/config.json", "{}");
    write("m/sub/w.bin", "w");
    let first = hash_path(&dir.path().join("m")).unwrap();

    write("m/.git/HEAD", "x");
    write("m/.cache/huggingface/y", "y");
    fs::create_dir(dir.path().join("m/empty")).unwrap();
    assert_eq!(
        hash_path(&dir.path().join("m")).unwrap(),
        first,
        ".git, .cache and empty folders do not count"
    );

    fs::rename(dir.path().join("m"), dir.path().join("n")).unwrap();
    assert_eq!(
        hash_path(&dir.path().join("n")).unwrap(),
        first,
        "where it lies does not count"
    );

    write("n/.hidden", "");
    assert_ne!(
        hash_path(&dir.path().join("n")).unwrap(),
        first,
        "hidden files count"
    );
}

#[test]
fn a_file_hashes_to_its_blake3_however_large() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f");
    for size in [0, 1, 16 * 1024 + 1, 3 << 20] {
        let content: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        assert_eq!(
            hash_path(&path).unwrap(),
            ContentHash::of(&content),
            "{size} bytes"
        );
    }
}

#[test]
fn links_of_an_input_are_followed_and_loops_refused() {
    let dir = TempDir::new().unwrap();
    let at = |p: &str| dir.path().join(p);
    fs::create_dir_all(at("blobs")).unwrap();
    fs::create_dir_all(at("snapshot")).unwrap();
    fs::create_dir_all(at("plain")).unwrap();
    fs::write(at("blobs/1"), "w").unwrap();
    fs::write(at("plain/w.bin"), "w").unwrap();
    std::os::unix::fs::symlink(at("blobs/1"), at("snapshot/w.bin")).unwrap();
    assert_eq!(
        hash_path(&at("snapshot")).unwrap(),
        hash_path(&at("plain")).unwrap()
    );

    std::os::unix::fs::symlink(at("plain"), at("plain/again")).unwrap();
    assert!(matches!(
        hash_path(&at("plain")),
        Err(StoreError::LinkLoop { .. })
    ));
}

// ---- ingest ----

#[test]
fn what_is_ingested_is_read_only_and_stored_once() {
    let (_dir, store) = store();
    let tree = ingest(
        &store,
        &[("b.txt", "same"), ("a/c.txt", "same"), ("d.txt", "other")],
    );
    let paths: Vec<_> = tree.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["a/c.txt", "b.txt", "d.txt"]);
    assert_eq!(tree.files[0].hash, tree.files[1].hash);
    assert_eq!(tree.bytes(), 13);
    for file in &tree.files {
        let metadata = fs::metadata(blob(&store, &file.hash)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o444);
        assert_eq!(hash_path(&blob(&store, &file.hash)).unwrap(), file.hash);
    }
    assert_eq!(
        ingest(
            &store,
            &[("d.txt", "other"), ("b.txt", "same"), ("a/c.txt", "same")]
        ),
        tree
    );
}

#[test]
fn links_and_pipes_are_refused_by_name() {
    let (_dir, store) = store();
    let job = store.job_dir("t").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", job.output().join("leak")).unwrap();
    let error = store.ingest_whole(&job).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "leak is a symbolic link: only plain files and folders can be hashed and kept"
        ),
        "{error}"
    );

    let job = store.job_dir("t").unwrap();
    nix::unistd::mkfifo(&job.output().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        store
            .ingest_whole(&job)
            .unwrap_err()
            .to_string()
            .contains("pipe is a pipe")
    );
}

#[test]
fn a_file_with_a_second_name_is_copied() {
    let (dir, store) = store();
    let mine = dir.path().join("mine.txt");
    fs::write(&mine, "mine").unwrap();
    let job = store.job_dir("t").unwrap();
    fs::hard_link(&mine, job.output().join("out.txt")).unwrap();
    let tree = store.ingest_whole(&job).unwrap();
    fs::write(&mine, "changed").unwrap();
    assert_eq!(
        fs::read(blob(&store, &tree.files[0].hash)).unwrap(),
        b"mine"
    );
}

// ---- records ----

#[test]
fn a_record_is_found_again_whole() {
    let (_dir, store) = store();
    let record = record(1, &ingest(&store, &[("w", "weights")]));
    assert_eq!(store.lookup(&record.key), None);
    store.put(&record).unwrap();
    assert_eq!(store.lookup(&record.key), Some(record.clone()));
    assert_eq!(store.lookup(&Key::from_bytes([2; 32])), None);
    assert_eq!(
        fs::read_dir(store.root().join("tmp")).unwrap().count(),
        0,
        "nothing temporary stays"
    );
}

#[test]
fn a_record_never_names_blobs_that_are_not_there() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights")]);
    fs::remove_file(blob(&store, &tree.files[0].hash)).unwrap();
    assert!(store.put(&record(1, &tree)).unwrap_err().is_damage());
}

#[test]
fn whatever_is_damaged_is_a_miss() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights"), ("v", "more")]);
    let good = record(1, &tree);
    let path = record_file(&store, &good.key);
    let text = |record: &Record| record::encode(record).unwrap();
    let renamed = |name: &str| {
        let mut bad = good.clone();
        bad.outputs.get_mut("model").unwrap().files[0].path = name.to_owned();
        bad
    };
    let leading_out = Tree::new(renamed("../../w").outputs["model"].files.clone());
    let cases = [
        ("empty", vec![]),
        ("cut", text(&good)[..100].to_vec()),
        ("not UTF-8", vec![0xff; 64]),
        (
            "of another format",
            text(&Record {
                format: RECORD_FORMAT + 1,
                ..good.clone()
            }),
        ),
        ("under another key", text(&record(9, &tree))),
        ("with a file renamed", text(&renamed("x"))),
        ("with a path that leads out", text(&record(1, &leading_out))),
    ];
    for (what, bytes) in cases {
        store.put(&good).unwrap();
        assert!(store.lookup(&good.key).is_some());
        tamper(&path, &bytes);
        assert_eq!(store.lookup(&good.key), None, "a record {what}");
    }
    store.put(&good).unwrap();
    assert!(
        store.lookup(&good.key).is_some(),
        "writing it again mends it"
    );
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(store.lookup(&good.key), None, "a folder in its place");
}

#[test]
fn a_record_with_any_flipped_byte_is_never_a_hit() {
    let (_dir, store) = store();
    let good = record(1, &ingest(&store, &[("w", "weights")]));
    store.put(&good).unwrap();
    let path = record_file(&store, &good.key);
    let bytes = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    for at in 0..bytes.len() {
        // One bit (0x20 turns `e` of a number into `E`: the same value), or all.
        for flip in [0x01, 0x20, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            fs::write(&path, &damaged).unwrap();
            let found = store.lookup_state(&good.key);
            assert!(!matches!(found, Lookup::Hit(_)), "byte {at} ^ {flip:#x}");
        }
    }
    fs::write(&path, &bytes).unwrap();
    assert_eq!(store.lookup_state(&good.key), Lookup::Hit(good));
}

#[test]
fn why_a_record_is_a_miss_is_said() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights")]);
    let good = record(1, &tree);
    let path = record_file(&store, &good.key);
    store.put(&good).unwrap();
    let why = |bytes: &[u8]| {
        tamper(&path, bytes);
        match store.lookup_state(&good.key) {
            Lookup::Damaged(why) => why,
            other => format!("{other:?}"),
        }
    };
    let text = |record: &Record| record::encode(record).unwrap();
    let whole = text(&good);

    insta::assert_snapshot!(why(&whole[..100]), @"the record does not match its checksum");
    insta::assert_snapshot!(why(&text(&record(9, &tree))), @"the record is one of another key");
    let mut renamed = good.clone();
    renamed.outputs.get_mut("model").unwrap().files[0].path = "x".to_owned();
    insta::assert_snapshot!(why(&text(&renamed)), @"the record's list of files does not match its hash");

    // Nothing is wrong with what another Genius wrote.
    let newer = Record {
        format: RECORD_FORMAT + 1,
        ..good.clone()
    };
    insta::assert_snapshot!(why(&text(&newer)), @"Absent");
    let mut first = serde_json::to_value(&good).unwrap();
    first["format"] = json!(1);
    insta::assert_snapshot!(why(&serde_json::to_vec_pretty(&first).unwrap()), @"Absent");

    let blob = blob(&store, &tree.files[0].hash);
    tamper(&blob, b"weight");
    insta::assert_snapshot!(why(&whole), @"the content of w of output `model` is damaged: 6 bytes instead of 7");
    fs::remove_file(&blob).unwrap();
    let Lookup::Damaged(missing) = store.lookup_state(&good.key) else {
        panic!("a blob is missing");
    };
    insta::assert_snapshot!(missing, @"the content of w of output `model` is damaged: it is missing");
}

#[test]
fn a_record_of_format_3_is_used() {
    let (_dir, store) = store();
    let good = record(1, &ingest(&store, &[("w", "weights")]));
    store.put(&good).unwrap();
    let older = Record {
        format: 3,
        figures: json!([["loss", 0.69]]),
        ..good.clone()
    };
    let text = serde_json::to_string(&older).unwrap();
    let text = text.replace("\"figures\":", "\"summary\":");
    let checksum = ContentHash::of(text.as_bytes());
    let text = format!(
        "{},\"checksum\":\"{checksum}\"}}\n",
        text.strip_suffix('}').unwrap()
    );
    fs::write(store.record_file(&good.key), text).unwrap();
    assert_eq!(store.lookup(&good.key), Some(older));
}

#[test]
fn a_blob_missing_or_of_another_size_is_a_miss() {
    let (_dir, store) = store();
    let good = record(1, &ingest(&store, &[("w", "weights")]));
    store.put(&good).unwrap();
    let blob = blob(&store, &good.outputs["model"].files[0].hash);
    tamper(&blob, b"weight");
    assert_eq!(store.lookup(&good.key), None);
    ingest(&store, &[("w", "weights")]);
    assert!(
        store.lookup(&good.key).is_some(),
        "computing the stage again mends the blob"
    );
    fs::remove_file(&blob).unwrap();
    assert_eq!(store.lookup(&good.key), None);
}

// ---- trees ----

#[test]
fn a_materialised_tree_is_a_folder_of_links_made_once() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("a/w", "weights"), ("c.json", "{}")]);
    let folder = store.materialise(&tree).unwrap();
    assert_eq!(fs::read_to_string(folder.join("a/w")).unwrap(), "weights");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let plain = store.root().join("plain");
    fs::create_dir(&plain).unwrap();
    assert_eq!(mode(&folder), mode(&plain), "others may read it too");
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(folder.join("a/w")),
        inode(blob(&store, &tree.files[0].hash))
    );
    let made = inode(folder.clone());
    assert_eq!(store.materialise(&tree).unwrap(), folder);
    assert_eq!(inode(folder.clone()), made);
    assert_eq!(hash_path(&folder).unwrap(), tree.hash);

    fs::remove_file(folder.join("c.json")).unwrap();
    store.materialise(&tree).unwrap();
    assert_eq!(
        fs::read_to_string(folder.join("c.json")).unwrap(),
        "{}",
        "an incomplete one is made again"
    );
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_empty_output_is_a_tree_too() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[]);
    assert!(store.materialise(&tree).unwrap().is_dir());
}

#[test]
fn damage_goes_no_further_and_is_mended_by_computing_again() {
    let (_dir, store) = store();
    let good = record(1, &ingest(&store, &[("w", "weights")]));
    store.put(&good).unwrap();
    let tree = &good.outputs["model"];
    tamper(&blob(&store, &tree.files[0].hash), b"wEights");
    assert!(
        store.lookup(&good.key).is_some(),
        "a flipped bit is not seen at a glance"
    );

    let error = store.materialise(tree).unwrap_err();
    assert!(error.is_damage());
    assert!(error.to_string().contains(&tree.files[0].hash.to_string()));
    assert_eq!(store.lookup(&good.key), None, "from now on it is");

    assert_eq!(&ingest(&store, &[("w", "weights")]), tree);
    store.materialise(tree).unwrap();
}

/// A tree whose files are not its blobs any more: an editor that writes a new
/// file and renames it, a restored backup.
#[test]
fn a_laid_out_folder_that_is_not_its_blobs_is_laid_out_again() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("a/w", "weights"), ("v", "more")]);
    let folder = store.materialise(&tree).unwrap();
    let replace = |content: &str| {
        fs::write(folder.join("new"), content).unwrap();
        fs::rename(folder.join("new"), folder.join("a/w")).unwrap();
    };
    replace("wEights");
    assert_eq!(store.laid_out(&tree), Some(folder.clone()), "sizes agree");
    store.materialise(&tree).unwrap();
    assert_eq!(fs::read_to_string(folder.join("a/w")).unwrap(), "weights");

    let inode = || fs::metadata(&folder).unwrap().ino();
    replace("weights");
    let made = inode();
    store.materialise(&tree).unwrap();
    assert_eq!(inode(), made, "a true copy is as good as a link");

    fs::write(folder.join("stray"), "").unwrap();
    store.materialise(&tree).unwrap();
    assert!(!folder.join("stray").exists(), "a file too many");
    fs::remove_file(folder.join("v")).unwrap();
    assert_eq!(store.laid_out(&tree), None);
}

/// The blob and the file in the tree are one file, damaged at the same size
/// after the tree was laid out.
#[test]
fn damage_after_laying_out_is_found_too() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights")]);
    let folder = store.materialise(&tree).unwrap();
    tamper(&folder.join("w"), b"wEights");
    assert!(store.materialise(&tree).unwrap_err().is_damage());
    assert!(!folder.exists() && !blob(&store, &tree.files[0].hash).exists());
    assert_eq!(store.laid_out(&tree), None);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_blob_that_is_stored_again_counts_as_new() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights")]);
    let blob = blob(&store, &tree.files[0].hash);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000_000);
    fs::File::open(&blob)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    ingest(&store, &[("w", "weights")]);
    let age = fs::metadata(&blob).unwrap().modified().unwrap().elapsed();
    assert!(age.unwrap_or_default().as_secs() < 1000);
}

#[test]
fn a_damaged_blob_is_not_reused_by_ingest() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights")]);
    let blob = blob(&store, &tree.files[0].hash);
    tamper(&blob, b"wEights");
    ingest(&store, &[("w", "weights")]);
    assert_eq!(fs::read(blob).unwrap(), b"weights");
}

#[test]
fn many_threads_may_write_the_same_things() {
    let (_dir, store) = store();
    let files: Vec<(String, String)> = (0..20)
        .map(|i| (format!("f{i}"), format!("content {}", i % 7)))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(p, c)| (p.as_str(), c.as_str()))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let tree = ingest(&store, &files);
                let record = record(1, &tree);
                store.put(&record).unwrap();
                let folder = store.materialise(&tree).unwrap();
                assert_eq!(hash_path(&folder).unwrap(), tree.hash);
                assert_eq!(store.lookup(&record.key), Some(record));
            });
        }
    });
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

/// Several find one damage at the same moment while another makes the file again:
/// each finds damage or sound content, and a folder that was laid out soundly stays.
#[test]
fn damage_that_many_find_at_once_is_damage_to_each() {
    let (_dir, store) = store();
    let tree = ingest(&store, &[("w", "weights")]);
    let folder = store.tree_path(&tree.hash);
    for round in 0..100 {
        store.materialise(&tree).unwrap();
        tamper(&folder.join("w"), b"wEights");
        let start = std::sync::Barrier::new(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    loop {
                        match store.materialise(&tree) {
                            Ok(laid) => {
                                let read = |_| fs::read_to_string(laid.join("w")).unwrap();
                                assert!((0..20).all(|i| read(i) == "weights"), "{round}");
                                break;
                            }
                            Err(e) => assert!(e.is_damage(), "{round}: {e}"),
                        }
                    }
                });
            }
            start.wait();
            while store.materialise(&tree).is_err() {
                ingest(&store, &[("w", "weights")]);
            }
        });
    }
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

// ---- job folders ----

#[test]
fn a_job_folder_goes_when_dropped_unless_kept() {
    let (_dir, store) = store();
    let job = store.job_dir("roll/out ü").unwrap();
    let path = job.path().to_owned();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(
        name.starts_with(&format!("roll_out__-{}-", std::process::id())),
        "{name}"
    );
    assert!(job.output().is_dir() && job.scratch().is_dir());
    drop(job);
    assert!(!path.exists());
    let kept = store.job_dir("a").unwrap().keep();
    assert!(kept.is_dir());
}

#[test]
fn only_what_dead_processes_left_is_cleaned() {
    let (_dir, store) = store();
    let living = store.job_dir("living").unwrap();
    let orphan = |owner: &str| {
        let path = store.job_dir("orphan").unwrap().keep();
        fs::write(path.join("owner.json"), owner).unwrap();
        path
    };
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let mut owner = json!(process::Process::this());
    owner["pid"] = json!(pid);
    let dead = orphan(&owner.to_string());
    // Of a container or machine of the same name nothing is known.
    owner["boot_id"] = json!("another");
    let elsewhere = orphan(&owner.to_string());
    let unowned_new = orphan("");
    let unowned_old = store.root().join("tmp/.tmp-1-abc");
    let file = fs::File::create(&unowned_old).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 3600))
        .unwrap();

    assert_eq!(store.clean_tmp().unwrap(), 2);
    assert!(living.path().exists() && elsewhere.exists() && unowned_new.exists());
    assert!(!dead.exists() && !unowned_old.exists());
}
