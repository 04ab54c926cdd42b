//! The kinds of stage. A kind is one declaration, in a file here: its parameters
//! ([`declare`]) and, by [`Kind`], everything else that the rest of Genius knows about it.
//! [`registry`] lists the kinds and makes [`StageKind`] and [`Params`] from the list.
//!
//! A kind is computed in `crate::stage` (light ones) or in `genius-worker`.

pub mod command;
mod contract;
pub mod declare;
pub mod engine;
pub mod eval;
#[cfg(test)]
pub(crate) mod example;
pub mod model;
mod numerics;
pub mod pairs;
pub mod queries;
mod registry;
pub mod rollout;
pub mod schema;
pub mod score;
pub mod script;
#[cfg(test)]
mod tests;
pub mod train;

pub use contract::{
    DiskBytes, Input, Kind, Need, Parts, Program, Resolved, Target, Unsupported, Variables,
};
use contract::{GIB, size_on_disk};
pub use numerics::{Computes, Numerics, TRAINER};
pub use registry::{Params, StageKind};
