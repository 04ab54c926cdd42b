//! `config.json` of a Hugging Face folder: [`Config`], for the architectures
//! Llama and Qwen2 as transformers defines them (`LlamaConfig`, `Qwen2Config`).
//! Both are one model code: Qwen2 has biases on q, k and v.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Name of the file in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the JSON of a configuration.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
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
    /// What the file says it is.
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

/// Stretching of the rotary frequencies for longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above context / this are low.
        low_freq_factor: f64,
        /// Wavelengths below context / this are high.
        high_freq_factor: f64,
        /// Context of the model before stretching, tokens.
        original_max_position_embeddings: f64,
    },
}

/// The file as it stands; defaults are those of `LlamaConfig`, and of
/// `Qwen2Config` where it has others.
#[derive(Debug, Deserialize)]
struct Raw {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    max_position_embeddings: Option<i64>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    // Where transformers 5 keeps both of the above.
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_act")]
    hidden_act: String,
    #[serde(default = "default_tp")]
    pretraining_tp: i64,
    quantization_config: Option<serde_json::Value>,
    // Of Qwen2 alone.
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<i64>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

fn default_eps() -> f64 {
    1e-6
}
fn default_act() -> String {
    "silu".into()
}
fn default_tp() -> i64 {
    1
}

impl Config {
    /// Reads and checks `config.json` of a model folder.
    ///
    /// # Errors
    /// With the file: unreadable, not a configuration, another architecture (named),
    /// a rotary scaling or an activation that is not built, shapes that do not fit.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Io {
            path: path.clone(),
            source,
        })?;
        Self::parse(&text, &path)
    }

    /// The same from text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // The architecture first: the other fields of another one mean nothing.
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            architectures: Option<Vec<String>>,
            #[serde(default)]
            model_type: Option<String>,
        }
        let parse = |source| ConfigError::Parse {
            path: path.to_owned(),
            source,
        };
        let unsupported = |what: String| ConfigError::Unsupported {
            path: path.to_owned(),
            what,
        };
        let head: Head = serde_json::from_str(text).map_err(parse)?;
        let names = head.architectures.unwrap_or_default();
        let model_type = head.model_type.unwrap_or_default();
        let architecture = Architecture::ALL.into_iter().find(|a| {
            if names.is_empty() {
                model_type == a.model_type()
            } else {
                names.iter().any(|n| n == a.class())
            }
        });
        let Some(architecture) = architecture else {
            let name = names.first().cloned().unwrap_or(model_type);
            return Err(unsupported(format!(
                "architecture `{name}` is not supported; LlamaForCausalLM and \
                 Qwen2ForCausalLM are"
            )));
        };
        let raw: Raw = serde_json::from_str(text).map_err(parse)?;
        raw.check(architecture).map_err(unsupported)
    }
}

impl Raw {
    fn check(self, architecture: Architecture) -> Result<Config, String> {
        let max_position_embeddings = self.max_position_embeddings.unwrap_or(match architecture {
            Architecture::Llama => 2048,
            Architecture::Qwen2 => 32_768,
        });
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", max_position_embeddings),
            (
                "num_hidden_layers",
                i64::try_from(self.num_hidden_layers).unwrap_or(i64::MAX),
            ),
        ] {
            if value < 1 {
                return Err(format!("`{name}` is {value}; it must be at least 1"));
            }
        }
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if kv_heads < 1 || heads % kv_heads != 0 {
            return Err(format!(
                "{heads} attention heads cannot share {kv_heads} key and value heads"
            ));
        }
        let head_dim = match self.head_dim {
            Some(d) => d,
            None if self.hidden_size % heads == 0 => self.hidden_size / heads,
            None => {
                return Err(format!(
                    "hidden_size {} is no multiple of {heads} heads",
                    self.hidden_size
                ));
            }
        };
        if head_dim < 2 || head_dim % 2 != 0 {
            return Err(format!(
                "`head_dim` is {head_dim}; rotary embeddings need an even one"
            ));
        }
        if self.hidden_act != "silu" {
            return Err(format!(
                "activation `{}` is not supported; `silu` is",
                self.hidden_act
            ));
        }
        if self.pretraining_tp != 1 {
            return Err(format!(
                "`pretraining_tp` is {}; only 1 is supported",
                self.pretraining_tp
            ));
        }
        if self.quantization_config.is_some() {
            return Err(
                "the weights are quantised (`quantization_config`); full-precision ones are needed"
                    .into(),
            );
        }
        if architecture == Architecture::Qwen2 {
            self.check_window(max_position_embeddings)?;
        }
        let rope = self.rope_parameters.as_ref();
        let rope_theta = rope
            .and_then(|r| r.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(10_000.0);
        let rope_scaling = match rope.or(self.rope_scaling.as_ref()) {
            Some(raw) => raw.scaling(max_position_embeddings)?,
            None => RopeScaling::Default,
        };
        // transformers gives Qwen2 these biases and no others, whatever its file says.
        let (qkv_bias, output_bias, mlp_bias) = match architecture {
            Architecture::Llama => (self.attention_bias, self.attention_bias, self.mlp_bias),
            Architecture::Qwen2 => (true, false, false),
        };
        Ok(Config {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: self.tie_word_embeddings,
            qkv_bias,
            output_bias,
            mlp_bias,
        })
    }

    /// Refuses attention that does not reach back to the beginning of the context.
    fn check_window(&self, context: i64) -> Result<(), String> {
        // The defaults are `Qwen2Config`'s.
        let window = self.sliding_window.unwrap_or(4096);
        let slides = match &self.layer_types {
            Some(types) => types.iter().any(|t| t == "sliding_attention"),
            None => self.max_window_layers.unwrap_or(28) < self.num_hidden_layers,
        };
        if self.use_sliding_window && slides && window < context {
            return Err(format!(
                "sliding-window attention (`use_sliding_window`) over {window} of {context} \
                 positions is not supported; with `max_position_embeddings` at {window} the \
                 model is used without it"
            ));
        }
        Ok(())
    }
}

impl RawRope {
    fn scaling(&self, max_position: i64) -> Result<RopeScaling, String> {
        let number = |name: &str| {
            self.rest
                .get(name)
                .and_then(serde_json::Value::as_f64)
                .ok_or_else(|| format!("rotary scaling lacks `{name}`"))
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(RopeScaling::Default),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: number("original_max_position_embeddings")
                    .unwrap_or(max_position as f64),
            }),
            Some(other) => Err(format!(
                "rotary scaling `{other}` is not supported; `default` and `llama3` are"
            )),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
