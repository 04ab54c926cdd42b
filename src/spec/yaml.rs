//! YAML as a tree that knows where everything is written: [`Node`], built from
//! the events of `saphyr-parser`.
//!
//! Plain scalars are resolved by YAML 1.2's core schema (section 10.3.2);
//! anchors, aliases and merge keys are expanded, within bounds.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as RawSpan, StrInput, Tag};

use super::diagnostic::Problem;
use super::scalar::resolve;

/// Levels of nesting, aliases expanded.
const MAX_DEPTH: usize = 64;
/// Nodes in a file, aliases expanded: twenty thousand stages and more.
const MAX_NODES: usize = 1_000_000;
/// Bytes of text that aliases stand for: as many as a file may have at most.
pub(super) const MAX_ALIASED_BYTES: usize = 16 << 20;
/// Bytes of memory for what anchors name, each kept as a whole.
const MAX_ANCHORED_BYTES: usize = 64 << 20;
/// Lines of a file.
const MAX_LINES: usize = 1_000_000;
/// Bytes of a key. Nothing that has a name here has one of that length.
const MAX_KEY: usize = 1024;

/// Where something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Index of the `--set` that it comes from; none for the file.
    pub set: Option<usize>,
    /// From 1; 0 when it is nowhere in the text.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters, up to the end of the line at most.
    pub length: usize,
}

impl Span {
    /// The beginning of the file, where what is missing is reported.
    pub const START: Self = Self {
        set: None,
        line: 1,
        column: 1,
        length: 1,
    };
}

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
    /// A scalar as it is written, without quotes; empty for collections.
    pub raw: String,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a point or exponent, or a whole one that does not fit.
    Float(f64),
    /// Text; anything in quotes.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the file, keys unique.
    Map(Vec<Entry>),
    /// Something that is already reported as wrong; accepted everywhere.
    Invalid,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is written.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A collection or a value that is not written as a scalar.
    pub fn new(span: Span, value: Value) -> Self {
        Self {
            span,
            value,
            raw: String::new(),
        }
    }

    /// The entry of that key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// What it is, in words, for "found ...".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing (null)".to_owned(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Int(_) | Value::Float(_) => format!("the number {}", self.raw),
            Value::Str(s) if s.is_empty() => "empty text".to_owned(),
            Value::Str(s) if s.chars().count() > 60 => {
                format!("the text \"{}…\"", s.chars().take(57).collect::<String>())
            }
            Value::Str(s) => format!("the text \"{s}\""),
            Value::Seq(items) if items.is_empty() => "an empty list".to_owned(),
            Value::Map(entries) if entries.is_empty() => "an empty mapping".to_owned(),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
            Value::Invalid => "a wrong value".to_owned(),
        }
    }

    /// Nodes in it, itself included, levels below it, and bytes of its text.
    pub(super) fn measure(&self) -> Size {
        let mut size = Size {
            nodes: 1,
            depth: 0,
            bytes: self.raw.len(),
        };
        let mut add = |key: &str, node: &Node| {
            let below = node.measure();
            size.nodes += below.nodes;
            size.depth = size.depth.max(below.depth + 1);
            size.bytes += key.len() + below.bytes;
        };
        match &self.value {
            Value::Seq(items) => items.iter().for_each(|item| add("", item)),
            Value::Map(entries) => entries.iter().for_each(|e| add(&e.key, &e.value)),
            _ => {}
        }
        size
    }
}

/// How large a tree is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub nodes: usize,
    pub depth: usize,
    /// Of keys and scalars, as they are written.
    pub bytes: usize,
}

/// Reads one document.
///
/// The tree is there even when there are problems with it (duplicate keys,
/// unknown tags), so that the rest can be checked too; not after an error of
/// syntax. An empty document is null.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Problem>) {
    parse_within(text, MAX_ALIASED_BYTES)
}

