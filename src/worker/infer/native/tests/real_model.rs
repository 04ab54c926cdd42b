//! SmolLM2-135M-Instruct through the decoder (see `crate::real_model_tests`),
//! and how fast that is.

use std::time::Instant;

use super::super::super::chat::ChatTemplate;
use super::*;
use crate::real_model_tests::model_folder;

const QUERIES: [&str; 6] = [
    "What is 7 + 8?",
    "Name three colours, and say why you like each of them.",
    "Hi",
    "A train leaves at noon and drives 60 miles an hour. A second one leaves an hour later and \
     drives 80 miles an hour on the same line. When does the second one catch up with the first, \
     and how far from the station are they then?",
    "Write a poem about rain.",
    "Why is the sky blue, and why is it red in the evening?",
];

fn requests(count: u64, tokens: usize, temperature: f64) -> Vec<(u64, Request)> {
    let chat = ChatTemplate::load(&model_folder()).unwrap();
    (0..count)
        .map(|id| {
            let query = QUERIES[(id % 6) as usize];
            let context = chat.render_prompt(None, query).unwrap().token_ids;
            let request = Request {
                response_start: context.len(),
                context,
                stream: Stream::new(1, "real model", query, &[id]),
                sampling: Sampling {
                    step_temperature: 0.6,
                    temperature,
                    top_k: None,
                    top_p: 1.0,
                    min_p: 0.0,
                },
                limits: Limits {
                    step: false,
                    max_step_tokens: 0,
                    max_after_tokens: tokens,
                    max_tokens: tokens,
                    stop: vec![],
                },
            };
            (id, request)
        })
        .collect()
}

fn of_width(dtype: Dtype, width: usize) -> Decoder {
    load(&model_folder(), asked(dtype, width), &on_cpu()).unwrap()
}

fn generations(engine: &mut Decoder, requests: Vec<(u64, Request)>) -> Vec<Generation> {
    let results = generate(engine, requests);
    results.into_iter().map(Result::unwrap).collect()
}

/// In f32 within 1e-4 of the trainer's model; in bf16 within what that rounding
/// moves a log-probability by.
#[test]
fn logprobs_equal_the_trainer_s_forward_pass() {
    let _no_grad = tch::no_grad_guard();
    let model = Llama::load(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    for (dtype, tolerance) in [(Dtype::F32, 1e-4), (Dtype::Bf16, 0.1)] {
        let requests = requests(6, 24, 1.0);
        let mut engine = of_width(dtype, 4);
        let got = generations(&mut engine, requests.clone());
        let (mut worst, mut sum, mut count) = (0.0_f64, 0.0, 0);
        for ((_, request), g) in requests.iter().zip(got) {
            let ids: Vec<i64> = request
                .context
                .iter()
                .chain(&g.tokens)
                .map(|&id| i64::from(id))
                .collect();
            let logprobs = model
                .logits(&model.forward(&Tensor::from_slice(&ids).unsqueeze(0)))
                .squeeze_dim(0)
                .log_softmax(-1, Kind::Double);
            for (at, (token, logprob)) in g.tokens.iter().zip(&g.logprobs).enumerate() {
                let row = (request.context.len() + at - 1) as i64;
                let expected = logprobs.double_value(&[row, i64::from(*token)]);
                let off = (expected - f64::from(*logprob)).abs();
                worst = worst.max(off);
                (sum, count) = (sum + off, count + 1);
            }
        }
        // The mean in bf16: one rare token may be further off.
        let judged = if dtype == Dtype::F32 {
            worst
        } else {
            sum / f64::from(count)
        };
        assert!(
            judged < tolerance,
            "{dtype}: off by {worst}, {} on average",
            sum / f64::from(count)
        );
    }
}

/// To the bit, log-probabilities included: alone as among 63 others, in any order, at any width.
#[test]
fn results_are_the_same_alone_shuffled_and_at_other_widths() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let all = requests(64, 16, 1.0);
        let mut engine = of_width(dtype, 64);
        let want = generations(&mut engine, all.clone());
        // What was kept of the first time is not used by a fresh one.
        let mut narrow = of_width(dtype, 8);
        let backwards: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(
            generations(&mut narrow, backwards),
            want,
            "{dtype}: backwards, width 8"
        );
        let mut alone = of_width(dtype, 64);
        assert_eq!(
            generations(&mut alone, vec![all[9].clone()])[0],
            want[9],
            "{dtype}: alone"
        );
        assert_eq!(generations(&mut engine, all), want, "{dtype}: again");
    }
}

/// A line of JSON a measurement, for `scripts/bench_rollout.py`, which sets the
/// variables: GENIUS_BENCH_PROMPTS (a file with `{"prompts": [[token ids]]}`),
/// GENIUS_BENCH_WIDTHS, GENIUS_BENCH_TOKENS, GENIUS_BENCH_DTYPES.
#[test]
#[ignore = "a benchmark"]
#[expect(clippy::disallowed_methods, reason = "a benchmark's own words")]
fn decoding_speed() {
    use std::io::Write;
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let tokens: usize = variable("GENIUS_BENCH_TOKENS", "128").parse().unwrap();
    let widths = variable("GENIUS_BENCH_WIDTHS", "1,8,32,64");
    let dtypes = variable("GENIUS_BENCH_DTYPES", "bf16,f32");
    let prompts: Option<Vec<Vec<u32>>> = std::env::var_os("GENIUS_BENCH_PROMPTS").map(|path| {
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        serde_json::from_value(file["prompts"].clone()).unwrap()
    });
    for dtype in dtypes.split(',') {
        for width in widths.split(',').map(|w| w.parse::<usize>().unwrap()) {
            let mut engine = of_width(serde_json::from_value(dtype.into()).unwrap(), width);
            engine.without_ends();
            let mut requests = requests(width as u64, tokens, 1.0);
            for (id, request) in &mut requests {
                if let Some(prompts) = &prompts {
                    request
                        .context
                        .clone_from(&prompts[*id as usize % prompts.len()]);
                    request.response_start = request.context.len();
                }
            }
            // Prompts by themselves; their keys and values are there afterwards.
            let mut prompts_alone = requests.clone();
            for (_, request) in &mut prompts_alone {
                request.limits = Limits {
                    max_tokens: 1,
                    max_after_tokens: 1,
                    ..request.limits.clone()
                };
            }
            let started = Instant::now();
            generations(&mut engine, prompts_alone);
            let prefill_seconds = started.elapsed().as_secs_f64();
            engine.times();
            let got = generations(&mut engine, requests);
            let seconds = started.elapsed().as_secs_f64();
            let tokens: usize = got.iter().map(|g| g.tokens.len()).sum();
            assert_eq!(tokens, width * got[0].tokens.len());
            let line = serde_json::json!({
                "dtype": dtype, "width": width, "tokens": tokens, "seconds": seconds,
                "prefill_seconds": prefill_seconds,
                "tokens_a_second": (tokens as f64 / (seconds - prefill_seconds)).round(),
                "peak_gb": genius::protocol::peak_memory_bytes() as f64 / 1e9,
                "times": engine.times(),
            });
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}
