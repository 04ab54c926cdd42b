//! Expressions: operators, comparisons, attributes, subscripts and slices.

use std::cmp::Ordering;
use std::rc::Rc;

use super::super::ast::{BinOp, CmpOp};
use super::super::number::{arithmetic, too_large};
use super::super::value::{Dict, Function, Range};
use super::super::{filters, format, is, methods};
use super::{Error, Expr, Machine, Object, Result, Value, insert};

impl Machine {
    pub(super) fn eval(&mut self, expr: &Expr, scope: usize) -> Result<Value> {
        self.deeper(|m| m.eval_here(expr, scope))
    }

    fn eval_all(&mut self, exprs: &[Expr], scope: usize) -> Result<Vec<Value>> {
        exprs.iter().map(|e| self.eval(e, scope)).collect()
    }

    fn eval_here(&mut self, expr: &Expr, scope: usize) -> Result<Value> {
        self.spend(0)?;
        Ok(match expr {
            Expr::Const(c) => Value::from(c),
            Expr::Name(name) => match self.get(scope, name) {
                Some(value) => value.clone(),
                None if &**name == "self" => return Err(Error::unsupported("`self`")),
                None => global(name)
                    .unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined"))),
            },
            Expr::List(items) => {
                let items = self.eval_all(items, scope)?;
                self.list(items)?
            }
            Expr::Tuple(items) => Value::tuple(self.eval_all(items, scope)?)?,
            Expr::Dict(pairs) => {
                let mut entries = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let key = self.eval(key, scope)?;
                    let value = self.eval(value, scope)?;
                    self.spend(entries.len() / 8)?;
                    insert(&mut entries, key, value)?;
                }
                Value::dict(entries)?
            }
            Expr::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    let value = self.eval(part, scope)?;
                    self.print(&value, &mut text)?;
                }
                self.text(text)?
            }
            Expr::Binary(op, a, b) => {
                let (left, right) = (a, b);
                let a = self.eval(a, scope)?;
                let b = self.eval(b, scope)?;
                // Jinja2 folds the constant and then writes Python without its brackets.
                if *op == BinOp::Pow && constant(left) && !constant(right) && negative(&a) {
                    return Err(Error::unsupported("a power of a negative constant"));
                }
                self.binary(*op, &a, &b)?
            }
            Expr::And(a, b) => {
                let a = self.eval(a, scope)?;
                if self.truth(&a)? {
                    self.eval(b, scope)?
                } else {
                    a
                }
            }
            Expr::Or(a, b) => {
                let a = self.eval(a, scope)?;
                if self.truth(&a)? {
                    a
                } else {
                    self.eval(b, scope)?
                }
            }
            Expr::Not(a) => {
                let a = self.eval(a, scope)?;
                Value::Bool(!self.truth(&a)?)
            }
            Expr::Neg(a) | Expr::Pos(a) => {
                let negate = matches!(expr, Expr::Neg(_));
                let a = self.eval(a, scope)?;
                match (&a, a.as_int()) {
                    (Value::Float(x), _) => Value::Float(if negate { -x } else { *x }),
                    (_, Some(n)) if negate => Value::Int(n.checked_neg().ok_or_else(too_large)?),
                    (_, Some(n)) => Value::Int(n),
                    (Value::Undefined(hint), _) => return Err(Error::new(&**hint)),
                    _ => {
                        return Err(Error::new(format!(
                            "bad operand type for unary operator: '{}'",
                            a.type_name()
                        )));
                    }
                }
            }
            Expr::Compare(first, others) => {
                let mut left = self.eval(first, scope)?;
                let mut holds = true;
                for (op, right) in others {
                    let right = self.eval(right, scope)?;
                    holds = self.compare(*op, &left, &right)?;
                    if !holds {
                        break;
                    }
                    left = right;
                }
                Value::Bool(holds)
            }
            Expr::Cond(test, value, otherwise) => {
                let test = self.eval(test, scope)?;
                if self.truth(&test)? {
                    self.eval(value, scope)?
                } else if let Some(otherwise) = otherwise {
                    self.eval(otherwise, scope)?
                } else {
                    Value::undefined(
                        "the inline if-expression evaluated to false and no else section was \
                         defined",
                    )
                }
            }
            Expr::Attr(object, name) => {
                let object = self.eval(object, scope)?;
                self.attribute(&object, name)?
            }
            Expr::Item(object, index) => {
                let object = self.eval(object, scope)?;
                let index = self.eval(index, scope)?;
                self.item(&object, &index)?
            }
            Expr::Slice(object, bounds) => {
                let object = self.eval(object, scope)?;
                let mut parts = [None; 3];
                for (part, bound) in parts.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        let value = self.eval(bound, scope)?;
                        *part = match (&value, value.as_int()) {
                            (Value::None, _) => None,
                            (_, Some(n)) => Some(n),
                            _ => {
                                return Err(Error::new("slice indices must be integers or None"));
                            }
                        };
                    }
                }
                self.slice(&object, parts)?
            }
            Expr::Call(callee, args) => {
                let callee = self.eval(callee, scope)?;
                let args = self.args(args, scope)?;
                self.call(&callee, args)?
            }
            Expr::Filter(value, name, args) => {
                let value = self.eval(value, scope)?;
                let args = self.args(args, scope)?;
                filters::apply(self, name, value, args)?
            }
            Expr::Test(value, name, args) => {
                let value = self.eval(value, scope)?;
                let args = self.args(args, scope)?;
                Value::Bool(is::apply(self, name, &value, args)?)
            }
            Expr::Body => match self.bodies.last() {
                Some(text) => text.clone(),
                None => return Err(Error::new("a filter without a value")),
            },
        })
    }

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
            Value::Dict(dict) | Value::View(super::super::value::View::Keys, dict) => {
                one.check_hashable()?;
                Ok(dict.get(one).is_some())
            }
            Value::Range(r) => Ok(match one {
                Value::Float(x) => (0..r.len()).any(|i| r.get(i).equal(&Value::Float(*x))),
                _ => one.as_int().is_some_and(|n| r.contains(n)),
            }),
            Value::Object(id) => {
                let Object::Iterator(items) = &mut self.objects[*id] else {
                    return Err(super::not_iterable(all));
                };
                // What was looked at is gone.
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
    fn slice(&mut self, object: &Value, bounds: [Option<i128>; 3]) -> Result<Value> {
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

/// Whether Jinja2 computes a number before it renders.
fn constant(expr: &Expr) -> bool {
    match expr {
        Expr::Const(_) => true,
        Expr::Neg(a) | Expr::Pos(a) => constant(a),
        Expr::Binary(_, a, b) => constant(a) && constant(b),
        _ => false,
    }
}

fn negative(value: &Value) -> bool {
    match value {
        Value::Float(x) => x.is_sign_negative(),
        other => other.as_int().is_some_and(|n| n < 0),
    }
}

fn repeated(items: &[Value], n: usize) -> Vec<Value> {
    std::iter::repeat_n(items, n).flatten().cloned().collect()
}

/// The functions that every template sees.
fn global(name: &str) -> Option<Value> {
    Some(Value::Function(match name {
        "range" => Function::Range,
        "dict" => Function::Dict,
        "namespace" => Function::Namespace,
        "cycler" => Function::Cycler,
        "joiner" => Function::Joiner,
        "lipsum" => Function::Lipsum,
        "raise_exception" => Function::RaiseException,
        "strftime_now" => Function::StrftimeNow,
        _ => return None,
    }))
}
