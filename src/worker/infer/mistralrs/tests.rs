//! The tiny model through the real mistral.rs, on the CPU.

use super::*;
use crate::infer::engine::{
    GenerationEnd, LikelihoodRequest, Limits, Request, Sampling, StepBoundary, TokenLikelihood,
};
use crate::infer::testkit::forward;
use crate::infer::testkit::{
    CONTEXT, IM_END, IM_START, VOCAB, off_by, on_cpu, options, tiny_llama3, tiny_model, tiny_qwen2,
};
use crate::infer::work::serve;
use crate::model::llama::Llama;
use genius::kind::engine::Engine as Asked;
use genius::method::random::Stream;

const SEED: u64 = 3;

fn asked(width: usize) -> Options {
    options(Asked::Mistralrs, Dtype::F32, width)
}

fn load() -> MistralRs {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), SEED);
    // Weights are in memory once it is loaded.
    MistralRs::load(dir.path(), asked(8), &on_cpu()).unwrap()
}

fn request(id: u64, temperature: f64) -> Request {
    Request {
        context: [IM_START, 72, 105, 32 + u32::try_from(id).unwrap()].to_vec(),
        response_start: 4,
        stream: Stream::new(5, "engine test", "", &[id]),
        sampling: Sampling {
            step_temperature: temperature,
            temperature,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
        },
        limits: Limits {
            step: false,
            max_step_tokens: 0,
            max_after_tokens: 24,
            max_tokens: 24,
            stop: vec![],
        },
    }
}

/// Results in order.
fn generate(engine: &mut MistralRs, requests: Vec<Request>) -> Vec<Result<Generation, String>> {
    serve(engine, requests, &mut |_, _| {}, &|| true).unwrap()
}

fn one(engine: &mut MistralRs, request: Request) -> Generation {
    generate(engine, vec![request]).remove(0).unwrap()
}

#[test]
fn the_same_key_gives_the_same_result_alone_and_queued() {
    let mut engine = load();
    assert_eq!(engine.context_len(), CONTEXT);
    let requests: Vec<Request> = (0..3).map(|id| request(id, 1.0)).collect();
    let queued: Vec<Generation> = generate(&mut engine, requests.clone())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for (request, queued) in requests.into_iter().zip(&queued) {
        assert_eq!(&one(&mut engine, request), queued);
    }
    assert_ne!(queued[0].tokens, queued[1].tokens);
    for g in &queued {
        assert_eq!(g.tokens.len(), g.logprobs.len());
        assert!(g.tokens.len() == 24 || g.end == GenerationEnd::EndToken);
        assert!(g.logprobs.iter().all(|&l| l < 0.0));
    }
}

/// mistral.rs batches what waits together, and its CPU batches are wrong: off by
/// many nats. More than one request in flight fails here.
#[test]
fn logprobs_equal_an_independent_forward_pass_with_many_requests_waiting() {
    let mut engine = load();
    let requests: Vec<Request> = (0..8).map(|id| request(id, 1.0)).collect();
    let results = generate(&mut engine, requests.clone());
    for (request, g) in requests.into_iter().zip(results) {
        let g = g.unwrap();
        let all = [&request.context[..], &g.tokens].concat();
        let exact = forward::logprobs(SEED, &all);
        let exact = &exact[request.context.len() - 1..];
        assert_eq!(exact.len(), g.logprobs.len());
        for (got, want) in g.logprobs.iter().zip(exact) {
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} is not {want}");
        }
    }
}

/// The architecture is found by config.json; its biases and its scaling are used.
#[test]
fn qwen2_and_llama_3_have_the_logprobs_of_the_trainer_s_model() {
    let plain = tempfile::tempdir().unwrap();
    tiny_model(plain.path(), SEED);
    let plain = Llama::load(plain.path(), tch::Device::Cpu, tch::Kind::Float).unwrap();
    for write in [tiny_qwen2, tiny_llama3] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), SEED);
        let model = Llama::load(dir.path(), tch::Device::Cpu, tch::Kind::Float).unwrap();
        let mut engine = MistralRs::load(dir.path(), asked(1), &on_cpu()).unwrap();
        for id in 0..4 {
            let mut request = request(id, 1.0);
            request
                .context
                .extend((0..60).map(|i| 97 + (i * i + 5) % 26));
            request.response_start = request.context.len();
            let g = one(&mut engine, request.clone());
            let off = off_by(&model, &request.context, &g);
            assert!(off < 1e-3, "request {id} is off by {off}");
            // Without bias or scaling it is another model.
            assert!(off_by(&plain, &request.context, &g) > 0.1);
        }
    }
}

