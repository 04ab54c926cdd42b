//! The model against transformers' fixtures, and its weights as they are read and written.

use super::*;
use crate::model::weights::{WEIGHTS_FILE, write_folder};

// Made by tests/reference/make_aco.py with transformers.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/fixtures/aco");

fn fixture() -> serde_json::Value {
    let text = std::fs::read_to_string(Path::new(FIXTURE).join("aco.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn ids(fixture: &serde_json::Value) -> Tensor {
    let ids: Vec<i64> = serde_json::from_value(fixture["input_ids"].clone()).unwrap();
    Tensor::from_slice(&ids).unsqueeze(0)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double))
        .abs()
        .max()
        .double_value(&[])
}

fn logits(model: &Llama, input_ids: &Tensor) -> Tensor {
    tch::no_grad(|| model.logits(&model.forward(input_ids)))
}

fn tiny(kind: Kind) -> Llama {
    Llama::load(&Path::new(FIXTURE).join("model"), Device::Cpu, kind).unwrap()
}

/// `LlamaForCausalLM(input_ids).logits`, transformers 5.23, f32.
#[test]
fn logits_are_those_of_transformers() {
    let fixture = fixture();
    let want = Tensor::from_slice(&numbers(&fixture["logits"])).view([1, -1, 64]);
    let got = logits(&tiny(Kind::Float), &ids(&fixture));
    assert!(
        largest_difference(&got, &want) < 1e-4,
        "{}",
        largest_difference(&got, &want)
    );
    let got = logits(&tiny(Kind::BFloat16), &ids(&fixture));
    assert!(
        largest_difference(&got, &want) < 0.1,
        "{}",
        largest_difference(&got, &want)
    );
}

/// Numbers between those of bf16 are among them: nothing rounds them on their way.
#[test]
fn hidden_states_and_logits_are_f32_whatever_the_weights() {
    let (model, ids) = (tiny(Kind::BFloat16), ids(&fixture()));
    let hidden = tch::no_grad(|| model.forward(&ids));
    for numbers in [&hidden, &tch::no_grad(|| model.logits(&hidden))] {
        assert_eq!(numbers.kind(), Kind::Float);
        let rounded = numbers.to_kind(Kind::BFloat16).to_kind(Kind::Float);
        assert!(largest_difference(numbers, &rounded) > 0.0);
    }
}

#[test]
fn padding_at_the_end_changes_no_earlier_logit() {
    let (model, ids) = (tiny(Kind::Float), ids(&fixture()));
    let tokens = ids.size()[1];
    let padded = Tensor::cat(
        &[&ids, &Tensor::zeros([1, 5], (Kind::Int64, Device::Cpu))],
        1,
    );
    let rows = Tensor::cat(&[&padded, &padded.ones_like()], 0);
    let got = logits(&model, &rows).narrow(0, 0, 1).narrow(1, 0, tokens);
    assert!(largest_difference(&got, &logits(&model, &ids)) < 1e-5);
}

#[test]
fn explicit_positions_are_the_implied_ones() {
    let (model, ids) = (tiny(Kind::Float), ids(&fixture()));
    let positions = Tensor::arange(ids.size()[1], (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let hidden = |at: &Tensor| tch::no_grad(|| model.forward_at(&ids, at, &mut Causal));
    assert_eq!(hidden(&positions), tch::no_grad(|| model.forward(&ids)));
    // Attention sees distances only: the same shift everywhere is no change.
    assert!(largest_difference(&hidden(&(&positions + 9)), &hidden(&positions)) < 1e-4);
    assert!(largest_difference(&hidden(&(&positions * 2)), &hidden(&positions)) > 1e-2);
}

/// transformers' `_compute_llama3_parameters`.
#[test]
fn llama3_frequencies_are_those_of_transformers() {
    let config = Config {
        head_dim: 128,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        },
        ..Config::load(&Path::new(FIXTURE).join("model")).unwrap()
    };
    let got = Vec::<f32>::try_from(Rope::new(&config, Device::Cpu).frequencies).unwrap();
    let want = numbers(&fixture()["llama3_inv_freq"]);
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() <= 1e-6 * w, "{g} {w}");
    }
}

