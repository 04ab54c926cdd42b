//! A template's tokens, as Jinja2's lexer makes them with `trim_blocks` and
//! `lstrip_blocks`: [`tokenize`].

use super::ast::Text;
use super::error::{Error, Result};
use super::unicode::is_space;

/// Kind of a token, with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Data(Text),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(Text),
    Str(Text),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

/// A token and its line.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) line: usize,
}

/// The longest first, as they are tried.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// The tokens of a template.
pub(super) fn tokenize(source: &str) -> Result<Vec<Token>> {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    let mut lexer = Lexer {
        rest: &text,
        line: 1,
        line_starting: true,
        tokens: Vec::new(),
    };
    while !lexer.rest.is_empty() {
        lexer.root()?;
    }
    lexer.push(Kind::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    /// Whether what was consumed last ended in a newline.
    line_starting: bool,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, kind: Kind) {
        let line = self.line;
        self.tokens.push(Token { kind, line });
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::new(message).at(self.line))
    }

    /// Takes `len` bytes.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        if !taken.is_empty() {
            self.line_starting = taken.ends_with('\n');
        }
        taken
    }

    fn take_space(&mut self) {
        let len = self.rest.len() - self.rest.trim_start_matches(is_space).len();
        self.take(len);
    }

    /// Template text up to a tag, and the tag.
    fn root(&mut self) -> Result<()> {
        let begin = self
            .rest
            .as_bytes()
            .windows(2)
            .position(|pair| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#'));
        let Some(begin) = begin else {
            let len = self.rest.len();
            return self.data(len, len);
        };
        let after = &self.rest[begin + 2..];
        let sign = after.chars().next().filter(|c| matches!(c, '-' | '+'));
        let keep = self.kept(&self.rest[..begin], sign, &self.rest[begin..begin + 2]);
        self.data(begin, keep)?;
        let raw = (&self.rest[..2] == "{%")
            .then(|| raw_begin(self.rest))
            .flatten();
        if let Some(len) = raw {
            self.take(len);
            return self.raw();
        }
        let tag = self.take(2 + usize::from(sign.is_some()));
        match &tag[..2] {
            "{#" => self.comment(),
            "{%" => {
                self.push(Kind::BlockBegin);
                self.expression("%}")?;
                Ok(())
            }
            _ => {
                self.push(Kind::VariableBegin);
                self.expression("}}")
            }
        }
    }

    /// How much of the text before a tag stays.
    fn kept(&self, text: &str, sign: Option<char>, tag: &str) -> usize {
        if sign == Some('-') {
            return text.trim_end_matches(is_space).len();
        }
        if sign != Some('+') && tag != "{{" {
            let line = text.rfind('\n').map_or(0, |i| i + 1);
            if (line > 0 || self.line_starting) && text[line..].chars().all(is_space) {
                return line;
            }
        }
        text.len()
    }

    /// Takes `len` bytes of template text, of which `keep` stay.
    fn data(&mut self, len: usize, keep: usize) -> Result<()> {
        let line = self.line;
        let text = self.take(len);
        if keep > 0 {
            self.tokens.push(Token {
                kind: Kind::Data(text[..keep].into()),
                line,
            });
        }
        Ok(())
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest.find("#}") else {
            return self.fail("Missing end of comment tag");
        };
        let minus = self.rest[..end].ends_with('-');
        let plus = self.rest[..end].ends_with('+');
        self.take(end + 2);
        self.after_end(minus, plus);
        Ok(())
    }

    /// White space after a block's or comment's end.
    fn after_end(&mut self, minus: bool, plus: bool) {
        if minus {
            self.take_space();
        } else if !plus && self.rest.starts_with('\n') {
            self.take(1);
        }
    }

    fn raw(&mut self) -> Result<()> {
        let mut from = 0;
        loop {
            let Some(begin) = self.rest[from..].find("{%").map(|i| i + from) else {
                return self.fail("Missing end of raw directive");
            };
            let after = &self.rest[begin + 2..];
            let sign = after.chars().next().filter(|c| matches!(c, '-' | '+'));
            let inner = after[usize::from(sign.is_some())..].trim_start_matches(is_space);
            let end = inner
                .strip_prefix("endraw")
                .map(|t| t.trim_start_matches(is_space));
            if let Some(end) = end {
                let minus = end.starts_with("-%}");
                let plus = end.starts_with("+%}");
                if minus || plus || end.starts_with("%}") {
                    let keep = self.kept(&self.rest[..begin], sign, "{%");
                    let consumed =
                        self.rest.len() - end.len() + 2 + usize::from(minus || plus) - begin;
                    self.data(begin, keep)?;
                    self.take(consumed);
                    self.after_end(minus, plus);
                    return Ok(());
                }
            }
            from = begin + 2;
        }
    }

    /// Tokens inside a tag, up to its end.
    fn expression(&mut self, end: &'static str) -> Result<()> {
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            if open.is_empty() && self.tag_end(end) {
                return Ok(());
            }
            let Some(c) = self.rest.chars().next() else {
                return Ok(());
            };
            if is_space(c) {
                self.take_space();
            } else if c.is_ascii_digit() {
                self.number()?;
            } else if c == '_' || c.is_alphanumeric() {
                let len = self
                    .rest
                    .find(|c: char| c != '_' && !c.is_alphanumeric())
                    .unwrap_or(self.rest.len());
                let line = self.line;
                let name = self.take(len).into();
                self.tokens.push(Token {
                    kind: Kind::Name(name),
                    line,
                });
            } else if c == '"' || c == '\'' {
                self.string(c)?;
            } else if let Some(op) = OPERATORS.iter().find(|op| self.rest.starts_with(**op)) {
                match *op {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" => match open.pop() {
                        None => return self.fail(format!("unexpected '{op}'")),
                        Some(expected) if expected != *op => {
                            return self.fail(format!("unexpected '{op}', expected '{expected}'"));
                        }
                        Some(_) => {}
                    },
                    _ => {}
                }
                self.push(Kind::Op(op));
                self.take(op.len());
            } else {
                return self.fail(format!("unexpected char {c:?}"));
            }
        }
    }

    /// Takes the end of a tag, if it stands here.
    fn tag_end(&mut self, end: &'static str) -> bool {
        let block = end == "%}";
        let sign = self
            .rest
            .chars()
            .next()
            .filter(|c| *c == '-' || (block && *c == '+'));
        if !self.rest[usize::from(sign.is_some())..].starts_with(end) {
            return false;
        }
        self.push(if block {
            Kind::BlockEnd
        } else {
            Kind::VariableEnd
        });
        self.take(2 + usize::from(sign.is_some()));
        if block {
            self.after_end(sign == Some('-'), sign == Some('+'));
        } else if sign == Some('-') {
            self.take_space();
        }
        true
    }

    fn number(&mut self) -> Result<()> {
        let after_dot = matches!(
            self.tokens.last(),
            Some(Token {
                kind: Kind::Op("."),
                ..
            })
        );
        match float_len(self.rest.as_bytes()).filter(|_| !after_dot) {
            Some(len) => self.float(len),
            None => self.integer(),
        }
    }

    fn float(&mut self, len: usize) -> Result<()> {
        let text = self.rest[..len].replace('_', "");
        let Ok(value) = text.parse::<f64>() else {
            return self.fail(format!("number {text:?} cannot be read"));
        };
        self.push(Kind::Float(value));
        self.take(len);
        Ok(())
    }

    fn integer(&mut self) -> Result<()> {
        let bytes = self.rest.as_bytes();
        let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
            Some(b'x') if bytes[0] == b'0' => 16,
            Some(b'o') if bytes[0] == b'0' => 8,
            Some(b'b') if bytes[0] == b'0' => 2,
            _ => 10,
        };
        let start = if radix == 10 { 0 } else { 2 };
        let zeros = radix == 10 && bytes[0] == b'0';
        let digit = |b: &u8| {
            if zeros {
                // Zeros alone; what follows is a number of its own, a mistake.
                *b == b'0'
            } else {
                char::from(*b).is_digit(radix)
            }
        };
        let mut len = start;
        while bytes
            .get(len)
            .is_some_and(|b| digit(b) || (*b == b'_' && bytes.get(len + 1).is_some_and(digit)))
        {
            len += 1;
        }
        if len == start {
            // `0x` without digits is the number 0 and a name.
            self.push(Kind::Int(0));
            self.take(1);
            return Ok(());
        }
        let text = self.rest[start..len].replace('_', "");
        let value = i128::from_str_radix(&text, radix).map_err(|_| {
            Error::unsupported(format_args!("the number {}", &self.rest[..len])).at(self.line)
        })?;
        self.push(Kind::Int(value));
        self.take(len);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let mut escaped = false;
        let mut end = None;
        for (i, c) in self.rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                end = Some(i);
                break;
            }
        }
        let Some(end) = end else {
            return self.fail(format!("unexpected char {quote:?}"));
        };
        let value = unescape(&self.rest[1..end]).map_err(|e| e.at(self.line))?;
        self.push(Kind::Str(value.into()));
        self.take(end + 1);
        Ok(())
    }
}

