//! Digits of numbers in the forms of C's `printf`.

use super::super::number::{place, repr_float};

/// How a float is written.
#[derive(Clone, Copy)]
pub(super) struct Float {
    /// `e`, `f`, `g`, their capitals, or `r` for Python's `repr`.
    pub(super) kind: char,
    pub(super) precision: usize,
    /// Keeps the point and zeros at the end.
    pub(super) alternate: bool,
    /// At least one digit after the point.
    pub(super) dot_zero: bool,
}

/// Prefix and digits of an integer's size.
pub(super) fn int_text(n: i128, kind: char, alternate: bool) -> (&'static str, String) {
    let n = n.unsigned_abs();
    let (prefix, digits) = match kind {
        'x' => ("0x", format!("{n:x}")),
        'X' => ("0X", format!("{n:X}")),
        'o' => ("0o", format!("{n:o}")),
        'b' => ("0b", format!("{n:b}")),
        _ => ("", n.to_string()),
    };
    (if alternate { prefix } else { "" }, digits)
}

/// A float that is not negative.
pub(super) fn float_text(x: f64, form: Float) -> String {
    let upper = form.kind.is_ascii_uppercase();
    let text = if x.is_nan() {
        "nan".into()
    } else if x.is_infinite() {
        "inf".into()
    } else {
        match form.kind.to_ascii_lowercase() {
            'f' => fixed(x, form.precision, form.alternate),
            'e' => scientific(x, form.precision, form.alternate),
            'g' => general(x, form),
            _ => repr_float(x),
        }
    };
    if upper { text.to_uppercase() } else { text }
}

fn fixed(x: f64, precision: usize, alternate: bool) -> String {
    let dot = if alternate && precision == 0 { "." } else { "" };
    format!("{x:.precision$}{dot}")
}

/// Digits and exponent, rounded to `precision` digits after the first.
fn rounded(x: f64, precision: usize) -> (String, i32) {
    let text = format!("{x:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (digits.replace('.', ""), exponent.parse().unwrap_or(0))
}

fn scientific(x: f64, precision: usize, alternate: bool) -> String {
    let (digits, exponent) = rounded(x, precision);
    let (first, rest) = digits.split_at(1);
    let dot = if rest.is_empty() && !alternate {
        ""
    } else {
        "."
    };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{dot}{rest}e{sign}{:02}", exponent.abs())
}

fn general(x: f64, form: Float) -> String {
    let precision = form.precision.max(1);
    let (digits, exponent) = rounded(x, precision - 1);
    let point = exponent + 1;
    let most = i32::try_from(precision).unwrap_or(i32::MAX) - i32::from(form.dot_zero);
    if form.alternate {
        return if point <= -4 || point > most {
            scientific(x, precision - 1, true)
        } else {
            let behind = i32::try_from(precision).unwrap_or(i32::MAX) - point;
            fixed(x, usize::try_from(behind).unwrap_or(0), true)
        };
    }
    let trimmed = digits.trim_end_matches('0');
    let trimmed = if trimmed.is_empty() { "0" } else { trimmed };
    place(trimmed, point, most, form.dot_zero)
}

/// Digits in groups.
pub(super) fn group(digits: &str, mark: char, width: usize) -> String {
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(width) {
            out.push(mark);
        }
        out.push(c);
    }
    out
}
