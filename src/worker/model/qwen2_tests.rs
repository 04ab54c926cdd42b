//! Tiny random Qwen2 models and what transformers computes with them
//! (`tests/reference/make_qwen2.py`): the fixtures, and the trainer's model over them.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::config::{Architecture, CONFIG_FILE, Config};
use super::llama::Llama;
use super::weights::{WEIGHTS_FILE, write_tensors};

/// A sequence of token ids and its numbers in f32 with eager attention.
#[derive(Debug, Deserialize)]
pub(crate) struct Sequence {
    /// The tokens.
    pub ids: Vec<i64>,
    /// Natural log-probability of each token but the first.
    pub next_logprobs: Vec<f64>,
    /// Logits at the last position.
    pub last_logits: Vec<f64>,
}

/// A model folder without a tokenizer, and its sequences.
#[derive(Debug, Deserialize)]
pub(crate) struct Fixture {
    folder: String,
    /// What was computed.
    pub sequences: Vec<Sequence>,
}

impl Fixture {
    /// Where the model is.
    pub fn folder(&self) -> PathBuf {
        fixtures().join(&self.folder)
    }
}

fn fixtures() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/reference/fixtures"
    ))
}

/// The tied model and the untied one.
pub(crate) fn models() -> Vec<Fixture> {
    #[derive(Deserialize)]
    struct All {
        models: Vec<Fixture>,
    }
    let text = std::fs::read_to_string(fixtures().join("qwen2_logits.json")).unwrap();
    let all: All = serde_json::from_str(&text).unwrap();
    assert_eq!(all.models.len(), 2);
    all.models
}

/// Asserts that logits [T, V] of a sequence are the fixture's within `tolerance`.
pub(crate) fn assert_logits(logits: &Tensor, want: &Sequence, tolerance: f64, what: &str) {
    let last = logits.get(logits.size()[0] - 1).to_kind(Kind::Double);
    let off = (last - Tensor::from_slice(&want.last_logits)).abs().max();
    let off = off.double_value(&[]);
    assert!(off < tolerance, "{what}: a logit is off by {off}");
    let logprobs = logits.log_softmax(-1, Kind::Double);
    for (t, (next, want)) in want.ids[1..].iter().zip(&want.next_logprobs).enumerate() {
        let got = logprobs.double_value(&[t as i64, *next]);
        assert!(
            (got - want).abs() < tolerance,
            "{what}, token {t}: {got} is not {want}"
        );
    }
}

/// `Qwen2ForCausalLM(input_ids).logits`, transformers 5.23, f32.
#[test]
fn logits_are_those_of_transformers() {
    for fixture in models() {
        let model = Llama::load(&fixture.folder(), Device::Cpu, Kind::Float).unwrap();
        for sequence in &fixture.sequences {
            let ids = Tensor::from_slice(&sequence.ids).unsqueeze(0);
            let logits = tch::no_grad(|| model.logits(&model.forward(&ids)));
            assert_logits(&logits.squeeze_dim(0), sequence, 1e-4, &fixture.folder);
        }
    }
}

#[test]
fn a_tied_model_is_read_as_tied_and_an_untied_one_as_untied() {
    let tied = models().into_iter().map(|m| {
        let config = Config::load(&m.folder()).unwrap();
        assert_eq!(config.architecture, Architecture::Qwen2);
        config.tie_word_embeddings
    });
    assert_eq!(tied.collect::<Vec<_>>(), [true, false]);
}

/// Reads a copy of the tied model that was changed, for the reason it is refused.
fn refusal(change: impl Fn(&mut serde_json::Value, &mut super::weights::Tensors)) -> String {
    let from = models()[0].folder();
    let dir = tempfile::tempdir().unwrap();
    let (_, mut tensors) = Llama::read(&from, Device::Cpu, Kind::Float).unwrap();
    let config = std::fs::read(from.join(CONFIG_FILE)).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    change(&mut config, &mut tensors);
    std::fs::write(dir.path().join(CONFIG_FILE), config.to_string()).unwrap();
    write_tensors(&dir.path().join(WEIGHTS_FILE), &tensors, Kind::Float).unwrap();
    let failure = Llama::read(dir.path(), Device::Cpu, Kind::Float).unwrap_err();
    let folder = dir.path().display().to_string();
    failure.message.replace(&folder, "m")
}

#[test]
fn a_missing_bias_is_named() {
    insta::assert_snapshot!(
        refusal(|_, tensors| {
            let _ = tensors.remove("model.layers.1.self_attn.k_proj.bias").unwrap();
        }),
        @"m: the configuration asks for tensors that the weights lack: model.layers.1.self_attn.k_proj.bias"
    );
}

/// A Llama has no biases unless its configuration has them: none is left out silently.
#[test]
fn unexpected_biases_are_named() {
    insta::assert_snapshot!(
        refusal(|config, _| {
            config["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
            config["model_type"] = "llama".into();
        }),
        @"m: the weights hold tensors that the configuration does not ask for: model.layers.0.self_attn.k_proj.bias, model.layers.0.self_attn.q_proj.bias, model.layers.0.self_attn.v_proj.bias, model.layers.1.self_attn.k_proj.bias and 2 more"
    );
    insta::assert_snapshot!(
        refusal(|_, tensors| {
            let o = tensors["model.norm.weight"].shallow_clone();
            tensors.insert("model.layers.0.self_attn.o_proj.bias".into(), o);
        }),
        @"m: the weights hold tensors that the configuration does not ask for: model.layers.0.self_attn.o_proj.bias"
    );
}
