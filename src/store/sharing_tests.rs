//! Several processes on one cache: leases and claims, with processes that are
//! killed, stopped and continued.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::*;

const TIMES: Times = Times {
    beat: Duration::from_millis(20),
    stale: Duration::from_millis(300),
};
/// Where a machine that is busy with other things must not look like a dead run.
const PATIENT: Times = Times {
    beat: Duration::from_millis(20),
    stale: Duration::from_secs(3600),
};
const KEY: Key = Key::from_bytes([7; 32]);
/// The cache in which [`holder`] is to hold a claim.
const HOLDER_CACHE: &str = "GENIUS_TEST_HOLDER_CACHE";
/// What [`racer`] needs: the cache, and how many claims to race for.
const RACER_CACHE: &str = "GENIUS_TEST_RACER_CACHE";
const RACES: usize = 200;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    (dir, store)
}

fn mine(claimed: Claimed) -> Claim {
    match claimed {
        Claimed::Mine(claim) => claim,
        Claimed::Held(holder) => panic!("held by {holder:?}"),
    }
}

fn held(claimed: Claimed) -> Holder {
    match claimed {
        Claimed::Held(holder) => holder,
        Claimed::Mine(_) => panic!("it was free"),
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(300), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Another process; killed when dropped.
struct Other(Child);

impl Other {
    fn run(test: &str, variable: &str, cache: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                &format!("store::sharing_tests::{test}"),
                "--exact",
                "--ignored",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(variable, cache)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// One that holds the claim on [`KEY`].
    fn holding(store: &Store) -> Self {
        let other = Self::run("holder", HOLDER_CACHE, store.root());
        let claim = store.root().join(format!("claims/{KEY}.json"));
        wait_until("the claim of the other process", || claim.exists());
        other
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Claims [`KEY`], gives it up when a file `let-go` appears, and says so.
#[test]
#[ignore = "runs in a process of its own, started by other tests"]
fn holder() {
    let Some(cache) = std::env::var_os(HOLDER_CACHE) else {
        return;
    };
    let store = Store::open(Path::new(&cache)).unwrap();
    let lease = store.begin_run(&TIMES).unwrap();
    // As a run does: listed before it is asked for.
    lease.uses(&KEY).unwrap();
    let claim = mine(store.claim(&KEY, &lease, "train").unwrap());
    wait_until("let-go", || store.root().join("let-go").exists());
    drop(claim);
    fs::write(store.root().join("let-gone"), "").unwrap();
    wait_until("end", || store.root().join("end").exists());
}

/// Claims [`RACES`] keys as fast as it can and writes down which it got.
#[test]
#[ignore = "runs in a process of its own, started by other tests"]
fn racer() {
    let Some(cache) = std::env::var_os(RACER_CACHE) else {
        return;
    };
    let store = Store::open(Path::new(&cache)).unwrap();
    let lease = store.begin_run(&PATIENT).unwrap();
    fs::write(lease.dir().join("ready"), "").unwrap();
    wait_until("go", || store.root().join("go").exists());
    let mut got = String::new();
    let mut claims = Vec::new();
    for race in 0..RACES {
        if let Claimed::Mine(claim) = store.claim(&race_key(race), &lease, "s").unwrap() {
            got.push_str(&format!("{race}\n"));
            claims.push(claim);
        }
    }
    fs::write(lease.dir().join("part"), got).unwrap();
    fs::rename(lease.dir().join("part"), lease.dir().join("got")).unwrap();
    wait_until("end", || store.root().join("end").exists());
}

fn race_key(race: usize) -> Key {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&(race as u64).to_le_bytes());
    Key::from_bytes(bytes)
}

// ---- leases ----

#[test]
fn a_run_lives_from_its_begin_to_its_end() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    let id = lease.run_id().to_owned();
    let second = store.begin_run(&TIMES).unwrap();
    assert_ne!(second.run_id(), id);
    assert!(
        id.len() == 24 && &id[8..9] == "T" && &id[15..16] == "-",
        "{id}"
    );
    assert!(store.run_is_live(&id, &TIMES));
    let live = store.live_runs(&TIMES).unwrap();
    assert_eq!(live.len(), 2);
    assert!(live.iter().all(|run| run.pid == std::process::id()));
    std::thread::sleep(TIMES.stale * 2);
    assert!(store.run_is_live(&id, &TIMES), "its beats keep it alive");

    let dir = lease.dir().to_owned();
    drop(lease);
    assert!(!store.run_is_live(&id, &TIMES));
    assert!(dir.is_dir(), "what the run left stays");
    assert_eq!(store.live_runs(&TIMES).unwrap().len(), 1);
    assert!(!store.run_is_live("../runs", &TIMES));
    drop(second);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_lease_that_says_nothing_is_judged_by_its_age() {
    let (_dir, store) = store();
    let dir = store.runs_dir().join("20260101T000000-00000000");
    fs::create_dir(&dir).unwrap();
    assert_eq!(store.live_runs(&TIMES).unwrap(), [], "no lease");
    fs::write(dir.join("lease.json"), "{").unwrap();
    assert_eq!(store.live_runs(&TIMES).unwrap().len(), 1);
    std::thread::sleep(TIMES.stale + TIMES.beat * 2);
    assert_eq!(store.live_runs(&TIMES).unwrap(), []);
}

#[test]
fn a_run_whose_folder_was_removed_while_it_was_paused_comes_back() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    lease.uses(&KEY).unwrap();
    fs::remove_dir_all(lease.dir()).unwrap();
    wait_until("a new lease", || store.run_is_live(lease.run_id(), &TIMES));
    wait_until("its uses", || store.used_keys(lease.run_id()) == [KEY]);
}

#[test]
fn what_a_run_uses_is_listed_once() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    let other = Key::from_bytes([8; 32]);
    lease.uses(&KEY).unwrap();
    lease.uses_all(&[other, KEY]).unwrap();
    lease.uses(&KEY).unwrap();
    assert_eq!(store.used_keys(lease.run_id()), [KEY, other]);
    let path = lease.dir().join("uses");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 10]).unwrap();
    assert_eq!(store.used_keys(lease.run_id()), [KEY], "a cut line");
    assert_eq!(store.used_keys("none"), []);
}

