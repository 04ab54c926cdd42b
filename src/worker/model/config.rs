//! `config.json` of a Hugging Face folder: [`Config`], for the architectures
//! Llama and Qwen2 as transformers defines them (`LlamaConfig`, `Qwen2Config`).
//! Both are one model code: Qwen2 has biases on q, k and v.
//!
//! Numbers have bounds ([`limits`]), far above those of any model, within which
//! no product of theirs overflows.

mod fields;
mod rope;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json::{self, JsonError};
use fields::{Fields, Problem};

pub use rope::RopeScaling;

/// Name of the file in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unreadable, too large, or not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A value that means nothing.
    #[error("{path}: {key}: {what}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        what: String,
    },
    /// A model of another kind, or with a feature that is not built.
    #[error("{path}: {what}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported, and what is.
        what: String,
    },
}

impl From<ConfigError> for genius::protocol::Failure {
    fn from(e: ConfigError) -> Self {
        let hint = "models of the architectures LlamaForCausalLM (Llama, SmolLM, SmolLM2) and \
                    Qwen2ForCausalLM (Qwen2, Qwen2.5) can be used";
        match e {
            ConfigError::Unsupported { .. } => Self::new(e.to_string()).hint(hint),
            _ => Self::new(e.to_string()),
        }
    }
}

/// Architectures that are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, SmolLM, SmolLM2.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
}

impl Architecture {
    const ALL: [Self; 2] = [Self::Llama, Self::Qwen2];

    /// `architectures` of config.json.
    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
        }
    }

    /// `model_type` of config.json.
    fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
        }
    }
}

/// Shapes and constants of a model, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The architecture that the file declares.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width inside the feed-forward network.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; query heads are a multiple of them.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Longest sequence that the model was made for, tokens.
    pub max_position_embeddings: i64,
    /// Epsilon of the root-mean-square norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether o has a bias.
    pub output_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
}

/// The largest numbers that are taken.
pub mod limits {
    /// Rows of the embedding.
    pub const VOCABULARY: i64 = 1 << 24;
    /// Width of the residual stream.
    pub const HIDDEN: i64 = 1 << 20;
    /// Width inside the feed-forward network.
    pub const INTERMEDIATE: i64 = 1 << 22;
    /// Blocks.
    pub const LAYERS: i64 = 1 << 12;
    /// Heads.
    pub const HEADS: i64 = 1 << 14;
    /// Width of a head.
    pub const HEAD_DIM: i64 = 1 << 14;
    /// Tokens of a sequence.
    pub const CONTEXT: i64 = 1 << 26;
}

impl Config {
    /// Reads and checks `config.json` of a model folder.
    ///
    /// # Errors
    /// With the file: unreadable, not a configuration, another architecture (named),
    /// a rotary scaling or an activation that is not built, shapes that do not fit.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join(CONFIG_FILE);
        let map = json::read_object(&path, json::CONFIG_BYTES)?;
        Self::read(&map, &path)
    }

    /// The same from text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    #[cfg(test)]
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::read(&json::parse_object(text.as_bytes(), path)?, path)
    }

    fn read(map: &Map<String, Value>, path: &Path) -> Result<Self, ConfigError> {
        read(&Fields::new(map)).map_err(|problem| match problem {
            Problem::Value { key, what } => ConfigError::Value {
                path: path.to_owned(),
                key,
                what,
            },
            Problem::Unsupported(what) => ConfigError::Unsupported {
                path: path.to_owned(),
                what,
            },
        })
    }
}

/// The architecture is read first: another one gives the other fields another meaning.
fn architecture(file: &Fields<'_>) -> Result<Architecture, Problem> {
    let classes = file.texts("architectures")?.unwrap_or_default();
    let model_type = file.text("model_type")?;
    let named = Architecture::ALL.into_iter().find(|a| {
        if classes.is_empty() {
            model_type == Some(a.model_type())
        } else {
            classes.contains(&a.class())
        }
    });
    let Some(architecture) = named else {
        let name = classes.first().copied().or(model_type).unwrap_or_default();
        return Err(Problem::Unsupported(format!(
            "architecture `{name}` is not supported; LlamaForCausalLM and Qwen2ForCausalLM are"
        )));
    };
    match model_type {
        // transformers decides by the type, others by the class.
        Some(other) if other != architecture.model_type() => Err(file.problem(
            "model_type",
            format!(
                "`{other}` is another architecture than the {} of `architectures`",
                architecture.class()
            ),
        )),
        _ => Ok(architecture),
    }
}

