//! The Llama architecture (Touvron et al. 2023; Grattafiori et al. 2024) in
//! tch, as transformers' `LlamaForCausalLM` computes it: [`Llama`]. Qwen2 and
//! Qwen2.5 (Yang et al. 2024) are the same with biases on q, k and v.
//!
//! One model code serves training and decoding. What differs between them,
//! where keys and values come from and which token sees which, is in
//! [`Attend`]: [`Causal`] for whole sequences, a key-value cache for a decoder.
//!
//! Shapes: B sequences, T tokens, H hidden width, N heads, D width of a head,
//! V vocabulary.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::checkpoint::{Checkpoint, is_unread};
use super::config::{CONFIG_FILE, Config, RopeScaling};
use super::weights::{self, Shapes, Tensors};
use genius::protocol::Failure;

/// Name of the embedding in a checkpoint.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output projection in a checkpoint; absent where it is tied.
pub const LM_HEAD: &str = "lm_head.weight";

/// A Llama model on one device. The residual stream, the norms and the logits are in
/// f32 whatever the kind of its weights, in which the products inside a block are.
#[derive(Debug)]
pub struct Llama {
    embedding: Tensor,
    layers: Vec<Block>,
    norm: RmsNorm,
    head: Tensor,
    rope: Rope,
    /// Of the weights inside the blocks.
    kind: Kind,
}

/// Attention over what a layer may see.
pub trait Attend {
    /// Attention of `q` [B, N, T, D] over `k` and `v` [B, N_kv, T, D] of these
    /// tokens and whatever earlier ones it holds for `layer`; [B, N, T, D].
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor;
}

/// Whole sequences from their first token: each token sees itself and those
/// before it. Rows padded at their end need no mask, since no token looks ahead.
#[derive(Debug, Clone, Copy, Default)]
pub struct Causal;

impl Attend for Causal {
    fn attend(&mut self, _layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let groups = q.size()[1] / k.size()[1];
        let (k, v) = (repeat_heads(k, groups), repeat_heads(v, groups));
        Tensor::scaled_dot_product_attention::<Tensor>(q, &k, &v, None, 0.0, true, None, false)
    }
}

/// [B, N_kv, T, D] -> [B, N_kv * groups, T, D], each head `groups` times in a row.
pub fn repeat_heads(x: &Tensor, groups: i64) -> Tensor {
    if groups == 1 {
        return x.shallow_clone();
    }
    let size = x.size();
    let (b, n, t, d) = (size[0], size[1], size[2], size[3]);
    x.unsqueeze(2)
        .expand([b, n, groups, t, d], false)
        .reshape([b, n * groups, t, d])
}

impl Llama {
    /// Names and shapes of a checkpoint of this configuration.
    pub fn shapes(config: &Config) -> Shapes {
        let (h, f, d) = (
            config.hidden_size,
            config.intermediate_size,
            config.head_dim,
        );
        let (q, kv) = (
            config.num_attention_heads * d,
            config.num_key_value_heads * d,
        );
        let mut shapes = Shapes::new();
        let mut add = |name: String, shape: &[i64]| shapes.insert(name, shape.to_vec());
        add(EMBEDDING.into(), &[config.vocab_size, h]);
        add("model.norm.weight".into(), &[h]);
        if !config.tie_word_embeddings {
            add(LM_HEAD.into(), &[config.vocab_size, h]);
        }
        for i in 0..config.num_hidden_layers {
            let p = format!("model.layers.{i}");
            add(format!("{p}.input_layernorm.weight"), &[h]);
            add(format!("{p}.post_attention_layernorm.weight"), &[h]);
            for (name, out, into, bias) in [
                ("q", q, h, config.qkv_bias),
                ("k", kv, h, config.qkv_bias),
                ("v", kv, h, config.qkv_bias),
                ("o", h, q, config.output_bias),
            ] {
                add(format!("{p}.self_attn.{name}_proj.weight"), &[out, into]);
                if bias {
                    add(format!("{p}.self_attn.{name}_proj.bias"), &[out]);
                }
            }
            for (name, out, into) in [("gate", f, h), ("up", f, h), ("down", h, f)] {
                add(format!("{p}.mlp.{name}_proj.weight"), &[out, into]);
                if config.mlp_bias {
                    add(format!("{p}.mlp.{name}_proj.bias"), &[out]);
                }
            }
        }
        shapes
    }

