//! Likelihoods of given tokens: against the generations that they come from,
//! and against transformers.

use super::super::super::engine::{LikelihoodRequest, TokenLikelihood};
use super::super::on_cpu as packed;
use super::*;
use crate::model::qwen2_tests::models;

type Scored = Result<Vec<TokenLikelihood>, EngineError>;

fn score(
    engine: &mut Decoder,
    requests: impl IntoIterator<Item = (u64, LikelihoodRequest)>,
) -> Vec<Scored> {
    let mut list = List::new(requests);
    engine.likelihoods(&mut list).unwrap();
    assert_eq!(engine.held_blocks(), 0);
    list.results()
}

fn scoring(context: &[u32], continuation: &[u32]) -> LikelihoodRequest {
    LikelihoodRequest {
        context: context.to_vec(),
        continuation: continuation.to_vec(),
    }
}

fn bits(logprobs: impl IntoIterator<Item = f32>) -> Vec<u32> {
    logprobs.into_iter().map(f32::to_bits).collect()
}

/// Asserts that generations get their own log-probabilities, to the bit.
fn assert_own(engine: &mut Decoder, generations: &[(u64, &Generation)], what: &str) {
    let scored = score(
        engine,
        generations
            .iter()
            .map(|(id, g)| (*id, scoring(&request(*id).context, &g.tokens))),
    );
    assert_eq!(scored.len(), generations.len());
    // `score` sorts by number.
    let mut generations = generations.to_vec();
    generations.sort_by_key(|(id, _)| *id);
    for (scored, (id, g)) in scored.into_iter().zip(generations) {
        let logprobs = scored.unwrap().into_iter().map(|l| l.logprob);
        let own = bits(g.logprobs.iter().copied());
        assert_eq!(bits(logprobs), own, "{what}: request {id}");
    }
}

#[test]
fn generated_tokens_have_their_generation_s_logprobs_in_any_batch() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let mut first = engine(dtype, 16);
        let made = all(&mut first, 0..40);
        let mut batch: Vec<_> = (0..).zip(&made).collect();
        assert_own(&mut first, &batch, &format!("{dtype}: kept caches"));
        assert_own(&mut engine(dtype, 16), &batch, &format!("{dtype}: fresh"));
        batch.reverse();
        for width in [1, 3, 64] {
            let what = format!("{dtype}: backwards, width {width}");
            assert_own(&mut engine(dtype, width), &batch, &what);
        }
        for id in [0, 7, 33] {
            let alone = [(id, &made[id as usize])];
            let mut bare = engine_in(dtype, 16, AMPLE, false);
            assert_own(&mut bare, &alone, &format!("{dtype}: alone"));
        }
        for blocks in [1, 2, 3, 7] {
            let mut tight = engine_in(dtype, 16, blocks * BLOCK_BYTES, true);
            assert_own(&mut tight, &batch, &format!("{dtype}: {blocks} blocks"));
        }
    }
}

/// More tokens than a forward pass has rows, so that a sequence that gives way has scored
/// some of them.
#[test]
fn a_sequence_that_gives_way_goes_on_scoring_where_it_was() {
    let tokens = |seed: u64, len: u64| -> Vec<u32> {
        let stream = Stream::new(9, "likelihood test", "", &[seed]);
        (0..len)
            .map(|i| (stream.uniform(0, i) * 255.0) as u32)
            .collect()
    };
    let requests = || (0..6).map(|id| (id, scoring(&tokens(id, 5), &tokens(id + 100, 400 - id))));
    let ample = score(&mut engine(Dtype::Bf16, 6), requests());
    let want: Vec<_> = ample.into_iter().map(Result::unwrap).collect();
    for (id, likelihoods) in (0..).zip(&want) {
        let exact = forward::logprobs(SEED, &[tokens(id, 5), tokens(id + 100, 400 - id)].concat());
        let off = likelihoods.iter().zip(&exact[4..]);
        let off = off.map(|(l, exact)| (f64::from(l.logprob) - exact).abs());
        assert!(off.sum::<f64>() / (exact.len() as f64) < 0.1);
    }
    for blocks in [1, 8, 12, 20] {
        let mut tight = engine_in(Dtype::Bf16, 6, blocks * BLOCK_BYTES, true);
        let got = score(&mut tight, requests());
        let got: Vec<_> = got.into_iter().map(Result::unwrap).collect();
        assert_eq!(got, want, "{blocks} blocks");
    }
}