#[test]
fn a_written_folder_gives_the_same_logits() {
    let source = Path::new(FIXTURE).join("model");
    let dir = tempfile::tempdir().unwrap();
    let (_, tensors) = Llama::read(&source, Device::Cpu, Kind::Float).unwrap();
    write_folder(&source, dir.path(), &tensors, Kind::Float).unwrap();
    let ids = ids(&fixture());
    let back = Llama::load(dir.path(), Device::Cpu, Kind::Float).unwrap();
    assert_eq!(logits(&back, &ids), logits(&tiny(Kind::Float), &ids));
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(config.contains(r#""torch_dtype": "float32""#), "{config}");
    assert!(dir.path().join("generation_config.json").is_file());
}

#[test]
fn a_tied_head_is_the_embedding_and_is_not_written_twice() {
    let source = Path::new(FIXTURE).join("model");
    let dir = tempfile::tempdir().unwrap();
    let (_, mut tensors) = Llama::read(&source, Device::Cpu, Kind::Float).unwrap();
    // As a tied checkpoint that stores its head all the same.
    let embedding = tensors[EMBEDDING].shallow_clone();
    tensors.insert(LM_HEAD.into(), embedding);
    write_folder(&source, dir.path(), &tensors, Kind::Float).unwrap();
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["tie_word_embeddings"] = true.into();
    std::fs::write(&path, config.to_string()).unwrap();

    let (config, read) = Llama::read(dir.path(), Device::Cpu, Kind::Float).unwrap();
    assert!(config.tie_word_embeddings && !read.contains_key(LM_HEAD));
    let model = Llama::new(&config, &read).unwrap();
    assert_eq!(model.head(), &tensors[EMBEDDING]);
    tensors.remove(LM_HEAD);
    assert!(tensors.keys().eq(read.keys()));

    let again = tempfile::tempdir().unwrap();
    write_folder(dir.path(), again.path(), &read, Kind::Float).unwrap();
    let bytes = std::fs::read(again.path().join(WEIGHTS_FILE)).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains(LM_HEAD));
    let back = Llama::load(again.path(), Device::Cpu, Kind::Float).unwrap();
    let ids = ids(&fixture());
    assert_eq!(logits(&back, &ids), logits(&model, &ids));
}
/// transformers up to 4 ties them all the same, 5 does not.
#[test]
fn a_tied_head_with_other_values_is_refused() {
    let source = Path::new(FIXTURE).join("model");
    let dir = tempfile::tempdir().unwrap();
    let (_, mut tensors) = Llama::read(&source, Device::Cpu, Kind::Float).unwrap();
    let mut refusal = |head: Option<Tensor>| {
        if let Some(head) = head {
            tensors.insert(LM_HEAD.into(), head);
        }
        write_folder(&source, dir.path(), &tensors, Kind::Float).unwrap();
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace(
            r#""tie_word_embeddings": false"#,
            r#""tie_word_embeddings": true"#,
        );
        std::fs::write(&path, text).unwrap();
        let failure = Llama::read(dir.path(), Device::Cpu, Kind::Float).unwrap_err();
        let folder = dir.path().display().to_string();
        failure.message.replace(&folder, "m")
    };
    insta::assert_snapshot!(
        refusal(None),
        @"m/model.safetensors: `lm_head.weight` is not `model.embed_tokens.weight`, although `tie_word_embeddings` of m/config.json is set: transformers up to 4 leaves the head out, 5 uses it"
    );
    insta::assert_snapshot!(
        refusal(Some(Tensor::zeros([64, 16], (Kind::Float, Device::Cpu)))),
        @"m/model.safetensors: tensor `lm_head.weight` has the shape [64, 16]; the configuration asks for [64, 32]"
    );
}
