//! Inference: engines behind one trait, the sampler, and the stages that use
//! them (rollout, eval).

pub mod engine;
