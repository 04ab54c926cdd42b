//! Whether a run of this cache is under way.

use std::time::Duration;

use super::Store;

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

impl Store {
    /// Whether the run's heartbeat is not stale.
    pub fn run_is_live(&self, run_id: &str, times: &Times) -> bool {
        std::fs::metadata(self.runs_dir().join(run_id).join("lease.json"))
            .and_then(|m| m.modified())
            .is_ok_and(|time| time.elapsed().unwrap_or_default() < times.stale)
    }
}
