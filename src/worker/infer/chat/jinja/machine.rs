//! Runs a template: [`Machine`], its scopes and its limits of time and memory.

mod access;
mod call;
mod expression;
mod loops;
mod operators;
mod statement;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

pub(super) use call::{CallArgs, required};
use loops::Loop;

use super::Strftime;
use super::ast::{Expr, Macro, Stmt, Text};
use super::error::{Error, Result};
use super::value::{Value, insert, repr_entries, view_items};

/// How many steps a rendering may take, beside some for its input.
const MAX_STEPS: u64 = 5_000_000;

/// How many bytes a rendering may make, beside its input's.
const MAX_BYTES: u64 = 256 << 20;

/// How deep calls and expressions may go.
const MAX_DEPTH: u32 = 2000;

/// What a scope's statements lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Scope {
    parent: Option<usize>,
    names: Vec<(Text, Value)>,
}

/// What a template can change.
enum Object {
    Namespace(Vec<(Value, Value)>),
    Cycler(Vec<Value>, usize),
    /// Its text, and whether it was called before.
    Joiner(Value, bool),
    /// What is gone through once.
    Iterator(VecDeque<Value>),
    Loop(Box<Loop>),
}

/// One rendering: its scopes, its objects, and what it may still spend.
pub(super) struct Machine {
    scopes: Vec<Scope>,
    /// Scopes below this one belong to macros, and stay.
    captured: usize,
    objects: Vec<Object>,
    /// The text of the blocks around this place that are filtered.
    bodies: Vec<Value>,
    steps: u64,
    bytes: u64,
    depth: u32,
    strftime: Strftime,
}

impl Machine {
    /// A rendering with these variables.
    pub(super) fn new(names: Vec<(Text, Value)>, strftime: Strftime) -> Self {
        let input: usize = names.iter().map(|(_, v)| v.weight()).sum();
        Self {
            scopes: vec![Scope {
                parent: None,
                names,
            }],
            captured: 1,
            objects: Vec::new(),
            bodies: Vec::new(),
            steps: MAX_STEPS + input as u64,
            bytes: MAX_BYTES + 64 * input as u64,
            depth: 0,
            strftime,
        }
    }

    /// The template's text.
    pub(super) fn render(&mut self, body: &[Stmt]) -> Result<String> {
        let mut out = String::new();
        self.run(body, 0, &mut out)?;
        Ok(out)
    }

