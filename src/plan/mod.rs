//! From a pipeline to a DAG with keys: nothing here runs anything.
//!
//! [`Graph::build`] turns a checked [`crate::spec::Pipeline`] into [`Node`]s in
//! a stable topological order: `auto` resolved for a [`Machine`], paths hashed,
//! hub revisions turned into commits by a [`Resolver`], and every parameter
//! sorted into what is part of the key ([`Node::identity`]) and what is a knob
//! of execution. A [`Fingerprint`] adds the content of the inputs and gives the
//! key. `docs/caching.md` explains the same for users.

mod compare;
pub mod draw;
mod earlier;
mod encode;
mod error;
mod explain;
mod fingerprint;
mod forecast;
mod graph;
mod identity;
mod resolve;
mod resolver;

#[cfg(test)]
mod explain_tests;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod tests;

pub use compare::{Change, compare, name_files, summarise};
pub use earlier::{Earlier, Ended, Known};
pub use error::PlanError;
pub use explain::{Cause, Explanation, explain};
pub use fingerprint::{FINGERPRINT_FORMAT, Fingerprint};
pub use forecast::{Forecast, Outlook, StageForecast};
pub use graph::{BASE, Graph, Node};
pub use resolve::{Capacity, Machine, RunOptions};
pub use resolver::{Resolver, SystemResolver};
