//! Whether later stages can use a model folder, found out where the user knows
//! its path: [`check`].
//!
//! A later stage reads a copy in the cache, and its messages name that. So the
//! same code reads the user's own files here first.

use std::path::Path;

use genius::protocol::{Failure, Level};
use genius::stage::Context;

use super::config::{Config, ConfigError};
use super::folder;
use crate::infer::chat::ChatTemplate;
use crate::infer::token_bytes::TokenBytes;

/// Reads every small file of a folder as later stages will. Warns of what only
/// some of them need: an end token, a chat template, an architecture of the native engine's.
///
/// # Errors
/// A file that no stage can read, by its path.
pub fn check(context: &Context, folder: &Path) -> Result<(), Failure> {
    folder::read_small_files(folder)?;
    let warn = |text: String| context.log(Level::Warn, text);
    if let Err(e @ ConfigError::Unsupported { .. }) = Config::load(folder) {
        warn(format!(
            "{e}; neither `engine: native` nor `train` can use the model"
        ));
    }
    if let Some(e) = TokenBytes::check(folder)? {
        warn(format!(
            "{e}; without an end token no engine takes the model"
        ));
    }
    if let Some(e) = ChatTemplate::check(folder)? {
        warn(format!(
            "{e}; without a chat template no stage can prompt the model"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "usable_tests.rs"]
mod tests;
