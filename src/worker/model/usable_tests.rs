//! What the import reports about files that only later stages use.

use super::super::source::from_folder;
use super::*;
use crate::infer::testkit::tiny_model;
use crate::testing::TestJob;
use genius::kind::StageKind;
use serde_json::{Value, json};

const ADDED: &str = "added_tokens.json";
const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const MAP: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

fn tiny() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), 1);
    dir
}

fn with(name: &str, text: &str) -> tempfile::TempDir {
    let dir = tiny();
    std::fs::write(dir.path().join(name), text).unwrap();
    dir
}

/// Changes keys of a JSON file; null removes one.
fn set(dir: &tempfile::TempDir, name: &str, changes: &Value) {
    let path = dir.path().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
    let mut json: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            json.as_object_mut().unwrap().remove(key);
        } else {
            json[key] = value.clone();
        }
    }
    std::fs::write(path, json.to_string()).unwrap();
}

/// The warnings of an import, or why there is none.
fn import(dir: &tempfile::TempDir) -> Result<Vec<String>, String> {
    let out = tempfile::tempdir().unwrap();
    let job = TestJob::new(
        StageKind::Model,
        json!({ "source": { "path": "/nowhere" } }),
    );
    job.run(|context| from_folder(context, dir.path(), out.path()).map(|()| Vec::new()))
        .map_err(|e| e.message)?;
    Ok(job.logged(Level::Warn))
}

/// The only warning, which names `name` by the user's own path.
#[track_caller]
fn warning(dir: &tempfile::TempDir, name: &str) -> String {
    let warnings = import(dir).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let own = dir.path().join(name).display().to_string();
    assert!(warnings[0].contains(&own), "{name}: {warnings:?}");
    warnings[0].clone()
}

#[test]
fn a_usable_folder_is_imported_without_warnings() {
    assert_eq!(import(&tiny()).unwrap(), Vec::<String>::new());
}

