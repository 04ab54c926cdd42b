//! YAML as a tree with the position of everything in it: [`YamlNode`], built from
//! the events of `saphyr-parser`.
//!
//! Plain scalars are resolved by YAML 1.2's core schema (section 10.3.2);
//! anchors, aliases and merge keys are expanded, within bounds.

mod tree;

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as RawSpan, StrInput, Tag};

use super::diagnostic::Problem;
use super::scalar::resolve;
pub use tree::{Entry, Size, Span, Value, YamlNode};

/// Levels of nesting, aliases expanded.
const MAX_DEPTH: usize = 64;
/// Nodes in a file, aliases expanded: twenty thousand stages and more.
const MAX_NODES: usize = 1_000_000;
/// Bytes of text that aliases may expand to: the most that a file may have.
pub(super) const MAX_ALIASED_BYTES: usize = 16 << 20;
/// Bytes of memory for the values of anchors, each of which is kept whole.
const MAX_ANCHORED_BYTES: usize = 64 << 20;
/// Lines of a file.
const MAX_LINES: usize = 1_000_000;
/// Bytes of a key, more than any name needs.
const MAX_KEY: usize = 1024;

/// Reads one document.
///
/// The tree is returned even when it has problems (duplicate keys, unknown tags), so
/// that the rest can be checked too, but not after a syntax error. An empty document
/// is null.
pub(super) fn parse(text: &str) -> (Option<YamlNode>, Vec<Problem>) {
    parse_within(text, MAX_ALIASED_BYTES)
}

/// The same with a limit on the bytes that aliases expand to.
pub(super) fn parse_within(text: &str, aliased_bytes: usize) -> (Option<YamlNode>, Vec<Problem>) {
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
    anchors: HashMap<usize, (Rc<YamlNode>, Size)>,
    nodes: usize,
    /// Bytes that aliases have expanded to.
    aliased: usize,
    /// Bytes and nodes that are kept for later aliases.
    anchored: usize,
    most_aliased: usize,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<YamlNode, Fatal> {
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
        Ok(root.unwrap_or(YamlNode::new(Span::START, Value::Null)))
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
        // The parser includes blanks after a scalar.
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

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<YamlNode, Fatal> {
        self.count(1, depth, span)?;
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).map(|(n, s)| (n.clone(), *s)) else {
                    return Err(Box::new(Problem::new(
                        span,
                        "an alias inside the value it refers to",
                    )));
                };
                self.count(size.nodes, depth + size.depth, span)?;
                self.aliased = self.aliased.saturating_add(size.bytes);
                if self.aliased > self.most_aliased {
                    let most = self.most_aliased;
                    return Err(Box::new(
                        Problem::new(span, format!("aliases expand to more than {most} bytes of text"))
                            .label(format!("this one to {}", size.bytes))
                            .hint("an alias copies the value of its anchor: use fewer aliases, or make the value shorter"),
                    ));
                }
                return Ok((*node).clone());
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span);
                (
                    YamlNode {
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
                (YamlNode::new(span, Value::Seq(items)), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span);
                (
                    YamlNode::new(span, Value::Map(self.mapping(depth)?)),
                    anchor,
                )
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
                .saturating_add(size.nodes.saturating_mul(size_of::<YamlNode>()));
            if self.anchored > MAX_ANCHORED_BYTES {
                return Err(Box::new(
                    Problem::new(span, "anchors inside anchors hold too much text")
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
        let mut merged: Vec<YamlNode> = Vec::new();
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
                // `key:` with nothing after it: the parser's position is that of
                // whatever comes next.
                value.span = key_span;
            }
            if merge {
                merged.push(value);
                continue;
            }
            let first = positions
                .get(&key.raw)
                .map(|at: &usize| entries[*at].key_span);
            if let Some(problem) = key_problem(&key, key_span, first) {
                self.problems.push(problem);
                continue;
            }
            positions.insert(key.raw.clone(), entries.len());
            entries.push(Entry {
                key: key.raw,
                key_span,
                value,
            });
        }
        self.merge(merged, &mut entries, &mut positions);
        Ok(entries)
    }

    /// Adds what `<<` refers to, except for keys that the mapping has itself.
    fn merge(
        &mut self,
        merged: Vec<YamlNode>,
        entries: &mut Vec<Entry>,
        positions: &mut HashMap<String, usize>,
    ) {
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
                    format!("`{text}` does not match the tag `{tag}`"),
                ));
                Value::Invalid
            }
        }
    }
}

/// What is wrong with a key; `first` is where the mapping has it already.
fn key_problem(key: &YamlNode, span: Span, first: Option<Span>) -> Option<Problem> {
    if matches!(key.value, Value::Seq(_) | Value::Map(_) | Value::Invalid) {
        let message = "a key must be a word, not a list or a mapping";
        return Some(Problem::new(span, message));
    }
    if key.raw.len() > MAX_KEY {
        let message = format!(
            "a key of {} bytes is too long: at most {MAX_KEY}",
            key.raw.len()
        );
        return Some(Problem::new(span, message).hint("put a long text after the colon"));
    }
    let first = first?;
    let message = format!("key `{}` is written twice", key.raw);
    Some(Problem::new(span, message).hint(format!(
        "first written at line {}, column {}: keep one of them",
        first.line, first.column
    )))
}

#[cfg(test)]
mod tests;
