//! [`LiveRun`]: which runs of this cache are under way, and what they use.

use std::time::Duration;

use serde::Deserialize;

use super::{Key, Store, StoreError};

/// How often a live run beats, and when its silence means that it is gone.
#[derive(Debug, Clone)]
pub struct Times {
    /// Between two beats.
    pub beat: Duration,
    /// Silence after which a run counts as gone.
    pub stale: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            stale: Duration::from_secs(30),
        }
    }
}

/// A run that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRun {
    /// Its id.
    pub run_id: String,
    /// Where it runs.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// When it began (RFC 3339).
    pub started: String,
}

#[derive(Deserialize)]
struct Lease {
    host: String,
    pid: u32,
    started: String,
}

impl Store {
    /// The runs whose heartbeat is not stale.
    ///
    /// # Errors
    /// When `runs/` cannot be read.
    pub fn live_runs(&self, times: &Times) -> Result<Vec<LiveRun>, StoreError> {
        let runs = self.runs_dir();
        let mut live = Vec::new();
        for entry in std::fs::read_dir(&runs)
            .map_err(StoreError::io("read", &runs))?
            .filter_map(Result::ok)
        {
            let path = entry.path().join("lease.json");
            let age = std::fs::metadata(&path)
                .and_then(|m| m.modified())
                .map(|time| time.elapsed().unwrap_or_default());
            let (Ok(age), Ok(text)) = (age, std::fs::read(&path)) else {
                continue;
            };
            if age < times.stale
                && let Ok(lease) = serde_json::from_slice::<Lease>(&text)
            {
                live.push(LiveRun {
                    run_id: entry.file_name().to_string_lossy().into_owned(),
                    host: lease.host,
                    pid: lease.pid,
                    started: lease.started,
                });
            }
        }
        Ok(live)
    }

    /// The keys that a run looked up or computed, in the order of first use.
    pub fn used_keys(&self, run_id: &str) -> Vec<Key> {
        std::fs::read_to_string(self.runs_dir().join(run_id).join("uses"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect()
    }
}
