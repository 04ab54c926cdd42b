//! The version of a run's files, their names, and reading one whole.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::store::plain;

/// Version of a run's files. It is written into `pipeline.json`, `run.json` and the first
/// line of `events.jsonl`.
///
/// History:
/// - 1: no version in the files.
/// - 2: the version; `needs`, `outputs` and `numerics` of each stage in `pipeline.json`; `summary` in
///   the event `stage_finished`.
/// - 3: `figures`, with units and standard errors, in place of `summary`.
pub const FORMAT: u32 = 3;

/// The plan; a run writes it first.
pub(super) const PLAN_FILE: &str = "pipeline.json";
/// The events.
pub(super) const EVENTS_FILE: &str = "events.jsonl";
/// The report; a run writes it last.
pub(super) const REPORT_FILE: &str = "run.json";

/// The version of files without a version.
pub(super) fn first() -> u32 {
    1
}

/// Why a file of a run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is missing, or cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is cut short, or damaged.
    #[error("{path} is cut short or damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, and how.
        source: serde_json::Error,
    },
    /// A newer Genius wrote it.
    #[error(
        "{path} has format {found}: a newer Genius wrote it, and this one reads up to format {FORMAT}"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Unreadable {
    /// Whether a newer Genius wrote it.
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::TooNew { .. })
    }
}

/// Parsed separately, since the rest of a newer file may have another shape.
#[derive(Deserialize)]
struct Version {
    #[serde(default = "first")]
    format: u32,
}

/// The version that the first line of `events.jsonl` names.
pub(super) fn format_of(line: &[u8]) -> u32 {
    serde_json::from_slice(line).map_or(first(), |Version { format }| format)
}

/// Reads a file that is one JSON object.
pub(super) fn read<T: DeserializeOwned>(path: PathBuf) -> Result<T, Unreadable> {
    let bytes = match plain::read(&path, plain::LARGE) {
        Ok(bytes) => bytes,
        Err(source) => return Err(Unreadable::Io { path, source }),
    };
    let version = serde_json::from_slice(&bytes).map(|Version { format }| format);
    match version {
        Ok(found) if found > FORMAT => Err(Unreadable::TooNew { path, found }),
        Ok(_) => {
            serde_json::from_slice(&bytes).map_err(|source| Unreadable::Damaged { path, source })
        }
        Err(source) => Err(Unreadable::Damaged { path, source }),
    }
}
