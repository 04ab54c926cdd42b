//! Python's ways to put values into a text: `%` ([`percent`]) and `format`
//! ([`braces`]).

mod braces;
mod number;

use std::iter::Peekable;
use std::rc::Rc;
use std::str::Chars;

pub(super) use braces::braces;
use number::{Float, float_text, group, int_text};

use super::error::{Error, Result};
use super::machine::{CallArgs, Machine};
use super::number::{to_float, to_int};
use super::value::Value;

/// Longest width or precision.
const MAX_WIDTH: usize = 100_000;

/// How a value is laid out.
#[derive(Default, Clone)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn number(chars: &mut Peekable<Chars>) -> Result<Option<usize>> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let n = number.unwrap_or(0) * 10 + digit as usize;
        if n > MAX_WIDTH {
            return Err(Error::new(format!("a width beyond {MAX_WIDTH}")));
        }
        number = Some(n);
    }
    Ok(number)
}

/// `template % args`.
pub(super) fn percent(machine: &mut Machine, template: &str, args: &Value) -> Result<String> {
    let (mut positional, single) = match args {
        Value::Tuple(items) | Value::Group(items) => (items.items.clone(), false),
        one => (vec![one.clone()], true),
    };
    positional.reverse();
    let mapping = single
        && matches!(
            args,
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_)
        );
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    machine.allocate(template.len())?;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut named = None;
        if chars.peek() == Some(&'(') {
            chars.next();
            let mut key = String::new();
            let mut open = 1;
            for c in chars.by_ref() {
                open += i32::from(c == '(') - i32::from(c == ')');
                if open == 0 {
                    break;
                }
                key.push(c);
            }
            if open > 0 {
                return Err(Error::new("incomplete format key"));
            }
            let Value::Dict(dict) = args else {
                return Err(Error::new("format requires a mapping"));
            };
            let value = dict.get_str(&key);
            named = Some(
                value
                    .cloned()
                    .ok_or_else(|| Error::new(format!("no key {key:?}")))?,
            );
        }
        let few = || Error::new("not enough arguments for format string");
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek().copied() {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                _ => break,
            }
            chars.next();
        }
        let star = |chars: &mut Peekable<Chars>, positional: &mut Vec<Value>| {
            if chars.peek() != Some(&'*') {
                return Ok(None);
            }
            chars.next();
            match positional.pop().ok_or_else(few)? {
                Value::Int(n) if n.unsigned_abs() <= MAX_WIDTH as u128 => Ok(Some(n)),
                Value::Int(_) => Err(Error::new(format!("a width beyond {MAX_WIDTH}"))),
                _ => Err(Error::new("* wants int")),
            }
        };
        match star(&mut chars, &mut positional)? {
            Some(n) => {
                if n < 0 {
                    spec.align = Some('<');
                }
                spec.width = usize::try_from(n.unsigned_abs()).unwrap_or(0);
            }
            None => spec.width = number(&mut chars)?.unwrap_or(0),
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            spec.precision = Some(match star(&mut chars, &mut positional)? {
                Some(n) => usize::try_from(n).unwrap_or(0),
                None => number(&mut chars)?.unwrap_or(0),
            });
        }
        while matches!(chars.peek(), Some('h' | 'l' | 'L')) {
            chars.next();
        }
        let Some(kind) = chars.next() else {
            return Err(Error::new("incomplete format"));
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => positional.pop().ok_or_else(few)?,
        };
        percent_one(machine, &value, kind, spec, &mut out)?;
    }
    if !positional.is_empty() && !mapping {
        return Err(Error::new(
            "not all arguments converted during string formatting",
        ));
    }
    Ok(out)
}

