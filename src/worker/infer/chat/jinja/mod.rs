//! Jinja as Jinja2 renders it in Hugging Face transformers: [`Template`].
//!
//! A chat template is Python at heart: lists print as Python's, `%` formats,
//! `1.0` stays `1.0`, texts have `str`'s methods. So this is an interpreter over
//! Python's values. It knows Jinja2's `ImmutableSandboxedEnvironment` with
//! `trim_blocks`, `lstrip_blocks`, loop controls, and the `generation` tag,
//! `tojson`, `raise_exception` and `strftime_now` of transformers. What it does
//! not know it refuses. A rendering has a bound of steps, memory and depth: the
//! template comes with a downloaded model.

mod ast;
mod error;
mod filters;
mod format;
mod is;
mod json;
mod lexer;
mod machine;
mod methods;
mod number;
mod parser;
mod unicode;
mod value;

use std::sync::Arc;

pub(super) use error::Error;
use error::Result;
use machine::Machine;

use value::Value;

/// Formats the day for `strftime_now`.
pub(super) type Strftime = fn(&str) -> std::result::Result<String, String>;

/// Stack of a rendering: what [`machine`]'s bound of depth needs, with room.
const STACK_BYTES: usize = 64 << 20;

/// A template that was read.
#[derive(Debug, Clone)]
pub(super) struct Template {
    body: Arc<Vec<ast::Stmt>>,
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(source: &str) -> Result<Self> {
        let body = with_stack(|| parser::parse(source))?;
        Ok(Self {
            body: Arc::new(body),
        })
    }

    /// Its text with these variables.
    pub(super) fn render(
        &self,
        names: &serde_json::Map<String, serde_json::Value>,
        strftime: Strftime,
    ) -> Result<String> {
        with_stack(|| {
            let names = names
                .iter()
                .map(|(name, value)| Ok((name.as_str().into(), Value::from_json(value)?)))
                .collect::<Result<_>>()?;
            Machine::new(names, strftime).render(&self.body)
        })
    }
}

/// Runs `work` on a stack that is deep enough.
fn with_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("chat template".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|e| Error::new(format!("no thread to render in: {e}")))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod reference_tests;
