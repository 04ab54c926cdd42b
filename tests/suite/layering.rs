//! Dependencies between modules point one way (docs/architecture.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Module -> the modules of this crate that its code may name.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let base = vec!["text", "kind", "protocol", "artifact", "method", "stage"];
    let with = |more: &[&'static str]| [base.clone(), more.to_vec()].concat();
    BTreeMap::from([
        ("text", vec![]),
        ("kind", vec![]),
        ("protocol", vec!["kind"]),
        ("artifact", vec!["protocol"]),
        ("method", vec!["kind", "protocol", "artifact"]),
        ("stage", vec!["kind", "protocol", "artifact", "method"]),
        ("answer", vec!["kind"]),
        ("store", vec![]),
        ("spec", with(&[])),
        // The files of a run; the store asks it for facts through a function.
        ("run", with(&["store"])),
        ("plan", with(&["spec", "store", "run"])),
        ("schedule", with(&["spec", "store", "run", "plan"])),
        ("report", with(&["spec", "store", "run", "plan"])),
        (
            "cli",
            with(&[
                "spec",
                "store",
                "run",
                "plan",
                "schedule",
                "report",
                "user_folders",
                "processor",
            ]),
        ),
    ])
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The top-level modules that a file's code names as `crate::x`, comments left out.
fn named_modules(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            found.insert(name);
        }
    }
    found
}

#[test]
fn modules_depend_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (module, may) in allowed() {
        let mut files = Vec::new();
        rust_files(&src.join(module), &mut files);
        for file in files {
            seen += 1;
            let text = std::fs::read_to_string(&file).expect("a source file");
            for named in named_modules(&text) {
                if named != module && !may.contains(&named.as_str()) {
                    wrong.push(format!("{} names crate::{named}", file.display()));
                }
            }
        }
    }
    assert!(seen > 30, "the walk found only {seen} files");
    assert!(
        wrong.is_empty(),
        "against the layering:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = allowed();
    for entry in std::fs::read_dir(src).expect("src is readable") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "worker" {
            assert!(
                allowed.contains_key(name.as_str()),
                "`{name}` has no place in the layering"
            );
        }
    }
}

/// `genius-worker` is a crate of its own over this library: what it may use of it.
#[test]
fn the_worker_sees_no_orchestrator() {
    let mut files = Vec::new();
    rust_files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/worker"),
        &mut files,
    );
    let hidden = ["spec", "run", "plan", "schedule", "report", "cli"];
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for module in hidden {
            let named = format!("genius::{module}");
            assert!(!text.contains(&named), "{} names {named}", file.display());
        }
    }
}
