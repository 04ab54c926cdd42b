//! Filters of texts.

use std::rc::Rc;

use super::super::format;
use super::super::methods::text as str_methods;
use super::super::unicode::{capitalize, is_alnum, is_space};
use super::{CallArgs, Error, Machine, Result, Value, required, truth};

/// A text as HTML has it.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn apply(
    machine: &mut Machine,
    name: &str,
    value: &Value,
    args: CallArgs,
) -> Result<Value> {
    if matches!(value, Value::Markup(_)) {
        return Err(Error::unsupported(format_args!(
            "the filter `{name}` of escaped text"
        )));
    }
    // `soft_str`: what is not a text is printed.
    let text = match name {
        "indent" | "truncate" => strict(value, name)?,
        "urlencode"
            if !matches!(
                value,
                Value::Str(_) | Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_)
            ) =>
        {
            return Err(Error::unsupported("`urlencode` of a list or mapping"));
        }
        _ => machine.string(value)?,
    };
    let out = match name {
        "format" => return formatted(machine, &text, args),
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let width = width.unwrap_or(Value::Int(80));
            return str_methods::center(machine, &text, width);
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let old = machine.string(&required(old, name)?)?;
            let new = machine.string(&required(new, name)?)?;
            let count = match count {
                None | Some(Value::None) => -1,
                Some(n) => n
                    .as_int()
                    .ok_or_else(|| Error::new("the count of `replace` is not an integer"))?,
            };
            machine.allocate(str_methods::replaced_len(&text, &old, &new))?;
            str_methods::replace(&text, &old, &new, count)
        }
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            str_methods::strip(&text, chars, "strip")?
        }
        "indent" => indent(machine, &text, args)?,
        "truncate" => truncate(machine, &text, args)?,
        _ => {
            args.none(name)?;
            match name {
                "capitalize" => capitalize(&text)?,
                "lower" => text.to_lowercase(),
                "upper" => text.to_uppercase(),
                "title" => title(&text)?,
                "wordcount" => {
                    let words = text.split(|c: char| c != '_' && !is_alnum(c));
                    let n = words.filter(|w| !w.is_empty()).count();
                    return Ok(Value::Int(i128::try_from(n).unwrap_or(i128::MAX)));
                }
                "urlencode" => url_quoted(&text),
                _ => return Err(Error::new(format!("No filter named '{name}'."))),
            }
        }
    };
    machine.text(out)
}

fn strict(value: &Value, name: &str) -> Result<Rc<str>> {
    match value {
        Value::Str(s) => Ok(Rc::clone(s)),
        Value::Undefined(hint) if name == "indent" => Err(Error::new(&**hint)),
        Value::Undefined(_) | Value::List(_) | Value::Tuple(_) => Err(Error::unsupported(
            format_args!("`{name}` of a {}", value.type_name()),
        )),
        _ => Err(Error::new(format!(
            "`{name}` takes a text, not '{}'",
            value.type_name()
        ))),
    }
}

fn formatted(machine: &mut Machine, text: &str, args: CallArgs) -> Result<Value> {
    if !args.positional.is_empty() && !args.named.is_empty() {
        return Err(Error::new(
            "can't handle positional and keyword arguments at the same time",
        ));
    }
    let values = if args.named.is_empty() {
        Value::tuple(args.positional)?
    } else {
        let named = args.named.into_iter().map(|(k, v)| (Value::Str(k), v));
        Value::dict(named.collect())?
    };
    let text = format::percent(machine, text, &values)?;
    machine.text(text)
}

/// The filter's own `title`: a word begins after white space, a hyphen or an
/// opening bracket.
fn title(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let breaks = |c: char| is_space(c) || "-({[<".contains(c);
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.starts_with(breaks);
        let end = rest.find(|c: char| breaks(c) != at).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        let mut chars = word.chars();
        if let Some(first) = chars.next() {
            out.extend(first.to_uppercase());
        }
        if chars.as_str().contains('Σ') {
            return Err(Error::unsupported(
                "the lower case of a sigma within a word",
            ));
        }
        out.push_str(&chars.as_str().to_lowercase());
    }
    Ok(out)
}

fn indent(machine: &mut Machine, text: &str, args: CallArgs) -> Result<String> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let indention = match width.unwrap_or(Value::Int(4)) {
        Value::Str(s) => s.to_string(),
        other => match other.as_int() {
            Some(n) => {
                let n = usize::try_from(n).unwrap_or(0);
                machine.allocate(n)?;
                " ".repeat(n)
            }
            None => return Err(Error::new("the width of `indent` is not a number")),
        },
    };
    let (first, blank) = (truth(machine, first)?, truth(machine, blank)?);
    let text = format!("{text}\n");
    let lines = str_methods::lines(&text, false);
    machine.allocate(
        text.len()
            .saturating_add(lines.len().saturating_mul(indention.len())),
    )?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&indention);
            }
        }
        out.push_str(line);
    }
    Ok(if first {
        format!("{indention}{out}")
    } else {
        out
    })
}

fn truncate(machine: &mut Machine, text: &str, args: CallArgs) -> Result<String> {
    let [length, kill, end, leeway] =
        args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let int = |value: Option<Value>, default: i128| match value {
        None | Some(Value::None) => Ok(default),
        Some(v) => v
            .as_int()
            .ok_or_else(|| Error::new("a length of `truncate` is not an integer")),
    };
    let (length, leeway) = (int(length, 255)?, int(leeway, 5)?);
    let kill = truth(machine, kill)?;
    let end = match end.unwrap_or_else(|| Value::str("...")) {
        Value::Str(end) => end,
        _ => return Err(Error::new("the end of `truncate` is not a text")),
    };
    let end_len = i128::try_from(end.chars().count()).unwrap_or(i128::MAX);
    if length < end_len || leeway < 0 {
        return Err(Error::new(format!(
            "expected length >= {end_len}, got {length}"
        )));
    }
    let len = i128::try_from(text.chars().count()).unwrap_or(i128::MAX);
    if len <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = usize::try_from(length - end_len).unwrap_or(usize::MAX);
    let kept: String = text.chars().take(kept).collect();
    let kept = if kill {
        kept.as_str()
    } else {
        kept.rsplit_once(' ').map_or(kept.as_str(), |(a, _)| a)
    };
    Ok(format!("{kept}{end}"))
}

fn url_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"_.-~/".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
