//! The files of a run, `runs/<id>/`: this module alone writes and reads them.
//!
//! | file | type | written |
//! |---|---|---|
//! | `pipeline.json` | [`Plan`]: the pipeline as it was resolved, its stages with their parameters and the edges between them, and what made the run ([`Origin`]) | before the first stage |
//! | `events.jsonl` | a [`Line`] an [`Event`]: keys, reasons, progress, figures, failures, timings | while it runs ([`Journal`]) |
//! | `run.json` | [`RunReport`]: the result of every stage ([`StageReport`]) | at its end; missing while it runs, and when it was cut |
//!
//! The logs of stages lie beside them (`store::RunDir`), and so do the lease and the keys
//! in use (`store::Lease`).
//!
//! A run is read through [`Run`]: its plan, its report, its events, and how far it is
//! ([`RunState`]), also while it is active ([`Follower`]). [`History`] lists the runs of a
//! cache. The types are the same in both directions, so reading a run yields the events
//! that it emitted.
//!
//! Every file has its [`FORMAT`]. Older files are read, with what they lack left empty; a
//! newer one is refused ([`Unreadable::TooNew`]). Of a cut or damaged `events.jsonl` every
//! whole line is read; the other two files are rejected whole.

mod error;
mod event;
mod exit;
mod facts;
mod figures;
mod follow;
mod format;
mod history;
mod journal;
mod plan;
mod read;
mod report;
mod state;
#[cfg(test)]
mod tests;

pub use error::RunError;
pub use event::{Event, Line, Subscriber};
pub use exit::Exit;
pub use facts::facts;
pub use figures::figures_of;
pub use follow::Follower;
pub use format::{FORMAT, Unreadable};
pub use history::{Counts, History, RunStatus, RunSummary, seconds_between, started, took};
pub use journal::{Journal, write_plan, write_report};
pub use plan::{Edge, Origin, Plan, PlannedStage};
pub use read::Run;
pub use report::{RunReport, StageReport, Status};
pub use state::{RunState, StagePhase, StageState};
