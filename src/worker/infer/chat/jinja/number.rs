//! Python's arithmetic and its printing of numbers.

use std::cmp::Ordering;

use super::ast::BinOp;
use super::error::{Error, Result};
use super::value::Value;

/// Integers beyond this may lose digits as floats.
const EXACT: i128 = 1 << 53;

/// An integer beside a float, exactly; none beside NaN.
pub(super) fn cmp_int_float(n: i128, x: f64) -> Option<Ordering> {
    if x.is_nan() {
        return None;
    }
    let bound = i128::MAX as f64;
    if x >= bound {
        return Some(Ordering::Less);
    }
    if x <= -bound {
        return Some(Ordering::Greater);
    }
    let whole = x.trunc() as i128;
    Some(
        n.cmp(&whole)
            .then_with(|| 0.0_f64.partial_cmp(&x.fract()).unwrap_or(Ordering::Equal)),
    )
}

/// An integer as Python's `float` makes one of it.
pub(super) fn to_float(n: i128) -> f64 {
    n as f64
}

/// A float cut to an integer.
pub(super) fn to_int(x: f64) -> Result<i128> {
    if x.is_nan() {
        return Err(Error::new("cannot convert float NaN to integer"));
    }
    if x.is_infinite() {
        return Err(Error::new("cannot convert float infinity to integer"));
    }
    if x.abs() >= to_float(i128::MAX) {
        return Err(too_large());
    }
    Ok(x.trunc() as i128)
}

pub(super) fn too_large() -> Error {
    Error::unsupported("an integer of more than 127 bits")
}

/// Digits and exponent of a float: 0.d1d2... times ten to the exponent.
fn shortest(x: f64) -> (String, i32) {
    let text = format!("{:e}", x.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (
        digits.replace('.', ""),
        exponent.parse::<i32>().unwrap_or(0) + 1,
    )
}

/// `repr(float)`.
pub(super) fn repr_float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    let sign = if x.is_sign_negative() { "-" } else { "" };
    if x.is_infinite() {
        return format!("{sign}inf");
    }
    let (digits, point) = shortest(x);
    format!("{sign}{}", place(&digits, point, 16, true))
}

/// Digits with a point, or an exponent where the point is far away.
pub(super) fn place(digits: &str, point: i32, most: i32, dot_zero: bool) -> String {
    let len = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if point > most || point <= -4 {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let exponent = point - 1;
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{first}{dot}{rest}e{sign}{:02}", exponent.abs());
    }
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else if point >= len {
        let end = if dot_zero { ".0" } else { "" };
        format!("{digits}{}{end}", zeros(point - len))
    } else {
        let (whole, part) = digits.split_at(usize::try_from(point).unwrap_or(0));
        format!("{whole}.{part}")
    }
}

enum Pair {
    Ints(i128, i128),
    Floats(f64, f64),
}

fn pair(a: &Value, b: &Value) -> Option<Pair> {
    Some(match (a, b) {
        (Value::Float(a), Value::Float(b)) => Pair::Floats(*a, *b),
        (Value::Float(a), b) => Pair::Floats(*a, to_float(b.as_int()?)),
        (a, Value::Float(b)) => Pair::Floats(to_float(a.as_int()?), *b),
        (a, b) => Pair::Ints(a.as_int()?, b.as_int()?),
    })
}

/// An operator between two numbers; none if they are not.
pub(super) fn arithmetic(op: BinOp, a: &Value, b: &Value) -> Option<Result<Value>> {
    Some(match pair(a, b)? {
        Pair::Ints(a, b) => ints(op, a, b),
        Pair::Floats(a, b) => floats(op, a, b).map(Value::Float),
    })
}

fn ints(op: BinOp, a: i128, b: i128) -> Result<Value> {
    let zero = || Error::new("division by zero");
    let value = match op {
        BinOp::Add => a.checked_add(b),
        BinOp::Sub => a.checked_sub(b),
        BinOp::Mul => a.checked_mul(b),
        BinOp::Div => {
            if b == 0 {
                return Err(zero());
            }
            if a.abs() > EXACT || b.abs() > EXACT {
                return Err(Error::unsupported("dividing an integer beyond 2**53"));
            }
            return Ok(Value::Float(to_float(a) / to_float(b)));
        }
        BinOp::FloorDiv | BinOp::Mod => {
            if b == 0 {
                return Err(zero());
            }
            let rest = a.checked_rem(b).unwrap_or(0);
            let below = rest != 0 && (rest < 0) != (b < 0);
            if op == BinOp::Mod {
                Some(if below { rest + b } else { rest })
            } else {
                a.checked_div(b).map(|q| if below { q - 1 } else { q })
            }
        }
        BinOp::Pow if b < 0 => {
            if a == 0 {
                return Err(Error::new("0.0 cannot be raised to a negative power"));
            }
            return floats(op, to_float(a), to_float(b)).map(Value::Float);
        }
        BinOp::Pow => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (a, Ok(b)) => a.checked_pow(b),
            _ => None,
        },
    };
    value.map(Value::Int).ok_or_else(too_large)
}

