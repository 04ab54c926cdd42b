//! One declaration of parameters: [`params!`] gives the struct that code uses and
//! the [`Schema`] from which the check of a pipeline file, its defaults, help, JSON
//! Schema, the tables of docs/pipeline.md and the split of identity from knobs follow.
//!
//! ```text
//! params! {
//!     /// Parameters of the kind.
//!     pub struct Params {
//!         /// M: beams kept a step.
//!         beams: usize => int(1..=1024).or(2),
//!     }
//! }
//! ```
//!
//! [`choice!`] declares words of which one is given, [`one_of!`] mappings of which
//! one is given. What a parameter takes is typed: `beams: usize => text()` does not compile.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;

use super::schema::{Default, Field, Role, Schema, Type};

/// A type that a declaration makes.
pub trait Declared {
    /// What a pipeline file may hold in its place.
    fn declared() -> Type;

    /// The fields of a mapping; none of anything else.
    fn schema() -> Schema {
        match Self::declared() {
            Type::Object(schema) => schema,
            _ => Schema::new(Vec::new()),
        }
    }
}

/// What a parameter of type `T` takes, and what it is when it is not written.
#[derive(Debug)]
pub struct Takes<T> {
    ty: Type,
    default: Default,
    role: Role,
    value: PhantomData<fn() -> T>,
}

impl<T> Takes<T> {
    fn new(ty: Type) -> Self {
        Self {
            ty,
            default: Default::Required,
            role: Role::Identity,
            value: PhantomData,
        }
    }

