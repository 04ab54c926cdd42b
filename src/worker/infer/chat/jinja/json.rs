//! The filter `tojson` as transformers defines it, which is Python's
//! `json.dumps`: [`dumps`].

use std::fmt::Write as _;
use std::rc::Rc;

use super::error::{Error, Result};
use super::machine::{CallArgs, Machine};
use super::number::repr_float;
use super::value::Value;

struct Style {
    ascii: bool,
    indent: Option<String>,
    item: Rc<str>,
    key: Rc<str>,
    sort: bool,
}

/// `json.dumps(value, ensure_ascii=False, ...)`.
pub(super) fn dumps(machine: &mut Machine, value: &Value, args: CallArgs) -> Result<Value> {
    let [ascii, indent, separators, sort] = args.bind(
        "tojson",
        ["ensure_ascii", "indent", "separators", "sort_keys"],
    )?;
    let mut truth = |value: Option<Value>| value.map_or(Ok(false), |v| machine.truth(&v));
    let (ascii, sort) = (truth(ascii)?, truth(sort)?);
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(value) => match (&value, value.as_int()) {
            (_, Some(n)) => {
                let n = usize::try_from(n).unwrap_or(0);
                if n > 1000 {
                    return Err(Error::new("an indent of more than 1000 blanks"));
                }
                Some(" ".repeat(n))
            }
            _ => return Err(Error::new("`indent` is neither a number nor a text")),
        },
    };
    let (item, key) = match separators {
        None | Some(Value::None) if indent.is_some() => (",".into(), ": ".into()),
        None | Some(Value::None) => (", ".into(), ": ".into()),
        Some(pair) => match machine.iterate(&pair)?.as_slice() {
            [Value::Str(item), Value::Str(key)] => (Rc::clone(item), Rc::clone(key)),
            _ => return Err(Error::new("`separators` are not two texts")),
        },
    };
    let style = Style {
        ascii,
        indent,
        item,
        key,
        sort,
    };
    machine.allocate(value.weight())?;
    let mut out = String::new();
    write(machine, value, &style, 0, &mut out)?;
    machine.text(out)
}

fn newline(style: &Style, level: usize, out: &mut String) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        for _ in 0..level {
            out.push_str(indent);
        }
    }
}

fn write(
    machine: &mut Machine,
    value: &Value,
    style: &Style,
    level: usize,
    out: &mut String,
) -> Result<()> {
    machine.allocate(style.indent.as_ref().map_or(0, String::len) * level + style.item.len())?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(n) => {
            let _ = write!(out, "{n}");
        }
        Value::Float(x) => out.push_str(&float(*x)),
        Value::Str(s) | Value::Markup(s) => string(s, style.ascii, out),
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
            if items.items.is_empty() {
                out.push_str("[]");
                return Ok(());
            }
            out.push('[');
            for (i, item) in items.items.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.item);
                }
                newline(style, level + 1, out);
                write(machine, item, style, level + 1, out)?;
            }
            newline(style, level, out);
            out.push(']');
        }
        Value::Dict(dict) => {
            if dict.entries.is_empty() {
                out.push_str("{}");
                return Ok(());
            }
            let mut entries = dict.entries.clone();
            if style.sort {
                entries = super::filters::sorted(machine, entries, false, |(k, _)| k.clone())?;
            }
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.item);
                }
                newline(style, level + 1, out);
                string(&key_text(key)?, style.ascii, out);
                machine.allocate(style.key.len())?;
                out.push_str(&style.key);
                write(machine, value, style, level + 1, out)?;
            }
            newline(style, level, out);
            out.push('}');
        }
        other => {
            return Err(Error::new(format!(
                "Object of type {} is not JSON serializable",
                other.type_name()
            )));
        }
    }
    Ok(())
}

fn key_text(key: &Value) -> Result<String> {
    Ok(match key {
        Value::Str(s) => s.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::None => "null".into(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => float(*x),
        _ => {
            return Err(Error::new(format!(
                "keys must be str, int, float, bool or None, not {}",
                key.type_name()
            )));
        }
    })
}

fn float(x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 { "Infinity" } else { "-Infinity" }.into()
    } else {
        repr_float(x)
    }
}

fn string(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || (ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
