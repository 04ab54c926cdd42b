//! `--set path=value`: [`Override`], applied to the tree before it is checked, so
//! that it is checked like the file. A variant's `set` uses the same type.

use super::diagnostic::Problem;
use super::yaml::{self, Entry, Span, Value, YamlNode};

/// Bytes that aliases in a value may expand to.
const MAX_ALIASED_BYTES: usize = 1 << 20;
/// Parts of a path: as deep as a file may be.
const MAX_SEGMENTS: usize = 64;

/// One `--set`, or one line of a variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    text: String,
    path: Vec<String>,
    value: YamlNode,
    origin: Origin,
}

/// Where an override is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    /// A `--set`; its index is given when it is applied.
    CommandLine,
    /// In the file: the span of its path; its value has spans already.
    File(Span),
}

/// A `--set` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--set {text}: {reason}")]
pub struct OverrideError {
    /// As given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Override {
    /// Reads `stages.train.with.learning_rate=1e-6`; a list's items are
    /// reached by `benchmarks[0]` or `benchmarks.0`, the value is YAML.
    ///
    /// # Errors
    /// When there is no `=`, no path before it, or no YAML after it.
    pub fn parse(text: &str) -> Result<Self, OverrideError> {
        let fail = |reason: String| OverrideError {
            text: text.to_owned(),
            reason,
        };
        let Some((path, value)) = text.split_once('=') else {
            return Err(fail(
                "expected PATH=VALUE, as in `stages.train.with.epochs=2`".to_owned(),
            ));
        };
        let segments = segments(path.trim()).map_err(fail)?;
        let (value, problems) = yaml::parse_within(value, MAX_ALIASED_BYTES);
        match (value, problems.into_iter().next()) {
            (Some(value), None) => Ok(Self {
                text: text.to_owned(),
                path: segments,
                value,
                origin: Origin::CommandLine,
            }),
            (_, problem) => Err(fail(
                problem.map_or_else(|| "the value is not YAML".to_owned(), |p| p.message),
            )),
        }
    }

    /// As given, without `--set`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An override in the file itself; `path` is written at `span`.
    pub(super) fn in_file(path: &str, span: Span, value: YamlNode) -> Result<Self, String> {
        Ok(Self {
            text: path.to_owned(),
            path: segments(path)?,
            value,
            origin: Origin::File(span),
        })
    }

    /// The parts of its path.
    pub(super) fn path(&self) -> &[String] {
        &self.path
    }

    /// Puts the value into the tree; `index` is that of the `--set`, if it is one.
    pub(super) fn apply(&self, root: &mut YamlNode, index: usize) -> Result<(), Problem> {
        let mut value = self.value.clone();
        let span = match self.origin {
            Origin::File(span) => span,
            Origin::CommandLine => Span {
                set: Some(index),
                ..Span::START
            },
        };
        if self.origin == Origin::CommandLine {
            relocate(&mut value, span);
        }
        let mut node = root;
        for (depth, segment) in self.path.iter().enumerate() {
            let above = || self.path[..depth].join(".");
            // Nothing yet, or `loss: aco` of which `loss.aco.beta` is set.
            let nothing = node.value == Value::Null
                || matches!(&node.value, Value::Str(word) if word == segment);
            if nothing {
                *node = YamlNode::new(span, Value::Map(Vec::new()));
            }
            let found = node.describe();
            node = match &mut node.value {
                Value::Map(entries) => {
                    let at = match entries.iter().position(|e| e.key == *segment) {
                        Some(at) => at,
                        None => {
                            let value = YamlNode::new(span, Value::Null);
                            entries.push(Entry {
                                key: segment.clone(),
                                key_span: span,
                                value,
                            });
                            entries.len() - 1
                        }
                    };
                    &mut entries[at].value
                }
                Value::Seq(items) => {
                    let at = segment.parse::<usize>().map_err(|_| {
                        Problem::new(
                            span,
                            format!("`{}` is a list: `{segment}` is not an index", above()),
                        )
                        .hint(format!("write `{}[0]` for its first item", above()))
                    })?;
                    if at == items.len() {
                        items.push(YamlNode::new(span, Value::Null));
                    }
                    let length = items.len();
                    items.get_mut(at).ok_or_else(|| {
                        Problem::new(
                            span,
                            format!("`{}` has {length} items, there is no `[{at}]`", above()),
                        )
                        .hint(format!("`[{length}]` appends one"))
                    })?
                }
                _ => {
                    return Err(Problem::new(
                        span,
                        format!("`{}` is {found}: it has no `{segment}`", above()),
                    ));
                }
            };
        }
        *node = value;
        Ok(())
    }
}

/// The parts of `stages.train.with.stop[0]`.
fn segments(path: &str) -> Result<Vec<String>, String> {
    let mut segments = Vec::new();
    for part in path.split('.') {
        let (name, mut rest) = match part.find('[') {
            Some(at) => part.split_at(at),
            None => (part, ""),
        };
        if name.is_empty() {
            return Err(format!("`{path}` is not a path: a name is missing"));
        }
        segments.push(name.to_owned());
        while !rest.is_empty() {
            let Some((index, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']'))
            else {
                return Err(format!(
                    "`{path}` is not a path: expected `[NUMBER]` in `{part}`"
                ));
            };
            if index.parse::<usize>().is_err() {
                return Err(format!(
                    "`{path}` is not a path: `{index}` is not an index of a list"
                ));
            }
            segments.push(index.to_owned());
            rest = after;
        }
    }
    if segments.len() > MAX_SEGMENTS {
        return Err(format!("the path has more than {MAX_SEGMENTS} parts"));
    }
    Ok(segments)
}

fn relocate(node: &mut YamlNode, span: Span) {
    node.span = span;
    match &mut node.value {
        Value::Seq(items) => items.iter_mut().for_each(|n| relocate(n, span)),
        Value::Map(entries) => entries.iter_mut().for_each(|e| {
            e.key_span = span;
            relocate(&mut e.value, span);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_dotted_and_indexed() {
        let set = Override::parse("a.b[0].c[1][2].3=[1, x]").unwrap();
        assert_eq!(set.path, ["a", "b", "0", "c", "1", "2", "3"]);
        assert!(matches!(set.value.value, Value::Seq(_)));
        assert_eq!(
            Override::parse("a==b").unwrap().value.value,
            Value::Str("=b".into())
        );
        assert_eq!(Override::parse("a=").unwrap().value.value, Value::Null);
    }

    #[test]
    fn malformed_overrides_are_refused() {
        let reason = |text: &str| Override::parse(text).unwrap_err().to_string();
        assert!(reason("seed").contains("expected PATH=VALUE"));
        assert!(reason("=1").contains("a name is missing"));
        assert!(reason("a..b=1").contains("a name is missing"));
        assert!(reason("a[x]=1").contains("not an index"));
        assert!(reason("a[0=1").contains("expected `[NUMBER]`"));
        assert!(reason("a=[1").contains("not YAML"));
        assert!(reason("a={b: 1, b: 2}").contains("written twice"));
        let long = "x".repeat(2000);
        let many = vec!["*x"; 1000].join(",");
        assert!(reason(&format!("a=[&x {long},{many}]")).contains("aliases expand to more than"));
    }
}
