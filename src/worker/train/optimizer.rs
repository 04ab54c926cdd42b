//! AdamW (Loshchilov and Hutter 2019) on f32 master weights: [`AdamW`], with
//! the arithmetic of `torch.optim.AdamW` in its order, and clipping by the
//! global norm as `torch.nn.utils.clip_grad_norm_` does it.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::model::weights::Tensors;

/// Constants of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay a step, times the rate; of matrices only, as Hugging
    /// Face's trainer has it (norms and biases do not decay).
    pub weight_decay: f64,
}

/// State: a first and a second moment a parameter.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    step: i32,
    moments: BTreeMap<String, (Tensor, Tensor)>,
}

impl AdamW {
    /// An optimiser before its first step.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Forgets all steps, and frees their moments.
    pub fn reset(&mut self) {
        self.step = 0;
        self.moments.clear();
    }

    /// One step at `rate`: changes `parameters` in place by their gradients times
    /// `gradient_scale` (of [`clip_factor`]). A parameter without a gradient stays.
    pub fn step(&mut self, parameters: &mut Tensors, rate: f64, gradient_scale: f64) {
        let AdamWConfig {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        } = self.config;
        self.step += 1;
        let correction1 = 1.0 - beta1.powi(self.step);
        let root_correction2 = (1.0 - beta2.powi(self.step)).sqrt();
        tch::no_grad(|| {
            for (name, parameter) in parameters.iter_mut() {
                let mut gradient = parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                if gradient_scale != 1.0 {
                    let _ = gradient.g_mul_scalar_(gradient_scale);
                }
                let (m, v) = self
                    .moments
                    .entry(name.clone())
                    .or_insert_with(|| (parameter.zeros_like(), parameter.zeros_like()));
                if weight_decay != 0.0 && parameter.dim() >= 2 {
                    let _ = parameter.g_mul_scalar_(1.0 - rate * weight_decay);
                }
                let _ = m.lerp_(&gradient, 1.0 - beta1);
                let _ = v
                    .g_mul_scalar_(beta2)
                    .g_add_(&(&gradient * (1.0 - beta2) * &gradient));
                let mut denominator = v.sqrt();
                let _ = denominator
                    .g_div_scalar_(root_correction2)
                    .g_add_scalar_(epsilon);
                let mut update = &*m * (-rate / correction1);
                let _ = update.g_div_(&denominator);
                let _ = parameter.g_add_(&update);
            }
        });
    }
}

/// L2 norm over the gradients of all parameters.
pub fn gradient_norm(parameters: &Tensors) -> f64 {
    let squares = parameters
        .values()
        .map(Tensor::grad)
        .filter(Tensor::defined)
        .map(|g| {
            let norm = g.norm().double_value(&[]);
            norm * norm
        });
    squares.sum::<f64>().sqrt()
}

/// What gradients of that norm are multiplied by so that it is at most `max_norm`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

/// Sets every gradient to zero.
pub fn zero_gradients(parameters: &mut Tensors) {
    parameters.values_mut().for_each(Tensor::zero_grad);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the first step moves every weight by the rate, against its gradient's sign.
    #[test]
    fn the_first_step_has_the_length_of_the_rate() {
        let weight = Tensor::from_slice(&[1.0f32, -1.0, 0.5]).set_requires_grad(true);
        let mut parameters = Tensors::from([("w".to_owned(), weight)]);
        let slopes = Tensor::from_slice(&[3.0f32, -0.2, 0.0]);
        (&parameters["w"] * slopes).sum(None).backward();
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        };
        AdamW::new(config).step(&mut parameters, 0.01, 1.0);
        let w = Vec::<f32>::try_from(&parameters["w"]).unwrap();
        for (got, want) in w.iter().zip([0.99, -0.99, 0.5]) {
            assert!((got - want).abs() < 1e-6, "{w:?}");
        }
    }

    #[test]
    fn norms_and_biases_do_not_decay() {
        let leaf = |shape: &[i64]| {
            Tensor::ones(shape, (tch::Kind::Float, tch::Device::Cpu)).set_requires_grad(true)
        };
        let mut parameters = Tensors::from([
            ("matrix".to_owned(), leaf(&[2, 2])),
            ("norm".to_owned(), leaf(&[2])),
        ]);
        for parameter in parameters.values() {
            (parameter * 0.0).sum(None).backward();
        }
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.5,
        };
        AdamW::new(config).step(&mut parameters, 0.01, 1.0);
        let most = |name: &str| parameters[name].max().double_value(&[]);
        assert!((most("matrix") - 0.995).abs() < 1e-6);
        assert_eq!(most("norm"), 1.0);
    }

    #[test]
    fn clipping_only_shortens() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
