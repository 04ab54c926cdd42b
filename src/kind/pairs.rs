//! `pairs`: one preference pair a step (paper 2.2, eq. 5). Computed in
//! `crate::stage::pairs`.

use serde_json::Value;

use super::declare::{choice, params};
use super::{DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// How the rejected side is taken: drawn from F_k without the chosen one (eq. 5),
        /// uniformly (released code), or the lowest f (w/o sampling).
        negative: Negative => declared::<Negative>().or(Negative::Categorical),
        /// Forbid responses that a limit cut as a side of a pair.
        drop_truncated: bool => boolean().or(false),
        /// Seed of everything random in this stage; the pipeline's unless given.
        seed: u64 => seed(),
    }
}

choice! {
    /// How the rejected side is taken.
    pub enum Negative {
        /// Drawn from F_k with the chosen one removed (eq. 5).
        Categorical = "categorical",
        /// Drawn uniformly from the others (released code).
        Uniform = "uniform",
        /// The lowest f (w/o sampling).
        Lowest = "lowest",
    }
}

impl Kind for Params {
    const NAME: &'static str = "pairs";
    /// 2: parents by their tokens, terminal candidates, the policy.
    const VERSION: u32 = 2;
    const INPUTS: &'static [Input] = &[Input::new("scores")];
    const OUTPUTS: &'static [&'static str] = &["pairs", "metrics"];
    const PROGRAM: Program = Program::Genius;
    const PARTS: Option<Parts<Self>> = None;
    const DISK_BYTES: Option<DiskBytes<Self>> = None;

    fn resolve(&mut self, _: &Target<'_>) -> Result<Resolved, Unsupported> {
        Ok(Resolved::ANYWHERE)
    }

    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}
}
