//! The files of a run, `runs/<id>/`: this module alone writes and reads them.
//!
//! | file | type | written |
//! |---|---|---|
//! | `pipeline.json` | [`Plan`]: the pipeline as it was resolved, its stages with their parameters and the edges between them, and what made the run ([`Origin`]) | before the first stage |
//! | `events.jsonl` | a [`Line`] an [`Event`]: keys, reasons, progress, figures, failures, timings | while it goes on ([`Journal`]) |
//! | `run.json` | [`RunReport`]: the result of every stage ([`StageReport`]) | at its end; missing while it goes on, and when it was cut |
//!
//! The logs of stages lie beside them (`store::RunDir`), and so do the lease and the keys
//! in use (`store::Lease`).
//!
//! A run is read through [`Run`]: its plan, its report, its events, and how far it is
//! ([`RunState`]), also while it goes on ([`Follower`]). [`History`] lists the runs of a
//! cache. The types are the same in both directions, so a run that is read back gives the
//! events that it gave when it ran.
//!
//! Every file names its [`FORMAT`]. Older files are read, with what they lack left
//! empty. A newer one is refused by name ([`Unreadable::TooNew`]). Files that are cut short
//! or damaged are read as far as they go: of `events.jsonl` every whole line, of the other
//! two nothing.

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
pub use history::{Counts, History, RunSummary, Standing, seconds_between, started, took};
pub use journal::{Journal, write_plan, write_report};
pub use plan::{Edge, Origin, Plan, PlannedStage};
pub use read::Run;
pub use report::{RunReport, StageReport, Status};
pub use state::{Phase, RunState, StageState};
