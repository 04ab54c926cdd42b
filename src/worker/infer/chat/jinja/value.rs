//! Python's values with their equality and order: [`Value`].

mod print;

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

pub(super) use print::repr_entries;

use super::ast::{Const, Macro};
use super::error::{Error, Result};
use super::number::cmp_int_float;

/// How deep lists and mappings may hold one another.
const MAX_DEPTH: u32 = 100;

/// How large a value may be, printed: what is held twice counts twice.
const MAX_WEIGHT: usize = 64 << 20;

#[derive(Clone)]
pub(super) enum Value {
    /// With the message of an error about it.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<str>),
    /// Text that was escaped for HTML.
    Markup(Rc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    /// `(grouper, list)` of the filter `groupby`.
    Group(Rc<Items>),
    Dict(Rc<Dict>),
    Range(Range),
    /// `keys()`, `values()` and `items()` of a mapping.
    View(View, Rc<Dict>),
    /// What changes: in the machine's list of objects.
    Object(usize),
    Function(Function),
    /// A method of a value.
    Method(Rc<(Value, String)>),
    Macro(Rc<Closure>),
}

/// A macro and the scope that it was defined in.
pub(super) struct Closure {
    pub(super) def: Arc<Macro>,
    pub(super) scope: usize,
}

/// How deep a value goes, and about how many bytes it takes.
#[derive(Clone, Copy)]
struct Size {
    depth: u32,
    weight: usize,
}

/// Items of a list or tuple.
pub(super) struct Items {
    pub(super) items: Vec<Value>,
    size: Size,
}

/// A mapping in the order of insertion.
pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    size: Size,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

impl Range {
    pub(super) fn len(self) -> i128 {
        let distance = if self.step > 0 {
            self.stop - self.start
        } else {
            self.start - self.stop
        };
        if distance <= 0 {
            0
        } else {
            (distance - 1) / self.step.abs() + 1
        }
    }

    pub(super) fn get(self, i: i128) -> Value {
        Value::Int(self.start + i * self.step)
    }

    pub(super) fn contains(self, n: i128) -> bool {
        let (low, high) = if self.step > 0 {
            (self.start, self.stop - 1)
        } else {
            (self.stop + 1, self.start)
        };
        (low..=high).contains(&n) && (n - self.start) % self.step == 0
    }
}

fn holding<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Size> {
    let mut size = Size {
        depth: 0,
        weight: 8,
    };
    for value in values {
        let inner = value.size();
        size.depth = size.depth.max(inner.depth);
        size.weight = size.weight.saturating_add(inner.weight);
    }
    size.depth += 1;
    if size.depth > MAX_DEPTH {
        return Err(Error::new(format!(
            "lists and mappings hold one another more than {MAX_DEPTH} deep"
        )));
    }
    if size.weight > MAX_WEIGHT {
        return Err(Error::new(format!(
            "a list or mapping is larger than {} MiB",
            MAX_WEIGHT >> 20
        )));
    }
    Ok(size)
}

impl Dict {
    pub(super) fn new(entries: Vec<(Value, Value)>) -> Result<Self> {
        let size = holding(entries.iter().flat_map(|(k, v)| [k, v]))?;
        Ok(Self { entries, size })
    }

    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(k, _)| k.equal(key))
            .map(|(_, v)| v)
    }

    pub(super) fn get_str(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, v)| v)
    }
}

/// Puts a pair into a mapping's entries; a key stays where it was.
pub(super) fn insert(entries: &mut Vec<(Value, Value)>, key: Value, value: Value) -> Result<()> {
    key.check_hashable()?;
    match entries.iter_mut().find(|(k, _)| k.equal(&key)) {
        Some((_, old)) => *old = value,
        None => entries.push((key, value)),
    }
    Ok(())
}

impl From<&Const> for Value {
    fn from(c: &Const) -> Self {
        match c {
            Const::None => Self::None,
            Const::Bool(b) => Self::Bool(*b),
            Const::Int(n) => Self::Int(*n),
            Const::Float(n) => Self::Float(*n),
            Const::Str(s) => Self::str(&**s),
        }
    }
}

impl Value {
    pub(super) fn str(text: impl Into<Rc<str>>) -> Self {
        Self::Str(text.into())
    }

    pub(super) fn undefined(hint: impl Into<Rc<str>>) -> Self {
        Self::Undefined(hint.into())
    }

    pub(super) fn items(items: Vec<Value>) -> Result<Rc<Items>> {
        let size = holding(items.iter())?;
        Ok(Rc::new(Items { items, size }))
    }

    pub(super) fn list(items: Vec<Value>) -> Result<Self> {
        Ok(Self::List(Self::items(items)?))
    }

    pub(super) fn tuple(items: Vec<Value>) -> Result<Self> {
        Ok(Self::Tuple(Self::items(items)?))
    }

    pub(super) fn dict(entries: Vec<(Value, Value)>) -> Result<Self> {
        Ok(Self::Dict(Rc::new(Dict::new(entries)?)))
    }

