//! Tests, the right side of `is`: [`apply`].

use super::ast::{BinOp, CmpOp};
use super::error::{Error, Result};
use super::filters;
use super::machine::{CallArgs, Machine, required};
use super::unicode::is_case;
use super::value::Value;

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether Jinja2 has a test of this name.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether a value passes a test.
pub(super) fn apply(
    machine: &mut Machine,
    name: &str,
    value: &Value,
    args: CallArgs,
) -> Result<bool> {
    if let Some(op) = comparison(name) {
        let [other] = if name == "in" {
            args.bind(name, ["seq"])?
        } else {
            args.positional::<1>(name)?
        };
        return machine.compare(op, value, &required(other, name)?);
    }
    match name {
        "divisibleby" => {
            let [num] = args.bind(name, ["num"])?;
            remainder(machine, value, &required(num, name)?, 0)
        }
        "sameas" => {
            let [other] = args.bind(name, ["other"])?;
            value.same(&required(other, name)?).ok_or_else(|| {
                Error::unsupported("`sameas` of values that are equal but perhaps not one")
            })
        }
        _ => {
            args.none(name)?;
            without_arguments(machine, name, value)
        }
    }
}

fn comparison(name: &str) -> Option<CmpOp> {
    Some(match name {
        "==" | "eq" | "equalto" => CmpOp::Eq,
        "!=" | "ne" => CmpOp::Ne,
        ">" | "gt" | "greaterthan" => CmpOp::Gt,
        ">=" | "ge" => CmpOp::Ge,
        "<" | "lt" | "lessthan" => CmpOp::Lt,
        "<=" | "le" => CmpOp::Le,
        "in" => CmpOp::In,
        _ => return None,
    })
}

fn without_arguments(machine: &mut Machine, name: &str, value: &Value) -> Result<bool> {
    Ok(match name {
        "odd" => remainder(machine, value, &Value::Int(2), 1)?,
        "even" => remainder(machine, value, &Value::Int(2), 0)?,
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "filter" => {
            value.check_hashable()?;
            value.as_str().is_some_and(filters::exists)
        }
        "test" => {
            value.check_hashable()?;
            value.as_str().is_some_and(exists)
        }
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => is_case(&machine.string(value)?, false),
        "upper" => is_case(&machine.string(value)?, true),
        "string" => value.as_str().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "sequence" => is_sequence(value),
        "iterable" => {
            is_sequence(value)
                || matches!(value, Value::View(..))
                || machine.is_iterator(value)
                || machine.is_loop(value)
        }
        "callable" => machine.is_callable(value),
        "escaped" => matches!(value, Value::Markup(_)),
        _ => return Err(Error::new(format!("No test named '{name}'."))),
    })
}

fn is_sequence(value: &Value) -> bool {
    matches!(
        value,
        Value::Undefined(_)
            | Value::Str(_)
            | Value::Markup(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Group(_)
            | Value::Dict(_)
            | Value::Range(_)
    )
}

fn remainder(machine: &mut Machine, value: &Value, by: &Value, wanted: i128) -> Result<bool> {
    let rest = machine.binary(BinOp::Mod, value, by)?;
    Ok(rest.equal(&Value::Int(wanted)))
}
