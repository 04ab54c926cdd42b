//! A tiny random Llama model folder for tests: [`tiny_model`]; the same as a
//! Qwen2, with biases: [`tiny_qwen2`]; with Llama 3's stretched RoPE: [`tiny_llama3`].
//!
//! Byte-level BPE without merges, so every byte is a token; two ChatML tokens;
//! two layers of width 64 with tied embeddings and weights from Philox.

pub(crate) mod forward;

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::engine::Generation;
use crate::model::llama::Llama;
use genius::kind::engine::{self, Engine, Options};
use genius::method::random::Stream;
use genius::protocol::Execution;

/// Tokens in the vocabulary: 256 bytes, then the special ones, then filler.
pub(crate) const VOCAB: usize = 300;
/// Start of a turn.
pub(crate) const IM_START: u32 = 256;
/// End of a turn, the end token.
pub(crate) const IM_END: u32 = 257;
/// Context of the model.
pub(crate) const CONTEXT: usize = 512;
const HIDDEN: usize = 64;
const FFN: usize = 128;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// ChatML as SmolLM2's, without its default system message.
pub(crate) const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + \
     '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
     {{ '<|im_start|>assistant\n' }}{% endif %}";

/// The character of a byte in byte-level BPE (GPT-2).
fn char_of_byte(byte: u8) -> char {
    let own = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if own(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|&b| !own(b)).count();
    u32::try_from(0x100 + before)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or('?')
}

/// `tokenizer.json`: id of a byte is its value.
fn tokenizer() -> Value {
    let mut vocab: serde_json::Map<String, Value> = (0..=u8::MAX)
        .map(|b| (char_of_byte(b).to_string(), b.into()))
        .collect();
    // The special ones too: a tokenizer renumbers added tokens it does not find here.
    vocab.insert("<|im_start|>".into(), IM_START.into());
    vocab.insert("<|im_end|>".into(), IM_END.into());
    for id in 258..VOCAB {
        // Words without a merge: they can be generated, not encoded.
        vocab.insert(format!("word{id}"), id.into());
    }
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(IM_START, "<|im_start|>"), special(IM_END, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        },
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

/// The architecture that a model folder declares.
#[derive(Clone, Copy, PartialEq)]
enum Architecture {
    Llama,
    Qwen2,
}

fn config(architecture: Architecture) -> Value {
    let mut config = llama_config();
    if let (Architecture::Qwen2, Some(map)) = (architecture, config.as_object_mut()) {
        map.remove("attention_bias");
        map.remove("mlp_bias");
        map.insert("architectures".into(), json!(["Qwen2ForCausalLM"]));
        map.insert("model_type".into(), "qwen2".into());
        map.insert("use_sliding_window".into(), false.into());
        map.insert("sliding_window".into(), CONTEXT.into());
    }
    config
}

fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN / HEADS, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": null, "max_position_embeddings": CONTEXT,
        "vocab_size": VOCAB, "tie_word_embeddings": true, "attention_bias": false,
        "mlp_bias": false, "bos_token_id": IM_START, "eos_token_id": IM_END,
        "torch_dtype": "float32", "use_cache": true,
    })
}

/// Names and shapes of the weights, as in Hugging Face's checkpoints.
fn shapes(architecture: Architecture) -> Vec<(String, Vec<usize>)> {
    let kv = HIDDEN / HEADS * KV_HEADS;
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![FFN, HIDDEN]),
            ("mlp.up_proj", vec![FFN, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FFN]),
        ] {
            all.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
        if architecture == Architecture::Qwen2 {
            for (name, width) in [("q", HIDDEN), ("k", kv), ("v", kv)] {
                let name = format!("model.layers.{layer}.self_attn.{name}_proj.bias");
                all.push((name, vec![width]));
            }
        }
    }
    all
}

