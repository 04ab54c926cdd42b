//! The `train` stage: [`run`].

use std::ops::Range;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use tch::{Device, Kind};

use super::data::{self, Example};
use super::loss;
use super::optimizer::AdamWConfig;
use super::policy;
use super::schedule::Schedule;
use super::trainer::{Reference, Totals, Trainer};
use crate::device;
use genius::artifact::{self, PAIRS_FILE, PairRecord};
use genius::kind::train::{Params, SaveDtype};
use genius::protocol::{Failure, Figure, Level, Progress, Unit};
use genius::stage::{Context, JobResult};

/// File of the `metrics` output: one [`StepMetrics`] a line.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// File of the `metrics` output with what became of the pairs.
const COUNTS_FILE: &str = "metrics.json";

/// A change of fewer of the weights than this, written narrower than f32, is worth a warning:
/// most of what training did is lost.
const LOST_BELOW: f64 = 0.5;

/// A line of `metrics.jsonl`: one optimiser step, means over its pairs.
#[derive(Debug, Clone, Serialize)]
pub struct StepMetrics {
    /// From 1.
    pub step: u64,
    /// From 1.
    pub epoch: u64,
    /// Pairs of the batch.
    pub pairs: usize,
    /// Mean loss.
    pub loss: f64,
    /// Mean of beta * r_w.
    pub reward_chosen: f64,
    /// Mean of beta * r_l.
    pub reward_rejected: f64,
    /// Mean of beta * (r_w - r_l).
    pub margin: f64,
    /// Share of pairs whose chosen side has the higher reward.
    pub accuracy: f64,
    /// Share of pairs with w < 1.
    pub share_weighted: f64,
    /// Learning rate.
    pub lr: f64,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens read (both sequences of every pair, without padding).
    pub tokens: usize,
    /// The same a second.
    pub tokens_per_second: f64,
}

/// Trains the policy of the input `model` on the input `pairs`.
///
/// The outputs are `model`, a Hugging Face folder, and `metrics`.
///
/// # Errors
/// No pairs; pairs of another policy or vocabulary; a model that is not built; a loss or a
/// gradient that is not finite (nothing is written then).
pub fn run(ctx: &Context, params: &Params) -> JobResult {
    let execution = &ctx.job.execution;
    device::set_threads(execution.threads);
    let device = device::device(execution)?;
    let compute = device::kind(params.dtype)?;
    let model_dir = ctx.input("model")?.to_owned();
    let pairs_file = ctx.input("pairs")?.join(PAIRS_FILE);

    let records: Vec<PairRecord> = artifact::read_jsonl(&pairs_file)?;
    if records.is_empty() {
        return Err(no_pairs("there are no pairs to train on"));
    }
    let policies = policy::check(ctx, &records, params.allow_other_policy)?;
    ctx.progress(Progress {
        phase: "loading the model".into(),
        ..Progress::default()
    });
    let mut trainer = Trainer::load(&model_dir, device, compute, adamw(params))?;
    let context = usize::try_from(trainer.config().max_position_embeddings).unwrap_or(usize::MAX);
    let (examples, counts) = data::examples(
        &records,
        params.max_length.min(context),
        trainer.config().vocab_size,
    )?;
    drop(records);
    if examples.is_empty() {
        return Err(no_pairs(&format!(
            "none of {} pairs can be trained on: {} have a prompt that leaves no room within max_length, {} an empty side, {} two equal sides",
            counts.read, counts.dropped_long_prompt, counts.dropped_empty, counts.dropped_equal
        )));
    }
    ctx.log(
        Level::Info,
        format!(
            "{} pairs, {} to train on, {} of them cut; dropped: {} without room for a response, {} with an empty one, {} with two equal ones; {compute:?} on {device:?}, {} threads",
            counts.read,
            counts.used,
            counts.cut,
            counts.dropped_long_prompt,
            counts.dropped_empty,
            counts.dropped_equal,
            tch::get_num_threads()
        ),
    );

    let plan = Plan::new(&examples, params, device);
    let objective = loss::objective(&params.loss);
    let references = if objective.needs().reference {
        references(ctx, &mut trainer, &examples, &plan)?
    } else {
        Vec::new()
    };
    let metrics = steps(ctx, &mut trainer, &examples, &references, &plan, params)?;

    ctx.progress(Progress {
        phase: "writing the model".into(),
        ..Progress::default()
    });
    let save_as = device::kind(params.save_dtype.into())?;
    trainer.save(&model_dir, &ctx.output("model")?, save_as)?;
    let changed_share = trainer.changed_share(&model_dir, save_as)?;
    if save_as != Kind::Float && changed_share < LOST_BELOW {
        ctx.log(
            Level::Warn,
            lost_in_rounding(changed_share, params.save_dtype),
        );
    }
    let folder = ctx.output("metrics")?;
    artifact::write_jsonl(&folder.join(METRICS_FILE), &metrics)?;
    artifact::write_json(
        &folder.join(COUNTS_FILE),
        &json!({
            "pairs": counts,
            "policies": policies,
            "steps": metrics.len(),
            "changed_share": changed_share,
        }),
    )?;

    Ok(figures(&metrics, counts.used, changed_share))
}

