//! Tiny GGUF files, written by candle's writer (not by the reader's own rules),
//! through the whole conversion.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Value as Meta, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::Value;

use super::*;
use crate::model::checkpoint::Checkpoint;
use crate::model::llama::Llama;
use crate::model::testing::context;

mod hostile;
mod tokenizer;

const HIDDEN: usize = 256;
const INNER: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = HIDDEN / HEADS;

/// A one-layer model in the making.
struct Tiny {
    metadata: BTreeMap<String, Meta>,
    tensors: BTreeMap<String, (Tensor, GgmlDType)>,
}

/// Values that are different everywhere, small, and the same every time.
fn values(count: usize, salt: u64) -> Vec<f32> {
    (0..count as u64)
        .map(|i| {
            let mixed = (i + 1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(salt.wrapping_mul(0xD1B5_4A32_D192_ED03));
            ((mixed >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2
        })
        .collect()
}

fn tensor(shape: &[usize], salt: u64) -> Tensor {
    Tensor::from_vec(values(shape.iter().product(), salt), shape, &Device::Cpu).unwrap()
}

/// GPT-2's letters for bytes: enough of them for the tests' texts.
fn tokens() -> (Vec<String>, Vec<i32>, Vec<String>) {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let letters = (b'!'..=b'~')
        .map(|b| char::from(b).to_string())
        .chain(["Ġ".to_owned(), "Ċ".to_owned()]);
    let merges = ["a b".to_owned(), "Ġ ab".to_owned(), "1 2".to_owned()];
    let merged = merges.iter().map(|m| m.replace(' ', ""));
    let tokens: Vec<String> = specials
        .iter()
        .map(|s| (*s).to_owned())
        .chain(letters)
        .chain(merged)
        .collect();
    let kinds = (0..tokens.len())
        .map(|id| if id < specials.len() { 3 } else { 1 })
        .collect();
    (tokens, kinds, merges.to_vec())
}

impl Tiny {
    fn llama(dtype: GgmlDType) -> Self {
        let (tokens, kinds, merges) = tokens();
        let texts =
            |items: &[String]| Meta::Array(items.iter().cloned().map(Meta::String).collect());
        let text = |s: &str| Meta::String(s.to_owned());
        let metadata = [
            ("general.architecture", text("llama")),
            ("llama.block_count", Meta::U32(1)),
            ("llama.context_length", Meta::U32(512)),
            ("llama.embedding_length", Meta::U32(HIDDEN as u32)),
            ("llama.feed_forward_length", Meta::U32(INNER as u32)),
            ("llama.attention.head_count", Meta::U32(HEADS as u32)),
            ("llama.attention.head_count_kv", Meta::U32(KV_HEADS as u32)),
            ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
            ("llama.rope.freq_base", Meta::F32(100_000.0)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(&tokens)),
            (
                "tokenizer.ggml.token_type",
                Meta::Array(kinds.into_iter().map(Meta::I32).collect()),
            ),
            ("tokenizer.ggml.merges", texts(&merges)),
            ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
            ("tokenizer.ggml.eos_token_id", Meta::U32(2)),
            ("tokenizer.ggml.padding_token_id", Meta::U32(0)),
            ("tokenizer.chat_template", text("{{ messages[0].content }}")),
        ];
        let kv = KV_HEADS * HEAD_DIM;
        let matrices = [
            ("token_embd.weight", vec![tokens.len(), HIDDEN]),
            ("blk.0.attn_q.weight", vec![HIDDEN, HIDDEN]),
            ("blk.0.attn_k.weight", vec![kv, HIDDEN]),
            ("blk.0.attn_v.weight", vec![kv, HIDDEN]),
            ("blk.0.attn_output.weight", vec![HIDDEN, HIDDEN]),
            ("blk.0.ffn_gate.weight", vec![INNER, HIDDEN]),
            ("blk.0.ffn_up.weight", vec![INNER, HIDDEN]),
            ("blk.0.ffn_down.weight", vec![HIDDEN, INNER]),
        ];
        let norms = [
            "output_norm.weight",
            "blk.0.attn_norm.weight",
            "blk.0.ffn_norm.weight",
        ];
        let tensors = matrices
            .into_iter()
            .enumerate()
            .map(|(salt, (name, shape))| (name.to_owned(), (tensor(&shape, salt as u64), dtype)))
            .chain(
                norms
                    .iter()
                    .map(|name| ((*name).to_owned(), (tensor(&[HIDDEN], 99), GgmlDType::F32))),
            )
            .collect();
        Self {
            metadata: metadata
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect(),
            tensors,
        }
    }

    fn set(mut self, key: &str, value: Meta) -> Self {
        self.metadata.insert(key.to_owned(), value);
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.set(key, Meta::String(value.to_owned()))
    }

    fn without(mut self, name: &str) -> Self {
        assert!(self.metadata.remove(name).is_some() || self.tensors.remove(name).is_some());
        self
    }

    fn with(mut self, name: &str, tensor: Tensor) -> Self {
        self.tensors
            .insert(name.to_owned(), (tensor, GgmlDType::F32));
        self
    }

    /// Turns the Llama into the Qwen 2 of the same shape.
    fn qwen2(mut self) -> Self {
        self.metadata = self
            .metadata
            .into_iter()
            .map(|(k, v)| (k.replace("llama.", "qwen2."), v))
            .collect();
        let kv = KV_HEADS * HEAD_DIM;
        self.text("general.architecture", "qwen2")
            .text("tokenizer.ggml.pre", "qwen2")
            .with("blk.0.attn_q.bias", tensor(&[HIDDEN], 1))
            .with("blk.0.attn_k.bias", tensor(&[kv], 2))
            .with("blk.0.attn_v.bias", tensor(&[kv], 3))
    }

    fn bytes(&self) -> Vec<u8> {
        let quantised: Vec<(&str, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, (tensor, dtype))| {
                (name.as_str(), QTensor::quantize(tensor, *dtype).unwrap())
            })
            .collect();
        let tensors: Vec<(&str, &QTensor)> = quantised.iter().map(|(n, t)| (*n, t)).collect();
        let metadata: Vec<(&str, &Meta)> =
            self.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let mut bytes = std::io::Cursor::new(Vec::new());
        write(&mut bytes, &metadata, &tensors).unwrap();
        bytes.into_inner()
    }

    fn convert(&self) -> Converted {
        convert_bytes(&self.bytes()).unwrap()
    }

    fn refusal(&self) -> Failure {
        convert_bytes(&self.bytes()).unwrap_err()
    }
}

/// A converted folder, and what is in it.
#[derive(Debug)]
struct Converted(tempfile::TempDir);

impl Converted {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn tensors(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        read_safetensors(&self.path("model.safetensors"))
    }

    fn tokenizer(&self) -> tokenizers::Tokenizer {
        tokenizers::Tokenizer::from_file(self.path("tokenizer.json")).unwrap()
    }
}

fn read_safetensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .map(|(name, view)| {
            let values = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        })
        .collect()
}

fn convert_bytes(bytes: &[u8]) -> Result<Converted, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    std::fs::write(&file, bytes).unwrap();
    convert(&context(), &file, &file.display().to_string(), dir.path())?;
    Ok(Converted(dir))
}