#[test]
fn greedy_tokens_are_known_as_greedy() {
    let mut engine = engine(Dtype::F32, 4);
    let mut greedy = request(1);
    (
        greedy.sampling.temperature,
        greedy.sampling.step_temperature,
    ) = (0.0, 0.0);
    let made = generate(&mut engine, [(0, greedy.clone())]).remove(0);
    let made = made.unwrap();
    let mut other = made.tokens.clone();
    let last = other.len() - 1;
    other[last] = (other[last] + 1) % 256;
    let scored = score(
        &mut engine,
        [
            (0, scoring(&greedy.context, &made.tokens)),
            (1, scoring(&greedy.context, &other)),
        ],
    );
    let is_greedy = |scored: &Scored| -> Vec<bool> {
        let scored = scored.as_ref().unwrap().iter();
        scored.map(|l| l.is_greedy).collect()
    };
    let mut want = vec![true; made.tokens.len()];
    assert_eq!(is_greedy(&scored[0]), want);
    want[last] = false;
    assert_eq!(is_greedy(&scored[1]), want);
}

/// As a benchmark's choices.
#[test]
fn continuations_of_one_context_share_its_prefill() {
    let mut engine = engine(Dtype::Bf16, 8);
    let context: Vec<u32> = (0..150).map(|i| i % 250).collect();
    let choices = (0..4).map(|id| (u64::from(id), scoring(&context, &[id; 5])));
    score(&mut engine, choices);
    // The context's last token has the logits of a choice's first, and its last is not run.
    assert_eq!(engine.rows(), 149 + 4 * 5);
}

/// `next_logprobs` of `Qwen2ForCausalLM`, transformers 5.23, f32.
#[test]
fn likelihoods_are_those_of_transformers() {
    for fixture in models() {
        let folder = fixture.folder();
        let forwards = [
            packed::<f32>(&folder, Kind::Float, 2, ROWS),
            in_tensors(&folder, Device::Cpu, Kind::Float, 2, ROWS),
        ];
        for forward in forwards.map(Result::unwrap) {
            let words = vec![&b"x"[..]; forward.vocab()];
            let table = Arc::new(TokenBytes::from_words(&words, vec![]));
            let capacity = Capacity {
                width: 8,
                cache_bytes: AMPLE,
                keep: true,
            };
            let mut engine = Decoder::new(forward, table, CONTEXT, capacity);
            let sequences = || fixture.sequences.iter().filter(|s| s.ids.len() > 1);
            let requests = sequences().map(|s| {
                let ids: Vec<u32> = s.ids.iter().map(|&id| id.try_into().unwrap()).collect();
                scoring(&ids[..1], &ids[1..])
            });
            let scored = score(&mut engine, (0..).zip(requests));
            for (scored, want) in scored.into_iter().zip(sequences()) {
                let scored = scored.unwrap();
                assert_eq!(scored.len(), want.next_logprobs.len());
                for (got, want) in scored.iter().zip(&want.next_logprobs) {
                    let got = f64::from(got.logprob);
                    assert!((got - want).abs() < 1e-4, "{got}, expected {want}");
                }
            }
        }
    }
}

#[test]
fn tokens_that_cannot_be_scored_are_their_request_s_error() {
    let mut engine = engine(Dtype::F32, 4);
    let results = score(
        &mut engine,
        [
            (0, scoring(&[97], &[])),
            (1, scoring(&[], &[97])),
            (2, scoring(&[97; 500], &[97; 13])),
            (3, scoring(&[97; 500], &[97; 12])),
            (4, scoring(&[97], &[98, VOCAB as u32])),
            (5, scoring(&[VOCAB as u32], &[98])),
            (6, scoring(&[97], &[97; CONTEXT + 1])),
        ],
    );
    assert_eq!(results[3].as_ref().unwrap().len(), 12);
    let errors = results.into_iter().filter_map(Result::err);
    let errors: Vec<String> = errors
        .map(|e| {
            assert!(matches!(e, EngineError::Request(_)));
            e.to_string()
        })
        .collect();
    insta::assert_snapshot!(errors.join("\n"), @"
    the continuation has no tokens
    the prompt has no tokens
    the prompt and its continuation have 513 tokens, the model's context only 512
    the continuation has token 300, outside the vocabulary of 300 tokens
    the prompt has token 300, outside the vocabulary of 300 tokens
    the continuation has 513 tokens, the model's context only 512
    ");
}

#[test]
fn broken_weights_are_each_score_s_error() {
    let dir = tempfile::tempdir().unwrap();
    broken_model(dir.path());
    let mut engine = load(dir.path(), asked(Dtype::F32, 2), &on_cpu()).unwrap();
    for result in score(&mut engine, (0..3).map(|id| (id, scoring(&[97], &[98; 3])))) {
        let e = result.unwrap_err();
        assert!(
            matches!(&e, EngineError::Request(words) if words.contains("NaN")),
            "{e}"
        );
    }
}
