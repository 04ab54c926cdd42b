//! SIGKILL at random moments: of `genius` alone, and of all that it started.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, Values, end_of, finish, keys, report, words};

/// After so many rounds a fresh cache, so that its making is disturbed too.
const ROUNDS_A_CACHE: usize = 15;

#[test]
fn genius_killed_at_any_moment_loses_the_running_stages_and_no_more() {
    disturb(1, Lab::rounds(150), false);
}

#[test]
fn all_its_processes_killed_at_any_moment_lose_no_more() {
    disturb(2, Lab::rounds(150), true);
}

/// So many kills; of `genius` alone or of the whole family.
fn disturb(salt: u64, rounds: usize, whole: bool) {
    let mut lab = Lab::new(salt);
    let mut values = Values { seed: 1, extra: 1 };
    let undisturbed = (0..3).map(|i| time_of(&lab, values, &format!("timed-{i}")));
    let undisturbed = undisturbed.min().expect("three times");

    let (mut cache, mut changes) = (String::new(), 1);
    let (mut killed, mut finished, mut partly) = (0, 0, 0);
    for round in 0.. {
        if round % ROUNDS_A_CACHE == 0 {
            lab.remove(&cache);
            cache = format!("cache-{round}");
        }
        let what = format!("GENIUS_FAULT_SEED={} round {round}", lab.seed);
        let before = lab.records(&cache);
        let mut command = lab.run(values, &cache);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("genius starts");
        // Never without a look at what the kills left.
        let last = round % ROUNDS_A_CACHE == ROUNDS_A_CACHE - 1 || killed >= rounds;
        if !last && lab.random.below(6) != 0 {
            let share = u32::try_from(lab.random.below(1000)).expect("small");
            kill_after(&mut child, undisturbed * share / 1000, whole);
        }
        let said = finish(child);
        // A signal that came too late found a run that ended well.
        if said.status.code().is_none() && !last {
            killed += 1;
            if lab.is_made(&cache) {
                lab.verify(&cache, &what);
            } else {
                // Killed before the cache was one: then it holds nothing either.
                assert!(
                    lab.records(&cache).is_empty(),
                    "{what}: records in no cache"
                );
            }
            continue;
        }
        assert!(said.status.success(), "{what}: {}", words(&said));
        let report = report(&said);
        for key in keys(&report, "executed") {
            assert!(
                !before.contains(&key),
                "{what}: the record of {key} was there, and its stage ran again: {report:#}"
            );
        }
        lab.compare(values, &cache, &what);
        finished += 1;
        partly += usize::from((1..8).contains(&keys(&report, "cached").len()));
        if last {
            let left = leftovers(&lab, &cache);
            assert!(left.is_empty(), "{what}: left behind: {left:?}");
        }
        if killed >= rounds {
            break;
        }
        // Sometimes what is there already, mostly something new.
        changes += 1;
        values = match lab.random.below(5) {
            0 => values,
            1 | 2 => Values {
                extra: changes,
                ..values
            },
            _ => Values {
                seed: changes,
                extra: changes,
            },
        };
    }
    assert!(
        finished > 0 && (partly > 0 || rounds < 20),
        "no kill left a part: {finished} finished, {partly} of them in part; the delays are wrong"
    );
}

/// How long an undisturbed run takes.
fn time_of(lab: &Lab, values: Values, cache: &str) -> Duration {
    let mut command = lab.run(values, cache);
    let started = Instant::now();
    let said = end_of(&mut command);
    assert!(said.status.success(), "{}", words(&said));
    started.elapsed()
}

/// Kills it, and its family if asked, unless it ended by itself.
fn kill_after(child: &mut Child, delay: Duration, whole: bool) {
    std::thread::sleep(delay);
    let id = i32::try_from(child.id()).expect("a process id");
    let mut victims = vec![id];
    if whole {
        victims.extend(descendants(id));
    }
    if child.try_wait().expect("a state").is_none() {
        for victim in victims {
            // It may have ended in this moment.
            let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
        }
    }
}

/// Processes that it started, and those that they started.
fn descendants(id: i32) -> Vec<i32> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(Result::ok)
    {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // `pid (name) state ppid ...`: a name may hold anything.
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|t| t.split_whitespace().nth(1));
        let own = stat.split(' ').next();
        if let (Some(Ok(own)), Some(Ok(parent))) = (own.map(str::parse), parent.map(str::parse)) {
            parents.push((own, parent));
        }
    }
    let mut family = vec![id];
    let mut at = 0;
    while let Some(&member) = family.get(at) {
        family.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == member)
                .map(|(own, _)| *own),
        );
        at += 1;
    }
    family.split_off(1)
}

/// What is in `tmp/` after a run that ended well. What died before it could say
/// whose it is cannot be told from what begins just now; that goes in a day.
fn leftovers(lab: &Lab, cache: &str) -> Vec<String> {
    let says_whose =
        |path: &PathBuf| std::fs::read(path.join("owner.json")).is_ok_and(|text| !text.is_empty());
    std::fs::read_dir(lab.path(cache).join("tmp"))
        .expect("the cache's tmp")
        .map(|e| e.expect("an entry").path())
        .filter(says_whose)
        .map(|path| path.display().to_string())
        .collect()
}
