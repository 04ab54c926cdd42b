//! `${params.x}`: [`Params`] puts the pipeline's parameters where they are
//! used.

use std::borrow::Cow;

use super::diagnostic::{Problem, Report};
use super::yaml::{Entry, MAX_ALIASED_BYTES, Size, Span, Value, YamlNode};
use crate::text::suggest;

/// Characters that one text may expand to.
const MAX_TEXT: usize = 64 * 1024;
/// Nodes copied and characters made for one value, and nodes that references expand to
/// in the whole pipeline; more means that nested parameters multiply.
const MAX_WORK: usize = 2_000_000;
/// Bytes of text that references expand to in the whole pipeline.
const MAX_BYTES: usize = MAX_ALIASED_BYTES;
/// Length of a chain of parameters that refer to each other.
const MAX_CHAIN: usize = 32;
/// Levels of nesting.
const MAX_DEPTH: usize = 128;

/// The parameters of a pipeline.
pub(super) struct Params<'a> {
    root: Option<&'a YamlNode>,
    report: &'a mut Report,
    work: usize,
}

/// A piece of a text.
enum Piece<'t> {
    Literal(&'t str),
    /// The inside of `${...}`, its offset in characters.
    Reference(&'t str, usize),
    /// `${` without `}`, its offset.
    Open(usize),
}

impl<'a> Params<'a> {
    /// `root` is the value of `params:`.
    pub fn new(root: Option<&'a YamlNode>, report: &'a mut Report) -> Self {
        Self {
            root,
            report,
            work: 0,
        }
    }

    /// Reports what is wrong in the parameters themselves, used or not.
    pub fn check(&mut self) {
        if let Some(YamlNode {
            value: Value::Map(entries),
            ..
        }) = self.root
        {
            for entry in entries {
                self.inside(&entry.value, &mut vec![entry.key.clone()], 0);
            }
        }
    }

    /// `node` with every reference replaced; what cannot be is reported and
    /// becomes [`Value::Invalid`].
    pub fn expand(&mut self, node: &YamlNode) -> YamlNode {
        self.inside(node, &mut Vec::new(), 0)
    }

    fn inside(&mut self, node: &YamlNode, chain: &mut Vec<String>, depth: usize) -> YamlNode {
        if depth > MAX_DEPTH {
            return self.refuse(Problem::new(
                node.span,
                format!("parameters nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        if !self.spend(1) {
            return self.refuse(too_much(node.span));
        }
        let value = match &node.value {
            Value::Str(text) if text.contains("${") => return self.text(text, node, chain, depth),
            Value::Seq(items) => Value::Seq(
                items
                    .iter()
                    .map(|n| self.inside(n, chain, depth + 1))
                    .collect(),
            ),
            Value::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|e| Entry {
                        value: self.inside(&e.value, chain, depth + 1),
                        ..e.clone_key()
                    })
                    .collect(),
            ),
            _ => return node.clone(),
        };
        YamlNode {
            span: node.span,
            value,
            raw: String::new(),
        }
    }

    fn text(
        &mut self,
        text: &str,
        node: &YamlNode,
        chain: &mut Vec<String>,
        depth: usize,
    ) -> YamlNode {
        let pieces = split(text);
        if let [Piece::Reference(name, offset)] = pieces.as_slice() {
            let Some(mut found) = self.lookup(name, self.at(node, name, *offset), chain, depth)
            else {
                return YamlNode::new(node.span, Value::Invalid);
            };
            // Of a scalar, the use is reported; of a collection, the part
            // that is wrong.
            if !matches!(found.value, Value::Seq(_) | Value::Map(_)) {
                found.span = node.span;
            }
            return found;
        }
        let mut out = String::new();
        let mut valid = true;
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Open(offset) => {
                    let span = self.at(node, "", offset);
                    self.report.add(
                        Problem::new(span, "`${` without `}`")
                            .hint("write `$${` for the characters `${` themselves"),
                    );
                    valid = false;
                }
                Piece::Reference(name, offset) => {
                    let span = self.at(node, name, offset);
                    match self.lookup(name, span, chain, depth) {
                        None => valid = false,
                        Some(found) => match found.value {
                            Value::Str(s) => out.push_str(&s),
                            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                                out.push_str(&found.raw)
                            }
                            Value::Invalid => valid = false,
                            Value::Null | Value::Seq(_) | Value::Map(_) => {
                                self.report.add(Problem::new(
                                    span,
                                    format!(
                                        "`{name}` is {}: it cannot be used inside text",
                                        found.describe()
                                    ),
                                ));
                                valid = false;
                            }
                        },
                    }
                }
            }
            if out.len() > MAX_TEXT {
                return self.refuse(Problem::new(
                    node.span,
                    format!("this text expands to more than {MAX_TEXT} bytes"),
                ));
            }
        }
        if !self.spend(out.len()) {
            return self.refuse(too_much(node.span));
        }
        let value = if valid {
            Value::Str(out.clone())
        } else {
            Value::Invalid
        };
        YamlNode {
            span: node.span,
            value,
            raw: out,
        }
    }

    /// The value of `params.a.b`, references in it replaced.
    fn lookup(
        &mut self,
        name: &str,
        span: Span,
        chain: &mut Vec<String>,
        depth: usize,
    ) -> Option<YamlNode> {
        let Some(path) = name.trim().strip_prefix("params.") else {
            self.report.add(
                Problem::new(span, format!("`${{{name}}}` is not a reference to a parameter"))
                    .hint("only `${params.NAME}` is replaced; write `$${` for the characters `${` themselves"),
            );
            return None;
        };
        if let Some(start) = chain.iter().position(|c| overlaps(c, path)) {
            let references = || chain[start + 1..].iter().map(String::as_str).chain([path]);
            if self
                .report
                .is_new_cycle(references().map(str::to_owned).collect())
            {
                let circle: Vec<&str> = [chain[start].as_str()]
                    .into_iter()
                    .chain(references())
                    .collect();
                let message = format!(
                    "parameters refer to each other in a cycle: {}",
                    circle.join(" -> ")
                );
                self.report.add(Problem::new(span, message));
            }
            return None;
        }
        if chain.len() >= MAX_CHAIN {
            self.report.add(Problem::new(
                span,
                format!("more than {MAX_CHAIN} parameters refer to each other"),
            ));
            return None;
        }
        chain.push(path.to_owned());
        let found = self.walk(path, span, chain, depth);
        chain.pop();
        let found = found?;
        let Size { nodes, bytes, .. } = found.measure();
        let (all_nodes, all_bytes) = &mut self.report.referenced;
        *all_nodes = all_nodes.saturating_add(nodes);
        *all_bytes = all_bytes.saturating_add(bytes);
        if *all_nodes > MAX_WORK {
            self.report.add(too_much(span));
            return None;
        }
        if *all_bytes > MAX_BYTES {
            self.report.add(
                Problem::new(
                    span,
                    format!("references expand to more than {MAX_BYTES} bytes of text"),
                )
                .label(format!("this one to {bytes}"))
                .hint("a reference copies its parameter: use it less often, or make it shorter"),
            );
            return None;
        }
        if !self.spend(nodes) {
            self.report.add(too_much(span));
            return None;
        }
        Some(found)
    }

    fn walk(
        &mut self,
        path: &str,
        span: Span,
        chain: &mut Vec<String>,
        depth: usize,
    ) -> Option<YamlNode> {
        // Borrowed until something is replaced: `params` may be large.
        let mut current = self.root.map(Cow::Borrowed);
        let mut seen = String::from("params");
        for segment in path.split('.') {
            let here = match current.take() {
                // A parameter that is another one as a whole.
                Some(node) if matches!(node.value, Value::Str(_)) => {
                    Some(Cow::Owned(self.inside(&node, chain, depth + 1)))
                }
                other => other,
            };
            if matches!(here.as_deref().map(|n| &n.value), Some(Value::Invalid)) {
                return None;
            }
            let next = match &here {
                Some(Cow::Borrowed(node)) => child(node, segment).map(Cow::Borrowed),
                Some(Cow::Owned(node)) => child(node, segment).cloned().map(Cow::Owned),
                None => None,
            };
            if next.is_none() {
                let keys: Vec<&str> = match here.as_deref().map(|n| &n.value) {
                    Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
                    _ => Vec::new(),
                };
                self.report.add(
                    Problem::new(span, format!("`{seen}` has no `{segment}`"))
                        .maybe_hint(suggest(segment, keys)),
                );
                return None;
            }
            seen = format!("{seen}.{segment}");
            current = next;
        }
        let found = current?;
        Some(self.inside(&found, chain, depth + 1))
    }

    /// Where a reference is in its text, if the text has no escapes.
    fn at(&self, node: &YamlNode, name: &str, offset: usize) -> Span {
        let length = name.chars().count() + 3;
        let written = node.raw.chars().count();
        // Plain, or in quotes without escapes, and on one line.
        let shift = match node.span.length.checked_sub(written) {
            Some(0) => 0,
            Some(2) => 1,
            _ => return node.span,
        };
        if node.span.set.is_some() || offset + length > written {
            return node.span;
        }
        Span {
            column: node.span.column + shift + offset,
            length,
            ..node.span
        }
    }

    fn spend(&mut self, work: usize) -> bool {
        self.work = self.work.saturating_add(work);
        self.work <= MAX_WORK
    }

    fn refuse(&mut self, problem: Problem) -> YamlNode {
        let span = problem.span;
        self.report.add(problem);
        YamlNode::new(span, Value::Invalid)
    }
}

