//! Models: folders in Hugging Face's layout and the architectures that run them.

pub mod config;
pub mod llama;
pub mod weights;
