//! Model folders: what is taken, and what is refused.

use super::*;
use crate::model::checkpoint::{Checkpoint, WEIGHTS_FILE};
use crate::model::testing::context;

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
    let generation =
        read_object(&to.path().join(GENERATION_CONFIG), limit(GENERATION_CONFIG)).unwrap();
    assert_eq!(
        generation["eos_token_id"],
        json!([2, 3]),
        "what the folder has stays"
    );
    assert_eq!(
        figures(to.path()).unwrap()[1],
        Figure::new("parameters", 6, Unit::Count)
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
    std::fs::write(folder.path().join(INDEX_FILE), index).unwrap();
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
    assert!(refusal(&folder).message.contains("git lfs pull"));
}

/// The same folder with files changed.
fn changed(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = folder();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What is copied of it.
fn copied(folder: &tempfile::TempDir) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    copy(&context(), folder.path(), out.path()).unwrap();
    out
}

fn one_value(name: &str, value: f32) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &bytes).unwrap();
    safetensors::serialize([(name, view)], None).unwrap()
}

/// Names by which every engine finds the same tensors, and no other weights.
#[test]
fn shards_are_copied_under_the_names_that_all_readers_know() {
    let folder = folder();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    std::fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
    put("b.safetensors", &one_value("x", 1.0));
    put("a.safetensors", &one_value("y", 2.0));
    put("consolidated.safetensors", &one_value("x", 9.0));
    put("model.fp16.safetensors", &one_value("x", 9.0));
    put(
        INDEX_FILE,
        br#"{"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}"#,
    );
    let out = copied(&folder);
    let index = read_object(&out.path().join(INDEX_FILE), limit(INDEX_FILE)).unwrap();
    assert_eq!(
        index["weight_map"],
        json!({ "x": "model-00002-of-00002.safetensors", "y": "model-00001-of-00002.safetensors" })
    );
    let read = Checkpoint::open(out.path()).unwrap();
    assert!(read.strays().is_empty());
    read.check_for_mistralrs().unwrap();
    let mut bytes = Vec::new();
    read.read(&read.tensors()["x"], &mut bytes).unwrap();
    assert_eq!(bytes, 1.0f32.to_le_bytes());
}

#[test]
fn an_index_that_names_plain_shards_is_kept_as_it_is() {
    let folder = folder();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    std::fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
    let [one, two] = [1, 2].map(|n| format!("model-0000{n}-of-00002.safetensors"));
    put(&one, &one_value("x", 1.0));
    put(&two, &one_value("y", 2.0));
    // Without an index it gets one.
    let made = copied(&folder);
    assert!(made.path().join(INDEX_FILE).is_file());
    let index = format!(
        r#"{{"metadata": {{"of": "mine"}}, "weight_map": {{"x": "{one}", "y": "{two}"}}}}"#
    );
    put(INDEX_FILE, index.as_bytes());
    let kept = std::fs::read_to_string(copied(&folder).path().join(INDEX_FILE)).unwrap();
    assert_eq!(kept, index);
}

