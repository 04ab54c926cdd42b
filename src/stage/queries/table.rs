//! Tables of delimited text (RFC 4180), read strictly: [`read`]. A quote that
//! does not close where a field ends is refused, as it would join or cut texts.

use std::path::Path;

use serde_json::{Map, Value};

use super::read::{Place, Record};
use crate::kind::queries::Delimiter;
use crate::protocol::Failure;

/// Possible delimiters, looked for in the header in this order.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// A row with the line that it begins on.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) fields: Vec<String>,
}

/// The word that `source.delimiter` has for a character.
pub(super) fn word(delimiter: char) -> &'static str {
    match delimiter {
        ';' => "semicolon",
        '\t' => "tab",
        '|' => "pipe",
        _ => "comma",
    }
}

/// The character of a delimiter; none for `auto`.
pub(super) fn delimiter(asked: Delimiter) -> Option<char> {
    match asked {
        Delimiter::Auto => None,
        Delimiter::Comma => Some(','),
        Delimiter::Semicolon => Some(';'),
        Delimiter::Tab => Some('\t'),
        Delimiter::Pipe => Some('|'),
    }
}

/// A problem of a table: the line, and what is wrong there.
#[derive(Debug)]
pub(super) struct Problem {
    line: u64,
    what: String,
}

impl Problem {
    fn failure(self, path: &Path, delimiter: char) -> Failure {
        Failure::new(format!("{}, line {}: {}", path.display(), self.line, self.what)).hint(format!(
            "the delimiter here is `{}` (`source.delimiter`); a text with a delimiter, a quote or a newline must be quoted, with every quote inside doubled",
            word(delimiter)
        ))
    }
}

/// The records of a table whose first row is its header. Every row has a field
/// for every column.
pub(super) fn read(path: &Path, text: &str, delimiter: char) -> Result<Vec<Record>, Failure> {
    let fail = |problem: Problem| problem.failure(path, delimiter);
    let mut rows = rows(text, delimiter).map_err(fail)?.into_iter();
    let Some(header) = rows.next() else {
        return Ok(Vec::new());
    };
    let names = names(&header).map_err(fail)?;
    rows.map(|row| {
        if row.fields.len() != names.len() {
            return Err(fail(Problem {
                line: row.line,
                what: format!(
                    "{} where the header (line {}) has {}",
                    fields(row.fields.len()),
                    header.line,
                    names.len()
                ),
            }));
        }
        let record: Map<String, Value> = names
            .iter()
            .cloned()
            .zip(row.fields.into_iter().map(Value::from))
            .collect();
        Ok(Record {
            place: Place::Line(row.line),
            value: Value::Object(record),
        })
    })
    .collect()
}

fn fields(count: usize) -> String {
    match count {
        1 => "1 field".to_owned(),
        n => format!("{n} fields"),
    }
}

/// The header's names, without the blanks around them. A column without a name is
/// named after its position.
fn names(header: &Row) -> Result<Vec<String>, Problem> {
    let mut names: Vec<String> = Vec::with_capacity(header.fields.len());
    for (index, field) in header.fields.iter().enumerate() {
        let name = match field.trim() {
            "" => format!("column {}", index + 1),
            name => name.to_owned(),
        };
        if names.contains(&name) {
            return Err(Problem {
                line: header.line,
                what: format!("two columns are named `{name}`"),
            });
        }
        names.push(name);
    }
    Ok(names)
}

/// The delimiters in the first row, outside quotes.
pub(super) fn in_header(text: &str) -> Vec<char> {
    let mut quoted = false;
    let mut found = Vec::new();
    let text = text.trim_start_matches(['\n', '\r']);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '\n' | '\r' if !quoted => break,
            c if !quoted && DELIMITERS.contains(&c) && !found.contains(&c) => found.push(c),
            _ => {}
        }
    }
    DELIMITERS
        .into_iter()
        .filter(|c| found.contains(c))
        .collect()
}

/// The delimiter of a table: the one that its header has. Where the header has
/// several, the one by which all rows have the same number of fields.
pub(super) fn sniff(path: &Path, text: &str) -> Result<char, Failure> {
    let there = in_header(text);
    match there[..] {
        [] => return Ok(','),
        [only] => return Ok(only),
        _ => {}
    }
    let mut regular = there.iter().copied().filter(|&d| is_regular(text, d));
    match (regular.next(), regular.next()) {
        (Some(only), None) => Ok(only),
        _ => {
            let shown: Vec<String> = there.iter().map(|&c| format!("`{}`", word(c))).collect();
            Err(Failure::new(format!(
                "{}, line 1: the header has {}: which of them separates the fields?",
                path.display(),
                shown.join(" and ")
            ))
            .hint("name it: `source.delimiter`"))
        }
    }
}

