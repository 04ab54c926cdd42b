//! Methods of `str`.

use std::ops::Range;

use super::super::format;
use super::super::machine::required;
use super::super::unicode::{
    capitalize, is_alnum, is_alpha, is_case, is_decimal, is_digit, is_line_end, is_numeric,
    is_printable, is_space, is_title_case, swap_case, title,
};
use super::{CallArgs, Error, Machine, Result, Value};

/// Indices `start..stop` into a length, as Python's slices have them.
pub(super) fn bounds(
    len: usize,
    start: Option<Value>,
    stop: Option<Value>,
) -> Result<Range<usize>> {
    let len = i128::try_from(len).unwrap_or(i128::MAX);
    let bound = |value: Option<Value>, default: i128| match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => match value.as_int() {
            Some(n) if n < 0 => Ok((n.saturating_add(len)).max(0)),
            Some(n) => Ok(n),
            None => Err(Error::new("slice indices must be integers or None")),
        },
    };
    let start = bound(start, 0)?;
    let stop = bound(stop, len)?.min(len);
    let index = |n: i128| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(index(start)..index(stop))
}

fn text_of(value: Option<Value>, function: &str) -> Result<std::rc::Rc<str>> {
    match required(value, function)? {
        Value::Str(s) => Ok(s),
        Value::Markup(_) => Err(Error::unsupported("escaped text as an argument")),
        Value::Undefined(hint) => Err(Error::new(&*hint)),
        other => Err(Error::new(format!(
            "{function}() takes a str, not '{}'",
            other.type_name()
        ))),
    }
}

fn int_of(value: Option<Value>, default: i128, function: &str) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(value) => value.as_int().ok_or_else(|| {
            Error::new(format!(
                "{function}() takes an integer, not '{}'",
                value.type_name()
            ))
        }),
    }
}

/// The characters of `strip`; white space if there are none.
fn stripped<'a>(s: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let strip = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let s = if left { s.trim_start_matches(strip) } else { s };
    if right { s.trim_end_matches(strip) } else { s }
}

pub(in super::super) fn strip(s: &str, chars: Option<Value>, function: &str) -> Result<String> {
    let chars = match chars {
        None | Some(Value::None) => None,
        some => Some(text_of(some, function)?),
    };
    let (left, right) = (function != "rstrip", function != "lstrip");
    Ok(stripped(s, chars.as_deref(), left, right).to_owned())
}

/// `split` and `rsplit`.
fn split(s: &str, sep: Option<Value>, most: i128, right: bool) -> Result<Vec<String>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match sep {
        None | Some(Value::None) => {
            let mut rest = stripped(s, None, !right, right);
            while !rest.is_empty() {
                if parts.len() == most {
                    parts.push(rest);
                    break;
                }
                let cut = if right {
                    rest.rfind(is_space)
                } else {
                    rest.find(is_space)
                };
                let Some(cut) = cut else {
                    parts.push(rest);
                    break;
                };
                if right {
                    let width = rest[cut..].chars().next().map_or(1, char::len_utf8);
                    parts.push(&rest[cut + width..]);
                    rest = stripped(&rest[..cut], None, false, true);
                } else {
                    parts.push(&rest[..cut]);
                    rest = stripped(&rest[cut..], None, true, false);
                }
            }
        }
        some => {
            let sep = text_of(some, "split")?;
            if sep.is_empty() {
                return Err(Error::new("empty separator"));
            }
            parts = if right {
                s.rsplitn(most.saturating_add(1), &*sep).collect()
            } else {
                s.splitn(most.saturating_add(1), &*sep).collect()
            };
        }
    }
    if right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(str::to_owned).collect())
}

/// `splitlines`.
pub(in super::super) fn lines(s: &str, keep: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = s;
    while !rest.is_empty() {
        let Some(end) = rest.find(is_line_end) else {
            lines.push(rest.to_owned());
            break;
        };
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(rest[..if keep { end + width } else { end }].to_owned());
        rest = &rest[end + width..];
    }
    lines
}

/// Byte offset of a character, or the end.
fn offset(s: &str, chars: usize) -> usize {
    s.char_indices().nth(chars).map_or(s.len(), |(i, _)| i)
}

/// The part of a text that `start` and `stop` mean, and where it begins; none
/// if it begins after the text's end.
fn part(s: &str, start: Option<Value>, stop: Option<Value>) -> Result<Option<(usize, &str)>> {
    let len = s.chars().count();
    let range = bounds(len, start, stop)?;
    if range.start > len || range.start > range.end {
        return Ok(None);
    }
    Ok(Some((
        range.start,
        &s[offset(s, range.start)..offset(s, range.end)],
    )))
}

/// `count`, as Python counts empty texts too.
fn count(s: &str, part: &str) -> usize {
    if part.is_empty() {
        s.chars().count() + 1
    } else {
        s.matches(part).count()
    }
}

