//! Numbers in tokens: [`runs`] finds them with all that they are a part of, and
//! [`whole`] reads a text that is one number. A run that is more than one number
//! (an expression, a list, a range, a date) has no value, but what follows the
//! last `=` of an expression is read.

use super::lex::{Kind, Token, lex};
use super::value::Value;
use super::words;

mod atom;
mod tail;

use tail::Tail;

/// Where tokens stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a text, from the start of a line.
    Text,
    /// In a text, after other words.
    After,
    /// In mathematics: a letter alone is a variable, not a word.
    Math,
}

/// A number with what belongs to it.
#[derive(Debug)]
pub(super) struct Run {
    /// Its first token: a sign, a bracket or the number itself.
    pub(super) first: usize,
    /// After its last token.
    pub(super) end: usize,
    /// None where it is not clearly one number.
    pub(super) value: Option<Value>,
    /// Whether the text rejects it as the answer.
    pub(super) denied: bool,
    /// Whether it is in a box.
    pub(super) boxed: bool,
    /// Whether it follows an expression and `=`.
    named: bool,
}

/// What is wrong with a run so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    None,
    /// It is an expression or a name; its value may follow a `=`.
    Open,
    Wrong,
}

/// Every run of numbers, in order.
pub(super) fn runs(tokens: &[Token<'_>], place: Place) -> Vec<Run> {
    let reader = Reader { tokens, place };
    let mut runs = Vec::new();
    let mut floor = 0;
    while let Some(at) = (floor..tokens.len()).find(|&i| tokens[i].is_numeric()) {
        let run = reader.run(floor, at);
        floor = run.end.max(at + 1);
        runs.push(run);
    }
    runs
}

/// The number that a text is, with a name before it (`x = 5`), a unit after it,
/// or none of both.
pub(super) fn whole(text: &str) -> Option<Value> {
    let tokens = lex(text);
    let mut runs = runs(&tokens, Place::Math);
    let run = match (runs.pop(), runs.pop()) {
        (Some(only), None) if !only.denied => only,
        _ => return None,
    };
    let dress = |t: &Token<'_>| {
        matches!(
            t.kind,
            Kind::Newline
                | Kind::Text
                | Kind::Box
                | Kind::Open(_)
                | Kind::Close(_)
                | Kind::Punct('"' | '\'' | ':')
        )
    };
    let (before, after) = (&tokens[..run.first], &tokens[run.end..]);
    let equals = |t: &Token<'_>| matches!(t.kind, Kind::Op('=' | '≈'));
    let named = run.named || before.last().is_some_and(equals);
    let clear = before.iter().all(|t| {
        let word = t.word();
        let another = if named {
            &words::MORE[..]
        } else {
            &words::JOIN[..]
        };
        let plain = !another.contains(&&*word) && !words::NOT.contains(&&*word);
        dress(t)
            || (t.kind == Kind::Word && plain)
            || (named && matches!(t.kind, Kind::Op('=' | '≈' | '_') | Kind::Symbol))
    }) && after.iter().all(|t| {
        let unit = t.kind == Kind::Word && !words::MORE.contains(&&*t.word());
        dress(t)
            || unit
            || matches!(
                t.kind,
                Kind::Percent | Kind::Degree | Kind::Op('/') | Kind::Punct('.' | ',')
            )
    });
    run.value.filter(|_| clear)
}

/// What precedes a number.
struct Left {
    first: usize,
    negative: bool,
    denied: bool,
    boxed: bool,
    doubt: Doubt,
    /// Brackets that open right before it, the innermost first.
    opens: Vec<char>,
    /// Whether a comma precedes it.
    listed: bool,
}

/// A sign before a number.
enum Sign {
    /// Is its own.
    Own,
    /// A dash or a bullet.
    Apart,
    /// A part of an expression.
    Operator,
}

struct Reader<'r, 't> {
    tokens: &'r [Token<'t>],
    place: Place,
}

impl Reader<'_, '_> {
    fn kind(&self, at: usize) -> Option<&Kind> {
        self.tokens.get(at).map(|t| &t.kind)
    }

    fn is(&self, at: usize, kind: &Kind) -> bool {
        self.kind(at) == Some(kind)
    }

    fn word(&self, at: usize) -> String {
        self.tokens.get(at).map(Token::word).unwrap_or_default()
    }

