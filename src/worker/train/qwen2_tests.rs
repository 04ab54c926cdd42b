//! A Qwen2 in training: its biases are parameters like any other.

use tch::{Device, Kind, Tensor};

use super::data::Example;
use super::logprob::{self, Batch};
use super::optimizer::AdamWConfig;
use super::trainer::{Trainer, floats};
use crate::model::llama::Llama;
use crate::model::qwen2_tests::{Fixture, models};
use genius::kind::train::Dpo;

fn trainer(fixture: &Fixture, compute: Kind) -> Trainer {
    let adamw = AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.01,
    };
    Trainer::load(&fixture.folder(), Device::Cpu, compute, adamw).unwrap()
}

/// A pair of which both sides follow the first tokens of a sequence.
fn example(ids: &[i64]) -> Example {
    Example {
        query_id: "q".into(),
        step: 1,
        context: ids[..2].to_vec(),
        chosen: ids[2..].to_vec(),
        rejected: ids[2..].iter().rev().copied().collect(),
        chosen_advantage: 1.0,
        rejected_advantage: -1.0,
    }
}

/// log pi of transformers' `Qwen2ForCausalLM`, in ragged batches padded at their end.
#[test]
fn log_probabilities_are_those_of_transformers() {
    for fixture in models() {
        let model = Llama::load(&fixture.folder(), Device::Cpu, Kind::Float).unwrap();
        let sides = fixture.sequences.iter().filter(|s| s.ids.len() > 1);
        let sides: Vec<_> = sides.map(|s| s.ids.split_at(1)).collect();
        let batch = Batch::new(&sides, Device::Cpu);
        let got = floats(&tch::no_grad(|| logprob::forward(&model, &batch)).token_logprobs);
        let want = fixture.sequences.iter().flat_map(|s| &s.next_logprobs);
        let want: Vec<f64> = want.copied().collect();
        assert_eq!(got.len(), want.len());
        for (got, want) in got.into_iter().zip(want) {
            assert!((f64::from(got) - want).abs() < 1e-4, "{got} is not {want}");
        }
    }
}

#[test]
fn biases_get_gradients_learn_and_are_saved() {
    for (fixture, compute) in models()
        .iter()
        .flat_map(|f| [(f, Kind::Float), (f, Kind::BFloat16)])
    {
        let mut trainer = trainer(fixture, compute);
        let example = example(&fixture.sequences[2].ids);
        let references = trainer.reference(&[&example]).unwrap();
        let dpo = Dpo { beta: 0.1 };
        trainer
            .accumulate(&dpo, &[&example], &references, 1)
            .unwrap();
        let biases: Vec<String> = trainer.trained().keys().cloned().collect();
        let biases: Vec<_> = biases.iter().filter(|n| n.ends_with(".bias")).collect();
        // q, k and v of two layers.
        assert_eq!(biases.len(), 6);
        let copy = |t: &Tensor| t.detach().copy();
        let before: Vec<Tensor> = biases
            .iter()
            .map(|n| copy(&trainer.trained()[*n]))
            .collect();
        for name in &biases {
            let norm = trainer.trained()[*name].grad().norm().double_value(&[]);
            assert!(norm > 1e-3, "{name}: a gradient of {norm}");
        }
        trainer.apply(1e-2, 1.0).unwrap();

        let dir = tempfile::tempdir().unwrap();
        trainer
            .save(&fixture.folder(), dir.path(), Kind::Float)
            .unwrap();
        let (config, saved) = Llama::read(dir.path(), Device::Cpu, Kind::Float).unwrap();
        assert_eq!(&config, trainer.config());
        assert!(saved.keys().eq(trainer.trained().keys()));
        for (name, tensor) in &saved {
            assert_eq!(tensor, &trainer.trained()[name].detach(), "{name}");
        }
        for (name, before) in biases.iter().zip(before) {
            let moved = (&saved[*name] - before).abs().max().double_value(&[]);
            assert!(moved > 5e-3, "{name} moved by {moved}");
        }
    }
}

/// Against autograd through the whole logits, biases included.
#[test]
fn the_chunked_gradient_is_autograds() {
    for fixture in models() {
        let (config, tensors) = Llama::read(&fixture.folder(), Device::Cpu, Kind::Float).unwrap();
        let leaves = || -> crate::model::weights::Tensors {
            let leaf = |t: &Tensor| t.detach().copy().set_requires_grad(true);
            tensors.iter().map(|(n, t)| (n.clone(), leaf(t))).collect()
        };
        let ids = &fixture.sequences[3].ids;
        let (context, response) = ids.split_at(10);

        let ours = leaves();
        let model = Llama::new(&config, &ours).unwrap();
        let batch = Batch::new(&[(context, response)], Device::Cpu);
        let forward = logprob::forward(&model, &batch);
        let slope = Tensor::from_slice(&[0.5f32]).index_select(0, &batch.rows);
        logprob::backward(&model, model.head(), &batch, &forward, &slope);

        let plain = leaves();
        let model = Llama::new(&config, &plain).unwrap();
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        let logprobs = model
            .logits(&model.forward(&ids))
            .log_softmax(-1, Kind::Float)
            .squeeze_dim(0);
        let chosen = logprobs
            .narrow(0, context.len() as i64 - 1, response.len() as i64)
            .gather(1, &Tensor::from_slice(response).unsqueeze(1), false);
        (chosen.sum(Kind::Float) * 0.5).backward();
        for (name, tensor) in &plain {
            let (want, got) = (tensor.grad(), ours[name].grad());
            let off = (&got - &want).norm().double_value(&[]) / want.norm().double_value(&[]);
            assert!(off < 1e-4, "{name}: {off}");
        }
    }
}
