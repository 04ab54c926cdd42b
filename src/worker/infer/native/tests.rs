//! The tiny model through the decoder: against an independent forward pass, and
//! against itself under every change that must not matter.

use std::collections::VecDeque;

use super::super::engine::{
    Engine, Generation, GenerationEnd, Limits, Request, Sampling, StepBoundary, Work,
};
use super::super::testkit::{
    CONTEXT, IM_START, VOCAB, forward, off_by, on_cpu, options, tiny_llama3, tiny_model, tiny_qwen2,
};
use super::*;
use genius::kind::engine::Engine as Asked;
use genius::method::random::Stream;

mod likelihood;
mod qwen2;
mod real_model;

const SEED: u64 = 3;
const AMPLE: usize = 64 << 20;
/// Of a block of the tiny model's cache in bf16.
const BLOCK_BYTES: usize = 2 * 2 * 2 * 64 * 16 * 2;

fn asked(dtype: Dtype, width: usize) -> Options {
    options(Asked::Native, dtype, width)
}

fn engine(dtype: Dtype, width: usize) -> Decoder {
    engine_in(dtype, width, AMPLE, true)
}

fn engine_in(dtype: Dtype, width: usize, cache_bytes: usize, keep: bool) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), SEED);
    let capacity = Capacity {
        width,
        cache_bytes,
        keep,
    };
    load_in(dir.path(), dtype, &on_cpu(), capacity).unwrap()
}

/// Request `id`: prompts of 3 to 90 tokens, some alike at their beginning or altogether.
fn request(id: u64) -> Request {
    let stream = Stream::new(5, "decoder test", "", &[id]);
    let prompt = Stream::new(6, "prompt", "", &[id / 4]);
    let len = 3 + (prompt.uniform(0, 0) * 88.0) as u64;
    let mut context = vec![IM_START, 72, 105];
    context.extend((0..len).map(|i| (prompt.uniform(1, i) * 255.0) as u32));
    if id % 4 == 3 {
        context.push(33);
    }
    Request {
        response_start: context.len(),
        context,
        stream,
        sampling: Sampling {
            step_temperature: 0.8,
            temperature: 1.3,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
        },
        limits: Limits {
            step: true,
            max_step_tokens: 10 + id as usize % 7,
            max_after_tokens: 30,
            max_tokens: 60,
            stop: vec![],
        },
    }
}

struct List<Q = Request, A = Generation> {
    waiting: VecDeque<(u64, Q)>,
    done: Vec<(u64, Result<A, EngineError>)>,
    /// Steps until it stops the run.
    steps: Option<usize>,
}

impl<Q, A> List<Q, A> {
    fn new(requests: impl IntoIterator<Item = (u64, Q)>) -> Self {
        Self {
            waiting: requests.into_iter().collect(),
            done: vec![],
            steps: None,
        }
    }

    /// By number.
    fn results(mut self) -> Vec<Result<A, EngineError>> {
        self.done.sort_by_key(|(id, _)| *id);
        self.done.into_iter().map(|(_, result)| result).collect()
    }
}

impl<Q, A> Work<Q, A> for List<Q, A> {
    fn next(&mut self) -> Option<(u64, Q)> {
        self.waiting.pop_front()
    }

    fn done(&mut self, id: u64, result: Result<A, EngineError>) -> bool {
        self.done.push((id, result));
        true
    }

    fn go_on(&mut self) -> bool {
        self.steps = self.steps.map(|n| n.saturating_sub(1));
        self.steps != Some(0)
    }
}

/// Results by number.
fn generate(
    engine: &mut Decoder,
    requests: impl IntoIterator<Item = (u64, Request)>,
) -> Vec<Result<Generation, EngineError>> {
    let mut list = List::new(requests);
    engine.generate(&mut list).unwrap();
    assert_eq!(engine.held_blocks(), 0);
    list.results()
}

fn all(engine: &mut Decoder, ids: impl IntoIterator<Item = u64>) -> Vec<Generation> {
    let requests = ids.into_iter().map(|id| (id, request(id)));
    let results = generate(engine, requests);
    results.into_iter().map(Result::unwrap).collect()
}

