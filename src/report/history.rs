//! [`History`]: the runs of a cache, newest first, and the one that a person
//! means by the beginning of its name.

use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::replay::{Phase, Replay, RunState};
use crate::store::{Store, StoreError, Times, plain};

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
    /// Name of the pipeline, if anything tells it.
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

/// What is read of `run.json`.
#[derive(Deserialize)]
struct End {
    #[serde(default)]
    pipeline: Option<String>,
    #[serde(default)]
    interrupted: bool,
    #[serde(default)]
    seconds: f64,
    stages: Vec<EndOfStage>,
}

#[derive(Deserialize)]
struct EndOfStage {
    #[serde(default)]
    status: String,
}

/// What is read of `pipeline.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    name: Option<String>,
    path: Option<PathBuf>,
}

/// No run, or not one, is what a name stands for; or a run lacks what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cache holds no run.
    #[error("there is no run yet in the cache {root}")]
    None {
        /// The cache.
        root: PathBuf,
    },
    /// No run's id begins so.
    #[error("there is no run `{name}` in the cache {root}")]
    Unknown {
        /// As written.
        name: String,
        /// The cache.
        root: PathBuf,
        /// The newest run's id.
        newest: String,
    },
    /// Several do.
    #[error("`{name}` is the beginning of {} runs", .ids.len())]
    Ambiguous {
        /// As written.
        name: String,
        /// Their ids, newest first.
        ids: Vec<String>,
    },
    /// The run has no such stage.
    #[error("run {run_id} has no stage `{stage}`")]
    NoStage {
        /// The run.
        run_id: String,
        /// As written.
        stage: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The stage ran, and its log is not there.
    #[error("the log of stage `{stage}` of run {run_id} is not there: {path}")]
    NoLog {
        /// The run.
        run_id: String,
        /// The stage.
        stage: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// The folder of runs cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of a run cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::None { .. } => "`genius run FILE` makes one; `--cache DIR` or GENIUS_CACHE \
                                  names another cache"
                .to_owned(),
            Self::Unknown { newest, .. } => {
                format!("`genius runs` lists them; the newest is `{newest}`, or `latest`")
            }
            Self::Ambiguous { ids, .. } => {
                let some: Vec<String> = ids.iter().take(4).map(|id| format!("`{id}`")).collect();
                let more = if ids.len() > 4 { ", ..." } else { "" };
                format!("write more of it: {}{more}", some.join(", "))
            }
            Self::NoStage { stage, known, .. } => suggest(stage, known),
            Self::NoLog { run_id, .. } => format!(
                "it was removed or could not be written; `genius status {run_id}` says how the stage ended"
            ),
            Self::Io { .. } | Self::Store(_) => return None,
        })
    }

    /// Whether the machine is in the way rather than the command line wrong.
    pub fn is_of_machine(&self) -> bool {
        matches!(self, Self::NoLog { .. } | Self::Io { .. } | Self::Store(_))
    }
}

