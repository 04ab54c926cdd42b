//! What follows a number, and whether that makes more than a number of it: [`Tail`].

use super::super::lex::{Kind, Token};
use super::super::words;
use super::{Doubt, Place, Reader};

/// What follows a number.
pub(super) enum Tail {
    /// The run ends before this token.
    End(usize, Doubt),
    /// It continues with this number.
    Join(usize, Doubt),
    /// An equals sign and a number, and whether that is negative.
    Equals(usize, bool),
}

impl Reader<'_, '_> {
    /// The number that begins at a token, with a sign, brackets or `x =` before it
    /// or not, and whether it is negative.
    fn ahead(&self, at: usize) -> Option<(usize, bool)> {
        let named = self.is(at, &Kind::Word) && self.is(at + 1, &Kind::Op('='));
        let at = if named { at + 2 } else { at };
        let mut negative = false;
        for i in at..(at + 4).min(self.tokens.len()) {
            let token = &self.tokens[i];
            let word = token.word();
            match token.kind {
                _ if token.is_numeric() => return Some((i, negative)),
                Kind::Op('-' | '–') => negative = !negative,
                Kind::Op('+' | '±') | Kind::Open(_) | Kind::Text => {}
                Kind::Word if words::NEGATIVE.contains(&word.as_str()) => negative = true,
                Kind::Word if words::BETWEEN.contains(&word.as_str()) => {}
                _ => return None,
            }
        }
        None
    }

    /// What follows a number. `listed`: a comma precedes it; `bracketed`: a
    /// bracket that is still open.
    pub(super) fn tail(&self, at: usize, listed: bool, bracketed: bool) -> Tail {
        let Some(token) = self.tokens.get(at) else {
            return Tail::End(at, Doubt::None);
        };
        let adjacent = !token.spaced;
        let end = Tail::End(at, Doubt::None);
        let wrong = Tail::End(at, Doubt::Wrong);
        // With a number after this token, that one too; else `otherwise`.
        let joins = |doubt: Doubt, otherwise: Tail| match self.ahead(at + 1) {
            Some((next, _)) => Tail::Join(next, doubt),
            None => otherwise,
        };
        let follows = |offset: usize| self.adjacent(at + offset);
        let numeric = |offset: usize| self.tokens.get(at + offset).is_some_and(Token::is_numeric);
        match token.kind {
            Kind::Number(_) | Kind::Vulgar(_) | Kind::Frac => Tail::Join(at, Doubt::Wrong),
            // `1:30`, `5'10`, `1.2.3`: nothing between them.
            Kind::Punct(p) if p != '»' && adjacent && follows(1) && numeric(1) => {
                Tail::Join(at + 1, Doubt::Wrong)
            }
            Kind::Word if adjacent => wrong,
            Kind::Word => self.word_after(at),
            Kind::Text => self.text_after(at),
            Kind::Op('=' | '≈') => match self.ahead(at + 1) {
                Some((next, negative)) => Tail::Equals(next, negative),
                None => end,
            },
            Kind::Op('^' | '_' | '≤') => joins(Doubt::Wrong, wrong),
            Kind::Op('-' | '–') => joins(Doubt::Open, if self.is_dash(at) { end } else { wrong }),
            Kind::Op(_) => joins(Doubt::Open, wrong),
            Kind::Symbol => wrong,
            Kind::Open('{') => joins(Doubt::Wrong, wrong),
            Kind::Open(_) if adjacent => joins(Doubt::Wrong, wrong),
            Kind::Close(_) if listed && adjacent => wrong,
            Kind::Punct(',') => {
                let word = self.word(at + 1);
                let and = matches!(word.as_str(), "and" | "or");
                match self.ahead(at + 1 + usize::from(and)) {
                    Some((next, _)) => Tail::Join(next, Doubt::Wrong),
                    None if bracketed || self.is(at + 1, &Kind::Punct('…')) => wrong,
                    None => end,
                }
            }
            Kind::Punct(';' | '&' | '→') => {
                joins(Doubt::Wrong, if bracketed { wrong } else { end })
            }
            Kind::Punct('.')
                if adjacent
                    && follows(1)
                    && matches!(
                        self.kind(at + 1),
                        // `5...`, and the digits of `0.\overline{3}` and `0.(3)`.
                        Some(Kind::Punct('.' | '…') | Kind::Symbol | Kind::Open(_))
                    ) =>
            {
                wrong
            }
            Kind::Punct('…') => wrong,
            Kind::Punct(':') if !adjacent => joins(Doubt::Wrong, end),
            // A factorial, or a shout?
            Kind::Punct('!' | '@' | '#') if adjacent => wrong,
            Kind::Punct('\'' | '"') if adjacent && follows(1) && self.is(at + 1, &Kind::Word) => {
                wrong
            }
            _ => end,
        }
    }

