//! [`History`]: the runs of a cache, newest first, and the one that a person
//! means by a prefix of its id.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Run, RunError, RunReport, RunState, StagePhase, Status};
use crate::store::{Store, Times};

/// Whether a run is still running, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It is running, here or in another process.
    Running,
    /// Every stage has a result.
    Ok,
    /// A stage failed.
    Failed,
    /// A person stopped it.
    Interrupted,
    /// Its process died before the end: power, `kill -9`.
    Cut,
    /// A newer Genius wrote it, and this one cannot read it.
    Newer,
}

impl RunStatus {
    /// The word in tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Cut => "cut",
            Self::Newer => "newer",
        }
    }
}

/// How many stages are in which phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Computed in this run.
    pub executed: usize,
    /// Their results were in the cache.
    pub cached: usize,
    /// They could not be computed.
    pub failed: usize,
    /// They were not run.
    pub skipped: usize,
    /// They run, wait for another process or will be retried.
    pub running: usize,
    /// They wait for their inputs.
    pub waiting: usize,
    /// They ran when the run was cut.
    pub cut: usize,
}

impl Counts {
    /// Counts a run's stages.
    pub fn new(state: &RunState) -> Self {
        let mut counts = Self::default();
        for stage in &state.stages {
            *match stage.phase {
                StagePhase::Waiting => &mut counts.waiting,
                StagePhase::WaitingForAnother | StagePhase::Retrying | StagePhase::Running => {
                    &mut counts.running
                }
                StagePhase::Cached => &mut counts.cached,
                StagePhase::Executed => &mut counts.executed,
                StagePhase::Failed => &mut counts.failed,
                StagePhase::Skipped => &mut counts.skipped,
                StagePhase::Cut => &mut counts.cut,
            } += 1;
        }
        counts
    }

    fn at_end(report: &RunReport) -> Self {
        let mut counts = Self::default();
        for stage in &report.stages {
            *match stage.status {
                Status::Executed => &mut counts.executed,
                Status::Cached => &mut counts.cached,
                Status::Failed => &mut counts.failed,
                Status::Skipped => &mut counts.skipped,
            } += 1;
        }
        counts
    }