/// "did you mean" the nearest, or else what there is.
pub fn suggest(name: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= (k.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => {
            let some: Vec<String> = known.iter().take(12).map(|k| format!("`{k}`")).collect();
            let more = if known.len() > 12 { ", ..." } else { "" };
            format!("there is {}{more}", some.join(", "))
        }
    }
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

    /// Whether the run goes on.
    pub fn is_live(&self, run_id: &str) -> bool {
        !self.folder(run_id).join("run.json").is_file()
            && self.store.run_is_live(run_id, &self.times)
    }

    /// What a run is, given its events so far.
    pub fn standing(&self, run_id: &str, state: &RunState) -> Standing {
        if let Some(end) = read_end(&self.folder(run_id)) {
            return end.standing();
        }
        match state.finished {
            Some((_, true)) => Standing::Ok,
            Some(_) if state.interrupted => Standing::Interrupted,
            Some(_) => Standing::Failed,
            None if self.store.run_is_live(run_id, &self.times) => Standing::Running,
            None => Standing::Cut,
        }
    }

    /// A run for the list. A run that ended is one small file; another's events are read.
    pub fn summary(&self, run_id: &str, now: Timestamp) -> RunSummary {
        let folder = self.folder(run_id);
        let plan = read_plan(&folder);
        if let Some(end) = read_end(&folder) {
            return RunSummary {
                run_id: run_id.to_owned(),
                pipeline: end.pipeline.clone().or(plan.name),
                path: plan.path,
                started: started(run_id),
                seconds: Some(end.seconds),
                state: end.standing(),
                stages: end.counts(),
                folder,
            };
        }
        let mut state = Replay::read(&folder);
        let standing = self.standing(run_id, &state);
        if standing == Standing::Cut {
            state.cut();
        }
        let started = state.started.or_else(|| started(run_id));
        RunSummary {
            run_id: run_id.to_owned(),
            pipeline: state.pipeline.clone().or(plan.name),
            path: plan.path,
            started,
            seconds: took(&state, standing, started, now),
            state: standing,
            stages: Counts::of(&state),
            folder,
        }
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

impl End {
    fn counts(&self) -> Counts {
        let count = |word: &str| self.stages.iter().filter(|s| s.status == word).count();
        Counts {
            executed: count("executed"),
            cached: count("cached"),
            failed: count("failed"),
            skipped: count("skipped"),
            ..Counts::default()
        }
    }

    fn standing(&self) -> Standing {
        let all = self
            .stages
            .iter()
            .all(|s| matches!(s.status.as_str(), "executed" | "cached"));
        match (self.interrupted, all) {
            (true, _) => Standing::Interrupted,
            (false, true) => Standing::Ok,
            (false, false) => Standing::Failed,
        }
    }
}

/// `run.json`; none when it is missing or not whole.
fn read_end(folder: &Path) -> Option<End> {
    serde_json::from_slice(&plain::read(&folder.join("run.json"), plain::LARGE).ok()?).ok()
}

/// Name and path from `pipeline.json`, which tells them first: its beginning is
/// enough unless something else stands before.
fn read_plan(folder: &Path) -> Plan {
    let path = folder.join("pipeline.json");
    let head = || {
        let mut head = Vec::new();
        let file = plain::open(&path).ok()?;
        file.take(2048).read_to_end(&mut head).ok()?;
        let text = String::from_utf8_lossy(&head).into_owned();
        // Up to the value before `stages`, the object is closed by hand.
        let cut = text.find("\"stages\"")?;
        let object = text[..cut].trim_end().strip_suffix(',')?;
        serde_json::from_str::<Plan>(&format!("{object}}}")).ok()
    };
    head()
        .filter(|plan| plan.path.is_some())
        .or_else(|| serde_json::from_slice(&plain::read(&path, plain::LARGE).ok()?).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tables;
    use super::*;

    /// A cache with hand-written run folders.
    struct Cache {
        _dir: tempfile::TempDir,
        history: History,
    }

    impl Cache {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("cache")).unwrap();
            Self {
                _dir: dir,
                history: History::new(store, Times::default()),
            }
        }

        fn write(&self, run: &str, file: &str, text: &str) {
            let folder = self.history.folder(run);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), text).unwrap();
        }

        fn plan(&self, run: &str, name: &str) {
            let plan = json!({"name": name, "seed": 1, "path": "/p/x.yaml", "stages": [{"stage": "a", "name": "no"}]});
            self.write(run, "pipeline.json", &format!("{plan:#}\n"));
        }

        fn end(&self, run: &str, statuses: &[&str], interrupted: bool) {
            let stages: Vec<_> = statuses
                .iter()
                .map(|s| json!({"stage": "x", "status": s}))
                .collect();
            let end = json!({"run_id": run, "pipeline": "quickstart", "stages": stages, "interrupted": interrupted, "seconds": 185.0});
            self.write(run, "run.json", &end.to_string());
        }

        fn message(&self, name: &str) -> String {
            let error = self.history.find(name).unwrap_err();
            let text = format!("{error}\n{}", error.hint().unwrap());
            text.replace(&self.history.store.root().display().to_string(), "CACHE")
        }
    }

    const LEASE: &str = r#"{"run_id":"20260102T090000-eeee","host":"elsewhere","pid":1,"started":"2026-01-02T09:00:00Z"}"#;

    const EVENTS: &str = "\
{\"time\":\"2026-01-02T09:00:00Z\",\"event\":\"run_started\",\"pipeline\":\"big\",\"stages\":[\"a\",\"b\",\"c\"]}
{\"time\":\"2026-01-02T09:00:01Z\",\"event\":\"stage_cached\",\"stage\":\"a\",\"key\":\"1\"}
{\"time\":\"2026-01-02T09:00:02Z\",\"event\":\"stage_started\",\"stage\":\"b\",\"key\":\"2\",\"reason\":\"new\"}
{\"time\":\"2026-01-02T09:00:12Z\",\"event\":\"stage_prog";

    #[test]
    fn runs_of_every_kind_newest_first() {
        let cache = Cache::new();
        cache.plan("20260102T030000-aaaa", "quickstart");
        cache.end(
            "20260102T030000-aaaa",
            &["executed", "executed", "cached"],
            false,
        );
        cache.end(
            "20260102T040000-bbbb",
            &["cached", "failed", "skipped"],
            false,
        );
        cache.end("20260102T050000-cccc", &["executed", "skipped"], true);
        cache.write("20260102T090000-dddd", "events.jsonl", EVENTS);
        cache.write("20260102T090000-eeee", "events.jsonl", EVENTS);
        cache.write("20260102T090000-eeee", "lease.json", LEASE);
        cache.plan("20260102T095950-ffff", "barely begun");

        let now = "2026-01-02T10:00:00Z".parse().unwrap();
        let runs: Vec<RunSummary> = cache
            .history
            .ids()
            .unwrap()
            .iter()
            .map(|id| cache.history.summary(id, now))
            .collect();
        insta::assert_snapshot!(tables::runs(&runs, now), @r"
        RUN                   PIPELINE      STARTED         TOOK   STATE        STAGES
        20260102T095950-ffff  barely begun  10 seconds ago  -      cut          no stage
        20260102T090000-eeee  big           1 hour ago      1h00m  running      1 cached, 1 running, 1 waiting
        20260102T090000-dddd  big           1 hour ago      2.00s  cut          1 cached, 1 skipped, 1 cut
        20260102T050000-cccc  quickstart    5 hours ago     3m05s  interrupted  1 executed, 1 skipped
        20260102T040000-bbbb  quickstart    6 hours ago     3m05s  failed       1 cached, 1 failed, 1 skipped
        20260102T030000-aaaa  quickstart    7 hours ago     3m05s  ok           2 executed, 1 cached
        ");
        assert_eq!(runs[5].path.as_deref(), Some(Path::new("/p/x.yaml")));
        assert_eq!(cache.history.current().unwrap(), "20260102T090000-eeee");
    }

    #[test]
    fn a_run_file_that_is_not_whole_is_none() {
        let cache = Cache::new();
        cache.write("20260102T090000-dddd", "events.jsonl", EVENTS);
        cache.write("20260102T090000-dddd", "run.json", "{\"run_id\":\"2026");
        let run = cache
            .history
            .summary("20260102T090000-dddd", Timestamp::now());
        assert_eq!(run.state, Standing::Cut);
    }

    #[test]
    fn a_beginning_is_enough_if_it_is_one_runs() {
        let cache = Cache::new();
        for run in [
            "20260101T000000-aaaa",
            "20260102T000000-bbbb",
            "20260102T000000-bbbbb",
        ] {
            cache.end(run, &["cached"], false);
        }
        let found = |name| cache.history.find(name).unwrap();
        assert_eq!(found("20260101"), "20260101T000000-aaaa");
        assert_eq!(found("latest"), "20260102T000000-bbbbb");
        assert_eq!(found("20260102T000000-bbbb"), "20260102T000000-bbbb");
        insta::assert_snapshot!(cache.message("20260102"), @r"
        `20260102` is the beginning of 2 runs
        write more of it: `20260102T000000-bbbbb`, `20260102T000000-bbbb`
        ");
        insta::assert_snapshot!(cache.message("lates"), @r"
        there is no run `lates` in the cache CACHE
        `genius runs` lists them; the newest is `20260102T000000-bbbbb`, or `latest`
        ");
        assert!(cache.history.find("").is_err());
        assert!(cache.history.find("../..").is_err());
    }

    #[test]
    fn no_runs_yet() {
        insta::assert_snapshot!(Cache::new().message("latest"), @r"
        there is no run yet in the cache CACHE
        `genius run FILE` makes one; `--cache DIR` or GENIUS_CACHE names another cache
        ");
    }

    #[test]
    fn hundreds_of_runs_are_listed() {
        let cache = Cache::new();
        for n in 0..300 {
            let run = format!("20260102T030000-{n:04x}");
            cache.plan(&run, "p");
            cache.end(&run, &["cached"; 10], false);
        }
        let now = Timestamp::now();
        let ids = cache.history.ids().unwrap();
        assert_eq!(ids.len(), 300);
        assert!(
            ids.iter()
                .all(|id| cache.history.summary(id, now).stages.cached == 10)
        );
    }
}
