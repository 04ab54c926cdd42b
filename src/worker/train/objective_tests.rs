//! What an objective declares, and what it is given.

use super::*;

/// An objective that checks what it is given, and trains on one side or on two.
struct Declared(Needs);

impl Objective for Declared {
    fn needs(&self) -> Needs {
        self.0
    }

    fn losses(&self, inputs: &Inputs) -> PairLosses {
        let n = inputs.chosen.size()[0];
        let given = |asked: bool, tensor: &Tensor| {
            assert_eq!(tensor.size(), [if asked { n } else { 0 }]);
        };
        let needs = self.0;
        given(needs.rejected, &inputs.rejected);
        given(needs.reference, &inputs.reference_chosen);
        given(needs.reference, &inputs.reference_rejected);
        given(needs.lengths, &inputs.chosen_lengths);
        given(needs.lengths, &inputs.rejected_lengths);
        given(needs.weight, &inputs.weight);
        assert_eq!(inputs.tokens.size(), inputs.token_rows.size());
        assert_eq!(inputs.tokens.size()[0] > 0, needs.per_token);
        let loss = if needs.rejected {
            -&inputs.chosen + &inputs.rejected
        } else {
            -&inputs.chosen
        };
        PairLosses {
            loss,
            reward_chosen: inputs.chosen.detach(),
            reward_rejected: inputs.rejected.detach(),
        }
    }
}

#[test]
fn an_objective_gets_what_it_declares_and_no_more() {
    let examples = examples();
    let pairs: Vec<&Example> = examples.iter().collect();
    let all = trainer(Kind::Float).reference(&pairs).unwrap();
    let mut tokens = Vec::new();
    for bits in 0..32_u32 {
        let needs = Needs {
            rejected: bits & 1 != 0,
            reference: bits & 2 != 0,
            lengths: bits & 4 != 0,
            weight: bits & 8 != 0,
            per_token: bits & 16 != 0,
        };
        let mut trainer = trainer(Kind::Float);
        let totals = trainer
            .accumulate(&Declared(needs), &pairs, &all, pairs.len())
            .unwrap();
        assert!(optimizer::gradient_norm(trainer.trained()) > 0.0);
        tokens.push(totals.tokens);
    }
    assert!(
        tokens[0] < tokens[1],
        "one side is half the work: {tokens:?}"
    );
}

fn sums(inputs: &Inputs, terms: &Tensor, responses: i64) -> Tensor {
    Tensor::zeros([responses], (Kind::Float, terms.device())).index_add(
        0,
        &inputs.token_rows,
        terms,
    )
}

/// DPO that sums the tokens itself.
struct DpoByToken(Dpo);

impl Objective for DpoByToken {
    fn needs(&self) -> Needs {
        Needs {
            per_token: true,
            ..self.0.needs()
        }
    }

    fn losses(&self, inputs: &Inputs) -> PairLosses {
        let n = inputs.reference_chosen.size()[0];
        let none = || inputs.weight.shallow_clone();
        let sums = sums(inputs, &inputs.tokens, 2 * n);
        self.0.losses(&Inputs {
            chosen: sums.narrow(0, 0, n),
            rejected: sums.narrow(0, n, n),
            reference_chosen: inputs.reference_chosen.shallow_clone(),
            reference_rejected: inputs.reference_rejected.shallow_clone(),
            chosen_lengths: none(),
            rejected_lengths: none(),
            weight: none(),
            tokens: none(),
            token_rows: none(),
        })
    }
}

/// The likelihood of the chosen responses, each token with a weight of its own: 1 for a
/// response's first one, this for the others.
struct WeightedTokens(f64);

impl Objective for WeightedTokens {
    fn needs(&self) -> Needs {
        Needs {
            per_token: true,
            ..Needs::default()
        }
    }

    fn losses(&self, inputs: &Inputs) -> PairLosses {
        let rows = Vec::<i64>::try_from(&inputs.token_rows).unwrap();
        let is_first = |at: usize| at == 0 || rows[at] != rows[at - 1];
        let weights: Vec<f32> = (0..rows.len())
            .map(|at| if is_first(at) { 1.0 } else { self.0 as f32 })
            .collect();
        let terms = -&inputs.tokens * Tensor::from_slice(&weights);
        let n = inputs.chosen.size()[0];
        PairLosses {
            loss: sums(inputs, &terms, n),
            reward_chosen: inputs.chosen.detach(),
            reward_rejected: inputs.rejected.detach(),
        }
    }
}

/// A trainer with the gradient of all pairs, and their loss.
fn accumulated(objective: &dyn Objective, examples: &[Example]) -> (Trainer, f64) {
    let pairs: Vec<&Example> = examples.iter().collect();
    let mut trainer = trainer(Kind::Float);
    let references = trainer.reference(&pairs).unwrap();
    let totals = trainer
        .accumulate(objective, &pairs, &references, pairs.len())
        .unwrap();
    (trainer, totals.loss)
}

#[test]
fn terms_per_token_sum_to_the_summed_form() {
    let dpo = Dpo { beta: 0.1 };
    let (summed, summed_loss) = accumulated(&dpo, &examples());
    let (by_token, loss) = accumulated(&DpoByToken(dpo), &examples());
    assert_eq!(loss.to_bits(), summed_loss.to_bits());
    for (name, tensor) in summed.trained() {
        assert_eq!(tensor.grad(), by_token.trained()[name].grad(), "{name}");
    }
}

#[test]
fn a_token_s_weight_is_its_own() {
    let mut cut = examples();
    for example in &mut cut {
        example.chosen.truncate(1);
    }
    let whole = Declared(Needs::default());
    for (weight, other) in [(1.0, examples()), (0.0, cut)] {
        let (weighted, weighted_loss) = accumulated(&WeightedTokens(weight), &examples());
        let (want, loss) = accumulated(&whole, &other);
        near(weighted_loss, loss, 1e-4, "loss");
        for (name, tensor) in want.trained() {
            let (want, got) = (tensor.grad(), weighted.trained()[name].grad());
            let off = (got - &want).norm().double_value(&[]);
            let size = want.norm().double_value(&[]);
            assert!(
                off < 1e-5 + 1e-4 * size,
                "{weight}, {name}: {off} of {size}"
            );
        }
    }
}
