//! The heavy half: what `genius-worker` computes, with mistral.rs and libtorch.

pub mod infer;
