//! The records that stages write and read, one JSON object a line.
//!
//! `docs/artifacts.md` describes every file.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

mod jsonl;
mod pair;
mod rollout;
mod score;

pub use jsonl::{JsonlReader, JsonlWriter};
pub use pair::{ChatMessage, PairRecord};
pub use rollout::{
    BeamRecord, CandidateRecord, Content, Finish, QueryRecord, RolloutRecord, StepEnd, StepRecord,
};
pub use score::{ScoreRecord, ScoredCandidate};

/// File of the `queries` artifact: [`QueryRecord`]s.
pub const QUERIES_FILE: &str = "queries.jsonl";
/// File of the `rollouts` artifact: [`RolloutRecord`]s.
pub const ROLLOUTS_FILE: &str = "rollouts.jsonl";
/// File of the `scores` artifact: [`ScoreRecord`]s.
pub const SCORES_FILE: &str = "scores.jsonl";
/// File of the `pairs` artifact: [`PairRecord`]s.
pub const PAIRS_FILE: &str = "pairs.jsonl";

/// File of a `metrics` artifact that holds one JSON object of figures.
pub const METRICS_FILE: &str = "metrics.json";

/// A record file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a valid record.
    #[error("{path}:{line}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl From<ArtifactError> for crate::protocol::Failure {
    fn from(e: ArtifactError) -> Self {
        Self::new(e.to_string())
    }
}

/// Reads a JSONL file; empty lines are skipped.
///
/// # Errors
/// With file and line.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ArtifactError> {
    JsonlReader::open(path)?.collect()
}

/// Writes a JSONL file and syncs it.
///
/// # Errors
/// With the file.
pub fn write_jsonl<T: Serialize>(path: &Path, records: &[T]) -> Result<(), ArtifactError> {
    let mut writer = JsonlWriter::create(path)?;
    for record in records {
        writer.write(record)?;
    }
    writer.finish()
}

/// Writes a pretty-printed JSON file with a final newline.
///
/// # Errors
/// With the file.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ArtifactError> {
    let io = |source| ArtifactError::Io {
        path: path.to_owned(),
        source,
    };
    let mut text = serde_json::to_string_pretty(value).map_err(|e| io(std::io::Error::other(e)))?;
    text.push('\n');
    std::fs::write(path, text).map_err(io)
}
