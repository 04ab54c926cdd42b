//! [`Geometry`]: the shape of a model according to a GGUF file's metadata, the equivalent
//! Hugging Face config, and where each tensor goes.

use std::ops::RangeInclusive;

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

impl Architecture {
    /// The file's architecture, and its name as the prefix of the architecture's keys.
    fn read(file: &Gguf) -> Result<(Self, String), Failure> {
        let name = file
            .text("general.architecture")?
            .ok_or_else(|| file.failure("has no `general.architecture`"))?;
        match name {
            "llama" => Ok((Self::Llama, name.to_owned())),
            "qwen2" => Ok((Self::Qwen2, name.to_owned())),
            other => Err(file
                .failure(format!(
                    "is of architecture `{other}`, which is not converted"
                ))
                .hint("the architectures that are converted: llama, qwen2")),
        }
    }
}

/// The metadata of a file's architecture, checked against what is possible.
struct Metadata<'a> {
    file: &'a Gguf,
    prefix: String,
}

impl Metadata<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn integer(&self, name: &str) -> Result<Option<usize>, Failure> {
        self.file.integer(&self.key(name))
    }

    fn not_converted(&self, what: &str, name: &str) -> Failure {
        let key = self.key(name);
        self.file
            .failure(format!("{what} (`{key}`), which is not converted"))
    }

    fn optional(&self, name: &str, most: i64) -> Result<Option<usize>, Failure> {
        match self.integer(name)? {
            Some(n) if n == 0 || n > most as usize => Err(self.file.failure(format!(
                "is damaged: `{}` is {n}; 1 to {most} are possible",
                self.key(name)
            ))),
            other => Ok(other),
        }
    }

    fn required(&self, name: &str, most: i64) -> Result<usize, Failure> {
        self.optional(name, most)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Failure {
        self.file.failure(format!("has no `{}`", self.key(name)))
    }

    fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
        default: Option<f64>,
    ) -> Result<f64, Failure> {
        let key = self.key(name);
        let value = self.file.number(&key)?.or(default);
        let value = value.ok_or_else(|| self.missing(name))?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.file.failure(format!(
            "is damaged: `{key}` is {value:e}; {:e} to {:e} are possible",
            range.start(),
            range.end()
        )))
    }

    /// Heads, key-value heads and the width of one.
    fn heads(&self, hidden: usize) -> Result<(usize, usize, usize), Failure> {
        let damaged = |what| self.file.failure(format!("is damaged: {what}"));
        let heads = self.required("attention.head_count", limits::HEADS)?;
        let kv_heads = self.optional("attention.head_count_kv", limits::HEADS)?;
        let kv_heads = kv_heads.unwrap_or(heads);
        let head_dim = match self.optional("attention.key_length", limits::HEAD_DIM)? {
            Some(n) => n,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(damaged(format!(
                    "{hidden} does not divide into {heads} heads"
                )));
            }
        };
        if !heads.is_multiple_of(kv_heads)
            || !head_dim.is_multiple_of(2)
            || head_dim > limits::HEAD_DIM as usize
        {
            return Err(damaged(format!(
                "{heads} heads of {head_dim} values with {kv_heads} key-value heads"
            )));
        }
        for (name, what) in [
            (
                "attention.value_length",
                "has values of another width than keys",
            ),
            ("rope.dimension_count", "has RoPE on a part of each head"),
        ] {
            if self.integer(name)?.is_some_and(|n| n != head_dim) {
                return Err(self.not_converted(what, name));
            }
        }
        Ok((heads, kv_heads, head_dim))
    }
}

/// Rows of the embedding.
fn vocabulary(file: &Gguf) -> Result<usize, Failure> {
    match file.tensor("token_embd.weight").map(|info| &info.shape[..]) {
        Some(&[rows, _]) if rows <= limits::VOCABULARY as usize => Ok(rows),
        Some(&[rows, _]) => Err(file.failure(format!(
            "has {rows} rows in `token_embd.weight`; {} are possible",
            limits::VOCABULARY
        ))),
        _ => Err(file.failure("has no tensor `token_embd.weight` of two dimensions")),
    }
}

