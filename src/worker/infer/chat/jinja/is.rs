//! What stands behind `is`: [`apply`].

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
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(CmpOp::Eq),
        "!=" | "ne" => Some(CmpOp::Ne),
        ">" | "gt" | "greaterthan" => Some(CmpOp::Gt),
        ">=" | "ge" => Some(CmpOp::Ge),
        "<" | "lt" | "lessthan" => Some(CmpOp::Lt),
        "<=" | "le" => Some(CmpOp::Le),
        "in" => Some(CmpOp::In),
        _ => None,
    };
    if let Some(op) = comparison {
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
            return remainder(machine, value, &required(num, name)?, 0);
        }
        "sameas" => {
            let [other] = args.bind(name, ["other"])?;
            return value.same(&required(other, name)?).ok_or_else(|| {
                Error::unsupported("`sameas` of values that are equal but perhaps not one")
            });
        }
        _ => {}
    }
    args.none(name)?;
    Ok(match name {
        "odd" => remainder(machine, value, &Value::Int(2), 1)?,
        "even" => remainder(machine, value, &Value::Int(2), 0)?,
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "filter" | "test" => {
            value.check_hashable()?;
            value.as_str().is_some_and(|n| {
                if name == "filter" {
                    filters::exists(n)
                } else {
                    exists(n)
                }
            })
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
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::Markup(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Group(_)
                | Value::Dict(_)
                | Value::Range(_)
        ),
        "iterable" => match value {
            Value::Undefined(_)
            | Value::Str(_)
            | Value::Markup(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Group(_)
            | Value::Dict(_)
            | Value::Range(_)
            | Value::View(..) => true,
            _ => machine.is_iterator(value) || machine.is_loop(value),
        },
        "callable" => machine.is_callable(value),
        "escaped" => matches!(value, Value::Markup(_)),
        _ => return Err(Error::new(format!("No test named '{name}'."))),
    })
}

fn remainder(machine: &mut Machine, value: &Value, by: &Value, wanted: i128) -> Result<bool> {
    let rest = machine.binary(BinOp::Mod, value, by)?;
    Ok(rest.equal(&Value::Int(wanted)))
}