/// Row `to` of a Hugging Face q or k matrix lies at this row of GGUF's, by the
/// rotation itself: in the Hugging Face layout value `i` of a head turns with
/// value `i + d/2`, in GGUF's `2i` with `2i + 1`.
fn gguf_row(row: usize) -> usize {
    let (head, within) = (row / HEAD_DIM, row % HEAD_DIM);
    let (side, pair) = if within < HEAD_DIM / 2 {
        (0, within)
    } else {
        (1, within - HEAD_DIM / 2)
    };
    head * HEAD_DIM + 2 * pair + side
}

#[test]
fn every_quantisation_gives_its_values_back() {
    // Largest error, as a share of the largest value: half a step of the format.
    for (dtype, tolerance) in [
        (GgmlDType::F32, 0.0),
        (GgmlDType::F16, 1e-3),
        (GgmlDType::BF16, 8e-3),
        (GgmlDType::Q8_0, 1.0 / 127.0),
        (GgmlDType::Q4_0, 1.0 / 7.0),
        (GgmlDType::Q4_1, 1.0 / 14.0),
        (GgmlDType::Q4K, 1.0 / 12.0),
        (GgmlDType::Q6K, 1.0 / 31.0),
    ] {
        let tiny = Tiny::llama(dtype);
        let (shape, got) = &tiny.convert().tensors()["model.layers.0.mlp.down_proj.weight"];
        assert_eq!(shape, &[HIDDEN, INNER], "{dtype:?}");
        let (source, _) = &tiny.tensors["blk.0.ffn_down.weight"];
        let expected: Vec<f32> = source.flatten_all().unwrap().to_vec1().unwrap();
        let worst = got
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst <= tolerance * 0.1, "{dtype:?}: off by {worst}");
        assert!(
            dtype == GgmlDType::F32 || worst > 0.0,
            "{dtype:?}: nothing was quantised"
        );
    }
}