fn floats(op: BinOp, a: f64, b: f64) -> Result<f64> {
    Ok(match op {
        BinOp::Add => a + b,
        BinOp::Sub => a - b,
        BinOp::Mul => a * b,
        BinOp::Div | BinOp::FloorDiv | BinOp::Mod if b == 0.0 => {
            return Err(Error::new("float division by zero"));
        }
        BinOp::Div => a / b,
        BinOp::FloorDiv | BinOp::Mod => {
            let mut rest = a % b;
            let mut quotient = (a - rest) / b;
            if rest == 0.0 {
                rest = 0.0_f64.copysign(b);
            } else if (b < 0.0) != (rest < 0.0) {
                rest += b;
                quotient -= 1.0;
            }
            if op == BinOp::Mod {
                return Ok(rest);
            }
            if quotient == 0.0 {
                return Ok(0.0_f64.copysign(a / b));
            }
            let floor = quotient.floor();
            if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        BinOp::Pow => {
            if a == 0.0 && b < 0.0 {
                return Err(Error::new("0.0 cannot be raised to a negative power"));
            }
            if a < 0.0 && b.is_finite() && b.fract() != 0.0 {
                return Err(Error::unsupported("a complex number"));
            }
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(Error::new("Numerical result out of range"));
            }
            power
        }
    })
}

/// `round(x, digits)` of a float; ties to even, on the exact binary value.
pub(super) fn round_float(x: f64, digits: i128) -> Result<f64> {
    if !x.is_finite() {
        return Ok(x);
    }
    if digits < 0 {
        return Err(Error::unsupported("rounding a float before its point"));
    }
    let digits = usize::try_from(digits.min(400)).unwrap_or(400);
    format!("{x:.digits$}")
        .parse()
        .map_err(|_| Error::unsupported("this rounding"))
}

/// `round(n, digits)` of an integer; ties to even.
pub(super) fn round_int(n: i128, digits: i128) -> Result<i128> {
    if digits >= 0 {
        return Ok(n);
    }
    let Some(unit) = u32::try_from(-digits)
        .ok()
        .and_then(|d| 10_i128.checked_pow(d))
    else {
        return Ok(0);
    };
    let below = n.div_euclid(unit);
    let rest = n.rem_euclid(unit);
    let up = rest * 2 > unit || (rest * 2 == unit && below % 2 != 0);
    (below + i128::from(up))
        .checked_mul(unit)
        .ok_or_else(too_large)
}

/// `int(text, base)`; none where Python raises `ValueError`.
pub(super) fn parse_int(text: &str, base: i128) -> Result<Option<i128>> {
    let t = text.trim_matches(super::unicode::is_space);
    if !t.is_ascii() && t.chars().any(super::unicode::is_decimal) {
        return Err(Error::unsupported("a number of other digits than 0 to 9"));
    }
    if base != 0 && !(2..=36).contains(&base) {
        return Ok(None);
    }
    let (negative, t) = match t.as_bytes().first() {
        Some(b'-') => (true, &t[1..]),
        Some(b'+') => (false, &t[1..]),
        _ => (false, t),
    };
    let lower = t.to_ascii_lowercase();
    let prefix = |mark: &str, radix: i128| (base == 0 || base == radix) && lower.starts_with(mark);
    let (radix, digits) = if prefix("0x", 16) {
        (16, &lower[2..])
    } else if prefix("0o", 8) {
        (8, &lower[2..])
    } else if prefix("0b", 2) {
        (2, &lower[2..])
    } else {
        (if base == 0 { 10 } else { base }, &lower[..])
    };
    let prefixed = digits.len() != lower.len();
    let digits = if prefixed {
        digits.strip_prefix('_').unwrap_or(digits)
    } else {
        digits
    };
    let plain = digits.replace('_', "");
    let wrong = digits.is_empty()
        || digits.starts_with('_')
        || digits.ends_with('_')
        || digits.contains("__")
        || !plain.chars().all(|c| {
            c.to_digit(36).is_some_and(|d| i128::from(d) < radix)
        })
        // Base 0 allows no leading zeros.
        || (base == 0 && !prefixed && plain.starts_with('0') && plain.chars().any(|c| c != '0'));
    if wrong {
        return Ok(None);
    }
    let radix = u32::try_from(radix).unwrap_or(10);
    let n = i128::from_str_radix(&plain, radix).map_err(|_| too_large())?;
    Ok(Some(if negative { -n } else { n }))
}

/// `float(text)`; none where Python raises `ValueError`.
pub(super) fn parse_float(text: &str) -> Result<Option<f64>> {
    let t = text.trim_matches(super::unicode::is_space);
    if !t.is_ascii() && t.chars().any(super::unicode::is_decimal) {
        return Err(Error::unsupported("a number of other digits than 0 to 9"));
    }
    let bytes = t.as_bytes();
    let digit = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
    let wrong = (0..bytes.len())
        .any(|i| bytes[i] == b'_' && !(digit(i.checked_sub(1)) && digit(Some(i + 1))));
    if wrong {
        return Ok(None);
    }
    Ok(t.replace('_', "").parse().ok())
}
