//! `for` loops and their variable `loop`: [`Loop`].

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use super::super::ast::For;
use super::{CallArgs, Error, Flow, Machine, Object, Result, Text, Value};

static LOOP: LazyLock<Text> = LazyLock::new(|| "loop".into());

/// A loop on its way. An item is looked at when it is needed: a loop's test may
/// depend on what its body did.
pub(super) struct Loop {
    rest: VecDeque<Value>,
    /// The loop's node and the scope of its test and of its recursion.
    node: Arc<For>,
    scope: usize,
    /// Length, where it is known without going through the items.
    length: Option<i128>,
    index0: i128,
    depth0: i128,
    before: Option<Value>,
    current: Option<Value>,
    after: Option<Value>,
    changed: Option<Vec<Value>>,
    /// Whether what is left passed the test.
    tested: bool,
    /// Whether its items are gone through.
    ended: bool,
}

impl Loop {
    /// Number of the iteration, from 1.
    pub(super) fn index(&self) -> i128 {
        self.index0 + 1
    }
}

impl Machine {
    fn state(&mut self, id: usize) -> Result<&mut Loop> {
        match &mut self.objects[id] {
            Object::Loop(state) => Ok(state),
            _ => Err(Error::new("not a loop")),
        }
    }

    pub(super) fn for_loop(
        &mut self,
        node: &Arc<For>,
        scope: usize,
        out: &mut String,
    ) -> Result<Flow> {
        let iterable = self.eval(&node.iter, scope)?;
        self.iterations(node, &iterable, scope, 0, out)
    }

