//! The arithmetic of the method that needs no model: the counter-based
//! generator, softmax, draws, scores, and figures about them.

pub mod beam;
pub mod draw;
pub mod figures;
pub mod mean;
pub mod random;
pub mod score;