/// How far log-probabilities are from those of a forward pass in f64.
fn off(request: &Request, g: &Generation) -> Vec<f64> {
    let tokens = [&request.context[..], &g.tokens].concat();
    let exact = forward::logprobs(SEED, &tokens);
    let exact = &exact[request.context.len() - 1..];
    assert_eq!(exact.len(), g.logprobs.len());
    let difference = |(got, want): (&f32, &f64)| (f64::from(*got) - want).abs();
    g.logprobs.iter().zip(exact).map(difference).collect()
}

/// In bf16 the weights themselves are rounded, and the tiny model's are large.
#[test]
fn logprobs_equal_an_independent_forward_pass_in_ragged_batches() {
    for (dtype, most, on_average) in [(Dtype::F32, 1e-4, 1e-5), (Dtype::Bf16, 1.0, 0.1)] {
        let got = all(&mut engine(dtype, 8), 0..24);
        assert!(got.iter().all(|g| !g.tokens.is_empty()));
        let off: Vec<f64> = (0..24)
            .zip(&got)
            .flat_map(|(id, g)| off(&request(id), g))
            .collect();
        let worst = off.iter().copied().fold(0.0, f64::max);
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        assert!(
            worst < most && mean < on_average,
            "{dtype}: off by {worst}, {mean} on average"
        );
    }
}

/// The way of other devices, on the CPU.
#[test]
fn libtorch_s_operations_give_the_same_logprobs_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), SEED);
    let forward = in_tensors(dir.path(), Device::Cpu, Kind::Float, 2, ROWS).unwrap();
    let table = Arc::new(TokenBytes::load(dir.path()).unwrap());
    let capacity = Capacity {
        width: 8,
        cache_bytes: AMPLE,
        keep: true,
    };
    let mut engine = Decoder::new(forward, table, CONTEXT, capacity);
    let got = all(&mut engine, 0..24);
    for (id, g) in (0..24).zip(&got) {
        assert!(off(&request(id), g).into_iter().all(|off| off < 1e-4));
    }
    let own = all(&mut super::tests::engine(Dtype::F32, 8), 0..24);
    let same = got.iter().zip(&own).filter(|(a, b)| a.tokens == b.tokens);
    assert!(same.count() >= 23);
}

#[test]
fn a_result_depends_on_its_request_alone() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let mut first = engine(dtype, 16);
        let want = all(&mut first, 0..64);
        // Kept caches are there now.
        assert_eq!(all(&mut first, 0..64), want, "{dtype}: once more");
        assert_eq!(all(&mut first, (0..64).rev()), want, "{dtype}: backwards");
        for id in [0, 7, 42] {
            let alone = all(&mut engine(dtype, 16), [id]);
            assert_eq!(alone[0], want[id as usize], "{dtype}: {id} alone");
        }
        for width in [1, 3, 64] {
            assert_eq!(
                all(&mut engine(dtype, width), 0..64),
                want,
                "{dtype}: width {width}"
            );
        }
        let mut bare = engine_in(dtype, 16, AMPLE, false);
        assert_eq!(all(&mut bare, 0..64), want, "{dtype}: nothing kept");
    }
}

/// Sequences give way to each other when memory is short, down to one at a time.
#[test]
fn short_memory_changes_nothing() {
    let want = all(&mut engine(Dtype::Bf16, 16), 0..40);
    for blocks in [1, 2, 3, 7, 20] {
        let mut tight = engine_in(Dtype::Bf16, 16, blocks * BLOCK_BYTES, true);
        assert_eq!(all(&mut tight, 0..40), want, "{blocks} blocks");
    }
}

