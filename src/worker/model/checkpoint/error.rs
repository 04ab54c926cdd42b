//! [`CheckpointError`]: why the weights of a folder are not taken.

use std::path::PathBuf;

use genius::protocol::Failure;

use super::{INDEX_FILE, WEIGHTS_FILE};
use crate::model::json::JsonError;

/// Weights that are not taken, and where.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The index is not JSON, or too large.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The index is JSON of another form.
    #[error("{path}: {key}: {what}")]
    Index {
        /// The index.
        path: PathBuf,
        /// Where in it.
        key: String,
        /// What is wrong there.
        what: String,
    },
    /// The index names a file outside its folder.
    #[error("{path}: names the file `{file}`, which is not in its folder")]
    Outside {
        /// The index.
        path: PathBuf,
        /// What it names.
        file: String,
    },
    /// The index names a file that is not there.
    #[error("{path} names {file}, which is not there")]
    MissingFile {
        /// The index.
        path: PathBuf,
        /// What it names.
        file: String,
    },
    /// The index names a tensor that its file lacks.
    #[error("{path} lists the tensor `{tensor}` in {file}, which does not have it")]
    MissingTensor {
        /// The index.
        path: PathBuf,
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// A file of the index holds a tensor that the index does not name.
    #[error("{path} holds the tensor `{tensor}`, which {INDEX_FILE} does not name")]
    Unnamed {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Two files hold a tensor of one name.
    #[error("{folder}: both {first} and {second} hold the tensor `{tensor}`")]
    Twice {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// A file.
        first: String,
        /// Another one.
        second: String,
    },
    /// No weights at all.
    #[error("{folder} holds no *.safetensors")]
    None {
        /// The folder.
        folder: PathBuf,
        /// A GGUF file in it.
        gguf: Option<String>,
    },
    /// Weights under names that have no meaning here.
    #[error(
        "{folder} holds neither {WEIGHTS_FILE} nor {INDEX_FILE} nor files \
         model-00001-of-0000N.safetensors, but {found}"
    )]
    Unknown {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        found: String,
    },
    /// Two sets of weights.
    #[error("{folder} holds two sets of weights: {first} and {second}")]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A set of numbered files with a gap.
    #[error("{folder} holds {present}, and {missing} is not there")]
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// A file of the set.
        present: String,
        /// One that is not there.
        missing: String,
    },
    /// Weights of a LoRA adapter, not of a model.
    #[error("{folder} holds {file}: it is an adapter (LoRA), not a whole model")]
    Adapter {
        /// The folder.
        folder: PathBuf,
        /// What shows it.
        file: String,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Files that mistral.rs would not see, or see beside the weights.
    #[error("{folder}: {file} is {what}, so that mistral.rs would load other weights")]
    OtherName {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: String,
        /// What about it.
        what: &'static str,
    },
}

impl CheckpointError {
    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::MissingFile { .. } | Self::Incomplete { .. } => {
                "the folder is incomplete: fetch it again"
            }
            Self::Damaged { .. } => "the file may be cut short: fetch it again",
            Self::None {
                gguf: Some(file), ..
            } => {
                return Some(format!(
                    "it holds {file}: give `source.path` that file to convert it"
                ));
            }
            Self::None { .. } => {
                "weights in other formats (*.bin, *.pt) are not read: save the model with safetensors"
            }
            Self::Unknown { .. } => {
                "if one of them is the whole model with Hugging Face's names of tensors, rename it \
                 to model.safetensors; files in the original layout (consolidated.*) are not read"
            }
            Self::Ambiguous { .. } => {
                "remove the one that is not meant, or move it to another folder"
            }
            Self::Adapter { .. } => {
                "merge it into its base model first (peft: `model.merge_and_unload().save_pretrained(folder)`), \
                 and give that folder; if the weights here are merged already, remove the adapter's files"
            }
            Self::MissingTensor { .. } | Self::Unnamed { .. } | Self::Twice { .. } => {
                "index and files do not belong together: fetch the folder again, or save the model \
                 anew with `save_pretrained`"
            }
            Self::OtherName { .. } => {
                "name the files model-00001-of-0000N.safetensors, and leave no others beside them; \
                 a `model` stage does that"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<CheckpointError> for Failure {
    fn from(e: CheckpointError) -> Self {
        let failure = Self::new(e.to_string());
        match e.remedy() {
            Some(remedy) => failure.hint(remedy),
            None => failure,
        }
    }
}