/// `replace`, at most `most` times where that is not negative.
pub(in super::super) fn replace(s: &str, old: &str, new: &str, most: i128) -> String {
    match usize::try_from(most) {
        Ok(most) => s.replacen(old, new, most),
        Err(_) => s.replace(old, new),
    }
}

/// How long `replace` makes a text, at most.
pub(in super::super) fn replaced_len(s: &str, old: &str, new: &str) -> usize {
    s.len()
        .saturating_add(count(s, old).saturating_mul(new.len()))
}

/// `center`, `ljust`, `rjust` and `zfill`.
fn justify(machine: &mut Machine, s: &str, name: &str, args: CallArgs) -> Result<Value> {
    let [width, fill] = args.positional::<2>(name)?;
    let width = int_of(Some(required(width, name)?), 0, name)?;
    let fill = match fill {
        None => ' ',
        Some(_) if name == "zfill" => {
            return Err(Error::new("zfill() takes exactly one argument"));
        }
        some => {
            let text = text_of(some, name)?;
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(one), None) => one,
                _ => {
                    return Err(Error::new(
                        "The fill character must be exactly one character long",
                    ));
                }
            }
        }
    };
    let len = i128::try_from(s.chars().count()).unwrap_or(i128::MAX);
    let missing = usize::try_from(width.saturating_sub(len)).unwrap_or(0);
    machine.allocate(missing.saturating_mul(4))?;
    let pad = |n: usize| fill.to_string().repeat(n);
    let text = match name {
        "ljust" => format!("{s}{}", pad(missing)),
        "rjust" => format!("{}{s}", pad(missing)),
        "zfill" => {
            let (sign, digits) = match s.chars().next() {
                Some('+' | '-') => s.split_at(1),
                _ => ("", s),
            };
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        _ => {
            // Python puts the odd one where the width is odd.
            let odd = usize::from(missing % 2 == 1 && width % 2 == 1);
            let left = missing / 2 + odd;
            format!("{}{s}{}", pad(left), pad(missing - left))
        }
    };
    machine.text(text)
}

/// `center` of the filter, with blanks.
pub(in super::super) fn center(machine: &mut Machine, s: &str, width: Value) -> Result<Value> {
    let args = CallArgs {
        positional: vec![width],
        named: Vec::new(),
    };
    justify(machine, s, "center", args)
}

fn affix(s: &str, name: &str, args: CallArgs) -> Result<Value> {
    let [affix, start, stop] = args.positional::<3>(name)?;
    let affixes = match required(affix, name)? {
        Value::Tuple(items) => items.items.clone(),
        one => vec![one],
    };
    let part = part(s, start, stop)?;
    let mut found = false;
    for affix in affixes {
        let affix = text_of(Some(affix), name)?;
        found |= part.is_some_and(|(_, part)| {
            if name == "startswith" {
                part.starts_with(&*affix)
            } else {
                part.ends_with(&*affix)
            }
        });
        if found {
            break;
        }
    }
    Ok(Value::Bool(found))
}

fn search(s: &str, name: &str, args: CallArgs) -> Result<Value> {
    let [wanted, start, stop] = args.positional::<3>(name)?;
    let wanted = text_of(wanted, name)?;
    let part = part(s, start, stop)?;
    if name == "count" {
        let n = part.map_or(0, |(_, part)| count(part, &wanted));
        return Ok(Value::Int(i128::try_from(n).unwrap_or(i128::MAX)));
    }
    let found = part.and_then(|(begin, part)| {
        let at = if name.starts_with('r') {
            part.rfind(&*wanted)
        } else {
            part.find(&*wanted)
        };
        at.map(|i| begin + part[..i].chars().count())
    });
    match found {
        Some(i) => Ok(Value::Int(i128::try_from(i).unwrap_or(i128::MAX))),
        None if name.ends_with("index") => Err(Error::new("substring not found")),
        None => Ok(Value::Int(-1)),
    }
}

fn class(s: &str, name: &str) -> Result<bool> {
    let all = |class: fn(char) -> bool| !s.is_empty() && s.chars().all(class);
    Ok(match name {
        "isalnum" => all(is_alnum),
        "isalpha" => all(is_alpha),
        "isascii" => s.is_ascii(),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isidentifier" => {
            if !s.is_ascii() {
                return Err(Error::unsupported("`isidentifier` beyond ASCII"));
            }
            all(|c| c == '_' || c.is_ascii_alphanumeric())
                && !s.starts_with(|c: char| c.is_ascii_digit())
        }
        "islower" => is_case(s, false),
        "isupper" => is_case(s, true),
        "isnumeric" => {
            let mut numeric = !s.is_empty();
            for c in s.chars() {
                numeric &= is_numeric(c)?;
            }
            numeric
        }
        "isprintable" => s.chars().all(is_printable),
        "isspace" => all(is_space),
        _ => is_title_case(s),
    })
}

