//! Tokens of a text with numbers: [`lex`]. What only dresses a text is left out:
//! currency signs, the delimiters of mathematics, emphasis, spacing commands.

use super::value::Value;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    /// Whether white space precedes it.
    pub(super) spaced: bool,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A numeral; `None` if its digits are not a number, or letters are among them.
    Number(Option<Value>),
    /// A character that is a fraction, such as ½.
    Vulgar(Value),
    Word,
    /// `\frac` and its kin.
    Frac,
    /// `\text{` and its kin, the brace included.
    Text,
    /// `\boxed{` or `\fbox{`, the brace included.
    Box,
    Newline,
    Open(char),
    Close(char),
    /// An operator or a relation, in one spelling.
    Op(char),
    Percent,
    Degree,
    /// A character or a command of mathematics that makes something else of a number beside it.
    Symbol,
    Punct(char),
}

impl Token<'_> {
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self.kind, Kind::Number(_) | Kind::Vulgar(_) | Kind::Frac)
    }

    /// The word in lower case; empty for other tokens.
    pub(super) fn word(&self) -> String {
        match self.kind {
            Kind::Word => self.text.to_lowercase(),
            _ => String::new(),
        }
    }
}

/// The tokens of a text.
pub(super) fn lex(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer {
        text,
        at: 0,
        spaced: false,
        tokens: Vec::new(),
    };
    while lexer.at < text.len() {
        lexer.step();
    }
    lexer.tokens
}

/// The value of a decimal digit of any script that numbers are written in here.
fn digit(c: char) -> Option<char> {
    const ZEROS: [u32; 6] = [0x30, 0x0660, 0x06F0, 0x0966, 0x09E6, 0xFF10];
    let code = u32::from(c);
    let value = ZEROS
        .iter()
        .find_map(|zero| code.checked_sub(*zero).filter(|d| *d < 10))?;
    char::from_digit(value, 10)
}

fn vulgar(c: char) -> Option<Value> {
    const FRACTIONS: [(char, &str, &str); 18] = [
        ('½', "1", "2"),
        ('⅓', "1", "3"),
        ('⅔', "2", "3"),
        ('¼', "1", "4"),
        ('¾', "3", "4"),
        ('⅕', "1", "5"),
        ('⅖', "2", "5"),
        ('⅗', "3", "5"),
        ('⅘', "4", "5"),
        ('⅙', "1", "6"),
        ('⅚', "5", "6"),
        ('⅐', "1", "7"),
        ('⅛', "1", "8"),
        ('⅜', "3", "8"),
        ('⅝', "5", "8"),
        ('⅞', "7", "8"),
        ('⅑', "1", "9"),
        ('⅒', "1", "10"),
    ];
    let (_, over, under) = FRACTIONS.iter().find(|(f, _, _)| *f == c)?;
    Value::fraction(&Value::decimal(over, "")?, &Value::decimal(under, "")?)
}

