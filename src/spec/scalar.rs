//! What a plain scalar is, by YAML 1.2's core schema (section 10.3.2):
//! [`resolve`].

use super::yaml::Value;

/// A plain scalar by the core schema.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let (negative, body) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return Value::Float(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        });
    }
    let radix = |digits: &str, radix: u32| {
        let fits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        fits.then(|| {
            i64::from_str_radix(digits, radix).map_or(Value::Float(f64::INFINITY), Value::Int)
        })
    };
    // Only unsigned in the core schema.
    let based = match text.as_bytes() {
        [b'0', b'o', ..] => radix(&text[2..], 8),
        [b'0', b'x', ..] => radix(&text[2..], 16),
        _ => None,
    };
    if let Some(value) = based {
        return value;
    }
    if !body.is_empty() && body.bytes().all(|b| b.is_ascii_digit()) {
        let number = text.parse::<i64>().map(Value::Int);
        return number
            .or_else(|_| text.parse::<f64>().map(Value::Float))
            .unwrap_or_else(|_| Value::Str(text.to_owned()));
    }
    match is_float(body).then(|| text.parse::<f64>()) {
        Some(Ok(number)) => Value::Float(number),
        _ => Value::Str(text.to_owned()),
    }
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(body: &str) -> bool {
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (body, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa = match mantissa.split_once('.') {
        Some((whole, part)) => {
            digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty())
        }
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa && exponent
}
