//! A template's statements, as Jinja2's parser reads them: [`parse`].

mod cursor;
mod expression;
mod frames;
mod target;

use std::sync::Arc;

use cursor::describe;
use frames::Frame;
use target::reserved;

use super::ast::{Args, Expr, For, Macro, Stmt, Text, Uses};
use super::error::{Error, Result};
use super::lexer::{Kind, Token, tokenize};

/// How deep tags and expressions may be nested.
const MAX_DEPTH: usize = 150;

/// Reads a template.
pub(super) fn parse(source: &str) -> Result<Vec<Stmt>> {
    let mut parser = Parser {
        tokens: tokenize(source)?,
        at: 0,
        depth: 0,
        loops: 0,
        targets_in_loop: 0,
        soft: false,
        unknown: Vec::new(),
        links: 0,
        macros: Vec::new(),
        frames: vec![Frame::default()],
    };
    let body = parser.body(&[])?;
    match parser.unknown.into_iter().next() {
        Some(unknown) => Err(unknown),
        None => Ok(body),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Loops around this place that `break` can leave.
    loops: usize,
    /// Loops around this place, macros or not.
    targets_in_loop: usize,
    /// Whether an unknown filter matters only once it is used.
    soft: bool,
    /// Filters and tests that do not exist, where that matters at once.
    unknown: Vec<Error>,
    /// Operators in the tag that is read.
    links: usize,
    /// What the macros around this place use and assign.
    macros: Vec<(Uses, Uses)>,
    /// The scopes around this place.
    frames: Vec<Frame>,
}

impl Parser {
    /// Runs `read` one level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail("nested too deeply");
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Statements up to a tag of one of these names, which stays.
    fn body(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            self.links = 0;
            match self.kind() {
                Kind::Data(text) => {
                    body.push(Stmt::Data(Arc::clone(text)));
                    self.next();
                }
                Kind::VariableBegin => {
                    self.next();
                    let expr = self.tuple(true, &[], false)?;
                    self.expect(&Kind::VariableEnd, "the end of the print statement, `}}`")?;
                    body.push(Stmt::Print(expr, line));
                }
                Kind::BlockBegin => {
                    self.next();
                    let Kind::Name(name) = self.kind() else {
                        return self.expected("the name of a tag");
                    };
                    if ends.contains(&&**name) {
                        return Ok(body);
                    }
                    let name = Arc::clone(name);
                    body.extend(self.deeper(|p| p.statement(&name, ends))?);
                    self.expect(&Kind::BlockEnd, "the end of the statement block, `%}`")?;
                }
                _ if ends.is_empty() => return Ok(body),
                _ => return self.expected(&format!("the tag {}", list(ends))),
            }
        }
    }

    /// The rest of a tag, its body, and its end tag's name.
    fn block(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, Text)> {
        self.skip_op(":");
        self.expect(&Kind::BlockEnd, "the end of the statement block, `%}`")?;
        let body = self.body(ends)?;
        Ok((body, self.expect_name()?))
    }

    /// A body in which `break` and unknown filters mean what they do in a
    /// function of its own (`function`), or in a scope.
    fn scoped_block(&mut self, ends: &[&str], function: bool) -> Result<(Vec<Stmt>, Text)> {
        let loops = if function {
            std::mem::take(&mut self.loops)
        } else {
            self.loops
        };
        let soft = std::mem::take(&mut self.soft);
        self.frames.push(Frame::default());
        let block = self.block(ends);
        self.frames.pop();
        self.soft = soft;
        self.loops = loops;
        block
    }

    fn statement(&mut self, name: &str, ends: &[&str]) -> Result<Option<Stmt>> {
        let line = self.line();
        self.next();
        let stmt = match name {
            "set" => self.set(line)?,
            "if" => self.if_statement(line)?,
            "for" => self.for_statement(line)?,
            "macro" => self.macro_statement(line)?,
            "call" => self.call_statement(line)?,
            "filter" => {
                let expr = self.filters(Expr::Body, true)?;
                let (body, _) = self.scoped_block(&["endfilter"], false)?;
                Stmt::FilterBlock(expr, body, line)
            }
            "with" => self.with_statement(line)?,
            "generation" => {
                self.macros.push(Default::default());
                let (body, _) = self.scoped_block(&["endgeneration"], true)?;
                let uses = self.end_macro();
                let name = None;
                let params = Vec::new();
                Stmt::Generation(Arc::new(Macro {
                    name,
                    params,
                    body,
                    uses,
                    line,
                }))
            }
            "print" => {
                let mut parts = Vec::new();
                while *self.kind() != Kind::BlockEnd {
                    if !parts.is_empty() {
                        self.expect_op(",")?;
                    }
                    parts.push(self.expression(true)?);
                }
                Stmt::Print(Expr::Concat(parts), line)
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err(Error::new(format!("`{name}` outside of a loop")).at(line));
                }
                if name == "break" {
                    Stmt::Break
                } else {
                    Stmt::Continue
                }
            }
            "include" | "import" | "from" | "extends" => {
                let name = match name {
                    "include" => "include",
                    "import" => "import",
                    "from" => "from",
                    _ => "extends",
                };
                while !matches!(self.kind(), Kind::BlockEnd | Kind::End) {
                    self.next();
                }
                Stmt::NoLoader(name, line)
            }
            "block" | "autoescape" => {
                return Err(Error::unsupported(format_args!("the tag `{name}`")).at(line));
            }
            _ if ends.is_empty() => {
                return Err(Error::new(format!("unknown tag `{name}`")).at(line));
            }
            _ => {
                let ends = list(ends);
                let message = format!("unknown tag `{name}`; expected {ends}");
                return Err(Error::new(message).at(line));
            }
        };
        Ok(Some(stmt))
    }

    fn set(&mut self, line: usize) -> Result<Stmt> {
        let target = self.target(&[], true)?;
        if self.skip_op("=") {
            let value = self.tuple(true, &[], false)?;
            return Ok(Stmt::Set(target, value, line));
        }
        let filter = if self.is_op("|") {
            Some(self.filters(Expr::Body, false)?)
        } else {
            None
        };
        let (body, _) = self.scoped_block(&["endset"], false)?;
        Ok(Stmt::SetBlock(target, filter, body, line))
    }

    fn if_statement(&mut self, line: usize) -> Result<Stmt> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        self.branch(1);
        let otherwise = loop {
            let test = self.tuple(false, &[], false)?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match &*end {
                "elif" => {}
                "else" => break self.block(&["endif"])?.0,
                _ => break Vec::new(),
            }
        };
        self.branch(-1);
        self.soft = soft;
        Ok(Stmt::If(branches, otherwise, line))
    }

    fn for_statement(&mut self, line: usize) -> Result<Stmt> {
        self.targets_in_loop += 1;
        self.frames.push(Frame::default());
        let target = self.target(&["in"], false)?;
        let inner = self.frames.pop().unwrap_or_default();
        self.expect_word("in")?;
        let iter = self.tuple(false, &["recursive"], false)?;
        self.frames.push(inner);
        let test = if self.skip_name("if") {
            Some(self.expression(true)?)
        } else {
            None
        };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let block = self.soft_off(|p| p.block(&["endfor", "else"]));
        self.loops -= 1;
        self.frames.pop();
        let (body, end) = block?;
        let otherwise = if &*end == "else" {
            self.soft_off(|p| p.scoped_block(&["endfor"], false))?.0
        } else {
            Vec::new()
        };
        self.targets_in_loop -= 1;
        Ok(Stmt::For(Arc::new(For {
            target,
            iter,
            test,
            body,
            otherwise,
            recursive,
            line,
        })))
    }

    fn soft_off<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let soft = std::mem::take(&mut self.soft);
        let read = read(self);
        self.soft = soft;
        read
    }

    fn macro_statement(&mut self, line: usize) -> Result<Stmt> {
        let name = self.expect_name()?;
        self.stored(&name)?;
        let params = self.signature()?;
        Ok(Stmt::Macro(self.finish_macro(
            Some(name),
            params,
            "endmacro",
            line,
        )?))
    }

    fn finish_macro(
        &mut self,
        name: Option<Text>,
        params: Vec<(Text, Option<Expr>)>,
        end: &str,
        line: usize,
    ) -> Result<Arc<Macro>> {
        self.macros.push(Default::default());
        self.frames.push(Frame::with(params.iter().map(|(n, _)| n)));
        let block = self.scoped_block(&[end], true);
        self.frames.pop();
        let (body, _) = block?;
        let uses = self.end_macro();
        let caller = params.iter().find(|(n, _)| &**n == "caller");
        if uses.caller && caller.is_some_and(|(_, default)| default.is_none()) {
            let message = "the argument \"caller\" of a macro must be omitted or have a default";
            return Err(Error::new(message).at(line));
        }
        Ok(Arc::new(Macro {
            name,
            params,
            body,
            uses,
            line,
        }))
    }

    /// What the macro that ends here uses; those around it use it as well.
    fn end_macro(&mut self) -> Uses {
        self.macros.pop().unwrap_or_default().0
    }

    fn signature(&mut self) -> Result<Vec<(Text, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut params: Vec<(Text, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            reserved(&name).map_err(|e| e.at(self.line()))?;
            let default = if self.skip_op("=") {
                Some(self.expression(true)?)
            } else if params.last().is_some_and(|(_, d)| d.is_some()) {
                return self.fail("non-default argument follows default argument");
            } else {
                None
            };
            if params.iter().any(|(n, _)| *n == name) {
                return self.fail(format!("the argument `{name}` is given twice"));
            }
            params.push((name, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    fn call_statement(&mut self, line: usize) -> Result<Stmt> {
        let params = if self.is_op("(") {
            self.signature()?
        } else {
            Vec::new()
        };
        let call = self.expression(true)?;
        if !matches!(call, Expr::Call(..)) {
            return Err(Error::new("expected call").at(line));
        }
        let caller = self.finish_macro(None, params, "endcall", line)?;
        Ok(Stmt::Call(caller, call, line))
    }

    fn with_statement(&mut self, line: usize) -> Result<Stmt> {
        let mut values = Vec::new();
        let mut inner = Frame::default();
        while *self.kind() != Kind::BlockEnd {
            if !values.is_empty() {
                self.expect_op(",")?;
            }
            self.frames.push(inner);
            let target = self.target(&[], false)?;
            inner = self.frames.pop().unwrap_or_default();
            self.expect_op("=")?;
            values.push((target, self.expression(true)?));
        }
        self.frames.push(inner);
        let block = self.scoped_block(&["endwith"], false);
        self.frames.pop();
        let (body, _) = block?;
        Ok(Stmt::With(values, body, line))
    }
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    quoted.join(" or ")
}
