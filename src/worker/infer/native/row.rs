//! What is computed of one row by itself: norms, gates and rotary angles ([`Rope`]).

use super::super::lanes::{F32x16, LANES};
use super::matrix::Number;

/// x / sqrt(mean(x^2) + eps) * weight, into the first numbers of `y`.
///
/// # Panics
/// When `weight` is not as long as `x`, or `y` is shorter.
pub fn rms_norm<E: Number>(x: &[f32], weight: &[f32], eps: f32, y: &mut [E]) {
    assert!(
        x.len() == weight.len() && x.len() <= y.len(),
        "the norm of {} numbers with {} weights into {}",
        x.len(),
        weight.len(),
        y.len()
    );
    let (chunks, rest) = x.as_chunks();
    let mut sums = F32x16::splat(0.0);
    for chunk in chunks {
        let x = F32x16::from_array(chunk);
        sums = x.mul_add(x, sums);
    }
    let of_rest: f32 = rest.iter().map(|x| x * x).sum();
    let mean = (sums.sum() + of_rest) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    let (weights, rest_weights) = weight.as_chunks();
    let (y, y_rest) = y.split_at_mut(x.len() - rest.len());
    let scales = F32x16::splat(scale);
    for ((x, weight), y) in chunks.iter().zip(weights).zip(y.chunks_exact_mut(LANES)) {
        narrow(
            F32x16::from_array(x)
                .mul(scales)
                .mul(F32x16::from_array(weight)),
            y,
        );
    }
    for ((x, weight), y) in rest.iter().zip(rest_weights).zip(y_rest) {
        *y = E::narrow(*x * scale * *weight);
    }
}

/// silu(gates) * ups, as many as `to` has.
///
/// # Panics
/// When there are fewer gates or ups.
pub fn gate<E: Number>(gates: &[f32], ups: &[f32], to: &mut [E]) {
    // In whole registers.
    let needed = to.len().next_multiple_of(LANES);
    assert!(
        gates.len() >= needed && ups.len() >= needed,
        "{} gates and {} ups for {} numbers",
        gates.len(),
        ups.len(),
        to.len()
    );
    let sixteens = gates.as_chunks().0.iter().zip(ups.as_chunks().0);
    for ((gates, ups), to) in sixteens.zip(to.chunks_mut(LANES)) {
        let (g, u) = (F32x16::from_array(gates), F32x16::from_array(ups));
        let one = F32x16::splat(1.0);
        let minus = F32x16::splat(0.0).sub(g).exp().add(one);
        narrow(g.mul(u).div(minus), to);
    }
}

/// Narrows as many of the sixteen as there is room for.
#[inline(always)]
pub fn narrow<E: Number>(values: F32x16, to: &mut [E]) {
    if let Some(sixteen) = to.first_chunk_mut::<LANES>() {
        // SAFETY: there is room for 16.
        unsafe { E::store(values, sixteen.as_mut_ptr()) };
        return;
    }
    for (to, v) in to.iter_mut().zip(values.to_array()) {
        *to = E::narrow(v);
    }
}

/// Turns a head: its first half with its second, as transformers' `rotate_half`.
///
/// # Panics
/// When there are not as many angles as half the head has numbers.
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(head.len() / 2);
    assert!(
        first.len() == second.len() && first.len() == cos.len() && first.len() == sin.len(),
        "a head of width {} turned by {} angles",
        first.len() + second.len(),
        cos.len().min(sin.len())
    );
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Rotary angles' cosines and sines, position by position, as far as they were needed.
pub struct Rope {
    frequencies: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Of these angles of a step of position.
    pub fn new(frequencies: Vec<f32>) -> Self {
        Self {
            frequencies,
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    /// Computes the angles up to `position`, if there is one.
    pub fn reach(&mut self, position: Option<usize>) {
        let known = self.cos.len() / self.frequencies.len().max(1);
        for position in known..position.map_or(0, |p| p + 1) {
            for frequency in &self.frequencies {
                let angle = position as f32 * frequency;
                self.cos.push(angle.cos());
                self.sin.push(angle.sin());
            }
        }
    }

    /// Cosines and sines at a position that was reached.
    ///
    /// # Panics
    /// When it was not.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.frequencies.len();
        let known = self.cos.len() / half.max(1);
        assert!(
            position < known,
            "angles at position {position} of {known} that are known"
        );
        let at = position * half;
        (&self.cos[at..at + half], &self.sin[at..at + half])
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Bf16;
    use super::super::testing::panic_message;
    use super::*;

    #[test]
    fn a_norm_fills_as_many_numbers_as_it_reads() {
        for len in [1, 15, 16, 17, 64, 70] {
            let x: Vec<f32> = (0..len).map(|i| i as f32 - 7.5).collect();
            let weight: Vec<f32> = (0..len).map(|i| 1.0 + i as f32 / 64.0).collect();
            let mut y = vec![7.0_f32; len + 3];
            rms_norm(&x, &weight, 1e-5, &mut y);
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
            for ((x, w), y) in x.iter().zip(&weight).zip(&y) {
                let want = f64::from(*x) * f64::from(*w) / (mean + 1e-5).sqrt();
                assert!((f64::from(*y) - want).abs() < 1e-5, "{y}, expected {want}");
            }
            assert_eq!(y[len..], [7.0; 3]);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for (x, weight, y) in [(16, 15, 16), (16, 17, 17), (16, 16, 15), (0, 1, 1)] {
            let message = panic_message(|| {
                rms_norm(
                    &vec![1.0; x],
                    &vec![1.0; weight],
                    1e-5,
                    &mut vec![Bf16::ZERO; y],
                );
            });
            assert!(message.starts_with("the norm of"), "{message}");
        }
        for (gates, ups, to) in [(16, 16, 17), (15, 16, 15), (16, 0, 1)] {
            let message = panic_message(|| {
                gate(
                    &vec![1.0; gates],
                    &vec![1.0; ups],
                    &mut vec![Bf16::ZERO; to],
                );
            });
            assert!(message.contains("gates and"), "{message}");
        }
        for (head, angles) in [(6, 2), (6, 4), (5, 2), (0, 1)] {
            let message = panic_message(|| {
                rotate(&mut vec![1.0; head], &vec![1.0; angles], &vec![1.0; angles]);
            });
            assert!(message.starts_with("a head of width"), "{message}");
        }
        let mut rope = Rope::new(vec![1.0, 0.5]);
        rope.reach(Some(3));
        assert_eq!(rope.at(3).0.len(), 2);
        for position in [4, usize::MAX] {
            let message = panic_message(|| {
                rope.at(position);
            });
            assert!(message.ends_with("of 4 that are known"), "{message}");
        }
    }
}