impl Entry {
    /// The key alone.
    fn clone_key(&self) -> Entry {
        Entry {
            key: self.key.clone(),
            key_span: self.key_span,
            value: YamlNode::new(self.key_span, Value::Null),
        }
    }
}

/// The value of a key, or the item at an index.
fn child<'n>(node: &'n YamlNode, segment: &str) -> Option<&'n YamlNode> {
    match &node.value {
        Value::Map(_) => node.get(segment).map(|e| &e.value),
        Value::Seq(items) => items.get(segment.parse::<usize>().ok()?),
        _ => None,
    }
}

fn too_much(span: Span) -> Problem {
    Problem::new(span, "parameters that use each other expand to too much")
}

/// Whether expanding one reaches the other: they are the same, or one is
/// inside the other.
fn overlaps(outer: &str, path: &str) -> bool {
    let inside = |a: &str, b: &str| {
        a.strip_prefix(b)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    inside(outer, path)
}

fn split(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let offset = |rest: &str| text[..text.len() - rest.len()].chars().count();
    while let Some(at) = rest.find("${") {
        // `$${` is a literal `${`: one dollar is dropped.
        if rest[..at].ends_with('$') {
            pieces.push(Piece::Literal(&rest[..at - 1]));
            pieces.push(Piece::Literal("${"));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            pieces.push(Piece::Literal(&rest[..at]));
        }
        rest = &rest[at..];
        let Some(end) = rest.find('}') else {
            pieces.push(Piece::Open(offset(rest)));
            return pieces;
        };
        pieces.push(Piece::Reference(&rest[2..end], offset(rest)));
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    pieces
}
