//! SmolLM2-135M-Instruct, converted by the `model` stage, against what Hugging
//! Face transformers computes from the same folder
//! (`tests/reference/make_logits.py`).

use std::path::{Path, PathBuf};

use crate::model::llama::Llama;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

/// Largest difference of a logit or a log-probability, nats.
const TOLERANCE: f64 = 1e-3;

/// The converted model folder.
pub fn model_folder() -> PathBuf {
    let folder = std::env::var_os("GENIUS_TEST_MODEL").map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "GENIUS_TEST_MODEL is not set: run the tests by `make test`, which sets it, or set it to \
             the model folder that a run of pipelines/quickstart.yaml made"
        )
    });
    assert!(
        folder.join("config.json").is_file(),
        "GENIUS_TEST_MODEL names {}, which is no model folder",
        folder.display()
    );
    folder
}

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference/fixtures")
        .join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// smollm2_logits.json.
#[derive(Deserialize)]
struct Logits {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    text: String,
    ids: Vec<i64>,
    /// Natural log-probability of `ids[t + 1]` after `ids[..=t]`.
    next_logprobs: Vec<f64>,
    last: Last,
}

/// Logits after the whole prompt.
#[derive(Deserialize)]
struct Last {
    logsumexp: f64,
    top_ids: Vec<i64>,
    top_logits: Vec<f64>,
    indices: Vec<i64>,
    logits: Vec<f64>,
}

/// smollm2_chat.json.
#[derive(Deserialize)]
struct Chats {
    conversations: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    add_generation_prompt: bool,
    messages: serde_json::Value,
    text: String,
}

fn tokenizer() -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_file(model_folder().join("tokenizer.json")).unwrap()
}

#[test]
fn texts_become_the_same_tokens_and_come_back() {
    let tokenizer = tokenizer();
    let Logits { prompts } = fixture("smollm2_logits.json");
    assert_eq!(prompts.len(), 10);
    for prompt in prompts {
        let encoding = tokenizer.encode(prompt.text.as_str(), false).unwrap();
        let ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        assert_eq!(ids, prompt.ids, "{}", prompt.name);
        assert_eq!(
            tokenizer.decode(encoding.get_ids(), false).unwrap(),
            prompt.text,
            "{}",
            prompt.name
        );
    }
}

/// What transformers prints is what the template in the folder gives here.
#[test]
fn the_chat_template_renders_the_same_text() {
    let config = std::fs::read_to_string(model_folder().join("tokenizer_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let environment = minijinja::Environment::new();
    let template = environment
        .template_from_str(config["chat_template"].as_str().unwrap())
        .unwrap();
    for chat in fixture::<Chats>("smollm2_chat.json").conversations {
        let text = template
            .render(minijinja::context! {
                messages => chat.messages,
                add_generation_prompt => chat.add_generation_prompt,
            })
            .unwrap();
        assert_eq!(text, chat.text, "{}", chat.name);
    }
}

#[test]
fn logits_equal_those_of_transformers() {
    let _no_grad = tch::no_grad_guard();
    let model = Llama::load(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    let mut worst: (f64, String) = (0.0, String::new());
    for prompt in fixture::<Logits>("smollm2_logits.json").prompts {
        let input = Tensor::from_slice(&prompt.ids).unsqueeze(0);
        let logits = model
            .logits(&model.forward(&input))
            .squeeze_dim(0)
            .to_kind(Kind::Double);
        let last = logits.get(-1);
        let mut compare = |what: &str, got: &[f64], expected: &[f64]| {
            assert_eq!(got.len(), expected.len(), "{}: {what}", prompt.name);
            for (index, (a, b)) in got.iter().zip(expected).enumerate() {
                let difference = (a - b).abs();
                if difference.is_nan() || difference > worst.0 {
                    worst = (
                        difference,
                        format!("{}: {what} {index}: {a}, expected {b}", prompt.name),
                    );
                }
            }
        };
        let at = |ids: &[i64]| {
            Vec::<f64>::try_from(last.index_select(0, &Tensor::from_slice(ids))).unwrap()
        };
        compare("logit", &at(&prompt.last.indices), &prompt.last.logits);
        compare(
            "top logit",
            &at(&prompt.last.top_ids),
            &prompt.last.top_logits,
        );
        compare(
            "log-sum-exp",
            &[last.logsumexp(0, false).double_value(&[])],
            &[prompt.last.logsumexp],
        );
        let next = Tensor::from_slice(&prompt.ids[1..]).unsqueeze(-1);
        let logprobs = logits
            .log_softmax(-1, Kind::Double)
            .narrow(0, 0, next.size()[0])
            .gather(-1, &next, false);
        let logprobs = Vec::<f64>::try_from(logprobs.flatten(0, -1)).unwrap();
        compare("log-probability", &logprobs, &prompt.next_logprobs);
        assert_eq!(
            last.argmax(0, false).int64_value(&[]),
            prompt.last.top_ids[0],
            "{}",
            prompt.name
        );
    }
    assert!(worst.0 <= TOLERANCE, "off by {}: {}", worst.0, worst.1);
}