/// Letters, and digits of scripts that are not read: beside a numeral they make it another thing.
fn is_letter(c: char) -> bool {
    c.is_alphabetic() && digit(c).is_none()
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    spaced: bool,
    tokens: Vec<Token<'t>>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = &self.rest()[..length];
        self.tokens.push(Token {
            kind,
            text,
            spaced: self.spaced,
        });
        self.spaced = false;
        self.at += length;
    }

    fn skip(&mut self, length: usize, spaces: bool) {
        self.at += length;
        self.spaced |= spaces;
    }

    fn step(&mut self) {
        let rest = self.rest();
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return };
        let next = chars.next();
        let length = c.len_utf8();
        let starts = |digits: Option<char>| digits.is_some_and(|c| digit(c).is_some());
        let after_dot = matches!(self.text[..self.at].chars().next_back(), Some('.'));
        if digit(c).is_some() || (c == '.' && starts(next) && !after_dot) {
            return self.numeral();
        }
        if let Some(value) = vulgar(c) {
            return self.push(Kind::Vulgar(value), length);
        }
        if is_letter(c) {
            return self.word();
        }
        match c {
            '\n' => self.push(Kind::Newline, length),
            '\\' => self.command(),
            '*' | '_' => self.emphasis(c),
            '`' | '$' | '€' | '£' | '¥' | '₹' | '₽' | '¢' | '₩' => {
                self.skip(length, false)
            }
            '<' if tag(rest).is_some() => self.push(Kind::Punct('»'), tag(rest).unwrap_or(length)),
            c if c.is_whitespace() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}' | '~') => {
                self.skip(length, true);
            }
            _ => {
                let (kind, length) = sign(c, rest);
                self.push(kind, length);
            }
        }
    }

    /// A numeral with its group separators, point and exponent, and the letters after it.
    fn numeral(&mut self) {
        let rest = self.rest();
        let (norm, mut end) = numeral_shape(rest);
        let mut value = numeral_value(&norm);
        if let Some((exponent, length)) = exponent(&rest[end..]) {
            value = value.and_then(|v| v.scaled(exponent?));
            end += length;
        }
        let tail = word_length(&rest[end..]);
        if tail > 0 {
            value = None;
        }
        self.push(Kind::Number(value), end + tail);
    }

    /// A word; with digits in it, a numeral that is none.
    fn word(&mut self) {
        let rest = self.rest();
        let mut end = 0;
        let mut digits = false;
        for (at, c) in rest.char_indices() {
            let inner = matches!(c, '\'' | '’')
                && rest[at + c.len_utf8()..]
                    .chars()
                    .next()
                    .is_some_and(is_letter);
            if !(is_letter(c) || digit(c).is_some() || inner || is_mark(c)) {
                break;
            }
            digits |= digit(c).is_some();
            end = at + c.len_utf8();
        }
        let kind = if digits {
            Kind::Number(None)
        } else {
            Kind::Word
        };
        self.push(kind, end);
    }

    /// Asterisks and underscores: around a text they are emphasis, between two things not.
    fn emphasis(&mut self, c: char) {
        let run = self.rest().chars().take_while(|&o| o == c).count();
        let before = self.text[..self.at].chars().next_back();
        let after = self.rest()[run..].chars().next();
        let edge = |c: Option<char>| {
            c.is_none_or(|c| c.is_whitespace() || "()[]\"'“”‘’.,:;!?*_`$>—".contains(c))
        };
        let space = |c: Option<char>| c.is_none_or(char::is_whitespace);
        if space(before) && space(after) && c == '*' && run == 1 {
            let bullet = self.tokens.last().is_none_or(|t| t.kind == Kind::Newline);
            let kind = if bullet {
                Kind::Punct('•')
            } else {
                Kind::Op('*')
            };
            self.push(kind, run);
        } else if edge(before) || edge(after) {
            self.skip(run, false);
        } else {
            self.push(Kind::Op(c), run);
        }
    }

    fn command(&mut self) {
        let rest = self.rest();
        let name_length = rest[1..]
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        let name = &rest[1..=name_length];
        let length = 1 + name_length;
        if name.is_empty() {
            return self.escape();
        }
        let blanks = rest[length..].len() - rest[length..].trim_start_matches(' ').len();
        let brace = rest[length + blanks..]
            .starts_with('{')
            .then_some(length + blanks + 1);
        match (name, brace) {
            ("boxed" | "fbox", Some(length)) => self.push(Kind::Box, length),
            (
                "text" | "textbf" | "textit" | "textrm" | "texttt" | "textsf" | "textnormal"
                | "mathrm" | "mathbf" | "mathit" | "mathsf" | "mathtt" | "boldsymbol" | "bm"
                | "mbox" | "hbox" | "operatorname" | "emph" | "underline" | "ensuremath",
                Some(length),
            ) => self.push(Kind::Text, length),
            ("begin" | "end", Some(_)) => {
                let close = rest.find('}').map_or(length, |at| at + 1);
                self.push(Kind::Newline, close);
            }
            ("frac" | "dfrac" | "tfrac" | "cfrac", _) => self.push(Kind::Frac, length),
            // The size of something, not the number in it.
            ("left" | "right", _) if rest[length..].starts_with('|') => {
                self.push(Kind::Symbol, length + 1);
            }
            ("left" | "right", _) => {
                let dot = usize::from(rest[length..].starts_with('.'));
                self.skip(length + dot, false);
            }
            (
                "quad" | "qquad" | "thinspace" | "enspace" | "space" | "displaystyle" | "textstyle"
                | "big" | "Big" | "bigl" | "bigr" | "Bigl" | "Bigr" | "bf" | "rm" | "it"
                | "bfseries",
                _,
            ) => self.skip(length, true),
            ("newline" | "par", _) => self.push(Kind::Newline, length),
            ("times" | "cdot" | "ast", _) => self.push(Kind::Op('×'), length),
            ("div", _) => self.push(Kind::Op('÷'), length),
            ("pm" | "mp", _) => self.push(Kind::Op('±'), length),
            ("approx" | "simeq" | "cong" | "doteq", _) => self.push(Kind::Op('≈'), length),
            (
                "le" | "leq" | "leqslant" | "ge" | "geq" | "geqslant" | "lt" | "gt" | "ne" | "neq"
                | "in" | "notin" | "equiv" | "sim" | "mid" | "nmid" | "propto",
                _,
            ) => self.push(Kind::Op('≤'), length),
            (
                "to" | "rightarrow" | "Rightarrow" | "longrightarrow" | "implies" | "iff"
                | "therefore",
                _,
            ) => self.push(Kind::Punct('→'), length),
            ("circ" | "degree", _) => self.push(Kind::Degree, length),
            ("dots" | "ldots" | "cdots", _) => self.push(Kind::Punct('…'), length),
            _ => self.push(Kind::Symbol, length),
        }
    }

    /// A backslash and a character that is not a letter.
    fn escape(&mut self) {
        let Some(c) = self.rest()[1..].chars().next() else {
            return self.skip(1, false);
        };
        let length = 1 + c.len_utf8();
        match c {
            '(' | ')' | '[' | ']' | '$' => self.skip(length, false),
            ',' | ';' | ':' | '!' | ' ' | '>' | '\n' => self.skip(length, true),
            '%' => self.push(Kind::Percent, length),
            '\\' => self.push(Kind::Newline, length),
            '{' => self.push(Kind::Open('['), length),
            '}' => self.push(Kind::Close(']'), length),
            c => self.push(Kind::Punct(c), length),
        }
    }
}

fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x0300..=0x036F)
}

/// The length of the letters and digits that a text begins with.
fn word_length(text: &str) -> usize {
    text.char_indices()
        .find(|&(_, c)| !(is_letter(c) || digit(c).is_some() || is_mark(c)))
        .map_or(text.len(), |(at, _)| at)
}

/// What is between two digits of one numeral, as one character: a point, a comma,
/// or `_` for a thin space. With its length.
fn separator(text: &str) -> Option<(char, usize)> {
    const SEPARATORS: [(&str, char); 16] = [
        (".", '.'),
        ("．", '.'),
        ("٫", '.'),
        (",\\!", ','),
        (",\\! ", ','),
        ("{,}", ','),
        ("{,\\!}", ','),
        (",", ','),
        ("，", ','),
        ("٬", ','),
        ("\\,", '_'),
        ("\\;", '_'),
        ("\\ ", '_'),
        ("\u{202f}", '_'),
        ("\u{2009}", '_'),
        ("\u{a0}", '_'),
    ];
    SEPARATORS.iter().find_map(|(sign, means)| {
        let after = text.strip_prefix(sign)?;
        after.chars().next().and_then(digit)?;
        Some((*means, sign.len()))
    })
}

/// The digits and separators that a text begins with, and their length.
fn numeral_shape(text: &str) -> (String, usize) {
    let mut norm = String::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if let Some(value) = digit(c) {
            norm.push(value);
            at += c.len_utf8();
        } else if let Some((means, length)) = separator(&text[at..]) {
            norm.push(means);
            at += length;
        } else {
            break;
        }
    }
    (norm, at)
}

/// A numeral's value: groups of three or none, one point at most.
fn numeral_value(norm: &str) -> Option<Value> {
    let (whole, places) = norm.split_once('.').unwrap_or((norm, ""));
    if places.contains(['.', ',', '_']) {
        return None;
    }
    let mark = match (whole.contains(','), whole.contains('_')) {
        (false, false) => return Value::decimal(whole, places),
        (true, false) => ',',
        (false, true) => '_',
        (true, true) => return None,
    };
    let mut groups = whole.split(mark);
    let first = groups.next()?;
    let regular = (1..=3).contains(&first.len())
        && !first.starts_with('0')
        && groups.all(|group| group.len() == 3);
    regular.then(|| Value::decimal(&whole.replace(mark, ""), places))?
}

