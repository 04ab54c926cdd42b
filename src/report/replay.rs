//! [`Replay`]: `events.jsonl` of a run, also of one that goes on, read back into
//! a [`RunState`]: every stage and how far it is.
//!
//! Read leniently: an event or field that this Genius does not know is passed
//! over, and so is a last line that is not whole yet.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::protocol::Progress;
use crate::store::{log_name, plain};

/// Where a stage is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its inputs are not there yet, or it has no room.
    #[default]
    Waiting,
    /// Another process computes the same.
    WaitingForAnother,
    /// It failed and will be tried again.
    Retrying,
    /// Its process runs.
    Running,
    /// Its result was there.
    Cached,
    /// It was computed.
    Executed,
    /// It could not be computed.
    Failed,
    /// It was not tried.
    Skipped,
    /// It ran when the run was cut: power, `kill -9`.
    Cut,
}

impl Phase {
    /// Whether nothing more will come of the stage in this run.
    pub fn is_end(self) -> bool {
        matches!(
            self,
            Self::Cached | Self::Executed | Self::Failed | Self::Skipped | Self::Cut
        )
    }
}

/// A stage of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageState {
    /// Its name in the run: `train`, `train@wo-foresight`.
    pub stage: String,
    /// Where it is.
    #[serde(rename = "state")]
    pub phase: Phase,
    /// Its key, if its inputs were known.
    pub key: Option<String>,
    /// Why it runs, failed, was skipped or waits.
    pub reason: Option<String>,
    /// What to do about a failure.
    pub hint: Option<String>,
    /// The last that it said of how far it is.
    #[serde(serialize_with = "progress_or_null")]
    pub progress: Option<Progress>,
    /// When its process was started, the last time.
    pub started: Option<Timestamp>,
    /// How long it took; of a running stage none.
    pub seconds: Option<f64>,
    /// Highest resident memory of its process.
    pub peak_memory_bytes: Option<u64>,
    /// Which repetition runs or comes, from 1; none the first time.
    pub attempt: Option<u64>,
    /// The file in the run's folder with what it says, once its process was started.
    pub log: Option<String>,
}

/// A run, as far as its events tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// Name of the pipeline.
    pub pipeline: Option<String>,
    /// In the order in which they may run.
    pub stages: Vec<StageState>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When the last event came.
    pub last: Option<Timestamp>,
    /// Whether a person asked to stop.
    pub interrupted: bool,
    /// Its end: how long it took, and whether every stage has a result.
    pub finished: Option<(f64, bool)>,
    index: HashMap<String, usize>,
}

impl RunState {
    /// Takes one event in, as it stands in `events.jsonl`.
    pub fn apply(&mut self, line: &Value) {
        let time = line["time"].as_str().and_then(|t| t.parse().ok());
        self.last = time.or(self.last);
        self.started = self.started.or(time);
        let Some(event) = line["event"].as_str() else {
            return;
        };
        match event {
            "run_started" => {
                self.pipeline = text(&line["pipeline"]);
                for stage in line["stages"].as_array().into_iter().flatten() {
                    if let Some(name) = stage.as_str() {
                        self.stage(name);
                    }
                }
            }
            "interrupted" => self.interrupted = true,
            "run_finished" => {
                let seconds = line["seconds"].as_f64().unwrap_or_default();
                self.finished = Some((seconds, line["ok"].as_bool().unwrap_or_default()));
            }
            _ => {
                if let Some(name) = line["stage"].as_str() {
                    stage_event(self.stage(name), event, line, time);
                }
            }
        }
    }

    /// The state of the stage of that name, if the run has it.
    pub fn find(&self, stage: &str) -> Option<&StageState> {
        self.index.get(stage).map(|&index| &self.stages[index])
    }

    /// What became of stages that had no end when the run's process went away.
    pub fn cut(&mut self) {
        for stage in &mut self.stages {
            match stage.phase {
                Phase::Waiting => {
                    stage.phase = Phase::Skipped;
                    stage.reason = Some("the run was cut before".to_owned());
                }
                phase if !phase.is_end() => {
                    stage.phase = Phase::Cut;
                    stage.reason = Some("the run was cut meanwhile".to_owned());
                }
                _ => {}
            }
        }
    }

    fn stage(&mut self, name: &str) -> &mut StageState {
        let index = match self.index.get(name) {
            Some(&index) => index,
            None => {
                self.index.insert(name.to_owned(), self.stages.len());
                self.stages.push(StageState {
                    stage: name.to_owned(),
                    ..StageState::default()
                });
                self.stages.len() - 1
            }
        };
        &mut self.stages[index]
    }
}