    /// The same with a default value.
    #[must_use]
    pub fn or(mut self, value: T) -> Self
    where
        T: Serialize,
    {
        // Only maps with keys that are not text fail, and no parameter is one.
        self.default = Default::Value(serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// The same with the value of an earlier parameter where it is left out or null.
    #[must_use]
    pub fn or_as(mut self, other: &'static str) -> Self {
        self.default = Default::SameAs(other);
        self
    }

    /// A mapping that may be left out and then has its own defaults.
    #[must_use]
    pub fn or_its_defaults(mut self) -> Self {
        self.default = Default::Object;
        self
    }

    /// The same, which may be left out or null.
    #[must_use]
    pub fn optional(self) -> Takes<Option<T>> {
        Takes {
            ty: self.ty,
            default: Default::Null,
            role: self.role,
            value: PhantomData,
        }
    }

    /// A knob: changes how fast a stage runs, never what it computes.
    #[must_use]
    pub fn knob(mut self) -> Self {
        self.role = Role::Execution;
        self
    }

    /// The field of that name.
    pub fn field(self, name: &'static str, doc: &'static str) -> Field {
        Field {
            name,
            doc,
            ty: self.ty,
            default: self.default,
            role: self.role,
        }
    }
}

/// The type of another declaration.
pub fn declared<T: Declared>() -> Takes<T> {
    Takes::new(T::declared())
}

/// `true` or `false`.
pub fn boolean() -> Takes<bool> {
    Takes::new(Type::Bool)
}

/// A whole number within bounds.
pub fn int<T: Whole>(bounds: RangeInclusive<i64>) -> Takes<T> {
    Takes::new(Type::Int {
        min: *bounds.start(),
        max: *bounds.end(),
    })
}

/// A whole number of at least `min`.
pub fn at_least<T: Whole>(min: i64) -> Takes<T> {
    int(min..=i64::MAX)
}

/// Numbers that are whole and not negative.
pub trait Whole {}
impl Whole for usize {}
impl Whole for u64 {}
impl Whole for u32 {}

/// A number between two bounds.
fn float(min: Bound<f64>, max: Bound<f64>) -> Takes<f64> {
    let limit = |bound, unbounded| match bound {
        Included(at) => (at, false),
        Excluded(at) => (at, true),
        Unbounded => (unbounded, true),
    };
    let (min, min_open) = limit(min, f64::NEG_INFINITY);
    let (max, max_open) = limit(max, f64::INFINITY);
    Takes::new(Type::Float {
        min,
        min_open,
        max,
        max_open,
    })
}

/// A number above zero.
pub fn positive() -> Takes<f64> {
    float(Excluded(0.0), Unbounded)
}

/// A number of zero or more.
pub fn non_negative() -> Takes<f64> {
    float(Included(0.0), Unbounded)
}

/// A number of zero or less.
pub fn non_positive() -> Takes<f64> {
    float(Unbounded, Included(0.0))
}

/// A number from 0 to 1, both allowed.
pub fn unit() -> Takes<f64> {
    float(Included(0.0), Included(1.0))
}

/// A number from 0 to below 1.
pub fn share() -> Takes<f64> {
    float(Included(0.0), Excluded(1.0))
}

/// A number above 0, up to 1.
pub fn probability() -> Takes<f64> {
    float(Excluded(0.0), Included(1.0))
}

/// Any text.
pub fn text() -> Takes<String> {
    Takes::new(Type::Text)
}

/// Text that is not empty.
pub fn non_empty() -> Takes<String> {
    Takes::new(Type::NonEmpty)
}

/// A path of a file or folder; the key holds its content.
pub fn path() -> Takes<PathBuf> {
    Takes::new(Type::Path)
}

/// A path of a file; the key holds its content.
pub fn file() -> Takes<PathBuf> {
    Takes::new(Type::File)
}

/// A SHA-256 in hex.
pub fn sha256() -> Takes<String> {
    Takes::new(Type::Sha256)
}

/// At least `min` items in order.
pub fn list<T>(items: Takes<T>, min: usize) -> Takes<Vec<T>> {
    Takes::new(Type::List {
        items: Box::new(items.ty),
        min,
    })
}

/// Names chosen by the user, and what each takes.
pub fn map<T>(items: Takes<T>) -> Takes<BTreeMap<String, T>> {
    Takes::new(Type::Map(Box::new(items.ty)))
}

/// A seed, which is the pipeline's where it is not written.
pub fn seed() -> Takes<u64> {
    Takes {
        default: Default::PipelineSeed,
        ..at_least(0)
    }
}

/// A doc comment as one line of text: rustdoc's lines begin with a blank.
pub const fn one_line(doc: &'static str) -> &'static str {
    doc.trim_ascii()
}

/// Declares a mapping of parameters: `name: Type => what it takes`, each with a doc
/// comment, which is its help text. `..name: Type` at the end adds the parameters of
/// another declaration, which several kinds share.
macro_rules! params {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty => $takes:expr,)*
        $(..$shared:ident: $shared_ty:ty,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $ty,)*
            $(
                #[doc = concat!("See [`", stringify!($shared_ty), "`].")]
                #[serde(flatten)]
                pub $shared: $shared_ty,
            )?
        }

        impl $crate::kind::declare::Declared for $name {
            fn declared() -> $crate::kind::schema::Type {
                #[allow(unused_imports, reason = "no mapping takes everything")]
                use $crate::kind::declare::*;
                let fields = vec![$({
                    let takes: Takes<$ty> = $takes;
                    takes.field(stringify!($field), const { one_line(concat!($($doc),+)) })
                }),*];
                $(let fields = [fields, <$shared_ty>::schema().fields].concat();)?
                $crate::kind::schema::Type::Object($crate::kind::schema::Schema::new(fields))
            }
        }
    };
}

/// Declares words of which one is given.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])+ $variant:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word in a pipeline file.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::kind::declare::Declared for $name {
            fn declared() -> $crate::kind::schema::Type {
                $crate::kind::schema::Type::Choice(&[$($word),+])
            }
        }
    };
}

/// Declares a mapping with exactly one of these fields; with `bare`, a word alone
/// is short for one whose parameters all have defaults (`loss: dpo`).
macro_rules! one_of {
    ($(#[$meta:meta])* pub enum $name:ident (bare: $bare:literal) {
        $($(#[doc = $doc:literal])+ $variant:ident($ty:ty) = $word:literal => $takes:expr,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant($ty),)+
        }

        impl $crate::kind::declare::Declared for $name {
            fn declared() -> $crate::kind::schema::Type {
                #[allow(unused_imports, reason = "no mapping takes everything")]
                use $crate::kind::declare::*;
                $crate::kind::schema::Type::OneOf {
                    fields: vec![$({
                        let takes: Takes<$ty> = $takes;
                        takes.field($word, const { one_line(concat!($($doc),+)) })
                    }),+],
                    bare: $bare,
                }
            }
        }
    };
}

pub(crate) use {choice, one_of, params};
