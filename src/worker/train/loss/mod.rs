//! The objectives (method section 3). Each is a file: an [`Objective`] declares what
//! it needs of the pairs and computes their losses from exactly that, and the trainer
//! provides no more.

mod aco;
mod dpo;
mod objective;

pub use objective::{Inputs, Needs, Objective, PairLosses, objective};
