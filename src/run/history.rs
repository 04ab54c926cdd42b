//! [`History`]: the runs of a cache, newest first, and the one that a person
//! means by the beginning of its name.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Phase, Run, RunError, RunReport, RunState, Status};
use crate::store::{Store, Times};

/// What a run is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It goes on, here or elsewhere.
    Running,
    /// Every stage has a result.
    Ok,
    /// A stage failed.
    Failed,
    /// A person stopped it.
    Interrupted,
    /// Its process went away without an end: power, `kill -9`.
    Cut,
    /// A newer Genius wrote it, and this one cannot read it.
    Newer,
}

impl Standing {
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

/// How many stages are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Computed in this run.
    pub executed: usize,
    /// Their results were there.
    pub cached: usize,
    /// They could not be computed.
    pub failed: usize,
    /// They were not tried.
    pub skipped: usize,
    /// They run, wait for another process or will be tried again.
    pub running: usize,
    /// They wait for their inputs.
    pub waiting: usize,
    /// They ran when the run was cut.
    pub cut: usize,
}

impl Counts {
    /// Of a run's stages.
    pub fn of(state: &RunState) -> Self {
        let mut counts = Self::default();
        for stage in &state.stages {
            *match stage.phase {
                Phase::Waiting => &mut counts.waiting,
                Phase::WaitingForAnother | Phase::Retrying | Phase::Running => &mut counts.running,
                Phase::Cached => &mut counts.cached,
                Phase::Executed => &mut counts.executed,
                Phase::Failed => &mut counts.failed,
                Phase::Skipped => &mut counts.skipped,
                Phase::Cut => &mut counts.cut,
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

    /// `2 executed, 6 cached`; what is none is left out.
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
    /// What it is.
    pub state: Standing,
    /// How many stages are where.
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
    /// Of this cache.
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

    /// The run that a person means: an id, the beginning of one, or `latest`.
    ///
    /// # Errors
    /// When that is none or several.
    pub fn find(&self, name: &str) -> Result<String, RunError> {
        let ids = self.ids()?;
        let Some(newest) = ids.first() else {
            return Err(RunError::None {
                root: self.store.root().to_owned(),
            });
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

    /// The newest run that goes on, else the newest.
    ///
    /// # Errors
    /// When there is none.
    pub fn current(&self) -> Result<String, RunError> {
        let ids = self.ids()?;
        match ids.iter().find(|id| self.is_live(id)).or(ids.first()) {
            Some(id) => Ok(id.clone()),
            None => Err(RunError::None {
                root: self.store.root().to_owned(),
            }),
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

    /// Whether the run goes on.
    pub fn is_live(&self, run_id: &str) -> bool {
        !self.run(run_id).has_report() && self.store.run_is_live(run_id, &self.times)
    }

    /// What a run is, given its events so far.
    pub fn standing(&self, run: &Run, state: &RunState) -> Standing {
        match run.report() {
            Ok(report) => return standing(&report),
            Err(e) if e.is_too_new() => return Standing::Newer,
            Err(_) => {}
        }
        match state.finished {
            Some((_, true)) => Standing::Ok,
            Some(_) if state.interrupted => Standing::Interrupted,
            Some(_) => Standing::Failed,
            None if self.store.run_is_live(run.id(), &self.times) => Standing::Running,
            None => Standing::Cut,
        }
    }

    /// A run for the list. Of a run that ended its report is read, of another its plan
    /// and events.
    pub fn summary(&self, run_id: &str, now: Timestamp) -> RunSummary {
        let run = self.run(run_id);
        let mut summary = RunSummary {
            run_id: run_id.to_owned(),
            pipeline: None,
            path: None,
            started: started(run_id),
            seconds: None,
            state: Standing::Newer,
            stages: Counts::default(),
            folder: run.folder().to_owned(),
        };
        let report = run.report();
        if report.is_err() && run.check_format().is_err() {
            return summary;
        }
        if let Ok(report) = report {
            summary.state = standing(&report);
            summary.stages = Counts::at_end(&report);
            summary.seconds = Some(report.seconds);
            summary.pipeline = Some(report.pipeline).filter(|name| !name.is_empty());
            summary.path = Some(report.pipeline_path).filter(|path| !path.as_os_str().is_empty());
        } else {
            let mut state = run.state();
            summary.state = self.standing(&run, &state);
            if summary.state == Standing::Cut {
                state.cut();
            }
            summary.started = state.started.or(summary.started);
            summary.seconds = took(&state, summary.state, summary.started, now);
            summary.stages = Counts::of(&state);
            summary.pipeline = state.pipeline;
        }
        if summary.pipeline.is_none() || summary.path.is_none() {
            let plan = run.plan().ok();
            let (name, path) = plan.map(|plan| (plan.name, plan.path)).unzip();
            summary.pipeline = summary.pipeline.or(name).filter(|name| !name.is_empty());
            summary.path = summary
                .path
                .or(path)
                .filter(|path| !path.as_os_str().is_empty());
        }
        summary
    }
}

/// How long a run took by its events, or has taken so far.
pub fn took(
    state: &RunState,
    standing: Standing,
    started: Option<Timestamp>,
    now: Timestamp,
) -> Option<f64> {
    if let Some((seconds, _)) = state.finished {
        return Some(seconds);
    }
    let until = match standing {
        Standing::Running => now,
        _ => state.last?,
    };
    Some(seconds_between(started?, until))
}

/// Seconds from one time to another; 0 if the clock went back.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_millisecond() - from.as_millisecond()).max(0) as f64 / 1000.0
}

/// The time that an id begins with: `20260102T030405-1a2b`.
pub fn started(run_id: &str) -> Option<Timestamp> {
    let (time, _) = run_id.split_once('-')?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", time).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn standing(report: &RunReport) -> Standing {
    match (report.interrupted, report.ok()) {
        (true, _) => Standing::Interrupted,
        (false, true) => Standing::Ok,
        (false, false) => Standing::Failed,
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