#[test]
fn q_and_k_rows_go_back_and_no_others() {
    let tiny = Tiny::llama(GgmlDType::F32);
    let tensors = tiny.convert().tensors();
    let source = |name: &str| tiny.tensors[name].0.to_vec2::<f32>().unwrap();
    for (gguf, name) in [("attn_q", "q_proj"), ("attn_k", "k_proj")] {
        let rows = source(&format!("blk.0.{gguf}.weight"));
        let expected: Vec<f32> = (0..rows.len())
            .flat_map(|row| rows[gguf_row(row)].clone())
            .collect();
        assert_eq!(
            tensors[&format!("model.layers.0.self_attn.{name}.weight")].1,
            expected,
            "{gguf}"
        );
    }
    for (gguf, name) in [
        ("token_embd", "model.embed_tokens"),
        ("blk.0.attn_v", "model.layers.0.self_attn.v_proj"),
        ("blk.0.attn_output", "model.layers.0.self_attn.o_proj"),
        ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"),
        ("blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
    ] {
        assert_eq!(
            tensors[&format!("{name}.weight")].1,
            source(&format!("{gguf}.weight")).concat(),
            "{gguf}"
        );
    }
}

#[test]
fn qwen2_keeps_its_rows_and_biases() {
    let tiny = Tiny::llama(GgmlDType::F32).qwen2();
    let made = tiny.convert();
    let tensors = made.tensors();
    let rows = tiny.tensors["blk.0.attn_q.weight"]
        .0
        .to_vec2::<f32>()
        .unwrap()
        .concat();
    assert_eq!(tensors["model.layers.0.self_attn.q_proj.weight"].1, rows);
    assert_eq!(
        tensors["model.layers.0.self_attn.k_proj.bias"].0,
        [KV_HEADS * HEAD_DIM]
    );
    assert_eq!(
        made.json("config.json")["architectures"][0],
        "Qwen2ForCausalLM"
    );
    // And it is a model that the trainer and the engine take, biases and all.
    let read = Llama::read(made.0.path(), tch::Device::Cpu, tch::Kind::Float);
    assert!(
        read.unwrap()
            .1
            .contains_key("model.layers.0.self_attn.v_proj.bias")
    );
}

#[test]
fn the_config_follows_the_metadata() {
    let config = Tiny::llama(GgmlDType::F32).convert().json("config.json");
    insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap(), @r#"
    {
      "architectures": [
        "LlamaForCausalLM"
      ],
      "model_type": "llama",
      "hidden_size": 256,
      "intermediate_size": 512,
      "num_hidden_layers": 1,
      "num_attention_heads": 4,
      "num_key_value_heads": 2,
      "head_dim": 64,
      "hidden_act": "silu",
      "rms_norm_eps": 0.00001,
      "rope_theta": 100000.0,
      "rope_scaling": null,
      "max_position_embeddings": 512,
      "vocab_size": 102,
      "tie_word_embeddings": true,
      "attention_dropout": 0.0,
      "initializer_range": 0.02,
      "use_cache": true,
      "bos_token_id": 1,
      "eos_token_id": 2,
      "pad_token_id": 0,
      "torch_dtype": "float32",
      "dtype": "float32",
      "attention_bias": false,
      "mlp_bias": false,
      "pretraining_tp": 1
    }
    "#);
}

#[test]
fn embeddings_are_tied_only_without_an_output_matrix() {
    let tied = Tiny::llama(GgmlDType::F32);
    assert_eq!(
        tied.convert().json("config.json")["tie_word_embeddings"],
        true
    );
    let rows = tokens().0.len();
    let own = tied
        .with("output.weight", tensor(&[rows, HIDDEN], 7))
        .convert();
    assert_eq!(own.json("config.json")["tie_word_embeddings"], false);
    assert_eq!(own.tensors()["lm_head.weight"].0, [rows, HIDDEN]);
}

#[test]
fn large_models_are_cut_into_shards_with_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    std::fs::write(&path, Tiny::llama(GgmlDType::F32).bytes()).unwrap();
    let mut file = Gguf::open(&path, "tiny.gguf").unwrap();
    let targets = Geometry::read(&mut file).unwrap().targets(&file).unwrap();
    weights::write(&mut file, &targets, dir.path(), 600_000, &mut |_| Ok(())).unwrap();

    let index: Value = serde_json::from_slice(
        &std::fs::read(dir.path().join("model.safetensors.index.json")).unwrap(),
    )
    .unwrap();
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), targets.len());
    let mut total = 0;
    for (name, shard) in map {
        let tensors = read_safetensors(&dir.path().join(shard.as_str().unwrap()));
        total += tensors[name].1.len() * 4;
    }
    assert_eq!(index["metadata"]["total_size"], total);
    let shards: std::collections::BTreeSet<_> = map.values().map(|v| v.as_str().unwrap()).collect();
    assert!(shards.len() > 2, "{shards:?}");
    assert!(!dir.path().join("model.safetensors").exists());
    let read = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(read.tensors().len(), targets.len());
}

#[test]
fn weights_are_marked_as_of_pytorch() {
    let bytes = std::fs::read(
        Tiny::llama(GgmlDType::F32)
            .convert()
            .path("model.safetensors"),
    )
    .unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn llama3_rope_scaling_is_found_from_its_factors() {
    let factors = |factor: f64| {
        let list: Vec<f32> = rope::llama3_factors(factor, 100_000.0, HEAD_DIM)
            .into_iter()
            .map(|x| x as f32)
            .collect();
        Tensor::from_vec(list, HEAD_DIM / 2, &Device::Cpu).unwrap()
    };
    let config = Tiny::llama(GgmlDType::F32)
        .with("rope_freqs.weight", factors(32.0))
        .convert()
        .json("config.json");
    assert_eq!(config["rope_scaling"]["rope_type"], "llama3");
    assert_eq!(config["rope_scaling"]["factor"], 32.0);
    let odd = Tiny::llama(GgmlDType::F32)
        .with("rope_freqs.weight", tensor(&[HEAD_DIM / 2], 5))
        .refusal();
    assert!(odd.message.contains("rope_freqs.weight"), "{odd}");
}
