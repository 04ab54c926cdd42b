//! [`Geometry`]: the shape of a model by a GGUF file's metadata, the Hugging
//! Face config that says the same, and where each tensor goes.

use serde_json::{Map, Value, json};

use genius::protocol::Failure;

use super::reader::Gguf;
use super::rope;
use super::tokenizer::Specials;
use crate::model::config::limits;

/// Architectures that are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Architecture {
    /// Llama 2 and 3, SmolLM, Mistral without sliding window, ...: q and k rows permuted.
    Llama,
    /// Qwen 2 and 2.5: biases on q, k and v; not permuted.
    Qwen2,
}

/// The shape of a model.
#[derive(Debug, Clone)]
pub struct Geometry {
    architecture: Architecture,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rms_eps: f64,
    rope_theta: f64,
    rope_scaling: Option<Value>,
    /// Longest context, tokens.
    pub context: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Whether the output matrix is the embedding.
    tied: bool,
}

/// One tensor of the model folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Name in the GGUF file.
    pub gguf: String,
    /// Name in the Hugging Face checkpoint.
    pub name: String,
    /// Shape in both.
    pub shape: Vec<usize>,
    /// Heads whose rows are to be un-permuted; `None`: taken as they are.
    pub permuted_heads: Option<usize>,
}

