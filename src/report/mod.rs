//! What people and programs see of a run: subscribers of its events, and the
//! table at its end.

mod console;
mod journal;
mod summary;

pub use console::{LiveConsole, PlainConsole};
pub use journal::Journal;
pub use summary::render;
