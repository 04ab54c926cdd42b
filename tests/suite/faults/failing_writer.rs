//! A full disk and a read-only one, by a library that refuses writes to the
//! cache (tests/faults/failing_writes.cpp): a clear error or no harm, never a
//! panic or a wrong result, and the next run makes everything right.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::errno::Errno;

use super::{Lab, Values, end_of, keys, report, sound, words};

const VALUES: Values = Values { seed: 3, extra: 4 };

/// What is refused.
#[derive(Debug, Clone, Copy)]
struct Fault {
    errno: Errno,
    /// The first call that fails, from 1.
    from: usize,
    /// That one alone, or all from then on.
    only: bool,
}

/// Builds the library.
fn library(lab: &Lab) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/failing_writes.cpp");
    let library = lab.path("failing_writes.so");
    let built = Command::new("g++")
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .output()
        .unwrap_or_else(|e| {
            panic!(
                "this test builds a small library with g++, which does not start: {e}; install g++"
            )
        });
    assert!(built.status.success(), "g++: {}", words(&built));
    library
}

/// Puts the fault before a command. Only `genius` itself sees it: a command of a
/// pipeline gets none of these variables.
fn disturb(command: &mut Command, lab: &Lab, library: &Path, cache: &str, fault: Fault) {
    let folder = lab.dir.path().canonicalize().expect("a folder").join(cache);
    command
        .env("LD_PRELOAD", library)
        .env("FAULT_DIR", folder)
        .env("FAULT_ERRNO", (fault.errno as i32).to_string())
        .env("FAULT_FROM", fault.from.to_string())
        .env("FAULT_LOG", lab.path("fault.log"));
    if fault.only {
        command.env("FAULT_ONLY", "1");
    }
}

/// The calls that failed since it was asked last.
fn failed_calls(lab: &Lab) -> Vec<String> {
    let log = lab.path("fault.log");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(log);
    text.lines().map(str::to_owned).collect()
}

/// A failure names its cause.
#[track_caller]
fn names_the_cause(said: &Output, fault: Fault, what: &str) {
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(
        stderr.contains(fault.errno.desc()) || stderr.contains("os error"),
        "{what}: it failed with {} and does not say that a write was refused:\n{stderr}",
        said.status,
    );
}

#[test]
fn a_disk_that_is_full_from_any_call_on() {
    let mut lab = Lab::new(2);
    let library = library(&lab);
    lab.reference(VALUES);
    // Of four kinds of faults each call gets one, with GENIUS_FAULT_ROUNDS all.
    let kinds = [
        (Errno::ENOSPC, false),
        (Errno::ENOSPC, true),
        (Errno::EROFS, false),
        (Errno::EIO, true),
    ];
    let all = Lab::rounds(300) > 300;
    let (mut refused, mut names) = (0, std::collections::BTreeSet::new());
    for from in 1..=150 {
        let one = lab.random.below(kinds.len());
        for (_, &(errno, only)) in kinds.iter().enumerate().filter(|(i, _)| all || *i == one) {
            let fault = Fault { errno, from, only };
            let what = format!("GENIUS_FAULT_SEED={} {fault:?}", lab.seed);
            let cache = "disturbed";
            lab.remove(cache);
            let mut command = lab.run(VALUES, cache);
            disturb(&mut command, &lab, &library, cache, fault);
            let said = end_of(&mut command);
            let calls = failed_calls(&lab);
            let what = format!(
                "{what} at {}",
                calls.first().map_or("no call", String::as_str)
            );
            sound(&said, || what.clone());
            if !said.status.success() {
                assert!(!calls.is_empty(), "{what}: {}", words(&said));
                names_the_cause(&said, fault, &what);
                refused += 1;
            } else if from == 1 && !only {
                panic!(
                    "{what}: a run that could write nothing ended well: {}",
                    words(&said)
                );
            }
            names.extend(
                calls
                    .iter()
                    .filter_map(|c| c.split(' ').next().map(str::to_owned)),
            );

            let said = end_of(&mut lab.run(VALUES, cache));
            assert!(
                said.status.success(),
                "{what}, then undisturbed: {}",
                words(&said)
            );
            lab.compare(VALUES, cache, &what);
            lab.verify(cache, &what);
        }
    }
    assert!(refused > 10, "{refused} runs were refused anything");
    for call in ["open64", "write", "fsync", "mkdir"] {
        assert!(
            names.contains(call),
            "no `{call}` was ever refused: {names:?}"
        );
    }
}

#[test]
fn a_read_only_cache_serves_what_it_has() {
    let mut lab = Lab::new(4);
    let library = library(&lab);
    let cache = "cache";
    let said = end_of(&mut lab.run(VALUES, cache));
    assert!(said.status.success(), "{}", words(&said));
    lab.compare(VALUES, cache, "the first run");
    let before = super::files(&lab.path(cache));

    let fault = Fault {
        errno: Errno::EROFS,
        from: 1,
        only: false,
    };
    let disturbed = |mut command: Command| {
        disturb(&mut command, &lab, &library, cache, fault);
        let said = end_of(&mut command);
        sound(&said, || "on a read-only cache".to_owned());
        said
    };
    let run = disturbed(lab.run(VALUES, cache));
    assert!(run.status.success(), "everything is there: {}", words(&run));
    assert_eq!(keys(&report(&run), "cached").len(), 8, "{}", words(&run));

    let file = super::file_of(VALUES);
    let plan = disturbed(lab.genius(&["plan", &file, "--json"], cache));
    assert!(plan.status.success(), "{}", words(&plan));
    for output in super::OUTPUTS {
        let out = disturbed(lab.genius(&["out", &file, output], cache));
        assert!(out.status.success(), "{output}: {}", words(&out));
    }
    let verify = disturbed(lab.genius(&["cache", "verify"], cache));
    assert!(verify.status.success(), "{}", words(&verify));

    // What is not there cannot be kept, which is said.
    let other = Values { seed: 5, extra: 5 };
    let refused = disturbed(lab.run(other, cache));
    assert!(!refused.status.success(), "{}", words(&refused));
    names_the_cause(&refused, fault, "a stage without a result");

    assert!(!failed_calls(&lab).is_empty(), "nothing was refused");
    assert!(
        super::files(&lab.path(cache)) == before,
        "something was written"
    );
}
