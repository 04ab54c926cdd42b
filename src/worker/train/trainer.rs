//! One policy in training: [`Trainer`]. Master weights, gradients and the
//! optimiser's moments are f32; the forward and backward pass of a micro-batch
//! works on a copy of the weights in the precision of compute, since a step of
//! 5e-7 would be lost in bf16 weights.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::data::Example;
use super::logprob::{self, Batch};
use super::loss::{self, Sums};
use super::optimizer::{self, AdamW, AdamWConfig};
use crate::model::config::Config;
use crate::model::llama::{EMBEDDING, LM_HEAD, Llama};
use crate::model::weights::{self, Tensors};
use genius::kind::train::Loss;
use genius::protocol::Failure;

/// Summed log-probabilities of a pair's responses under the reference policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// Of the chosen response.
    pub chosen: f32,
    /// Of the rejected response.
    pub rejected: f32,
}

/// Sums over pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Pairs.
    pub pairs: usize,
    /// Loss.
    pub loss: f64,
    /// beta * r_w.
    pub reward_chosen: f64,
    /// beta * r_l.
    pub reward_rejected: f64,
    /// Pairs whose chosen side has the higher reward.
    pub right: usize,
    /// Pairs with w < 1.
    pub weighted: usize,
    /// Tokens of both sequences, without padding.
    pub tokens: usize,
}

impl Totals {
    /// Adds another part.
    pub fn add(&mut self, other: &Totals) {
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.reward_chosen += other.reward_chosen;
        self.reward_rejected += other.reward_rejected;
        self.right += other.right;
        self.weighted += other.weighted;
        self.tokens += other.tokens;
    }
}

/// A policy in training.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    masters: Tensors,
    optimizer: AdamW,
    device: Device,
    compute: Kind,
}

