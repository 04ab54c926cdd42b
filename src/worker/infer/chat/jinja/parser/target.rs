//! What a tag assigns to, and which names it reads.

use super::super::ast::Target;
use super::{Error, Kind, Parser, Result};

impl Parser {
    /// What is assigned to: names, tuples of them, a namespace's attribute.
    pub(super) fn target(&mut self, ends: &[&str], namespace: bool) -> Result<Target> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            let end = matches!(self.kind(), Kind::VariableEnd | Kind::BlockEnd)
                || self.is_op(")")
                || ends.iter().any(|e| self.is_name(e));
            if end {
                break;
            }
            targets.push(self.deeper(|p| p.single_target(namespace))?);
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        match targets.pop() {
            Some(only) if !tuple => Ok(only),
            Some(last) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
            None => self.expected("a name to assign to"),
        }
    }

    fn single_target(&mut self, namespace: bool) -> Result<Target> {
        if self.skip_op("(") {
            let inner = self.target(&[], false)?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.expect_name()?;
        if namespace && self.skip_op(".") {
            return Ok(Target::Namespace(name, self.expect_name()?));
        }
        self.stored(&name)?;
        Ok(Target::Name(name))
    }

    /// Notes that a name is assigned.
    pub(super) fn stored(&mut self, name: &str) -> Result<()> {
        reserved(name).map_err(|e| e.at(self.line()))?;
        if name == "loop" && self.targets_in_loop > 0 {
            return self.fail("Can't assign to special loop variable in for-loop target");
        }
        self.assigned(name)?;
        for (_, stored) in &mut self.macros {
            match name {
                "caller" => stored.caller = true,
                "kwargs" => stored.kwargs = true,
                "varargs" => stored.varargs = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes that a name is read.
    pub(super) fn loaded(&mut self, name: &str) {
        self.read(name);
        for (used, stored) in &mut self.macros {
            match name {
                "caller" => used.caller |= !stored.caller,
                "kwargs" => used.kwargs |= !stored.kwargs,
                "varargs" => used.varargs |= !stored.varargs,
                _ => {}
            }
        }
    }
}

/// Refuses to assign to a constant's name.
pub(super) fn reserved(name: &str) -> Result<()> {
    match name {
        "true" | "false" | "none" | "True" | "False" | "None" => {
            Err(Error::new(format!("cannot assign to `{name}`")))
        }
        _ => Ok(()),
    }
}
