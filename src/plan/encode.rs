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
            let int = number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    fn encoded(v: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value(&mut out, v);
        out
    }

    /// The inverse of the encoding. That it exists is the proof that different
    /// values never share an encoding.
    fn decode(bytes: &mut &[u8]) -> Value {
        fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
            let (head, tail) = bytes.split_at(n);
            *bytes = tail;
            head
        }
        fn count(bytes: &mut &[u8]) -> usize {
            u64::from_le_bytes(take(bytes, 8).try_into().unwrap()) as usize
        }
        fn text(bytes: &mut &[u8]) -> String {
            let n = count(bytes);
            String::from_utf8(take(bytes, n).to_vec()).unwrap()
        }
        match take(bytes, 1)[0] {
            NULL => Value::Null,
            FALSE => json!(false),
            TRUE => json!(true),
            INT => {
                let int = i128::from_le_bytes(take(bytes, 16).try_into().unwrap());
                u64::try_from(int).map_or_else(|_| json!(int as i64), |int| json!(int))
            }
            FLOAT => json!(f64::from_bits(u64::from_le_bytes(
                take(bytes, 8).try_into().unwrap()
            ))),
            STRING => json!(text(bytes)),
            LIST => (0..count(bytes)).map(|_| decode(bytes)).collect(),
            MAP => {
                let fields: Map<String, Value> = (0..count(bytes))
                    .map(|_| (text(bytes), decode(bytes)))
                    .collect();
                Value::Object(fields)
            }
            tag => panic!("no such tag: {tag}"),
        }
    }

    /// Any JSON value, with the texts and numbers most likely to be confused.
    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-c]{0,2}",
            ".{0,8}",
            Just("1".to_owned()),
            Just("null".to_owned())
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-2i64..3).prop_map(Value::from),
            (-2i8..3).prop_map(|n| json!(f64::from(n))),
            any::<f64>()
                .prop_filter("JSON has no NaN", |f| f.is_finite())
                .prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]{0,2}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_is_read_back_from_its_encoding(v in any_value()) {
            let bytes = encoded(&v);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(decode(&mut rest), v);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn two_values_share_an_encoding_only_if_equal(a in any_value(), b in any_value()) {
            prop_assert_eq!(encoded(&a) == encoded(&b), a == b);
        }

        #[test]
        fn the_order_of_keys_changes_nothing(fields in prop::collection::btree_map("[a-z]{0,3}", any_value(), 0..6)) {
            let forwards: Map<String, Value> = fields.clone().into_iter().collect();
            let backwards: Map<String, Value> = fields.into_iter().rev().collect();
            prop_assert_eq!(encoded(&Value::Object(forwards)), encoded(&Value::Object(backwards)));
        }
    }

    #[test]
    fn similar_values_are_distinguished() {
        let values = [
            json!(null),
            json!(false),
            json!(0),
            json!(0.0),
            json!(""),
            json!("0"),
            json!([]),
            json!({}),
            json!([null]),
            json!([[]]),
            json!([{}]),
            json!({"": null}),
            json!(["a", "b"]),
            json!(["ab"]),
            json!(["a", ["b"]]),
            json!({"a": "b"}),
            json!(["a", "b", "c"]),
            json!({"a": {"b": "c"}}),
        ];
        for (i, a) in values.iter().enumerate() {
            for b in &values[i + 1..] {
                assert_ne!(encoded(a), encoded(b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn minus_zero_is_zero() {
        assert_eq!(encoded(&json!(-0.0)), encoded(&json!(0.0)));
    }
}