impl Geometry {
    /// Reads the shape from the metadata.
    ///
    /// # Errors
    /// When the architecture is not converted, or a key is missing or contradicts another.
    pub fn read(file: &mut Gguf) -> Result<Self, Failure> {
        let (architecture, prefix) = Architecture::read(file)?;
        let metadata = Metadata { file, prefix };
        if metadata.integer("expert_count")?.is_some_and(|n| n > 0) {
            return Err(metadata.not_converted("is a mixture of experts", "expert_count"));
        }
        let hidden = metadata.required("embedding_length", limits::HIDDEN)?;
        let (heads, kv_heads, head_dim) = metadata.heads(hidden)?;
        let vocabulary = vocabulary(metadata.file)?;
        let rms_eps = metadata.number("attention.layer_norm_rms_epsilon", 1e-30..=0.1, None)?;
        let rope_theta = metadata.number("rope.freq_base", 1e-3..=1e15, Some(10_000.0))?;
        let layers = metadata.required("block_count", limits::LAYERS)?;
        // Before anything is allocated for them.
        if layers > metadata.file.tensor_count() {
            return Err(metadata.file.failure(format!(
                "is damaged: `{}` is {layers}, and it holds only {} tensors",
                metadata.key("block_count"),
                metadata.file.tensor_count()
            )));
        }
        let geometry = Self {
            architecture,
            hidden,
            intermediate: metadata.required("feed_forward_length", limits::INTERMEDIATE)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_eps,
            rope_theta,
            rope_scaling: None,
            context: metadata.required("context_length", limits::CONTEXT)?,
            vocabulary,
            tied: metadata.file.tensor("output.weight").is_none(),
        };
        let prefix = metadata.prefix;
        Ok(Self {
            rope_scaling: rope::scaling(file, &prefix, rope_theta, head_dim)?,
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
    /// Names a tensor that is missing, of another shape, or of unknown use.
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
        let target = |gguf: &str, name: &str, shape: &[usize]| Target {
            gguf: gguf.to_owned(),
            name: name.to_owned(),
            shape: shape.to_vec(),
            permuted_heads: None,
        };
        let embedding = [self.vocabulary, self.hidden];
        let mut targets = vec![
            target("token_embd.weight", "model.embed_tokens.weight", &embedding),
            target("output_norm.weight", "model.norm.weight", &[self.hidden]),
        ];
        if !self.tied {
            targets.push(target("output.weight", "lm_head.weight", &embedding));
        }
        let in_layer = self.in_layer();
        for layer in 0..self.layers {
            targets.extend(in_layer.iter().map(|(gguf, name, shape)| Target {
                permuted_heads: match *gguf {
                    _ if self.architecture != Architecture::Llama => None,
                    "attn_q.weight" => Some(self.heads),
                    "attn_k.weight" => Some(self.kv_heads),
                    _ => None,
                },
                ..target(
                    &format!("blk.{layer}.{gguf}"),
                    &format!("model.layers.{layer}.{name}"),
                    shape,
                )
            }));
        }
        targets
    }

    /// Both names and the shape of every tensor of a layer.
    fn in_layer(&self) -> Vec<(&'static str, &'static str, Vec<usize>)> {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut tensors = vec![
            ("attn_norm.weight", "input_layernorm.weight", vec![hidden]),
            ("attn_q.weight", "self_attn.q_proj.weight", vec![q, hidden]),
            ("attn_k.weight", "self_attn.k_proj.weight", vec![kv, hidden]),
            ("attn_v.weight", "self_attn.v_proj.weight", vec![kv, hidden]),
        ];
        if self.architecture == Architecture::Qwen2 {
            tensors.extend([
                ("attn_q.bias", "self_attn.q_proj.bias", vec![q]),
                ("attn_k.bias", "self_attn.k_proj.bias", vec![kv]),
                ("attn_v.bias", "self_attn.v_proj.bias", vec![kv]),
            ]);
        }
        tensors.extend([
            (
                "attn_output.weight",
                "self_attn.o_proj.weight",
                vec![hidden, q],
            ),
            (
                "ffn_norm.weight",
                "post_attention_layernorm.weight",
                vec![hidden],
            ),
            (
                "ffn_gate.weight",
                "mlp.gate_proj.weight",
                vec![inner, hidden],
            ),
            ("ffn_up.weight", "mlp.up_proj.weight", vec![inner, hidden]),
            (
                "ffn_down.weight",
                "mlp.down_proj.weight",
                vec![hidden, inner],
            ),
        ]);
        tensors
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
