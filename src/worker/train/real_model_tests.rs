//! What the precision of compute changes in training SmolLM2-135M-Instruct, and what it
//! costs (see `crate::real_model_tests`).

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use tch::Device;

use super::data::{self, Example};
use super::optimizer::AdamWConfig;
use super::trainer::{Reference, Totals, Trainer};
use crate::device;
use crate::real_model_tests::model_folder;
use genius::artifact;
use genius::kind::train::Dpo;

const STEPS: usize = 4;
const RATE: f64 = 5e-7;

/// Seconds of all threads so far.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let part = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec() as u64, 1000 * time.tv_usec() as u32).as_secs_f64()
    };
    part(usage.user_time()) + part(usage.system_time())
}

/// A line of JSON a step of DPO on the same pairs, those of the file GENIUS_BENCH_PAIRS (a
/// `pairs.jsonl`), in the precision GENIUS_BENCH_DTYPE: one a run, for its peak memory.
#[test]
#[ignore = "a benchmark"]
#[expect(clippy::disallowed_methods, reason = "a benchmark's own words")]
fn training_steps() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let dtype = variable("GENIUS_BENCH_DTYPE");
    let records: Vec<artifact::PairRecord> =
        artifact::read_jsonl(&PathBuf::from(variable("GENIUS_BENCH_PAIRS"))).unwrap();
    device::set_threads(0);
    let adamw = AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    let kind = device::kind(serde_json::from_value(dtype.as_str().into()).unwrap()).unwrap();
    let mut trainer = Trainer::load(&model_folder(), Device::Cpu, kind, adamw).unwrap();
    let vocab = trainer.config().vocab_size;
    let (examples, _) = data::examples(&records, 256, vocab).unwrap();
    let examples: Vec<&Example> = examples.iter().collect();
    let loss = Dpo { beta: 0.1 };
    let references: Vec<Reference> = examples
        .chunks(2)
        .flat_map(|pairs| trainer.reference(pairs).unwrap())
        .collect();
    for step in 1..=STEPS {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut totals = Totals::default();
        for (pairs, references) in examples.chunks(2).zip(references.chunks(2)) {
            let part = trainer.accumulate(&loss, pairs, references, examples.len());
            totals.add(&part.unwrap());
        }
        let grad_norm = trainer.apply(RATE, 1.0).unwrap();
        let n = totals.pairs as f64;
        let line = json!({
            "dtype": dtype, "step": step, "pairs": totals.pairs, "tokens": totals.tokens,
            "loss": totals.loss / n,
            "reward_chosen": totals.reward_chosen / n,
            "margin": (totals.reward_chosen - totals.reward_rejected) / n,
            "grad_norm": grad_norm,
            "seconds": started.elapsed().as_secs_f64(), "cpu_seconds": cpu_seconds() - cpu,
            "peak_gb": genius::protocol::peak_memory_bytes() as f64 / 1e9,
        });
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
