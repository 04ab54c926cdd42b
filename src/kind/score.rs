//! `score`: f, F_k and advantages of every candidate from the rollout record
//! (paper 2.2, method section 2). Computed in `crate::stage::score`.

use serde_json::Value;

use super::declare::params;
use super::{DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables};

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
    const INPUTS: &'static [Input] = &[Input::new("rollouts")];
    const OUTPUTS: &'static [&'static str] = &["scores", "metrics"];
    const PROGRAM: Program = Program::Genius;
    const PARTS: Option<Parts<Self>> = None;
    const DISK_BYTES: Option<DiskBytes<Self>> = None;

    fn resolve(&mut self, _: &Target<'_>) -> Result<Resolved, Unsupported> {
        Ok(Resolved::ANYWHERE)
    }

    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}
}
