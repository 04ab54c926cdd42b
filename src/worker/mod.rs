//! What a worker process computes: everything that needs libtorch or mistral.rs.

pub mod device;
pub mod model;
pub mod train;
