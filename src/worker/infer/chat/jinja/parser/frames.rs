//! Which names a scope reads and assigns: [`Frame`].
//!
//! Jinja2 decides before it renders where a name is from. Where a scope assigns
//! a name that it did not read before, a macro or loop inside it that reads the
//! name earlier finds nothing, even if the renderer gave one of that name. That
//! is refused: a scope here finds what was given.

use std::collections::HashSet;

use super::{Error, Parser, Result, Text};

#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Read or assigned in the scope itself.
    own: HashSet<String>,
    /// Read in a scope within it, from outside that one.
    inner: HashSet<String>,
    /// Branches around this place, in the scope.
    branches: usize,
}

impl Frame {
    /// A scope with these names assigned.
    pub(super) fn with<'a>(names: impl Iterator<Item = &'a Text>) -> Self {
        Self {
            own: names.map(|n| n.to_string()).collect(),
            ..Self::default()
        }
    }
}

/// Whether a rendering may give this name.
fn given(name: &str) -> bool {
    name.ends_with("_token")
        || matches!(
            name,
            "messages"
                | "tools"
                | "documents"
                | "add_generation_prompt"
                | "range"
                | "dict"
                | "namespace"
                | "cycler"
                | "joiner"
                | "lipsum"
                | "raise_exception"
                | "strftime_now"
        )
}

impl Parser {
    /// Enters (1) or leaves (-1) a branch.
    pub(super) fn branch(&mut self, by: isize) {
        if let Some(frame) = self.frames.last_mut() {
            frame.branches = frame.branches.saturating_add_signed(by);
        }
    }

    /// Notes that a name is read.
    pub(super) fn read(&mut self, name: &str) {
        if !given(name) {
            return;
        }
        let mut within = false;
        for frame in self.frames.iter_mut().rev() {
            if frame.own.contains(name) {
                return;
            }
            if within {
                frame.inner.insert(name.to_owned());
            } else {
                frame.own.insert(name.to_owned());
                within = true;
            }
        }
    }

    /// Notes that a name is assigned.
    pub(super) fn assigned(&mut self, name: &str) -> Result<()> {
        if !given(name) {
            return Ok(());
        }
        let line = self.line();
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        if frame.branches == 0 && frame.inner.contains(name) && !frame.own.contains(name) {
            let what = format!("`{name}`, read in an inner block before it is set here,");
            return Err(Error::unsupported(what).at(line));
        }
        if frame.branches == 0 {
            frame.own.insert(name.to_owned());
        }
        Ok(())
    }
}