#[test]
fn a_single_file_needs_no_index_and_gets_none() {
    let folder = changed(&[(INDEX_FILE, r#"{"weight_map": {"w": "model.safetensors"}}"#)]);
    let out = copied(&folder);
    assert!(out.path().join(WEIGHTS_FILE).is_file());
    assert!(!out.path().join(INDEX_FILE).exists());
}

#[test]
fn an_adapter_is_refused_whatever_else_is_missing() {
    let folder = changed(&[("adapter_config.json", "{}")]);
    for name in [TOKENIZER, CONFIG] {
        let failure = refusal(&folder);
        assert!(failure.message.contains("adapter (LoRA)"), "{failure}");
        assert!(failure.hint.unwrap().contains("merge"));
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert!(
        is_wanted("adapter_config.json"),
        "so that a hub's is refused too"
    );
}

/// A message must not name a file in a folder that is gone when it is read.
#[test]
fn refusals_name_the_users_own_path() {
    for (name, text) in [
        (CONFIG, "{"),
        (CONFIG, r#"{"eos_token_id": 2, "eos_token_id": 3}"#),
        (GENERATION_CONFIG, "{"),
        (GENERATION_CONFIG, "[]"),
        (GENERATION_CONFIG, r#"{"eos_token_id": "2"}"#),
        (GENERATION_CONFIG, r#"{"eos_token_id": [2, -1]}"#),
        (TOKENIZER_CONFIG, "{"),
        (TOKENIZER, "{"),
        (TOKENIZER, "[]"),
        (INDEX_FILE, "{"),
        (WEIGHTS_FILE, "{"),
    ] {
        let folder = changed(&[(name, text)]);
        let failure = refusal(&folder);
        let own = folder.path().join(name).display().to_string();
        assert!(
            failure.message.starts_with(&own),
            "{name} {text}: {failure}"
        );
    }
    let folder = changed(&[(TOKENIZER_CONFIG, "{}")]);
    let template = folder.path().join(CHAT_TEMPLATE);
    std::fs::write(&template, [0xFF]).unwrap();
    assert!(
        refusal(&folder)
            .message
            .starts_with(&template.display().to_string())
    );
}

#[test]
fn huge_files_are_refused_unread() {
    for name in [
        CONFIG,
        GENERATION_CONFIG,
        TOKENIZER_CONFIG,
        TOKENIZER,
        INDEX_FILE,
        "vocab.json",
    ] {
        let folder = folder();
        std::fs::File::create(folder.path().join(name))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        let failure = refusal(&folder);
        assert!(failure.message.contains(name), "{failure}");
        assert!(failure.message.contains("is larger than"), "{failure}");
    }
}

#[test]
fn the_end_token_of_the_tokenizer_is_written_out() {
    let bare = |tokenizer_config: &str| {
        changed(&[
            (CONFIG, r#"{"model_type": "other"}"#),
            (
                GENERATION_CONFIG,
                r#"{"temperature": 0.7, "eos_token_id": []}"#,
            ),
            (TOKENIZER_CONFIG, tokenizer_config),
            (
                TOKENIZER,
                r#"{"added_tokens": [{"id": 7, "content": "<end>"}], "model": {"vocab": {"</s>": 2}}}"#,
            ),
        ])
    };
    let unigram = bare(r#"{"chat_template": "x", "eos_token": "</s>"}"#);
    let pieces = r#"{"model": {"vocab": [["<unk>", 0.0], ["</s>", -1.0]]}}"#;
    std::fs::write(unigram.path().join(TOKENIZER), pieces).unwrap();
    let out = copied(&unigram);
    let path = out.path().join(GENERATION_CONFIG);
    let generation = read_object(&path, limit(GENERATION_CONFIG)).unwrap();
    assert_eq!(generation["eos_token_id"], 1);
    for (tokenizer_config, id) in [
        (r#"{"chat_template": "x", "eos_token": "<end>"}"#, 7),
        (
            r#"{"chat_template": "x", "eos_token": {"content": "<end>"}}"#,
            7,
        ),
        (r#"{"chat_template": "x", "eos_token": "</s>"}"#, 2),
    ] {
        let out = copied(&bare(tokenizer_config));
        let path = out.path().join(GENERATION_CONFIG);
        let generation = read_object(&path, limit(GENERATION_CONFIG)).unwrap();
        assert_eq!(generation["eos_token_id"], id, "{tokenizer_config}");
        assert_eq!(generation["temperature"], 0.7);
    }
    // The map goes over it.
    let mapped = bare(r#"{"chat_template": "x", "eos_token": "<end>"}"#);
    let map = r#"{"eos_token": {"content": "</s>"}}"#;
    std::fs::write(mapped.path().join(SPECIAL_TOKENS_MAP), map).unwrap();
    let out = copied(&mapped);
    let path = out.path().join(GENERATION_CONFIG);
    let generation = read_object(&path, limit(GENERATION_CONFIG)).unwrap();
    assert_eq!(generation["eos_token_id"], 2);
    for tokenizer_config in [
        "{}",
        r#"{"eos_token": null}"#,
        r#"{"eos_token": "nowhere"}"#,
    ] {
        let out = copied(&bare(tokenizer_config));
        let path = out.path().join(GENERATION_CONFIG);
        let generation = read_object(&path, limit(GENERATION_CONFIG)).unwrap();
        assert_eq!(generation["eos_token_id"], json!([]), "as it was");
    }
}

/// With the tensors of another model, or values that mean nothing.
#[test]
fn a_config_that_is_not_of_the_weights_is_refused_at_once() {
    let words = |config: &str| {
        let folder = changed(&[(CONFIG, config)]);
        let shown = folder.path().display().to_string();
        verify(folder.path()).map_err(|e| e.message.replace(&shown, "m"))
    };
    let llama = |layers: &str| {
        format!(
            r#"{{"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": {layers}, "num_attention_heads": 2}}"#
        )
    };
    insta::assert_snapshot!(
        words(&llama("4000")).unwrap_err(),
        @"m/config.json: num_hidden_layers: 4000 layers, but the weights hold only 1 tensors"
    );
    insta::assert_snapshot!(
        words(&llama("1000000000000")).unwrap_err(),
        @"m/config.json: num_hidden_layers: 1000000000000 is not a whole number from 1 to 4096"
    );
    assert!(
        words(&llama("1"))
            .unwrap_err()
            .contains("that the weights lack")
    );
    assert_eq!(
        words(r#"{"model_type": "gemma3"}"#),
        Ok(()),
        "another engine may know it"
    );
}

/// Of an architecture that is not built here, too: mistral.rs leaves the head out.
#[test]
fn a_tied_head_of_its_own_is_refused_for_every_engine() {
    let folder = changed(&[(
        CONFIG,
        r#"{"model_type": "gemma3", "tie_word_embeddings": true}"#,
    )]);
    let put = |head: f32| {
        let values = [1.0f32.to_le_bytes(), head.to_le_bytes()];
        let names = ["model.embed_tokens.weight", "lm_head.weight"];
        let views = names.iter().zip(&values).map(|(name, bytes)| {
            let view =
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1], bytes);
            (*name, view.unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(folder.path().join(WEIGHTS_FILE), bytes).unwrap();
        verify(folder.path())
    };
    put(1.0).unwrap();
    let failure = put(2.0).unwrap_err();
    assert!(
        failure.message.contains("`tie_word_embeddings`"),
        "{failure}"
    );
    assert!(failure.hint.unwrap().contains("false"));
}
