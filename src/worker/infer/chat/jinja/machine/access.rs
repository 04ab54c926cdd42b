//! Attributes, subscripts and slices of values.

use std::rc::Rc;

use super::super::methods;
use super::super::value::{Dict, Range};
use super::{Error, Machine, Object, Result, Value};

impl Machine {
    /// `object.name`: an attribute, else an item.
    pub(in super::super) fn attribute(&mut self, object: &Value, name: &str) -> Result<Value> {
        if let Value::Undefined(hint) = object {
            return Err(Error::new(&**hint));
        }
        if let Some(value) = self.own_attribute(object, name)? {
            return Ok(value);
        }
        if let Value::Dict(dict) = object
            && let Some(value) = dict.get_str(name)
        {
            return Ok(value.clone());
        }
        Ok(missing(object, name))
    }

    /// What Python's `getattr` gives, or an undefined value where the sandbox
    /// hides it.
    fn own_attribute(&mut self, object: &Value, name: &str) -> Result<Option<Value>> {
        if name.starts_with("__") && name.ends_with("__") {
            let message = format!(
                "access to attribute '{name}' of '{}' object is unsafe.",
                object.type_name()
            );
            return Ok(Some(Value::undefined(message)));
        }
        match object {
            Value::Object(id) => match &self.objects[*id] {
                Object::Namespace(entries) => {
                    return Ok(entries
                        .iter()
                        .find(|(k, _)| k.as_str() == Some(name))
                        .map(|(_, v)| v.clone()));
                }
                Object::Loop(_) => {
                    if let Some(value) = self.loop_attribute(*id, name)? {
                        return Ok(Some(value));
                    }
                }
                Object::Cycler(items, at) => match name {
                    "current" => return Ok(items.get(*at).cloned()),
                    "pos" => return Ok(Some(Value::Int(i128::try_from(*at).unwrap_or(0)))),
                    "items" => return Value::tuple(items.clone()).map(Some),
                    _ => {}
                },
                Object::Joiner(..) | Object::Iterator(_) => {}
            },
            Value::Group(items) => match name {
                "grouper" => return Ok(items.items.first().cloned()),
                "list" => return Ok(items.items.get(1).cloned()),
                _ => {}
            },
            Value::Range(r) => match name {
                "start" => return Ok(Some(Value::Int(r.start))),
                "stop" => return Ok(Some(Value::Int(r.stop))),
                "step" => return Ok(Some(Value::Int(r.step))),
                _ => {}
            },
            Value::Macro(m) => {
                let def = &m.def;
                match name {
                    "name" => {
                        return Ok(Some(match &def.name {
                            Some(name) => Value::str(&**name),
                            None => Value::None,
                        }));
                    }
                    "arguments" => {
                        let names = def.params.iter().map(|(n, _)| Value::str(&**n));
                        return Value::tuple(names.collect()).map(Some);
                    }
                    "catch_kwargs" => return Ok(Some(Value::Bool(def.uses.kwargs))),
                    "catch_varargs" => return Ok(Some(Value::Bool(def.uses.varargs))),
                    "caller" => return Ok(Some(Value::Bool(def.uses.caller))),
                    _ => {}
                }
            }
            _ => {}
        }
        methods::find(self, object, name)
    }