/// Before anything is loaded: see [`config`].
#[test]
fn a_model_that_it_would_compute_wrongly_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), SEED);
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replace(r#""mlp_bias":false"#, r#""mlp_bias":true"#);
    assert_ne!(text, changed);
    std::fs::write(&path, changed).unwrap();
    let Err(e) = MistralRs::load(dir.path(), asked(1), &on_cpu()) else {
        panic!("it was loaded");
    };
    let words = e
        .to_string()
        .replace(&dir.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!(
        words,
        @"mistralrs cannot load the model in FOLDER: mistral.rs would pass over the biases of a Llama (`mlp_bias`), and compute another model; use `engine: native`"
    );
}

/// Decoding with the cache against a fresh prompt with the same tokens in it.
/// The canary: sequences that mistral.rs decodes together on a CPU get each other's attention.
/// The day this fails, give the CPU a width in [`MistralRs::load`] and turn it round.
#[test]
fn cpu_batches_of_mistralrs_are_still_wrong() {
    let mut engine = load();
    engine.width = 8;
    let requests: Vec<Request> = (0..8).map(|id| request(id, 1.0)).collect();
    let got = generate(&mut engine, requests.clone());
    let mut worst = 0.0_f64;
    for (request, g) in requests.iter().zip(got) {
        let g = g.unwrap();
        let tokens: Vec<u32> = request.context.iter().chain(&g.tokens).copied().collect();
        let expected = forward::logprobs(SEED, &tokens);
        let expected = &expected[request.context.len() - 1..];
        for (got, expected) in g.logprobs.iter().zip(expected) {
            worst = worst.max((f64::from(*got) - expected).abs());
        }
    }
    assert!(
        worst > 0.01,
        "off by {worst} only: the CPU batches of this mistral.rs are right"
    );
}

#[test]
fn logprobs_equal_those_of_a_fresh_prompt() {
    let mut engine = load();
    let whole = one(&mut engine, request(0, 0.0));
    assert!(whole.tokens.len() > 12);
    for n in [1, 5, 12] {
        let mut fresh = request(0, 0.0);
        fresh.context.extend(&whole.tokens[..n]);
        fresh.limits.max_tokens = 1;
        let fresh = one(&mut engine, fresh);
        assert_eq!(fresh.tokens, whole.tokens[n..=n]);
        assert!((fresh.logprobs[0] - whole.logprobs[n]).abs() < 1e-4);
    }
}

/// Log-probabilities of one context, by drawing often, sum to 1.
#[test]
fn probabilities_sum_to_one() {
    let mut engine = load();
    let requests: Vec<Request> = (0..1500)
        .map(|id| {
            let mut r = request(0, 4.0);
            r.stream = Stream::new(9, "sum", "", &[id]);
            r.limits.max_tokens = 1;
            r
        })
        .collect();
    let mut by_token = std::collections::BTreeMap::new();
    for g in generate(&mut engine, requests) {
        let g = g.unwrap();
        let before = by_token.insert(g.tokens[0], g.logprobs[0]);
        assert!(before.is_none_or(|b| b == g.logprobs[0]));
    }
    let sum: f64 = by_token.values().map(|&l| f64::from(l).exp()).sum();
    assert!(by_token.len() > VOCAB / 2, "{} tokens seen", by_token.len());
    assert!(sum > 0.9 && sum < 1.0 + 1e-4, "{sum}");
}

#[test]
fn an_end_token_is_recorded_last_and_once() {
    let mut engine = load();
    let requests = (0..60)
        .map(|id| {
            let mut r = request(id % 40, 3.0);
            r.stream = Stream::new(11, "end", "", &[id]);
            r.limits.max_tokens = 100;
            r.limits.max_after_tokens = 100;
            r
        })
        .collect();
    let ended: Vec<Generation> = generate(&mut engine, requests)
        .into_iter()
        .map(Result::unwrap)
        .filter(|g| g.end == GenerationEnd::EndToken)
        .collect();
    assert!(!ended.is_empty());
    for g in &ended {
        assert_eq!(g.tokens.last(), Some(&IM_END));
        assert_eq!(g.tokens.iter().filter(|&&t| t == IM_END).count(), 1);
        assert_eq!(g.tokens.len(), g.logprobs.len());
    }
}

#[test]
fn limits_and_stop_texts_end_a_generation_where_they_say() {
    let mut engine = load();
    let whole = one(&mut engine, request(0, 1.0));
    let mut short = request(0, 1.0);
    short.limits.max_tokens = 7;
    let cut = one(&mut engine, short);
    assert_eq!(cut.tokens, whole.tokens[..7]);
    assert_eq!(cut.end, GenerationEnd::Limit);
    // A text spread over the 3rd and 4th tokens.
    let text = [
        engine.table.bytes(whole.tokens[2]),
        engine.table.bytes(whole.tokens[3]),
    ]
    .concat();
    if let Ok(text) = String::from_utf8(text) {
        let mut stopped = request(0, 1.0);
        stopped.limits.stop = vec![text];
        let stopped = one(&mut engine, stopped);
        assert_eq!(stopped.tokens, whole.tokens[..4]);
        assert_eq!(stopped.end, GenerationEnd::StopText);
    }
    let mut step = request(0, 1.0);
    step.limits.step = true;
    step.limits.max_step_tokens = 5;
    step.limits.max_after_tokens = 3;
    let step = one(&mut engine, step);
    assert!(step.tokens.len() <= 8);
    assert_eq!(step.tokens, whole.tokens[..step.tokens.len()]);
    if step.step_boundary == StepBoundary::Limit {
        assert_eq!(step.step_len, 5);
    }
}

#[test]
fn the_context_is_a_limit() {
    let mut engine = load();
    let with_len = |len: usize| {
        let mut r = request(0, 0.0);
        r.context = vec![97; len];
        r
    };
    let results = generate(
        &mut engine,
        vec![
            with_len(CONTEXT - 3),
            with_len(CONTEXT),
            with_len(CONTEXT + 1),
            with_len(0),
        ],
    );
    let len = |i: usize| {
        results[i]
            .as_ref()
            .map(|g: &Generation| g.tokens.len())
            .ok()
    };
    assert_eq!(len(0), Some(3));
    assert_eq!(len(1), Some(0));
    for (i, words) in [(2, "context only 512"), (3, "no tokens")] {
        let e = results[i].as_ref().unwrap_err();
        assert!(e.contains(words), "{e}");
    }
}

#[test]
fn scoring_is_not_supported() {
    struct Nothing;
    impl Work<LikelihoodRequest, Vec<TokenLikelihood>> for Nothing {
        fn next(&mut self) -> Option<(u64, LikelihoodRequest)> {
            None
        }
        fn done(&mut self, _: u64, _: Result<Vec<TokenLikelihood>, EngineError>) -> bool {
            true
        }
        fn go_on(&mut self) -> bool {
            true
        }
    }
    let e = load().likelihoods(&mut Nothing).unwrap_err();
    insta::assert_snapshot!(e, @"the engine `mistralrs` cannot score given tokens");
}

/// Gives requests without end, until `stop`.
struct Endless {
    given: u64,
    done: u64,
    looks: u64,
    stop: fn(&Self) -> bool,
    max_tokens: usize,
}

impl Work for Endless {
    fn next(&mut self) -> Option<(u64, Request)> {
        self.given += 1;
        let mut r = request(self.given % 40, 1.0);
        r.limits.max_tokens = self.max_tokens;
        r.limits.max_after_tokens = self.max_tokens;
        Some((self.given, r))
    }

    fn done(&mut self, _: u64, _: Result<Generation, EngineError>) -> bool {
        self.done += 1;
        self.go_on()
    }

    fn go_on(&mut self) -> bool {
        self.looks += 1;
        !(self.stop)(self)
    }
}

#[test]
fn a_caller_can_stop() {
    let mut engine = load();
    let mut work = Endless {
        given: 0,
        done: 0,
        looks: 0,
        stop: |work| work.done == 2,
        max_tokens: 8,
    };
    let e = engine.generate(&mut work);
    assert!(matches!(e, Err(EngineError::Cancelled)));
    // On a CPU one is in flight at a time.
    assert_eq!((work.given, work.done), (2, 2));
    // It serves on.
    assert_eq!(
        one(&mut engine, request(0, 1.0)),
        one(&mut load(), request(0, 1.0))
    );
}

#[test]
fn a_caller_can_stop_inside_a_generation() {
    let mut engine = load();
    // Which of them is under way at the second look depends on the machine; that
    // it is not handed over does not.
    let mut work = Endless {
        given: 0,
        done: 0,
        looks: 0,
        stop: |work| work.looks >= 2,
        max_tokens: CONTEXT,
    };
    let e = engine.generate(&mut work);
    assert!(matches!(e, Err(EngineError::Cancelled)));
    assert!(work.given <= 2, "{} given", work.given);
    assert_eq!(
        one(&mut engine, request(0, 1.0)),
        one(&mut load(), request(0, 1.0))
    );
}

#[test]
fn an_end_token_of_its_own_does_not_end_a_sequence() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), SEED);
    // mistral.rs takes `eos_token`, too; here only another one ends a turn.
    let path = dir.path().join("tokenizer_config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let changed = config.replace(
        r#""eos_token":"<|im_end|>""#,
        r#""eos_token":"<|im_start|>""#,
    );
    assert_ne!(config, changed);
    std::fs::write(&path, changed).unwrap();
    let mut engine = MistralRs::load(dir.path(), asked(1), &on_cpu()).unwrap();
    let mut went_on = false;
    for id in 0..60 {
        let mut r = request(0, 4.0);
        r.stream = Stream::new(13, "foreign", "", &[id]);
        let g = one(&mut engine, r);
        assert!(g.tokens.len() == 24 || g.tokens.last() == Some(&IM_END));
        went_on |= g.tokens[..g.tokens.len() - 1].contains(&IM_START);
    }
    assert!(went_on);
}