    /// `2 executed, 6 cached`; zeros are left out.
    pub fn text(&self) -> String {
        let parts: Vec<String> = [
            (self.executed, "executed"),
            (self.cached, "cached"),
            (self.failed, "failed"),
            (self.skipped, "skipped"),
            (self.running, "running"),
            (self.waiting, "waiting"),
            (self.cut, "cut"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
        if parts.is_empty() {
            "no stage".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// Its id.
    pub run_id: String,
    /// Name of the pipeline, if any file names it.
    pub pipeline: Option<String>,
    /// The pipeline's file, absolute.
    pub path: Option<PathBuf>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// How long it took, or has taken so far.
    pub seconds: Option<f64>,
    /// Whether it is running, or how it ended.
    pub state: RunStatus,
    /// Its stages by phase.
    pub stages: Counts,
    /// Its folder.
    pub folder: PathBuf,
}

/// The runs of a cache.
#[derive(Debug, Clone)]
pub struct History {
    store: Store,
    times: Times,
}

impl History {
    /// The runs of this cache.
    pub fn new(store: Store, times: Times) -> Self {
        Self { store, times }
    }

    /// Ids, newest first.
    ///
    /// # Errors
    /// When the folder of runs cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, RunError> {
        let mut ids = self.store.run_ids()?;
        ids.reverse();
        Ok(ids)
    }

    /// The id of the run that `name` refers to: an id, a prefix of one, or `latest`.
    ///
    /// # Errors
    /// When no run matches, or several do.
    pub fn find(&self, name: &str) -> Result<String, RunError> {
        let ids = self.ids()?;
        let Some(newest) = ids.first() else {
            return Err(self.no_run());
        };
        if name == "latest" {
            return Ok(newest.clone());
        }
        let mut found: Vec<&String> = ids
            .iter()
            .filter(|id| !name.is_empty() && id.starts_with(name))
            .collect();
        if let Some(exact) = found.iter().find(|id| **id == name) {
            found = vec![exact];
        }
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(RunError::Unknown {
                name: name.to_owned(),
                root: self.store.root().to_owned(),
                newest: newest.clone(),
            }),
            _ => Err(RunError::Ambiguous {
                name: name.to_owned(),
                ids: found.into_iter().cloned().collect(),
            }),
        }
    }

    /// The newest active run, else the newest.
    ///
    /// # Errors
    /// When there is none.
    pub fn current(&self) -> Result<String, RunError> {
        let ids = self.ids()?;
        let current = ids.iter().find(|id| self.is_live(id)).or(ids.first());
        current.cloned().ok_or_else(|| self.no_run())
    }

    fn no_run(&self) -> RunError {
        RunError::None {
            root: self.store.root().to_owned(),
        }
    }

    /// The folder of a run.
    pub fn folder(&self, run_id: &str) -> PathBuf {
        self.store.runs_dir().join(run_id)
    }

    /// The run of an id, for reading.
    ///
    /// # Errors
    /// When a newer Genius wrote it.
    pub fn open(&self, run_id: &str) -> Result<Run, RunError> {
        let run = self.run(run_id);
        run.check_format()?;
        Ok(run)
    }

    fn run(&self, run_id: &str) -> Run {
        Run::new(&self.folder(run_id))
    }

    /// Whether the run is still running.
    pub fn is_live(&self, run_id: &str) -> bool {
        !self.run(run_id).has_report() && self.store.run_is_live(run_id, &self.times)
    }

    /// Whether a run is running or how it ended, given its events so far.
    pub fn status(&self, run: &Run, state: &RunState) -> RunStatus {
        match run.report() {
            Ok(report) => return status_at_end(&report),
            Err(e) if e.is_too_new() => return RunStatus::Newer,
            Err(_) => {}
        }
        match state.finished {
            Some((_, true)) => RunStatus::Ok,
            Some(_) if state.interrupted => RunStatus::Interrupted,
            Some(_) => RunStatus::Failed,
            None if self.store.run_is_live(run.id(), &self.times) => RunStatus::Running,
            None => RunStatus::Cut,
        }
    }

    /// A run for the list: read from its report if it ended, else from its plan and
    /// events.
    pub fn summary(&self, run_id: &str, now: Timestamp) -> RunSummary {
        let run = self.run(run_id);
        let mut summary = RunSummary {
            run_id: run_id.to_owned(),
            pipeline: None,
            path: None,
            started: started(run_id),
            seconds: None,
            state: RunStatus::Newer,
            stages: Counts::default(),
            folder: run.folder().to_owned(),
        };
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        let placed = |path: PathBuf| Some(path).filter(|path| !path.as_os_str().is_empty());
        let report = run.report();
        if report.is_err() && run.check_format().is_err() {
            return summary;
        }
        if let Ok(report) = report {
            summary.state = status_at_end(&report);
            summary.stages = Counts::at_end(&report);
            summary.seconds = Some(report.seconds);
            summary.pipeline = named(report.pipeline);
            summary.path = placed(report.pipeline_path);
        } else {
            let mut state = run.state();
            summary.state = self.status(&run, &state);
            if summary.state == RunStatus::Cut {
                state.cut();
            }
            summary.started = state.started.or(summary.started);
            summary.seconds = took(&state, summary.state, summary.started, now);
            summary.stages = Counts::new(&state);
            summary.pipeline = state.pipeline;
        }
        if (summary.pipeline.is_none() || summary.path.is_none())
            && let Ok(plan) = run.plan()
        {
            summary.pipeline = summary.pipeline.or_else(|| named(plan.name));
            summary.path = summary.path.or_else(|| placed(plan.path));
        }
        summary
    }
}

/// How long a run took according to its events, or has taken so far.
pub fn took(
    state: &RunState,
    status: RunStatus,
    started: Option<Timestamp>,
    now: Timestamp,
) -> Option<f64> {
    if let Some((seconds, _)) = state.finished {
        return Some(seconds);
    }
    let until = match status {
        RunStatus::Running => now,
        _ => state.last?,
    };
    Some(seconds_between(started?, until))
}

/// Seconds from one time to another; 0 if the clock was set back.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_millisecond() - from.as_millisecond()).max(0) as f64 / 1000.0
}

/// The time that an id begins with: `20260102T030405-1a2b`.
pub fn started(run_id: &str) -> Option<Timestamp> {
    let (time, _) = run_id.split_once('-')?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", time).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn status_at_end(report: &RunReport) -> RunStatus {
    match (report.interrupted, report.ok()) {
        (true, _) => RunStatus::Interrupted,
        (false, true) => RunStatus::Ok,
        (false, false) => RunStatus::Failed,
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
