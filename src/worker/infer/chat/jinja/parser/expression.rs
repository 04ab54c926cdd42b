//! Expressions, with Jinja2's precedences.

use super::super::ast::{BinOp, CmpOp, Const};
use super::super::{filters, is};
use super::{Arc, Args, Error, Expr, Kind, Parser, Result, describe};

/// How long a chain of operators may be, whose tree is as deep.
const MAX_CHAIN: usize = 200;

/// How many operators one tag may have.
const MAX_LINKS: usize = 1500;

impl Parser {
    /// An expression; without `if` and `else` where a tag's own `if` follows.
    pub(super) fn expression(&mut self, conditional: bool) -> Result<Expr> {
        self.deeper(|p| if conditional { p.conditional() } else { p.or() })
    }

    /// An expression, or several with commas, which are a tuple.
    pub(super) fn tuple(
        &mut self,
        conditional: bool,
        ends: &[&str],
        parentheses: bool,
    ) -> Result<Expr> {
        let mut items = Vec::new();
        let mut tuple = false;
        loop {
            let end = matches!(self.kind(), Kind::VariableEnd | Kind::BlockEnd)
                || self.is_op(")")
                || ends.iter().any(|e| self.is_name(e));
            if end {
                break;
            }
            items.push(self.expression(conditional)?);
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        if !tuple {
            if let Some(only) = items.pop() {
                return Ok(only);
            }
            if !parentheses {
                return self.fail(format!(
                    "Expected an expression, got {}",
                    describe(self.kind())
                ));
            }
        }
        Ok(Expr::Tuple(items))
    }

    /// Counts one more operator after another: the tree is as deep.
    fn chain(&mut self, links: &mut usize) -> Result<()> {
        *links += 1;
        self.links += 1;
        if *links > MAX_CHAIN || self.links > MAX_LINKS {
            return self.fail("the expression has too many operators");
        }
        Ok(())
    }

    /// Notes an unknown filter or test, where it matters before it is used.
    fn unknown(&mut self, kind: &str, name: &str, line: usize) {
        if !self.soft {
            let message = format!("No {kind} named '{name}'.");
            self.unknown.push(Error::new(message).at(line));
        }
    }

    fn conditional(&mut self) -> Result<Expr> {
        let unknown = self.unknown.len();
        let mut value = self.or()?;
        if !self.is_name("if") {
            return Ok(value);
        }
        // In a branch an unknown filter matters once it is used.
        self.unknown.truncate(unknown);
        let soft = std::mem::replace(&mut self.soft, true);
        let mut links = 0;
        while self.skip_name("if") {
            self.chain(&mut links)?;
            let test = self.or()?;
            let otherwise = if self.skip_name("else") {
                Some(Box::new(self.deeper(Self::conditional)?))
            } else {
                None
            };
            value = Expr::Cond(Box::new(test), Box::new(value), otherwise);
        }
        self.soft = soft;
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        let mut links = 0;
        while self.skip_name("or") {
            self.chain(&mut links)?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        let mut links = 0;
        while self.skip_name("and") {
            self.chain(&mut links)?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.deeper(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let left = self.sum()?;
        let mut others = Vec::new();
        loop {
            let op = match self.kind() {
                Kind::Op("==") => CmpOp::Eq,
                Kind::Op("!=") => CmpOp::Ne,
                Kind::Op("<") => CmpOp::Lt,
                Kind::Op("<=") => CmpOp::Le,
                Kind::Op(">") => CmpOp::Gt,
                Kind::Op(">=") => CmpOp::Ge,
                Kind::Name(name) if &**name == "in" => CmpOp::In,
                Kind::Name(name)
                    if &**name == "not" && matches!(self.look(), Kind::Name(n) if &**n == "in") =>
                {
                    self.next();
                    CmpOp::NotIn
                }
                _ => break,
            };
            self.next();
            others.push((op, self.sum()?));
        }
        if others.is_empty() {
            return Ok(left);
        }
        Ok(Expr::Compare(Box::new(left), others))
    }

    /// Operators of one precedence, from the left.
    fn binary(
        &mut self,
        ops: &[(&str, BinOp)],
        operand: fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        let mut links = 0;
        while let Some(op) = ops.iter().find(|(o, _)| self.is_op(o)).map(|(_, op)| *op) {
            self.chain(&mut links)?;
            self.next();
            left = Expr::Binary(op, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", BinOp::Add), ("-", BinOp::Sub)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let ops = [
            ("*", BinOp::Mul),
            ("/", BinOp::Div),
            ("//", BinOp::FloorDiv),
            ("%", BinOp::Mod),
        ];
        self.binary(&ops, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.binary(&[("**", BinOp::Pow)], |p| p.unary(true))
    }

    fn unary(&mut self, filters: bool) -> Result<Expr> {
        let node = if self.skip_op("-") {
            Expr::Neg(Box::new(self.deeper(|p| p.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Pos(Box::new(self.deeper(|p| p.unary(false))?))
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        if filters {
            self.filter_chain(node)
        } else {
            Ok(node)
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        Ok(match self.next() {
            Kind::Name(name) => match &*name {
                "true" | "True" => Expr::Const(Const::Bool(true)),
                "false" | "False" => Expr::Const(Const::Bool(false)),
                "none" | "None" => Expr::Const(Const::None),
                _ => {
                    self.loaded(&name);
                    Expr::Name(name)
                }
            },
            Kind::Str(text) => {
                if !matches!(self.kind(), Kind::Str(_)) {
                    return Ok(Expr::Const(Const::Str(text)));
                }
                let mut joined = text.to_string();
                while let Kind::Str(more) = self.kind() {
                    joined.push_str(more);
                    self.next();
                }
                Expr::Const(Const::Str(joined.into()))
            }
            Kind::Int(n) => Expr::Const(Const::Int(n)),
            Kind::Float(n) => Expr::Const(Const::Float(n)),
            Kind::Op("(") => {
                let inner = self.tuple(true, &[], true)?;
                self.expect_op(")")?;
                inner
            }
            Kind::Op("[") => {
                let items = self.items("]", |p| p.expression(true))?;
                Expr::List(items)
            }
            Kind::Op("{") => Expr::Dict(self.items("}", |p| {
                let key = p.expression(true)?;
                p.expect_op(":")?;
                Ok((key, p.expression(true)?))
            })?),
            other => {
                return Err(Error::new(format!("unexpected {}", describe(&other))).at(line));
            }
        })
    }

    /// Items with commas up to a bracket, perhaps with one comma after.
    fn items<T>(
        &mut self,
        end: &str,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(end) {
                    break;
                }
            }
            items.push(read(self)?);
        }
        self.expect_op(end)?;
        Ok(items)
    }

    fn postfix(&mut self, mut node: Expr) -> Result<Expr> {
        let mut links = 0;
        loop {
            if !matches!(self.kind(), Kind::Op("." | "[" | "(")) {
                return Ok(node);
            }
            self.chain(&mut links)?;
            if self.skip_op(".") {
                node = match self.next() {
                    Kind::Name(name) => Expr::Attr(Box::new(node), name),
                    Kind::Int(n) => {
                        Expr::Item(Box::new(node), Box::new(Expr::Const(Const::Int(n))))
                    }
                    _ => return self.fail("expected name or number"),
                };
            } else if self.skip_op("[") {
                node = self.subscript(node)?;
            } else {
                node = Expr::Call(Box::new(node), Box::new(self.args()?));
            }
        }
    }

    fn subscript(&mut self, node: Expr) -> Result<Expr> {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        let mut colons = 0;
        while !self.is_op("]") {
            if self.is_op(",") {
                return Err(Error::unsupported("a subscript with a comma").at(self.line()));
            }
            if self.skip_op(":") {
                colons += 1;
                if colons > 2 {
                    return self.expected("`]`");
                }
            } else if parts[colons].is_some() {
                return self.expected("`]`");
            } else {
                parts[colons] = Some(self.expression(true)?);
            }
        }
        self.expect_op("]")?;
        if colons > 0 {
            return Ok(Expr::Slice(Box::new(node), Box::new(parts)));
        }
        match parts {
            [Some(index), ..] => Ok(Expr::Item(Box::new(node), Box::new(index))),
            // `x[]` is `x[()]` in Jinja2.
            _ => Ok(Expr::Item(
                Box::new(node),
                Box::new(Expr::Tuple(Vec::new())),
            )),
        }
    }

    fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let mut first = true;
        let line = self.line();
        let wrong = || Error::new("invalid syntax for function call expression").at(line);
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            if self.skip_op("*") {
                if args.star.is_some() || args.double_star.is_some() {
                    return Err(wrong());
                }
                args.star = Some(self.expression(true)?);
            } else if self.skip_op("**") {
                if args.double_star.is_some() {
                    return Err(wrong());
                }
                args.double_star = Some(self.expression(true)?);
            } else if matches!(self.kind(), Kind::Name(_)) && *self.look() == Kind::Op("=") {
                if args.double_star.is_some() {
                    return Err(wrong());
                }
                let name = self.expect_name()?;
                self.next();
                if args.named.iter().any(|(n, _)| *n == name) {
                    return self.fail(format!("the argument `{name}` is given twice"));
                }
                let value = self.expression(true)?;
                args.named.push((name, value));
            } else {
                if args.star.is_some() || args.double_star.is_some() || !args.named.is_empty() {
                    return Err(wrong());
                }
                args.positional.push(self.expression(true)?);
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }

    fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.expect_name()?).into();
        }
        Ok(name)
    }

    /// Filters after a value; the first without its `|` if `inline`.
    pub(super) fn filters(&mut self, mut node: Expr, inline: bool) -> Result<Expr> {
        let mut inline = inline;
        let mut links = 0;
        while inline || self.is_op("|") {
            self.chain(&mut links)?;
            if !std::mem::take(&mut inline) {
                self.next();
            }
            let line = self.line();
            let name = self.dotted_name()?;
            let args = if self.is_op("(") {
                self.args()?
            } else {
                Args::default()
            };
            if !filters::exists(&name) {
                self.unknown("filter", &name, line);
            }
            node = Expr::Filter(Box::new(node), name, Box::new(args));
        }
        Ok(node)
    }

    fn filter_chain(&mut self, mut node: Expr) -> Result<Expr> {
        let mut links = 0;
        loop {
            if self.is_op("|") {
                node = self.filters(node, false)?;
            } else if self.is_name("is") {
                self.chain(&mut links)?;
                node = self.test(node)?;
            } else if self.is_op("(") {
                self.chain(&mut links)?;
                node = Expr::Call(Box::new(node), Box::new(self.args()?));
            } else {
                return Ok(node);
            }
        }
    }

    fn test(&mut self, node: Expr) -> Result<Expr> {
        self.next();
        let negated = self.skip_name("not");
        let line = self.line();
        let name = self.dotted_name()?;
        let mut args = Args::default();
        if self.is_op("(") {
            args = self.args()?;
        } else {
            let argument = match self.kind() {
                Kind::Name(name) => !matches!(&**name, "else" | "or" | "and"),
                Kind::Str(_) | Kind::Int(_) | Kind::Float(_) => true,
                Kind::Op(op) => matches!(*op, "[" | "{"),
                _ => false,
            };
            if argument {
                if self.is_name("is") {
                    return self.fail("You cannot chain multiple tests with is");
                }
                let value = self.primary()?;
                args.positional.push(self.postfix(value)?);
            }
        }
        if !is::exists(&name) {
            self.unknown("test", &name, line);
        }
        let test = Expr::Test(Box::new(node), name, Box::new(args));
        Ok(if negated {
            Expr::Not(Box::new(test))
        } else {
            test
        })
    }
}
