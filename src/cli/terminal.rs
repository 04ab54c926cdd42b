//! [`Terminal`]: stdout for data, stderr for status.

use std::io::{IsTerminal, Write};

use super::{CliError, Environment};

/// The process's stdout and stderr.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    live: bool,
}

impl Terminal {
    /// Looks at where stderr goes.
    pub fn new(environment: &Environment) -> Self {
        let terminal = std::io::stderr().is_terminal() && !environment.dumb;
        Self {
            color: terminal && !environment.no_color,
            live: terminal,
        }
    }

    /// Whether status may have colour.
    pub fn color(&self) -> bool {
        self.color
    }

    /// Whether status may move.
    pub fn live(&self) -> bool {
        self.live
    }

    /// Text on stdout.
    pub fn data(&self, text: &str) {
        // A closed pipe (`genius ... | head`) is no reason to panic.
        let _ = std::io::stdout().write_all(text.as_bytes());
        let _ = std::io::stdout().flush();
    }

    /// Bytes on stdout; false when nobody reads there any more.
    pub fn bytes(&self, bytes: &[u8]) -> bool {
        let mut out = std::io::stdout();
        out.write_all(bytes).and_then(|()| out.flush()).is_ok()
    }

    /// Text on stderr.
    pub fn status(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// An error on stderr.
    pub fn error(&self, error: &CliError) {
        self.status(&error.render(self.color));
    }
}
