//! Genius: a declarative, content-cached experiment orchestrator for
//! self-training language models (arXiv 2504.08672).
//!
//! The way of the data: YAML -> [`spec`] -> [`plan`] (DAG, keys) ->
//! [`schedule`] -> [`stage`] -> [`store`] -> [`report`]. Dependencies point
//! one way; `tests/suite/layering.rs` holds them.
//!
//! What needs libtorch or mistral.rs is not in this library but in the crate of
//! `genius-worker` (`src/worker/`), which uses it: so nothing here can ever link
//! them into `genius`.

/// So that a file of test helpers can be a module here and of `genius-worker`.
#[cfg(test)]
extern crate self as genius;

pub mod answer;
pub mod artifact;
pub mod cli;
pub mod kind;
pub mod method;
pub mod plan;
pub mod processor;
pub mod protocol;
pub mod report;
pub mod run;
pub mod schedule;
pub mod spec;
pub mod stage;
pub mod store;
pub mod text;
pub mod user_folders;
