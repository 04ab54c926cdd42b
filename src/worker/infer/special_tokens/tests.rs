//! Which file's word counts, as in transformers.

use serde_json::json;

use super::*;

fn load(files: &[(&str, Value)]) -> Result<SpecialTokens, FolderError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, json) in files {
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    }
    SpecialTokens::load(dir.path())
}

fn added(tokens: &SpecialTokens) -> Vec<String> {
    let beside = tokens.beside(&[]);
    beside.into_iter().map(|t| t.content).collect()
}

#[test]
fn tokens_named_in_the_map_alone_are_found() {
    let map = json!({
        "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": true}, "pad_token": null,
        "sep_token": "[S]", "cls_token": "[C]", "mask_token": "[M]", "unk_token": "<unk>",
        "additional_special_tokens": ["<a>", {"content": "<b>", "normalized": true}],
    });
    let tokens = load(&[(MAP, map)]).unwrap();
    assert_eq!(tokens.text("bos_token"), Some("<s>"));
    assert_eq!(tokens.text("eos_token"), Some("</s>"));
    assert_eq!(tokens.text("pad_token"), None);
    assert_eq!(
        added(&tokens),
        ["<s>", "</s>", "[S]", "[C]", "[M]", "<unk>", "<a>", "<b>"]
    );
    assert!(tokens.beside(&[]).iter().all(|t| t.special));
    assert!(tokens.beside(&[])[1].lstrip && tokens.beside(&[])[7].normalized);
}

#[test]
fn the_map_goes_over_the_configuration() {
    let config = json!({"bos_token": "<c>", "eos_token": "<e>", "add_bos_token": true});
    let map = json!({"bos_token": "<m>"});
    let tokens = load(&[(CONFIG, config), (MAP, map)]).unwrap();
    assert_eq!(tokens.text("bos_token"), Some("<m>"));
    assert_eq!(tokens.text("eos_token"), Some("<e>"));
    assert_eq!(tokens.text("add_bos_token"), None);
}

#[test]
fn a_list_of_added_tokens_silences_the_map() {
    let config = json!({
        "bos_token": {"__type": "AddedToken", "content": "<c>"}, "image_token": "<img>",
        "added_tokens_decoder": {
            "10": {"content": "<z>", "special": true}, "2": {"content": "<y>", "special": false},
        },
    });
    let map = json!({"bos_token": "<m>", "eos_token": "<e>"});
    let more = json!({"<more>": 5});
    let tokens = load(&[(CONFIG, config), (MAP, map), (ADDED, more)]).unwrap();
    assert_eq!(tokens.text("bos_token"), Some("<c>"));
    assert_eq!(tokens.text("eos_token"), None);
    assert_eq!(tokens.text("image_token"), Some("<img>"));
    assert_eq!(added(&tokens), ["<y>", "<z>", "<c>", "<img>"]);
    assert!(!tokens.beside(&[])[0].special && tokens.beside(&[])[0].normalized);
}

#[test]
fn added_tokens_are_special_where_named() {
    let files = [
        (MAP, json!({"bos_token": "<s>"})),
        (ADDED, json!({"plain": 7, "<s>": 3})),
    ];
    let tokens = load(&files).unwrap();
    assert_eq!(added(&tokens), ["<s>", "plain"]);
    assert!(tokens.beside(&[])[0].special && !tokens.beside(&[])[1].special);
}

#[test]
fn the_tokenizer_s_own_word_on_white_space_stays() {
    let own = [AddedToken::from("</s>", true).lstrip(true)];
    let map = json!({"eos_token": {"content": "</s>", "lstrip": false}, "bos_token": "<s>"});
    let beside = load(&[(MAP, map)]).unwrap().beside(&own);
    assert_eq!(beside, [AddedToken::from("<s>", true)]);
    // A list goes over it.
    let config = json!({"added_tokens_decoder": {"2": {"content": "</s>", "special": true}}});
    let beside = load(&[(CONFIG, config)]).unwrap().beside(&own);
    assert_eq!(beside, [AddedToken::from("</s>", true)]);
}

#[test]
fn no_files_name_no_tokens() {
    let tokens = load(&[]).unwrap();
    assert!(tokens.named().is_empty() && tokens.beside(&[]).is_empty());
}

#[test]
fn a_token_of_another_kind_is_refused() {
    let wrong = [
        (CONFIG, json!({"bos_token": 1})),
        (CONFIG, json!({"bos_token": {"text": "<s>"}})),
        (CONFIG, json!({"additional_special_tokens": "<a>"})),
        (CONFIG, json!({"added_tokens_decoder": {"x": "<a>"}})),
        (CONFIG, json!([])),
        (MAP, json!({"eos_token": ["</s>"]})),
        (ADDED, json!({"<a>": "1"})),
    ];
    for (file, json) in wrong {
        let e = load(&[(file, json.clone())]).unwrap_err().to_string();
        assert!(e.contains(file), "{json}: {e}");
    }
}
