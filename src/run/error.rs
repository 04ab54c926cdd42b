//! [`RunError`]: a name that matches no run or several, or a run that cannot be read.

use std::path::PathBuf;

use super::Unreadable;
use crate::store::StoreError;
use crate::text::suggest;

/// Why a run, or something in it, cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cache holds no run.
    #[error("there is no run yet in the cache {root}")]
    None {
        /// The cache.
        root: PathBuf,
    },
    /// No run's id begins with the name.
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
    /// The run has no stage of that name.
    #[error("run {run_id} has no stage `{stage}`")]
    NoStage {
        /// The run.
        run_id: String,
        /// As written.
        stage: String,
        /// The stages it has.
        known: Vec<String>,
    },
    /// The stage ran, but its log is missing.
    #[error("the log of stage `{stage}` of run {run_id} is missing: {path}")]
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
    /// A newer Genius wrote it.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A log of a run cannot be read.
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
            Self::NoStage { stage, known, .. } => suggest(stage, known.iter().map(String::as_str))?,
            Self::NoLog { run_id, .. } => format!(
                "it was removed or could not be written; `genius status {run_id}` shows how the stage ended"
            ),
            Self::Unreadable(e) if e.is_too_new() => {
                "use the version of Genius that wrote it, or a newer one".to_owned()
            }
            Self::Io { .. } | Self::Store(_) | Self::Unreadable(_) => return None,
        })
    }

    /// Whether the cause is the machine rather than the command line.
    pub fn is_of_machine(&self) -> bool {
        matches!(
            self,
            Self::NoLog { .. } | Self::Io { .. } | Self::Store(_) | Self::Unreadable(_)
        )
    }
}