impl Trainer {
    /// The policy of a Hugging Face folder, to be computed as `compute` on `device`.
    ///
    /// # Errors
    /// A folder that is not a Llama model's, or a damaged one.
    pub fn load(
        folder: &Path,
        device: Device,
        compute: Kind,
        adamw: AdamWConfig,
    ) -> Result<Self, Failure> {
        let (config, mut masters) = Llama::read(folder, device, Kind::Float)?;
        for tensor in masters.values_mut() {
            *tensor = tensor.set_requires_grad(true);
        }
        Ok(Self {
            config,
            masters,
            optimizer: AdamW::new(adamw),
            device,
            compute,
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Master weights by name.
    #[cfg(test)]
    pub fn weights(&self) -> &Tensors {
        &self.masters
    }

    /// The model in the precision of compute. Its embedding and its norms are the
    /// masters themselves: gradients of repeated tokens add up in f32, and the residual
    /// stream is f32 anyway. So is its head, which is outside the graph (see
    /// [`logprob::backward`]).
    fn model(&self) -> Result<Llama, Failure> {
        let mut tensors: Tensors = self
            .masters
            .iter()
            .filter(|(name, _)| *name != LM_HEAD)
            .map(|(name, master)| {
                let in_f32 = name == EMBEDDING || name.ends_with("norm.weight");
                let kind = if in_f32 { Kind::Float } else { self.compute };
                (name.clone(), master.to_kind(kind))
            })
            .collect();
        tensors.insert(LM_HEAD.to_owned(), self.head().detach());
        Llama::new(
            &Config {
                tie_word_embeddings: false,
                ..self.config.clone()
            },
            &tensors,
        )
    }

    fn head(&self) -> &Tensor {
        &self.masters[if self.config.tie_word_embeddings {
            EMBEDDING
        } else {
            LM_HEAD
        }]
    }

    fn batch(&self, pairs: &[&Example]) -> Batch {
        let chosen = pairs
            .iter()
            .map(|e| (e.context.as_slice(), e.chosen.as_slice()));
        let rejected = pairs
            .iter()
            .map(|e| (e.context.as_slice(), e.rejected.as_slice()));
        Batch::new(&chosen.chain(rejected).collect::<Vec<_>>(), self.device)
    }

    /// Log-probabilities of the pairs of one micro-batch under the policy as it is now.
    ///
    /// # Errors
    /// A defect of the model.
    pub fn reference(&self, pairs: &[&Example]) -> Result<Vec<Reference>, Failure> {
        let sums = tch::no_grad(|| {
            Ok::<_, Failure>(logprob::sums(&self.model()?, &self.batch(pairs)).sums)
        })?;
        let sums = floats(&sums);
        let (chosen, rejected) = sums.split_at(pairs.len());
        Ok(chosen
            .iter()
            .zip(rejected)
            .map(|(&chosen, &rejected)| Reference { chosen, rejected })
            .collect())
    }

    /// Adds the gradient of one micro-batch: the sum of its pairs' losses over
    /// `batch_pairs`, the pairs of the whole batch.
    ///
    /// # Errors
    /// A loss that is not finite.
    pub fn accumulate(
        &mut self,
        objective: &Loss,
        pairs: &[&Example],
        references: &[Reference],
        batch_pairs: usize,
    ) -> Result<Totals, Failure> {
        let model = self.model()?;
        let batch = self.batch(pairs);
        let forward = logprob::sums(&model, &batch);
        let n = pairs.len() as i64;
        let weights: Vec<f64> = pairs
            .iter()
            .map(|e| loss::weight(objective, e.chosen_advantage, e.rejected_advantage))
            .collect();
        let tensor = |values: Vec<f32>| Tensor::from_slice(&values).to_device(self.device);
        let leaf = forward.sums.detach().set_requires_grad(true);
        let sums = Sums {
            chosen: leaf.narrow(0, 0, n),
            rejected: leaf.narrow(0, n, n),
            reference_chosen: tensor(references.iter().map(|r| r.chosen).collect()),
            reference_rejected: tensor(references.iter().map(|r| r.rejected).collect()),
            weight: tensor(weights.iter().map(|&w| w as f32).collect()),
        };
        let pair_losses = loss::losses(objective, &sums);
        let losses = floats(&pair_losses.loss);
        if let Some(at) = losses.iter().position(|l| !l.is_finite()) {
            return Err(Failure::new(format!(
                "the loss of the pair of query {}, step {} is {}",
                pairs[at].query_id, pairs[at].step, losses[at]
            )));
        }
        (pair_losses.loss.sum(Kind::Float) / batch_pairs as f64).backward();
        logprob::backward(&model, self.head(), &batch, &forward, &leaf.grad());

        let (chosen, rejected) = (
            floats(&pair_losses.reward_chosen),
            floats(&pair_losses.reward_rejected),
        );
        let sum = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum();
        Ok(Totals {
            pairs: pairs.len(),
            loss: sum(&losses),
            reward_chosen: sum(&chosen),
            reward_rejected: sum(&rejected),
            right: chosen.iter().zip(&rejected).filter(|(c, r)| c > r).count(),
            weighted: weights.iter().filter(|w| **w < 1.0).count(),
            tokens: pairs.iter().map(|e| e.tokens()).sum(),
        })
    }

    /// Ends an optimiser step: clips, updates the weights at `rate`, clears the
    /// gradients. Returns the norm of the gradient before clipping.
    ///
    /// # Errors
    /// A gradient that is not finite; the weights are then as they were.
    pub fn apply(&mut self, rate: f64, max_grad_norm: f64) -> Result<f64, Failure> {
        let norm = optimizer::gradient_norm(&self.masters);
        if !norm.is_finite() {
            return Err(Failure::new(format!("the norm of the gradient is {norm}")));
        }
        self.optimizer.step(
            &mut self.masters,
            rate,
            optimizer::clip_factor(norm, max_grad_norm),
        );
        optimizer::zero_gradients(&mut self.masters);
        Ok(norm)
    }

    /// The share of the weights' elements whose value, written as `kind`, is another than
    /// that of the policy in `source`, written as `kind`. Ends the training: the optimiser
    /// begins anew.
    ///
    /// # Errors
    /// As [`Trainer::load`].
    pub fn changed_share(&mut self, source: &Path, kind: Kind) -> Result<f64, Failure> {
        // The moments are twice the weights; what is read here takes their place.
        self.optimizer.reset();
        let (_, before) = Llama::read(source, self.device, kind)?;
        let (mut changed, mut all) = (0_i64, 0_i64);
        tch::no_grad(|| {
            for (name, before) in &before {
                let Some(after) = self.masters.get(name) else {
                    continue;
                };
                let differs = after.to_kind(kind).ne_tensor(before);
                changed += differs.count_nonzero(None::<i64>).int64_value(&[]);
                all += after.numel() as i64;
            }
        });
        Ok(changed as f64 / all.max(1) as f64)
    }

    /// Writes the policy as a Hugging Face folder, weights as `kind`, the other
    /// files copied from `source`.
    ///
    /// # Errors
    /// The file system's; a weight that is not finite, and then nothing is written.
    pub fn save(&self, source: &Path, target: &Path, kind: Kind) -> Result<(), Failure> {
        for (name, tensor) in &self.masters {
            if !bool::try_from(tensor.isfinite().all()).unwrap_or(false) {
                return Err(
                    Failure::new(format!("training made {name} infinite or NaN"))
                        .hint("a lower learning_rate or max_grad_norm may keep it finite"),
                );
            }
        }
        Ok(weights::write_folder(source, target, &self.masters, kind)?)
    }
}

/// Values of a one-dimensional tensor.
pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor
        .detach()
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous();
    let mut values = vec![0.0; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}