#[test]
fn a_cache_that_cannot_be_written_starts_no_run() {
    let (_dir, store) = store();
    fs::remove_dir_all(store.root().join("tmp")).unwrap();
    fs::write(store.root().join("tmp"), "").unwrap();
    let error = store.begin_run(&TIMES).unwrap_err().to_string();
    let error = error.replace(&store.root().display().to_string(), "ROOT");
    assert!(
        error.starts_with("cannot make a folder in ROOT/tmp: "),
        "{error}"
    );
    assert_eq!(store.live_runs(&TIMES).unwrap(), []);
}

// ---- claims ----

#[test]
fn a_claim_is_held_until_it_is_dropped() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    let other = store.begin_run(&TIMES).unwrap();
    let claim = mine(store.claim(&KEY, &lease, "train").unwrap());
    let holder = held(store.claim(&KEY, &other, "train 2").unwrap());
    assert_eq!(holder.run_id, lease.run_id());
    assert_eq!(holder.stage, "train");
    assert_eq!(holder.pid, std::process::id());
    held(store.claim(&KEY, &lease, "again").unwrap());
    mine(store.claim(&Key::from_bytes([8; 32]), &other, "o").unwrap());
    drop(claim);
    mine(store.claim(&KEY, &other, "train 2").unwrap());
    assert_eq!(
        fs::read_dir(store.root().join("claims")).unwrap().count(),
        0
    );
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn of_threads_that_race_for_a_claim_one_gets_it() {
    let (_dir, store) = store();
    let leases = [0, 1].map(|_| store.begin_run(&PATIENT).unwrap());
    let dead = store.begin_run(&PATIENT).unwrap();
    for race in 0..RACES {
        let key = race_key(race);
        if race % 2 == 1 {
            // Every second time there is the claim of a dead run to be taken over.
            let claim = mine(store.claim(&key, &dead, "s").unwrap());
            let path = store.root().join(format!("claims/{key}.json"));
            let text = fs::read_to_string(&path).unwrap();
            drop(claim);
            fs::write(
                &path,
                text.replace(dead.run_id(), "20200101T000000-00000000"),
            )
            .unwrap();
        }
        let start = Barrier::new(2);
        let claimed: Vec<Claimed> = std::thread::scope(|scope| {
            let handles = leases.each_ref().map(|lease| {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    start.wait();
                    store.claim(&key, lease, "s").unwrap()
                })
            });
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        });
        let got = claimed.iter().filter(|c| matches!(c, Claimed::Mine(_)));
        assert_eq!(got.count(), 1, "race {race}");
    }
    assert_eq!(
        fs::read_dir(store.root().join("claims")).unwrap().count(),
        0
    );
}

