//! The table of pre-tokenizers. GGUF holds only a name for it; each entry here
//! is that of the family's tokenizer.json.

use serde_json::{Value, json};

/// Names that are known, for messages.
pub const KNOWN: &[&str] = &[
    "gpt-2",
    "phi-2",
    "smollm",
    "starcoder",
    "llama-bpe",
    "qwen2",
];

/// The parts of a tokenizer.json that a pre-tokenizer's name means.
#[derive(Debug, Clone, PartialEq)]
pub struct PreTokenizer {
    /// `normalizer`.
    pub normalizer: Value,
    /// `pre_tokenizer`.
    pub pre_tokenizer: Value,
    /// `model.ignore_merges`: a whole word of the vocabulary is taken as it is.
    pub ignore_merges: bool,
    /// Whether a text begins with the bos token if the file does not decide it.
    pub adds_bos: bool,
}

/// Llama 3: contractions, words, numbers of up to three digits, punctuation, space.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: the same with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The entry of that name (`tokenizer.ggml.pre`).
pub fn find(name: &str) -> Option<PreTokenizer> {
    let plain = |pre_tokenizer| PreTokenizer {
        normalizer: Value::Null,
        pre_tokenizer,
        ignore_merges: false,
        adds_bos: false,
    };
    Some(match name {
        // GPT-2's own expression is built into ByteLevel.
        "gpt-2" | "phi-2" => plain(byte_level(true, true)),
        "smollm" | "starcoder" => plain(json!({
            "type": "Sequence",
            "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level(true, true)],
        })),
        "llama-bpe" => PreTokenizer {
            ignore_merges: true,
            adds_bos: true,
            ..plain(split(LLAMA3, byte_level(true, false)))
        },
        "qwen2" => PreTokenizer {
            normalizer: json!({ "type": "NFC" }),
            ..plain(split(QWEN2, byte_level(false, false)))
        },
        _ => return None,
    })
}

fn byte_level(trim_offsets: bool, use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": trim_offsets,
        "use_regex": use_regex,
    })
}

fn split(expression: &str, then: Value) -> Value {
    json!({
        "type": "Sequence",
        "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false },
            then,
        ],
    })
}