impl Geometry {
    /// Reads it from the metadata.
    ///
    /// # Errors
    /// When the architecture is not one that is converted, or a key is missing
    /// or contradicts another.
    pub fn of(file: &mut Gguf) -> Result<Self, Failure> {
        let prefix = file
            .text("general.architecture")?
            .ok_or_else(|| file.failure("has no `general.architecture`"))?
            .to_owned();
        let architecture = match prefix.as_str() {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            other => {
                return Err(file
                    .failure(format!(
                        "is of architecture `{other}`, which is not converted"
                    ))
                    .hint("the architectures that are converted: llama, qwen2"));
            }
        };
        let at = |name: &str| format!("{prefix}.{name}");
        let optional = |name: &str, most: i64| {
            let key = at(name);
            match file.integer(&key)? {
                Some(n) if n == 0 || n > most as usize => Err(file.failure(format!(
                    "is damaged: `{key}` is {n}; 1 to {most} are possible"
                ))),
                other => Ok(other),
            }
        };
        let need = |name: &str, most: i64| {
            optional(name, most)?.ok_or_else(|| file.failure(format!("has no `{}`", at(name))))
        };
        if file.integer(&at("expert_count"))?.is_some_and(|n| n > 0) {
            return Err(file.failure(format!(
                "is a mixture of experts (`{}`), which is not converted",
                at("expert_count")
            )));
        }
        let hidden = need("embedding_length", limits::HIDDEN)?;
        let heads = need("attention.head_count", limits::HEADS)?;
        let kv_heads = optional("attention.head_count_kv", limits::HEADS)?.unwrap_or(heads);
        let head_dim = match optional("attention.key_length", limits::HEAD_DIM)? {
            Some(n) => n,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(file.failure(format!(
                    "is damaged: {hidden} does not divide into {heads} heads"
                )));
            }
        };
        if !heads.is_multiple_of(kv_heads)
            || !head_dim.is_multiple_of(2)
            || head_dim > limits::HEAD_DIM as usize
        {
            return Err(file.failure(format!(
                "is damaged: {heads} heads of {head_dim} values with {kv_heads} key-value heads"
            )));
        }
        for (name, what) in [
            (
                "attention.value_length",
                "values of another width than keys",
            ),
            ("rope.dimension_count", "RoPE on a part of each head"),
        ] {
            if file.integer(&at(name))?.is_some_and(|n| n != head_dim) {
                return Err(file.failure(format!(
                    "has {what} (`{}`), which is not converted",
                    at(name)
                )));
            }
        }
        let vocabulary = match file.tensor("token_embd.weight") {
            Some(info) if info.shape.len() == 2 && info.shape[0] <= limits::VOCABULARY as usize => {
                info.shape[0]
            }
            Some(info) if info.shape.len() == 2 => {
                return Err(file.failure(format!(
                    "has {} rows in `token_embd.weight`; {} are possible",
                    info.shape[0],
                    limits::VOCABULARY
                )));
            }
            _ => return Err(file.failure("has no tensor `token_embd.weight` of two dimensions")),
        };
        let rms_key = at("attention.layer_norm_rms_epsilon");
        let rms_eps = file
            .number(&rms_key)?
            .ok_or_else(|| file.failure(format!("has no `{rms_key}`")))?;
        let theta_key = at("rope.freq_base");
        let rope_theta = file.number(&theta_key)?.unwrap_or(10_000.0);
        for (key, value, range) in [
            (&rms_key, rms_eps, 1e-30..=0.1),
            (&theta_key, rope_theta, 1e-3..=1e15),
        ] {
            if !range.contains(&value) {
                return Err(file.failure(format!(
                    "is damaged: `{key}` is {value:e}; {:e} to {:e} are possible",
                    range.start(),
                    range.end()
                )));
            }
        }
        let layers = need("block_count", limits::LAYERS)?;
        // Before anything is allocated for them.
        if layers > file.tensor_count() {
            return Err(file.failure(format!(
                "is damaged: `{}` is {layers}, and it holds only {} tensors",
                at("block_count"),
                file.tensor_count()
            )));
        }
        let geometry = Self {
            architecture,
            hidden,
            intermediate: need("feed_forward_length", limits::INTERMEDIATE)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_eps,
            rope_theta,
            rope_scaling: None,
            context: need("context_length", limits::CONTEXT)?,
            vocabulary,
            tied: file.tensor("output.weight").is_none(),
        };
        let rope_scaling = rope::scaling(file, &prefix, rope_theta, head_dim)?;
        Ok(Self {
            rope_scaling,
            ..geometry
        })
    }

    /// config.json.
    pub fn config(&self, specials: &Specials) -> Value {
        let (class, model_type) = match self.architecture {
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        };
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling,
            "max_position_embeddings": self.context,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": true,
            "bos_token_id": specials.bos,
            "eos_token_id": specials.eos,
            "pad_token_id": specials.pad,
            // Both names: readers before and after the renaming.
            "torch_dtype": "float32",
            "dtype": "float32",
        });
        let own: Map<String, Value> = match self.architecture {
            Architecture::Llama => [
                ("attention_bias".to_owned(), json!(false)),
                ("mlp_bias".to_owned(), json!(false)),
                ("pretraining_tp".to_owned(), json!(1)),
            ]
            .into_iter()
            .collect(),
            Architecture::Qwen2 => [("use_sliding_window".to_owned(), json!(false))]
                .into_iter()
                .collect(),
        };
        if let Value::Object(fields) = &mut config {
            fields.extend(own);
        }
        config
    }

    /// Every tensor of the model folder, after checking that the file has just
    /// these.
    ///
    /// # Errors
    /// Names a tensor that is missing, of another shape, or of no known use.
    pub fn targets(&self, file: &Gguf) -> Result<Vec<Target>, Failure> {
        let targets = self.layout();
        for target in &targets {
            let info = file
                .tensor(&target.gguf)
                .ok_or_else(|| file.failure(format!("has no tensor `{}`", target.gguf)))?;
            if info.shape != target.shape {
                return Err(file.failure(format!(
                    "is damaged: tensor `{}` is of shape {:?}, its metadata ask for {:?}",
                    target.gguf, info.shape, target.shape
                )));
            }
        }
        let known: std::collections::BTreeSet<&str> =
            targets.iter().map(|t| t.gguf.as_str()).collect();
        // Leaving one out silently would be another model.
        match file
            .tensor_names()
            .find(|name| !known.contains(name) && *name != rope::FACTORS)
        {
            Some(name) => Err(file.failure(format!(
                "holds tensor `{name}`, which this architecture does not have"
            ))),
            None => Ok(targets),
        }
    }

    fn layout(&self) -> Vec<Target> {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let plain = |gguf: &str, name: &str, shape: &[usize]| Target {
            gguf: gguf.to_owned(),
            name: name.to_owned(),
            shape: shape.to_vec(),
            permuted_heads: None,
        };
        let mut targets = vec![
            plain(
                "token_embd.weight",
                "model.embed_tokens.weight",
                &[self.vocabulary, hidden],
            ),
            plain("output_norm.weight", "model.norm.weight", &[hidden]),
        ];
        if !self.tied {
            targets.push(plain(
                "output.weight",
                "lm_head.weight",
                &[self.vocabulary, hidden],
            ));
        }
        for layer in 0..self.layers {
            let mut add = |gguf: &str, name: &str, shape: &[usize], heads: Option<usize>| {
                targets.push(Target {
                    gguf: format!("blk.{layer}.{gguf}"),
                    name: format!("model.layers.{layer}.{name}"),
                    shape: shape.to_vec(),
                    permuted_heads: heads.filter(|_| self.architecture == Architecture::Llama),
                });
            };
            add(
                "attn_norm.weight",
                "input_layernorm.weight",
                &[hidden],
                None,
            );
            add(
                "attn_q.weight",
                "self_attn.q_proj.weight",
                &[q, hidden],
                Some(self.heads),
            );
            add(
                "attn_k.weight",
                "self_attn.k_proj.weight",
                &[kv, hidden],
                Some(self.kv_heads),
            );
            add(
                "attn_v.weight",
                "self_attn.v_proj.weight",
                &[kv, hidden],
                None,
            );
            if self.architecture == Architecture::Qwen2 {
                add("attn_q.bias", "self_attn.q_proj.bias", &[q], None);
                add("attn_k.bias", "self_attn.k_proj.bias", &[kv], None);
                add("attn_v.bias", "self_attn.v_proj.bias", &[kv], None);
            }
            add(
                "attn_output.weight",
                "self_attn.o_proj.weight",
                &[hidden, q],
                None,
            );
            add(
                "ffn_norm.weight",
                "post_attention_layernorm.weight",
                &[hidden],
                None,
            );
            add(
                "ffn_gate.weight",
                "mlp.gate_proj.weight",
                &[inner, hidden],
                None,
            );
            add(
                "ffn_up.weight",
                "mlp.up_proj.weight",
                &[inner, hidden],
                None,
            );
            add(
                "ffn_down.weight",
                "mlp.down_proj.weight",
                &[hidden, inner],
                None,
            );
        }
        targets
    }
}

/// Puts the rows of a q or k matrix back from the order of interleaved RoPE
/// (GGUF: the two halves of each head's rotation side by side) to that of the
/// Hugging Face layout (first halves, then second halves).
///
/// `values`: `[heads * head_dim, columns]`, row-major. The inverse of `permute`
/// in llama.cpp's convert_hf_to_gguf.py:
/// `reshape(heads, 2, head_dim / 2, columns).swapaxes(1, 2)`.
pub fn unpermute(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let head_dim = values.len() / (heads * columns);
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for side in 0..2 {
            for pair in 0..half {
                let row = head * head_dim + 2 * pair + side;
                out.extend_from_slice(&values[row * columns..(row + 1) * columns]);
            }
        }
    }
    out
}
