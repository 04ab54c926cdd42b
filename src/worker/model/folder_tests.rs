//! Model folders: what is taken, and what is refused.

use super::*;
use genius::protocol::{Execution, Job};
use genius::stage::StageKind;

fn context() -> Context {
    Context::silent(Job {
        stage: "policy".into(),
        kind: StageKind::Model,
        params: Value::Null,
        execution: Execution::default(),
        inputs: std::collections::BTreeMap::new(),
        input_hashes: std::collections::BTreeMap::new(),
        partial: None,
        shard: None,
        notes: Vec::new(),
        output_dir: std::path::PathBuf::new(),
        scratch_dir: std::path::PathBuf::new(),
    })
}

/// A complete folder with one tensor of six values.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put(CONFIG, r#"{"model_type": "llama", "eos_token_id": 2}"#);
    put(TOKENIZER, "{}");
    put(TOKENIZER_CONFIG, r#"{"chat_template": "x"}"#);
    put(GENERATION_CONFIG, r#"{"eos_token_id": [2, 3]}"#);
    put("README.md", "not of the model");
    let bytes = [0u8; 24];
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &bytes).unwrap();
    let weights = safetensors::serialize([("w", view)], None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    dir
}

fn refusal(folder: &tempfile::TempDir) -> Failure {
    let out = tempfile::tempdir().unwrap();
    copy(&context(), folder.path(), out.path()).unwrap_err()
}

#[test]
fn the_model_is_copied_and_nothing_else() {
    let (from, to) = (folder(), tempfile::tempdir().unwrap());
    copy(&context(), from.path(), to.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(to.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            CONFIG,
            GENERATION_CONFIG,
            "model.safetensors",
            TOKENIZER,
            TOKENIZER_CONFIG
        ]
    );
    let generation = read_object(&to.path().join(GENERATION_CONFIG)).unwrap();
    assert_eq!(
        generation["eos_token_id"],
        json!([2, 3]),
        "what the folder says stays"
    );
    assert_eq!(
        summary(to.path()).unwrap()[1],
        ("parameters".to_owned(), json!(6))
    );
}

#[test]
fn what_is_missing_is_named() {
    for name in [CONFIG, TOKENIZER] {
        let folder = folder();
        std::fs::remove_file(folder.path().join(name)).unwrap();
        assert!(
            refusal(&folder)
                .message
                .ends_with(&format!("has no {name}"))
        );
    }
    let folder = folder();
    std::fs::rename(
        folder.path().join("model.safetensors"),
        folder.path().join("model.gguf"),
    )
    .unwrap();
    let failure = refusal(&folder);
    assert!(failure.message.contains("no *.safetensors"), "{failure}");
    assert!(failure.hint.unwrap().contains("model.gguf"));
}

#[test]
fn a_shard_that_is_missing_is_named() {
    let folder = folder();
    let index = r#"{"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}"#;
    std::fs::write(folder.path().join(INDEX), index).unwrap();
    assert!(
        refusal(&folder)
            .message
            .contains("model-2.safetensors, which is not there")
    );
}

#[test]
fn damaged_weights_are_refused() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(
        refusal(&folder)
            .message
            .contains("model.safetensors is damaged")
    );
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1").unwrap();
    assert!(refusal(&folder).hint.unwrap().contains("Git LFS"));
}