/// Length of the decimal number at the start if it has a fraction or an exponent.
fn float_len(bytes: &[u8]) -> Option<usize> {
    // The end of a run of digits, single underscores between them.
    let digits = |from: usize| {
        let mut i = from;
        while i < bytes.len()
            && (bytes[i].is_ascii_digit()
                || (bytes[i] == b'_'
                    && i > from
                    && bytes[i - 1] != b'_'
                    && bytes.get(i + 1).is_some_and(u8::is_ascii_digit)))
        {
            i += 1;
        }
        i
    };
    let whole = digits(0);
    let mut len = whole;
    if bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit) {
        len = digits(len + 1);
    }
    if matches!(bytes.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
        let end = digits(len + 1 + sign);
        if end > len + 1 + sign {
            len = end;
        }
    }
    (len > whole).then_some(len)
}

/// Length of `{% raw %}` at the start of `rest`.
fn raw_begin(rest: &str) -> Option<usize> {
    let mut t = rest.strip_prefix("{%")?;
    t = t.strip_prefix(['-', '+']).unwrap_or(t);
    t = t.trim_start_matches(is_space).strip_prefix("raw")?;
    t = t.trim_start_matches(is_space);
    t = match t.strip_prefix("-%}") {
        Some(t) => t.trim_start_matches(is_space),
        None => t.strip_prefix("%}")?,
    };
    Some(rest.len() - t.len())
}

/// Python's `unicode-escape`.
fn unescape(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(c) = chars.next() else {
            return Err(Error::new("\\ at end of string"));
        };
        let hex = match c {
            '\n' => continue,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' => c,
            '0'..='7' => {
                let mut code = c.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    chars.next();
                }
                char::from_u32(code).unwrap_or('\u{FFFD}')
            }
            'x' | 'u' | 'U' => {
                let digits = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let text: String = chars.by_ref().take(digits).collect();
                let code = (text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit()))
                    .then(|| u32::from_str_radix(&text, 16).ok())
                    .flatten()
                    .ok_or_else(|| Error::new(format!("truncated \\{c} escape")))?;
                char::from_u32(code).ok_or_else(|| {
                    if code <= 0xFFFF {
                        Error::unsupported(format_args!("\\u{code:04x}, half a character,"))
                    } else {
                        Error::new("illegal Unicode character")
                    }
                })?
            }
            'N' => return Err(Error::unsupported("a character's name in a string")),
            other if other.is_ascii() => {
                out.push('\\');
                other
            }
            other => {
                return Err(Error::unsupported(format_args!("`\\{other}` in a string")));
            }
        };
        out.push(hex);
    }
    Ok(out)
}
