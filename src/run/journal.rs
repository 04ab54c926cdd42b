//! Writing a run: [`write_plan`] before it begins, the [`Journal`] while it runs,
//! [`write_report`] at its end.

use std::fs::File;
use std::io::{BufWriter, Error, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::format::{EVENTS_FILE, PLAN_FILE, REPORT_FILE};
use super::{Event, FORMAT, Line, Plan, RunReport, Subscriber};
use crate::protocol::Level;
use crate::store::RunDir;

/// How long progress may stay in the buffer before other processes see it.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// Writes `pipeline.json`.
///
/// # Errors
/// With the path that cannot be written.
pub fn write_plan(dir: &RunDir, plan: &Plan) -> Result<(), (PathBuf, Error)> {
    write(dir, PLAN_FILE, plan)
}

/// Writes `run.json`.
///
/// # Errors
/// With the path that cannot be written.
pub fn write_report(dir: &RunDir, report: &RunReport) -> Result<(), (PathBuf, Error)> {
    write(dir, REPORT_FILE, report)
}

fn write(dir: &RunDir, name: &str, value: &impl Serialize) -> Result<(), (PathBuf, Error)> {
    let written = serde_json::to_vec(value).map_err(Error::from);
    let written = written.and_then(|mut bytes| {
        bytes.push(b'\n');
        dir.write(name, &bytes)
    });
    match written {
        Ok(_) => Ok(()),
        Err(e) => Err((dir.path().join(name), e)),
    }
}

/// Writes a run's events and stage logs. What cannot be written is lost; the run
/// continues.
pub struct Journal {
    dir: Arc<RunDir>,
    events: Option<BufWriter<File>>,
    flushed: Instant,
    /// For the first line.
    format: Option<u32>,
}

impl Journal {
    /// A journal in the folder of a run.
    pub fn new(dir: Arc<RunDir>) -> Self {
        let events = dir.create(EVENTS_FILE).ok();
        Self {
            dir,
            events: events.map(BufWriter::new),
            flushed: Instant::now(),
            format: Some(FORMAT),
        }
    }

    fn log(&self, stage: &str, text: &str) {
        // Appended: the stage's process writes its stderr to the same file.
        if let Ok(mut file) = self.dir.log(stage).append() {
            let _ = file.write_all(format!("{text}\n").as_bytes());
        }
    }
}

impl Subscriber for Journal {
    fn on(&mut self, event: &Event) {
        if let Some(file) = &mut self.events {
            let line = Line {
                format: self.format.take(),
                time: Some(jiff::Timestamp::now()),
                event: event.clone(),
            };
            if serde_json::to_writer(&mut *file, &line).is_ok() {
                let _ = file.write_all(b"\n");
                // Progress may wait; other processes read the rest while the run is active.
                let may_wait = matches!(event, Event::StageProgress { .. });
                if !may_wait || self.flushed.elapsed() >= FLUSH_EVERY {
                    let _ = file.flush();
                    self.flushed = Instant::now();
                }
            }
        }
        match event {
            Event::StageLog { stage, level, text } => {
                let name = match level {
                    Level::Debug => "debug",
                    Level::Info => "info",
                    Level::Warn => "warn",
                };
                self.log(stage, &format!("[{name}] {text}"));
            }
            Event::StageRetrying {
                stage,
                attempt,
                of,
                failure,
                ..
            } => self.log(
                stage,
                &format!("\n[failed] {failure}\n[attempt {attempt} of {of}]"),
            ),
            Event::StageFailed { stage, failure, .. } => {
                self.log(stage, &format!("[failed] {failure}"));
            }
            _ => {}
        }
    }
}