fn percent_one(
    machine: &mut Machine,
    value: &Value,
    kind: char,
    mut spec: Spec,
    out: &mut String,
) -> Result<()> {
    machine.allocate(spec.width)?;
    let right = spec.align.is_none();
    spec.align.get_or_insert('>');
    let text = match kind {
        's' | 'r' | 'a' => {
            let text = convert(machine, value, kind)?;
            cut(&text, spec.precision)
        }
        'c' => match (value, value.as_int()) {
            (_, Some(n)) => u32::try_from(n)
                .ok()
                .and_then(char::from_u32)
                .map(String::from)
                .ok_or_else(|| Error::new("%c arg not in range(0x110000)"))?,
            (Value::Str(s), _) if s.chars().count() == 1 => s.to_string(),
            _ => return Err(Error::new("%c requires int or char")),
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let n = match (value, value.as_int()) {
                (_, Some(n)) => n,
                (Value::Float(x), _) if matches!(kind, 'd' | 'i' | 'u') => to_int(*x)?,
                (Value::Undefined(hint), _) => return Err(Error::new(&**hint)),
                _ => {
                    return Err(Error::new(format!(
                        "%{kind} format: a number is required, not {}",
                        value.type_name()
                    )));
                }
            };
            let (prefix, mut digits) = int_text(n, kind, spec.alternate);
            if let Some(precision) = spec.precision {
                let missing = precision.saturating_sub(digits.len());
                digits.insert_str(0, &"0".repeat(missing));
            }
            return finish(&sign(n < 0, spec.sign), prefix, &digits, right, &spec, out);
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let x = float_of(value, kind)?;
            let form = Float {
                kind,
                precision: spec.precision.unwrap_or(6),
                alternate: spec.alternate,
                dot_zero: false,
            };
            let digits = float_text(x.abs(), form);
            if spec.zero && !x.is_finite() {
                return Err(Error::unsupported("zeros before what is not a number"));
            }
            let sign = sign(x.is_sign_negative() && !x.is_nan(), spec.sign);
            return finish(&sign, "", &digits, right, &spec, out);
        }
        other => {
            return Err(Error::new(format!(
                "unsupported format character {other:?}"
            )));
        }
    };
    pad(&text, &spec, out);
    Ok(())
}

/// A number with its sign, and zeros between them where they are asked for.
fn finish(
    sign: &str,
    prefix: &str,
    digits: &str,
    right: bool,
    spec: &Spec,
    out: &mut String,
) -> Result<()> {
    let mut text = format!("{sign}{prefix}");
    if spec.zero && right {
        let missing = spec.width.saturating_sub(text.len() + digits.len());
        text.push_str(&"0".repeat(missing));
    }
    text.push_str(digits);
    pad(&text, spec, out);
    Ok(())
}

fn sign(negative: bool, wanted: Option<char>) -> String {
    match (negative, wanted) {
        (true, _) => "-".into(),
        (false, Some(c @ ('+' | ' '))) => c.into(),
        _ => String::new(),
    }
}

fn float_of(value: &Value, kind: char) -> Result<f64> {
    match (value, value.as_int()) {
        (Value::Float(x), _) => Ok(*x),
        (_, Some(n)) => Ok(to_float(n)),
        (Value::Undefined(hint), _) => Err(Error::new(&**hint)),
        _ => Err(Error::new(format!(
            "%{kind} format: a number is required, not {}",
            value.type_name()
        ))),
    }
}

fn cut(text: &str, chars: Option<usize>) -> String {
    match chars {
        Some(n) => text.chars().take(n).collect(),
        None => text.to_owned(),
    }
}

/// Fills up to the width.
fn pad(text: &str, spec: &Spec, out: &mut String) {
    let missing = spec.width.saturating_sub(text.chars().count());
    let left = match spec.align {
        Some('>') => missing,
        Some('^') => missing / 2,
        _ => 0,
    };
    let fill = spec.fill.unwrap_or(' ');
    out.extend(std::iter::repeat_n(fill, left));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - left));
}

/// `str`, `repr` or `ascii` of a value.
fn convert(machine: &mut Machine, value: &Value, kind: char) -> Result<Rc<str>> {
    if kind == 's' {
        return machine.string(value);
    }
    machine.allocate(value.weight())?;
    let mut text = String::new();
    value.repr(&mut text)?;
    if kind == 'a' && !text.is_ascii() {
        return Err(Error::unsupported("`ascii` of other text"));
    }
    Ok(text.into())
}

fn read_spec(text: &str) -> Result<Spec> {
    let mut spec = Spec::default();
    let is_align = |c: &char| matches!(c, '<' | '>' | '^' | '=');
    let chars: Vec<char> = text.chars().take(2).collect();
    let mut rest = text.chars().peekable();
    if chars.get(1).is_some_and(is_align) {
        spec.fill = rest.next();
        spec.align = rest.next();
    } else if chars.first().is_some_and(is_align) {
        spec.align = rest.next();
    }
    if matches!(rest.peek(), Some('+' | '-' | ' ')) {
        spec.sign = rest.next();
    }
    if rest.peek() == Some(&'z') {
        return Err(Error::unsupported("`z` in a format string"));
    }
    if rest.peek() == Some(&'#') {
        spec.alternate = true;
        rest.next();
    }
    if rest.peek() == Some(&'0') {
        spec.zero = true;
        rest.next();
    }
    spec.width = number(&mut rest)?.unwrap_or(0);
    if matches!(rest.peek(), Some(',' | '_')) {
        spec.group = rest.next();
    }
    if rest.peek() == Some(&'.') {
        rest.next();
        let precision = number(&mut rest)?;
        spec.precision =
            Some(precision.ok_or_else(|| Error::new("Format specifier missing precision"))?);
    }
    spec.kind = rest.next();
    if rest.next().is_some() {
        return Err(Error::new(format!("Invalid format specifier {text:?}")));
    }
    Ok(spec)
}

