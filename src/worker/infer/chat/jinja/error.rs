//! Why a template does not render: [`Error`].

/// Why a template cannot be read or rendered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}{message}", line.map_or_else(String::new, |n| format!("line {n}: ")))]
pub(crate) struct Error {
    /// Line of the template, where known.
    pub(super) line: Option<usize>,
    /// What happened.
    pub(super) message: String,
    /// Whether Jinja2 would render what is refused here.
    pub(super) unsupported: bool,
}

impl Error {
    /// What Jinja2 refuses too.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            line: None,
            message: message.into(),
            unsupported: false,
        }
    }

    /// What Jinja2 can do and this interpreter cannot.
    pub(super) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self {
            line: None,
            message: format!("{what} is not supported; rewrite that part of the template"),
            unsupported: true,
        }
    }

    /// The same with a line, if it has none yet.
    pub(super) fn at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

/// A value, or why there is none.
pub(super) type Result<T> = std::result::Result<T, Error>;