/// Defaults are those of `LlamaConfig`, and of `Qwen2Config` where it has others.
fn read(file: &Fields<'_>) -> Result<Config, Problem> {
    let architecture = architecture(file)?;
    let vocab_size = file.required("vocab_size", 1..=limits::VOCABULARY)?;
    let hidden_size = file.required("hidden_size", 1..=limits::HIDDEN)?;
    let intermediate_size = file.required("intermediate_size", 1..=limits::INTERMEDIATE)?;
    let layers = file.required("num_hidden_layers", 1..=limits::LAYERS)?;
    let (heads, kv_heads, head_dim) = read_heads(file, hidden_size)?;
    file.not_null("max_position_embeddings", "a whole number")?;
    let context = file
        .integer("max_position_embeddings", 1..=limits::CONTEXT)?
        .unwrap_or(match architecture {
            Architecture::Llama => 2048,
            Architecture::Qwen2 => 32_768,
        });
    file.not_null("rms_norm_eps", "a number")?;
    let rms_norm_eps = file.number("rms_norm_eps", 1e-30..=0.1)?.unwrap_or(1e-6);
    let (attention_bias, mlp_bias) = (file.flag("attention_bias")?, file.flag("mlp_bias")?);
    let tie_word_embeddings = file.flag("tie_word_embeddings")?;
    check_arithmetic(file)?;
    let (rope_theta, rope_scaling) = rope::read(file, context)?;
    if file.keys().any(|(key, _)| key == "quantization_config") {
        return Err(Problem::Unsupported(
            "the weights are quantised (`quantization_config`); full-precision ones are needed"
                .into(),
        ));
    }
    check_window(file, architecture, layers, context)?;
    // transformers gives Qwen2 these biases and no others, whatever its file has.
    let (qkv_bias, output_bias, mlp_bias) = match architecture {
        Architecture::Llama => (attention_bias, attention_bias, mlp_bias),
        Architecture::Qwen2 => (true, false, false),
    };
    Ok(Config {
        architecture,
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers: layers as usize,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        max_position_embeddings: context,
        rms_norm_eps,
        rope_theta,
        rope_scaling,
        tie_word_embeddings,
        qkv_bias,
        output_bias,
        mlp_bias,
    })
}

/// Attention heads, key and value heads, and the width of one.
fn read_heads(file: &Fields<'_>, hidden_size: i64) -> Result<(i64, i64, i64), Problem> {
    let heads = file.required("num_attention_heads", 1..=limits::HEADS)?;
    let kv_heads = file
        .integer("num_key_value_heads", 1..=limits::HEADS)?
        .unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(file.problem(
            "num_key_value_heads",
            format!("{heads} attention heads cannot share {kv_heads} key and value heads"),
        ));
    }
    let head_dim = match file.integer("head_dim", 1..=limits::HEAD_DIM)? {
        Some(width) => width,
        None if hidden_size % heads == 0 => hidden_size / heads,
        None => {
            return Err(file.problem(
                "hidden_size",
                format!("{hidden_size} is not a multiple of {heads} heads"),
            ));
        }
    };
    if head_dim > limits::HEAD_DIM || head_dim % 2 != 0 {
        return Err(file.problem(
            "head_dim",
            format!(
                "{head_dim}; rotary embeddings need an even one, and at most {}",
                limits::HEAD_DIM
            ),
        ));
    }
    Ok((heads, kv_heads, head_dim))
}

/// Refuses arithmetic that is not built.
fn check_arithmetic(file: &Fields<'_>) -> Result<(), Problem> {
    file.not_null("hidden_act", "the name of an activation")?;
    match file.text("hidden_act")? {
        None | Some("silu") => {}
        Some(other) => {
            return Err(Problem::Unsupported(format!(
                "activation `{other}` is not supported; `silu` is"
            )));
        }
    }
    match file.integer("pretraining_tp", i64::MIN..=i64::MAX)? {
        None | Some(1) => {}
        Some(other) => {
            return Err(Problem::Unsupported(format!(
                "`pretraining_tp` is {other}; only 1 is supported"
            )));
        }
    }
    Ok(())
}

/// Refuses attention that does not reach back to the beginning of the context.
/// A Llama has none, whatever its file has.
fn check_window(
    file: &Fields<'_>,
    architecture: Architecture,
    layers: i64,
    context: i64,
) -> Result<(), Problem> {
    let types = file.texts("layer_types")?;
    let odd = types.iter().flatten().find(|kind| match architecture {
        Architecture::Llama => **kind != "full_attention",
        Architecture::Qwen2 => !["full_attention", "sliding_attention"].contains(kind),
    });
    if let Some(odd) = odd {
        return Err(Problem::Unsupported(format!(
            "layers of type `{odd}` (`layer_types`) are not supported"
        )));
    }
    if architecture == Architecture::Llama {
        return Ok(());
    }
    if let Some(types) = &types
        && types.len() as i64 != layers
    {
        return Err(file.problem(
            "layer_types",
            format!("it has {} entries for {layers} layers", types.len()),
        ));
    }
    let uses = file.flag("use_sliding_window")?;
    // The defaults are `Qwen2Config`'s, where a null means no window at all.
    let window = match file.integer("sliding_window", 1..=i64::MAX)? {
        None if file.has("sliding_window") => i64::MAX,
        None => 4096,
        Some(window) => window,
    };
    let full = file
        .integer("max_window_layers", 0..=i64::MAX)?
        .unwrap_or(28);
    let slides = match &types {
        Some(types) => types.contains(&"sliding_attention"),
        None => full < layers,
    };
    if types.is_some() && slides && !uses {
        return Err(file.problem(
            "layer_types",
            "it has `sliding_attention`, and `use_sliding_window` is false",
        ));
    }
    if uses && slides && window < context {
        return Err(Problem::Unsupported(format!(
            "sliding-window attention (`use_sliding_window`) over {window} of {context} \
             positions is not supported; with `max_position_embeddings` at {window} the \
             model is used without it"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
