//! SmolLM2-135M-Instruct, converted by the `model` stage, against what Hugging
//! Face transformers computes from the same folder
//! (`tests/reference/make_logits.py`).

use std::path::{Path, PathBuf};

use crate::infer;
use crate::infer::chat::ChatTemplate;
use crate::infer::engine::{Generation, Limits, Request, Sampling};
use crate::infer::testkit::{on_cpu, options};
use crate::model::llama::Llama;
use genius::kind::engine::{Dtype, Engine};
use genius::method::random::Stream;
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
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/fixtures");
    // `make check-model` holds another model to numbers of its own.
    let folder = std::env::var_os("GENIUS_TEST_FIXTURES").map_or(committed, PathBuf::from);
    let path = folder.join(name);
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
    let own = ChatTemplate::load(&model_folder()).unwrap();
    for chat in fixture::<Chats>("smollm2_chat.json").conversations {
        let text = own
            .render_messages(chat.messages, chat.add_generation_prompt)
            .unwrap();
        assert_eq!(text, chat.text, "{}", chat.name);
    }
}

/// The project's own renderer on what it renders: a user turn, with a system prompt or without.
#[test]
fn prompts_are_the_template_s_text_and_tokens() {
    let own = ChatTemplate::load(&model_folder()).unwrap();
    let tokenizer = tokenizer();
    let mut compared = 0;
    for chat in fixture::<Chats>("smollm2_chat.json").conversations {
        let turns: Vec<(&str, &str)> = chat
            .messages
            .as_array()
            .unwrap()
            .iter()
            .map(|m| (m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
            .collect();
        let prompt = match turns[..] {
            _ if !chat.add_generation_prompt => continue,
            [("user", user)] => own.render_prompt(None, user),
            [("system", system), ("user", user)] => own.render_prompt(Some(system), user),
            _ => continue,
        };
        let prompt = prompt.unwrap();
        assert_eq!(prompt.text, chat.text, "{}", chat.name);
        let whole = tokenizer.encode(chat.text.as_str(), false).unwrap();
        assert_eq!(prompt.token_ids, whole.get_ids(), "{}", chat.name);
        compared += 1;
    }
    assert!(compared > 0, "the fixture has no such conversation");
}

/// mistral.rs's CPU batches are wrong; one at a time is right. Several
/// requests of different lengths wait here, and each log-probability is held to an
/// independent forward pass over the finished sequence.
#[test]
fn mistralrs_logprobs_equal_the_project_s_own_forward_pass() {
    let folder = model_folder();
    let chat = ChatTemplate::load(&folder).unwrap();
    let mut engine = infer::load::engine(
        options(Engine::Mistralrs, Dtype::F32, 0),
        &folder,
        &on_cpu(),
    )
    .unwrap();
    let queries = [
        "What is 7 + 8?",
        "Name three colours, and say why you like each of them.",
        "Hi",
    ];
    let requests: Vec<Request> = queries
        .iter()
        .enumerate()
        .map(|(id, query)| {
            let context = chat.render_prompt(None, query).unwrap().token_ids;
            Request {
                response_start: context.len(),
                context,
                stream: Stream::new(1, "real model", query, &[id as u64]),
                sampling: sampling(0.6, 1.0),
                limits: Limits {
                    step: true,
                    max_step_tokens: 8,
                    max_after_tokens: 8,
                    max_tokens: 16,
                    stop: vec![],
                },
            }
        })
        .collect();
    let generations =
        infer::work::serve(engine.as_mut(), requests.clone(), &mut |_, _| {}, &|| true).unwrap();

    let _no_grad = tch::no_grad_guard();
    let model = Llama::load(&folder, Device::Cpu, Kind::Float).unwrap();
    for (request, generation) in requests.iter().zip(generations) {
        let generation = generation.unwrap();
        assert!(!generation.tokens.is_empty());
        let ids: Vec<i64> = request
            .context
            .iter()
            .chain(&generation.tokens)
            .map(|id| i64::from(*id))
            .collect();
        let logprobs = model
            .logits(&model.forward(&Tensor::from_slice(&ids).unsqueeze(0)))
            .squeeze_dim(0)
            .log_softmax(-1, Kind::Double);
        for (at, (token, logprob)) in generation
            .tokens
            .iter()
            .zip(&generation.logprobs)
            .enumerate()
        {
            let row = (request.context.len() + at - 1) as i64;
            let expected = logprobs.double_value(&[row, i64::from(*token)]);
            let difference = (expected - f64::from(*logprob)).abs();
            assert!(
                difference < TOLERANCE,
                "token {at}: {logprob}, expected {expected}"
            );
        }
    }
}

/// smollm2_greedy.json.
#[derive(Deserialize)]
struct Continuations {
    greedy: Vec<Continuation>,
}

/// What transformers says of a prompt, in f32.
#[derive(Deserialize)]
struct Continuation {
    name: String,
    ids: Vec<u32>,
    /// The likeliest one each time.
    tokens: Vec<u32>,
    /// Natural.
    logprobs: Vec<f64>,
    /// To the second likeliest, nats.
    margins: Vec<f64>,
}

/// Both engines in f32, with all prompts (of 5 to 300 tokens) in flight at once.
#[test]
fn engines_give_the_logprobs_of_transformers() {
    let Continuations { greedy } = fixture("smollm2_greedy.json");
    assert!(greedy.len() >= 8);
    let requests: Vec<Request> = greedy
        .iter()
        .map(|c| Request {
            context: c.ids.clone(),
            response_start: c.ids.len(),
            stream: Stream::new(0, "greedy", "", &[]),
            sampling: sampling(0.0, 0.0),
            limits: without_a_step(c.tokens.len()),
        })
        .collect();
    for engine in [Engine::Native, Engine::Mistralrs] {
        let mut compared = 0;
        for (c, g) in greedy.iter().zip(served(engine, requests.clone())) {
            for (at, (token, logprob)) in g.tokens.iter().zip(&g.logprobs).enumerate() {
                if *token != c.tokens[at] {
                    // What follows is another text.
                    let margin = c.margins[at];
                    assert!(
                        margin < TOLERANCE,
                        "{engine}, {}: token {at} of margin {margin}",
                        c.name
                    );
                    break;
                }
                let difference = (f64::from(*logprob) - c.logprobs[at]).abs();
                assert!(
                    difference < TOLERANCE,
                    "{engine}, {}: token {at}: {logprob}, expected {}",
                    c.name,
                    c.logprobs[at]
                );
                compared += 1;
            }
        }
        let all: usize = greedy.iter().map(|c| c.tokens.len()).sum();
        assert!(compared * 10 > all * 9, "{engine}: {compared} of {all}");
    }
}

/// A draw is a function of logits and key, so engines whose logits differ in the sixth digit
/// part only where two tokens' noisy scores tie to that digit.
#[test]
fn engines_draw_the_same_tokens() {
    let chat = ChatTemplate::load(&model_folder()).unwrap();
    let requests: Vec<Request> = (0..64_u64)
        .map(|id| {
            let query = format!("What is {} + {}? Explain it.", id % 8, 10 + id / 8);
            let context = chat.render_prompt(None, &query).unwrap().token_ids;
            Request {
                response_start: context.len(),
                context,
                stream: Stream::new(1, "two engines", &query, &[id]),
                sampling: sampling(0.6, 1.0),
                limits: Limits {
                    step: true,
                    max_step_tokens: 6,
                    max_after_tokens: 6,
                    max_tokens: 12,
                    stop: vec![],
                },
            }
        })
        .collect();
    let one = served(Engine::Native, requests.clone());
    let other = served(Engine::Mistralrs, requests);
    let mut parted = Vec::new();
    for (i, (a, b)) in one.iter().zip(&other).enumerate() {
        if a.tokens != b.tokens {
            let at = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b);
            parted.push((i, at.count()));
        }
        for (at, (x, y)) in a.logprobs.iter().zip(&b.logprobs).enumerate() {
            if a.tokens[..=at] != b.tokens[..=at] {
                break;
            }
            assert!((x - y).abs() < 1e-3, "rollout {i}, token {at}: {x} and {y}");
        }
    }
    assert!(
        parted.len() <= 4,
        "they part at (rollout, token): {parted:?}"
    );
}

/// All in flight at once, as far as the engine has them so.
fn served(engine: Engine, requests: Vec<Request>) -> Vec<Generation> {
    let mut engine =
        infer::load::engine(options(engine, Dtype::F32, 0), &model_folder(), &on_cpu()).unwrap();
    let served = infer::work::serve(engine.as_mut(), requests, &mut |_, _| {}, &|| true).unwrap();
    served.into_iter().map(Result::unwrap).collect()
}

fn sampling(step_temperature: f64, temperature: f64) -> Sampling {
    Sampling {
        step_temperature,
        temperature,
        top_k: None,
        top_p: 1.0,
        min_p: 0.0,
    }
}

fn without_a_step(tokens: usize) -> Limits {
    Limits {
        step: false,
        max_step_tokens: 0,
        max_after_tokens: tokens,
        max_tokens: tokens,
        stop: vec![],
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
