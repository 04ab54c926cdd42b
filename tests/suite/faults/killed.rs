//! SIGKILL at random moments: of `genius` alone, and of all that it started.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, Values, finish, keys, report, words};

/// After so many rounds a fresh cache, so that its making is disturbed too.
const ROUNDS_A_CACHE: usize = 15;

#[test]
fn killed_at_any_moment_only_the_running_stages_are_lost() {
    let mut lab = Lab::new(1);
    let rounds = Lab::rounds(300);
    let mut values = Values { seed: 1, extra: 1 };
    let started = Instant::now();
    lab.reference(values);
    let undisturbed = started.elapsed();

    let (mut cache, mut changes) = (String::new(), 1);
    let (mut killed, mut finished, mut reused, mut partly) = (0, 0, 0, 0);
    for round in 0.. {
        // Enough kills, and never an end without a look at what they left.
        if killed >= rounds {
            break;
        }
        if round % ROUNDS_A_CACHE == 0 {
            lab.remove(&cache);
            cache = format!("cache-{round}");
        }
        let what = format!("GENIUS_FAULT_SEED={} round {round}", lab.seed);
        let before = lab.records(&cache);
        let mut command = lab.run(values, &cache);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("genius starts");
        let last = round % ROUNDS_A_CACHE == ROUNDS_A_CACHE - 1 || killed + 1 == rounds;
        if last || lab.random.below(4) == 0 {
            let said = finish(child);
            assert!(said.status.success(), "{what}: {}", words(&said));
            let report = report(&said);
            for key in keys(&report, "executed") {
                assert!(
                    !before.contains(&key),
                    "{what}: the record of {key} was there, and its stage ran again: {report:#}"
                );
            }
            lab.compare(values, &cache, &what);
            let cached = keys(&report, "cached").len();
            reused += cached;
            partly += usize::from(cached > 0 && cached < 8);
            finished += 1;
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
        } else {
            let share = lab.random.below(1000);
            let delay = undisturbed * u32::try_from(share).expect("small") / 1000;
            let whole = lab.random.below(2) == 0;
            killed += usize::from(kill_after(child, delay, whole, &what));
        }
        lab.verify(&cache, &what);
        // A person sees the same as the next run does: nothing half-made by its name.
        if round % ROUNDS_A_CACHE == ROUNDS_A_CACHE - 1 {
            let left = leftovers(&lab, &cache);
            assert!(left.is_empty(), "{what}: left behind: {left:?}");
        }
    }
    assert!(
        reused > 0 && partly > 0 && finished > 0,
        "no kill left a part: {finished} finished, {partly} of them in part; the delays are wrong"
    );
}

/// Whether the signal was in time. One that came too late found a run that ended well.
fn kill_after(mut child: Child, delay: Duration, whole: bool, what: &str) -> bool {
    std::thread::sleep(delay);
    let id = i32::try_from(child.id()).expect("a process id");
    let mut victims = vec![id];
    if whole {
        victims.extend(descendants(id));
    }
    if child.try_wait().expect("a state").is_none() {
        for victim in victims {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
        }
    }
    let said = finish(child);
    if let Some(code) = said.status.code() {
        assert_eq!(
            code,
            0,
            "{what}: it failed before it was killed: {}",
            words(&said)
        );
    }
    said.status.code().is_none()
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

/// What is in `tmp/` after a run that ended well.
fn leftovers(lab: &Lab, cache: &str) -> Vec<String> {
    let tmp = lab.path(cache).join("tmp");
    std::fs::read_dir(&tmp)
        .expect("the cache's tmp")
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}
