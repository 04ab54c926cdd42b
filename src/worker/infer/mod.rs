//! Inference: engines behind one trait, the sampler, and the stages that use
//! them (rollout, eval).

pub mod chat;
pub mod engine;
pub mod eval;
pub mod lanes;
pub mod load;
pub mod mistralrs;
pub mod native;
pub mod recorder;
pub mod rollout;
pub mod sampler;
pub mod special_tokens;
pub mod text;
pub mod token_bytes;
pub mod tracker;
pub mod work;

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
pub(crate) mod testkit;
