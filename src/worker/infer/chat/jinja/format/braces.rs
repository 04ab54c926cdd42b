//! The fields of `str.format`: [`braces`].

use super::{CallArgs, Error, Machine, Result, Value, convert, formatted};

/// `template.format(...)`.
pub(in super::super) fn braces(
    machine: &mut Machine,
    template: &str,
    args: &CallArgs,
) -> Result<String> {
    machine.allocate(template.len())?;
    let mut next = Some(0);
    braces_within(machine, template, args, &mut next, 2)
}

/// `next` is the number of the next field without a name; none once a field
/// was given by its number.
fn braces_within(
    machine: &mut Machine,
    template: &str,
    args: &CallArgs,
    next: &mut Option<usize>,
    depth: usize,
) -> Result<String> {
    if depth == 0 {
        return Err(Error::new("Max string recursion exceeded"));
    }
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            out.push_str(brace);
            rest = &rest[1..];
            continue;
        }
        if brace == "}" {
            return Err(Error::new("Single '}' encountered in format string"));
        }
        let mut open = 1;
        let mut bracket = false;
        let end = rest.char_indices().find(|(_, c)| {
            match c {
                '[' if open == 1 => bracket = true,
                ']' => bracket = false,
                '{' if !bracket => open += 1,
                '}' if !bracket => open -= 1,
                _ => {}
            }
            open == 0
        });
        let Some((end, _)) = end else {
            return Err(Error::new("expected '}' before end of string"));
        };
        let field = &rest[..end];
        rest = &rest[end + 1..];
        field_text(machine, field, args, next, depth, &mut out)?;
    }
    out.push_str(rest);
    Ok(out)
}

fn field_text(
    machine: &mut Machine,
    field: &str,
    args: &CallArgs,
    next: &mut Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<()> {
    // A colon inside brackets belongs to a key.
    let mut bracket = false;
    let cut = field.find(|c| {
        match c {
            '[' => bracket = true,
            ']' => bracket = false,
            _ => {}
        }
        !bracket && matches!(c, ':' | '!')
    });
    let (name, rest) = field.split_at(cut.unwrap_or(field.len()));
    let (conversion, spec) = match rest.strip_prefix('!') {
        Some(rest) => {
            let mut chars = rest.chars();
            let kind = chars.next();
            let spec = chars.as_str();
            match (kind, spec.strip_prefix(':')) {
                (Some(kind @ ('s' | 'r' | 'a')), Some(spec)) => (Some(kind), spec),
                (Some(kind @ ('s' | 'r' | 'a')), None) if spec.is_empty() => (Some(kind), ""),
                _ => return Err(Error::new("unknown conversion in a format string")),
            }
        }
        None => (None, rest.strip_prefix(':').unwrap_or(rest)),
    };
    let mut value = field_value(machine, name, args, next)?;
    if let Some(kind) = conversion {
        value = Value::Str(convert(machine, &value, kind)?);
    }
    let spec = braces_within(machine, spec, args, next, depth - 1)?;
    formatted(machine, &value, &spec, out)
}

fn field_value(
    machine: &mut Machine,
    name: &str,
    args: &CallArgs,
    next: &mut Option<usize>,
) -> Result<Value> {
    let first = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(first);
    let digits = !first.is_empty() && first.chars().all(|c| c.is_ascii_digit());
    let mixed = || Error::new("cannot switch between manual field numbers and automatic numbering");
    let index = if name.is_empty() {
        let index = next.ok_or_else(mixed)?;
        *next = Some(index + 1);
        Some(index)
    } else if digits {
        if next.is_some_and(|n| n > 0) {
            return Err(mixed());
        }
        *next = None;
        Some(
            first
                .parse()
                .map_err(|_| Error::new("a field number is too large"))?,
        )
    } else {
        None
    };
    let value = match index {
        Some(index) => args.positional.get(index).cloned(),
        None => args
            .named
            .iter()
            .find(|(n, _)| **n == *first)
            .map(|(_, v)| v.clone()),
    };
    let mut value =
        value.ok_or_else(|| Error::new(format!("nothing is given for the field {name:?}")))?;
    while !rest.is_empty() {
        if let Some(attribute) = rest.strip_prefix('.') {
            let end = attribute.find(['.', '[']).unwrap_or(attribute.len());
            value = machine.attribute(&value, &attribute[..end])?;
            rest = &attribute[end..];
        } else {
            let key = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
            let Some((key, after)) = key else {
                return Err(Error::new("Missing ']' in format string"));
            };
            let index = match key.parse::<i128>() {
                Ok(n) if key.chars().all(|c| c.is_ascii_digit()) => Value::Int(n),
                _ => Value::str(key),
            };
            value = machine.item(&value, &index)?;
            rest = after;
        }
    }
    Ok(value)
}
