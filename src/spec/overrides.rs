//! `--set path=value`: [`Override`], put into the tree before it is checked,
//! so that it is checked like the file.

use super::diagnostic::Problem;
use super::yaml::{self, Entry, Node, Span, Value};

/// Parts of a path: as deep as a file may be.
const MAX_SEGMENTS: usize = 64;

/// One `--set`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    text: String,
    path: Vec<String>,
    value: Node,
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
    /// When there is no `=`, no path before it, or no YAML behind it.
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
        let mut segments = Vec::new();
        for part in path.trim().split('.') {
            let (name, mut rest) = match part.find('[') {
                Some(at) => part.split_at(at),
                None => (part, ""),
            };
            if name.is_empty() {
                return Err(fail(format!("`{path}` is not a path: a name is missing")));
            }
            segments.push(name.to_owned());
            while !rest.is_empty() {
                let Some((index, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']'))
                else {
                    return Err(fail(format!(
                        "`{path}` is not a path: expected `[NUMBER]` in `{part}`"
                    )));
                };
                if index.parse::<usize>().is_err() {
                    return Err(fail(format!(
                        "`{path}` is not a path: `{index}` is no index of a list"
                    )));
                }
                segments.push(index.to_owned());
                rest = after;
            }
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(fail(format!("the path has more than {MAX_SEGMENTS} parts")));
        }
        let (value, problems) = yaml::parse(value);
        match (value, problems.into_iter().next()) {
            (Some(value), None) => Ok(Self {
                text: text.to_owned(),
                path: segments,
                value,
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

    /// Puts the value into the tree as the `index`-th override.
    pub(super) fn apply(&self, root: &mut Node, index: usize) -> Result<(), Problem> {
        let span = Span {
            set: Some(index),
            line: 1,
            column: 1,
            length: 1,
        };
        let mut value = self.value.clone();
        relocate(&mut value, span);
        let mut node = root;
        for (depth, segment) in self.path.iter().enumerate() {
            let above = || self.path[..depth].join(".");
            // Nothing yet, or `loss: aco` of which `loss.aco.beta` is set.
            let nothing = node.value == Value::Null
                || matches!(&node.value, Value::Str(word) if word == segment);
            if nothing {
                *node = Node::new(span, Value::Map(Vec::new()));
            }
            let found = node.describe();
            node = match &mut node.value {
                Value::Map(entries) => {
                    let at = match entries.iter().position(|e| e.key == *segment) {
                        Some(at) => at,
                        None => {
                            let value = Node::new(span, Value::Null);
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
                            format!("`{}` is a list: `{segment}` is no index", above()),
                        )
                        .hint(format!("write `{}[0]` for its first item", above()))
                    })?;
                    if at == items.len() {
                        items.push(Node::new(span, Value::Null));
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
                        format!("`{}` is {found}: it holds no `{segment}`", above()),
                    ));
                }
            };
        }
        *node = value;
        Ok(())
    }
}

fn relocate(node: &mut Node, span: Span) {
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
    fn what_is_no_override_is_refused() {
        let reason = |text: &str| Override::parse(text).unwrap_err().to_string();
        assert!(reason("seed").contains("expected PATH=VALUE"));
        assert!(reason("=1").contains("a name is missing"));
        assert!(reason("a..b=1").contains("a name is missing"));
        assert!(reason("a[x]=1").contains("no index"));
        assert!(reason("a[0=1").contains("expected `[NUMBER]`"));
        assert!(reason("a=[1").contains("not YAML"));
        assert!(reason("a={b: 1, b: 2}").contains("written twice"));
    }
}
