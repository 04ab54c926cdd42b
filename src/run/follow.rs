//! [`Follower`]: reads `events.jsonl` while a run writes it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::format::{EVENTS_FILE, format_of};
use super::read::parse;
use super::{FORMAT, RunState};
use crate::store::plain;

/// Reads `events.jsonl` of a run, from where it stopped the last time.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of an incomplete line.
    partial: Vec<u8>,
    /// Most bytes to read at once.
    most: u64,
    /// Of the file, once its first line is there.
    format: Option<u32>,
    state: RunState,
}

impl Follower {
    /// A follower of the run in this folder; nothing is read yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(EVENTS_FILE),
            file: None,
            partial: Vec::new(),
            most: plain::LARGE,
            format: None,
            state: RunState::default(),
        }
    }

    /// Reads what was written since the last call, and returns whether there was a new line.
    /// Lines that cannot be read, unknown events and files of a newer format are skipped.
    pub fn poll(&mut self) -> bool {
        if self.file.is_none() {
            self.file = plain::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return false;
        };
        // What was read before an error is used. Another user's file may have any size.
        let _ = Read::take(&mut *file, self.most).read_to_end(&mut self.partial);
        let Some(end) = self.partial.iter().rposition(|&b| b == b'\n') else {
            // No event has a line of that length.
            if self.partial.len() as u64 >= self.most {
                self.partial.clear();
            }
            return false;
        };
        for line in self.partial[..end].split(|&b| b == b'\n') {
            let format = *self.format.get_or_insert_with(|| format_of(line));
            if let Some(line) = parse(line).filter(|_| format <= FORMAT) {
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

    /// The state so far.
    pub fn into_state(self) -> RunState {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_growing_file_is_read_on_and_a_half_line_waits_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = Follower::new(dir.path());
        assert!(!follower.poll());
        let mut file = File::create(dir.path().join("events.jsonl")).unwrap();
        let line = "{\"event\":\"run_started\",\"pipeline\":\"p\",\"stages\":[\"a\"]}\n";
        let (half, rest) = line.split_at(20);
        file.write_all(half.as_bytes()).unwrap();
        assert!(!follower.poll());
        file.write_all(rest.as_bytes()).unwrap();
        assert!(follower.poll());
        assert_eq!(follower.state().stages.len(), 1);
        file.write_all(
            b"\0\0garbage\n{\"event\":\"run_finished\",\"seconds\":2.0,\"ok\":true}\n{\"ev",
        )
        .unwrap();
        assert!(follower.poll());
        assert_eq!(follower.state().finished, Some((2.0, true)));
        assert!(!follower.poll());
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("events.jsonl");
        let last = "{\"event\":\"run_started\",\"stages\":[\"a\"]}\n";
        std::fs::write(&events, format!("{}\n{last}", "x".repeat(1000))).unwrap();
        let mut follower = Follower::new(dir.path());
        follower.most = 100;
        for _ in 0..20 {
            follower.poll();
            assert!(follower.partial.len() < 200, "{}", follower.partial.len());
        }
        assert_eq!(follower.state().stages.len(), 1);
    }
}
