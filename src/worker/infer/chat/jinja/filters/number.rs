//! Filters of numbers.

use super::super::ast::BinOp;
use super::super::number::{
    parse_float, parse_int, round_float, round_int, to_float, to_int, too_large,
};
use super::{CallArgs, Error, Machine, Result, Value, truth};

pub(super) fn apply(
    machine: &mut Machine,
    name: &str,
    value: &Value,
    args: CallArgs,
) -> Result<Value> {
    match name {
        "abs" => {
            args.none(name)?;
            absolute(value)
        }
        "int" => int(machine, value, args),
        "float" => {
            let [default] = args.bind(name, ["default"])?;
            let default = default.unwrap_or(Value::Float(0.0));
            Ok(float(value)?.map_or(default, Value::Float))
        }
        "round" => round(machine, value, args),
        _ => {
            let [binary] = args.bind(name, ["binary"])?;
            let binary = truth(machine, binary)?;
            let text = file_size(value, binary)?;
            machine.text(text)
        }
    }
}

fn absolute(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Float(x), _) => Ok(Value::Float(x.abs())),
        (_, Some(n)) => n.checked_abs().map(Value::Int).ok_or_else(too_large),
        (Value::Undefined(hint), _) => Err(Error::new(&**hint)),
        _ => Err(Error::new(format!(
            "bad operand type for abs(): '{}'",
            value.type_name()
        ))),
    }
}

fn float(value: &Value) -> Result<Option<f64>> {
    match (value, value.as_int()) {
        (Value::Float(x), _) => Ok(Some(*x)),
        (_, Some(n)) => Ok(Some(to_float(n))),
        (Value::Str(s) | Value::Markup(s), _) => parse_float(s),
        (Value::Undefined(hint), _) => Err(Error::new(&**hint)),
        _ => Ok(None),
    }
}

fn int(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    machine.spend(0)?;
    let n = match value {
        Value::Str(s) | Value::Markup(s) => {
            let base = base.map_or(Some(10), |b| b.as_int());
            let parsed = match base {
                Some(base) => parse_int(s, base)?,
                None => None,
            };
            match parsed {
                Some(n) => Some(n),
                None => match parse_float(s)? {
                    Some(x) if x.is_finite() => Some(to_int(x)?),
                    _ => None,
                },
            }
        }
        Value::Float(x) if x.is_nan() => None,
        Value::Float(x) => Some(to_int(*x)?),
        Value::Undefined(hint) => return Err(Error::new(&**hint)),
        other => other.as_int(),
    };
    Ok(n.map_or(default, Value::Int))
}

fn round(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = precision.unwrap_or(Value::Int(0));
    let Some(digits) = precision.as_int() else {
        return Err(Error::new("the precision of `round` is not an integer"));
    };
    let method = method.unwrap_or_else(|| Value::str("common"));
    let up = match method.as_str() {
        Some("common") => {
            return match (value, value.as_int()) {
                (Value::Float(x), _) => round_float(*x, digits).map(Value::Float),
                (_, Some(n)) => round_int(n, digits).map(Value::Int),
                (Value::Undefined(hint), _) => Err(Error::new(&**hint)),
                _ => Err(Error::new(format!(
                    "'{}' cannot be rounded",
                    value.type_name()
                ))),
            };
        }
        Some("ceil") => true,
        Some("floor") => false,
        _ => return Err(Error::new("method must be common, ceil or floor")),
    };
    let unit = machine.binary(BinOp::Pow, &Value::Int(10), &precision)?;
    let scaled = machine.binary(BinOp::Mul, value, &unit)?;
    let whole = match &scaled {
        Value::Float(x) => Value::Int(to_int(if up { x.ceil() } else { x.floor() })?),
        Value::Int(n) => Value::Int(*n),
        _ => return Err(Error::new("must be real number")),
    };
    machine.binary(BinOp::Div, &whole, &unit)
}

fn file_size(value: &Value, binary: bool) -> Result<String> {
    let Some(bytes) = float(value)? else {
        return Err(Error::new("could not convert to a number of bytes"));
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", to_int(bytes)?));
    }
    if !bytes.is_finite() {
        return Err(Error::unsupported("the size of infinitely many bytes"));
    }
    let mut unit = base;
    let mut text = String::new();
    for prefix in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
        unit *= base;
        let prefix = match (binary, prefix) {
            (true, "k") => "KiB".to_owned(),
            (true, p) => format!("{p}iB"),
            (false, p) => format!("{p}B"),
        };
        text = format!("{:.1} {prefix}", base * bytes / unit);
        if bytes < unit {
            break;
        }
    }
    Ok(text)
}
