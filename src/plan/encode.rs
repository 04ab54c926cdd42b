//! The canonical binary encoding of values that keys are hashes of: tagged,
//! length-prefixed, maps sorted by the bytes of their keys. Different values
//! never share an encoding; the order of keys changes nothing.

use serde_json::Value;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const STRING: u8 = 5;
const LIST: u8 = 6;
const MAP: u8 = 7;

/// Appends the encoding of `value`.
///
/// Integers (128-bit little-endian) and floats (bits, -0.0 as 0.0) are distinct:
/// `1` and `1.0` are different values. Lengths and counts have 64 bits.
pub(super) fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Number(number) => {
            let int = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            if let Some(int) = int {
                out.push(INT);
                out.extend_from_slice(&int.to_le_bytes());
            } else {
                // Neither i64 nor u64: a float. JSON has no NaN.
                let float = number.as_f64().unwrap_or(f64::NAN);
                let float = if float == 0.0 { 0.0 } else { float };
                out.push(FLOAT);
                out.extend_from_slice(&float.to_bits().to_le_bytes());
            }
        }
        Value::String(text) => {
            out.push(STRING);
            string(out, text);
        }
        Value::Array(items) => {
            out.push(LIST);
            length(out, items.len());
            for item in items {
                self::value(out, item);
            }
        }
        Value::Object(fields) => {
            out.push(MAP);
            length(out, fields.len());
            // The map's own order depends on a feature of serde_json.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            for (name, field) in fields {
                string(out, name);
                self::value(out, field);
            }
        }
    }
}

/// Appends a length and the bytes of a text.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a length or count.
pub(super) fn length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}