    /// `object[index]`: an item, else an attribute.
    pub(in super::super) fn item(&mut self, object: &Value, index: &Value) -> Result<Value> {
        if let Value::Undefined(hint) = object {
            return Err(Error::new(&**hint));
        }
        let at = |len: usize| {
            let n = index.as_int()?;
            let len = i128::try_from(len).ok()?;
            let n = if n < 0 { n + len } else { n };
            usize::try_from(n)
                .ok()
                .filter(|n| i128::try_from(*n).is_ok_and(|n| n < len))
        };
        let found = match object {
            Value::Str(s) => {
                self.spend(s.len() / 16)?;
                if index.as_int().is_some() {
                    let len = if s.is_ascii() {
                        s.len()
                    } else {
                        s.chars().count()
                    };
                    at(len)
                        .and_then(|i| s.chars().nth(i))
                        .map(|c| Value::str(c.to_string()))
                } else {
                    None
                }
            }
            Value::Markup(_) => return Err(Error::unsupported("a subscript of escaped text")),
            Value::List(i) | Value::Tuple(i) | Value::Group(i) => {
                at(i.items.len()).and_then(|n| i.items.get(n).cloned())
            }
            Value::Dict(d) => {
                self.spend(d.entries.len() / 8)?;
                if index.check_hashable().is_ok() {
                    d.get(index).cloned()
                } else {
                    None
                }
            }
            Value::Range(r) => at(usize::try_from(r.len()).unwrap_or(usize::MAX))
                .and_then(|i| i128::try_from(i).ok())
                .map(|i| r.get(i)),
            _ => None,
        };
        if let Some(value) = found {
            return Ok(value);
        }
        if let Some(name) = index.as_str() {
            if let Some(value) = self.own_attribute(object, name)? {
                return Ok(value);
            }
            return Ok(missing(object, name));
        }
        let mut name = String::new();
        if !matches!(
            index,
            Value::Object(_) | Value::Function(_) | Value::Method(_)
        ) {
            self.allocate(index.weight())?;
            index.repr(&mut name)?;
        }
        Ok(Value::undefined(format!(
            "{} object has no element {name}",
            object.type_name()
        )))
    }

    /// `object[start:stop:step]`.
    pub(super) fn slice(&mut self, object: &Value, bounds: [Option<i128>; 3]) -> Result<Value> {
        let step = bounds[2].unwrap_or(1);
        let ends = |len: usize| -> (i128, i128) {
            let len = i128::try_from(len).unwrap_or(i128::MAX);
            let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
            let bound = |b: Option<i128>, default: i128| {
                b.map_or(default, |b| {
                    let b = if b < 0 { b.saturating_add(len) } else { b };
                    b.clamp(low, high)
                })
            };
            let (first, last) = if step > 0 { (low, high) } else { (high, low) };
            (bound(bounds[0], first), bound(bounds[1], last))
        };
        let picked = |len: usize| -> Result<Vec<usize>> {
            if step == 0 {
                return Err(Error::new("slice step cannot be zero"));
            }
            let (mut at, stop) = ends(len);
            let mut picked = Vec::new();
            while (step > 0 && at < stop) || (step < 0 && at > stop) {
                picked.push(usize::try_from(at).unwrap_or(0));
                at = at.saturating_add(step);
            }
            Ok(picked)
        };
        match object {
            Value::Str(s) => {
                self.allocate(s.len() * 4)?;
                self.spend(s.len())?;
                let chars: Vec<char> = s.chars().collect();
                let text: String = picked(chars.len())?.into_iter().map(|i| chars[i]).collect();
                Ok(Value::str(text))
            }
            Value::List(i) => {
                self.spend(i.items.len())?;
                let items = picked(i.items.len())?
                    .into_iter()
                    .map(|n| i.items[n].clone());
                let items = items.collect();
                self.list(items)
            }
            Value::Tuple(i) | Value::Group(i) => {
                self.allocate(i.items.len() * size_of::<Value>())?;
                let items = picked(i.items.len())?
                    .into_iter()
                    .map(|n| i.items[n].clone());
                Value::tuple(items.collect())
            }
            Value::Range(r) => {
                picked(0)?;
                let (start, stop) = ends(usize::try_from(r.len()).unwrap_or(0));
                Ok(Value::Range(Range {
                    start: r.start + start * r.step,
                    stop: r.start + stop * r.step,
                    step: r.step.saturating_mul(step),
                }))
            }
            Value::Markup(_) => Err(Error::unsupported("a slice of escaped text")),
            Value::Undefined(hint) => Err(Error::new(&**hint)),
            _ => Err(Error::new(format!(
                "'{}' object cannot be sliced",
                object.type_name()
            ))),
        }
    }

    /// The entries of a mapping, for what takes one.
    pub(in super::super) fn mapping<'a>(&self, value: &'a Value) -> Option<&'a Rc<Dict>> {
        match value {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }
}

fn missing(object: &Value, name: &str) -> Value {
    Value::undefined(format!(
        "'{} object' has no attribute '{name}'",
        object.type_name()
    ))
}
