//! The heavy half: what `genius-worker` computes, with mistral.rs and libtorch.

pub mod device;
pub mod infer;
pub mod model;
pub mod train;
