//! Bytes that flip in the cache: never a wrong result.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Lab, Values, all_files, end_of, sound, words};

const ROUNDS_A_CACHE: usize = 25;
const VALUES: Values = Values { seed: 7, extra: 9 };

#[test]
fn a_flipped_byte_is_never_served() {
    let mut lab = Lab::new(3);
    let rounds = Lab::rounds(200);
    lab.reference(VALUES);
    let mut cache = String::new();
    let mut told = 0;
    for round in 0..rounds {
        if round % ROUNDS_A_CACHE == 0 {
            lab.remove(&cache);
            cache = format!("cache-{round}");
            run(&lab, &cache, "the first run");
        }
        let (file, at, bit) = choose(&mut lab, &cache);
        let what = format!(
            "GENIUS_FAULT_SEED={} round {round}, bit {bit} of byte {at} of {}",
            lab.seed,
            file.strip_prefix(lab.dir.path()).unwrap_or(&file).display()
        );
        flip(&file, at, bit);

        // Asked before any run, it may say that it cannot, and never show what is damaged.
        let output = *lab.random.pick(&super::OUTPUTS);
        if let Ok(folder) = lab.out(VALUES, &cache, output) {
            let expected = &lab.reference(VALUES)[output];
            assert!(
                &super::files(&folder) == expected,
                "{what}: `out {output}` showed damage"
            );
        }
        run(&lab, &cache, &what);
        // Nothing consumed a stage's files in that run, so `out` may be the first to
        // see the damage. Then it says so, and a run after that mends it.
        if lab.read(VALUES, &cache).is_err() {
            told += 1;
            run(&lab, &cache, &what);
        }
        lab.compare(VALUES, &cache, &what);
    }
    assert!(told < rounds, "every run left something damaged");
}

fn run(lab: &Lab, cache: &str, what: &str) {
    let said = end_of(&mut lab.run(VALUES, cache));
    sound(&said, || what.to_owned());
    assert!(said.status.success(), "{what}: {}", words(&said));
}

/// A byte of a file, each part of the cache as likely as another.
fn choose(lab: &mut Lab, cache: &str) -> (PathBuf, usize, u8) {
    let root = lab.path(cache);
    let mut parts: Vec<Vec<PathBuf>> = ["blobs", "records", "trees", "runs"]
        .map(|part| all_files(&root.join(part)))
        .into();
    // What is remembered about sources, and whatever else lies there; not the
    // files that say that the folder is a cache.
    let marks = ["format.json", "CACHEDIR.TAG", ".gitignore"];
    let remembered = std::fs::read_dir(&root)
        .expect("the cache")
        .filter_map(Result::ok);
    parts.push(
        remembered
            .map(|e| e.path())
            .filter(|p| p.is_file() && !marks.iter().any(|m| p.ends_with(m)))
            .collect(),
    );
    for part in &mut parts {
        part.retain(|file| std::fs::metadata(file).is_ok_and(|m| m.len() > 0));
    }
    assert!(
        parts[0].len() > 5 && parts[1].len() > 5,
        "a full cache: {parts:?}"
    );
    parts.retain(|part| !part.is_empty());
    let part = lab.random.below(parts.len());
    let file = lab.random.pick(&parts[part]).clone();
    let bytes = std::fs::metadata(&file).expect("a file").len();
    let at = lab.random.below(usize::try_from(bytes).expect("small"));
    let bit = u8::try_from(lab.random.below(8)).expect("small");
    (file, at, bit)
}

/// Flips it as a bad disk does: in place, and the file's times stay.
fn flip(file: &Path, at: usize, bit: u8) {
    let metadata = std::fs::metadata(file).expect("a file");
    let mode = metadata.permissions();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let mut bytes = std::fs::read(file).expect("its bytes");
    bytes[at] ^= 1 << bit;
    let open = std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .expect("the file");
    std::os::unix::fs::FileExt::write_all_at(&open, &bytes[at..=at], at as u64).expect("a byte");
    open.set_modified(metadata.modified().expect("a time"))
        .expect("its time");
    std::fs::set_permissions(file, mode).expect("its mode");
}
