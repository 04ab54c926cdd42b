//! The objectives as functions of summed log-probabilities (method section 3):
//! ACO (eq. 11-12) and DPO, which is ACO with alpha -> infinity.

use tch::{Kind, Tensor};

use genius::kind::train::{Aco, Clip, Dpo, Loss};

/// Of n pairs: sums over response tokens of log pi, and advantages. All [n], f32.
#[derive(Debug)]
pub struct Sums {
    /// log pi_theta of the chosen responses; carries the gradient.
    pub chosen: Tensor,
    /// log pi_theta of the rejected responses; carries the gradient.
    pub rejected: Tensor,
    /// log pi_ref of the chosen responses.
    pub reference_chosen: Tensor,
    /// log pi_ref of the rejected responses.
    pub reference_rejected: Tensor,
    /// w of the rejected responses, by [`weight`].
    pub weight: Tensor,
}

/// What comes of the pairs. All [n], f32.
#[derive(Debug)]
pub struct PairLosses {
    /// Loss of a pair; carries the gradient.
    pub loss: Tensor,
    /// beta * r_w, detached.
    pub reward_chosen: Tensor,
    /// beta * r_l (without w, as TRL logs it), detached.
    pub reward_rejected: Tensor,
}

/// w of eq. 12: min(1, exp(-(A_l - A_w) / alpha)), or max for the released
/// code's form; 1 for DPO.
pub fn weight(loss: &Loss, chosen_advantage: f64, rejected_advantage: f64) -> f64 {
    match *loss {
        Loss::Aco(Aco { alpha, clip, .. }) => {
            let w = (-(rejected_advantage - chosen_advantage) / alpha).exp();
            match clip {
                Clip::Min => w.min(1.0),
                Clip::Max => w.max(1.0),
            }
        }
        Loss::Dpo(_) => 1.0,
    }
}

/// -log sigmoid(beta r_w - beta w r_l) of every pair (eq. 11).
pub fn losses(loss: &Loss, sums: &Sums) -> PairLosses {
    let (Loss::Aco(Aco { beta, .. }) | Loss::Dpo(Dpo { beta })) = *loss;
    let reward_chosen = (&sums.chosen - &sums.reference_chosen) * beta;
    let reward_rejected = (&sums.rejected - &sums.reference_rejected) * beta;
    let logits = &reward_chosen - &sums.weight * &reward_rejected;
    PairLosses {
        loss: -logits.to_kind(Kind::Float).log_sigmoid(),
        reward_chosen: reward_chosen.detach(),
        reward_rejected: reward_rejected.detach(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACO: Loss = Loss::Aco(Aco {
        alpha: 1.0,
        beta: 0.1,
        clip: Clip::Min,
    });

    #[test]
    fn the_weight_decays_only_where_the_rejected_side_has_the_higher_advantage() {
        // Figure 3.
        assert_eq!(weight(&ACO, 0.5, 0.2), 1.0);
        assert_eq!(weight(&ACO, 0.5, 0.5), 1.0);
        assert_eq!(weight(&ACO, 0.0, 2.0), (-2.0f64).exp());
        let released = Loss::Aco(Aco {
            alpha: 1.0,
            beta: 0.1,
            clip: Clip::Max,
        });
        assert_eq!(weight(&released, 0.0, 2.0), 1.0);
        assert_eq!(weight(&released, 2.0, 0.0), 2.0f64.exp());
        assert_eq!(weight(&Loss::Dpo(Dpo { beta: 0.1 }), 0.0, 9.0), 1.0);
    }

    #[test]
    fn a_large_alpha_is_dpo() {
        let aco = Loss::Aco(Aco {
            alpha: 1e12,
            beta: 0.1,
            clip: Clip::Min,
        });
        assert!((weight(&aco, 0.0, 5.0) - 1.0).abs() < 1e-11);
    }

    #[test]
    fn equal_policies_cost_log_two() {
        let t = |x: f32| Tensor::from_slice(&[x]);
        let sums = Sums {
            chosen: t(-3.0),
            rejected: t(-4.0),
            reference_chosen: t(-3.0),
            reference_rejected: t(-4.0),
            weight: t(0.3),
        };
        let loss = losses(&ACO, &sums).loss.double_value(&[0]);
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-6);
    }
}
