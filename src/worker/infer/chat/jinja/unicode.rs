//! Python's classes of characters and its changes of case.

use std::sync::LazyLock;

use regex::Regex;

use super::error::{Error, Result};

/// Whether `str.isspace` holds.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Whether `str.splitlines` ends a line here.
pub(super) fn is_line_end(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

fn matches(class: &LazyLock<Regex>, c: char) -> bool {
    class.is_match(c.encode_utf8(&mut [0; 4]))
}

macro_rules! class {
    ($(#[$doc:meta])* $name:ident, $pattern:literal) => {
        $(#[$doc])*
        pub(super) fn $name(c: char) -> bool {
            static CLASS: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).unwrap());
            matches(&CLASS, c)
        }
    };
}

class!(is_alpha, r"^\p{L}$");
class!(is_decimal, r"^\p{Nd}$");
class!(is_number, r"^\p{N}$");
class!(is_title, r"^\p{Lt}$");
class!(is_unprintable, r"^[\p{C}\p{Z}]$");

/// `str.isprintable` of one character.
pub(super) fn is_printable(c: char) -> bool {
    c == ' ' || !is_unprintable(c)
}

/// `str.isalnum` of one character; also what `\w` matches, with `_`.
pub(super) fn is_alnum(c: char) -> bool {
    is_alpha(c) || is_number(c)
}

/// `str.isdigit` of one character: decimal digits, and those in circles,
/// brackets and above or below the line.
pub(super) fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(
            c,
            '\u{B2}' | '\u{B3}' | '\u{B9}' | '\u{1369}'..='\u{1371}' | '\u{19DA}' | '\u{2070}'
                | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}'
                | '\u{2474}'..='\u{247C}' | '\u{2488}'..='\u{2490}' | '\u{24EA}'
                | '\u{24F5}'..='\u{24FD}' | '\u{24FF}' | '\u{2776}'..='\u{277E}'
                | '\u{2780}'..='\u{2788}' | '\u{278A}'..='\u{2792}' | '\u{10A40}'..='\u{10A43}'
                | '\u{10E60}'..='\u{10E68}' | '\u{11052}'..='\u{1105A}' | '\u{1F100}'..='\u{1F10A}'
        )
}

/// `str.isnumeric` of one character.
pub(super) fn is_numeric(c: char) -> Result<bool> {
    if !c.is_ascii() && is_alpha(c) {
        return Err(Error::unsupported("`isnumeric` of letters beyond ASCII"));
    }
    Ok(is_number(c))
}

/// A character as the first of a word: upper case, or title case where they differ.
pub(super) fn title_case(c: char) -> Result<char> {
    if c.is_ascii() {
        return Ok(c.to_ascii_uppercase());
    }
    // Georgian letters have an upper case, and are their own title case.
    if matches!(c, '\u{10D0}'..='\u{10FF}') {
        return Ok(c);
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) if !matches!(c, '\u{1C4}'..='\u{1CC}' | '\u{1F1}'..='\u{1F3}') => Ok(one),
        _ => Err(Error::unsupported(format_args!("the title case of {c:?}"))),
    }
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> Result<String> {
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return Ok(String::new());
    };
    if chars.as_str().contains('Σ') {
        return Err(Error::unsupported(
            "the lower case of a sigma within a word",
        ));
    }
    Ok(format!(
        "{}{}",
        title_case(first)?,
        chars.as_str().to_lowercase()
    ))
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

/// `str.title`.
pub(super) fn title(text: &str) -> Result<String> {
    if text.contains('Σ') {
        return Err(Error::unsupported(
            "the lower case of a sigma within a word",
        ));
    }
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        if within {
            out.extend(c.to_lowercase());
        } else {
            out.push(title_case(c)?);
        }
        within = is_cased(c);
    }
    Ok(out)
}

/// `str.swapcase`.
pub(super) fn swap_case(text: &str) -> Result<String> {
    if text.contains('Σ') {
        return Err(Error::unsupported(
            "the lower case of a sigma within a word",
        ));
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else if c.is_lowercase() {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

/// `str.islower`, or `str.isupper`.
pub(super) fn is_case(text: &str, upper: bool) -> bool {
    let (mut wanted, mut other) = (false, false);
    for c in text.chars() {
        wanted |= if upper {
            c.is_uppercase()
        } else {
            c.is_lowercase()
        };
        other |= is_title(c)
            || if upper {
                c.is_lowercase()
            } else {
                c.is_uppercase()
            };
    }
    wanted && !other
}

/// `str.istitle`.
pub(super) fn is_title_case(text: &str) -> bool {
    let (mut within, mut any) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() || is_title(c) {
            if within {
                return false;
            }
            (within, any) = (true, true);
        } else if c.is_lowercase() {
            if !within {
                return false;
            }
            any = true;
        } else {
            within = false;
        }
    }
    any
}