fn adamw(params: &Params) -> AdamWConfig {
    AdamWConfig {
        beta1: params.adam_beta1,
        beta2: params.adam_beta2,
        epsilon: params.adam_epsilon,
        weight_decay: params.weight_decay,
    }
}

fn figures(metrics: &[StepMetrics], pairs_used: usize, changed_share: f64) -> Vec<Figure> {
    let mut figures = vec![
        Figure::new("steps", metrics.len(), Unit::Count),
        Figure::new("pairs", pairs_used, Unit::Count),
    ];
    if let (Some(first), Some(last)) = (metrics.first(), metrics.last()) {
        let pairs: usize = metrics.iter().map(|m| m.pairs).sum();
        let weighted: f64 = metrics
            .iter()
            .map(|m| m.share_weighted * m.pairs as f64)
            .sum();
        figures.extend([
            Figure::new("loss_first", first.loss, Unit::Number),
            Figure::new("loss_last", last.loss, Unit::Number),
            Figure::new("accuracy", last.accuracy, Unit::Fraction),
            Figure::new("margin", last.margin, Unit::Nats),
            Figure::new("share_weighted", weighted / pairs as f64, Unit::Fraction),
        ]);
    }
    figures.push(Figure::new("changed_share", changed_share, Unit::Fraction));
    figures
}

fn lost_in_rounding(changed_share: f64, save_dtype: SaveDtype) -> String {
    format!(
        "`save_dtype: {save_dtype}` leaves {:.2} % of the weights other than they were before \
         training: for the rest the change was too small for {save_dtype} and is lost; \
         `save_dtype: f32` keeps it",
        100.0 * changed_share
    )
}

fn no_pairs(what: &str) -> Failure {
    Failure::new(what).hint(
        "a pair needs two different responses: use more queries, rollouts or steps, \
         a higher temperature, or a larger max_length",
    )
}

/// Which examples make which step, and in which micro-batches.
struct Plan {
    /// In order; each is a list of micro-batches of indices.
    steps: Vec<PlannedStep>,
    /// Steps of the first epoch, which see every example once.
    first_epoch: usize,
}

struct PlannedStep {
    /// From 1.
    epoch: u64,
    micro_batches: Vec<Vec<usize>>,
}

impl PlannedStep {
    fn pairs(&self) -> usize {
        self.micro_batches.iter().map(Vec::len).sum()
    }
}

impl Plan {
    fn new(examples: &[Example], params: &Params, device: Device) -> Self {
        let mut steps = Vec::new();
        let mut first_epoch = 0;
        for epoch in 0..params.epochs as u64 {
            let order = data::order(examples, params.seed, epoch);
            for batch in order.chunks(params.batch_size.max(1)) {
                let lengths: Vec<usize> = batch.iter().map(|&i| examples[i].longest()).collect();
                let micro_batches = micro_batches(&lengths, params.micro_batch, device)
                    .into_iter()
                    .map(|range| batch[range].to_vec())
                    .collect();
                steps.push(PlannedStep {
                    epoch: epoch + 1,
                    micro_batches,
                });
            }
            if epoch == 0 {
                first_epoch = steps.len();
            }
        }
        Self { steps, first_epoch }
    }
}

