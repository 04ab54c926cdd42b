//! Tokenizers that are made from a GGUF file.

use super::*;

#[test]
fn end_tokens_are_explicit() {
    let plain = Tiny::llama(GgmlDType::F32)
        .convert()
        .json("generation_config.json");
    assert_eq!(plain["eos_token_id"], serde_json::json!([2]));
    let two = Tiny::llama(GgmlDType::F32).set("tokenizer.ggml.eot_token_id", Meta::U32(0));
    assert_eq!(
        two.convert().json("generation_config.json")["eos_token_id"],
        serde_json::json!([0, 2])
    );
}

#[test]
fn the_tokenizer_splits_as_its_family_does() {
    let encode = |pre: &str, text: &str| {
        let made = Tiny::llama(GgmlDType::F32)
            .text("tokenizer.ggml.pre", pre)
            .convert();
        made.tokenizer()
            .encode(text, true)
            .unwrap()
            .get_tokens()
            .to_vec()
    };
    assert_eq!(
        encode("smollm", "ab ab 12"),
        ["ab", "Ġab", "Ġ", "1", "2"],
        "single digits"
    );
    assert_eq!(
        encode("gpt-2", "ab 12"),
        ["ab", "Ġ", "12"],
        "numbers are whole"
    );
    assert_eq!(encode("qwen2", "ab 12"), ["ab", "Ġ", "1", "2"]);
    assert_eq!(
        encode("llama-bpe", "ab 12"),
        ["<|im_start|>", "ab", "Ġ", "12"],
        "bos first"
    );
}

#[test]
fn special_tokens_are_found_in_templates_and_left_out_of_texts() {
    let tokenizer = Tiny::llama(GgmlDType::F32).convert().tokenizer();
    let ids = tokenizer
        .encode("<|im_start|>ab<|im_end|>\n", false)
        .unwrap()
        .get_ids()
        .to_vec();
    assert_eq!((ids[0], ids[2]), (1, 2));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab\n");
    assert_eq!(
        tokenizer.decode(&ids, false).unwrap(),
        "<|im_start|>ab<|im_end|>\n"
    );
}

#[test]
fn bos_is_added_if_the_file_asks_for_it() {
    let made = Tiny::llama(GgmlDType::F32)
        .set("tokenizer.ggml.add_bos_token", Meta::Bool(true))
        .convert();
    assert_eq!(made.tokenizer().encode("ab", true).unwrap().get_ids()[0], 1);
    assert_eq!(
        made.json("tokenizer_config.json")["bos_token"],
        "<|im_start|>"
    );
    assert_eq!(
        made.json("tokenizer_config.json")["chat_template"],
        "{{ messages[0].content }}"
    );
}

#[test]
fn every_known_pre_tokenizer_loads() {
    for name in pre_tokenizer::KNOWN {
        let made = Tiny::llama(GgmlDType::F32)
            .text("tokenizer.ggml.pre", name)
            .convert();
        let tokenizer = made.tokenizer();
        let ids = tokenizer
            .encode("ab, ab!\n\n12", false)
            .unwrap()
            .get_ids()
            .to_vec();
        assert_eq!(
            tokenizer.decode(&ids, true).unwrap(),
            "ab, ab!\n\n12",
            "{name}"
        );
    }
}
