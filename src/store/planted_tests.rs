//! What somebody who may write to a shared cache puts in the place of its files and
//! folders: nothing outside is written, moved or removed, and nothing waits for ever.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::testing::read_run;
use super::*;

const TIMES: Times = Times {
    beat: Duration::from_millis(10),
    stale: Duration::from_secs(60),
};
const KEY: Key = Key::from_bytes([7; 32]);

/// A cache, and a folder of the one who uses it.
struct Fixture {
    dir: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("cache"))
            .unwrap()
            .reading_runs(read_run);
        fs::create_dir(dir.path().join("mine")).unwrap();
        for name in ["notes", "lease.json", "train.log"] {
            let path = dir.path().join("mine").join(name);
            fs::write(&path, name).unwrap();
            // Old enough for whoever cleans up.
            let file = fs::File::options().write(true).open(&path).unwrap();
            let old = SystemTime::now() - Duration::from_secs(90 * 24 * 3600);
            file.set_modified(old).unwrap();
        }
        Self { dir, store }
    }

    fn mine(&self) -> PathBuf {
        self.dir.path().join("mine")
    }

    /// Nothing of the folder is other than it was.
    #[track_caller]
    fn is_untouched(&self) {
        let mut names: Vec<String> = fs::read_dir(self.mine())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["lease.json", "notes", "train.log"]);
        for name in names {
            let path = self.mine().join(&name);
            assert_eq!(fs::read_to_string(&path).unwrap(), name);
            assert_eq!(fs::metadata(&path).unwrap().nlink(), 1, "{name}");
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.store.root().join(path)
    }
}

/// Ends the test if that does not end.
#[track_caller]
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver
        .recv_timeout(Duration::from_secs(300))
        .expect("it ends")
}

/// Puts something else than a file of its own at a path; gives what it is.
fn plant(kind: &str, path: &Path, victim: &Path) {
    match kind {
        "link" => symlink(victim, path).unwrap(),
        "dangling" => symlink(victim.with_file_name("not-there"), path).unwrap(),
        "folder link" => symlink(victim.parent().unwrap(), path).unwrap(),
        "pipe" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "folder" => fs::create_dir(path).unwrap(),
        _ => fs::hard_link(victim, path).unwrap(),
    }
}

const NO_FILES: [&str; 5] = ["link", "dangling", "folder link", "pipe", "folder"];

#[test]
fn a_link_in_the_place_of_a_folder_is_refused() {
    for folder in [
        "tmp", "runs", "claims", "blobs", "records", "trees", "partial",
    ] {
        let f = Fixture::new();
        let _ = fs::remove_dir_all(f.at(folder));
        symlink(f.mine(), f.at(folder)).unwrap();
        let error = Store::open(f.store.root()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("cache/{folder} is a symbolic link")),
            "{error}"
        );
        assert!(error.contains("remove the link"), "{error}");
        // By someone who had the cache open before.
        let _ = f.store.clean_tmp();
        let _ = f.store.clean_claims(&TIMES);
        if let Ok(lease) = f.store.begin_run(&TIMES) {
            let _ = f.store.claim(&KEY, &lease, "train");
        }
        if let Ok(job) = f.store.job_dir("test")
            && folder != "tmp"
        {
            fs::write(job.output().join("w"), "weights").unwrap();
            if let Ok(tree) = f.store.ingest_whole(&job) {
                let _ = f.store.materialise(&tree);
            }
        }
        if let Ok(plan) = f.store.plan_gc(&GcOptions::default()) {
            let _ = f.store.apply_gc(&plan, &mut |_| {});
        }
        f.is_untouched();
    }
}

#[test]
fn a_run_writes_to_its_own_folder_wherever_it_is() {
    let f = Fixture::new();
    let lease = f.store.begin_run(&TIMES).unwrap();
    let log = lease.folder().log("train");
    log.append().unwrap().write_all(b"one\n").unwrap();
    // Somebody takes the folder away, and puts a link to mine in its place.
    let away = f.at("runs/.away");
    fs::rename(lease.dir(), &away).unwrap();
    symlink(f.mine(), lease.dir()).unwrap();
    log.append().unwrap().write_all(b"two\n").unwrap();
    lease.folder().create("events.jsonl").unwrap();
    lease.folder().write("run.json", b"{}").unwrap();
    lease.uses(&KEY).unwrap();
    std::thread::sleep(TIMES.beat * 10);
    let dir = lease.dir().to_owned();
    drop(lease);
    f.is_untouched();
    assert_eq!(fs::read(away.join("train.log")).unwrap(), b"one\ntwo\n");
    assert!(away.join("events.jsonl").exists() && away.join("run.json").exists());
    assert!(fs::symlink_metadata(dir).unwrap().is_symlink());
}

