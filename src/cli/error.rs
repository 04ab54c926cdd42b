//! [`CliError`]: every error as kind, message and hint, with its exit code.

use std::path::PathBuf;

use super::diff::KeyError;
use super::lookup::LookupError;
use super::out::OutError;
use super::show::ShowError;
use super::trust::{KeepError, Untrusted};
use crate::plan::PlanError;
use crate::run::RunError;
use crate::spec::{LoadError, OverrideError};
use crate::store::StoreError;
use crate::text::Text;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The pipeline file is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A `--set` is wrong.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// The pipeline cannot be planned on this machine.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The cache failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A command needs a cache, and there is none.
    #[error("there is no cache at {root}")]
    NoCache {
        /// Where it was looked for.
        root: PathBuf,
    },
    /// A run, or a part of it, does not exist.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A stage's result is not available.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// An output cannot be copied or linked.
    #[error(transparent)]
    Out(#[from] OutError),
    /// The rollouts of a query cannot be shown.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// The pipeline runs programs, and it is not trusted yet.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Trusts cannot be stored, or are not valid.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A file that would be overwritten.
    #[error("{path} already exists")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key that cannot be found.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another system error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CliError {
    /// As documented in the help.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Override(_)
            | Self::Key(_)
            | Self::Plan(
                PlanError::UnknownDevice(_)
                | PlanError::NoStage { .. }
                | PlanError::NoVariant { .. },
            ) => 2,
            Self::Plan(e) if e.is_of_machine() => 4,
            Self::Run(e) => 2 + 2 * u8::from(e.is_of_machine()),
            Self::Lookup(e) => e.exit_code(),
            Self::Show(e) => e.exit_code(),
            Self::Untrusted(_) => 3,
            Self::Load(LoadError::Invalid(_)) | Self::Plan(_) => 3,
            Self::Load(LoadError::Io { .. })
            | Self::Store(_)
            | Self::NoCache { .. }
            | Self::Keep(_)
            | Self::Out(_)
            | Self::Io { .. }
            | Self::Exists { .. } => 4,
        }
    }

    /// The whole text, safe to show.
    pub fn render(&self, color: bool) -> String {
        self.text().render(color)
    }

    /// The whole text.
    pub fn text(&self) -> Text {
        match self {
            Self::Load(LoadError::Invalid(diagnostics)) => diagnostics.text(),
            Self::Plan(e) => with_hint(&e.to_string(), e.hint().as_deref()),
            Self::Store(e) => with_hint(
                &e.to_string(),
                Some("`--cache DIR` or GENIUS_CACHE puts the cache elsewhere"),
            ),
            Self::NoCache { .. } => with_hint(
                &self.to_string(),
                Some("`genius run` makes one; `--cache DIR` or GENIUS_CACHE names another"),
            ),
            Self::Run(e) => with_hint(&e.to_string(), e.hint().as_deref()),
            Self::Lookup(e) => with_hint(&e.to_string(), Some(&e.hint())),
            Self::Out(e) => with_hint(&e.to_string(), Some(e.hint())),
            Self::Show(e) => with_hint(&e.to_string(), Some(&e.hint())),
            Self::Untrusted(e) => with_hint(&e.to_string(), Some(&e.hint())),
            Self::Keep(e) => with_hint(&e.to_string(), Some(&e.hint())),
            Self::Exists { .. } => with_hint(
                &self.to_string(),
                Some("`--force` overwrites it; or name another file"),
            ),
            Self::Key(e) => with_hint(&e.to_string(), Some(e.hint())),
            other => with_hint(&other.to_string(), None),
        }
    }
}

fn with_hint(message: &str, hint: Option<&str>) -> Text {
    Text::from(match hint {
        Some(hint) => format!("error: {message}\n  = help: {hint}\n"),
        None => format!("error: {message}\n"),
    })
}