    pub(super) fn from_json(json: &serde_json::Value) -> Result<Self> {
        Ok(match json {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(b) => Self::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i128() {
                Some(n) => Self::Int(n),
                None => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => Self::str(s.as_str()),
            serde_json::Value::Array(a) => {
                Self::list(a.iter().map(Self::from_json).collect::<Result<_>>()?)?
            }
            serde_json::Value::Object(o) => Self::dict(
                o.iter()
                    .map(|(k, v)| Ok((Self::str(k.as_str()), Self::from_json(v)?)))
                    .collect::<Result<_>>()?,
            )?,
        })
    }

    fn size(&self) -> Size {
        let weight = match self {
            Self::List(i) | Self::Tuple(i) | Self::Group(i) => return i.size,
            Self::Dict(d) | Self::View(_, d) => return d.size,
            Self::Method(m) => return m.0.size(),
            Self::Str(s) | Self::Markup(s) => s.len() + 8,
            _ => 8,
        };
        Size { depth: 0, weight }
    }

    /// About how many bytes it takes, printed.
    pub(super) fn weight(&self) -> usize {
        self.size().weight
    }

    /// Text, escaped or not.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) | Self::Markup(s) => Some(s),
            _ => None,
        }
    }

    /// An integer; `True` is 1.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(b) => Some(i128::from(*b)),
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// Python's name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Group(_) => "_GroupTuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Object(_) => "object",
            Self::Function(_) => "function",
            Self::Method(_) => "method",
            Self::Macro(_) => "Macro",
        }
    }

    /// Refuses what cannot be a key.
    pub(super) fn check_hashable(&self) -> Result<()> {
        match self {
            Self::List(_) | Self::Dict(_) | Self::View(..) => Err(Error::new(format!(
                "unhashable type: '{}'",
                self.type_name()
            ))),
            Self::Tuple(i) | Self::Group(i) => i.items.iter().try_for_each(Self::check_hashable),
            _ => Ok(()),
        }
    }

    /// Python's `==`.
    pub(super) fn equal(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.as_str(), other.as_str()) {
            return a == b;
        }
        if let Some(ordering) = self.compare_numbers(other) {
            return ordering == Some(Ordering::Equal);
        }
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::List(a), Self::List(b))
            | (Self::Tuple(a) | Self::Group(a), Self::Tuple(b) | Self::Group(b)) => {
                a.items.len() == b.items.len()
                    && a.items.iter().zip(&b.items).all(|(a, b)| a.equal(b))
            }
            (Self::Dict(a), Self::Dict(b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries
                        .iter()
                        .all(|(k, v)| b.get(k).is_some_and(|w| v.equal(w)))
            }
            (Self::Range(a), Self::Range(b)) => {
                a.len() == b.len()
                    && (a.len() == 0 || (a.start == b.start && (a.len() == 1 || a.step == b.step)))
            }
            (Self::View(View::Keys, a), Self::View(View::Keys, b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries.iter().all(|(k, _)| b.get(k).is_some())
            }
            (Self::View(View::Items, a), Self::View(View::Items, b)) => {
                Self::Dict(Rc::clone(a)).equal(&Self::Dict(Rc::clone(b)))
            }
            (Self::View(View::Values, a), Self::View(View::Values, b)) => Rc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => a == b,
            (Self::Function(a), Self::Function(b)) => a == b,
            (Self::Macro(a), Self::Macro(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The order of two numbers; none if they are not both numbers.
    fn compare_numbers(&self, other: &Self) -> Option<Option<Ordering>> {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => Some(a.partial_cmp(b)),
            (Self::Float(a), b) => Some(cmp_int_float(b.as_int()?, *a).map(Ordering::reverse)),
            (a, Self::Float(b)) => Some(cmp_int_float(a.as_int()?, *b)),
            (a, b) => Some(Some(a.as_int()?.cmp(&b.as_int()?))),
        }
    }

    /// Python's order of two values; none where a number is not one (NaN).
    pub(super) fn compare(&self, other: &Self) -> Result<Option<Ordering>> {
        if let (Some(a), Some(b)) = (self.as_str(), other.as_str()) {
            return Ok(Some(a.cmp(b)));
        }
        if let Some(ordering) = self.compare_numbers(other) {
            return Ok(ordering);
        }
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Tuple(a) | Self::Group(a), Self::Tuple(b) | Self::Group(b)) => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equal(b) {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            (Self::Undefined(hint), _) | (_, Self::Undefined(hint)) => Err(Error::new(&**hint)),
            _ => Err(Error::new(format!(
                "'{}' and '{}' cannot be compared",
                self.type_name(),
                other.type_name()
            ))),
        }
    }

    /// What `is` compares; none where Python leaves it open.
    pub(super) fn same(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::None, Self::None) => Some(true),
            (Self::Bool(a), Self::Bool(b)) => Some(a == b),
            (Self::List(a), Self::List(b)) => Some(Rc::ptr_eq(a, b)),
            (Self::Dict(a), Self::Dict(b)) => Some(Rc::ptr_eq(a, b)),
            (Self::Object(a), Self::Object(b)) => Some(a == b),
            (Self::Function(a), Self::Function(b)) => Some(a == b),
            (Self::Macro(a), Self::Macro(b)) => Some(Rc::ptr_eq(a, b)),
            (Self::Int(a), Self::Int(b)) if a == b => (-5..=256).contains(a).then_some(true),
            (a, b) if a.type_name() == b.type_name() && a.equal(b) => None,
            _ => Some(false),
        }
    }
}

/// Keys, values or pairs of a mapping.
pub(super) fn view_items(view: View, dict: &Dict) -> Result<Vec<Value>> {
    dict.entries
        .iter()
        .map(|(k, v)| match view {
            View::Keys => Ok(k.clone()),
            View::Values => Ok(v.clone()),
            View::Items => Value::tuple(vec![k.clone(), v.clone()]),
        })
        .collect()
}
