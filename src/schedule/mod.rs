//! Running a plan: the dispatcher owns all state and decides, a launcher runs
//! one job in a process of its own, and what happens is told as [`Event`]s.

mod dispatcher;
mod event;
mod launch;
mod process;

pub use dispatcher::{RunRequest, run};
pub use event::{Event, RunReport, StageReport, Status, Subscriber};
pub use launch::{JobEnd, Launch, Stop, WorkerEvent};
pub use process::{ProcessLauncher, Programs};

#[cfg(test)]
mod tests;