    fn iterations(
        &mut self,
        node: &Arc<For>,
        iterable: &Value,
        scope: usize,
        depth0: i128,
        out: &mut String,
    ) -> Result<Flow> {
        let sized = node.test.is_none() && !self.is_iterator(iterable);
        let rest: VecDeque<Value> = self.iterate(iterable)?.into();
        let length = sized.then(|| i128::try_from(rest.len()).unwrap_or(i128::MAX));
        let state = self.object(Object::Loop(Box::new(Loop {
            rest,
            node: Arc::clone(node),
            scope,
            length,
            index0: -1,
            depth0,
            before: None,
            current: None,
            after: None,
            changed: None,
            tested: false,
            ended: false,
        })));
        let Value::Object(id) = state else {
            return Err(Error::new("not a loop"));
        };
        let mut completed = false;
        while let Some(item) = self.advance(id)? {
            self.spend(0)?;
            let inner = self.open(scope);
            self.set(inner, &LOOP, Value::Object(id));
            self.assign(&node.target, item, inner)?;
            let flow = self.run(&node.body, inner, out)?;
            self.close(inner);
            match flow {
                Flow::Next => completed = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        let state = self.state(id)?;
        state.ended = true;
        state.rest.clear();
        // As in Jinja2, an iteration that `continue` cuts short does not count.
        if completed {
            return Ok(Flow::Next);
        }
        let inner = self.open(scope);
        let flow = self.run(&node.otherwise, inner, out)?;
        self.close(inner);
        Ok(flow)
    }

    fn advance(&mut self, id: usize) -> Result<Option<Value>> {
        let item = match self.state(id)?.after.take() {
            Some(item) => Some(item),
            None => self.pull(id)?,
        };
        let state = self.state(id)?;
        if let Some(item) = &item {
            state.index0 += 1;
            state.before = state.current.replace(item.clone());
        }
        Ok(item)
    }

    /// The next item that passes the loop's test.
    fn pull(&mut self, id: usize) -> Result<Option<Value>> {
        loop {
            let state = self.state(id)?;
            let Some(item) = state.rest.pop_front() else {
                return Ok(None);
            };
            let (node, scope, tested) = (Arc::clone(&state.node), state.scope, state.tested);
            let Some(test) = node.test.as_ref().filter(|_| !tested) else {
                return Ok(Some(item));
            };
            self.spend(0)?;
            let inner = self.open(scope);
            self.assign(&node.target, item.clone(), inner)?;
            let value = self.eval(test, inner)?;
            let passes = self.truth(&value)?;
            self.close(inner);
            if passes {
                return Ok(Some(item));
            }
        }
    }

    fn peek(&mut self, id: usize) -> Result<Option<Value>> {
        if self.state(id)?.after.is_none() {
            let next = self.pull(id)?;
            self.state(id)?.after = next;
        }
        Ok(self.state(id)?.after.clone())
    }

    pub(in super::super) fn loop_length(&mut self, id: usize) -> Result<i128> {
        if let Some(length) = self.state(id)?.length {
            return Ok(length);
        }
        let mut rest = VecDeque::new();
        while let Some(item) = self.pull(id)? {
            rest.push_back(item);
        }
        let state = self.state(id)?;
        let left = rest.len() + usize::from(state.after.is_some());
        let length = i128::try_from(left).unwrap_or(i128::MAX) + state.index();
        state.length = Some(length);
        state.tested = true;
        state.rest = rest;
        Ok(length)
    }

    /// An attribute of `loop`.
    pub(super) fn loop_attribute(&mut self, id: usize, name: &str) -> Result<Option<Value>> {
        let state = self.state(id)?;
        let (index0, depth0) = (state.index0, state.depth0);
        let value = match name {
            "index0" => Value::Int(index0),
            "index" => Value::Int(index0 + 1),
            "first" => Value::Bool(index0 == 0),
            "depth0" => Value::Int(depth0),
            "depth" => Value::Int(depth0 + 1),
            "length" => Value::Int(self.loop_length(id)?),
            "revindex0" => Value::Int(self.loop_length(id)? - index0 - 1),
            "revindex" => Value::Int(self.loop_length(id)? - index0),
            "last" => Value::Bool(self.peek(id)?.is_none()),
            "previtem" => match state.before.clone() {
                Some(item) if index0 > 0 => item,
                _ => Value::undefined("there is no previous item"),
            },
            "nextitem" => match self.peek(id)? {
                Some(item) => item,
                None => Value::undefined("there is no next item"),
            },
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    pub(super) fn loop_cycle(&mut self, id: usize, args: &CallArgs) -> Result<Value> {
        let index0 = self.state(id)?.index0;
        let at = usize::try_from(index0)
            .ok()
            .and_then(|i| i.checked_rem(args.positional.len()));
        match at {
            Some(i) if args.named.is_empty() => Ok(args.positional[i].clone()),
            _ => Err(Error::new("no items for cycling given")),
        }
    }

    pub(super) fn loop_changed(&mut self, id: usize, args: &CallArgs) -> Result<Value> {
        let weight: usize = args.positional.iter().map(Value::weight).sum();
        self.spend(weight / 64)?;
        let state = self.state(id)?;
        let same = state.changed.as_ref().is_some_and(|last| {
            last.len() == args.positional.len()
                && last.iter().zip(&args.positional).all(|(a, b)| a.equal(b))
        });
        if !same {
            state.changed = Some(args.positional.clone());
        }
        Ok(Value::Bool(!same))
    }

    /// `loop(items)`: the body again, over other items.
    pub(super) fn loop_again(&mut self, id: usize, args: &CallArgs) -> Result<Value> {
        let state = self.state(id)?;
        let node = Arc::clone(&state.node);
        let (scope, depth0) = (state.scope, state.depth0);
        if !node.recursive {
            return Err(Error::new(
                "The loop must have the 'recursive' marker to be called recursively.",
            ));
        }
        let [items] = args.positional.as_slice() else {
            return Err(Error::new("`loop` takes one argument"));
        };
        if state.ended {
            return Err(Error::unsupported("calling `loop` after its loop"));
        }
        let mut out = String::new();
        let items = items.clone();
        self.deeper(|m| m.iterations(&node, &items, scope, depth0 + 1, &mut out))?;
        Ok(Value::str(out))
    }
}