/// `format(value, spec)`.
fn formatted(machine: &mut Machine, value: &Value, spec: &str, out: &mut String) -> Result<()> {
    if spec.is_empty() {
        return machine.print(value, out);
    }
    let wrong = |what: &str| {
        Err(Error::new(format!(
            "{what} is not allowed in the format {spec:?} of a {}",
            value.type_name()
        )))
    };
    let mut layout = read_spec(spec)?;
    machine.allocate(layout.width)?;
    match value {
        Value::Str(text) => {
            if layout.sign.is_some() || layout.alternate || layout.group.is_some() {
                return wrong("a sign or a separator");
            }
            if layout.align == Some('=') || !matches!(layout.kind, None | Some('s')) {
                return wrong("that kind");
            }
            if layout.zero {
                layout.fill.get_or_insert('0');
            }
            pad(&cut(text, layout.precision), &layout, out);
            Ok(())
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            let (sign, prefix, digits) = number_text(value, &layout, spec)?;
            if layout.zero {
                layout.fill.get_or_insert('0');
                layout.align.get_or_insert('=');
            }
            let align = *layout.align.get_or_insert('>');
            if align == '=' && layout.fill == Some('0') && layout.group.is_some() {
                return Err(Error::unsupported("zeros before a number in groups"));
            }
            if align == '=' {
                let fill = layout.fill.unwrap_or(' ');
                let used = sign.len() + prefix.len() + digits.chars().count();
                let missing = layout.width.saturating_sub(used);
                out.push_str(&sign);
                out.push_str(prefix);
                out.extend(std::iter::repeat_n(fill, missing));
                out.push_str(&digits);
            } else {
                pad(&format!("{sign}{prefix}{digits}"), &layout, out);
            }
            Ok(())
        }
        Value::Markup(_) => Err(Error::unsupported("formatting escaped text")),
        _ => Err(Error::new(format!(
            "unsupported format string passed to {}",
            value.type_name()
        ))),
    }
}

/// Sign, prefix and digits of a number.
fn number_text(value: &Value, layout: &Spec, spec: &str) -> Result<(String, &'static str, String)> {
    let int_kind = |kind: Option<char>| matches!(kind, None | Some('d' | 'b' | 'o' | 'x' | 'X'));
    if let (Some(n), true) = (value.as_int(), int_kind(layout.kind)) {
        if layout.precision.is_some() {
            return Err(Error::new(
                "Precision not allowed in integer format specifier",
            ));
        }
        let kind = layout.kind.unwrap_or('d');
        let (prefix, digits) = int_text(n, kind, layout.alternate);
        let width = if kind == 'd' { 3 } else { 4 };
        if layout.group == Some(',') && kind != 'd' {
            return Err(Error::new(format!("Cannot specify ',' with '{kind}'.")));
        }
        let digits = match layout.group {
            Some(mark) => group(&digits, mark, width),
            None => digits,
        };
        return Ok((sign(n < 0, layout.sign), prefix, digits));
    }
    let x = match layout.kind {
        None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => float_of(value, 'f')?,
        Some('n' | 'c') if value.as_int().is_some() => {
            return Err(Error::unsupported(format_args!("the format {spec:?}")));
        }
        Some('n') => return Err(Error::unsupported("the format 'n'")),
        Some(kind) => {
            return Err(Error::new(format!(
                "Unknown format code '{kind}' for object of type '{}'",
                value.type_name()
            )));
        }
    };
    let scaled = if layout.kind == Some('%') {
        x * 100.0
    } else {
        x
    };
    let kind = match (layout.kind, layout.precision) {
        (Some('%'), _) => 'f',
        (Some(kind), _) => kind,
        (None, Some(_)) => 'g',
        (None, None) => 'r',
    };
    let form = Float {
        kind,
        precision: layout.precision.unwrap_or(6),
        alternate: layout.alternate,
        dot_zero: layout.kind.is_none(),
    };
    if layout.zero && !x.is_finite() {
        return Err(Error::unsupported("zeros before what is not a number"));
    }
    let mut digits = float_text(scaled.abs(), form);
    if let Some(mark) = layout.group {
        let whole = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        digits = format!("{}{}", group(&digits[..whole], mark, 3), &digits[whole..]);
    }
    if layout.kind == Some('%') {
        digits.push('%');
    }
    let negative = x.is_sign_negative() && !x.is_nan();
    Ok((sign(negative, layout.sign), "", digits))
}
