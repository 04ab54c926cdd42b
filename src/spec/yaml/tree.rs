//! The tree: [`YamlNode`], [`Value`] and the [`Span`] of each.

/// Where something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Index of the `--set` that it comes from; `None` for the file.
    pub set: Option<usize>,
    /// From 1; 0 when it has no place in the text.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters, up to the end of the line at most.
    pub length: usize,
}

impl Span {
    /// The beginning of the file, where missing keys are reported.
    pub const START: Self = Self {
        set: None,
        line: 1,
        column: 1,
        length: 1,
    };
}

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct YamlNode {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
    /// A scalar as written, without quotes; empty for collections.
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
    /// A number with a point or exponent, or an integer that does not fit in an `i64`.
    Float(f64),
    /// Text; anything in quotes.
    Str(String),
    /// A list.
    Seq(Vec<YamlNode>),
    /// A mapping, in the order of the file, keys unique.
    Map(Vec<Entry>),
    /// Something already reported as wrong; accepted everywhere.
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
    pub value: YamlNode,
}

impl YamlNode {
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
    pub fn measure(&self) -> Size {
        let mut size = Size {
            nodes: 1,
            depth: 0,
            bytes: self.raw.len(),
        };
        let mut add = |key: &str, node: &YamlNode| {
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
pub struct Size {
    pub nodes: usize,
    pub depth: usize,
    /// Of keys and scalars, as they are written.
    pub bytes: usize,
}
