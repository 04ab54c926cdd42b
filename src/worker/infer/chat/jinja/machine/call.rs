//! Calls: arguments, macros and the functions that every template sees.

use std::rc::Rc;

use super::super::ast::Args;
use super::super::value::{Closure, Function, Range};
use super::super::{methods, value};
use super::{Error, Expr, Machine, Object, Result, Value, check_attribute, insert};

/// How many items a `range` may have, as in Jinja2's sandbox.
const MAX_RANGE: i128 = 100_000;

/// Arguments that are known.
#[derive(Default, Clone)]
pub(in super::super) struct CallArgs {
    pub(in super::super) positional: Vec<Value>,
    pub(in super::super) named: Vec<(Rc<str>, Value)>,
}

impl CallArgs {
    /// The arguments of `function` by its parameters' names.
    pub(in super::super) fn bind<const N: usize>(
        self,
        function: &str,
        names: [&str; N],
    ) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Error::new(format!(
                "{function}() takes at most {N} arguments, not {}",
                self.positional.len()
            )));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let slot = names
                .iter()
                .position(|n| **n == *name)
                .map(|i| &mut bound[i])
                .filter(|slot| slot.is_none());
            match slot {
                Some(slot) => *slot = Some(value),
                None => {
                    return Err(Error::new(format!(
                        "{function}() got an unexpected argument '{name}'"
                    )));
                }
            }
        }
        Ok(bound)
    }

    /// At most `N` arguments, none of them by name.
    pub(in super::super) fn positional<const N: usize>(
        self,
        function: &str,
    ) -> Result<[Option<Value>; N]> {
        if !self.named.is_empty() {
            return Err(Error::new(format!(
                "{function}() takes no keyword arguments"
            )));
        }
        self.bind(function, [""; N])
    }

    /// No argument at all.
    pub(in super::super) fn none(self, function: &str) -> Result<()> {
        self.positional::<0>(function).map(|_| ())
    }
}

/// An argument that must be there.
pub(in super::super) fn required(value: Option<Value>, function: &str) -> Result<Value> {
    value.ok_or_else(|| Error::new(format!("{function}() misses an argument")))
}

impl Machine {
    pub(super) fn args(&mut self, args: &Args, scope: usize) -> Result<CallArgs> {
        let mut known = CallArgs::default();
        for expr in &args.positional {
            known.positional.push(self.eval(expr, scope)?);
        }
        for (name, expr) in &args.named {
            known
                .named
                .push((Rc::from(&**name), self.eval(expr, scope)?));
        }
        if let Some(star) = &args.star {
            let value = self.eval(star, scope)?;
            let items = self.iterate(&value)?;
            known.positional.extend(items);
        }
        if let Some(stars) = &args.double_star {
            let value = self.eval(stars, scope)?;
            let Some(dict) = self.mapping(&value) else {
                return Err(Error::new("argument after ** must be a mapping"));
            };
            for (key, value) in &dict.entries {
                let Value::Str(name) = key else {
                    return Err(Error::new("keywords must be strings"));
                };
                if known.named.iter().any(|(n, _)| n == name) {
                    return Err(Error::new(format!("the argument '{name}' is given twice")));
                }
                known.named.push((Rc::clone(name), value.clone()));
            }
        }
        Ok(known)
    }

    /// A call expression with `caller` among its arguments.
    pub(super) fn call_with(&mut self, call: &Expr, caller: Value, scope: usize) -> Result<Value> {
        let Expr::Call(callee, args) = call else {
            return Err(Error::new("expected call"));
        };
        let callee = self.eval(callee, scope)?;
        let mut args = self.args(args, scope)?;
        if args.named.iter().any(|(n, _)| &**n == "caller") {
            return Err(Error::new("the argument 'caller' is given twice"));
        }
        args.named.push(("caller".into(), caller));
        self.call(&callee, args)
    }

