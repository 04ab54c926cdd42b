//! A number's exact value: [`Value`].

use std::fmt;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// Digits that a numeral may have, and the exponent of a power of ten.
const MAX_DIGITS: usize = 1000;

/// Bits that a power may have.
const MAX_BITS: u64 = 4096;

/// Decimal places up to which a value is shown as a decimal.
const MAX_PLACES: usize = 40;

/// A rational number. Its text is the same for equal values: a decimal where
/// there is a finite one, else a fraction in lowest terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(BigRational);

impl Value {
    /// From the digits before and after the point, ASCII; `None` for none, or too many.
    pub(super) fn decimal(whole: &str, places: &str) -> Option<Self> {
        let digits = [whole, places].concat();
        if digits.is_empty() || digits.len() > MAX_DIGITS {
            return None;
        }
        let number: BigInt = digits.parse().ok()?;
        let scale = ten_to(places.len())?;
        Some(Self(BigRational::new(number, scale)))
    }

    pub(super) fn fraction(over: &Self, under: &Self) -> Option<Self> {
        (!under.0.is_zero()).then(|| Self(&over.0 / &under.0))
    }

    pub(super) fn negated(self) -> Self {
        Self(-self.0)
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        Self(&self.0 + &other.0)
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        Self(&self.0 * &other.0)
    }

    /// Times ten to some power.
    pub(super) fn scaled(&self, exponent: i32) -> Option<Self> {
        let scale = BigRational::from(ten_to(exponent.unsigned_abs() as usize)?);
        Some(Self(if exponent < 0 {
            &self.0 / scale
        } else {
            &self.0 * scale
        }))
    }

    /// To a power that is a whole number; `None` where that would be huge or is not defined.
    pub(super) fn power(&self, exponent: &Self) -> Option<Self> {
        let exponent: i32 = exponent
            .0
            .is_integer()
            .then(|| exponent.0.to_integer())?
            .try_into()
            .ok()?;
        let bits = self.0.numer().bits().max(self.0.denom().bits());
        if bits * u64::from(exponent.unsigned_abs()) > MAX_BITS
            || (exponent <= 0 && self.0.is_zero())
        {
            return None;
        }
        Some(Self(self.0.pow(exponent)))
    }

    pub(super) fn is_ten(&self) -> bool {
        self.0.is_integer() && *self.0.numer() == BigInt::from(10)
    }

    /// Whether it lies between 0 and 1, neither of them included.
    pub(super) fn is_proper_fraction(&self) -> bool {
        self.0.is_positive() && self.0 < BigRational::one()
    }
}

fn ten_to(exponent: usize) -> Option<BigInt> {
    (exponent <= MAX_DIGITS).then(|| BigInt::from(10).pow(u32::try_from(exponent).unwrap_or(0)))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (over, under) = (self.0.numer(), self.0.denom());
        let Some(places) = places(under) else {
            return write!(f, "{over}/{under}");
        };
        let digits = (over.abs() * BigInt::from(10).pow(places as u32) / under).to_string();
        let digits = format!("{digits:0>width$}", width = places + 1);
        let (whole, rest) = digits.split_at(digits.len() - places);
        let sign = if over.is_negative() { "-" } else { "" };
        let point = if rest.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{rest}")
    }
}

/// How many decimal places a fraction with this denominator has; `None` without end,
/// or for more than are shown.
fn places(under: &BigInt) -> Option<usize> {
    let mut rest = under.clone();
    let mut divide = |prime: u32| {
        let mut times = 0;
        while (&rest % prime).is_zero() && times <= MAX_PLACES {
            rest /= prime;
            times += 1;
        }
        times
    };
    let places = divide(2).max(divide(5));
    (rest.is_one() && places <= MAX_PLACES).then_some(places)
}