/// A response that goes on from what was generated, as a beam's next step does.
#[test]
fn a_continuation_has_the_bits_of_the_generation_it_continues() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for keep in [true, false] {
            let mut engine = engine_in(dtype, 8, AMPLE, keep);
            let mut one = |request: &Request| {
                let results = generate(&mut engine, [(0, request.clone())]);
                results.into_iter().next().unwrap().unwrap()
            };
            let (whole, done) = (0..)
                .map(|id| {
                    let mut request = request(id);
                    request.limits.step = false;
                    let done = one(&request);
                    (request, done)
                })
                .find(|(_, done)| done.tokens.len() > 20)
                .unwrap();
            for n in [1, 9, 20] {
                let mut rest = whole.clone();
                rest.context.extend(&done.tokens[..n]);
                rest.sampling.temperature = 0.0;
                rest.limits.max_tokens = 1;
                let rest = one(&rest);
                if rest.tokens[0] == done.tokens[n] {
                    assert_eq!(rest.logprobs[0].to_bits(), done.logprobs[n].to_bits());
                }
                let mut fresh = engine_in(dtype, 1, AMPLE, false);
                let mut again = whole.clone();
                again.context.extend(&done.tokens[..n]);
                again.sampling.temperature = 0.0;
                again.limits.max_tokens = 1;
                assert_eq!(generate(&mut fresh, [(0, again)]).remove(0).unwrap(), rest);
            }
        }
    }
}

/// The rollouts of a beam, and the next step's of those that were taken: every token goes
/// through the model once.
#[test]
fn a_prompt_is_prefilled_once_and_a_beam_goes_on_from_its_cache() {
    let mut engine = engine(Dtype::Bf16, 8);
    let mut prompt = request(0);
    prompt.context = (0..150).map(|i| i % 250).collect();
    prompt.response_start = 150;
    prompt.limits.step = false;
    let rollouts = |prompt: &Request, of: u64| -> Vec<(u64, Request)> {
        (0..8)
            .map(|id| {
                let mut request = prompt.clone();
                request.stream = Stream::new(7, "rollouts", "", &[of, id]);
                (id, request)
            })
            .collect()
    };
    let generated = |results: &[Result<Generation, EngineError>]| -> u64 {
        let tokens = results.iter().map(|g| g.as_ref().unwrap().tokens.len());
        tokens.sum::<usize>() as u64
    };
    let first = generate(&mut engine, rollouts(&prompt, 0));
    let (rows, tokens) = (engine.rows(), generated(&first));
    // All but each one's last token, which is drawn and not run; and the last one of the
    // prompt, whose logits are wanted, for every rollout.
    assert!(rows <= 150 + 8 + tokens, "{rows} rows, {tokens} tokens");
    let longest = first.into_iter().map(Result::unwrap);
    let longest = longest.max_by_key(|g| g.tokens.len()).unwrap().tokens;
    let mut beam = prompt;
    beam.context.extend(&longest[..longest.len() / 2]);
    engine.times();
    let tokens = generated(&generate(&mut engine, rollouts(&beam, 1)));
    let rows = engine.rows();
    assert!(rows <= 8 + tokens, "{rows} rows, {tokens} tokens");
}

/// Requests that come when others are done.
struct Chain {
    left: u64,
    under_way: bool,
    results: Vec<Generation>,
}

impl Work for Chain {
    fn next(&mut self) -> Option<(u64, Request)> {
        if self.under_way || self.left == 0 {
            return None;
        }
        self.under_way = true;
        Some((self.left, request(self.left)))
    }

    fn done(&mut self, _: u64, result: Result<Generation, EngineError>) -> bool {
        self.results.push(result.unwrap());
        (self.under_way, self.left) = (false, self.left - 1);
        true
    }

    fn go_on(&mut self) -> bool {
        true
    }
}

#[test]
fn work_that_comes_when_other_work_is_done_is_done_too() {
    let mut chain = Chain {
        left: 5,
        under_way: false,
        results: vec![],
    };
    let mut engine = engine(Dtype::F32, 4);
    engine.generate(&mut chain).unwrap();
    chain.results.reverse();
    assert_eq!(chain.results, all(&mut engine, 1..=5));
}

