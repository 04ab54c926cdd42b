//! Where in a response the answer is looked for, in two ways (method
//! section 4): [`Matcher::Standard`] as the common evaluation harness does it,
//! [`Matcher::Paper`] by the looser rules of the released scripts.
//!
//! | answer | standard | paper |
//! |---|---|---|
//! | number | after the first `####`, else right after the first "answer is" or "answer:" | the last `\boxed{}`, else the first after the last "answer is", else the last number |
//! | choice | letter right after the first "answer is" or "answer:", in brackets or not | first capital letter A-D as an answer after the last "answer is" |
//!
//! Either what a rule points at is read, or there is no answer: no rule takes a part
//! of it or continues to another number.

use std::sync::LazyLock;

use regex::Regex;

use super::letter;
use super::lex::{Kind, Token, lex};
use super::number::{self, Place, Run, runs};
use super::value::Value;
use crate::kind::eval::Answer;

/// How an answer is found in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matcher {
    /// Strict: the answer must be where it is announced.
    Standard,
    /// Loose: the released scripts' rules.
    Paper,
}

/// A pattern of this file; a test compiles each of them.
macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        pub(super) static $name: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new($pattern).ok());
    };
}

pattern!(ANNOUNCED, r"(?i)answer is\b|answer:");
pattern!(ANSWER_IS, r"(?i)answer is\b");
pattern!(HASHES, r"####");
// A heading such as "#### 2. The second case".
pattern!(HEADING, r"^[ \t]*[0-9]+[.):]\*{0,2}[ \t]+\S");

impl Matcher {
    /// The answer in a text, in the form that [`reference`] gives; `None` if there is none.
    pub fn extract(self, answer: Answer, text: &str) -> Option<String> {
        match (self, answer) {
            (Self::Standard, Answer::Number) => standard_number(text).map(|v| v.to_string()),
            (Self::Paper, Answer::Number) => paper_number(text).map(|v| v.to_string()),
            (Self::Standard, Answer::Choice) => standard_letter(text).map(String::from),
            (Self::Paper, Answer::Choice) => paper_letter(text).map(String::from),
        }
    }
}

/// A reference answer in the form to compare: what follows a last `####`,
/// if there is one, as a number or as a letter. `None` if it is neither.
pub fn reference(answer: Answer, text: &str) -> Option<String> {
    let text = text.rsplit("####").next().unwrap_or(text);
    match answer {
        Answer::Number => number::whole(text).map(|v| v.to_string()),
        Answer::Choice => letter::whole(text).map(String::from),
    }
}

/// The text after each match of a pattern, in order.
fn after<'t>(
    pattern: &'static LazyLock<Option<Regex>>,
    text: &'t str,
) -> impl Iterator<Item = &'t str> {
    let matches = pattern
        .as_ref()
        .into_iter()
        .flat_map(move |p| p.find_iter(text));
    matches.map(|found| &text[found.end()..])
}

/// Index of the first token that is not a colon, a quote or the end of a line.
fn start(tokens: &[Token<'_>]) -> usize {
    let dress = |t: &Token<'_>| matches!(t.kind, Kind::Newline | Kind::Punct(':' | '"' | '\''));
    tokens
        .iter()
        .position(|t| !dress(t))
        .unwrap_or(tokens.len())
}

/// The number that a text begins with, readable or not.
fn number_at_start(text: &str) -> Option<Run> {
    let tokens = lex(text);
    let run = runs(&tokens, Place::After).into_iter().next()?;
    (run.first <= start(&tokens) && !run.boxed).then_some(run)
}

fn standard_number(text: &str) -> Option<Value> {
    // The first: after its answer a model may continue with further questions.
    let is_heading = |rest: &&str| HEADING.as_ref().is_some_and(|h| h.is_match(rest));
    let hashes = after(&HASHES, text).filter(|rest| !is_heading(rest));
    let run = hashes
        .chain(after(&ANNOUNCED, text))
        .find_map(number_at_start)?;
    run.value
}

fn paper_number(text: &str) -> Option<Value> {
    let announced = after(&ANSWER_IS, text).last();
    match last_box(text) {
        Boxed::Holds(inside) if lex(inside).iter().any(Token::is_numeric) => {
            return number::whole(inside);
        }
        // The answer is not a number, unless the words make it one.
        Boxed::Holds(_) => return number_at_start(announced?)?.value,
        Boxed::Cut(before) => {
            return number_at_start(after(&ANSWER_IS, before).last()?)?.value;
        }
        Boxed::None => {}
    }
    if let Some(announced) = announced {
        let found = runs(&lex(announced), Place::After)
            .into_iter()
            .find(|run| !run.denied);
        if let Some(run) = found {
            return run.value;
        }
    }
    let last = runs(&lex(text), Place::Text).pop()?;
    last.value.filter(|_| !last.denied)
}

fn standard_letter(text: &str) -> Option<char> {
    let found = after(&ANNOUNCED, text).find_map(|rest| {
        let tokens = lex(rest);
        letter::first(&tokens).filter(|f| f.first <= start(&tokens) && !f.boxed)
    });
    found?.letter
}

fn paper_letter(text: &str) -> Option<char> {
    letter::first(&lex(after(&ANSWER_IS, text).last()?))?.letter
}

/// The last `\boxed{}` of a text.
enum Boxed<'t> {
    Holds(&'t str),
    /// The only one is never closed: the text before it.
    Cut(&'t str),
    None,
}

fn last_box(text: &str) -> Boxed<'_> {
    let mut starts: Vec<usize> = ["\\boxed", "\\fbox"]
        .iter()
        .flat_map(|name| text.match_indices(name).map(|(at, name)| at + name.len()))
        .collect();
    starts.sort_unstable();
    let mut cut = None;
    for start in starts.into_iter().rev() {
        match inside(&text[start..]) {
            Some(inside) if inside.trim().is_empty() => {}
            Some(inside) => return Boxed::Holds(inside),
            None => cut = Some(&text[..start]),
        }
    }
    cut.map_or(Boxed::None, Boxed::Cut)
}

/// What a box holds: what is between braces, or the one thing after blanks.
fn inside(text: &str) -> Option<&str> {
    let trimmed = text.trim_start_matches(' ');
    let Some(inside) = trimmed.strip_prefix('{') else {
        let end = trimmed
            .find(|c: char| c.is_whitespace() || c == '$')
            .unwrap_or(trimmed.len());
        return Some(&trimmed[..end]);
    };
    let mut depth = 1usize;
    let mut escaped = false;
    for (at, b) in inside.bytes().enumerate() {
        match b {
            b'{' if !escaped => depth += 1,
            b'}' if !escaped => depth -= 1,
            _ => {}
        }
        escaped = b == b'\\' && !escaped;
        if depth == 0 {
            return Some(&inside[..at]);
        }
    }
    None
}
