//! Prompts of each family of tokenizers beside transformers'
//! (`tests/reference/make_tokenizers.py`).

use std::path::Path;

use serde_json::Value;

use super::*;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/fixtures")
}

fn fixture() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("tokenizers.json")).unwrap()).unwrap()
}

/// A model folder with this tokenizer, and its special tokens in the map alone.
fn folder(tokenizer: &str, template: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, json: Value| {
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    };
    let file = fixtures().join(format!("tokenizers/{tokenizer}.json"));
    std::fs::copy(file, dir.path().join("tokenizer.json")).unwrap();
    write("tokenizer_config.json", json!({"chat_template": template}));
    write(
        "special_tokens_map.json",
        json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>"}),
    );
    dir
}

const FAMILIES: [&str; 10] = [
    "prepend",
    "metaspace_first",
    "metaspace_always",
    "metaspace_never",
    "byte_level",
    "byte_level_blank",
    "llama3",
    "qwen2",
    "flags",
    "unigram",
];

#[test]
fn prompts_are_tokenised_as_in_transformers() {
    let fixture = fixture();
    let template = fixture["template"].as_str().unwrap();
    let mut faults = Vec::new();
    let mut cases = 0;
    for name in FAMILIES {
        let chat = ChatTemplate::load(folder(name, template).path()).unwrap();
        let all = fixture["cases"].as_array().unwrap();
        for case in all.iter().filter(|c| c["tokenizer"] == name) {
            cases += 1;
            let messages = case["messages"].as_array().unwrap();
            let content = |i: usize| messages[i]["content"].as_str().unwrap();
            let system = (messages.len() == 2).then(|| content(0));
            let got = chat.render_prompt(system, content(messages.len() - 1));
            let right = match &got {
                Ok(prompt) => {
                    case["refused"] == false
                        && json!(prompt.token_ids) == case["ids"]
                        && case["text"] == prompt.text.as_str()
                }
                Err(e) => {
                    case["refused"] == true && e.to_string().contains("makes a special token")
                }
            };
            if !right {
                let got = got.map(|p| p.token_ids);
                faults.push(format!(
                    "{name} {}\n  {}\n  {got:?}",
                    case["messages"], case["ids"]
                ));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {cases}:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(cases, fixture["cases"].as_array().unwrap().len());
}

#[test]
fn a_response_prefix_is_given_back_behind_a_prompt() {
    let fixture = fixture();
    for name in FAMILIES {
        let dir = folder(name, "{{ bos_token }}{{ messages[0].content }}");
        let chat = ChatTemplate::load(dir.path()).unwrap();
        let table = TokenBytes::load(dir.path()).unwrap();
        for prefix in fixture["prefixes"].as_array().unwrap() {
            let prefix = prefix.as_str().unwrap();
            let ids = chat.encode_within(prefix, &table);
            if name == "unigram" && prefix.contains("</s>") {
                let e = ids.unwrap_err().to_string();
                assert!(
                    e.contains("no tokens that give the text") && e.contains("</s>"),
                    "{e}"
                );
                continue;
            }
            let ids = ids.unwrap();
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|&id| table.bytes(id).to_vec())
                .collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), prefix, "{name}");
            assert_eq!(table.decode(&ids), prefix, "{name}");
        }
        assert_eq!(chat.encode_within("", &table).unwrap(), [0; 0]);
    }
}

#[test]
fn a_prefix_that_is_changed_is_refused() {
    let dir = folder("qwen2", "{{ messages[0].content }}");
    let chat = ChatTemplate::load(dir.path()).unwrap();
    let table = TokenBytes::load(dir.path()).unwrap();
    // An e and its accent become one letter.
    let e = chat.encode_within("e\u{301}", &table).unwrap_err();
    assert!(e.to_string().contains("tokenizer.json"), "{e}");
}

#[test]
fn cutting_and_filling_of_the_file_are_off() {
    let dir = folder("byte_level", "{{ messages[0].content }}");
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["truncation"] = json!({
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
    });
    json["padding"] = json!({
        "strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<unk>",
    });
    let want = |chat: &ChatTemplate| chat.render_prompt(None, "one two three").unwrap().token_ids;
    let before = want(&ChatTemplate::load(dir.path()).unwrap());
    std::fs::write(&path, json.to_string()).unwrap();
    assert_eq!(want(&ChatTemplate::load(dir.path()).unwrap()), before);
}

#[test]
fn a_token_that_the_tokenizer_lacks_is_refused() {
    let dir = folder("byte_level", "{{ pad_token }}{{ messages[0].content }}");
    let map = json!({"pad_token": "<pad>"});
    std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    let chat = ChatTemplate::load(dir.path()).unwrap();
    let e = chat.render_prompt(None, "q").unwrap_err().to_string();
    assert!(e.contains("has no token \"<pad>\""), "{e}");
}

#[test]
fn a_token_of_the_vocabulary_becomes_special_where_named() {
    let dir = folder("byte_level", "{{ bos_token }}{{ messages[0].content }}");
    let map = json!({"bos_token": "H", "eos_token": "</s>"});
    std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    let chat = ChatTemplate::load(dir.path()).unwrap();
    let table = TokenBytes::load(dir.path()).unwrap();
    let id = table.id_of(b"H").unwrap();
    assert!(table.is_special(id));
    let e = chat.render_prompt(None, "Hi").unwrap_err().to_string();
    assert!(e.contains("makes a special token of plain text"), "{e}");
    assert_eq!(chat.render_prompt(None, "i").unwrap().token_ids[0], id);
}
