//! Runs statements: [`Machine::run`].

use std::rc::Rc;
use std::sync::Arc;

use super::super::ast::Target;
use super::super::value::Closure;
use super::{
    CallArgs, Error, Expr, Flow, Machine, Macro, Object, Result, Stmt, Value, check_attribute,
    insert,
};

impl Machine {
    pub(super) fn run(&mut self, body: &[Stmt], scope: usize, out: &mut String) -> Result<Flow> {
        self.deeper(|m| {
            for stmt in body {
                match m.statement(stmt, scope, out)? {
                    Flow::Next => {}
                    flow => return Ok(flow),
                }
            }
            Ok(Flow::Next)
        })
    }

    /// Runs a body into a text of its own, in a scope of its own.
    fn capture(&mut self, body: &[Stmt], scope: usize) -> Result<(String, Flow)> {
        let inner = self.open(scope);
        let mut text = String::new();
        let flow = self.run(body, inner, &mut text)?;
        self.close(inner);
        Ok((text, flow))
    }

    fn statement(&mut self, stmt: &Stmt, scope: usize, out: &mut String) -> Result<Flow> {
        self.spend(0)?;
        match stmt {
            Stmt::Data(text) => {
                self.allocate(text.len())?;
                out.push_str(text);
            }
            Stmt::Print(expr, line) => {
                let print = self
                    .eval(expr, scope)
                    .and_then(|value| self.print(&value, out));
                print.map_err(|e| e.at(*line))?;
            }
            Stmt::Set(target, expr, line) => {
                let set = self
                    .eval(expr, scope)
                    .and_then(|value| self.assign(target, value, scope));
                set.map_err(|e| e.at(*line))?;
            }
            Stmt::SetBlock(target, filter, body, line) => {
                let (text, flow) = self.capture(body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let set = self
                    .filtered(filter.as_ref(), text, scope)
                    .and_then(|value| self.assign(target, value, scope));
                set.map_err(|e| e.at(*line))?;
            }
            Stmt::If(branches, otherwise, line) => {
                let body = self
                    .branch(branches, otherwise, scope)
                    .map_err(|e| e.at(*line))?;
                return self.run(body, scope, out);
            }
            Stmt::For(node) => {
                return self.for_loop(node, scope, out).map_err(|e| e.at(node.line));
            }
            Stmt::Macro(def) => {
                let closure = self.closure(def, scope);
                if let Some(name) = &def.name {
                    self.set(scope, name, closure);
                }
            }
            Stmt::Call(def, call, line) => {
                let caller = self.closure(def, scope);
                let called = self
                    .call_with(call, caller, scope)
                    .and_then(|value| self.print(&value, out));
                called.map_err(|e| e.at(*line))?;
            }
            Stmt::Generation(def) => {
                let closure = self.closure(def, scope);
                let called = self.call(&closure, CallArgs::default());
                let value = called.map_err(|e| e.at(def.line))?;
                self.print(&value, out)?;
            }
            Stmt::FilterBlock(filter, body, line) => {
                let (text, flow) = self.capture(body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let printed = self
                    .filtered(Some(filter), text, scope)
                    .and_then(|value| self.print(&value, out));
                printed.map_err(|e| e.at(*line))?;
            }
            Stmt::With(values, body, line) => {
                let inner = self.open(scope);
                self.assign_all(values, scope, inner)
                    .map_err(|e| e.at(*line))?;
                let flow = self.run(body, inner, out)?;
                self.close(inner);
                return Ok(flow);
            }
            Stmt::NoLoader(name, line) => {
                let message = format!("`{name}`: a chat template has no other templates");
                return Err(Error::new(message).at(*line));
            }
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// The body of the first branch whose test is true.
    fn branch<'a>(
        &mut self,
        branches: &'a [(Expr, Vec<Stmt>)],
        otherwise: &'a [Stmt],
        scope: usize,
    ) -> Result<&'a [Stmt]> {
        for (test, body) in branches {
            let test = self.eval(test, scope)?;
            if self.truth(&test)? {
                return Ok(body);
            }
        }
        Ok(otherwise)
    }

    /// A block's text after its filters.
    fn filtered(&mut self, filter: Option<&Expr>, text: String, scope: usize) -> Result<Value> {
        let text = Value::str(text);
        let Some(filter) = filter else {
            return Ok(text);
        };
        self.bodies.push(text);
        let value = self.eval(filter, scope);
        self.bodies.pop();
        value
    }

    /// Evaluates values in one scope and assigns them in another.
    fn assign_all(&mut self, values: &[(Target, Expr)], from: usize, to: usize) -> Result<()> {
        for (target, expr) in values {
            let value = self.eval(expr, from)?;
            self.assign(target, value, to)?;
        }
        Ok(())
    }

    fn closure(&mut self, def: &Arc<Macro>, scope: usize) -> Value {
        self.captured = self.captured.max(scope + 1);
        Value::Macro(Rc::new(Closure {
            def: Arc::clone(def),
            scope,
        }))
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: usize) -> Result<()> {
        match target {
            Target::Name(name) => self.set(scope, name, value),
            Target::Tuple(targets) => {
                let items = self.iterate(&value)?;
                if items.len() != targets.len() {
                    return Err(Error::new(format!(
                        "{} values to unpack into {} names",
                        items.len(),
                        targets.len()
                    )));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, scope)?;
                }
            }
            Target::Namespace(name, attribute) => {
                let object = match self.get(scope, name) {
                    Some(Value::Object(id)) => Some(*id),
                    _ => None,
                };
                let Some(Object::Namespace(entries)) = object.map(|id| &mut self.objects[id])
                else {
                    return Err(Error::new(format!(
                        "cannot assign attribute on non-namespace object `{name}`"
                    )));
                };
                check_attribute(attribute)?;
                insert(entries, Value::str(&**attribute), value)?;
            }
        }
        Ok(())
    }
}