    /// Whether this token follows the one before without white space.
    fn adjacent(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|t| !t.spaced)
    }

    /// Whether a token is a whole number written in digits alone.
    fn is_digits(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|t| {
            matches!(t.kind, Kind::Number(Some(_))) && t.text.chars().all(char::is_numeric)
        })
    }

    fn value(&self, at: usize) -> Option<&Value> {
        match self.kind(at)? {
            Kind::Number(value) => value.as_ref(),
            Kind::Vulgar(value) => Some(value),
            _ => None,
        }
    }

    fn run(&self, floor: usize, start: usize) -> Run {
        let mut left = self.left(floor, start);
        let mut doubt = left.doubt;
        let mut negative = left.negative;
        // What precedes a `=`, if it is a number itself.
        let mut held: Option<Value> = None;
        let mut named = false;
        let mut at = start;
        loop {
            let (value, mut end) = self.number(at);
            if value.is_none() {
                let name = self.tokens[at]
                    .text
                    .starts_with(|c: char| !c.is_numeric() && c != '\\');
                doubt = doubt.max(if name { Doubt::Open } else { Doubt::Wrong });
            }
            let value = value.map(|v| if negative { v.negated() } else { v });
            while let (Some(open), Some(Kind::Close(close))) = (left.opens.first(), self.kind(end))
            {
                if !matches!(
                    (open, close),
                    ('(', ')') | ('[', ']') | ('{', '}') | ('(', ']') | ('[', ')')
                ) {
                    break;
                }
                // `(1,234)` may be a point.
                let grouped = *open != '{' && self.tokens[at].text.contains(',');
                if grouped || (open, close) == (&'(', &']') || (open, close) == (&'[', &')') {
                    doubt = Doubt::Wrong;
                }
                left.opens.remove(0);
                end += 1;
            }
            let bracketed = matches!(left.opens.first(), Some('(' | '['));
            match self.tail(end, left.listed, bracketed) {
                Tail::End(end, worse) => {
                    let agreed = held.is_none() || held == value;
                    let sound = doubt.max(worse) == Doubt::None && agreed;
                    return Run {
                        first: left.first,
                        end,
                        value: value.filter(|_| sound),
                        denied: left.denied,
                        boxed: left.boxed,
                        named,
                    };
                }
                Tail::Join(next, worse) => {
                    doubt = doubt.max(worse);
                    (at, negative) = (next, false);
                }
                Tail::Equals(next, minus) => {
                    match doubt {
                        Doubt::None if held.is_some() && held != value => doubt = Doubt::Wrong,
                        Doubt::None => held = value,
                        Doubt::Open => doubt = Doubt::None,
                        Doubt::Wrong => {}
                    }
                    (at, negative) = (next, minus);
                    named = true;
                    left.opens.clear();
                }
            }
        }
    }

    fn left(&self, floor: usize, at: usize) -> Left {
        let mut left = Left {
            first: at,
            negative: false,
            denied: false,
            boxed: false,
            doubt: Doubt::None,
            opens: Vec::new(),
            listed: false,
        };
        let mut signed = false;
        if floor > 0 && at == floor && self.adjacent(at) {
            left.doubt = Doubt::Wrong;
        }
        while left.first > floor {
            let before = left.first - 1;
            let adjacent = self.adjacent(left.first);
            let token = &self.tokens[before];
            match token.kind {
                Kind::Op(sign @ ('-' | '–' | '+')) if !signed => {
                    match self.sign(floor, before, adjacent, sign) {
                        Sign::Own => {
                            signed = true;
                            left.negative = sign != '+';
                            left.first = before;
                            continue;
                        }
                        Sign::Apart => {}
                        Sign::Operator => left.doubt = Doubt::Open,
                    }
                }
                Kind::Op('=' | '≈') | Kind::Newline => {}
                Kind::Op('_') => left.doubt = Doubt::Open,
                Kind::Op(_) | Kind::Symbol => left.doubt = Doubt::Wrong,
                Kind::Open(open) => {
                    let called = before > floor
                        && !token.spaced
                        && matches!(self.kind(before - 1), Some(Kind::Word | Kind::Number(_)));
                    if called {
                        left.doubt = Doubt::Open;
                        left.opens.push(open);
                    } else {
                        left.opens.push(open);
                        left.first = before;
                        continue;
                    }
                }
                Kind::Text | Kind::Box => {
                    left.boxed |= token.kind == Kind::Box;
                    left.opens.push('{');
                    left.first = before;
                    continue;
                }
                // What `\text{\$}` leaves.
                Kind::Close('}') if before > floor && self.is(before - 1, &Kind::Text) => {
                    left.first = before - 1;
                    continue;
                }
                Kind::Word if adjacent => left.doubt = Doubt::Wrong,
                Kind::Word => self.left_word(floor, before, signed, &mut left),
                Kind::Close(_)
                | Kind::Percent
                | Kind::Degree
                | Kind::Punct('.' | '|' | '@' | '&' | '…')
                    if adjacent =>
                {
                    left.doubt = Doubt::Wrong;
                }
                Kind::Punct(',') => left.listed = true,
                _ => {}
            }
            break;
        }
        left
    }

    /// A word before a number: what it makes of the number.
    fn left_word(&self, floor: usize, before: usize, signed: bool, left: &mut Left) {
        let word = self.tokens[before].word();
        let word = word.as_str();
        if words::NEGATIVE.contains(&word) {
            let operand = word == "minus"
                && before > floor
                && self.word(before - 1) != "is"
                && matches!(
                    self.kind(before - 1),
                    Some(Kind::Word | Kind::Close(_) | Kind::Symbol)
                );
            if signed || operand {
                left.doubt = Doubt::Wrong;
            } else {
                left.negative = true;
                left.first = before;
            }
        } else if words::NOT.contains(&word) {
            left.denied = true;
        } else if words::PART_BEFORE.contains(&word)
            || (word == "to" && before > floor && self.word(before - 1) == "up")
            || (self.place == Place::Math && word.chars().count() == 1)
        {
            left.doubt = Doubt::Wrong;
        }
    }

    /// What a plus or a minus before a number (`adjacent` or not) is.
    fn sign(&self, floor: usize, at: usize, adjacent: bool, sign: char) -> Sign {
        let spaced = self.tokens[at].spaced;
        let before = (at > floor).then(|| &self.tokens[at - 1]);
        let Some(before) = before else {
            let line_start = at == 0 && self.place == Place::Text;
            return if adjacent || !line_start {
                Sign::Own
            } else {
                Sign::Apart
            };
        };
        match before.kind {
            Kind::Newline if adjacent || self.place == Place::Math => Sign::Own,
            Kind::Newline => Sign::Apart,
            Kind::Op('=' | '≈') | Kind::Open(_) | Kind::Text | Kind::Box => Sign::Own,
            Kind::Word if spaced && adjacent && before.text.chars().count() > 1 => Sign::Own,
            Kind::Word if spaced && !adjacent && sign == '–' => Sign::Apart,
            Kind::Punct(_) if adjacent => Sign::Own,
            Kind::Punct(':') => Sign::Own,
            Kind::Punct(_) => Sign::Apart,
            _ => Sign::Operator,
        }
    }
}