/// Cuts a batch of pairs, given by their longest sequences, into micro-batches:
/// of `pairs` pairs, or where that is 0 as many as fit a budget of padded tokens.
fn micro_batches(lengths: &[usize], pairs: usize, device: Device) -> Vec<Range<usize>> {
    let (most, budget) = match (pairs, device) {
        (0, Device::Cpu) => (2, 4096),
        (0, _) => (8, 16_384),
        (n, _) => (n, usize::MAX),
    };
    let mut ranges = Vec::new();
    let (mut start, mut longest) = (0, 0);
    for (end, &length) in lengths.iter().enumerate() {
        let width = longest.max(length);
        let count = end - start;
        if count > 0 && (count == most || 2 * (count + 1) * width > budget) {
            ranges.push(start..end);
            (start, longest) = (end, length);
        } else {
            longest = width;
        }
    }
    if start < lengths.len() {
        ranges.push(start..lengths.len());
    }
    ranges
}

/// Log-probabilities of all examples before any step, in the micro-batches of
/// the first epoch: at the first step policy and reference then agree exactly.
fn references(
    ctx: &Context,
    trainer: &mut Trainer,
    examples: &[Example],
    plan: &Plan,
) -> Result<Vec<Reference>, Failure> {
    let mut references = vec![
        Reference {
            chosen: 0.0,
            rejected: 0.0
        };
        examples.len()
    ];
    let mut done = 0;
    for micro_batch in plan.steps[..plan.first_epoch]
        .iter()
        .flat_map(|s| &s.micro_batches)
    {
        ctx.check_cancelled()?;
        ctx.progress(Progress {
            phase: "reference".into(),
            done,
            total: Some(examples.len() as u64),
            unit: "pairs".into(),
            detail: String::new(),
        });
        let pairs: Vec<&Example> = micro_batch.iter().map(|&i| &examples[i]).collect();
        for (&i, reference) in micro_batch.iter().zip(trainer.reference(&pairs)?) {
            references[i] = reference;
        }
        done += pairs.len() as u64;
    }
    Ok(references)
}

fn steps(
    ctx: &Context,
    trainer: &mut Trainer,
    examples: &[Example],
    references: &[Reference],
    plan: &Plan,
    params: &Params,
) -> Result<Vec<StepMetrics>, Failure> {
    let total = plan.steps.len() as u64;
    let schedule = Schedule::new(total, params.warmup_ratio);
    let objective = loss::objective(&params.loss);
    let mut metrics: Vec<StepMetrics> = Vec::with_capacity(plan.steps.len());
    for (planned, step) in plan.steps.iter().zip(1u64..) {
        let detail = metrics
            .last()
            .map(|m| format!("loss {:.4}, {:.0} tok/s", m.loss, m.tokens_per_second))
            .unwrap_or_default();
        ctx.progress(Progress {
            phase: "training".into(),
            done: step - 1,
            total: Some(total),
            unit: "steps".into(),
            detail,
        });
        let not_finite = |e: Failure| {
            Failure::new(format!("step {step} of {total}: {}", e.message))
                .hint("lower `learning_rate` or `max_grad_norm`, or set `dtype: f32`; nothing was written")
        };
        let started = Instant::now();
        let mut totals = Totals::default();
        for micro_batch in &planned.micro_batches {
            ctx.check_cancelled()?;
            let pairs: Vec<&Example> = micro_batch.iter().map(|&i| &examples[i]).collect();
            let references: Vec<Reference> = micro_batch
                .iter()
                .filter_map(|&i| references.get(i).copied())
                .collect();
            let part = trainer
                .accumulate(objective, &pairs, &references, planned.pairs())
                .map_err(not_finite)?;
            totals.add(&part);
        }
        let lr = params.learning_rate * schedule.factor(step);
        let grad_norm = trainer
            .apply(lr, params.max_grad_norm)
            .map_err(not_finite)?;
        let seconds = started.elapsed().as_secs_f64();
        let mean = |sum: f64| sum / totals.pairs as f64;
        metrics.push(StepMetrics {
            step,
            epoch: planned.epoch,
            pairs: totals.pairs,
            loss: mean(totals.loss),
            reward_chosen: mean(totals.reward_chosen),
            reward_rejected: mean(totals.reward_rejected),
            margin: mean(totals.reward_chosen - totals.reward_rejected),
            accuracy: mean(totals.right as f64),
            share_weighted: mean(totals.weighted as f64),
            lr,
            grad_norm,
            tokens: totals.tokens,
            tokens_per_second: totals.tokens as f64 / seconds.max(1e-9),
        });
    }
    Ok(metrics)
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
