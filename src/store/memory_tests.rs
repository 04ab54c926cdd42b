//! What is remembered of files outside the cache, and what is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

/// A cache, and a folder beside it.
struct Setup {
    dir: TempDir,
    store: Store,
}

impl Setup {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        Self { dir, store }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join("in").join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn saved(&self) -> String {
        fs::read_to_string(self.store.root().join("hashes.json")).unwrap_or_default()
    }

    /// Replaces the hash that is remembered of the only file, with a checksum
    /// that is right: so that a test sees whether it is believed.
    fn plant(&self, hash: ContentHash) {
        let mut file: serde_json::Value = serde_json::from_str(&self.saved()).unwrap();
        file["entries"][0]["hash"] = serde_json::json!(hash);
        file["checksum"] =
            serde_json::json!(ContentHash::of(file["entries"].to_string().as_bytes()));
        fs::write(self.store.root().join("hashes.json"), file.to_string()).unwrap();
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn settle() {
    std::thread::sleep(Duration::from_millis(3050));
}

/// One test for all that needs a file that was left alone for three seconds.
#[test]
fn a_settled_file_is_remembered_until_anything_about_it_changes() {
    let setup = Setup::new();
    let path = setup.write("model.bin", "first");
    let folder = path.parent().unwrap();
    let first = ContentHash::of(b"first");
    settle();
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();

    let memory = setup.store.hash_memory();
    assert_eq!(memory.hash_path(&path).unwrap(), first);
    memory.save();
    let planted = ContentHash::of(b"planted");
    setup.plant(planted);
    let memory = setup.store.hash_memory();
    assert_eq!(memory.hash_path(&path).unwrap(), planted, "not read again");
    let believed = memory.hash_path(folder).unwrap();
    assert_ne!(believed, hash_path(folder).unwrap(), "nor in its folder");

    // A flipped bit anywhere, and all is forgotten.
    let saved = setup.saved().into_bytes();
    for at in 0..saved.len() {
        let mut damaged = saved.clone();
        damaged[at] ^= 1;
        fs::write(setup.store.root().join("hashes.json"), damaged).unwrap();
        let found = setup.store.hash_memory().hash_path(&path).unwrap();
        assert_eq!(found, first, "byte {at}");
    }
    fs::write(setup.store.root().join("hashes.json"), &saved).unwrap();
    assert_eq!(setup.store.hash_memory().hash_path(&path).unwrap(), planted);

    // The same size, and the same time of change: set back.
    setup.write("model.bin", "other");
    set_modified(&path, mtime);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), mtime);
    let memory = setup.store.hash_memory();
    assert_eq!(memory.hash_path(&path).unwrap(), ContentHash::of(b"other"));
    memory.save();

    // Another file under its name.
    let other = setup.write("new", "third");
    set_modified(&other, mtime);
    fs::rename(&other, &path).unwrap();
    assert_eq!(memory.hash_path(&path).unwrap(), ContentHash::of(b"third"));
}

#[test]
fn a_file_that_changed_just_now_is_never_remembered() {
    let setup = Setup::new();
    let path = setup.write("queries.jsonl", "first");
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    let memory = setup.store.hash_memory();
    memory.hash_path(&path).unwrap();
    memory.save();
    assert_eq!(setup.saved(), "", "written just now");
    // The time of change can be set, that of the inode cannot.
    set_modified(&path, long_ago);
    memory.hash_path(&path).unwrap();
    memory.save();
    assert_eq!(setup.saved(), "", "its time set back just now");
    set_modified(&path, SystemTime::now() + Duration::from_secs(1000));
    memory.hash_path(&path).unwrap();
    memory.save();
    assert_eq!(setup.saved(), "", "from the future");
}

#[test]
fn what_is_gone_is_dropped_and_what_others_wrote_is_kept() {
    let setup = Setup::new();
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| setup.write(name, name));
    settle();
    let (one, two) = (setup.store.hash_memory(), setup.store.hash_memory());
    one.hash_path(&a).unwrap();
    one.hash_path(&c).unwrap();
    two.hash_path(&b).unwrap();
    one.save();
    two.save();
    let names = || {
        let file: serde_json::Value = serde_json::from_str(&setup.saved()).unwrap();
        let entries = file["entries"].as_array().unwrap().clone();
        entries
            .iter()
            .map(|e| {
                e["path"]
                    .as_str()
                    .unwrap()
                    .rsplit('/')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), ["a", "b", "c"]);

    fs::remove_file(&c).unwrap();
    let memory = setup.store.hash_memory();
    memory.save();
    assert_eq!(names(), ["a", "b", "c"], "nothing new, nothing written");
    memory.hash_path(&d).unwrap();
    memory.save();
    assert_eq!(names(), ["a", "b", "d"]);

    // Not used for 90 days.
    let mut file: serde_json::Value = serde_json::from_str(&setup.saved()).unwrap();
    file["entries"][1]["used"] = serde_json::json!(1_600_000_000);
    file["checksum"] = serde_json::json!(ContentHash::of(file["entries"].to_string().as_bytes()));
    fs::write(setup.store.root().join("hashes.json"), file.to_string()).unwrap();
    let memory = setup.store.hash_memory();
    memory.hash_path(&e).unwrap();
    memory.save();
    assert_eq!(names(), ["a", "d", "e"]);
}

#[test]
fn what_is_no_file_is_refused_and_an_unwritable_cache_ignored() {
    let setup = Setup::new();
    let memory = setup.store.hash_memory();
    assert!(memory.hash_path(&setup.dir.path().join("none")).is_err());
    let special = memory.hash_path(Path::new("/dev/null")).unwrap_err();
    assert!(matches!(special, StoreError::NotAFile { .. }));

    let path = PathBuf::from("Cargo.toml");
    fs::remove_dir_all(setup.store.root().join("tmp")).unwrap();
    assert_eq!(memory.hash_path(&path).unwrap(), hash_path(&path).unwrap());
    memory.save();
    assert_eq!(setup.saved(), "");
}