    /// Calls a value.
    pub(in super::super) fn call(&mut self, callee: &Value, args: CallArgs) -> Result<Value> {
        self.spend(0)?;
        match callee {
            Value::Macro(closure) => self.deeper(|m| m.call_macro(closure, args)),
            Value::Function(function) => self.call_function(*function, args),
            Value::Method(method) => {
                let (object, name) = &**method;
                match object {
                    Value::Object(id) => self.call_object(*id, name, args),
                    _ => methods::call(self, object, name, args),
                }
            }
            Value::Object(id) => match &mut self.objects[*id] {
                Object::Loop(_) => self.loop_again(*id, &args),
                Object::Joiner(text, used) => {
                    let value = if std::mem::replace(used, true) {
                        text.clone()
                    } else {
                        Value::str("")
                    };
                    args.none("joiner")?;
                    Ok(value)
                }
                _ => Err(not_callable(callee)),
            },
            Value::Undefined(hint) => Err(Error::new(&**hint)),
            _ => Err(not_callable(callee)),
        }
    }

    fn call_object(&mut self, id: usize, name: &str, args: CallArgs) -> Result<Value> {
        match (&mut self.objects[id], name) {
            (Object::Loop(_), "cycle") => self.loop_cycle(id, &args),
            (Object::Loop(_), "changed") if args.named.is_empty() => self.loop_changed(id, &args),
            (Object::Cycler(items, at), "next") => {
                let value = items[*at].clone();
                *at = (*at + 1) % items.len();
                args.none("next")?;
                Ok(value)
            }
            (Object::Cycler(_, at), "reset") => {
                *at = 0;
                args.none("reset")?;
                Ok(Value::None)
            }
            _ => Err(Error::new(format!("`{name}` cannot be called like this"))),
        }
    }

    /// The order in which `jinja2.runtime.Macro` gives out its arguments.
    fn call_macro(&mut self, closure: &Closure, args: CallArgs) -> Result<Value> {
        let def = &closure.def;
        let title = def.name.as_deref().unwrap_or("caller");
        let CallArgs {
            mut positional,
            mut named,
        } = args;
        let extra = positional.split_off(positional.len().min(def.params.len()));
        let mut given: Vec<Option<Value>> = positional.into_iter().map(Some).collect();
        let all_positional = given.len() == def.params.len();
        let mut found_caller = all_positional && def.params.iter().any(|(n, _)| &**n == "caller");
        for (name, _) in &def.params[given.len()..] {
            let at = named.iter().position(|(n, _)| **n == **name);
            given.push(at.map(|i| named.remove(i).1));
            found_caller |= &**name == "caller";
        }
        let scope = self.open(closure.scope);
        if def.uses.caller && !found_caller {
            let at = named.iter().position(|(n, _)| &**n == "caller");
            let caller = at
                .map(|i| named.remove(i).1)
                .filter(|c| !matches!(c, Value::None))
                .unwrap_or_else(|| Value::undefined("No caller defined"));
            self.set(scope, &"caller".into(), caller);
        }
        let declares = |name: &str| def.params.iter().any(|(n, _)| &**n == name);
        if def.uses.kwargs && !declares("kwargs") {
            let entries = named.drain(..).map(|(n, v)| (Value::Str(n), v));
            let kwargs = Value::dict(entries.collect())?;
            self.set(scope, &"kwargs".into(), kwargs);
        } else if let Some((name, _)) = named.first() {
            return Err(Error::new(format!(
                "macro '{title}' takes no keyword argument '{name}'"
            )));
        }
        if def.uses.varargs && !declares("varargs") {
            let varargs = Value::tuple(extra)?;
            self.set(scope, &"varargs".into(), varargs);
        } else if !extra.is_empty() {
            return Err(Error::new(format!(
                "macro '{title}' takes not more than {} argument(s)",
                def.params.len()
            )));
        }
        // A default sees the other arguments, and those without a value as undefined.
        for ((name, _), value) in def.params.iter().zip(&given) {
            let value = value.clone().unwrap_or_else(|| {
                Value::undefined(format!("parameter '{name}' was not provided"))
            });
            self.set(scope, name, value);
        }
        for ((name, default), value) in def.params.iter().zip(&given) {
            if let (Some(default), None) = (default, value) {
                let value = self.eval(default, scope)?;
                self.set(scope, name, value);
            }
        }
        let mut out = String::new();
        self.run(&def.body, scope, &mut out)?;
        self.close(scope);
        Ok(Value::str(out))
    }

