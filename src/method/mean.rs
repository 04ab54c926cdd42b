//! Means for metrics: [`Mean`].

use serde_json::Value;

/// A running mean.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    /// Adds a number.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// Adds whether something holds, for a share.
    pub fn add_if(&mut self, holds: bool) {
        self.add(f64::from(u8::from(holds)));
    }

    /// The mean; `None` of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The mean as JSON; null of nothing.
    pub fn json(&self) -> Value {
        self.value().map_or(Value::Null, Value::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_nothing_is_null() {
        let mut mean = Mean::default();
        assert_eq!(mean.json(), Value::Null);
        mean.add(1.0);
        mean.add_if(false);
        assert_eq!(mean.json(), Value::from(0.5));
    }
}
