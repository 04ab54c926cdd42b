//! One number: a numeral, a fraction, a mixed number, a power, with its unit sign.

use super::super::lex::Kind;
use super::super::value::Value;
use super::super::words;
use super::Reader;

impl Reader<'_, '_> {
    /// The number that begins at a token, with its power of ten and its unit sign,
    /// and where it ends.
    pub(super) fn number(&self, at: usize) -> (Option<Value>, usize) {
        let (mut value, mut end) = match self.kind(at) {
            Some(Kind::Number(Some(value))) => self.numeral(at, value),
            Some(Kind::Vulgar(value)) => (Some(value.clone()), at + 1),
            Some(Kind::Frac) => self.frac(at),
            _ => (None, at + 1),
        };
        let times = matches!(self.kind(end), Some(Kind::Op('×' | '*'))) || self.word(end) == "x";
        if times
            && self.value(end + 1).is_some_and(Value::is_ten)
            && self.is(end + 2, &Kind::Op('^'))
        {
            let (exponent, next) = self.exponent(end + 3);
            let ten = self.value(end + 1);
            let scale = exponent.and_then(|e| ten?.power(&e));
            value = value.and_then(|v| Some(v.times(&scale?)));
            end = next;
        }
        let scale = words::SCALES
            .iter()
            .find(|(word, _)| *word == self.word(end));
        if let Some((_, exponent)) = scale.filter(|_| !self.adjacent(end)) {
            value = value.and_then(|v| v.scaled(*exponent));
            end += 1;
        }
        end = self.unit_sign(end);
        (value, end)
    }

    /// Skips `%`, `°`, `^\circ` and the word percent.
    fn unit_sign(&self, at: usize) -> usize {
        let is = |offset: usize, kind: Kind| self.is(at + offset, &kind);
        let degree = if is(0, Kind::Degree) {
            at + 1
        } else if is(0, Kind::Op('^')) && is(1, Kind::Degree) {
            at + 2
        } else if is(0, Kind::Op('^'))
            && is(1, Kind::Open('{'))
            && is(2, Kind::Degree)
            && is(3, Kind::Close('}'))
        {
            at + 4
        } else if is(0, Kind::Percent) || (self.word(at) == "percent" && !self.adjacent(at)) {
            return at + 1;
        } else {
            return at;
        };
        let scale = matches!(self.word(degree).as_str(), "c" | "f") && self.adjacent(degree);
        degree + usize::from(scale)
    }

    /// A numeral with its power, with a fraction after it, or over another numeral.
    fn numeral(&self, at: usize, value: &Value) -> (Option<Value>, usize) {
        let end = at + 1;
        if self.is(end, &Kind::Op('^')) && self.unit_sign(end) == end {
            let (exponent, next) = self.exponent(end + 1);
            return (exponent.and_then(|e| value.power(&e)), next);
        }
        if self.is_digits(at) {
            let joined = self.word(end) == "and" && !self.adjacent(end);
            let from = end + usize::from(joined);
            let part = match self.kind(from) {
                Some(Kind::Vulgar(part)) => Some((Some(part.clone()), from + 1)),
                Some(Kind::Frac) => Some(self.frac(from)),
                Some(Kind::Number(_)) if !self.adjacent(from) => self.ratio(from),
                _ => None,
            };
            if let Some((part, next)) = part {
                let part = part.filter(Value::is_proper_fraction);
                return (part.map(|part| value.plus(&part)), next);
            }
        }
        self.ratio(at).unwrap_or_else(|| (Some(value.clone()), end))
    }

    /// Two numerals with a slash between them.
    fn ratio(&self, at: usize) -> Option<(Option<Value>, usize)> {
        if !self.is(at + 1, &Kind::Op('/')) || !matches!(self.kind(at + 2), Some(Kind::Number(_))) {
            return None;
        }
        let ratio = Value::fraction(self.value(at)?, self.value(at + 2)?);
        Some((ratio, at + 3))
    }

    /// `\frac{1}{2}`, `\frac12`, `\frac1{2}`.
    fn frac(&self, at: usize) -> (Option<Value>, usize) {
        let digits = |at: usize| self.is_digits(at).then(|| self.tokens[at].text);
        let digit = |text: &str| Value::decimal(text, "");
        let (over, next) = match (self.kind(at + 1), digits(at + 1)) {
            (Some(Kind::Open('{')), _) => self.group(at + 1),
            (_, Some(text)) if text.len() == 1 => (digit(text), at + 2),
            (_, Some(text)) if text.len() == 2 && text.is_ascii() => {
                let both = digit(&text[..1]).zip(digit(&text[1..]));
                return (both.and_then(|(a, b)| Value::fraction(&a, &b)), at + 2);
            }
            _ => return (None, at + 1),
        };
        let (under, next) = match (self.kind(next), digits(next)) {
            (Some(Kind::Open('{')), _) => self.group(next),
            (_, Some(text)) if text.len() == 1 => (digit(text), next + 1),
            _ => (None, next),
        };
        (
            over.zip(under).and_then(|(a, b)| Value::fraction(&a, &b)),
            next,
        )
    }

    /// The number between braces with nothing else, and what follows them.
    fn group(&self, open: usize) -> (Option<Value>, usize) {
        let mut depth = 0;
        let close = (open..self.tokens.len()).find(|&i| {
            match self.tokens[i].kind {
                Kind::Open('{') | Kind::Text | Kind::Box => depth += 1,
                Kind::Close('}') => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(close) = close else {
            return (None, open + 1);
        };
        let minus = self.is(open + 1, &Kind::Op('-'));
        let (value, end) = self.number(open + 1 + usize::from(minus));
        let value = value.map(|v| if minus { v.negated() } else { v });
        (value.filter(|_| end == close), close + 1)
    }

    /// The exponent after `^`.
    pub(super) fn exponent(&self, at: usize) -> (Option<Value>, usize) {
        if self.is(at, &Kind::Open('{')) {
            return self.group(at);
        }
        let minus = self.is(at, &Kind::Op('-'));
        let number = at + usize::from(minus);
        let value = self.value(number).cloned();
        let next = if value.is_some() { number + 1 } else { at };
        (value.map(|v| if minus { v.negated() } else { v }), next)
    }
}