    /// Configuration and weights of a Hugging Face folder, the weights as `kind` on `device`.
    ///
    /// # Errors
    /// As [`Config::load`], [`Checkpoint::open`] and [`Llama::check`].
    pub fn read(folder: &Path, device: Device, kind: Kind) -> Result<(Config, Tensors), Failure> {
        let config = Config::load(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        Self::check(&config, &checkpoint)?;
        let tensors = weights::read_from(&checkpoint, &Self::shapes(&config), device, kind)?;
        Ok((config, tensors))
    }

    /// Checks that a checkpoint is of this configuration, before anything is
    /// allocated for it.
    ///
    /// # Errors
    /// Tensors that are missing, too many, or of another shape or format, by name; a
    /// head of its own where the configuration ties it to the embedding.
    pub fn check(config: &Config, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let shown = checkpoint.folder().join(CONFIG_FILE);
        let shown = shown.display();
        let (layers, tensors) = (config.num_hidden_layers, checkpoint.tensors().len());
        if layers > tensors {
            return Err(Failure::new(format!(
                "{shown}: num_hidden_layers: {layers} layers, but the weights hold only {tensors} tensors"
            ))
            .hint("config.json and the weights do not belong together: fetch the folder again"));
        }
        let tied = config.tie_word_embeddings;
        let ignored = |name: &str| is_unread(name) || (tied && name == LM_HEAD);
        let shapes = Self::shapes(config);
        weights::check(checkpoint, &shapes, ignored)?;
        if tied {
            if let Some(head) = checkpoint.tensors().get(LM_HEAD) {
                weights::check_tensor(checkpoint, LM_HEAD, head, &shapes[EMBEDDING])?;
            }
            Self::check_tied(checkpoint)?;
        }
        Ok(())
    }

    /// Refuses a head of its own in a checkpoint whose configuration ties it to the
    /// embedding.
    ///
    /// # Errors
    /// That it has other values.
    pub fn check_tied(checkpoint: &Checkpoint) -> Result<(), Failure> {
        let all = checkpoint.tensors();
        let (Some(head), Some(embedding)) = (all.get(LM_HEAD), all.get(EMBEDDING)) else {
            return Ok(());
        };
        if checkpoint.same(head, embedding)? {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{}: `{LM_HEAD}` is not `{EMBEDDING}`, although `tie_word_embeddings` of {} is \
             set: transformers up to 4 leaves the head out, 5 uses it",
            checkpoint.path_of(head).display(),
            checkpoint.folder().join(CONFIG_FILE).display()
        ))
        .hint(
            "set `tie_word_embeddings` to false to use the head, or save the model without \
             `lm_head.weight` to use the embedding",
        ))
    }

    /// A model for inference from a Hugging Face folder.
    ///
    /// # Errors
    /// As [`Llama::read`].
    #[cfg(test)]
    pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Self, Failure> {
        let (config, tensors) = Self::read(folder, device, kind)?;
        Self::new(&config, &tensors)
    }

    /// A model over these tensors, which it shares (with their gradients).
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn new(config: &Config, tensors: &Tensors) -> Result<Self, Failure> {
        let get = |name: &str| {
            tensors
                .get(name)
                .map(Tensor::shallow_clone)
                .ok_or_else(|| Failure::new(format!("the model lacks the tensor `{name}`")))
        };
        let linear = |name: String, bias: bool| {
            Ok::<_, Failure>(Linear {
                weight: get(&format!("{name}.weight"))?,
                bias: if bias {
                    Some(get(&format!("{name}.bias"))?)
                } else {
                    None
                },
            })
        };
        let norm = |name: String| {
            Ok::<_, Failure>(RmsNorm {
                weight: get(&format!("{name}.weight"))?,
                eps: config.rms_norm_eps,
            })
        };
        let embedding = get(EMBEDDING)?;
        let head = if config.tie_word_embeddings {
            embedding.shallow_clone()
        } else {
            get(LM_HEAD)?
        };
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let p = format!("model.layers.{i}");
                Ok(Block {
                    input_norm: norm(format!("{p}.input_layernorm"))?,
                    q: linear(format!("{p}.self_attn.q_proj"), config.qkv_bias)?,
                    k: linear(format!("{p}.self_attn.k_proj"), config.qkv_bias)?,
                    v: linear(format!("{p}.self_attn.v_proj"), config.qkv_bias)?,
                    o: linear(format!("{p}.self_attn.o_proj"), config.output_bias)?,
                    post_norm: norm(format!("{p}.post_attention_layernorm"))?,
                    gate: linear(format!("{p}.mlp.gate_proj"), config.mlp_bias)?,
                    up: linear(format!("{p}.mlp.up_proj"), config.mlp_bias)?,
                    down: linear(format!("{p}.mlp.down_proj"), config.mlp_bias)?,
                    head_dim: config.head_dim,
                })
            })
            .collect::<Result<_, Failure>>()?;
        let kind = get("model.layers.0.self_attn.q_proj.weight")?.kind();
        let norm = norm("model.norm".into())?;
        let rope = Rope::new(config, embedding.device());
        Ok(Self {
            embedding,
            layers,
            norm,
            head,
            rope,
            kind,
        })
    }

    /// The output projection [V, H]; the embedding where it is tied.
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Final hidden states [B, T, H], normed, in f32, of `input_ids` [B, T] (int64) at
    /// `positions` ([T] or [B, T], int64).
    pub fn forward_at(
        &self,
        input_ids: &Tensor,
        positions: &Tensor,
        attend: &mut dyn Attend,
    ) -> Tensor {
        let mut x =
            Tensor::embedding(&self.embedding, input_ids, -1, false, false).to_kind(Kind::Float);
        let (cos, sin) = self.rope.at(positions, self.kind);
        for (layer, block) in self.layers.iter().enumerate() {
            x = block.forward(layer, &x, &cos, &sin, attend);
        }
        self.norm.forward(&x)
    }

    /// Final hidden states [B, T, H] of whole sequences [B, T] (int64), shorter ones
    /// padded at their end with any token: the values at padding have no meaning.
    pub fn forward(&self, input_ids: &Tensor) -> Tensor {
        let tokens = input_ids.size()[1];
        let positions = Tensor::arange(tokens, (Kind::Int64, input_ids.device()));
        self.forward_at(input_ids, &positions, &mut Causal)
    }

    /// Logits [..., V] of hidden states [..., H], in f32: a bf16 number of a logit's size,
    /// 8 to 16, is off by up to 1/32.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let head = self.head.to_kind(Kind::Float);
        hidden.to_kind(Kind::Float).linear::<Tensor>(&head, None)
    }
}

