//! The place in the tokens: looking at the next one, and taking it.

use std::sync::Arc;

use super::{Error, Kind, Parser, Result, Text};

impl Parser {
    pub(super) fn kind(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    pub(super) fn look(&self) -> &Kind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    pub(super) fn next(&mut self) -> Kind {
        let kind = self.tokens[self.at].kind.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::new(message).at(self.line()))
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.kind(), Kind::Op(o) if *o == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.kind(), Kind::Name(n) if &**n == name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn expected<T>(&self, what: &str) -> Result<T> {
        if *self.kind() == Kind::End {
            return self.fail(format!("unexpected end of template, expected {what}"));
        }
        self.fail(format!("expected {what}, got {}", describe(self.kind())))
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) {
            return Ok(());
        }
        self.expected(&format!("`{op}`"))
    }

    pub(super) fn expect_word(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) {
            return Ok(());
        }
        self.expected(&format!("`{name}`"))
    }

    pub(super) fn expect_name(&mut self) -> Result<Text> {
        match self.kind() {
            Kind::Name(name) => {
                let name = Arc::clone(name);
                self.next();
                Ok(name)
            }
            _ => self.expected("a name"),
        }
    }

    pub(super) fn expect(&mut self, kind: &Kind, what: &str) -> Result<()> {
        if self.kind() == kind {
            self.next();
            return Ok(());
        }
        self.expected(what)
    }
}

pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Data(_) => "template text".into(),
        Kind::VariableBegin => "`{{`".into(),
        Kind::VariableEnd => "`}}`".into(),
        Kind::BlockBegin => "`{%`".into(),
        Kind::BlockEnd => "`%}`".into(),
        Kind::Name(name) => format!("`{name}`"),
        Kind::Str(_) => "a string".into(),
        Kind::Int(n) => n.to_string(),
        Kind::Float(n) => n.to_string(),
        Kind::Op(op) => format!("`{op}`"),
        Kind::End => "the end of the template".into(),
    }
}
