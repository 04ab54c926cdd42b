//! Running a plan: the dispatcher owns all state and decides, a launcher runs
//! one job in a process of its own, and what happens is reported as [`Event`](crate::run::Event)s.

mod announce;
mod command;
mod dispatcher;
mod launch;
mod process;
mod reap;
mod resources;
mod shards;
mod start;
mod task;

pub use announce::ask;
pub use dispatcher::{RunRequest, Why, run};
pub use launch::{JobEnd, Launch, Stop, WorkerEvent};
pub use process::{ProcessLauncher, Programs};
pub use task::{HashSource, MayStart};

#[cfg(test)]
mod tests;