    /// Pays for work in proportion to `n`.
    pub(super) fn spend(&mut self, n: usize) -> Result<()> {
        match self.steps.checked_sub(1 + n as u64) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err(Error::new(format!(
                "it takes more than {MAX_STEPS} steps; does it end?"
            ))),
        }
    }

    /// Pays for memory.
    pub(super) fn allocate(&mut self, bytes: usize) -> Result<()> {
        self.spend(bytes / 64)?;
        match self.bytes.checked_sub(bytes as u64) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => Err(Error::new(format!(
                "it makes more than {} MiB of text",
                MAX_BYTES >> 20
            ))),
        }
    }

    /// A new text, paid for.
    pub(super) fn text(&mut self, text: String) -> Result<Value> {
        self.allocate(text.len())?;
        Ok(Value::str(text))
    }

    /// A new list, paid for.
    pub(super) fn list(&mut self, items: Vec<Value>) -> Result<Value> {
        self.allocate(items.len() * size_of::<Value>())?;
        Value::list(items)
    }

    /// What is gone through once.
    pub(super) fn iterator(&mut self, items: Vec<Value>) -> Result<Value> {
        self.allocate(items.len() * size_of::<Value>())?;
        Ok(self.object(Object::Iterator(items.into())))
    }

    fn object(&mut self, object: Object) -> Value {
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    /// Runs `work` one level deeper.
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::new("it calls itself too deeply; does it end?"));
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    fn open(&mut self, parent: usize) -> usize {
        self.scopes.push(Scope {
            parent: Some(parent),
            names: Vec::new(),
        });
        self.scopes.len() - 1
    }

    /// Drops a scope and those opened since, unless macros hold them.
    fn close(&mut self, scope: usize) {
        self.scopes.truncate(scope.max(self.captured));
    }

    fn set(&mut self, scope: usize, name: &Text, value: Value) {
        let names = &mut self.scopes[scope].names;
        match names.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => names.push((Arc::clone(name), value)),
        }
    }

    fn get(&self, mut scope: usize, name: &str) -> Option<&Value> {
        loop {
            let here = &self.scopes[scope];
            if let Some((_, value)) = here.names.iter().find(|(n, _)| &**n == name) {
                return Some(value);
            }
            scope = here.parent?;
        }
    }

    /// Appends what Python's `str` gives.
    pub(super) fn print(&mut self, value: &Value, out: &mut String) -> Result<()> {
        self.allocate(value.weight())?;
        let before = out.len();
        match value {
            Value::Object(id) => match &self.objects[*id] {
                Object::Namespace(entries) => {
                    let entries = entries.clone();
                    out.push_str("<Namespace ");
                    repr_entries(&entries, out)?;
                    out.push('>');
                }
                Object::Loop(state) => {
                    let index = state.index();
                    let length = self.loop_length(*id)?;
                    out.push_str(&format!("<LoopContext {index}/{length}>"));
                }
                _ => value.print(out)?,
            },
            _ => value.print(out)?,
        }
        self.allocate(out.len() - before)
    }

    /// What Python's `str` gives.
    pub(super) fn string(&mut self, value: &Value) -> Result<Rc<str>> {
        if let Value::Str(s) | Value::Markup(s) = value {
            return Ok(Rc::clone(s));
        }
        let mut out = String::new();
        self.print(value, &mut out)?;
        Ok(out.into())
    }

    /// Python's `bool`.
    pub(super) fn truth(&mut self, value: &Value) -> Result<bool> {
        Ok(match value {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Float(n) => *n != 0.0,
            Value::Str(s) | Value::Markup(s) => !s.is_empty(),
            Value::List(i) | Value::Tuple(i) | Value::Group(i) => !i.items.is_empty(),
            Value::Dict(d) | Value::View(_, d) => !d.entries.is_empty(),
            Value::Range(r) => r.len() > 0,
            Value::Object(id) if matches!(self.objects[*id], Object::Loop(_)) => {
                self.loop_length(*id)? > 0
            }
            _ => true,
        })
    }

    /// What a value gives one by one.
    pub(super) fn iterate(&mut self, value: &Value) -> Result<Vec<Value>> {
        let items = match value {
            Value::Undefined(_) => Vec::new(),
            Value::Str(s) => {
                self.allocate(s.len() * 8)?;
                self.spend(s.len())?;
                s.chars().map(|c| Value::str(c.to_string())).collect()
            }
            Value::Markup(_) => return Err(Error::unsupported("going through escaped text")),
            Value::List(i) | Value::Tuple(i) | Value::Group(i) => i.items.clone(),
            Value::Dict(d) => d.entries.iter().map(|(k, _)| k.clone()).collect(),
            Value::View(view, d) => view_items(*view, d)?,
            Value::Range(r) => (0..r.len()).map(|i| r.get(i)).collect(),
            Value::Object(id) => match &mut self.objects[*id] {
                Object::Iterator(items) => std::mem::take(items).into(),
                Object::Loop(_) => return Err(Error::unsupported("going through `loop`")),
                _ => return Err(not_iterable(value)),
            },
            _ => return Err(not_iterable(value)),
        };
        self.allocate(items.len() * size_of::<Value>())?;
        self.spend(items.len())?;
        Ok(items)
    }

    /// Whether a value is gone through only once.
    pub(super) fn is_iterator(&self, value: &Value) -> bool {
        matches!(value, Value::Object(id) if matches!(self.objects[*id], Object::Iterator(_)))
    }

    /// The next item of what is gone through once.
    pub(super) fn next(&mut self, value: &Value) -> Result<Value> {
        let next = match value {
            Value::Object(id) => match &mut self.objects[*id] {
                Object::Iterator(items) => items.pop_front(),
                _ => None,
            },
            _ => None,
        };
        Ok(next.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
    }

    /// Whether a value is a loop's `loop`.
    pub(super) fn is_loop(&self, value: &Value) -> bool {
        matches!(value, Value::Object(id) if matches!(self.objects[*id], Object::Loop(_)))
    }

    /// Whether a value goes round in `cycler`.
    pub(super) fn is_cycler(&self, value: &Value) -> bool {
        matches!(value, Value::Object(id) if matches!(self.objects[*id], Object::Cycler(..)))
    }

    /// Whether a value can be called.
    pub(super) fn is_callable(&self, value: &Value) -> bool {
        match value {
            // An undefined value raises its error when called.
            Value::Undefined(_) | Value::Function(_) | Value::Macro(_) | Value::Method(_) => true,
            Value::Object(id) => {
                matches!(self.objects[*id], Object::Loop(_) | Object::Joiner(..))
            }
            _ => false,
        }
    }
}

/// Names with an underscore cannot be kept in a namespace.
fn check_attribute(name: &str) -> Result<()> {
    if name.starts_with('_') {
        return Err(Error::new(format!(
            "chat templates cannot store the attribute {name:?} on a namespace"
        )));
    }
    Ok(())
}

fn not_iterable(value: &Value) -> Error {
    Error::new(format!("'{}' object is not iterable", value.type_name()))
}
