//! The trainer against plain PyTorch, and the stage as a whole.
//!
//! The fixture comes from `tests/reference/make_aco.py`: transformers' Llama,
//! the losses from the paper, `torch.optim.AdamW`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use tch::Tensor;

use super::super::data::tests::record;
use super::super::logprob::{self, Batch};
use super::super::loss::{Inputs, Needs, Objective, PairLosses};
use super::super::optimizer;
use super::super::run::METRICS_FILE;
use super::super::trainer::floats;
use super::*;
use crate::model::config::Config;
use crate::model::llama::{LM_HEAD, Llama};
use crate::model::weights;
use genius::kind::StageKind;
use genius::kind::train::{Aco, Clip, Dpo};
use genius::protocol::{Execution, Figure, Job, Unit};

#[path = "changed_share_tests.rs"]
mod changed_share;
#[path = "objective_tests.rs"]
mod objective;
#[path = "stage_tests.rs"]
mod stage;

const ACO: Aco = Aco {
    alpha: 1.0,
    beta: 0.1,
    clip: Clip::Min,
};
const ADAMW: AdamWConfig = AdamWConfig {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.01,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/fixtures/aco")
}

fn model_folder() -> PathBuf {
    folder().join("model")
}

fn fixture() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("aco.json")).unwrap()).unwrap()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The fixture's pairs as records.
fn records() -> Vec<PairRecord> {
    let fixture = fixture();
    let pairs = fixture["pairs"].as_array().unwrap();
    pairs
        .iter()
        .map(|p| PairRecord {
            prefix_token_ids: read(&p["prefix_token_ids"]),
            chosen_advantage: read(&p["chosen_advantage"]),
            rejected_advantage: read(&p["rejected_advantage"]),
            ..record(
                p["query_id"].as_str().unwrap(),
                1,
                &read::<Vec<u32>>(&p["prompt_token_ids"]),
                &read::<Vec<u32>>(&p["chosen_token_ids"]),
                &read::<Vec<u32>>(&p["rejected_token_ids"]),
            )
        })
        .collect()
}

fn examples() -> Vec<Example> {
    data::examples(&records(), 1300, 64).unwrap().0
}

fn trainer(kind: Kind) -> Trainer {
    Trainer::load(&model_folder(), Device::Cpu, kind, ADAMW).unwrap()
}

fn near(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!(
        (got - want).abs() <= tolerance,
        "{what}: {got}, reference {want}"
    );
}

