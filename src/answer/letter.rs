//! Letters that are answers to multiple choice: [`first`] in a text, [`whole`]
//! for a text that is one letter.

use super::lex::{Kind, Token, lex};
use super::words;

/// The letters that a choice is made from.
const CHOICES: std::ops::RangeInclusive<char> = 'A'..='D';

/// A letter found.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// Its first token: a bracket, or the letter.
    pub(super) first: usize,
    /// None where several are named, or one that is not a choice.
    pub(super) letter: Option<char>,
    /// Whether it is in a box.
    pub(super) boxed: bool,
}

/// The first capital letter that is an answer, not a word or part of a name.
pub(super) fn first(tokens: &[Token<'_>]) -> Option<Found> {
    (0..tokens.len()).find_map(|at| {
        let letter = single(tokens, at)?;
        let (first, bracketed, boxed) = opened(tokens, at);
        if !stands_alone(tokens, first, at) || (!bracketed && !is_meant(tokens, first, at, letter))
        {
            return None;
        }
        let clear = CHOICES.contains(&letter) && !another(tokens, at);
        Some(Found {
            first,
            letter: clear.then_some(letter),
            boxed,
        })
    })
}

/// The letter that a text is, in brackets or not.
pub(super) fn whole(text: &str) -> Option<char> {
    let tokens = lex(text);
    let mut words = (0..tokens.len()).filter(|&i| {
        !matches!(
            tokens[i].kind,
            Kind::Open(_)
                | Kind::Close(_)
                | Kind::Text
                | Kind::Box
                | Kind::Newline
                | Kind::Punct('.' | ':' | '"' | '\'')
        )
    });
    let only = words.next()?;
    let letter = single(&tokens, only)?;
    (words.next().is_none() && CHOICES.contains(&letter)).then_some(letter)
}

/// A token that is one capital letter.
fn single(tokens: &[Token<'_>], at: usize) -> Option<char> {
    let token = tokens.get(at)?;
    let mut chars = token.text.chars();
    let letter = chars.next().filter(char::is_ascii_uppercase)?;
    (token.kind == Kind::Word && chars.next().is_none()).then_some(letter)
}

/// Where the brackets that open right before a letter begin, whether there are
/// any, and whether one is a box.
fn opened(tokens: &[Token<'_>], at: usize) -> (usize, bool, bool) {
    let mut first = at;
    let mut boxed = false;
    while first > 0
        && !tokens[first].spaced
        && matches!(
            tokens[first - 1].kind,
            Kind::Open(_) | Kind::Text | Kind::Box
        )
    {
        first -= 1;
        boxed |= tokens[first].kind == Kind::Box;
    }
    let closes = matches!(tokens.get(at + 1), Some(t) if matches!(t.kind, Kind::Close(_)));
    (first, first < at && closes, boxed)
}

/// Whether nothing beside the letter makes another thing of it (`A+`, `D.C.`, `f(A)`, `x-B`).
fn stands_alone(tokens: &[Token<'_>], first: usize, at: usize) -> bool {
    let before = first.checked_sub(1).map(|i| &tokens[i]);
    let before = before.filter(|_| !tokens[first].spaced);
    let apart = before.is_none_or(|t| {
        matches!(t.kind, Kind::Punct(p) if p != '.' && p != '\'' && p != '/')
            || matches!(t.kind, Kind::Newline | Kind::Op('='))
    });
    let Some(next) = tokens.get(at + 1).filter(|t| !t.spaced) else {
        return apart;
    };
    let follows = tokens.get(at + 2).filter(|t| !t.spaced).map(|t| &t.kind);
    apart
        && match next.kind {
            Kind::Close(_) | Kind::Newline | Kind::Text | Kind::Box => true,
            Kind::Op('/') => single(tokens, at + 2).is_some(),
            Kind::Punct('.' | '\'') => !matches!(follows, Some(Kind::Word | Kind::Number(_))),
            Kind::Punct('#' | '@') => false,
            Kind::Punct(_) => true,
            _ => false,
        }
}

/// Whether a letter without brackets is an answer, by the words beside it.
fn is_meant(tokens: &[Token<'_>], first: usize, at: usize, letter: char) -> bool {
    let word = |i: Option<usize>| {
        i.and_then(|i| tokens.get(i))
            .filter(|t| t.kind == Kind::Word)
    };
    let led = word(first.checked_sub(1)).is_none_or(|t| {
        let lower = t.word();
        words::LEAD.contains(&lower.as_str()) || (lower.len() > 3 && lower.ends_with("ly"))
    });
    let follows = word(Some(at + 1)).is_none_or(|t| {
        words::FOLLOW.contains(&t.text) || (single(tokens, at + 1).is_some() && letter != 'I')
    });
    // "I" alone is a letter too, but no choice.
    led && follows
}

/// Whether another letter is named beside this one.
fn another(tokens: &[Token<'_>], at: usize) -> bool {
    let mut next = at + 1;
    let mut joined = false;
    while let Some(token) = tokens.get(next) {
        let lower = token.word();
        match token.kind {
            _ if single(tokens, next).is_some_and(|l| l != 'I') => {
                // "A, B" and "A or B"; but "A. B is wrong" names the other to refuse it.
                let refused = matches!(tokens.get(next + 1), Some(t) if words::NOT.contains(&t.word().as_str()));
                return !refused;
            }
            Kind::Close(_) | Kind::Open(_) | Kind::Text | Kind::Punct('"' | '\'') => {}
            Kind::Punct(',' | '&') | Kind::Op('/' | '–' | '-' | '+') => joined = true,
            Kind::Word if matches!(lower.as_str(), "or" | "and") => joined = true,
            Kind::Word
                if joined
                    && matches!(
                        lower.as_str(),
                        "option" | "choice" | "possibly" | "maybe" | "perhaps"
                    ) => {}
            _ => return false,
        }
        next += 1;
    }
    false
}