/// One transformer block.
#[derive(Debug)]
struct Block {
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    head_dim: i64,
}

impl Block {
    fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        attend: &mut dyn Attend,
    ) -> Tensor {
        let size = x.size();
        let (b, t) = (size[0], size[1]);
        let heads = |y: Tensor| y.view([b, t, -1, self.head_dim]).transpose(1, 2);
        let kind = self.q.weight.kind();
        let y = self.input_norm.forward(x).to_kind(kind);
        let q = rotate(&heads(self.q.forward(&y)), cos, sin);
        let k = rotate(&heads(self.k.forward(&y)), cos, sin);
        let v = heads(self.v.forward(&y));
        let y = attend
            .attend(layer, &q, &k, &v)
            .transpose(1, 2)
            .reshape([b, t, -1]);
        let x = x + self.o.forward(&y);
        let y = self.post_norm.forward(&x).to_kind(kind);
        let y = self.gate.forward(&y).silu() * self.up.forward(&y);
        x + self.down.forward(&y)
    }
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// Root-mean-square norm, in f32 whatever the kind of its weights.
#[derive(Debug)]
struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.to_kind(Kind::Float);
        let variance = (&y * &y).mean_dim(-1, true, Kind::Float);
        self.weight.to_kind(Kind::Float) * (y * (variance + self.eps).rsqrt())
    }
}

/// `x` [B, N, T, D] turned by the angles of `cos` and `sin` [T, D] or [B, 1, T, D];
/// transformers' `rotate_half` layout (first half with second half).
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let half = x.size()[3] / 2;
    let (first, second) = (x.narrow(3, 0, half), x.narrow(3, half, half));
    x * cos + Tensor::cat(&[-second, first], 3) * sin
}

/// Angles of a position step, head width / 2 of them, with the scaling of the configuration.
pub fn rope_frequencies(config: &Config) -> Vec<f32> {
    let frequencies = Rope::new(config, Device::Cpu).frequencies.contiguous();
    let mut numbers = vec![0.0; frequencies.numel()];
    frequencies.copy_data(&mut numbers, frequencies.numel());
    numbers
}

/// Rotary position embedding.
#[derive(Debug)]
struct Rope {
    /// Angle of a position step, [D / 2], f32.
    frequencies: Tensor,
}

impl Rope {
    fn new(config: &Config, device: Device) -> Self {
        // In f32 and in transformers' order of operations, so that angles agree to the bit.
        let d = config.head_dim;
        let exponents = Tensor::arange_start_step(0, d, 2, (Kind::Int64, Device::Cpu))
            .to_kind(Kind::Float)
            / d as f64;
        let mut frequencies = Tensor::pow_scalar(config.rope_theta, &exponents).reciprocal();
        if let RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } = config.rope_scaling
        {
            let context = original_max_position_embeddings;
            let wavelengths = frequencies.reciprocal() * (2.0 * std::f64::consts::PI);
            let long = wavelengths.gt(context / low_freq_factor);
            let short = wavelengths.lt(context / high_freq_factor);
            let stretched = &frequencies / factor;
            let share = (wavelengths.reciprocal() * context - low_freq_factor)
                / (high_freq_factor - low_freq_factor);
            let between: Tensor = (1.0 - &share) * &stretched + &share * &frequencies;
            let inner = frequencies.where_self(&short, &between);
            frequencies = stretched.where_self(&long, &inner);
        }
        Self {
            frequencies: frequencies.to_device(device),
        }
    }

    /// cos and sin of `positions` ([T] or [B, T]), shaped to broadcast over [B, N, T, D].
    fn at(&self, positions: &Tensor, kind: Kind) -> (Tensor, Tensor) {
        let half = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.frequencies;
        let mut angles = Tensor::cat(&[&half, &half], -1);
        if angles.dim() == 3 {
            angles = angles.unsqueeze(1);
        }
        (angles.cos().to_kind(kind), angles.sin().to_kind(kind))
    }
}

#[cfg(test)]
#[path = "llama_tests.rs"]
mod tests;
