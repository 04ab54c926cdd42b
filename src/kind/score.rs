//! `score`: f, F_k and advantages of every candidate from the rollout record
//! (paper 2.2, method section 2). Computed in `crate::stage::score`.

use super::declare::params;
use super::{Input, Kind, Numerics, Program, Target};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// Temperature of the softmax that makes F_k for pairs (eq. 2); the rollout's unless given.
        tau: Option<f64> => positive().optional(),
    }
}

impl Kind for Params {
    const NAME: &'static str = "score";
    /// 2: parents by their tokens, terminal candidates, the policy.
    const VERSION: u32 = 2;
    const INPUTS: &'static [Input] = &[Input::of("rollouts")];
    const OUTPUTS: &'static [&'static str] = &["scores", "metrics"];
    const PROGRAM: Program = Program::Genius;
    const PARTS: Option<&'static str> = None;

    fn numerics(&self, _: &Target<'_>) -> Option<Numerics> {
        None
    }
}