/// A weight of the model of `seed`, row by row; a norm's is all ones.
fn weight(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let len = shape.iter().product();
    if name.ends_with("norm.weight") {
        return vec![1.0; len];
    }
    let stream = Stream::new(seed, "tiny model", name, &[]);
    // Uniform with a deviation of 0.3: logits neither flat nor all on one token.
    (0..len)
        .map(|i| ((stream.uniform(0, i as u64) - 0.5) * 1.04) as f32)
        .collect()
}

/// A stage on a CPU.
pub(crate) fn on_cpu() -> Execution {
    Execution {
        device: "cpu".into(),
        ..Execution::default()
    }
}

/// An engine with `width` sequences in flight.
pub(crate) fn options(engine: Engine, dtype: engine::Dtype, width: usize) -> Options {
    Options {
        engine,
        dtype,
        width,
        kv_cache_gb: 0.0,
    }
}

/// Writes the model of `seed` into `folder`.
pub(crate) fn tiny_model(folder: &Path, seed: u64) {
    write_model(folder, seed, Architecture::Llama);
}

/// The same model as a Qwen2: with biases on q, k and v.
pub(crate) fn tiny_qwen2(folder: &Path, seed: u64) {
    write_model(folder, seed, Architecture::Qwen2);
}

/// The same model with Llama 3's RoPE scaling, its context from 32 stretched to 512.
pub(crate) fn tiny_llama3(folder: &Path, seed: u64) {
    tiny_model(folder, seed);
    let mut config = llama_config();
    config["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// How far the log-probabilities of a generation are from those of the
/// trainer's model over the same tokens, at most.
pub(crate) fn off_by(model: &Llama, context: &[u32], generation: &Generation) -> f64 {
    let tokens: Vec<i64> = context
        .iter()
        .chain(&generation.tokens)
        .map(|&t| i64::from(t))
        .collect();
    let ids = Tensor::from_slice(&tokens).unsqueeze(0);
    let logprobs = tch::no_grad(|| model.logits(&model.forward(&ids)))
        .squeeze_dim(0)
        .log_softmax(-1, Kind::Double);
    assert!(!generation.tokens.is_empty());
    assert_eq!(generation.tokens.len(), generation.logprobs.len());
    let recorded = generation.logprobs.iter().enumerate();
    recorded
        .map(|(i, &got)| {
            let at = context.len() + i;
            let want = logprobs.double_value(&[at as i64 - 1, tokens[at]]);
            (f64::from(got) - want).abs()
        })
        .fold(0.0, f64::max)
}

fn write_model(folder: &Path, seed: u64, architecture: Architecture) {
    let write = |name: &str, json: &Value| {
        std::fs::write(folder.join(name), json.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer());
    write("config.json", &config(architecture));
    write("generation_config.json", &json!({"eos_token_id": IM_END}));
    write(
        "tokenizer_config.json",
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>", "chat_template": CHATML,
        }),
    );
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes(architecture)
        .into_iter()
        .map(|(name, shape)| {
            let values = weight(seed, &name, &shape);
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (name, shape, bytes)
        })
        .collect();
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        })
        .collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, Some(metadata), &path).unwrap();
}

/// The folder that the programs' tests and `examples/tiny.yaml` use.
/// `UPDATE_TINY_MODEL=1` writes it anew.
#[test]
fn the_committed_tiny_model_is_this_one() {
    let made = tempfile::tempdir().unwrap();
    tiny_model(made.path(), 1);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-model");
    if std::env::var_os("UPDATE_TINY_MODEL").is_some() {
        std::fs::create_dir_all(&kept).unwrap();
        for entry in std::fs::read_dir(made.path()).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, kept.join(from.file_name().unwrap())).unwrap();
        }
    }
    for entry in std::fs::read_dir(made.path()).unwrap() {
        let from = entry.unwrap().path();
        let to = kept.join(from.file_name().unwrap());
        assert!(
            std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(),
            "{} is not what `tiny_model` makes",
            to.display()
        );
    }
}
