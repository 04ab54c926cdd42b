//! ACO (eq. 11-12): -log sigmoid(beta r_w - beta w r_l), with w by the advantages of
//! the two sides; DPO is ACO with alpha -> infinity.

use tch::Kind;

use super::{Inputs, Needs, Objective, PairLosses};
use genius::kind::train::{Aco, Clip};

impl Objective for Aco {
    fn needs(&self) -> Needs {
        Needs {
            rejected: true,
            reference: true,
            weight: true,
            ..Needs::default()
        }
    }

    /// w = min(1, exp(-(A_l - A_w) / alpha)), or max as in the released code.
    fn weight(&self, chosen_advantage: f64, rejected_advantage: f64) -> f64 {
        let w = (-(rejected_advantage - chosen_advantage) / self.alpha).exp();
        match self.clip {
            Clip::Min => w.min(1.0),
            Clip::Max => w.max(1.0),
        }
    }

    fn losses(&self, inputs: &Inputs) -> PairLosses {
        let reward_chosen = (&inputs.chosen - &inputs.reference_chosen) * self.beta;
        let reward_rejected = (&inputs.rejected - &inputs.reference_rejected) * self.beta;
        let logits = &reward_chosen - &inputs.weight * &reward_rejected;
        PairLosses {
            loss: -logits.to_kind(Kind::Float).log_sigmoid(),
            reward_chosen: reward_chosen.detach(),
            reward_rejected: reward_rejected.detach(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    const ACO: Aco = Aco {
        alpha: 1.0,
        beta: 0.1,
        clip: Clip::Min,
    };

    #[test]
    fn the_weight_decays_only_where_the_rejected_side_has_the_higher_advantage() {
        // Figure 3.
        assert_eq!(ACO.weight(0.5, 0.2), 1.0);
        assert_eq!(ACO.weight(0.5, 0.5), 1.0);
        assert_eq!(ACO.weight(0.0, 2.0), (-2.0f64).exp());
        let released = Aco {
            clip: Clip::Max,
            ..ACO
        };
        assert_eq!(released.weight(0.0, 2.0), 1.0);
        assert_eq!(released.weight(2.0, 0.0), 2.0f64.exp());
    }

    #[test]
    fn a_large_alpha_is_dpo() {
        let aco = Aco { alpha: 1e12, ..ACO };
        assert!((aco.weight(0.0, 5.0) - 1.0).abs() < 1e-11);
    }

    #[test]
    fn equal_policies_cost_log_two() {
        let t = |x: f32| Tensor::from_slice(&[x]);
        let none = || Tensor::from_slice::<f32>(&[]);
        let inputs = Inputs {
            chosen: t(-3.0),
            rejected: t(-4.0),
            reference_chosen: t(-3.0),
            reference_rejected: t(-4.0),
            chosen_lengths: none(),
            rejected_lengths: none(),
            tokens: none(),
            token_rows: none(),
            weight: t(0.3),
        };
        let loss = ACO.losses(&inputs).loss.double_value(&[0]);
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-6);
    }
}
