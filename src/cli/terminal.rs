//! [`Terminal`]: stdout for data, stderr for status.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use super::{CliError, Environment};

/// The process's stdout and stderr.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    live: bool,
    /// Why data could not be written, if it could not.
    lost: RefCell<Option<std::io::Error>>,
}

impl Terminal {
    /// Looks at where stderr goes.
    pub fn new(environment: &Environment) -> Self {
        let terminal = std::io::stderr().is_terminal() && !environment.dumb;
        Self {
            color: terminal && !environment.no_color,
            live: terminal,
            lost: RefCell::new(None),
        }
    }

    /// Why data could not be written, if that is somebody's loss: a reader that
    /// went away (`genius ... | head`) has what it wanted.
    pub fn lost(&self) -> Option<std::io::Error> {
        self.lost
            .take()
            .filter(|e| e.kind() != std::io::ErrorKind::BrokenPipe)
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
        self.bytes(text.as_bytes());
    }

    /// Bytes on stdout; false when nobody reads there any more.
    pub fn bytes(&self, bytes: &[u8]) -> bool {
        let mut out = std::io::stdout();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => true,
            Err(e) => {
                self.lost.borrow_mut().get_or_insert(e);
                false
            }
        }
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
