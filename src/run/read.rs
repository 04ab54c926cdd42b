//! [`Run`]: reads a run, also while it is active.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::format::{self, EVENTS_FILE, PLAN_FILE, REPORT_FILE, Unreadable, format_of};
use super::{Event, FORMAT, Follower, Line, Plan, RunReport, RunState};
use crate::store::plain;

/// Most bytes of the first line of `events.jsonl`, which lists the stages.
const LONGEST_FIRST_LINE: u64 = 1 << 20;

/// The folder of a run, for reading. Nothing is cached: each call reads the files.
#[derive(Debug, Clone)]
pub struct Run {
    id: String,
    folder: PathBuf,
}

impl Run {
    /// The run in a folder. Nothing is read yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            id: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            folder: folder.to_owned(),
        }
    }

    /// Its id: the folder's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Refuses a run of a newer Genius; missing or damaged files are accepted.
    ///
    /// # Errors
    /// When a file of it has a newer format.
    pub fn check_format(&self) -> Result<(), Unreadable> {
        match self.plan() {
            Err(e) if e.is_too_new() => return Err(e),
            _ => {}
        }
        let path = self.folder.join(EVENTS_FILE);
        let mut head = Vec::new();
        if let Ok(file) = plain::open(&path) {
            // What was read before an error is used.
            let _ = file.take(LONGEST_FIRST_LINE).read_to_end(&mut head);
        }
        match format_of(first_line(&head)) {
            found if found > FORMAT => Err(Unreadable::TooNew { path, found }),
            _ => Ok(()),
        }
    }

    /// Its plan: stages, parameters, edges.
    ///
    /// # Errors
    /// When the file is missing, damaged or of a newer format.
    pub fn plan(&self) -> Result<Plan, Unreadable> {
        format::read(self.folder.join(PLAN_FILE))
    }

    /// Its report: how it ended, with every stage's result.
    ///
    /// # Errors
    /// When the file is missing (the run is active, or was cut), damaged or of a newer
    /// format.
    pub fn report(&self) -> Result<RunReport, Unreadable> {
        format::read(self.folder.join(REPORT_FILE))
    }

    /// Whether it wrote its report.
    pub fn has_report(&self) -> bool {
        self.folder.join(REPORT_FILE).is_file()
    }

    /// Its events so far. Damaged or cut lines and unknown events are skipped; a newer
    /// format yields none.
    pub fn events(&self) -> impl Iterator<Item = Line> + use<> {
        self.lines(|_| true).into_iter()
    }

    /// Key and preimage of every stage that was started so far.
    pub fn attempts(&self) -> impl Iterator<Item = (String, Value)> + use<> {
        // Most lines report progress, and need not be parsed.
        let started = |line: &[u8]| {
            std::str::from_utf8(line).is_ok_and(|line| line.contains("\"stage_started\""))
        };
        self.lines(started)
            .into_iter()
            .filter_map(|line| match line.event {
                Event::StageStarted { key, preimage, .. } if !preimage.is_null() => {
                    Some((key, preimage))
                }
                _ => None,
            })
    }

    fn lines(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<Line> {
        let bytes = plain::read(&self.folder.join(EVENTS_FILE), plain::LARGE).unwrap_or_default();
        let newer = format_of(first_line(&bytes)) > FORMAT;
        let lines = bytes.split(|&b| b == b'\n');
        let lines = lines.filter(|line| !newer && wanted(line));
        lines.filter_map(parse).collect()
    }

    /// Its state so far.
    pub fn state(&self) -> RunState {
        let mut follower = self.follow();
        while follower.poll() {}
        follower.into_state()
    }

    /// Its events as they are written.
    pub fn follow(&self) -> Follower {
        Follower::new(&self.folder)
    }
}

/// A line of `events.jsonl`, if it is whole and known.
pub(super) fn parse(line: &[u8]) -> Option<Line> {
    serde_json::from_slice(line).ok()
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == b'\n').next().unwrap_or_default()
}
