//! Python's ways to put values into a text: `%` ([`percent`]) and `format`
//! ([`braces`]).

mod braces;
mod number;
mod percent;

use std::iter::Peekable;
use std::rc::Rc;
use std::str::Chars;

pub(super) use braces::braces;
use number::{Float, float_text, group, int_text};
pub(super) use percent::percent;

use super::error::{Error, Result};
use super::machine::{CallArgs, Machine};
use super::number::to_float;
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
