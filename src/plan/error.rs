//! [`PlanError`]: why no plan can be made.

use std::path::PathBuf;

use crate::protocol::{CapabilitiesError, DeviceKind};
use crate::store::StoreError;

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file or folder that a stage names cannot be read.
    #[error("{source}")]
    Path {
        /// The file or folder, absolute.
        path: PathBuf,
        /// Why.
        source: Box<StoreError>,
    },
    /// The commit of a hub revision is unknown.
    #[error("cannot determine which commit `{revision}` of {repo} is: {reason}")]
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch or tag.
        revision: String,
        /// The error of the hub or the network.
        reason: String,
        /// A commit that an earlier download left in the hub's cache folder.
        last_known: Option<String>,
    },
    /// A device that the machine lacks.
    #[error("device `{device}` was requested, but genius-worker can use {count} {} devices", kind.word())]
    NoDevice {
        /// As requested.
        device: String,
        /// Its kind.
        kind: DeviceKind,
        /// How many of that kind there are.
        count: usize,
    },
    /// It is not known what the machine's worker computes with.
    #[error(transparent)]
    Machine(#[from] CapabilitiesError),
    /// Not the name of a device.
    #[error("`{0}` is not a device: use auto, cpu, cuda, cuda:N or metal")]
    UnknownDevice(String),
    /// Something that the engine cannot do on the device.
    #[error("{what} is not available: use {instead}")]
    Unsupported {
        /// What was requested.
        what: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// A name on the command line that no stage has.
    #[error("there is no stage `{name}`")]
    NoStage {
        /// As written.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A name on the command line that no variant has.
    #[error("there is no variant `{name}`")]
    NoVariant {
        /// As written.
        name: String,
        /// What there is, apart from `base`.
        known: Vec<String>,
    },
    /// A stage that needs more than the run has.
    #[error("it needs {asked} {what}, but the run has {there}")]
    TooMuch {
        /// `cores`, `gpu`, `memory_gb`.
        what: &'static str,
        /// What it needs.
        asked: f64,
        /// What the run has.
        there: f64,
    },
    /// One of the above, with the stage and parameter where it happened.
    #[error("stage `{stage}`{}: {source}", .at.as_ref().map(|at| format!(", {at}")).unwrap_or_default())]
    InStage {
        /// Name in the pipeline.
        stage: String,
        /// Line of the stage in the file, from 1.
        line: usize,
        /// The parameter (`with.source.path`), if it is about one.
        at: Option<String>,
        /// What happened.
        source: Box<PlanError>,
    },
}

impl PlanError {
    /// What to do about it, if known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InStage { source, .. } => source.hint(),
            Self::Path { source, .. } => match &**source {
                StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    Some("paths are relative to the folder of the pipeline file".to_owned())
                }
                _ => None,
            },
            Self::Hub {
                repo,
                last_known: Some(commit),
                ..
            } => Some(format!(
                "with the commit no network is needed: the copy of {repo} on this machine is `revision: {commit}`"
            )),
            Self::Hub { .. } => Some(
                "check the repository's name and the network; a private one needs HF_TOKEN; \
                 a full commit as `revision` needs no network here"
                    .to_owned(),
            ),
            Self::NoStage { name, known } if name.contains('@') => {
                let variant = name.split('@').nth(1).unwrap_or_default();
                Some(format!(
                    "`--variant {variant}` selects that variant; the stages here are {}",
                    known.join(", ")
                ))
            }
            Self::NoStage { known, .. } => Some(format!("the stages are {}", known.join(", "))),
            Self::NoVariant { known, .. } if known.is_empty() => {
                Some("the pipeline has no `variants:`".to_owned())
            }
            Self::NoVariant { known, .. } => {
                Some(format!("the variants are base, {}", known.join(", ")))
            }
            Self::TooMuch { what, .. } => Some(format!(
                "lower the stage's `resources`, or give the run more: `--resources {what}=N`"
            )),
            Self::Machine(e) => Some(e.hint().to_owned()),
            Self::NoDevice { .. } => Some("`--device auto` uses what is available".to_owned()),
            _ => None,
        }
    }

    /// Whether the machine or the network is the cause rather than the pipeline.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::InStage { source, .. } => source.is_of_machine(),
            Self::Hub { .. } | Self::NoDevice { .. } | Self::Machine(_) => true,
            _ => false,
        }
    }

    /// The stage it is about: name and line in the file.
    pub fn stage(&self) -> Option<(&str, usize)> {
        match self {
            Self::InStage { stage, line, .. } => Some((stage, *line)),
            _ => None,
        }
    }
}
