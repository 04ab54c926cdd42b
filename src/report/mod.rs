//! What people and programs see of a run: subscribers of its events, and the
//! table at its end.

mod console;
pub mod history;
mod journal;
pub mod replay;
pub mod show;
mod summary;
pub mod tables;

pub use console::{LiveConsole, PlainConsole};
pub use journal::Journal;
pub use summary::render;
