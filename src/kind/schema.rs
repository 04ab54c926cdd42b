//! The description of a stage kind's parameters, from which validation, the
//! defaults, the split between what is in a key and what is not, help texts and the JSON
//! Schema all follow.

use serde_json::Value;

/// The fields of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// In the order in which help shows them.
    pub fields: Vec<Field>,
}

/// One field of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Key in the pipeline file.
    pub name: &'static str,
    /// What it means, with its unit; one sentence or two.
    pub doc: &'static str,
    /// What it takes.
    pub ty: Type,
    /// Its value when it is not written.
    pub default: Default,
    /// Whether it changes the result.
    pub role: Role,
}

/// The value of a field that is not written.
#[derive(Debug, Clone, PartialEq)]
pub enum Default {
    /// It must be written.
    Required,
    /// This value.
    Value(Value),
    /// The pipeline's `seed`.
    PipelineSeed,
    /// Nothing: `null`.
    Null,
    /// The value of another field of the mapping, declared before this one.
    SameAs(&'static str),
    /// For `Type::Object`: the object with its own defaults filled in.
    Object,
}

/// Whether a field changes the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It does: part of the key.
    Identity,
    /// It does not: a knob of execution, kept as provenance.
    Execution,
}

/// What a field takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds (inclusive).
    Int {
        /// Least allowed.
        min: i64,
        /// Greatest allowed.
        max: i64,
    },
    /// A number within bounds. An integer in the file is accepted and becomes a float.
    Float {
        /// Lower bound.
        min: f64,
        /// Whether the lower bound itself is refused.
        min_open: bool,
        /// Upper bound.
        max: f64,
        /// Whether the upper bound itself is refused.
        max_open: bool,
    },
    /// Any text.
    Text,
    /// Text that is not empty.
    NonEmpty,
    /// A path, relative to the pipeline file; the key holds the content of the file or
    /// folder.
    Path,
    /// The same, of a file: a folder is refused.
    File,
    /// A SHA-256 in hex: 64 digits.
    Sha256,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `items` in order, at least `min` of them.
    List {
        /// What each item is.
        items: Box<Type>,
        /// Least number of items.
        min: usize,
    },
    /// A mapping of names chosen by the user (letters, digits, `_`, `-`) to values of this type.
    Map(Box<Type>),
    /// A mapping.
    Object(Schema),
    /// A mapping with exactly one of these fields (`source: { path | hub | pypi }`);
    /// a field's `default` and `role` are not used. With `bare`, a plain word naming a
    /// field whose type is an object with defaults for everything is short for it
    /// (`loss: dpo` for `loss: { dpo: {} }`).
    OneOf {
        /// The fields, one of which is given.
        fields: Vec<Field>,
        /// Whether a plain word may replace a field.
        bare: bool,
    },
}

/// Former words and their present names.
const RENAMED: [(&str, &str); 1] = [("libtorch", "native")];

/// The word among `words` that `written` is the earlier name of.
pub fn renamed(words: &[&'static str], written: &str) -> Option<&'static str> {
    let now = RENAMED.iter().find(|(before, _)| *before == written)?.1;
    (!words.contains(&written) && words.contains(&now)).then_some(now)
}

/// Earlier names of some of `words`.
pub fn earlier_names(words: &[&'static str]) -> impl Iterator<Item = &'static str> {
    RENAMED
        .iter()
        .map(|(before, _)| *before)
        .filter(|before| renamed(words, before).is_some())
}

impl Schema {
    /// A schema of these fields.
    pub fn new(fields: Vec<Field>) -> Self {
        Self { fields }
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}
