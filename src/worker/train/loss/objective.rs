//! [`Objective`]: what a loss needs and how it is computed.

use tch::Tensor;

use genius::kind::train::Loss;

/// A loss over pairs of responses to one prompt.
pub trait Objective {
    /// What it needs.
    fn needs(&self) -> Needs;

    /// The factor of a pair's rejected log-ratio, by the pair's advantages. Asked only
    /// where [`Needs::weight`].
    fn weight(&self, _chosen_advantage: f64, _rejected_advantage: f64) -> f64 {
        1.0
    }

    /// The losses of n pairs.
    fn losses(&self, inputs: &Inputs) -> PairLosses;
}

/// What a loss needs of each pair beside the log-probabilities of its chosen side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The rejected side; else one side is trained on.
    pub rejected: bool,
    /// Log-probabilities under the policy before training.
    pub reference: bool,
    /// Numbers of response tokens, for means instead of sums.
    pub lengths: bool,
    /// A weight of the pair by its advantages.
    pub weight: bool,
    /// Log-probabilities of single tokens, beside their sums.
    pub per_token: bool,
}

/// What losses are computed from; what an objective does not need is empty. [n] and
/// f32 unless noted.
#[derive(Debug)]
pub struct Inputs {
    /// sum log pi_theta of the chosen responses; carries the gradient.
    pub chosen: Tensor,
    /// The same of the rejected ones.
    pub rejected: Tensor,
    /// sum log pi_ref of the chosen responses.
    pub reference_chosen: Tensor,
    /// The same of the rejected ones.
    pub reference_rejected: Tensor,
    /// Response tokens of the chosen side.
    #[cfg_attr(not(test), expect(dead_code, reason = "no loss takes means yet"))]
    pub chosen_lengths: Tensor,
    /// The same of the rejected one.
    #[cfg_attr(not(test), expect(dead_code, reason = "no loss takes means yet"))]
    pub rejected_lengths: Tensor,
    /// [`Objective::weight`] of each pair.
    pub weight: Tensor,
    /// log pi_theta of each response token, [T], the chosen responses' first; carries the
    /// gradient.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no loss has terms per token yet")
    )]
    pub tokens: Tensor,
    /// The response of each of them, [T], int64: 0 to n - 1 the chosen ones, then the rejected
    /// ones. `index_add` by it sums terms by response.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no loss has terms per token yet")
    )]
    pub token_rows: Tensor,
}

/// Losses and rewards of the pairs. All [n], f32.
#[derive(Debug)]
pub struct PairLosses {
    /// Loss of a pair; carries the gradient.
    pub loss: Tensor,
    /// Implicit reward of the chosen side (beta * r_w), detached.
    pub reward_chosen: Tensor,
    /// The same of the rejected side (without w, as TRL logs it), detached.
    pub reward_rejected: Tensor,
}

/// The objective that a pipeline asks for.
pub fn objective(loss: &Loss) -> &dyn Objective {
    match loss {
        Loss::Aco(aco) => aco,
        Loss::Dpo(dpo) => dpo,
    }
}