#[test]
fn of_processes_that_race_for_a_claim_one_gets_it() {
    let (_dir, store) = store();
    let racers = [0, 1, 2].map(|_| Other::run("racer", RACER_CACHE, store.root()));
    let count = |name: &str| {
        fs::read_dir(store.runs_dir())
            .unwrap()
            .filter(|run| run.as_ref().unwrap().path().join(name).exists())
            .count()
    };
    wait_until("all are ready", || count("ready") == racers.len());
    fs::write(store.root().join("go"), "").unwrap();
    wait_until("all are done", || count("got") == racers.len());
    let mut got: Vec<usize> = fs::read_dir(store.runs_dir())
        .unwrap()
        .flat_map(|run| {
            let text = fs::read_to_string(run.unwrap().path().join("got")).unwrap();
            text.lines().map(|l| l.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    got.sort_unstable();
    assert_eq!(got, (0..RACES).collect::<Vec<_>>());
}

#[test]
fn the_claim_of_a_killed_process_is_taken_over_at_once() {
    let (_dir, store) = store();
    // A beat would keep it for an hour: what counts is that its process is gone.
    let lease = store.begin_run(&PATIENT).unwrap();
    let mut other = Other::holding(&store);
    let holder = held(store.claim(&KEY, &lease, "mine").unwrap());
    assert_eq!(holder.pid, other.0.id());
    assert_eq!(store.used_keys(&holder.run_id), [KEY]);

    other.signal(Signal::SIGKILL);
    // Its parent (this process) has not asked for its end yet.
    wait_until("its end", || !store.run_is_live(&holder.run_id, &PATIENT));
    mine(store.claim(&KEY, &lease, "mine").unwrap());
    other.0.wait().unwrap();
    assert!(!store.run_is_live(&holder.run_id, &PATIENT));
}

#[test]
fn the_claim_of_a_stopped_process_is_taken_over_when_its_beat_is_stale() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    let other = Other::holding(&store);
    let theirs = held(store.claim(&KEY, &lease, "mine").unwrap()).run_id;
    std::thread::sleep(TIMES.stale * 2);
    held(store.claim(&KEY, &lease, "mine").unwrap());

    other.signal(Signal::SIGSTOP);
    let mut claim = None;
    wait_until("taking over", || {
        match store.claim(&KEY, &lease, "mine").unwrap() {
            Claimed::Mine(mine) => claim = Some(mine),
            Claimed::Held(holder) => assert_eq!(holder.run_id, theirs),
        }
        claim.is_some()
    });
    let claim = claim.unwrap();
    assert!(!store.run_is_live(&theirs, &TIMES));

    // It goes on, believes that it still holds the claim, and gives it up.
    other.signal(Signal::SIGCONT);
    wait_until("its next beat", || store.run_is_live(&theirs, &TIMES));
    fs::write(store.root().join("let-go"), "").unwrap();
    wait_until("its drop", || store.root().join("let-gone").exists());
    assert!(claim.is_still_mine());
    let third = store.begin_run(&TIMES).unwrap();
    let holder = held(store.claim(&KEY, &third, "third").unwrap());
    assert_eq!(holder.run_id, lease.run_id());
}

#[test]
fn a_claim_that_cannot_be_read_is_taken_over_when_it_is_old() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    let path = store.root().join(format!("claims/{KEY}.json"));
    for content in ["", "{\"format\":1,", "\0\0\0\0"] {
        fs::write(&path, content).unwrap();
        let holder = held(store.claim(&KEY, &lease, "s").unwrap());
        assert_eq!(holder.run_id, "", "who, cannot be said");
        std::thread::sleep(TIMES.stale + TIMES.beat * 2);
        mine(store.claim(&KEY, &lease, "s").unwrap());
        assert!(!path.exists(), "given up again");
    }
    // A claims folder that somebody removed.
    fs::remove_dir(store.root().join("claims")).unwrap();
    mine(store.claim(&KEY, &lease, "s").unwrap());
}

#[test]
fn claims_of_dead_runs_are_cleaned_up() {
    let (_dir, store) = store();
    let lease = store.begin_run(&TIMES).unwrap();
    let dead = store.begin_run(&TIMES).unwrap();
    let lost = mine(store.claim(&KEY, &dead, "s").unwrap());
    let other = Key::from_bytes([8; 32]);
    let claim = mine(store.claim(&other, &lease, "s").unwrap());
    assert_eq!(store.clean_claims(&TIMES).unwrap(), 0);
    drop(dead);
    assert_eq!(store.clean_claims(&TIMES).unwrap(), 1);
    assert!(claim.is_still_mine() && !lost.is_still_mine());
}
