//! Operators and comparisons between values.

use std::cmp::Ordering;

use super::super::ast::{BinOp, CmpOp};
use super::super::format;
use super::super::number::arithmetic;
use super::super::value::View;
use super::{Error, Machine, Object, Result, Value, not_iterable};

impl Machine {
    /// An operator between two values.
    pub(in super::super) fn binary(&mut self, op: BinOp, a: &Value, b: &Value) -> Result<Value> {
        self.spend(0)?;
        if let Some(number) = arithmetic(op, a, b) {
            return number;
        }
        let wrong = || {
            Error::new(format!(
                "unsupported operand types: '{}' and '{}'",
                a.type_name(),
                b.type_name()
            ))
        };
        match (op, a, b) {
            (BinOp::Mod, Value::Str(template), _) => {
                let text = format::percent(self, template, b)?;
                self.text(text)
            }
            (_, Value::Undefined(hint), _) | (_, _, Value::Undefined(hint)) => {
                Err(Error::new(&**hint))
            }
            (_, Value::Markup(_), _) | (_, _, Value::Markup(_)) => {
                Err(Error::unsupported("an operator beside escaped text"))
            }
            (BinOp::Add, Value::Str(a), Value::Str(b)) => {
                self.allocate(a.len() + b.len())?;
                Ok(Value::str([&**a, &**b].concat()))
            }
            (BinOp::Add, Value::List(x), Value::List(y)) => {
                self.list([&x.items[..], &y.items].concat())
            }
            (BinOp::Add, Value::Tuple(x) | Value::Group(x), Value::Tuple(y) | Value::Group(y)) => {
                self.allocate((x.items.len() + y.items.len()) * size_of::<Value>())?;
                Value::tuple([&x.items[..], &y.items].concat())
            }
            (BinOp::Mul, many, n) | (BinOp::Mul, n, many)
                if n.as_int().is_some()
                    && matches!(many, Value::Str(_) | Value::List(_) | Value::Tuple(_)) =>
            {
                self.repeat(many, n.as_int().unwrap_or(0))
            }
            (BinOp::Mul, many, n) | (BinOp::Mul, n, many)
                if many.as_int().is_some()
                    && matches!(n, Value::Str(_) | Value::List(_) | Value::Tuple(_)) =>
            {
                self.repeat(n, many.as_int().unwrap_or(0))
            }
            _ => Err(wrong()),
        }
    }

    fn repeat(&mut self, many: &Value, n: i128) -> Result<Value> {
        let len = match many {
            Value::Str(s) => s.len(),
            Value::List(i) | Value::Tuple(i) => i.items.len() * size_of::<Value>(),
            _ => 0,
        };
        let n = if n <= 0 || len == 0 {
            0
        } else {
            usize::try_from(n).unwrap_or(usize::MAX)
        };
        self.allocate(len.saturating_mul(n))?;
        match many {
            Value::Str(s) => Ok(Value::str(s.repeat(n))),
            Value::List(i) => Value::list(repeated(&i.items, n)),
            Value::Tuple(i) => Value::tuple(repeated(&i.items, n)),
            _ => Err(Error::new("cannot be repeated")),
        }
    }

    /// A comparison of two values.
    pub(in super::super) fn compare(&mut self, op: CmpOp, a: &Value, b: &Value) -> Result<bool> {
        self.spend(a.weight().min(b.weight()) / 16)?;
        let order = |wanted: fn(Ordering) -> bool| Ok(a.compare(b)?.is_some_and(wanted));
        match op {
            CmpOp::Eq => Ok(a.equal(b)),
            CmpOp::Ne => Ok(!a.equal(b)),
            CmpOp::Lt => order(Ordering::is_lt),
            CmpOp::Le => order(Ordering::is_le),
            CmpOp::Gt => order(Ordering::is_gt),
            CmpOp::Ge => order(Ordering::is_ge),
            CmpOp::In => self.contains(b, a),
            CmpOp::NotIn => Ok(!self.contains(b, a)?),
        }
    }

    /// Python's `in`.
    pub(in super::super) fn contains(&mut self, all: &Value, one: &Value) -> Result<bool> {
        self.spend((all.weight() + one.weight()) / 16)?;
        match all {
            Value::Str(text) | Value::Markup(text) => match one.as_str() {
                Some(part) => Ok(text.contains(part)),
                None => Err(Error::new(format!(
                    "'in <string>' requires string as left operand, not {}",
                    one.type_name()
                ))),
            },
            Value::List(i) | Value::Tuple(i) | Value::Group(i) => {
                Ok(i.items.iter().any(|item| item.equal(one)))
            }
            Value::Dict(dict) | Value::View(View::Keys, dict) => {
                one.check_hashable()?;
                Ok(dict.get(one).is_some())
            }
            Value::Range(r) => Ok(match one {
                Value::Float(x) => (0..r.len()).any(|i| r.get(i).equal(&Value::Float(*x))),
                _ => one.as_int().is_some_and(|n| r.contains(n)),
            }),
            Value::Object(id) => {
                let Object::Iterator(items) = &mut self.objects[*id] else {
                    return Err(not_iterable(all));
                };
                // The items compared are taken out of the iterator.
                let mut steps = 0;
                let mut found = false;
                while let Some(item) = items.pop_front() {
                    steps += 1;
                    if item.equal(one) {
                        found = true;
                        break;
                    }
                }
                self.spend(steps)?;
                Ok(found)
            }
            _ => {
                let items = self.iterate(all)?;
                Ok(items.iter().any(|item| item.equal(one)))
            }
        }
    }
}

fn repeated(items: &[Value], n: usize) -> Vec<Value> {
    std::iter::repeat_n(items, n).flatten().cloned().collect()
}
