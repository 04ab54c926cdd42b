//! [`Journal`]: every event as a line of `runs/<id>/events.jsonl`, and what
//! stages say in their logs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::protocol::Level;
use crate::schedule::{Event, Subscriber};
use crate::store::RunDir;

/// How long progress may wait until those who look on from elsewhere see it.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// Writes a run's events and stage logs. What cannot be written is lost, and
/// the run goes on.
pub struct Journal {
    dir: Arc<RunDir>,
    events: Option<BufWriter<File>>,
    flushed: Instant,
}

#[derive(Serialize)]
struct Line<'a> {
    time: jiff::Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

impl Journal {
    /// A journal in the folder of a run.
    pub fn new(dir: Arc<RunDir>) -> Self {
        let events = dir.create("events.jsonl").ok();
        Self {
            dir,
            events: events.map(BufWriter::new),
            flushed: Instant::now(),
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
                time: jiff::Timestamp::now(),
                event,
            };
            if serde_json::to_writer(&mut *file, &line).is_ok() {
                let _ = file.write_all(b"\n");
                // Progress may wait; the rest is read by others while the run goes on.
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
