//! Evaluates expressions: [`Machine::eval`].

use super::super::ast::{BinOp, CmpOp};
use super::super::number::too_large;
use super::super::value::Function;
use super::super::{filters, is};
use super::{Error, Expr, Machine, Result, Value, insert};

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
            Expr::Name(name) => self.variable(name, scope)?,
            Expr::List(items) => {
                let items = self.eval_all(items, scope)?;
                self.list(items)?
            }
            Expr::Tuple(items) => Value::tuple(self.eval_all(items, scope)?)?,
            Expr::Dict(pairs) => self.dict(pairs, scope)?,
            Expr::Concat(parts) => self.concat(parts, scope)?,
            Expr::Binary(op, left, right) => self.operation(*op, left, right, scope)?,
            Expr::And(a, b) | Expr::Or(a, b) => {
                let a = self.eval(a, scope)?;
                if self.truth(&a)? == matches!(expr, Expr::Or(..)) {
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
                signed(&self.eval(a, scope)?, matches!(expr, Expr::Neg(_)))?
            }
            Expr::Compare(first, others) => Value::Bool(self.comparison(first, others, scope)?),
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
                let mut numbers = [None; 3];
                for (number, bound) in numbers.iter_mut().zip(bounds.iter()) {
                    *number = self.slice_bound(bound.as_ref(), scope)?;
                }
                self.slice(&object, numbers)?
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

    fn variable(&self, name: &str, scope: usize) -> Result<Value> {
        match self.get(scope, name) {
            Some(value) => Ok(value.clone()),
            None if name == "self" => Err(Error::unsupported("`self`")),
            None => {
                Ok(global(name)
                    .unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined"))))
            }
        }
    }

    fn dict(&mut self, pairs: &[(Expr, Expr)], scope: usize) -> Result<Value> {
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let key = self.eval(key, scope)?;
            let value = self.eval(value, scope)?;
            self.spend(entries.len() / 8)?;
            insert(&mut entries, key, value)?;
        }
        Value::dict(entries)
    }

    fn concat(&mut self, parts: &[Expr], scope: usize) -> Result<Value> {
        let mut text = String::new();
        for part in parts {
            let value = self.eval(part, scope)?;
            self.print(&value, &mut text)?;
        }
        self.text(text)
    }

    fn operation(&mut self, op: BinOp, left: &Expr, right: &Expr, scope: usize) -> Result<Value> {
        let a = self.eval(left, scope)?;
        let b = self.eval(right, scope)?;
        // Jinja2 folds the constant and then writes Python without its brackets.
        if op == BinOp::Pow && constant(left) && !constant(right) && negative(&a) {
            return Err(Error::unsupported("a power of a negative constant"));
        }
        self.binary(op, &a, &b)
    }

    /// `a < b < c`: every neighbouring pair, until one fails.
    fn comparison(&mut self, first: &Expr, others: &[(CmpOp, Expr)], scope: usize) -> Result<bool> {
        let mut left = self.eval(first, scope)?;
        for (op, right) in others {
            let right = self.eval(right, scope)?;
            if !self.compare(*op, &left, &right)? {
                return Ok(false);
            }
            left = right;
        }
        Ok(true)
    }

    fn slice_bound(&mut self, bound: Option<&Expr>, scope: usize) -> Result<Option<i128>> {
        let Some(bound) = bound else { return Ok(None) };
        let value = self.eval(bound, scope)?;
        match (&value, value.as_int()) {
            (Value::None, _) => Ok(None),
            (_, Some(n)) => Ok(Some(n)),
            _ => Err(Error::new("slice indices must be integers or None")),
        }
    }
}

/// `-value` or `+value`.
fn signed(value: &Value, negate: bool) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Float(x), _) => Ok(Value::Float(if negate { -x } else { *x })),
        (_, Some(n)) if negate => n.checked_neg().map(Value::Int).ok_or_else(too_large),
        (_, Some(n)) => Ok(Value::Int(n)),
        (Value::Undefined(hint), _) => Err(Error::new(&**hint)),
        _ => Err(Error::new(format!(
            "bad operand type for unary operator: '{}'",
            value.type_name()
        ))),
    }
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