    /// Whether a minus that no number follows is a dash between words.
    fn is_dash(&self, at: usize) -> bool {
        let next = self.word(at + 1);
        let word = next.chars().count() > 1 || matches!(next.as_str(), "i" | "a");
        self.tokens[at].spaced && !self.adjacent(at + 1) && word
    }

    /// A word after a number.
    fn word_after(&self, at: usize) -> Tail {
        let word = self.word(at);
        let word = word.as_str();
        let wrong = Tail::End(at + 1, Doubt::Wrong);
        if words::JOIN.contains(&word)
            && let Some((next, _)) = self.ahead(at + 1)
        {
            let operator = words::OPERATORS.contains(&word);
            return Tail::Join(next, if operator { Doubt::Open } else { Doubt::Wrong });
        }
        let half = word == "and"
            && matches!(self.word(at + 1).as_str(), "a" | "one")
            && words::HALVES.contains(&self.word(at + 2).as_str());
        let variable = word.chars().count() == 1
            && (self.place == Place::Math || words::VARIABLES.contains(&self.tokens[at].text));
        if half || variable || words::PART_AFTER.contains(&word) {
            return wrong;
        }
        let after = self.unit_power(at + 1);
        // "5 as 2 + 3 = 5" continues with another sentence, "5 feet 10" with the same length.
        let unit = !words::FOLLOW.contains(&word);
        match self.another_quantity(after.unwrap_or(at + 1)) {
            Some(next) if unit => Tail::Join(next, Doubt::Wrong),
            _ => Tail::End(after.unwrap_or(at), Doubt::None),
        }
    }

    /// A number after a unit, as in "2 hours 30 minutes" or "2 hours and 30 minutes".
    fn another_quantity(&self, at: usize) -> Option<usize> {
        let numeric = |at: usize| self.tokens.get(at).is_some_and(Token::is_numeric);
        let joined = matches!(self.word(at).as_str(), "and" | "or" | "to");
        let next = at + usize::from(joined);
        numeric(next).then_some(next)
    }

    /// `\text{...}` after a number: a unit, unless it says more.
    fn text_after(&self, at: usize) -> Tail {
        let close = (at..self.tokens.len()).find(|&i| self.is(i, &Kind::Close('}')));
        let Some(close) = close else {
            return Tail::End(at + 1, Doubt::Wrong);
        };
        let inside = &self.tokens[at + 1..close];
        let first = inside.first().map(Token::word).unwrap_or_default();
        let first = first.as_str();
        let unit = !inside.iter().any(Token::is_numeric)
            && !words::MORE.contains(&first)
            && !words::PART_AFTER.contains(&first)
            && !words::SCALES.iter().any(|(word, _)| *word == first);
        let after = self.unit_power(close + 1).unwrap_or(close + 1);
        match self.another_quantity(after) {
            Some(next) => Tail::Join(next, Doubt::Wrong),
            None => Tail::End(after, if unit { Doubt::None } else { Doubt::Wrong }),
        }
    }

    /// After the power of a unit (`m^2`), if there is one.
    fn unit_power(&self, at: usize) -> Option<usize> {
        if !self.is(at, &Kind::Op('^')) {
            return None;
        }
        match self.exponent(at + 1) {
            (Some(_), after) => Some(after),
            (None, _) => None,
        }
    }
}
