//! `train`: preference training with ACO (paper 2.3, method section 3).
//! Computed in `genius-worker` (`src/worker/train`).

use serde_json::Value;

use super::declare::{choice, one_of, params};
use super::engine::Dtype;
use super::{
    DiskBytes, GIB, Input, Kind, Numerics, Parts, Program, Resolved, TRAINER, Target, Unsupported,
    Variables, size_on_disk,
};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// The objective: `aco` or `dpo`.
        loss: Loss => declared::<Loss>().or(Loss::Aco(Aco { alpha: 1.0, beta: 0.1, clip: Clip::Min })),
        /// Peak learning rate.
        learning_rate: f64 => positive().or(5e-7),
        /// Pairs an optimiser step, accumulated over micro-batches.
        batch_size: usize => at_least(1).or(128),
        /// Passes over the pairs.
        epochs: usize => at_least(1).or(1),
        /// Share of the optimiser steps in linear warm-up.
        warmup_ratio: f64 => unit().or(0.1),
        /// Decoupled weight decay of matrices; norms and biases do not decay.
        weight_decay: f64 => non_negative().or(0.0),
        /// AdamW's decay of the first moment.
        adam_beta1: f64 => share().or(0.9),
        /// AdamW's decay of the second moment.
        adam_beta2: f64 => share().or(0.999),
        /// AdamW's epsilon.
        adam_epsilon: f64 => positive().or(1e-8),
        /// Gradients are scaled down to this L2 norm.
        max_grad_norm: f64 => positive().or(1.0),
        /// Tokens of prompt and response at most, and at most the model's context; a longer
        /// response is cut at its end, a pair whose prompt leaves it none is dropped and counted.
        max_length: usize => at_least(2).or(1300),
        /// Train on pairs that another model than the input `model` rolled out; else they are
        /// refused.
        allow_other_policy: bool => boolean().or(false),
        /// Precision of the forward and backward pass; master weights, residual stream and
        /// logits are f32. `auto` is bf16 where the processor has it, else f32.
        dtype: Dtype => declared::<Dtype>().or(Dtype::Auto),
        /// Precision of the weights written; bf16 loses what small steps change, see
        /// `changed_share`.
        save_dtype: SaveDtype => declared::<SaveDtype>().or(SaveDtype::F32),
        /// Seed of everything random in this stage; the pipeline's unless given.
        seed: u64 => seed(),
        /// Pairs a forward pass; 0 leaves it to the trainer.
        micro_batch: usize => int(0..=65536).or(0).knob(),
    }
}

one_of! {
    /// The objective (method section 3).
    pub enum Loss (bare: true) {
        /// Advantage-calibrated optimisation (eq. 11-12).
        Aco(Aco) = "aco" => declared::<Aco>().or_its_defaults(),
        /// Direct preference optimisation.
        Dpo(Dpo) = "dpo" => declared::<Dpo>().or_its_defaults(),
    }
}

params! {
    /// Advantage-calibrated optimisation (eq. 11-12).
    pub struct Aco {
        /// Temperature of the weight's decay in the advantage gap.
        alpha: f64 => positive().or(1.0),
        /// Scale of the log-ratios between policy and reference.
        beta: f64 => positive().or(0.1),
        /// w = min(1, exp(...)) as in the paper, or max as in the released code.
        clip: Clip => declared::<Clip>().or(Clip::Min),
    }
}

params! {
    /// Direct preference optimisation.
    pub struct Dpo {
        /// Scale of the log-ratios between policy and reference.
        beta: f64 => positive().or(0.1),
    }
}

choice! {
    /// How the weight of the rejected side is clipped at 1.
    pub enum Clip {
        /// w = min(1, ...), as in the paper's figure 3.
        Min = "min",
        /// w = max(1, ...), as in the released code.
        Max = "max",
    }
}

choice! {
    /// Precision of the weights that are written.
    pub enum SaveDtype {
        /// 32 bits.
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
    }
}

impl From<SaveDtype> for Dtype {
    fn from(saved: SaveDtype) -> Self {
        match saved {
            SaveDtype::F32 => Dtype::F32,
            SaveDtype::Bf16 => Dtype::Bf16,
        }
    }
}

impl Kind for Params {
    const NAME: &'static str = "train";
    /// 2: residual stream and logits in f32; `changed_share` in metrics.json.
    const VERSION: u32 = 2;
    const INPUTS: &'static [Input] = &[Input::new("model"), Input::new("pairs")];
    const OUTPUTS: &'static [&'static str] = &["model", "metrics"];
    const PROGRAM: Program = Program::Worker;
    const PARTS: Option<Parts<Self>> = None;
    /// Weights as f32, whatever they came as.
    const DISK_BYTES: Option<DiskBytes<Self>> = Some(|_, inputs| {
        let model = inputs.get("model").map_or(0, |folder| size_on_disk(folder));
        2 * model + GIB / 4
    });

    fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported> {
        if self.dtype == Dtype::Auto {
            let fast = target.fast_bf16 || target.device.starts_with("cuda");
            self.dtype = if fast { Dtype::Bf16 } else { Dtype::F32 };
        }
        let numerics = Numerics::on(target, TRAINER).ok_or(Unsupported {
            at: None,
            what: "training on that device with this genius-worker",
            instead: "`--device cpu`, or a genius-worker built against a libtorch for it",
        })?;
        Ok(Resolved {
            engine: None,
            numerics: Some(numerics),
        })
    }

    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}
}