    fn call_function(&mut self, function: Function, args: CallArgs) -> Result<Value> {
        match function {
            Function::Range => range(args),
            Function::Dict => self.pairs("dict", args).and_then(Value::dict),
            Function::Namespace => {
                let entries = self.pairs("namespace", args)?;
                for (key, _) in &entries {
                    match key.as_str() {
                        Some(name) => check_attribute(name)?,
                        None => return Err(Error::unsupported("an attribute that is not text")),
                    }
                }
                Ok(self.object(Object::Namespace(entries)))
            }
            Function::Cycler => {
                if args.positional.is_empty() || !args.named.is_empty() {
                    return Err(Error::new("at least one item has to be provided"));
                }
                Ok(self.object(Object::Cycler(args.positional, 0)))
            }
            Function::Joiner => {
                let [sep] = args.bind("joiner", ["sep"])?;
                Ok(self.object(Object::Joiner(
                    sep.unwrap_or_else(|| Value::str(", ")),
                    false,
                )))
            }
            Function::Lipsum => Err(Error::unsupported("the function `lipsum`")),
            Function::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"])?;
                let message = required(message, "raise_exception")?;
                Err(Error::new(&*self.string(&message)?))
            }
            Function::StrftimeNow => {
                let [form] = args.bind("strftime_now", ["format"])?;
                let Some(Value::Str(form)) = form else {
                    return Err(Error::new("strftime_now() takes a text"));
                };
                let day = (self.strftime)(&form).map_err(Error::unsupported)?;
                self.text(day)
            }
        }
    }

    /// What `dict(...)` is given.
    fn pairs(&mut self, function: &str, args: CallArgs) -> Result<Vec<(Value, Value)>> {
        let mut entries = Vec::new();
        if args.positional.len() > 1 {
            return Err(Error::new(format!(
                "{function} expected at most 1 argument"
            )));
        }
        for value in args.positional {
            if let Some(dict) = self.mapping(&value) {
                entries.clone_from(&dict.entries);
                continue;
            }
            if let Value::Undefined(hint) = &value {
                // `dict` asks it for its keys.
                return Err(Error::new(&**hint));
            }
            for pair in self.iterate(&value)? {
                let pair = self.iterate(&pair)?;
                let [key, value] = pair.as_slice() else {
                    return Err(Error::new("a pair has two items"));
                };
                self.spend(entries.len() / 8)?;
                insert(&mut entries, key.clone(), value.clone())?;
            }
        }
        for (name, value) in args.named {
            self.spend(entries.len() / 8)?;
            insert(&mut entries, value::Value::Str(name), value)?;
        }
        Ok(entries)
    }
}

fn not_callable(value: &Value) -> Error {
    Error::new(format!("'{}' object is not callable", value.type_name()))
}

fn range(args: CallArgs) -> Result<Value> {
    let args = args.positional::<3>("range")?;
    let int = |value: &Option<Value>| match value {
        None => Ok(None),
        Some(v) => match (v, v.as_int()) {
            (_, Some(n)) if n.abs() < i128::from(i64::MAX) => Ok(Some(n)),
            (_, Some(_)) => Err(Error::unsupported("a range of so large numbers")),
            (Value::Undefined(hint), _) => Err(Error::new(&**hint)),
            _ => Err(Error::new(format!(
                "'{}' object cannot be interpreted as an integer",
                v.type_name()
            ))),
        },
    };
    let (first, second, step) = (int(&args[0])?, int(&args[1])?, int(&args[2])?);
    let Some(first) = first else {
        return Err(Error::new("range expected at least 1 argument, got 0"));
    };
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Error::new("range() arg 3 must not be zero"));
    }
    let range = Range { start, stop, step };
    if range.len() > MAX_RANGE {
        return Err(Error::new(format!(
            "Range too big. The sandbox blocks ranges larger than {MAX_RANGE}."
        )));
    }
    Ok(Value::Range(range))
}