/// The same with aliases that stand for so many bytes at most.
pub(super) fn parse_within(text: &str, aliased_bytes: usize) -> (Option<Node>, Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.bytes().filter(|b| *b == b'\n').count() > MAX_LINES {
        let span = Span {
            line: MAX_LINES,
            ..Span::START
        };
        return (
            None,
            vec![Problem::new(span, format!("more than {MAX_LINES} lines"))],
        );
    }
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        lines: text.lines().map(|l| l.chars().collect()).collect(),
        anchors: HashMap::new(),
        nodes: 0,
        aliased: 0,
        anchored: 0,
        most_aliased: aliased_bytes,
        problems: Vec::new(),
    };
    let root = match builder.document() {
        Ok(root) => Some(root),
        Err(problem) => {
            builder.problems.push(*problem);
            None
        }
    };
    (root, builder.problems)
}

type Fatal = Box<Problem>;

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Each line's characters.
    lines: Vec<Vec<char>>,
    anchors: HashMap<usize, (Rc<Node>, Size)>,
    nodes: usize,
    /// Bytes that aliases stood for so far.
    aliased: usize,
    /// Bytes and nodes that are kept for aliases to come.
    anchored: usize,
    most_aliased: usize,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, Fatal> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(Box::new(
                        Problem::new(span, "a second document begins here")
                            .hint("a pipeline file holds one document: remove the `---`"),
                    ));
                }
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        Ok(root.unwrap_or(Node::new(Span::START, Value::Null)))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.span(span))),
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Err(error)) => {
                let mark = error.marker();
                let line = mark.line().clamp(1, self.lines.len().max(1));
                let span = Span {
                    set: None,
                    line,
                    column: mark.col() + 1,
                    length: 1,
                };
                Err(Box::new(Problem::new(
                    span,
                    format!("this is not YAML: {}", error.info()),
                )))
            }
        }
    }

    fn span(&self, raw: RawSpan) -> Span {
        let (start, end) = (raw.start, raw.end);
        let line = self.lines.get(start.line().saturating_sub(1));
        let rest = line.and_then(|l| l.get(start.col()..)).unwrap_or_default();
        let written = if start.line() == end.line() {
            let length = end.col().saturating_sub(start.col());
            rest.get(..length).unwrap_or(rest)
        } else {
            rest
        };
        // The parser counts blanks behind a scalar to it.
        let length = written
            .iter()
            .rposition(|c| !c.is_whitespace())
            .map_or(0, |i| i + 1);
        Span {
            set: None,
            line: start.line(),
            column: start.col() + 1,
            length: length.max(1),
        }
    }

    fn count(&mut self, nodes: usize, depth: usize, span: Span) -> Result<(), Fatal> {
        self.nodes += nodes;
        if depth > MAX_DEPTH {
            return Err(Box::new(Problem::new(
                span,
                format!("nested deeper than {MAX_DEPTH} levels"),
            )));
        }
        if self.nodes > MAX_NODES {
            return Err(Box::new(Problem::new(
                span,
                format!("more than {MAX_NODES} values, aliases expanded"),
            )));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Fatal> {
        self.count(1, depth, span)?;
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).map(|(n, s)| (n.clone(), *s)) else {
                    return Err(Box::new(Problem::new(
                        span,
                        "an alias inside the value that it stands for",
                    )));
                };
                self.count(size.nodes, depth + size.depth, span)?;
                self.aliased = self.aliased.saturating_add(size.bytes);
                if self.aliased > self.most_aliased {
                    let most = self.most_aliased;
                    return Err(Box::new(
                        Problem::new(span, format!("aliases stand for more than {most} bytes of text"))
                            .label(format!("this one for {}", size.bytes))
                            .hint("an alias is a copy of what its anchor names: leave some of them out, or make that shorter"),
                    ));
                }
                return Ok((*node).clone());
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span);
                (
                    Node {
                        span,
                        value,
                        raw: text.into_owned(),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", span);
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (Event::StreamEnd, at) => {
                            return Err(Box::new(Problem::new(at, "the list does not end")));
                        }
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
                (Node::new(span, Value::Seq(items)), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span);
                (Node::new(span, Value::Map(self.mapping(depth)?)), anchor)
            }
            _ => {
                return Err(Box::new(Problem::new(
                    span,
                    "this is not YAML: a value is missing here",
                )));
            }
        };
        if anchor > 0 {
            // An anchor inside an anchor is kept twice.
            let size = node.measure();
            self.anchored = self
                .anchored
                .saturating_add(size.bytes)
                .saturating_add(size.nodes.saturating_mul(size_of::<Node>()));
            if self.anchored > MAX_ANCHORED_BYTES {
                return Err(Box::new(
                    Problem::new(span, "too much text stands under anchors inside anchors")
                        .hint("remove the anchors (`&name`) that no alias (`*name`) uses"),
                ));
            }
            self.anchors.insert(anchor, (Rc::new(node.clone()), size));
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<Entry>, Fatal> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut positions: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            let merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = match event {
                Event::MappingEnd => break,
                Event::StreamEnd => {
                    return Err(Box::new(Problem::new(key_span, "the mapping does not end")));
                }
                event => self.node(event, key_span, depth + 1)?,
            };
            let (event, span) = self.next()?;
            let mut value = self.node(event, span, depth + 1)?;
            if value.value == Value::Null && value.raw.is_empty() {
                // `key:` with nothing behind: the parser's position is that of
                // whatever comes next.
                value.span = key_span;
            }
            if merge {
                merged.push(value);
                continue;
            }
            if matches!(key.value, Value::Seq(_) | Value::Map(_) | Value::Invalid) {
                self.problems.push(Problem::new(
                    key_span,
                    "a key must be a word, not a list or a mapping",
                ));
                continue;
            }
            if key.raw.len() > MAX_KEY {
                self.problems.push(
                    Problem::new(
                        key_span,
                        format!("a key of {} bytes: at most {MAX_KEY}", key.raw.len()),
                    )
                    .hint("a long text belongs behind the colon"),
                );
                continue;
            }
            if let Some(first) = positions.get(&key.raw) {
                let at = entries[*first].key_span;
                self.problems.push(
                    Problem::new(key_span, format!("key `{}` is written twice", key.raw)).hint(
                        format!(
                            "first written at line {}, column {}: keep one of them",
                            at.line, at.column
                        ),
                    ),
                );
                continue;
            }
            positions.insert(key.raw.clone(), entries.len());
            entries.push(Entry {
                key: key.raw,
                key_span,
                value,
            });
        }
        for node in merged {
            let sources = match node.value {
                Value::Seq(items) => items,
                _ => vec![node],
            };
            for source in sources {
                let Value::Map(inherited) = source.value else {
                    self.problems.push(Problem::new(
                        source.span,
                        format!(
                            "`<<` takes a mapping or a list of mappings, found {}",
                            source.describe()
                        ),
                    ));
                    continue;
                };
                for entry in inherited {
                    if !positions.contains_key(&entry.key) {
                        positions.insert(entry.key.clone(), entries.len());
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(entries)
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, allowed: &str, span: Span) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == allowed)
        {
            self.problems
                .push(Problem::new(span, format!("unknown tag `{tag}`")).hint("remove it"));
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Value {
        let Some(tag) = tag else {
            return if style == ScalarStyle::Plain {
                resolve(text)
            } else {
                Value::Str(text.to_owned())
            };
        };
        let suffix = if tag.is_yaml_core_schema() {
            tag.suffix.as_str()
        } else {
            ""
        };
        let value = match (suffix, resolve(text)) {
            ("str", _) => return Value::Str(text.to_owned()),
            ("null" | "bool" | "int" | "float", value) => value,
            _ => {
                self.problems
                    .push(Problem::new(span, format!("unknown tag `{tag}`")).hint("remove it"));
                return Value::Invalid;
            }
        };
        match (suffix, &value) {
            ("null", Value::Null)
            | ("bool", Value::Bool(_))
            | ("int", Value::Int(_))
            | ("float", Value::Float(_)) => value,
            ("float", Value::Int(i)) => Value::Float(*i as f64),
            _ => {
                self.problems.push(Problem::new(
                    span,
                    format!("`{text}` is not of the tag `{tag}`"),
                ));
                Value::Invalid
            }
        }
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
