//! One policy in training: [`Trainer`]. Master weights, gradients and the
//! optimiser's moments are f32; the forward and backward pass of a micro-batch
//! works on a copy of the weights in the precision of compute, since a step of
//! 5e-7 would be lost in bf16 weights.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::data::Example;
use super::logprob::{self, Batch};
use super::loss::{Inputs, Needs, Objective};
use super::optimizer::{self, AdamW, AdamWConfig};
use crate::model::config::Config;
use crate::model::llama::{EMBEDDING, LM_HEAD, Llama};
use crate::model::weights::{self, Tensors};
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
    /// Master weights of what is trained, f32, the leaves of the graph.
    trained: Tensors,
    /// What the model has beside it, f32.
    frozen: Tensors,
    optimizer: AdamW,
    device: Device,
    compute: Kind,
    working: Option<Working>,
}

/// The model as it is until the weights change, in the precision of compute.
#[derive(Debug)]
struct Working {
    model: Llama,
    /// Whether its copies of the weights hand gradients to the masters.
    gradients: bool,
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
        Self::load_to_train(folder, device, compute, adamw, |_| true)
    }

    /// The same, of which only the weights of those names are trained.
    ///
    /// # Errors
    /// As [`Trainer::load`].
    pub fn load_to_train(
        folder: &Path,
        device: Device,
        compute: Kind,
        adamw: AdamWConfig,
        is_trained: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        let (config, weights) = Llama::read(folder, device, Kind::Float)?;
        let (mut trained, frozen): (Tensors, Tensors) =
            weights.into_iter().partition(|(name, _)| is_trained(name));
        for tensor in trained.values_mut() {
            *tensor = tensor.set_requires_grad(true);
        }
        Ok(Self {
            config,
            trained,
            frozen,
            optimizer: AdamW::new(adamw),
            device,
            compute,
            working: None,
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Master weights of what is trained, by name.
    #[cfg(test)]
    pub fn trained(&self) -> &Tensors {
        &self.trained
    }

    /// As if the weights had changed.
    #[cfg(test)]
    pub fn forget_working(&mut self) {
        self.working = None;
    }

    /// All weights of the model.
    fn weights(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.trained.iter().chain(&self.frozen)
    }

    /// The model in the precision of compute, made once until the weights change. Its
    /// embedding and its norms are the masters themselves: gradients of repeated tokens
    /// add up in f32, and the residual stream is f32 anyway. So is its head, which is
    /// outside the graph (see [`logprob::backward`]).
    fn take_working(&mut self, gradients: bool) -> Result<Working, Failure> {
        match self.working.take() {
            Some(working) if working.gradients || !gradients => Ok(working),
            _ => Ok(Working {
                model: self.model()?,
                gradients,
            }),
        }
    }

    fn model(&self) -> Result<Llama, Failure> {
        let mut tensors: Tensors = self
            .weights()
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
        let name = if self.config.tie_word_embeddings {
            EMBEDDING
        } else {
            LM_HEAD
        };
        let trained = self.trained.get(name);
        trained.unwrap_or_else(|| &self.frozen[name])
    }

    /// The chosen sequences, then, for an objective that needs them, the rejected ones.
    fn batch(&self, pairs: &[&Example], rejected_too: bool) -> Batch {
        let chosen = pairs
            .iter()
            .map(|e| (e.context.as_slice(), e.chosen.as_slice()));
        let rejected = pairs
            .iter()
            .filter(|_| rejected_too)
            .map(|e| (e.context.as_slice(), e.rejected.as_slice()));
        Batch::new(&chosen.chain(rejected).collect::<Vec<_>>(), self.device)
    }

    /// Log-probabilities of the pairs of one micro-batch under the policy as it is now.
    ///
    /// # Errors
    /// A bug in the model's code.
    pub fn reference(&mut self, pairs: &[&Example]) -> Result<Vec<Reference>, Failure> {
        let (working, sums) = tch::no_grad(|| {
            let working = self.take_working(false)?;
            let batch = self.batch(pairs, true);
            let tokens = logprob::forward(&working.model, &batch).token_logprobs;
            Ok::<_, Failure>((working, floats(&batch.sums(&tokens))))
        })?;
        self.working = Some(working);
        let (chosen, rejected) = sums.split_at(pairs.len());
        Ok(chosen
            .iter()
            .zip(rejected)
            .map(|(&chosen, &rejected)| Reference { chosen, rejected })
            .collect())
    }

    /// Adds the gradient of one micro-batch: the sum of its pairs' losses over
    /// `batch_pairs`, the pairs of the whole batch. `references` are the pairs', or none
    /// where the objective needs none.
    ///
    /// # Errors
    /// A loss that is not finite.
    pub fn accumulate(
        &mut self,
        objective: &dyn Objective,
        pairs: &[&Example],
        references: &[Reference],
        batch_pairs: usize,
    ) -> Result<Totals, Failure> {
        let working = self.take_working(true)?;
        let needs = objective.needs();
        let batch = self.batch(pairs, needs.rejected);
        let forward = logprob::forward(&working.model, &batch);
        let weights: Vec<f64> = pairs
            .iter()
            .filter(|_| needs.weight)
            .map(|e| objective.weight(e.chosen_advantage, e.rejected_advantage))
            .collect();
        let leaf = forward.token_logprobs.detach().set_requires_grad(true);
        let inputs = self.inputs(needs, pairs, references, &weights, &batch, &leaf);
        let pair_losses = objective.losses(&inputs);
        let losses = floats(&pair_losses.loss);
        if let Some(at) = losses.iter().position(|l| !l.is_finite()) {
            return Err(Failure::new(format!(
                "the loss of the pair of query {}, step {} is {}",
                pairs[at].query_id, pairs[at].step, losses[at]
            )));
        }
        (pair_losses.loss.sum(Kind::Float) / batch_pairs as f64).backward();
        logprob::backward(&working.model, self.head(), &batch, &forward, &leaf.grad());
        self.working = Some(working);

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
            tokens: batch.tokens(),
        })
    }

    /// What the objective needs of a micro-batch whose response tokens have the
    /// log-probabilities `tokens`: the chosen responses', then the rejected ones'.
    fn inputs(
        &self,
        needs: Needs,
        pairs: &[&Example],
        references: &[Reference],
        weights: &[f64],
        batch: &Batch,
        tokens: &Tensor,
    ) -> Inputs {
        let n = pairs.len() as i64;
        let sums = batch.sums(tokens);
        let per_token = |all: &Tensor| {
            let len = if needs.per_token { all.size()[0] } else { 0 };
            all.narrow(0, 0, len)
        };
        let tensor = |values: Vec<f32>| Tensor::from_slice(&values).to_device(self.device);
        let references = if needs.reference { references } else { &[] };
        let counted = if needs.lengths { pairs } else { &[] };
        let length = |tokens: &[i64]| tokens.len() as f32;
        Inputs {
            chosen: sums.narrow(0, 0, n),
            rejected: sums.narrow(0, n, if needs.rejected { n } else { 0 }),
            reference_chosen: tensor(references.iter().map(|r| r.chosen).collect()),
            reference_rejected: tensor(references.iter().map(|r| r.rejected).collect()),
            chosen_lengths: tensor(counted.iter().map(|e| length(&e.chosen)).collect()),
            rejected_lengths: tensor(counted.iter().map(|e| length(&e.rejected)).collect()),
            weight: tensor(weights.iter().map(|&w| w as f32).collect()),
            tokens: per_token(tokens),
            token_rows: per_token(&batch.rows),
        }
    }

    /// Ends an optimiser step: clips, updates the weights at `rate`, clears the
    /// gradients. Returns the norm of the gradient before clipping.
    ///
    /// # Errors
    /// A gradient that is not finite; the weights are then as they were.
    pub fn apply(&mut self, rate: f64, max_grad_norm: f64) -> Result<f64, Failure> {
        let norm = optimizer::gradient_norm(&self.trained);
        if !norm.is_finite() {
            return Err(Failure::new(format!("the norm of the gradient is {norm}")));
        }
        self.working = None;
        self.optimizer.step(
            &mut self.trained,
            rate,
            optimizer::clip_factor(norm, max_grad_norm),
        );
        optimizer::zero_gradients(&mut self.trained);
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
        self.working = None;
        let (_, before) = Llama::read(source, self.device, kind)?;
        let (mut changed, mut all) = (0_i64, 0_i64);
        tch::no_grad(|| {
            for (name, before) in &before {
                all += before.numel() as i64;
                if let Some(after) = self.trained.get(name) {
                    let differs = after.to_kind(kind).ne_tensor(before);
                    changed += differs.count_nonzero(None::<i64>).int64_value(&[]);
                }
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
        for (name, tensor) in &self.trained {
            if !bool::try_from(tensor.isfinite().all()).unwrap_or(false) {
                return Err(
                    Failure::new(format!("training made {name} infinite or NaN"))
                        .hint("a lower learning_rate or max_grad_norm may keep it finite"),
                );
            }
        }
        let all = self
            .weights()
            .map(|(name, w)| (name.clone(), w.shallow_clone()));
        Ok(weights::write_folder(source, target, &all.collect(), kind)?)
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
