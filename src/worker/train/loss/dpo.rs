//! DPO (Rafailov et al. 2023): -log sigmoid(beta (r_w - r_l)), with
//! r = log pi_theta - log pi_ref of a response.

use tch::Kind;

use super::{Inputs, Needs, Objective, PairLosses};
use genius::kind::train::Dpo;

impl Objective for Dpo {
    fn needs(&self) -> Needs {
        Needs {
            rejected: true,
            reference: true,
            ..Needs::default()
        }
    }

    fn losses(&self, inputs: &Inputs) -> PairLosses {
        let reward_chosen = (&inputs.chosen - &inputs.reference_chosen) * self.beta;
        let reward_rejected = (&inputs.rejected - &inputs.reference_rejected) * self.beta;
        let logits = &reward_chosen - &reward_rejected;
        PairLosses {
            loss: -logits.to_kind(Kind::Float).log_sigmoid(),
            reward_chosen: reward_chosen.detach(),
            reward_rejected: reward_rejected.detach(),
        }
    }
}
