//! A template's syntax tree: [`Stmt`] and [`Expr`].

use std::sync::Arc;

/// A name, or a text of the template.
pub(super) type Text = Arc<str>;

/// One statement, or template text.
#[derive(Debug)]
pub(super) enum Stmt {
    Data(Text),
    Print(Expr, usize),
    Set(Target, Expr, usize),
    /// The text between `set` and `endset`, through filters.
    SetBlock(Target, Option<Expr>, Vec<Stmt>, usize),
    /// Tests with their bodies, and `else`.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>, usize),
    For(Arc<For>),
    Macro(Arc<Macro>),
    /// `call`: the body becomes the macro `caller` of a call.
    Call(Arc<Macro>, Expr, usize),
    /// `generation` of transformers: its body, in a scope of its own.
    Generation(Arc<Macro>),
    /// The expression's innermost value is the body's text.
    FilterBlock(Expr, Vec<Stmt>, usize),
    With(Vec<(Target, Expr)>, Vec<Stmt>, usize),
    /// `include`, `import`, `from`, `extends`: there is nothing to load from.
    NoLoader(&'static str, usize),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) iter: Expr,
    pub(super) test: Option<Expr>,
    pub(super) body: Vec<Stmt>,
    pub(super) otherwise: Vec<Stmt>,
    pub(super) recursive: bool,
    pub(super) line: usize,
}

#[derive(Debug)]
pub(super) struct Macro {
    /// None for the body of a `call`.
    pub(super) name: Option<Text>,
    pub(super) params: Vec<(Text, Option<Expr>)>,
    pub(super) body: Vec<Stmt>,
    /// Which of the names that are given without being declared the body uses.
    pub(super) uses: Uses,
    pub(super) line: usize,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Uses {
    pub(super) caller: bool,
    pub(super) kwargs: bool,
    pub(super) varargs: bool,
}

/// What can be assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Text),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Namespace(Text, Text),
}

#[derive(Debug, Clone)]
pub(super) enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) enum Expr {
    Const(Const),
    Name(Text),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Concat(Vec<Expr>),
    Binary(BinOp, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    Compare(Box<Expr>, Vec<(CmpOp, Expr)>),
    /// Test, value, and the value otherwise.
    Cond(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
    Attr(Box<Expr>, Text),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Args>),
    Filter(Box<Expr>, Text, Box<Args>),
    Test(Box<Expr>, Text, Box<Args>),
    /// The text of a `filter` block, or of a `set` block with a filter.
    Body,
}

/// Arguments of a call, filter or test.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Text, Expr)>,
    pub(super) star: Option<Expr>,
    pub(super) double_star: Option<Expr>,
}
