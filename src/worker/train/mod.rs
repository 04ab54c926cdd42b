//! `train`: preference training of a model folder on pairs (method section 3).
//!
//! [`run`] reads the pairs ([`data`]), looks whose they are ([`policy`]), takes
//! the reference's log-probabilities and then the optimiser steps ([`trainer`]):
//! loss ([`loss`]), gradients ([`logprob`]), AdamW on f32 master weights
//! ([`optimizer`]), rate ([`schedule`]); it writes the trained folder and
//! `metrics.jsonl`.

pub mod data;
pub mod logprob;
pub mod loss;
pub mod optimizer;
pub mod policy;
#[cfg(test)]
mod qwen2_tests;
#[cfg(test)]
mod real_model_tests;
mod run;
pub mod schedule;
pub mod trainer;

pub use run::run;
