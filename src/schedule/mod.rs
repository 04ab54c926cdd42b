//! Running a plan: the dispatcher owns all state and decides, a launcher runs
//! one job in a process of its own, and what happens is told as [`Event`]s.

mod command;
mod dispatcher;
mod event;
mod launch;
mod process;
mod reap;
mod room;
mod shards;
mod start;
mod task;

pub use dispatcher::{RunRequest, Why, run};
pub use event::{Event, RunReport, StageReport, Status, Subscriber};
pub use launch::{Exit, JobEnd, Launch, Stop, WorkerEvent};
pub use process::{ProcessLauncher, Programs};
pub use task::{HashSource, MayStart};

#[cfg(test)]
mod tests;