fn is_regular(text: &str, delimiter: char) -> bool {
    let Ok(rows) = rows(text, delimiter) else {
        return false;
    };
    let columns = rows.first().map_or(0, |row| row.fields.len());
    columns > 1 && rows.iter().all(|row| row.fields.len() == columns)
}

/// The header's names, where the text begins with a row.
pub(super) fn header(text: &str, delimiter: char) -> Vec<String> {
    let mut reader = Reader::new(text, delimiter);
    match reader.row() {
        Ok(Some(row)) => row.fields.iter().map(|f| f.trim().to_owned()).collect(),
        _ => Vec::new(),
    }
}

fn rows(text: &str, delimiter: char) -> Result<Vec<Row>, Problem> {
    let mut reader = Reader::new(text, delimiter);
    let mut rows = Vec::new();
    while let Some(row) = reader.row()? {
        rows.push(row);
    }
    Ok(rows)
}

/// Reads rows one after the other.
struct Reader<'t> {
    rest: &'t str,
    delimiter: char,
    line: u64,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str, delimiter: char) -> Self {
        Self {
            rest: text,
            delimiter,
            line: 1,
        }
    }

    /// The next row; lines of white space alone are skipped.
    fn row(&mut self) -> Result<Option<Row>, Problem> {
        loop {
            let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
            let blank = self.rest[..end]
                .chars()
                .all(|c| c.is_whitespace() && c != self.delimiter);
            if !blank || self.rest.is_empty() {
                break;
            }
            self.rest = &self.rest[end..];
            self.line_end();
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        let mut fields = Vec::new();
        let mut odd = 0;
        loop {
            let quoted = self.rest.starts_with('"');
            let field = if quoted {
                self.quoted()?
            } else {
                self.plain()?
            };
            odd += usize::from(!quoted && field.matches('"').count() % 2 == 1);
            fields.push(field);
            match self.rest.strip_prefix(self.delimiter) {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        if odd > 1 {
            return Err(Problem {
                line,
                what: format!(
                    "a quote in the middle of a field and another one after a {}: is that one text or two?",
                    word(self.delimiter)
                ),
            });
        }
        self.line_end();
        Ok(Some(Row { line, fields }))
    }

    /// Skips the end of a line, if one is next.
    fn line_end(&mut self) {
        let ends = ["\r\n", "\n", "\r"];
        if let Some(rest) = ends.iter().find_map(|end| self.rest.strip_prefix(*end)) {
            self.rest = rest;
            self.line += 1;
        }
    }

    /// A field without quotes around it. Quotes in it are part of its text.
    fn plain(&mut self) -> Result<String, Problem> {
        let delimiter = self.delimiter;
        let ends = |c: char| c == delimiter || c == '\n' || c == '\r';
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        if field.trim_start().starts_with('"') {
            return Err(Problem {
                line: self.line,
                what: "blanks before a quote that opens a field".to_owned(),
            });
        }
        self.rest = rest;
        Ok(field.to_owned())
    }

    /// A field in quotes.
    fn quoted(&mut self) -> Result<String, Problem> {
        let opened = self.line;
        let mut field = String::new();
        self.rest = &self.rest[1..];
        loop {
            let Some(quote) = self.rest.find('"') else {
                return Err(Problem {
                    line: opened,
                    what: "a quote opens here and is never closed".to_owned(),
                });
            };
            let part = &self.rest[..quote];
            field.push_str(part);
            self.line += super::bytes::line_of(part.as_bytes()) - 1;
            self.rest = &self.rest[quote + 1..];
            if let Some(rest) = self.rest.strip_prefix('"') {
                field.push('"');
                self.rest = rest;
                continue;
            }
            let next = self.rest.chars().next();
            if next.is_none_or(|c| c == self.delimiter || c == '\n' || c == '\r') {
                return Ok(field);
            }
            let whence = match opened {
                line if line == self.line => String::new(),
                line => format!(" that a quote on line {line} opened"),
            };
            return Err(Problem {
                line: self.line,
                what: format!("a quote in the middle of a quoted field{whence}"),
            });
        }
    }
}
