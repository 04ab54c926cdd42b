//! Python's `str` and `repr` of a value.

use std::fmt::Write as _;

use super::super::number::repr_float;
use super::super::unicode::is_printable;
use super::{Error, Result, Value, view_items};

impl Value {
    /// Python's `repr`, where it has one that does not change from run to run.
    pub(in super::super) fn repr(&self, out: &mut String) -> Result<()> {
        match self {
            Self::Undefined(_) => out.push_str("Undefined"),
            Self::Str(s) => repr_str(s, out),
            Self::Markup(s) => {
                out.push_str("Markup(");
                repr_str(s, out);
                out.push(')');
            }
            Self::List(items) => repr_items(&items.items, "[", "]", out)?,
            Self::Tuple(items) | Self::Group(items) => {
                let end = if items.items.len() == 1 { ",)" } else { ")" };
                repr_items(&items.items, "(", end, out)?;
            }
            Self::Dict(dict) => repr_entries(&dict.entries, out)?,
            Self::View(view, dict) => {
                out.push_str(self.type_name());
                out.push('(');
                repr_items(&view_items(*view, dict)?, "[", "]", out)?;
                out.push(')');
            }
            Self::Object(_) | Self::Function(_) | Self::Method(_) => {
                return Err(Error::unsupported(format_args!(
                    "printing a {}",
                    self.type_name()
                )));
            }
            _ => self.print(out)?,
        }
        Ok(())
    }

    /// Python's `str`.
    pub(in super::super) fn print(&self, out: &mut String) -> Result<()> {
        match self {
            Self::Undefined(_) => {}
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(n) => {
                let _ = write!(out, "{n}");
            }
            Self::Float(n) => out.push_str(&repr_float(*n)),
            Self::Str(s) | Self::Markup(s) => out.push_str(s),
            Self::Range(r) => {
                let _ = write!(out, "range({}, {}", r.start, r.stop);
                if r.step != 1 {
                    let _ = write!(out, ", {}", r.step);
                }
                out.push(')');
            }
            Self::Macro(m) => {
                out.push_str("<Macro ");
                match &m.def.name {
                    Some(name) => repr_str(name, out),
                    None => out.push_str("anonymous"),
                }
                out.push('>');
            }
            _ => self.repr(out)?,
        }
        Ok(())
    }
}

fn repr_items(items: &[Value], begin: &str, end: &str, out: &mut String) -> Result<()> {
    out.push_str(begin);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        item.repr(out)?;
    }
    out.push_str(end);
    Ok(())
}

/// A mapping's `repr`.
pub(in super::super) fn repr_entries(entries: &[(Value, Value)], out: &mut String) -> Result<()> {
    out.push('{');
    for (i, (k, v)) in entries.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        k.repr(out)?;
        out.push_str(": ");
        v.repr(out)?;
    }
    out.push('}');
    Ok(())
}

/// A text's `repr`.
fn repr_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}