/// What an event says of its stage.
fn stage_event(stage: &mut StageState, event: &str, line: &Value, time: Option<Timestamp>) {
    if let Some(key) = text(&line["key"]) {
        stage.key = Some(key);
    }
    let end = |stage: &mut StageState, phase| {
        stage.phase = phase;
        stage.progress = None;
        stage.seconds = line["seconds"].as_f64().or(stage.seconds);
        stage.peak_memory_bytes = line["peak_memory_bytes"].as_u64();
    };
    match event {
        "stage_cached" => {
            end(stage, Phase::Cached);
            stage.reason = None;
        }
        "stage_started" => {
            stage.phase = Phase::Running;
            stage.started = time;
            stage.progress = None;
            stage.reason = text(&line["reason"]);
            stage.hint = None;
            stage.log = Some(log_name(&stage.stage));
        }
        "stage_progress" => stage.progress = Some(progress(&line["progress"])),
        "stage_waiting" => {
            stage.phase = Phase::WaitingForAnother;
            stage.reason = holder(&line["holder"]);
        }
        "stage_retrying" => {
            stage.phase = Phase::Retrying;
            stage.progress = None;
            stage.attempt = line["attempt"].as_u64();
            let again = match (line["attempt"].as_u64(), line["of"].as_u64()) {
                (Some(attempt), Some(of)) => format!("attempt {attempt} of {of}"),
                _ => "again".to_owned(),
            };
            let wait = line["wait_secs"].as_f64().unwrap_or_default();
            let (why, _) = failure(&line["failure"]);
            stage.reason = Some(format!(
                "{again} after {}: {}",
                super::summary::duration(wait),
                why.unwrap_or_default()
            ));
        }
        "stage_finished" => {
            end(stage, Phase::Executed);
        }
        "stage_failed" => {
            end(stage, Phase::Failed);
            (stage.reason, stage.hint) = failure(&line["failure"]);
        }
        "stage_skipped" => {
            end(stage, Phase::Skipped);
            stage.reason = text(&line["reason"]);
        }
        _ => {}
    }
}

fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|t| !t.is_empty())
        .map(ToOwned::to_owned)
}

/// Message and hint.
fn failure(value: &Value) -> (Option<String>, Option<String>) {
    match value {
        Value::String(message) => (Some(message.clone()), None),
        other => (text(&other["message"]), text(&other["hint"])),
    }
}

/// Who computes the same: as a text, or as the fields of a lease.
fn holder(value: &Value) -> Option<String> {
    let Value::Object(lease) = value else {
        return text(value);
    };
    let field = |name: &str| match lease.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let who = match (field("run_id"), field("pid")) {
        (Some(run), _) => format!("run {run}"),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => "another process".to_owned(),
    };
    Some(match field("host") {
        Some(host) => format!("{who} on {host}"),
        None => who,
    })
}

fn progress(value: &Value) -> Progress {
    Progress {
        phase: text(&value["phase"]).unwrap_or_default(),
        done: value["done"].as_u64().unwrap_or_default(),
        total: value["total"].as_u64(),
        unit: text(&value["unit"]).unwrap_or_default(),
        detail: text(&value["detail"]).unwrap_or_default(),
    }
}

fn progress_or_null<S: serde::Serializer>(p: &Option<Progress>, s: S) -> Result<S::Ok, S::Error> {
    p.serialize(s)
}

/// Reads `events.jsonl` of a run, from where it stopped the last time.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line that is not whole yet.
    partial: Vec<u8>,
    /// Bytes that are read at once.
    most: u64,
    state: RunState,
}

