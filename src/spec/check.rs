//! Checks a [`YamlNode`] against a [`Schema`]: reports every problem and returns
//! JSON in the schema's shape with the defaults filled in.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::diagnostic::{Problem, Report};
use super::yaml::{Entry, Span, Value, YamlNode};
use crate::kind::command::is_name;
use crate::kind::schema::{Default, Field, Schema, Type, renamed};
use crate::text::{choice, list, nearest, suggest};

/// What checking needs to know about the pipeline.
pub(super) struct Checker<'a> {
    /// The pipeline's.
    pub seed: u64,
    /// The pipeline file's folder, absolute.
    pub base: &'a Path,
    /// Where problems go.
    pub report: &'a mut Report,
}

impl Checker<'_> {
    /// A mapping of parameters; `name` is its name in messages (empty for
    /// `with` itself), `owner` the stage the parameters belong to, `at` where
    /// missing ones are reported.
    pub fn object(
        &mut self,
        schema: &Schema,
        entries: &[Entry],
        name: &str,
        owner: &str,
        at: Span,
    ) -> Json {
        for entry in entries.iter().filter(|e| schema.field(&e.key).is_none()) {
            let of = if name.is_empty() {
                owner.to_owned()
            } else {
                format!("`{name}`")
            };
            let names = || schema.fields.iter().map(|f| f.name);
            self.report.add(
                Problem::new(
                    entry.key_span,
                    format!("{of} has no parameter `{}`", entry.key),
                )
                .maybe_hint(suggest(&entry.key, names().collect::<Vec<_>>())),
            );
        }
        let mut object = Map::new();
        for field in &schema.fields {
            let path = join(name, field.name);
            let may_be_null = matches!(field.default, Default::Null | Default::SameAs(_));
            let written = entries
                .iter()
                .find(|e| e.key == field.name)
                .filter(|e| !(may_be_null && e.value.value == Value::Null));
            let value = match (written, &field.default) {
                (Some(entry), _) => self.value(&field.ty, &entry.value, &path, owner),
                (None, Default::SameAs(other)) => object.get(*other).cloned().unwrap_or_default(),
                (None, _) => self.default(field, &path, owner, at, entries),
            };
            object.insert(field.name.to_owned(), value);
        }
        Json::Object(object)
    }

    fn default(
        &mut self,
        field: &Field,
        path: &str,
        owner: &str,
        at: Span,
        written: &[Entry],
    ) -> Json {
        match (&field.default, &field.ty) {
            (Default::Value(value), _) => value.clone(),
            (Default::PipelineSeed, _) => Json::from(self.seed),
            // `object` copies the other field's value.
            (Default::Null | Default::SameAs(_), _) => Json::Null,
            (Default::Object, Type::Object(schema)) => self.object(schema, &[], path, owner, at),
            (Default::Required | Default::Object, ty) => {
                // A misspelt key is reported as unknown already.
                let misspelt = written
                    .iter()
                    .any(|e| nearest(&e.key, [field.name]).is_some());
                if !misspelt {
                    self.report.add(
                        Problem::new(at, format!("{owner} is missing the parameter `{path}`"))
                            .hint(format!("`{path}` takes {}", expects(ty))),
                    );
                }
                Json::Null
            }
        }
    }

    /// One value; `path` is its name in messages.
    pub fn value(&mut self, ty: &Type, node: &YamlNode, path: &str, owner: &str) -> Json {
        match (ty, &node.value) {
            (_, Value::Invalid) => Json::Null,
            (Type::Bool, Value::Bool(b)) => Json::Bool(*b),
            (Type::Int { min, max }, Value::Int(i)) if min <= i && i <= max => Json::from(*i),
            (Type::Int { .. }, Value::Int(_)) => self.refuse_range(ty, node, path),
            (Type::Float { .. }, Value::Int(_) | Value::Float(_)) => {
                let number = match node.value {
                    Value::Int(i) => i as f64,
                    Value::Float(f) => f,
                    _ => f64::NAN,
                };
                if in_range(ty, number) {
                    Json::from(number)
                } else {
                    self.refuse_range(ty, node, path)
                }
            }
            (Type::Text, Value::Str(s)) => Json::String(s.clone()),
            (Type::NonEmpty, Value::Str(s)) if !s.is_empty() => Json::String(s.clone()),
            (Type::Path | Type::File, Value::Str(s)) if !s.is_empty() => {
                self.path(ty, s, node, path)
            }
            (Type::Sha256, Value::Str(s))
                if s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                Json::String(s.to_ascii_lowercase())
            }
            (Type::Choice(words), Value::Str(s)) => self.choice(words, s, node, path),
            (Type::List { items, min }, Value::Seq(nodes)) => {
                if nodes.len() < *min {
                    self.refuse(Problem::new(
                        node.span,
                        format!("`{path}` must be {}, found {}", expects(ty), nodes.len()),
                    ));
                }
                let each =
                    |(index, node)| self.value(items, node, &format!("{path}[{index}]"), owner);
                Json::Array(nodes.iter().enumerate().map(each).collect())
            }
            (Type::Map(items), Value::Map(entries)) => self.map(items, entries, path, owner),
            (Type::Object(schema), Value::Map(entries)) => {
                self.object(schema, entries, path, owner, node.span)
            }
            (Type::OneOf { fields, .. }, Value::Map(entries)) => {
                self.one_of(fields, entries, node, path, owner)
            }
            (Type::OneOf { fields, bare: true }, Value::Str(word)) => {
                self.bare(fields, word, node, path, owner)
            }
            _ => self.refuse(
                Problem::new(
                    node.span,
                    format!(
                        "`{path}` must be {}, found {}",
                        expects(ty),
                        node.describe()
                    ),
                )
                .maybe_hint(self.cure(ty, node, path)),
            ),
        }
    }

    fn choice(&mut self, words: &[&'static str], word: &str, node: &YamlNode, path: &str) -> Json {
        if words.contains(&word) {
            return Json::from(word);
        }
        if let Some(now) = renamed(words, word) {
            return Json::from(now);
        }
        let near = nearest(word, words.iter().copied()).map(|n| format!("did you mean `{n}`?"));
        let words = choice(words.iter().copied());
        let message = format!("`{path}` must be one of {words}, found `{word}`");
        self.refuse(Problem::new(node.span, message).maybe_hint(near))
    }

    fn map(&mut self, items: &Type, entries: &[Entry], path: &str, owner: &str) -> Json {
        let mut object = Map::new();
        for entry in entries {
            if !is_name(&entry.key) {
                self.report.add(
                    Problem::new(
                        entry.key_span,
                        format!("`{}` is not a valid name in `{path}`", entry.key),
                    )
                    .hint("a name starts with a letter or `_`, followed by letters, digits, `_` and `-`"),
                );
            }
            let here = join(path, &entry.key);
            object.insert(
                entry.key.clone(),
                self.value(items, &entry.value, &here, owner),
            );
        }
        Json::Object(object)
    }

    fn one_of(
        &mut self,
        fields: &[Field],
        entries: &[Entry],
        node: &YamlNode,
        path: &str,
        owner: &str,
    ) -> Json {
        let names = || fields.iter().map(|f| f.name);
        let mut known = Vec::new();
        for entry in entries {
            match fields.iter().find(|f| f.name == entry.key) {
                Some(field) => known.push((field, entry)),
                None => self.report.add(
                    Problem::new(
                        entry.key_span,
                        format!("`{path}` cannot be `{}`", entry.key),
                    )
                    .hint(match nearest(&entry.key, names()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("it takes exactly one of {}", choice(names())),
                    }),
                ),
            }
        }
        match known.as_slice() {
            [] if entries.is_empty() => self.refuse(Problem::new(
                node.span,
                format!(
                    "`{path}` must have exactly one of {}, found none",
                    choice(names())
                ),
            )),
            [] => Json::Null,
            [(field, entry)] => {
                let value = self.value(&field.ty, &entry.value, &join(path, field.name), owner);
                Json::Object(Map::from_iter([(field.name.to_owned(), value)]))
            }
            [_, second, ..] => self.refuse(
                Problem::new(
                    second.1.key_span,
                    format!(
                        "`{path}` must have exactly one of {}, found {}",
                        choice(names()),
                        list(known.iter().map(|(f, _)| f.name))
                    ),
                )
                .hint("keep one of them"),
            ),
        }
    }

    fn bare(
        &mut self,
        fields: &[Field],
        word: &str,
        node: &YamlNode,
        path: &str,
        owner: &str,
    ) -> Json {
        let Some(field) = fields.iter().find(|f| f.name == word) else {
            let names = || fields.iter().map(|f| f.name);
            let near = nearest(word, names()).map(|n| format!("did you mean `{n}`?"));
            return self.refuse(
                Problem::new(
                    node.span,
                    format!(
                        "`{path}` must be one of {}, found `{word}`",
                        choice(names())
                    ),
                )
                .maybe_hint(near),
            );
        };
        match &field.ty {
            Type::Object(schema)
                if schema.fields.iter().all(|f| f.default != Default::Required) =>
            {
                let value = self.object(schema, &[], &join(path, field.name), owner, node.span);
                Json::Object(Map::from_iter([(field.name.to_owned(), value)]))
            }
            ty => self.refuse(
                Problem::new(node.span, format!("`{path}: {word}` needs its parameters")).hint(
                    format!(
                        "write `{path}: {{ {word}: ... }}`; `{word}` takes {}",
                        expects(ty)
                    ),
                ),
            ),
        }
    }

    fn path(&mut self, ty: &Type, text: &str, node: &YamlNode, path: &str) -> Json {
        let resolved = normalise(&self.base.join(text));
        if !resolved.exists() {
            let near = missing_sibling(&resolved);
            return self.refuse(
                Problem::new(
                    node.span,
                    format!("`{path}`: {} does not exist", resolved.display()),
                )
                .maybe_hint(near)
                .label("relative to the pipeline file's folder"),
            );
        }
        if *ty == Type::File && resolved.is_dir() {
            return self.refuse(
                Problem::new(
                    node.span,
                    format!("`{path}`: {} is a folder", resolved.display()),
                )
                .maybe_hint(Some("name a file in it".to_owned())),
            );
        }
        match resolved.to_str() {
            Some(s) => Json::String(s.to_owned()),
            None => self.refuse(Problem::new(
                node.span,
                format!("`{path}`: {} is not UTF-8", resolved.display()),
            )),
        }
    }

    fn refuse_range(&mut self, ty: &Type, node: &YamlNode, path: &str) -> Json {
        self.refuse(Problem::new(
            node.span,
            format!("`{path}` must be {}, found {}", expects(ty), node.raw),
        ))
    }

    fn refuse(&mut self, problem: Problem) -> Json {
        self.report.add(problem);
        Json::Null
    }

    fn cure(&self, ty: &Type, node: &YamlNode, path: &str) -> Option<String> {
        match (ty, &node.value) {
            (
                Type::Text | Type::NonEmpty | Type::Path | Type::File | Type::Sha256,
                Value::Int(_) | Value::Float(_) | Value::Bool(_),
            ) => Some(format!("put it in quotes: \"{}\"", node.raw)),
            (Type::Int { .. } | Type::Float { .. } | Type::Bool, Value::Str(s)) => {
                let fits = matches!(
                    (ty, super::yaml::parse(s).0.map(|n| n.value)),
                    (Type::Int { .. }, Some(Value::Int(_)))
                        | (Type::Float { .. }, Some(Value::Int(_) | Value::Float(_)))
                        | (Type::Bool, Some(Value::Bool(_)))
                );
                fits.then(|| "remove the quotes".to_owned())
            }
            (Type::List { items, .. }, _)
                if !matches!(**items, Type::Object(_)) && !node.raw.is_empty() =>
            {
                Some(format!("write it as a list: [{}]", node.raw))
            }
            (Type::Object(_), Value::Null) => Some(format!("write `{path}: {{}}` or leave it out")),
            _ => None,
        }
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

fn in_range(ty: &Type, number: f64) -> bool {
    let Type::Float {
        min,
        min_open,
        max,
        max_open,
    } = ty
    else {
        return false;
    };
    number.is_finite()
        && (if *min_open {
            number > *min
        } else {
            number >= *min
        })
        && (if *max_open {
            number < *max
        } else {
            number <= *max
        })
}

/// What a type takes, in words.
pub(super) fn expects(ty: &Type) -> String {
    match ty {
        Type::Bool => "`true` or `false`".to_owned(),
        Type::Int { min, max } => match (*min, *max) {
            (i64::MIN, i64::MAX) => "a whole number".to_owned(),
            (min, i64::MAX) => format!("a whole number of at least {min}"),
            (i64::MIN, max) => format!("a whole number of at most {max}"),
            (min, max) => format!("a whole number from {min} to {max}"),
        },
        Type::Float {
            min,
            min_open,
            max,
            max_open,
        } => {
            let low = min
                .is_finite()
                .then(|| format!("{} {min}", if *min_open { "above" } else { "of at least" }));
            let high = max
                .is_finite()
                .then(|| format!("{} {max}", if *max_open { "below" } else { "at most" }));
            match (low, high) {
                (None, None) => "a finite number".to_owned(),
                (Some(one), None) | (None, Some(one)) => format!("a number {one}"),
                (Some(low), Some(high)) => format!("a number {low} and {high}"),
            }
        }
        Type::Text => "text".to_owned(),
        Type::NonEmpty => "non-empty text".to_owned(),
        Type::Path => "a path".to_owned(),
        Type::File => "a path to a file".to_owned(),
        Type::Sha256 => "a SHA-256 in hex (64 digits)".to_owned(),
        Type::Choice(words) => format!("one of {}", choice(words.iter().copied())),
        Type::List { min: 0, .. } => "a list".to_owned(),
        Type::List { min, .. } => format!("a list of at least {min}"),
        Type::Map(items) => format!("a mapping of names to {}", expects(items)),
        Type::Object(_) => "a mapping".to_owned(),
        Type::OneOf { fields, bare } => {
            let names = choice(fields.iter().map(|f| f.name));
            if *bare {
                names
            } else {
                format!("a mapping with one of {names}")
            }
        }
    }
}

/// `path` without `.` and `..`, by its text alone: links are not followed.
pub(super) fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// A hint for a path whose first missing part has a similar neighbour.
fn missing_sibling(path: &Path) -> Option<String> {
    let missing = path.ancestors().take_while(|p| !p.exists()).last()?;
    let parent = missing.parent()?;
    if !parent.is_dir() {
        return Some(format!("{} is a file, not a folder", parent.display()));
    }
    let name = missing.file_name()?.to_str()?;
    let names: Vec<String> = std::fs::read_dir(parent)
        .ok()?
        .take(10_000)
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        return Some(format!("did you mean `{near}`?"));
    }
    (missing != path).then(|| format!("there is no `{name}` in {}", parent.display()))
}
