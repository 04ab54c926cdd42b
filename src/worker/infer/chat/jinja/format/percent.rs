//! Python's `%` operator on a text: [`percent`].

use std::iter::Peekable;
use std::str::Chars;

use super::super::number::to_int;
use super::number::{Float, float_text, int_text};
use super::{
    Error, MAX_WIDTH, Machine, Result, Spec, Value, convert, cut, float_of, number, pad, sign,
};

/// The unread part of a template, and the values it has not taken yet.
struct Input<'a> {
    chars: Peekable<Chars<'a>>,
    args: &'a Value,
    /// The last one is taken first.
    values: Vec<Value>,
}

/// `template % args`.
pub(in super::super) fn percent(
    machine: &mut Machine,
    template: &str,
    args: &Value,
) -> Result<String> {
    let values = match args {
        Value::Tuple(items) | Value::Group(items) => items.items.iter().rev().cloned().collect(),
        one => vec![one.clone()],
    };
    let mut input = Input {
        chars: template.chars().peekable(),
        args,
        values,
    };
    let mut out = String::new();
    machine.allocate(template.len())?;
    while let Some(c) = input.chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let named = input.named()?;
        let spec = input.spec()?;
        let Some(kind) = input.chars.next() else {
            return Err(Error::new("incomplete format"));
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => input.value()?,
        };
        percent_one(machine, &value, kind, spec, &mut out)?;
    }
    let may_be_left = matches!(
        args,
        Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_)
    );
    if !input.values.is_empty() && !may_be_left {
        return Err(Error::new(
            "not all arguments converted during string formatting",
        ));
    }
    Ok(out)
}

impl Input<'_> {
    fn value(&mut self) -> Result<Value> {
        self.values
            .pop()
            .ok_or_else(|| Error::new("not enough arguments for format string"))
    }

    /// The value of a `(key)`, if there is one.
    fn named(&mut self) -> Result<Option<Value>> {
        if self.chars.next_if_eq(&'(').is_none() {
            return Ok(None);
        }
        let mut key = String::new();
        let mut open = 1;
        for c in self.chars.by_ref() {
            open += i32::from(c == '(') - i32::from(c == ')');
            if open == 0 {
                break;
            }
            key.push(c);
        }
        if open > 0 {
            return Err(Error::new("incomplete format key"));
        }
        let Value::Dict(dict) = self.args else {
            return Err(Error::new("format requires a mapping"));
        };
        match dict.get_str(&key) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(Error::new(format!("no key {key:?}"))),
        }
    }

    /// Flags, width, precision, and C's length modifiers, which Python ignores.
    fn spec(&mut self) -> Result<Spec> {
        let mut spec = Spec::default();
        while let Some(flag) = self.chars.peek() {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                _ => break,
            }
            self.chars.next();
        }
        match self.star()? {
            Some(n) => {
                if n < 0 {
                    spec.align = Some('<');
                }
                spec.width = usize::try_from(n.unsigned_abs()).unwrap_or(0);
            }
            None => spec.width = number(&mut self.chars)?.unwrap_or(0),
        }
        if self.chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(match self.star()? {
                Some(n) => usize::try_from(n).unwrap_or(0),
                None => number(&mut self.chars)?.unwrap_or(0),
            });
        }
        while self
            .chars
            .next_if(|c| matches!(c, 'h' | 'l' | 'L'))
            .is_some()
        {}
        Ok(spec)
    }

    /// The value for a `*`, if there is one.
    fn star(&mut self) -> Result<Option<i128>> {
        if self.chars.next_if_eq(&'*').is_none() {
            return Ok(None);
        }
        match self.value()? {
            Value::Int(n) if n.unsigned_abs() <= MAX_WIDTH as u128 => Ok(Some(n)),
            Value::Int(_) => Err(Error::new(format!("a width beyond {MAX_WIDTH}"))),
            _ => Err(Error::new("* wants int")),
        }
    }
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
