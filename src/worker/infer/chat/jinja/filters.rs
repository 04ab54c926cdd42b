//! Filters: [`apply`]. Those of numbers, of texts, and of lists and mappings
//! are in [`number`], [`text`] and [`sequence`].

mod number;
mod sequence;
mod sort;
mod text;

use std::cmp::Ordering;
use std::rc::Rc;

pub(super) use sort::sorted;

use super::error::{Error, Result};
use super::json;
use super::machine::{CallArgs, Machine, required};
use super::value::Value;

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

/// Whether Jinja2 has a filter of this name.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The value of a filter.
pub(super) fn apply(
    machine: &mut Machine,
    name: &str,
    value: Value,
    args: CallArgs,
) -> Result<Value> {
    machine.spend(value.weight() / 16)?;
    match name {
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let boolean = truth(machine, boolean)?;
            if matches!(value, Value::Undefined(_)) || (boolean && !machine.truth(&value)?) {
                return Ok(default.unwrap_or_else(|| Value::str("")));
            }
            Ok(value)
        }
        "string" => {
            args.none(name)?;
            match value {
                Value::Str(_) | Value::Markup(_) => Ok(value),
                other => Ok(Value::Str(machine.string(&other)?)),
            }
        }
        "safe" | "e" | "escape" | "forceescape" => {
            args.none(name)?;
            match &value {
                Value::Markup(_) if name != "forceescape" => return Ok(value),
                _ => {}
            }
            let text = machine.string(&value)?;
            if name == "safe" {
                return Ok(Value::Markup(text));
            }
            let text = text::escaped(&text);
            machine.allocate(text.len())?;
            Ok(Value::Markup(text.into()))
        }
        "tojson" => json::dumps(machine, &value, args),
        "attr" => {
            let [attribute] = args.bind(name, ["name"])?;
            match required(attribute, name)? {
                Value::Str(attribute) if !matches!(value, Value::Dict(_)) => {
                    machine.attribute(&value, &attribute)
                }
                // Of a mapping, attributes alone: not its items.
                Value::Str(attribute) => {
                    let empty = Value::dict(Vec::new())?;
                    if matches!(machine.attribute(&empty, &attribute)?, Value::Undefined(_)) {
                        Ok(Value::undefined(format!("no attribute '{attribute}'")))
                    } else {
                        machine.attribute(&value, &attribute)
                    }
                }
                _ => Err(Error::new("attribute name must be string")),
            }
        }
        "random" | "striptags" | "urlize" | "wordwrap" | "pprint" => {
            Err(Error::unsupported(format_args!("the filter `{name}`")))
        }
        "abs" | "filesizeformat" | "float" | "int" | "round" => {
            number::apply(machine, name, &value, args)
        }
        "batch" | "count" | "dictsort" | "first" | "groupby" | "items" | "join" | "last"
        | "length" | "list" | "map" | "max" | "min" | "reject" | "rejectattr" | "reverse"
        | "select" | "selectattr" | "slice" | "sort" | "sum" | "unique" | "xmlattr" => {
            sequence::apply(machine, name, value, args)
        }
        _ => text::apply(machine, name, &value, args),
    }
}

/// Python's `bool` of an argument, false without one.
fn truth(machine: &mut Machine, value: Option<Value>) -> Result<bool> {
    value.map_or(Ok(false), |v| machine.truth(&v))
}

/// A part of an attribute's path.
enum Part {
    Name(Rc<str>),
    Index(Value),
}

/// `a.b.0`: names and numbers.
fn path(attribute: &Value) -> Vec<Part> {
    match attribute {
        Value::None => Vec::new(),
        Value::Str(text) => text
            .split('.')
            .map(|part| match part.parse::<i128>() {
                Ok(n) if part.chars().all(|c| c.is_ascii_digit()) => Part::Index(Value::Int(n)),
                _ => Part::Name(part.into()),
            })
            .collect(),
        other => vec![Part::Index(other.clone())],
    }
}

/// The attribute that a path leads to, with a default on the way.
fn attribute(
    machine: &mut Machine,
    item: &Value,
    path: &[Part],
    default: Option<&Value>,
) -> Result<Value> {
    let mut item = item.clone();
    for part in path {
        item = match part {
            Part::Name(name) => machine.item(&item, &Value::Str(Rc::clone(name)))?,
            Part::Index(index) => machine.item(&item, index)?,
        };
        if let (Value::Undefined(_), Some(default)) = (&item, default) {
            item = default.clone();
        }
    }
    Ok(item)
}

/// A text in lower case, unless case matters.
fn fold(value: Value, case_sensitive: bool) -> Value {
    match &value {
        Value::Str(s) if !case_sensitive => Value::str(s.to_lowercase()),
        _ => value,
    }
}

/// The order of two keys, where they have one.
fn order(machine: &mut Machine, a: &Value, b: &Value) -> Result<Ordering> {
    machine.spend(a.weight().min(b.weight()) / 16)?;
    a.compare(b)?
        .ok_or_else(|| Error::unsupported("sorting what is not a number (NaN)"))
}