#[test]
fn limits_steps_and_stop_texts_are_the_tracker_s() {
    let mut engine = engine(Dtype::F32, 4);
    let mut plain = request(1);
    plain.limits.step = false;
    plain.sampling.step_temperature = plain.sampling.temperature;
    let whole = generate(&mut engine, [(0, plain.clone())])
        .remove(0)
        .unwrap();
    let mut one = |change: &dyn Fn(&mut Request)| {
        let mut r = plain.clone();
        change(&mut r);
        generate(&mut engine, [(0, r)]).remove(0).unwrap()
    };
    let cut = one(&|r| r.limits.max_tokens = 7);
    assert_eq!(
        (&cut.tokens[..], cut.end),
        (&whole.tokens[..7], GenerationEnd::Limit)
    );
    let none = one(&|r| r.limits.max_tokens = 0);
    assert_eq!((none.tokens.len(), none.end), (0, GenerationEnd::Limit));
    let step = one(&|r| {
        r.limits.step = true;
        r.limits.max_step_tokens = 5;
        r.limits.max_after_tokens = 3;
    });
    assert_eq!(step.tokens, whole.tokens[..step.tokens.len()]);
    if step.step_boundary == StepBoundary::Limit {
        assert_eq!((step.step_len, step.tokens.len()), (5, 8));
    }
    let text = whole.tokens.iter().position(|t| (97..123).contains(t));
    if let Some(at) = text {
        let byte = char::from(whole.tokens[at] as u8).to_string();
        let stopped = one(&|r| r.limits.stop = vec![byte.clone()]);
        assert_eq!(stopped.tokens, whole.tokens[..=at]);
        assert_eq!(stopped.end, GenerationEnd::StopText);
    }
}

#[test]
fn a_request_that_cannot_be_served_leaves_the_others_alone() {
    let mut engine = engine(Dtype::F32, 4);
    let with = |context: Vec<u32>| Request {
        context,
        ..request(0)
    };
    let results = generate(
        &mut engine,
        [
            (0, request(0)),
            (1, with(vec![97; CONTEXT + 1])),
            (2, with(vec![VOCAB as u32])),
            (3, with(vec![])),
            (4, with(vec![97; CONTEXT])),
            (5, with(vec![97; CONTEXT - 3])),
            (6, request(6)),
        ],
    );
    for (i, words) in [
        (1, "context only 512"),
        (2, "outside the vocabulary"),
        (3, "no tokens"),
    ] {
        let e = results[i].as_ref().unwrap_err();
        assert!(
            matches!(e, EngineError::Request(_)) && e.to_string().contains(words),
            "{e}"
        );
    }
    let len = |i: usize| results[i].as_ref().unwrap().tokens.len();
    assert_eq!((len(4), len(5)), (0, 3));
    assert_eq!(results[6].as_ref().unwrap(), &all(&mut engine, [6])[0]);
}

/// The tiny model with a weight that is not a number.
fn broken_model(folder: &Path) {
    tiny_model(folder, SEED);
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn broken_weights_are_each_request_s_error() {
    let dir = tempfile::tempdir().unwrap();
    broken_model(dir.path());
    let mut engine = load(dir.path(), asked(Dtype::F32, 2), &on_cpu()).unwrap();
    for result in generate(&mut engine, (0..3).map(|id| (id, request(id)))) {
        let e = result.unwrap_err();
        assert!(
            matches!(&e, EngineError::Request(words) if words.contains("NaN")),
            "{e}"
        );
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path(), SEED);
    let path = dir.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replace(r#""word299":299"#, r#""word299":299,"more":300"#);
    assert_ne!(text, changed);
    std::fs::write(&path, changed).unwrap();
    let Err(e) = load(dir.path(), asked(Dtype::F32, 1), &on_cpu()) else {
        panic!("it was loaded");
    };
    let words = e
        .to_string()
        .replace(&dir.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!(
        words,
        @"native cannot load the model in FOLDER: the tokenizer has 301 tokens, the weights only 300: they do not belong together"
    );
}

#[test]
fn a_cancelled_run_stops_within_a_step_and_serves_on() {
    let mut engine = engine(Dtype::F32, 4);
    let mut list = List::new((0..8).map(|id| (id, request(id))));
    list.steps = Some(5);
    let e = engine.generate(&mut list).unwrap_err();
    assert!(matches!(e, EngineError::Cancelled));
    assert_eq!(list.steps, Some(0));
    assert_eq!(engine.held_blocks(), 0);
    assert_eq!(
        all(&mut engine, [3]),
        all(&mut super::tests::engine(Dtype::F32, 4), [3])
    );
}
