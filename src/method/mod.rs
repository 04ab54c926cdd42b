//! The arithmetic of the method that needs no model: the counter-based
//! generator, softmax, draws, scores.

pub mod draw;
pub mod mean;
pub mod random;
pub mod score;