#[test]
fn unreadable_files_are_refused_by_the_users_path() {
    for (name, text) in [
        (ADDED, "{"),
        (ADDED, "[]"),
        (ADDED, "null"),
        (ADDED, r#"{"<x>": "seven"}"#),
        (MAP, "{"),
        (MAP, "[]"),
        (MAP, "\"x\""),
        (MAP, r#"{"eos_token": 5}"#),
        (MAP, r#"{"additional_special_tokens": "x"}"#),
        (TOKENIZER_CONFIG, "[]"),
        (TOKENIZER_CONFIG, r#"{"added_tokens_decoder": []}"#),
        (
            TOKENIZER_CONFIG,
            r#"{"added_tokens_decoder": {"x": "<x>"}}"#,
        ),
        (GENERATION, "[]"),
        (TOKENIZER, "{}"),
        (
            TOKENIZER,
            r#"{"model": {"vocab": {"a": 0}}, "decoder": {"type": "ByteLevel"}}"#,
        ),
        (CONFIG, "[]"),
    ] {
        let dir = with(name, text);
        if [ADDED, MAP].contains(&name) {
            // Otherwise the listed tokens stand in for both files.
            set(
                &dir,
                TOKENIZER_CONFIG,
                &json!({"added_tokens_decoder": null}),
            );
        }
        let error = import(&dir).unwrap_err();
        let own = dir.path().join(name).display().to_string();
        assert!(error.starts_with(&own), "{name} {text}: {error}");
    }
    let dir = tiny();
    std::fs::write(dir.path().join(TEMPLATE), [0xFF]).unwrap();
    let error = import(&dir).unwrap_err();
    let own = dir.path().join(TEMPLATE).display().to_string();
    assert!(error.starts_with(&own), "{error}");
}

/// Also files that no reader would reach.
#[test]
fn broken_files_are_refused_though_unused() {
    for name in [ADDED, MAP] {
        let dir = with(name, "[]");
        set(&dir, TOKENIZER_CONFIG, &json!({"added_tokens_decoder": {}}));
        let error = import(&dir).unwrap_err();
        let own = dir.path().join(name).display().to_string();
        assert!(error.starts_with(&own), "{error}");
    }
}

#[test]
fn end_tokens_outside_the_vocabulary_are_warned_of() {
    for ids in [json!(4_000_000), json!([0, 4_000_000])] {
        let dir = tiny();
        set(&dir, GENERATION, &json!({"eos_token_id": ids}));
        let warnings = warning(&dir, GENERATION);
        assert!(
            warnings.contains("4000000 is outside the vocabulary"),
            "{warnings}"
        );
    }
    let dir = tiny();
    set(&dir, CONFIG, &json!({"eos_token_id": null}));
    set(&dir, GENERATION, &json!({"eos_token_id": null}));
    set(&dir, TOKENIZER_CONFIG, &json!({"eos_token": "<nowhere>"}));
    let warnings = warning(&dir, TOKENIZER_CONFIG);
    assert!(
        warnings.contains("\"<nowhere>\" is not in the vocabulary"),
        "{warnings}"
    );
    set(&dir, TOKENIZER_CONFIG, &json!({"eos_token": null}));
    assert!(warning(&dir, GENERATION).contains("no end token"));
}

#[test]
fn templates_that_do_not_parse_are_warned_of() {
    for text in [
        "x\n{% if %}",
        "x\n{{ a",
        "x\n{% nothing %}",
        "x\n{% endfor %}",
    ] {
        let warnings = warning(&with(TEMPLATE, text), TEMPLATE);
        assert!(warnings.contains("line 2"), "{text}: {warnings}");
    }
    let dir = tiny();
    let _ = std::fs::remove_file(dir.path().join(TEMPLATE));
    for template in [
        json!("{% if %}"),
        json!([{"name": "default", "template": "{% if %}"}]),
    ] {
        set(&dir, TOKENIZER_CONFIG, &json!({"chat_template": template}));
        assert!(warning(&dir, TOKENIZER_CONFIG).contains("line 1"));
    }
    for template in [
        Value::Null,
        json!(5),
        json!([{"name": "tools", "template": "x"}]),
    ] {
        set(&dir, TOKENIZER_CONFIG, &json!({"chat_template": template}));
        assert!(warning(&dir, TOKENIZER_CONFIG).contains("no chat template"));
    }
}

#[test]
fn scalings_that_the_native_engine_lacks_are_warned_of() {
    for kind in ["linear", "dynamic", "yarn", "longrope"] {
        let dir = tiny();
        let scaling = json!({"rope_type": kind, "factor": 2.0});
        set(&dir, CONFIG, &json!({"rope_scaling": scaling}));
        let warnings = warning(&dir, CONFIG);
        assert!(
            warnings.contains(kind) && warnings.contains("native"),
            "{warnings}"
        );
    }
    let dir = tiny();
    set(
        &dir,
        CONFIG,
        &json!({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}),
    );
    let error = import(&dir).unwrap_err();
    assert!(
        error.contains("rope_scaling.rope_type: `spiral`"),
        "{error}"
    );
}

#[test]
fn folders_in_the_place_of_files_are_refused() {
    for name in [
        ADDED,
        CONFIG,
        GENERATION,
        MAP,
        TEMPLATE,
        TOKENIZER,
        TOKENIZER_CONFIG,
        "vocab.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ] {
        let dir = tiny();
        let path = dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir(&path).unwrap();
        let error = import(&dir).unwrap_err();
        let want = format!("{}: it is a folder, not a file", path.display());
        assert!(error.starts_with(&want), "{name}: {error}");
    }
}

#[test]
fn git_lfs_pointers_are_refused_as_such() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n";
    for name in [
        ADDED,
        CONFIG,
        GENERATION,
        MAP,
        TEMPLATE,
        TOKENIZER,
        TOKENIZER_CONFIG,
        "merges.txt",
        "model.safetensors",
    ] {
        let dir = with(name, pointer);
        let error = import(&dir).unwrap_err();
        let own = dir.path().join(name);
        let want = format!(
            "{} is a Git LFS pointer, not the file itself: run `git lfs pull`",
            own.display()
        );
        assert!(error.starts_with(&want), "{name}: {error}");
    }
}