/// An exponent as in `1e-3`, if a text begins with one: its value, unless it is huge, and length.
fn exponent(text: &str) -> Option<(Option<i32>, usize)> {
    let after = text.strip_prefix(['e', 'E'])?;
    let digits = after.strip_prefix(['+', '-', '−']).unwrap_or(after);
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 || word_length(&digits[count..]) > 0 {
        return None;
    }
    let value = digits[..count].parse::<i32>().ok();
    let negative = digits.len() < after.len() && !after.starts_with('+');
    let length = text.len() - digits.len() + count;
    Some((value.map(|v| if negative { -v } else { v }), length))
}

/// The length of a tag such as `<answer>`, if a text begins with one.
fn tag(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('<')?;
    let name = inside.strip_prefix('/').unwrap_or(inside);
    let end = name.find(['<', '>', '\n'])?;
    let plain = name[..end]
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic());
    (plain && end < 40 && name[end..].starts_with('>')).then(|| text.len() - name.len() + end + 1)
}

/// A character that is neither letter nor digit, in one spelling, and how long it is here.
fn sign(c: char, rest: &str) -> (Kind, usize) {
    const LONG: [(&str, Kind); 12] = [
        ("-->", Kind::Punct('→')),
        ("->", Kind::Punct('→')),
        ("=>", Kind::Punct('→')),
        ("<<", Kind::Punct('»')),
        (">>", Kind::Punct('»')),
        ("!=", Kind::Op('≤')),
        ("<=", Kind::Op('≤')),
        (">=", Kind::Op('≤')),
        ("===", Kind::Op('=')),
        ("==", Kind::Op('=')),
        ("+/-", Kind::Op('±')),
        ("...", Kind::Punct('…')),
    ];
    if let Some((text, kind)) = LONG.iter().find(|(text, _)| rest.starts_with(text)) {
        return (kind.clone(), text.len());
    }
    let kind = match c {
        '-' | '−' | '－' | '‐' | '‑' | '﹣' => Kind::Op('-'),
        '–' => Kind::Op('–'),
        '+' | '＋' => Kind::Op('+'),
        '/' | '∕' | '⁄' | '／' => Kind::Op('/'),
        '÷' => Kind::Op('÷'),
        '×' | '✕' | '·' | '⋅' | '∙' | '∗' => Kind::Op('×'),
        '=' | '＝' => Kind::Op('='),
        '≈' | '≃' | '≅' | '≒' => Kind::Op('≈'),
        '±' | '∓' => Kind::Op('±'),
        '<' | '>' | '≤' | '≥' | '≠' | '∈' | '≡' | '≪' | '≫' => Kind::Op('≤'),
        '^' | '＾' => Kind::Op('^'),
        '%' | '％' => Kind::Percent,
        '°' | 'º' | '℃' | '℉' => Kind::Degree,
        '(' | '（' => Kind::Open('('),
        ')' | '）' => Kind::Close(')'),
        '[' | '［' | '【' => Kind::Open('['),
        ']' | '］' | '】' => Kind::Close(']'),
        '{' => Kind::Open('{'),
        '}' => Kind::Close('}'),
        '"' | '“' | '”' | '„' | '「' | '」' => Kind::Punct('"'),
        '\'' | '‘' | '’' => Kind::Punct('\''),
        '，' | '、' => Kind::Punct(','),
        '：' => Kind::Punct(':'),
        '；' => Kind::Punct(';'),
        '。' | '．' => Kind::Punct('.'),
        '！' => Kind::Punct('!'),
        '⇒' | '→' | '➜' | '⟹' => Kind::Punct('→'),
        '‰' | '′' | '″' | '√' | '∛' | '\u{fe0f}' | '\u{20e3}' => Kind::Symbol,
        // Superscripts and subscripts, and signs of mathematics.
        '¹' | '²' | '³' => Kind::Symbol,
        c if matches!(u32::from(c), 0x2070..=0x209F | 0x2200..=0x22FF) => Kind::Symbol,
        c if c.is_numeric() => Kind::Number(None),
        c => Kind::Punct(c),
    };
    (kind, c.len_utf8())
}