#[test]
fn log_probabilities_are_those_of_transformers() {
    let fixture = fixture();
    let examples = examples();
    let pairs: Vec<&Example> = examples.iter().collect();
    let got = trainer(Kind::Float).reference(&pairs).unwrap();
    let want: Vec<[f64; 2]> = read(&fixture["logps"]);
    assert_eq!(got.len(), want.len());
    for (g, [chosen, rejected]) in got.iter().zip(want) {
        near(g.chosen.into(), chosen, 1e-4, "chosen");
        near(g.rejected.into(), rejected, 1e-4, "rejected");
    }

    let model = Llama::load(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    let batch = Batch::new(&[(&examples[0].context, &examples[0].chosen)], Device::Cpu);
    let tokens = floats(&tch::no_grad(|| logprob::forward(&model, &batch)).token_logprobs);
    let want: Vec<f64> = read(&fixture["token_logps"]);
    assert_eq!(tokens.len(), want.len());
    for (g, w) in tokens.iter().zip(want) {
        near((*g).into(), w, 1e-4, "token");
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_paper_and_of_trl() {
    let fixture = fixture();
    let examples = examples();
    let pairs: Vec<&Example> = examples.iter().collect();
    let references: Vec<Reference> = read::<Vec<[f32; 2]>>(&fixture["reference"])
        .into_iter()
        .map(|[chosen, rejected]| Reference { chosen, rejected })
        .collect();
    let logps: Vec<[f32; 2]> = read(&fixture["logps"]);
    let column = |values: &[f32]| Tensor::from_slice(values);
    let released = Aco {
        clip: Clip::Max,
        ..ACO
    };
    let objectives: [(&str, &dyn Objective); 3] = [
        ("aco_min", &ACO),
        ("aco_max", &released),
        ("dpo", &Dpo { beta: 0.1 }),
    ];
    let none = || column(&[]);
    for (name, objective) in objectives {
        let weights: Vec<f32> = pairs
            .iter()
            .map(|e| objective.weight(e.chosen_advantage, e.rejected_advantage) as f32)
            .collect();
        let inputs = Inputs {
            chosen: column(&logps.iter().map(|l| l[0]).collect::<Vec<_>>()),
            rejected: column(&logps.iter().map(|l| l[1]).collect::<Vec<_>>()),
            reference_chosen: column(&references.iter().map(|r| r.chosen).collect::<Vec<_>>()),
            reference_rejected: column(&references.iter().map(|r| r.rejected).collect::<Vec<_>>()),
            chosen_lengths: none(),
            rejected_lengths: none(),
            tokens: none(),
            token_rows: none(),
            weight: column(&weights),
        };
        let want: Vec<f64> = read(&fixture["losses"][name]);
        for (g, w) in floats(&objective.losses(&inputs).loss).iter().zip(&want) {
            near((*g).into(), *w, 1e-5, name);
        }

        let mut trainer = trainer(Kind::Float);
        let totals = trainer
            .accumulate(objective, &pairs, &references, pairs.len())
            .unwrap();
        near(totals.loss, want.iter().sum(), 1e-4, name);
        let norms: BTreeMap<String, f64> = read(&fixture["grad_norms"][name]);
        assert_eq!(norms.len(), trainer.trained().len());
        for (tensor, want) in norms {
            let got = trainer.trained()[&tensor].grad().norm().double_value(&[]);
            near(got, want, 1e-5 + 1e-4 * want, &format!("{name} {tensor}"));
        }
    }
}

/// What is frozen keeps its bits, and has neither gradients nor moments.
#[test]
fn only_what_is_trained_changes() {
    let examples = examples();
    let pairs: Vec<&Example> = examples.iter().collect();
    let is_trained = |name: &str| name.ends_with("q_proj.weight");
    let load = || {
        let folder = model_folder();
        Trainer::load_to_train(&folder, Device::Cpu, Kind::Float, ADAMW, is_trained).unwrap()
    };
    let (mut some, mut all) = (load(), trainer(Kind::Float));
    let references = all.reference(&pairs).unwrap();
    for trainer in [&mut some, &mut all] {
        trainer
            .accumulate(&ACO, &pairs, &references, pairs.len())
            .unwrap();
    }
    assert!(some.trained().keys().all(|name| is_trained(name)));
    for (name, tensor) in some.trained() {
        let off = (tensor.grad() - all.trained()[name].grad()).abs().max();
        assert!(off.double_value(&[]) < 1e-6, "{name}");
    }
    some.apply(1e-3, 1.0).unwrap();
    let out = tempfile::tempdir().unwrap();
    some.save(&model_folder(), out.path(), Kind::Float).unwrap();
    let read = |folder: &Path| Llama::read(folder, Device::Cpu, Kind::Float).unwrap().1;
    let (before, after) = (read(&model_folder()), read(out.path()));
    for (name, tensor) in &before {
        assert_eq!(after[name] == *tensor, !is_trained(name), "{name}");
    }
}

/// Made once a step, the model gives the gradients of one made for each micro-batch.
#[test]
fn the_model_is_kept_until_the_weights_change() {
    let examples = examples();
    let pairs: Vec<&Example> = examples.iter().collect();
    for kind in [Kind::Float, Kind::BFloat16] {
        let references = trainer(kind).reference(&pairs).unwrap();
        let gradients = |anew: bool| {
            let mut trainer = trainer(kind);
            for (pairs, references) in pairs.chunks(1).zip(references.chunks(1)) {
                if anew {
                    trainer.forget_working();
                }
                trainer
                    .accumulate(&ACO, pairs, references, examples.len())
                    .unwrap();
            }
            trainer
        };
        let (kept, anew) = (gradients(false), gradients(true));
        for (name, tensor) in kept.trained() {
            assert_eq!(
                tensor.grad(),
                anew.trained()[name].grad(),
                "{kind:?} {name}"
            );
        }
    }
}

#[test]
fn three_steps_end_at_the_weights_of_torch_adamw() {
    let fixture = fixture();
    let examples = examples();
    let steps = fixture["steps"].as_array().unwrap();
    let schedule = Schedule::new(steps.len() as u64, 0.1);
    let mut trainer = trainer(Kind::Float);
    let all: Vec<&Example> = examples.iter().collect();
    let references = trainer.reference(&all).unwrap();
    for (step, t) in steps.iter().zip(1u64..) {
        let batch: Vec<usize> = read(&step["pairs"]);
        let pairs: Vec<&Example> = batch.iter().map(|&i| &examples[i]).collect();
        let references: Vec<Reference> = batch.iter().map(|&i| references[i]).collect();
        let totals = trainer
            .accumulate(&ACO, &pairs, &references, batch.len())
            .unwrap();
        near(
            totals.loss / batch.len() as f64,
            read(&step["loss"]),
            1e-5,
            "loss",
        );
        let rate = 1e-4 * schedule.factor(t);
        near(rate, read(&step["lr"]), 1e-12, "rate");
        let norm = trainer.apply(rate, 0.5).unwrap();
        near(norm, read(&step["grad_norm"]), 1e-4, "norm");
    }
    let (config, before) = Llama::read(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    let after = {
        // `after.safetensors` under the name that a folder's weights have.
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(
            folder().join("after.safetensors"),
            dir.path().join(weights::WEIGHTS_FILE),
        )
        .unwrap();
        weights::read(
            dir.path(),
            &Llama::shapes(&config),
            |_| false,
            Device::Cpu,
            Kind::Float,
        )
        .unwrap()
    };
    for (name, want) in &after {
        let distance = |a: &Tensor, b: &Tensor| (a.detach() - b).abs().max().double_value(&[]);
        let error = distance(&trainer.trained()[name], want);
        assert!(error <= 1e-6, "{name}: off by {error}");
        assert!(
            distance(&before[name], want) > 5e-5,
            "{name} hardly moves: the comparison is void"
        );
    }
}

#[test]
fn the_micro_batch_changes_nothing_but_rounding() {
    let examples = examples();
    let pairs: Vec<&Example> = examples.iter().collect();
    let all = trainer(Kind::Float).reference(&pairs).unwrap();
    let gradients = |size: usize| {
        let mut trainer = trainer(Kind::Float);
        for (pairs, references) in pairs.chunks(size).zip(all.chunks(size)) {
            trainer
                .accumulate(&ACO, pairs, references, examples.len())
                .unwrap();
        }
        (optimizer::gradient_norm(trainer.trained()), trainer)
    };
    let ((one, a), (four, b)) = (gradients(1), gradients(4));
    near(one, four, 1e-5, "norm");
    for (name, tensor) in a.trained() {
        let off = (tensor.grad() - b.trained()[name].grad())
            .abs()
            .max()
            .double_value(&[]);
        assert!(off < 1e-5, "{name}: {off}");
    }
}

/// The two-pass gradient against autograd through the whole logits, with tied
/// weights and more response tokens than one chunk of the projection holds.
#[test]
fn the_chunked_gradient_is_autograds() {
    let (config, tensors) = Llama::read(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    let config = Config {
        tie_word_embeddings: true,
        max_position_embeddings: 512,
        ..config
    };
    let leaves = || -> weights::Tensors {
        let leaf = |t: &Tensor| t.detach().copy().set_requires_grad(true);
        let kept = tensors.iter().filter(|(name, _)| *name != LM_HEAD);
        kept.map(|(name, t)| (name.clone(), leaf(t))).collect()
    };
    let tokens =
        |seed: i64, n: i64| -> Vec<i64> { (0..n).map(|i| (i * i + seed * i) % 64).collect() };
    let sequences = [(3, 9, 300), (5, 4, 333), (7, 20, 1)];
    let sequences: Vec<_> = sequences
        .map(|(s, c, r)| (tokens(s, c), tokens(s + 1, r)))
        .into();
    let borrowed: Vec<_> = sequences
        .iter()
        .map(|(c, r)| (c.as_slice(), r.as_slice()))
        .collect();
    let coefficients = [0.7f32, -1.3, 0.2];

    let ours = leaves();
    let model = Llama::new(&config, &ours).unwrap();
    let batch = Batch::new(&borrowed, Device::Cpu);
    let forward = logprob::forward(&model, &batch);
    logprob::backward(
        &model,
        model.head(),
        &batch,
        &forward,
        &Tensor::from_slice(&coefficients).index_select(0, &batch.rows),
    );

    let plain = leaves();
    let model = Llama::new(&config, &plain).unwrap();
    for (((context, response), coefficient), sum) in sequences
        .iter()
        .zip(coefficients)
        .zip(floats(&batch.sums(&forward.token_logprobs)))
    {
        let ids = Tensor::from_slice(&[context.as_slice(), response].concat()).unsqueeze(0);
        let logprobs = model
            .logits(&model.forward(&ids))
            .log_softmax(-1, Kind::Float)
            .squeeze_dim(0);
        let at = logprobs.narrow(0, context.len() as i64 - 1, response.len() as i64);
        let want = at
            .gather(1, &Tensor::from_slice(response).unsqueeze(1), false)
            .sum(Kind::Float);
        near(sum.into(), want.double_value(&[]), 1e-3, "sum");
        (want * f64::from(coefficient)).backward();
    }
    for (name, tensor) in &plain {
        let (want, got) = (tensor.grad(), ours[name].grad());
        let off = (&got - &want).norm().double_value(&[]) / want.norm().double_value(&[]);
        assert!(off < 1e-4, "{name}: {off}");
    }
}

#[test]
fn micro_batches_cover_a_batch_in_order() {
    assert_eq!(micro_batches(&[5, 5, 5], 2, Device::Cpu), [0..2, 2..3]);
    assert_eq!(micro_batches(&[5, 5, 5], 0, Device::Cpu), [0..2, 2..3]);
    assert_eq!(
        micro_batches(&[1300, 1300, 200, 200], 0, Device::Cpu),
        [0..1, 1..2, 2..4]
    );
    assert_eq!(micro_batches(&[9000], 0, Device::Cpu), vec![0..1; 1]);
    assert_eq!(
        micro_batches(&[], 0, Device::Cpu),
        Vec::<Range<usize>>::new()
    );
}

/// Computes a job's stage.
fn run(ctx: &Context) -> JobResult {
    let genius::kind::Params::Train(params) = &ctx.job.params else {
        panic!("{:?}", ctx.job.params);
    };
    super::run(ctx, params)
}

/// Parameters of a short training.
pub(crate) fn params() -> Value {
    json!({
        "loss": { "aco": { "alpha": 1.0, "beta": 0.1, "clip": "min" } }, "learning_rate": 1e-3,
        "batch_size": 2, "epochs": 2, "warmup_ratio": 0.1, "weight_decay": 0.0, "adam_beta1": 0.9,
        "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "max_length": 1300,
        "allow_other_policy": false, "dtype": "f32", "save_dtype": "f32", "seed": 3,
        "micro_batch": 0,
    })
}

/// A folder that a `train` job has its inputs and outputs in.
struct Bench {
    dir: tempfile::TempDir,
    params: Value,
    execution: Execution,
    records: Vec<PairRecord>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            params: params(),
            execution: Execution {
                device: "cpu".into(),
                threads: 2,
                ..Execution::default()
            },
            records: records(),
        }
    }

    fn context(&self, output: &str) -> Context {
        let pairs = self.dir.path().join("pairs");
        std::fs::create_dir_all(&pairs).unwrap();
        artifact::write_jsonl(&pairs.join(PAIRS_FILE), &self.records).unwrap();
        Context::silent(Job {
            stage: "train".into(),
            params: StageKind::Train.params(self.params.clone()).unwrap(),
            numerics: None,
            execution: self.execution.clone(),
            inputs: BTreeMap::from([
                ("model".to_owned(), model_folder()),
                ("pairs".to_owned(), pairs),
            ]),
            input_hashes: BTreeMap::new(),
            partial: None,
            shard: None,
            notes: Vec::new(),
            output_dir: self.dir.path().join(output),
            scratch_dir: self.dir.path().join("scratch"),
        })
    }

    fn weights(&self, output: &str) -> Vec<u8> {
        std::fs::read(
            self.dir
                .path()
                .join(output)
                .join("model")
                .join(weights::WEIGHTS_FILE),
        )
        .unwrap()
    }

    fn metrics(&self, output: &str) -> Vec<Value> {
        artifact::read_jsonl(
            &self
                .dir
                .path()
                .join(output)
                .join("metrics")
                .join(METRICS_FILE),
        )
        .unwrap()
    }
}

/// The fixture's model, its weights stored as `kind`.
fn stored_as(kind: Kind) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (_, tensors) = Llama::read(&model_folder(), Device::Cpu, Kind::Float).unwrap();
    weights::write_folder(&model_folder(), dir.path(), &tensors, kind).unwrap();
    dir
}
