//! What users and programs see of a run: subscribers to its events, and the table at
//! its end.

mod console;
pub mod show;
mod summary;
pub mod tables;

pub use console::{LiveConsole, PlainConsole};
pub use summary::render;
