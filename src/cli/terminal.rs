//! [`Terminal`]: stdout for data, stderr for status. Nothing else in the library
//! writes to either, and control characters are escaped:
//! see [`crate::text`].

#![expect(
    clippy::disallowed_methods,
    reason = "the one place that may write to stdout and stderr"
)]

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::{CliError, Environment};
use crate::text::{self, Escaper, Text};

/// The process's stdout and stderr.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    live: bool,
    data_color: bool,
    columns: Option<usize>,
    /// If stdout is a terminal: bytes to be shown there.
    escaper: Option<RefCell<Escaper>>,
    /// Why data could not be written, if it could not.
    lost: RefCell<Option<std::io::Error>>,
}

impl Terminal {
    /// Looks at where stdout and stderr go.
    pub fn new(environment: &Environment) -> Self {
        let live = std::io::stderr().is_terminal() && !environment.dumb;
        let data = std::io::stdout().is_terminal();
        Self {
            color: live && !environment.no_color,
            live,
            data_color: data && !environment.dumb && !environment.no_color,
            columns: environment.columns.or_else(columns_of_stdout),
            escaper: data.then(RefCell::default),
            lost: RefCell::new(None),
        }
    }

    /// Why data could not be written, if that matters: a reader that has gone
    /// (`genius ... | head`) has what it wanted.
    pub fn lost(&self) -> Option<std::io::Error> {
        self.flush_bytes();
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

    /// Columns of the terminal that data goes to; `COLUMNS` comes first.
    pub fn columns(&self) -> Option<usize> {
        self.columns
    }

    /// Text on stdout; false when the reader has gone.
    pub fn data(&self, text: impl Into<Text>) -> bool {
        self.flush_bytes();
        self.write(text.into().render(self.data_color).as_bytes())
    }

    /// A value as one line of JSON on stdout; false when the reader has gone.
    pub fn json(&self, value: &impl Serialize) -> bool {
        let text = serde_json::to_string(value).unwrap_or_default();
        self.write(format!("{}\n", text::json(&text)).as_bytes())
    }

    /// A value as JSON of many lines on stdout.
    pub fn pretty_json(&self, value: &serde_json::Value) -> bool {
        let text = format!("{value:#}");
        self.write(format!("{}\n", text::json(&text)).as_bytes())
    }

    /// Bytes on stdout: unchanged in a pipe or a file, escaped on a terminal. False when
    /// the reader has gone.
    pub fn bytes(&self, bytes: &[u8]) -> bool {
        match &self.escaper {
            Some(escaper) => {
                let text = escaper.borrow_mut().push(bytes);
                self.write(text.as_bytes())
            }
            None => self.write(bytes),
        }
    }

    /// Writes what [`bytes`](Self::bytes) held back: the beginning of a character.
    fn flush_bytes(&self) {
        if let Some(escaper) = &self.escaper {
            let rest = escaper.borrow_mut().finish();
            if !rest.is_empty() {
                self.write(rest.as_bytes());
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> bool {
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
    pub fn status(&self, text: impl Into<Text>) {
        let text = text.into().render(self.color);
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// A line on stderr.
    pub fn line(&self, text: &Text) {
        let text = text.render(self.color);
        // A reader that has gone does not stop a run.
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    }

    /// An error on stderr.
    pub fn error(&self, error: &CliError) {
        self.status(error.text());
    }
}

/// The width of the terminal at stdout; `None` if there is none, or
/// where it does not know.
fn columns_of_stdout() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a `winsize` to where the pointer shows, and `size`
    // lives through the call.
    let failed = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (failed == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}
