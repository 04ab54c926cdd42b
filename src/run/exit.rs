//! [`Exit`]: how a process ended.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// Name of the signal that ended it, if one did.
    pub signal: Option<String>,
}

impl Exit {
    /// Whether it succeeded.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal().map(|number| {
            Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string())
        });
        Self {
            code: status.code(),
            signal,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.signal, self.code) {
            (Some(signal), _) => f.write_str(signal),
            (None, Some(code)) => write!(f, "exit code {code}"),
            (None, None) => f.write_str("no exit code"),
        }
    }
}
