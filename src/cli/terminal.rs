//! [`Terminal`]: stdout for data, stderr for status.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use super::{CliError, Environment};

/// The process's stdout and stderr.
#[derive(Debug)]
pub struct Terminal {
    color: bool,
    live: bool,
    data_color: bool,
    columns: Option<usize>,
    /// Why data could not be written, if it could not.
    lost: RefCell<Option<std::io::Error>>,
}

impl Terminal {
    /// Looks at where stdout and stderr go.
    pub fn new(environment: &Environment) -> Self {
        let terminal = std::io::stderr().is_terminal() && !environment.dumb;
        Self {
            color: terminal && !environment.no_color,
            live: terminal,
            data_color: std::io::stdout().is_terminal()
                && !environment.dumb
                && !environment.no_color,
            columns: environment.columns.or_else(columns_of_stdout),
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

    /// Whether data may have colour.
    pub fn data_color(&self) -> bool {
        self.data_color
    }

    /// Columns of the terminal that data goes to; `COLUMNS` comes first.
    pub fn columns(&self) -> Option<usize> {
        self.columns
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

/// How wide the terminal at stdout is; none where there is no terminal there, or
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
