//! Tables of small vocabularies, and end tokens from the files of a folder.

use super::*;
use serde_json::json;

fn byte_level() -> Value {
    json!({
        "model": {"vocab": {"Hello": 0, "Ġworld": 1, ".ĊĊ": 2, "Ã": 3, "©": 4}},
        "added_tokens": [
            {"id": 5, "content": "<|im_end|>", "special": true},
            {"id": 6, "content": "<end_of_reasoning>", "special": false},
        ],
        "decoder": {"type": "ByteLevel"},
    })
}

#[test]
fn byte_level_tokens_are_bytes_and_characters_join_across_tokens() {
    let t = TokenBytes::from_json(&byte_level()).unwrap();
    assert_eq!(t.bytes(2), b".\n\n");
    assert_eq!(t.decode(&[0, 1, 2]), "Hello world.\n\n");
    assert_eq!(t.decode(&[3, 4]), "é");
    assert_eq!(t.decode(&[3]), "\u{FFFD}");
    assert_eq!(t.bytes(99), b"");
}

#[test]
fn special_and_end_tokens_are_no_text() {
    let t = TokenBytes::from_json(&byte_level()).unwrap();
    assert_eq!(t.decode(&[0, 5]), "Hello");
    assert_eq!(t.decode(&[0, 6]), "Hello<end_of_reasoning>");
    let ended = TokenBytes { ends: vec![6], ..t };
    assert_eq!(ended.decode(&[0, 6]), "Hello");
}

#[test]
fn all_256_bytes_have_a_character() {
    let chars = byte_of_char();
    assert_eq!(chars.len(), 256);
    assert_eq!(chars[&'Ġ'], b' ');
    assert_eq!(chars[&'Ċ'], b'\n');
    assert_eq!(chars[&'Ń'], 0xAD);
}

#[test]
fn sentencepiece_has_a_space_mark_and_byte_tokens() {
    let t = TokenBytes::from_json(&json!({
        "model": {"vocab": {"▁Hi": 0, "<0x0A>": 1, "<0xE2>": 2, "<0xZZ>": 3}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
    }))
    .unwrap();
    assert_eq!(t.bytes(0), b" Hi");
    assert_eq!(t.bytes(1), b"\n");
    assert_eq!(t.bytes(2), b"\xE2");
    assert_eq!(t.bytes(3), b"<0xZZ>");
}

#[test]
fn an_unknown_decoder_is_refused() {
    let e = TokenBytes::from_json(&json!({
        "model": {"vocab": {"a": 0}}, "decoder": {"type": "WordPiece"},
    }));
    assert!(
        e.unwrap_err()
            .contains("neither ByteLevel nor ByteFallback")
    );
}

fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), byte_level().to_string()).unwrap();
    for (name, json) in files {
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    }
    dir
}

#[test]
fn end_tokens_come_from_the_first_file_that_names_them() {
    let tokenizer = (
        "tokenizer_config.json",
        json!({"eos_token": {"content": "<|im_end|>"}}),
    );
    let config = ("config.json", json!({"eos_token_id": 6}));
    let generation = ("generation_config.json", json!({"eos_token_id": [5, 6]}));
    let ends = |files: &[(&str, Value)]| {
        TokenBytes::load(folder(files).path())
            .unwrap()
            .ends()
            .to_vec()
    };
    assert_eq!(ends(std::slice::from_ref(&tokenizer)), [5]);
    assert_eq!(ends(&[tokenizer.clone(), config.clone()]), [6]);
    assert_eq!(ends(&[tokenizer, config, generation]), [5, 6]);
}

#[test]
fn an_end_token_outside_the_vocabulary_is_refused() {
    let dir = folder(&[("config.json", json!({"eos_token_id": 99}))]);
    let e = TokenBytes::load(dir.path()).unwrap_err().to_string();
    assert!(
        e.contains("config.json") && e.contains("99 is outside the vocabulary of 7"),
        "{e}"
    );
    let dir = folder(&[("tokenizer_config.json", json!({"eos_token": "</s>"}))]);
    let e = TokenBytes::load(dir.path()).unwrap_err().to_string();
    assert!(e.contains("\"</s>\" is not in the vocabulary"), "{e}");
    let e = TokenBytes::load(folder(&[]).path())
        .unwrap_err()
        .to_string();
    assert!(e.contains("no end token"), "{e}");
}
