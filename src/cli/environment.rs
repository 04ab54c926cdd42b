//! [`Environment`]: everything that is read from the process's environment, once, and
//! passed on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::announcement;
use crate::plan::{Machine, SystemResolver};
use crate::processor;
use crate::protocol::find_program;
use crate::store::{HashMemory, Times};
use crate::user_folders::UserFolders;

/// What the process was started with.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `GENIUS_CACHE`.
    pub cache: Option<PathBuf>,
    /// `GENIUS_WORKER`.
    pub worker: Option<PathBuf>,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `TERM=dumb`.
    pub dumb: bool,
    /// `COLUMNS`.
    pub columns: Option<usize>,
    /// `HF_TOKEN`.
    pub hf_token: Option<String>,
    /// `HF_ENDPOINT`.
    pub hf_endpoint: Option<String>,
    /// This program.
    pub program: PathBuf,
    /// The command line as it was typed, quoted where need be.
    pub command_line: String,
    /// Where downloads, trusts and the hub's token of this user are.
    pub folders: UserFolders,
    /// `GENIUS_LEASE_SECS`: a run without a heartbeat for so long is dead.
    pub lease_secs: Option<f64>,
    /// Every variable, for commands that inherit some.
    pub variables: BTreeMap<String, String>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn from_process() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let text = |name: &str| var(name).and_then(|v| v.into_string().ok());
        let path = |name: &str| var(name).map(PathBuf::from);
        Self {
            cache: path("GENIUS_CACHE"),
            // A name that PATH does not have is an error when it is started.
            worker: path("GENIUS_WORKER")
                .map(|name| find_program(&name, var("PATH").as_deref()).unwrap_or(name)),
            no_color: var("NO_COLOR").is_some(),
            dumb: var("TERM").is_some_and(|t| t == "dumb"),
            columns: text("COLUMNS")
                .and_then(|t| t.parse().ok())
                .filter(|columns| *columns > 0),
            hf_token: text("HF_TOKEN"),
            hf_endpoint: text("HF_ENDPOINT"),
            program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("genius")),
            command_line: command_line(std::env::args_os()),
            folders: UserFolders::from_lookup(|name| std::env::var_os(name)),
            lease_secs: text("GENIUS_LEASE_SECS")
                .and_then(|t| t.parse().ok())
                .filter(|secs| (0.1..=86_400.0).contains(secs)),
            variables: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        }
    }

    /// What planning needs from files, the network and the environment. With `memory`, files
    /// that did not change since are not read again.
    pub fn resolver(&self, memory: Option<Arc<HashMemory>>) -> SystemResolver {
        SystemResolver {
            hub_endpoint: self.hf_endpoint.clone(),
            hub_token: self.hf_token.clone(),
            hub_cache: self.folders.hugging_face.as_ref().map(|f| f.join("hub")),
            variables: self.variables.clone(),
            memory,
        }
    }

    /// The times that distinguish live runs of a cache from dead ones.
    pub fn times(&self) -> Times {
        match self.lease_secs {
            Some(secs) => Times {
                beat: Duration::from_secs_f64(secs / 10.0),
                stale: Duration::from_secs_f64(secs),
            },
            None => Times::default(),
        }
    }

    /// The worker program: named, or beside this one.
    pub fn worker_program(&self) -> PathBuf {
        self.worker.clone().unwrap_or_else(|| {
            let folder = self.program.parent().unwrap_or(Path::new("."));
            folder.join(format!("genius-worker{}", std::env::consts::EXE_SUFFIX))
        })
    }

    /// This machine, whose worker program is asked what it computes with.
    pub fn machine(&self) -> Machine<'_> {
        Machine::new(processor::cores(), processor::memory_bytes(), || {
            let kept = self
                .folders
                .genius
                .as_ref()
                .map(|home| home.join("workers"));
            announcement::ask_once(&self.worker_program(), kept.as_deref(), &self.variables)
        })
    }
}

/// The name of this machine, for provenance.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

/// Arguments as a shell would take them back.
pub fn command_line(args: impl Iterator<Item = OsString>) -> String {
    args.map(|arg| {
        let arg = arg.to_string_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', "'\\''"))
        }
    })
    .collect::<Vec<_>>()
    .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_back() {
        let args = ["genius", "run", "my file.yaml", "--set", "a=it's"].map(OsString::from);
        assert_eq!(
            command_line(args.into_iter()),
            r"genius run 'my file.yaml' --set 'a=it'\''s'"
        );
    }
}