#[test]
fn what_stands_in_the_place_of_a_log_is_not_written() {
    let f = Fixture::new();
    let lease = f.store.begin_run(&TIMES).unwrap();
    let victim = f.mine().join("notes");
    for kind in NO_FILES.into_iter().chain(["second name"]) {
        let log = lease.folder().log(kind);
        plant(kind, &lease.dir().join(log_name(kind)), &victim);
        let error = soon(move || log.append().unwrap_err()).to_string();
        let what = match kind {
            "pipe" => "pipe",
            "folder" => "folder",
            "second name" => "second name of another file",
            _ => "symbolic link",
        };
        assert!(error.contains(what), "{kind}: {error}");
        if kind == "second name" {
            fs::remove_file(lease.dir().join(log_name(kind))).unwrap();
        }
        f.is_untouched();
    }
}

#[test]
fn a_new_file_of_a_run_takes_nobodys_place() {
    let f = Fixture::new();
    let lease = f.store.begin_run(&TIMES).unwrap();
    let victim = f.mine().join("notes");
    for kind in NO_FILES.into_iter().chain(["second name"]) {
        let path = lease.dir().join("events.jsonl");
        plant(kind, &path, &victim);
        let folder = lease.folder();
        soon(move || folder.create("events.jsonl").unwrap_err());
        if kind != "folder" {
            // What is written whole takes the name, and leaves the rest alone.
            lease.folder().write("events.jsonl", b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            fs::remove_file(path).unwrap();
        } else {
            fs::remove_dir(path).unwrap();
        }
        f.is_untouched();
    }
}

#[test]
fn a_list_of_uses_is_not_written_through_a_link() {
    let f = Fixture::new();
    for kind in NO_FILES {
        let lease = f.store.begin_run(&TIMES).unwrap();
        plant(kind, &lease.dir().join("uses"), &f.mine().join("notes"));
        let lease = soon(move || {
            lease.uses(&KEY).unwrap_err();
            lease
        });
        let (store, id) = (f.store.clone(), lease.run_id().to_owned());
        assert_eq!(soon(move || store.used_keys(&id)), [], "{kind}");
        f.is_untouched();
    }
}

#[test]
fn a_lease_that_is_none_keeps_nobody_waiting() {
    let f = Fixture::new();
    for (number, kind) in NO_FILES.into_iter().enumerate() {
        let dir = f.at(&format!("runs/20260101T000000-{number}"));
        fs::create_dir_all(&dir).unwrap();
        plant(kind, &dir.join("lease.json"), &f.mine().join("notes"));
    }
    symlink(f.mine(), f.at("runs/20260101T000000-0000")).unwrap();
    let store = f.store.clone();
    let live = soon(move || store.live_runs(&TIMES).unwrap());
    assert!(live.iter().all(|run| run.pid == 0));
    f.is_untouched();
}

#[test]
fn what_cannot_be_a_claim_is_put_aside() {
    let f = Fixture::new();
    let lease = f.store.begin_run(&TIMES).unwrap();
    let path = f.at(&format!("claims/{KEY}.json"));
    for kind in NO_FILES {
        plant(kind, &path, &f.mine().join("notes"));
        let claim = f.store.claim(&KEY, &lease, "train").unwrap();
        let Claimed::Mine(claim) = claim else {
            panic!("{kind}: {claim:?}");
        };
        assert!(claim.is_still_mine());
        drop(claim);
        assert!(fs::symlink_metadata(&path).is_err(), "{kind}");
        f.is_untouched();
    }
}

/// Who cleans up removes the links, and nothing that they lead to.
#[test]
fn a_trash_of_links_removes_nothing() {
    let f = Fixture::new();
    let mut owner = serde_json::json!(process::Process::this());
    owner["start_time"] = serde_json::json!(1);
    for (name, link) in [("gc-1", "held/runs"), ("gc-2", "held"), ("gc-3", "")] {
        let trash = f.at("tmp").join(name);
        let at = trash.join(link);
        if link.is_empty() {
            symlink(f.mine(), &trash).unwrap();
            continue;
        }
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(f.mine(), &at).unwrap();
        fs::write(trash.join("owner.json"), owner.to_string()).unwrap();
    }
    f.store.clean_tmp().unwrap();
    f.is_untouched();
    assert!(!f.at("tmp/gc-1").exists() && !f.at("tmp/gc-2").exists());
    assert_eq!(fs::read_dir(f.at("runs")).unwrap().count(), 0);
}

#[test]
fn a_tree_that_is_a_link_is_laid_out_again() {
    let f = Fixture::new();
    let job = f.store.job_dir("test").unwrap();
    fs::write(job.output().join("w"), "weights").unwrap();
    let tree = f.store.ingest_whole(&job).unwrap();
    symlink(f.mine(), f.store.tree_path(&tree.hash)).unwrap();
    assert_eq!(f.store.laid_out(&tree), None);
    let folder = f.store.materialise(&tree).unwrap();
    assert!(!fs::symlink_metadata(&folder).unwrap().is_symlink());
    assert_eq!(fs::read(folder.join("w")).unwrap(), b"weights");
    f.is_untouched();
}

#[test]
fn shelves_that_are_links_are_refused() {
    let f = Fixture::new();
    let job = f.store.job_dir("test").unwrap();
    fs::write(job.output().join("w"), "weights").unwrap();
    let hash = ContentHash::of(b"weights").to_string();
    symlink(f.mine(), f.at("blobs").join(&hash[..2])).unwrap();
    let error = f.store.ingest_whole(&job).unwrap_err().to_string();
    assert!(error.contains("is a symbolic link"), "{error}");

    let partials = Partials::new(&f.store.partial_dir("rollout"), &job.scratch());
    partials.put(&KEY, b"part").unwrap();
    for path in ["partial/rollout/07", "partial/rollout", "partial"] {
        fs::remove_dir_all(f.at(path)).unwrap();
        symlink(f.mine(), f.at(path)).unwrap();
        let error = partials.put(&KEY, b"part").unwrap_err().to_string();
        assert!(error.contains("is a symbolic link"), "{path}: {error}");
        fs::remove_file(f.at(path)).unwrap();
        fs::create_dir(f.at(path)).unwrap();
    }
    // What was made on the way there is empty.
    for entry in fs::read_dir(f.mine()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    f.is_untouched();
}

#[test]
fn pipes_in_the_place_of_files_keep_nobody_waiting() {
    let f = Fixture::new();
    let job = f.store.job_dir("test").unwrap();
    let partials = Partials::new(&f.store.partial_dir("rollout"), &job.scratch());
    partials.put(&KEY, b"part").unwrap();
    let part = f.at(&format!("partial/rollout/07/{KEY}.json"));
    fs::remove_file(&part).unwrap();
    fs::create_dir_all(f.at("records/07")).unwrap();
    fs::create_dir_all(f.at("runs/20260101T000000-0000")).unwrap();
    let record = f.at(&format!("records/07/{KEY}.json"));
    for path in [
        &part,
        &record,
        &f.at("hashes.json"),
        &f.at("runs/20260101T000000-0000/pipeline.json"),
        &f.at("runs/20260101T000000-0000/run.json"),
        &f.at("tmp/owner.json"),
    ] {
        plant("pipe", path, path);
    }
    let store = f.store.clone();
    soon(move || {
        assert!(store.lookup(&KEY).is_none());
        assert!(partials.get(&KEY).is_none());
        store.hash_memory().save();
        store.usage().unwrap();
        store.clean_tmp().unwrap();
        store.plan_gc(&GcOptions::default()).unwrap();
        fs::remove_file(store.root().join("format.json")).unwrap();
        plant("pipe", &store.root().join("format.json"), store.root());
        Store::open(store.root()).unwrap_err();
    });
}

#[test]
fn what_is_a_runs_own_is_its_owners() {
    let f = Fixture::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let job = f.store.job_dir("test").unwrap();
    assert_eq!(mode(job.path()), 0o700);
    let lease = f.store.begin_run(&TIMES).unwrap();
    assert_eq!(mode(lease.dir()) & 0o022, 0, "nobody else plants anything");
    // Others see that it lives.
    assert_eq!(mode(&lease.dir().join("lease.json")), 0o644);
    lease.folder().log("a").append().unwrap();
    assert_eq!(mode(&lease.dir().join("a.log")) & 0o022, 0);
}

#[test]
fn a_log_has_a_name_that_a_file_can_have() {
    assert_eq!(log_name("train"), "train.log");
    assert_eq!(log_name("train@sweep:lr=1e-6"), "train@sweep:lr=1e-6.log");
    let long = format!("s{}", "ä".repeat(300));
    let other = format!("s{}", "ä".repeat(301));
    for name in [&long, &other, "../up", ".", "a/b", ""] {
        let file = log_name(name);
        assert!(file.len() < 255 && !file.contains('/'), "{file}");
        assert!(!file.starts_with(".."), "{file}");
    }
    assert_ne!(log_name(&long), log_name(&other));
    assert_ne!(log_name("a/b"), log_name("a_b"));
}
