//! Methods of texts, lists, mappings and numbers: [`find`] and [`call`].

pub(super) mod text;

use std::rc::Rc;

use super::error::{Error, Result};
use super::machine::{CallArgs, Machine};
use super::value::{Dict, Value, View};

/// Methods that are there and can be called.
const STR: [&str; 43] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
];
const STR_MORE: [&str; 1] = ["zfill"];
const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];

/// What the sandbox hides, since it would change the value.
fn hidden(object: &Value, name: &str) -> bool {
    match object {
        Value::List(_) => matches!(
            name,
            "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove"
        ),
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        _ => false,
    }
}

/// Attributes that Python has and that are not done here.
fn undone(object: &Value, name: &str) -> bool {
    match object {
        Value::Str(_) => matches!(name, "encode" | "translate" | "maketrans"),
        Value::Markup(_) => {
            STR.contains(&name)
                || STR_MORE.contains(&name)
                || matches!(
                    name,
                    "encode" | "translate" | "maketrans" | "escape" | "striptags" | "unescape"
                )
        }
        Value::Dict(_) => name == "fromkeys",
        Value::View(View::Keys | View::Items, _) => matches!(name, "isdisjoint" | "mapping"),
        Value::View(View::Values, _) => name == "mapping",
        Value::Group(_) => name.starts_with('_'),
        Value::Bool(_) | Value::Int(_) => matches!(
            name,
            "real"
                | "imag"
                | "numerator"
                | "denominator"
                | "bit_length"
                | "bit_count"
                | "conjugate"
                | "to_bytes"
                | "from_bytes"
                | "as_integer_ratio"
                | "is_integer"
        ),
        Value::Float(_) => matches!(
            name,
            "real" | "imag" | "hex" | "fromhex" | "conjugate" | "as_integer_ratio"
        ),
        Value::Function(_) | Value::Method(_) => !name.starts_with('_'),
        Value::Macro(_) => name == "explicit_caller",
        Value::Object(_) => matches!(name, "send" | "throw" | "close"),
        _ => false,
    }
}

/// A method of a value, none if it has none of this name.
pub(super) fn find(machine: &Machine, object: &Value, name: &str) -> Result<Option<Value>> {
    let known = match object {
        Value::Str(_) => STR.contains(&name) || STR_MORE.contains(&name),
        Value::Dict(_) => DICT.contains(&name),
        Value::List(_) => matches!(name, "copy" | "count" | "index"),
        Value::Tuple(_) | Value::Group(_) | Value::Range(_) => matches!(name, "count" | "index"),
        Value::Float(_) => name == "is_integer",
        Value::Object(_) if machine.is_loop(object) => matches!(name, "cycle" | "changed"),
        Value::Object(_) if machine.is_cycler(object) => matches!(name, "next" | "reset"),
        _ => false,
    };
    if known {
        return Ok(Some(Value::Method(Rc::new((
            object.clone(),
            name.to_owned(),
        )))));
    }
    if hidden(object, name) {
        return Ok(Some(Value::undefined(format!(
            "access to attribute '{name}' of '{}' object is unsafe.",
            object.type_name()
        ))));
    }
    if undone(object, name) {
        return Err(Error::unsupported(format_args!(
            "`{name}` of a {}",
            object.type_name()
        )));
    }
    Ok(None)
}

/// Calls a method.
pub(super) fn call(
    machine: &mut Machine,
    object: &Value,
    name: &str,
    args: CallArgs,
) -> Result<Value> {
    machine.spend(object.weight() / 16)?;
    match object {
        Value::Str(s) => text::call(machine, s, name, args),
        Value::Dict(dict) => mapping(dict, name, args),
        Value::List(i) | Value::Tuple(i) | Value::Group(i) => match name {
            "copy" => {
                args.none("copy")?;
                machine.list(i.items.clone())
            }
            _ => position(&i.items, name, args),
        },
        Value::Range(_) => {
            let items = machine.iterate(object)?;
            position(&items, name, args)
        }
        Value::Float(x) => {
            args.none(name)?;
            Ok(Value::Bool(x.is_finite() && x.fract() == 0.0))
        }
        _ => Err(Error::new(format!("`{name}` cannot be called"))),
    }
}

fn mapping(dict: &Rc<Dict>, name: &str, args: CallArgs) -> Result<Value> {
    let view = match name {
        "get" => {
            let [key, default] = args.positional::<2>("get")?;
            let key = key.ok_or_else(|| Error::new("get expected at least 1 argument, got 0"))?;
            key.check_hashable()?;
            return Ok(dict.get(&key).cloned().or(default).unwrap_or(Value::None));
        }
        "copy" => {
            args.none("copy")?;
            return Ok(Value::Dict(Rc::new(Dict::new(dict.entries.clone())?)));
        }
        "items" => View::Items,
        "keys" => View::Keys,
        _ => View::Values,
    };
    args.none(name)?;
    Ok(Value::View(view, Rc::clone(dict)))
}

/// `count` and `index` of a list or tuple.
fn position(items: &[Value], name: &str, args: CallArgs) -> Result<Value> {
    let int = |n: usize| Value::Int(i128::try_from(n).unwrap_or(i128::MAX));
    if name == "count" {
        let [value] = args.positional::<1>(name)?;
        let value = value.ok_or_else(|| Error::new("count() takes exactly one argument"))?;
        return Ok(int(items.iter().filter(|i| i.equal(&value)).count()));
    }
    let [value, start, stop] = args.positional::<3>(name)?;
    let value = value.ok_or_else(|| Error::new("index expected at least 1 argument, got 0"))?;
    let bounds = text::bounds(items.len(), start, stop)?;
    let found = items
        .iter()
        .enumerate()
        .find(|(i, item)| bounds.contains(i) && item.equal(&value));
    match found {
        Some((i, _)) => Ok(int(i)),
        None => Err(Error::new("the value is not in the list")),
    }
}