fn joined(machine: &mut Machine, sep: &str, items: &Value) -> Result<Value> {
    let mut out = String::new();
    for (i, item) in machine.iterate(items)?.into_iter().enumerate() {
        match &item {
            Value::Str(text) => {
                machine.allocate(text.len() + sep.len())?;
                if i > 0 {
                    out.push_str(sep);
                }
                out.push_str(text);
            }
            Value::Markup(_) => return Err(Error::unsupported("joining escaped text")),
            other => {
                return Err(Error::new(format!(
                    "sequence item {i}: expected str instance, {} found",
                    other.type_name()
                )));
            }
        }
    }
    Ok(Value::str(out))
}

/// Calls a method of a text.
pub(super) fn call(machine: &mut Machine, s: &str, name: &str, args: CallArgs) -> Result<Value> {
    match name {
        "center" | "ljust" | "rjust" | "zfill" => justify(machine, s, name, args),
        "startswith" | "endswith" => affix(s, name, args),
        "find" | "rfind" | "index" | "rindex" | "count" => search(s, name, args),
        "join" => {
            let [items] = args.positional::<1>(name)?;
            joined(machine, s, &required(items, name)?)
        }
        "partition" | "rpartition" => partition(machine, s, name, args),
        "split" | "rsplit" => {
            let [sep, most] = args.bind(name, ["sep", "maxsplit"])?;
            let most = int_of(most, -1, name)?;
            let parts = split(s, sep, most, name == "rsplit")?;
            machine.allocate(s.len())?;
            machine.list(parts.into_iter().map(Value::str).collect())
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            let keep = keep.is_some_and(|v| v.as_int().is_some_and(|n| n != 0));
            machine.allocate(s.len())?;
            machine.list(lines(s, keep).into_iter().map(Value::str).collect())
        }
        name if name.starts_with("is") => {
            args.none(name)?;
            class(s, name).map(Value::Bool)
        }
        _ => {
            let text = converted(machine, s, name, args)?;
            machine.text(text)
        }
    }
}

/// The methods that return a text.
fn converted(machine: &mut Machine, s: &str, name: &str, args: CallArgs) -> Result<String> {
    match name {
        "format" => format::braces(machine, s, &args),
        "format_map" => format_map(machine, s, args),
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.positional::<1>(name)?;
            strip(s, chars, name)
        }
        "replace" => {
            let [old, new, most] = args.positional::<3>(name)?;
            let (old, new) = (text_of(old, name)?, text_of(new, name)?);
            let most = int_of(most, -1, name)?;
            machine.allocate(replaced_len(s, &old, &new))?;
            Ok(replace(s, &old, &new, most))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.positional::<1>(name)?;
            let affix = text_of(affix, name)?;
            let rest = if name == "removeprefix" {
                s.strip_prefix(&*affix)
            } else {
                s.strip_suffix(&*affix)
            };
            Ok(rest.unwrap_or(s).to_owned())
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            expand_tabs(machine, s, int_of(size, 8, name)?)
        }
        _ => {
            args.none(name)?;
            match name {
                "capitalize" => capitalize(s),
                "casefold" if s.is_ascii() => Ok(s.to_ascii_lowercase()),
                "casefold" => Err(Error::unsupported("`casefold` beyond ASCII")),
                "lower" => Ok(s.to_lowercase()),
                "upper" => Ok(s.to_uppercase()),
                "swapcase" => swap_case(s),
                _ => title(s),
            }
        }
    }
}

/// `partition` and `rpartition`.
fn partition(machine: &mut Machine, s: &str, name: &str, args: CallArgs) -> Result<Value> {
    let [sep] = args.positional::<1>(name)?;
    let sep = text_of(sep, name)?;
    if sep.is_empty() {
        return Err(Error::new("empty separator"));
    }
    let parts = if name == "partition" {
        s.split_once(&*sep)
            .map_or([s, "", ""], |(a, b)| [a, &sep, b])
    } else {
        s.rsplit_once(&*sep)
            .map_or(["", "", s], |(a, b)| [a, &sep, b])
    };
    machine.allocate(s.len())?;
    Value::tuple(parts.into_iter().map(Value::str).collect())
}

fn format_map(machine: &mut Machine, s: &str, args: CallArgs) -> Result<String> {
    let [mapping] = args.positional::<1>("format_map")?;
    let mapping = required(mapping, "format_map")?;
    let Some(dict) = machine.mapping(&mapping) else {
        return Err(Error::new("format_map() takes a mapping"));
    };
    let mut args = CallArgs::default();
    for (key, value) in &dict.entries {
        if let Value::Str(key) = key {
            args.named.push((key.clone(), value.clone()));
        }
    }
    format::braces(machine, s, &args)
}

fn expand_tabs(machine: &mut Machine, s: &str, size: i128) -> Result<String> {
    let size = usize::try_from(size).unwrap_or(0);
    machine.allocate(count(s, "\t").saturating_mul(size))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in s.chars() {
        match c {
            '\t' if size > 0 => {
                let n = size - column % size;
                out.extend(std::iter::repeat_n(' ', n));
                column += n;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out)
}
