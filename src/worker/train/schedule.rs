//! The learning rate over the steps: linear warm-up, then linear decay.
//!
//! At step t = 1..T, with W = ceil(warmup_ratio * T), the factor of the peak rate is
//! t / W up to step W and (T - t + 1) / (T - W + 1) after it, so that no step
//! has rate 0. Hugging Face's `linear` schedule, counting from 0, has
//! (t - 1) / W and then (T - t + 1) / (T - W): its first step has rate 0 and its
//! plateau lasts one step.

/// A linear schedule of `total` steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    total: u64,
    warmup: u64,
}

impl Schedule {
    /// `total` steps, the share `warmup_ratio` of them (rounded up) in warm-up.
    pub fn new(total: u64, warmup_ratio: f64) -> Self {
        // 0.1 * 70 is 7.000000000000001: rounding up must not see that.
        let warmup = (warmup_ratio * total as f64 - 1e-9).ceil().max(0.0) as u64;
        Self {
            total,
            warmup: warmup.min(total),
        }
    }

    /// Steps in warm-up.
    #[cfg(test)]
    pub fn warmup(&self) -> u64 {
        self.warmup
    }

    /// Factor of the peak rate at step `t`, from 1.
    pub fn factor(&self, t: u64) -> f64 {
        if t <= self.warmup {
            t as f64 / self.warmup as f64
        } else {
            (self.total + 1).saturating_sub(t) as f64 / (self.total - self.warmup + 1) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(total: u64, ratio: f64) -> Vec<f64> {
        let s = Schedule::new(total, ratio);
        (1..=total).map(|t| s.factor(t)).collect()
    }

    #[test]
    fn follows_the_formula() {
        assert_eq!(factors(4, 0.5), [0.5, 1.0, 2.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(factors(3, 0.1), [1.0, 2.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(factors(1, 0.1), [1.0]);
        assert_eq!(factors(2, 0.0), [2.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(factors(2, 1.0), [0.5, 1.0]);
    }

    #[test]
    fn warm_up_is_rounded_up_but_not_by_rounding_errors() {
        assert_eq!(Schedule::new(70, 0.1).warmup(), 7);
        assert_eq!(Schedule::new(71, 0.1).warmup(), 8);
        assert_eq!(Schedule::new(5, 0.0).warmup(), 0);
    }

    #[test]
    fn no_step_has_rate_zero_and_none_more_than_the_peak() {
        for total in 1..200 {
            for ratio in [0.0, 0.03, 0.1, 0.5, 1.0] {
                assert!(
                    factors(total, ratio).iter().all(|f| *f > 0.0 && *f <= 1.0),
                    "{total} {ratio}"
                );
            }
        }
    }
}