impl Replay {
    /// Of the run with this folder; nothing is read yet.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            path: run_dir.join("events.jsonl"),
            file: None,
            partial: Vec::new(),
            most: plain::LARGE,
            state: RunState::default(),
        }
    }

    /// The state that all events so far lead to.
    pub fn read(run_dir: &Path) -> RunState {
        let mut replay = Self::new(run_dir);
        while replay.poll() {}
        replay.state
    }

    /// Takes in what was written since; whether that was anything. Events that
    /// are not there, or cannot be read, are none.
    pub fn poll(&mut self) -> bool {
        if self.file.is_none() {
            self.file = plain::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return false;
        };
        // What was read before an error is read. Another one's file may be of any size.
        let _ = Read::take(&mut *file, self.most).read_to_end(&mut self.partial);
        let Some(end) = self.partial.iter().rposition(|&b| b == b'\n') else {
            // No event has a line of that length: it is none.
            if self.partial.len() as u64 >= self.most {
                self.partial.clear();
            }
            return false;
        };
        for line in self.partial[..end].split(|&b| b == b'\n') {
            if let Ok(line) = serde_json::from_slice(line) {
                self.state.apply(&line);
            }
        }
        self.partial.drain(..=end);
        true
    }

    /// The state so far.
    pub fn state(&self) -> &RunState {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn state(events: &[Value]) -> RunState {
        let mut state = RunState::default();
        for event in events {
            state.apply(event);
        }
        state
    }

    /// What the dispatcher writes is what is read here.
    #[test]
    fn events_of_this_genius_are_read_back() {
        use crate::protocol::Failure;
        use crate::schedule::Event;
        let stage = |name: &str| name.to_owned();
        let events = [
            Event::RunStarted {
                run_id: "r".into(),
                pipeline: "p".into(),
                stages: ["a", "b", "c", "d"].map(stage).to_vec(),
            },
            Event::StageCached {
                stage: stage("a"),
                key: "11".into(),
            },
            Event::StageProgress {
                stage: stage("b"),
                progress: Progress {
                    phase: "rolling out".into(),
                    done: 3,
                    total: Some(9),
                    unit: "queries".into(),
                    detail: String::new(),
                },
            },
            Event::StageFailed {
                stage: stage("c"),
                failure: Failure::new("out of memory").hint("a smaller width"),
                seconds: 1.5,
            },
            Event::StageSkipped {
                stage: stage("d"),
                reason: "needs `c`".into(),
            },
        ];
        let events: Vec<Value> = events
            .iter()
            .map(|e| serde_json::to_value(e).unwrap())
            .collect();
        let state = state(&events);
        let phases: Vec<Phase> = state.stages.iter().map(|s| s.phase).collect();
        assert_eq!(
            phases,
            [Phase::Cached, Phase::Waiting, Phase::Failed, Phase::Skipped]
        );
        assert_eq!(state.pipeline.as_deref(), Some("p"));
        assert_eq!(state.stages[0].key.as_deref(), Some("11"));
        assert_eq!(state.stages[1].progress.as_ref().unwrap().total, Some(9));
        assert_eq!(state.stages[2].reason.as_deref(), Some("out of memory"));
        assert_eq!(state.stages[2].hint.as_deref(), Some("a smaller width"));
        assert_eq!(state.stages[2].seconds, Some(1.5));
    }

    #[test]
    fn a_stage_is_tried_again_and_then_waits_for_another() {
        let started = json!({"time": "2026-01-02T03:04:05Z", "event": "stage_started", "stage": "a", "key": "k", "reason": "new"});
        let retrying = json!({"event": "stage_retrying", "stage": "a", "attempt": 1, "of": 3, "failure": {"message": "no answer", "hint": null}, "wait_secs": 5.0});
        let mut state = state(&[started, retrying]);
        let stage = state.find("a").unwrap();
        assert_eq!((stage.phase, stage.attempt), (Phase::Retrying, Some(1)));
        assert_eq!(stage.log.as_deref(), Some("a.log"));
        insta::assert_snapshot!(stage.reason.as_deref().unwrap(), @"attempt 1 of 3 after 5.00s: no answer");

        state.apply(&json!({"event": "stage_waiting", "stage": "a", "holder": {"run_id": "20260102T030405-1a2b", "host": "box", "pid": 7}}));
        let stage = state.find("a").unwrap();
        assert_eq!(stage.phase, Phase::WaitingForAnother);
        assert_eq!(
            stage.reason.as_deref(),
            Some("run 20260102T030405-1a2b on box")
        );
        state.apply(&json!({"event": "stage_waiting", "stage": "a", "holder": "box"}));
        assert_eq!(state.find("a").unwrap().reason.as_deref(), Some("box"));
        state.cut();
        assert_eq!(state.find("a").unwrap().phase, Phase::Cut);
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let state = state(&[
            json!({"event": "run_started", "stages": ["a", 7], "more": {}}),
            json!({"event": "stage_dreamt", "stage": "a"}),
            json!({"event": "moon"}),
            json!(["event"]),
            json!({"event": "stage_progress", "stage": "a", "progress": 3}),
        ]);
        assert_eq!(state.stages.len(), 1);
        assert_eq!(state.stages[0].phase, Phase::Waiting);
    }

    #[test]
    fn a_growing_file_is_read_on_and_a_half_line_waits_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut replay = Replay::new(dir.path());
        assert!(!replay.poll());
        let mut file = File::create(dir.path().join("events.jsonl")).unwrap();
        let line = "{\"event\":\"run_started\",\"pipeline\":\"p\",\"stages\":[\"a\"]}\n";
        let (half, rest) = line.split_at(20);
        file.write_all(half.as_bytes()).unwrap();
        assert!(!replay.poll());
        file.write_all(rest.as_bytes()).unwrap();
        assert!(replay.poll());
        assert_eq!(replay.state().stages.len(), 1);
        file.write_all(
            b"\0\0garbage\n{\"event\":\"run_finished\",\"seconds\":2.0,\"ok\":true}\n{\"ev",
        )
        .unwrap();
        assert!(replay.poll());
        assert_eq!(replay.state().finished, Some((2.0, true)));
        assert!(!replay.poll());
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("events.jsonl");
        let last = "{\"event\":\"run_started\",\"stages\":[\"a\"]}\n";
        std::fs::write(&events, format!("{}\n{last}", "x".repeat(1000))).unwrap();
        let mut replay = Replay::new(dir.path());
        replay.most = 100;
        for _ in 0..20 {
            replay.poll();
            assert!(replay.partial.len() < 200, "{}", replay.partial.len());
        }
        assert_eq!(replay.state().stages.len(), 1);
    }
}
