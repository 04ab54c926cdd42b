//! Extraction and comparison of final answers, two ways side by side (method
//! section 4): [`Matcher::Standard`] as the common evaluation harness does it,
//! [`Matcher::Paper`] by the looser rules of the released scripts.
//!
//! | answer | standard | paper |
//! |---|---|---|
//! | number | behind the last `####`, else right behind the last "answer is" or "answer:" | first number of the last `\boxed{}`, else behind the last "answer is", else the last number |
//! | choice | letter right behind the last "answer is" or "answer:", in brackets or not | first capital letter A-D standing alone behind the last "answer is" |

use std::sync::LazyLock;

use regex::Regex;

use genius::stage::eval::Answer;

#[cfg(test)]
mod tests;

/// How an answer is found in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matcher {
    /// Strict: the answer must stand where it is announced.
    Standard,
    /// Loose: the released scripts' rules.
    Paper,
}

const NUMBER: &str = r"[-+]?\$?[-+]?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)";

/// A pattern of this file; a test compiles each of them.
macro_rules! pattern {
    ($name:ident, $($part:expr),+) => {
        static $name: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(&[$($part),+].concat()).ok());
    };
}

pattern!(ANY_NUMBER, NUMBER);
pattern!(AFTER_HASHES, r"####\s*(", NUMBER, ")");
pattern!(
    ANNOUNCED_NUMBER,
    r"(?i:answer is:?|answer:)\s*(",
    NUMBER,
    ")"
);
pattern!(ANNOUNCED_LETTER, r"(?i:answer is|answer:) ?\(?([A-D])\b");
pattern!(ANSWER_IS, r"(?i)answer is");
pattern!(LONE_LETTER, r"\b([A-D])\b");

impl Matcher {
    /// The answer in a text, in the form that [`reference`] gives; `None` if there is none.
    pub fn extract(self, answer: Answer, text: &str) -> Option<String> {
        match (self, answer) {
            (Self::Standard, Answer::Number) => last(&AFTER_HASHES, text)
                .or_else(|| last(&ANNOUNCED_NUMBER, text))
                .and_then(normalise),
            (Self::Standard, Answer::Choice) => last(&ANNOUNCED_LETTER, text).map(str::to_owned),
            (Self::Paper, Answer::Number) => last_boxed(text)
                .and_then(|inside| first(&ANY_NUMBER, inside))
                .or_else(|| behind_answer_is(text).and_then(|rest| first(&ANY_NUMBER, rest)))
                .or_else(|| last(&ANY_NUMBER, text))
                .and_then(normalise),
            (Self::Paper, Answer::Choice) => behind_answer_is(text)
                .and_then(|rest| first(&LONE_LETTER, rest))
                .map(str::to_owned),
        }
    }
}

/// A reference answer in the form to compare: what stands behind a last `####`,
/// if there is one, as a normalised number or as a letter. `None` if it is neither.
pub fn reference(answer: Answer, text: &str) -> Option<String> {
    let text = text.rsplit("####").next().unwrap_or(text).trim();
    match answer {
        Answer::Number => normalise(text),
        Answer::Choice => {
            let letter = text.trim_matches(['(', ')', '.', ' ']);
            matches!(letter, "A" | "B" | "C" | "D").then(|| letter.to_owned())
        }
    }
}

/// A number in one form: no sign of plus or dollar, no commas, no needless
/// zeros, so that "$1,200.50" and "1200.5" are the same. `None` if it is no
/// plain decimal number.
pub fn normalise(text: &str) -> Option<String> {
    let bare: String = text
        .trim()
        .chars()
        .filter(|c| !matches!(c, ',' | '$'))
        .collect();
    let (negative, digits) = match bare.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, bare.strip_prefix('+').unwrap_or(&bare)),
    };
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if digits.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative && (whole != "0" || !fraction.is_empty()) {
        "-"
    } else {
        ""
    };
    Some(if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    })
}

/// The group (or the whole) of a pattern's last match.
fn last<'t>(pattern: &LazyLock<Option<Regex>>, text: &'t str) -> Option<&'t str> {
    let found = pattern.as_ref()?.captures_iter(text).last()?;
    Some(found.get(found.len() - 1)?.as_str())
}

/// The group (or the whole) of a pattern's first match.
fn first<'t>(pattern: &LazyLock<Option<Regex>>, text: &'t str) -> Option<&'t str> {
    let found = pattern.as_ref()?.captures(text)?;
    Some(found.get(found.len() - 1)?.as_str())
}

fn behind_answer_is(text: &str) -> Option<&str> {
    let found = ANSWER_IS.as_ref()?.find_iter(text).last()?;
    Some(&text[found.end()..])
}

/// What stands between the braces of the last whole `\boxed{}`.
fn last_boxed(text: &str) -> Option<&str> {
    const OPEN: &str = "\\boxed{";
    text.rmatch_indices(OPEN).find_map(|(at, _)| {
        let inside = &text[at + OPEN.len()..];
        let mut depth = 1usize;
        for (i, b) in inside.bytes().enumerate() {
            match b {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&inside[..i]);
            }
        }
        None
    })
}
