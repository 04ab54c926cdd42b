//! Tensors of a model folder: read from its [`Checkpoint`] by name and shape
//! ([`read`]), and written beside copies of the other files ([`write_folder`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};
use tch::{Device, Kind, Tensor};

use super::checkpoint::{Checkpoint, CheckpointError, TensorInfo, some_of};
use super::config::CONFIG_FILE;
use super::json::{self, JsonError};

pub use super::checkpoint::WEIGHTS_FILE;

/// Tensors by their name in the checkpoint, ordered.
pub type Tensors = BTreeMap<String, Tensor>;
/// Shapes by name.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// What is copied from the input's folder to a trained model's.
const COMPANIONS: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
];

/// Weights that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be written as safetensors.
    #[error("{path}: {source}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// The files that are there are not a model's weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The configuration asks for tensors that are not there.
    #[error("{folder}: the configuration asks for tensors that the weights lack: {names}")]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The first of them, and how many more.
        names: String,
    },
    /// Tensors that the configuration does not ask for.
    #[error("{folder}: the weights hold tensors that the configuration does not ask for: {names}")]
    Extra {
        /// The folder.
        folder: PathBuf,
        /// The first of them, and how many more.
        names: String,
    },
    /// A tensor of another shape.
    #[error(
        "{path}: tensor `{name}` has the shape {found:?}; the configuration asks for {expected:?}"
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// In the file.
        found: Vec<i64>,
        /// By the configuration.
        expected: Vec<i64>,
    },
    /// A number format that is not read.
    #[error("{path}: tensor `{name}` is {dtype}; F32, BF16 and F16 are read")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its format.
        dtype: String,
    },
    /// libtorch refused.
    #[error("tensor `{name}`: {source}")]
    Torch {
        /// The tensor.
        name: String,
        /// Why.
        source: tch::TchError,
    },
}

impl From<WeightsError> for genius::protocol::Failure {
    fn from(e: WeightsError) -> Self {
        match e {
            WeightsError::Checkpoint(e) => e.into(),
            _ => Self::new(e.to_string()),
        }
    }
}

/// Reads the tensors of `expected` from a model folder as `kind` on `device`.
///
/// `ignored` decides which further names are allowed.
///
/// # Errors
/// Missing, further, wrongly shaped or quantised tensors, by name; damaged files.
#[cfg(test)]
pub fn read(
    folder: &Path,
    expected: &Shapes,
    ignored: impl Fn(&str) -> bool,
    device: Device,
    kind: Kind,
) -> Result<Tensors, WeightsError> {
    let checkpoint = Checkpoint::open(folder)?;
    check(&checkpoint, expected, ignored)?;
    read_from(&checkpoint, expected, device, kind)
}

/// Checks that a checkpoint has the tensors of `expected` and no others, but for
/// those whose names are `ignored`. Reads none of them.
///
/// # Errors
/// Missing, further, wrongly shaped or quantised tensors, by name.
pub fn check(
    checkpoint: &Checkpoint,
    expected: &Shapes,
    ignored: impl Fn(&str) -> bool,
) -> Result<(), WeightsError> {
    let mut extra = BTreeSet::new();
    for (name, info) in checkpoint.tensors() {
        match expected.get(name) {
            Some(shape) => check_tensor(checkpoint, name, info, shape)?,
            None if ignored(name) => {}
            None => {
                extra.insert(name.clone());
            }
        }
    }
    let missing: BTreeSet<_> = expected
        .keys()
        .filter(|name| !checkpoint.tensors().contains_key(*name))
        .cloned()
        .collect();
    let folder = checkpoint.folder();
    if !missing.is_empty() {
        return Err(WeightsError::Missing {
            folder: folder.into(),
            names: some_of(&missing),
        });
    }
    if !extra.is_empty() {
        return Err(WeightsError::Extra {
            folder: folder.into(),
            names: some_of(&extra),
        });
    }
    Ok(())
}

/// Checks shape and number format of one tensor.
///
/// # Errors
/// That it has others.
pub fn check_tensor(
    checkpoint: &Checkpoint,
    name: &str,
    info: &TensorInfo,
    shape: &[i64],
) -> Result<(), WeightsError> {
    let found: Vec<i64> = info
        .shape
        .iter()
        .map(|&n| i64::try_from(n).unwrap_or(i64::MAX))
        .collect();
    if found != shape {
        return Err(WeightsError::Shape {
            path: checkpoint.path_of(info),
            name: name.into(),
            found,
            expected: shape.to_vec(),
        });
    }
    match stored_kind(info.dtype) {
        Some(_) => Ok(()),
        None => Err(WeightsError::Dtype {
            path: checkpoint.path_of(info),
            name: name.into(),
            dtype: format!("{:?}", info.dtype),
        }),
    }
}

fn stored_kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F16 => Some(Kind::Half),
        _ => None,
    }
}

/// Reads the tensors of `expected` from a checkpoint that was checked to have them.
///
/// # Errors
/// Files that cannot be read, or were changed meanwhile.
pub fn read_from(
    checkpoint: &Checkpoint,
    expected: &Shapes,
    device: Device,
    kind: Kind,
) -> Result<Tensors, WeightsError> {
    let mut wanted: Vec<(&String, &TensorInfo)> = checkpoint
        .tensors()
        .iter()
        .filter(|(name, _)| expected.contains_key(*name))
        .collect();
    wanted.sort_by_key(|(_, info)| info.place());
    let mut tensors = Tensors::new();
    let mut buffer = Vec::new();
    for (name, info) in wanted {
        let shape = &expected[name];
        check_tensor(checkpoint, name, info, shape)?;
        checkpoint.read(info, &mut buffer)?;
        let stored = stored_kind(info.dtype).unwrap_or(Kind::Float);
        let tensor = Tensor::f_from_data_size(&buffer, shape, stored)
            .and_then(|t| t.f_to_device(device))
            .and_then(|t| t.f_to_kind(kind))
            .map_err(|source| WeightsError::Torch {
                name: name.clone(),
                source,
            })?;
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}

/// Writes a Hugging Face folder: `tensors` as `kind` in one safetensors file,
/// `config.json` of `source` with its number format set, and copies of the
/// tokenizer's and the generation's files.
///
/// # Errors
/// The file system's, with the file.
pub fn write_folder(
    source: &Path,
    target: &Path,
    tensors: &Tensors,
    kind: Kind,
) -> Result<(), WeightsError> {
    std::fs::create_dir_all(target).map_err(|e| WeightsError::Io {
        path: target.into(),
        source: e,
    })?;
    for name in COMPANIONS {
        let from = source.join(name);
        if from.is_file() {
            // Not `fs::copy`: it would copy the read-only mode of a cached file too.
            let bytes = std::fs::read(&from).map_err(|e| WeightsError::Io {
                path: from.clone(),
                source: e,
            })?;
            write_bytes(&target.join(name), &bytes)?;
        }
    }
    write_config(source, target, kind)?;
    write_tensors(&target.join(WEIGHTS_FILE), tensors, kind)
}

fn write_config(source: &Path, target: &Path, kind: Kind) -> Result<(), WeightsError> {
    let path = source.join(CONFIG_FILE);
    let mut map = json::read_object(&path, json::CONFIG_BYTES)?;
    let word = match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    };
    // transformers 5 writes `dtype`; every version reads `torch_dtype`.
    if map.contains_key("dtype") {
        map.insert("dtype".into(), word.into());
    }
    map.insert("torch_dtype".into(), word.into());
    let mut text =
        serde_json::to_string_pretty(&map).map_err(|source| JsonError::Parse { path, source })?;
    text.push('\n');
    write_bytes(&target.join(CONFIG_FILE), text.as_bytes())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    std::fs::write(path, bytes).map_err(|source| WeightsError::Io {
        path: path.into(),
        source,
    })
}

/// Writes `tensors` as `kind` into one safetensors file and syncs it. The same
/// tensors give the same bytes.
///
/// # Errors
/// The file system's, with the file.
pub fn write_tensors(path: &Path, tensors: &Tensors, kind: Kind) -> Result<(), WeightsError> {
    // Older transformers refuse a file without this.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views: Vec<(&str, Stored)> = tensors
        .iter()
        .map(|(name, t)| (name.as_str(), Stored::new(t, kind)))
        .collect();
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|source| {
        WeightsError::Safetensors {
            path: path.into(),
            source,
        }
    })?;
    let io = |source| WeightsError::Io {
        path: path.into(),
        source,
    };
    File::open(path).map_err(io)?.sync_all().map_err(io)
}

/// A tensor on its way into a file: converted only when its turn comes.
struct Stored<'a> {
    tensor: &'a Tensor,
    shape: Vec<usize>,
    kind: Kind,
}

impl<'a> Stored<'a> {
    fn new(tensor: &'a Tensor, kind: Kind) -> Self {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Self {
            tensor,
            shape,
            kind,
        }
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.kind {
            Kind::BFloat16 => Dtype::BF16,
            Kind::Half => Dtype::F16,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let flat = self
            .tensor
            .detach()
            .to_device(Device::Cpu)
            .to_kind(self.kind)
            .contiguous();
        let mut bytes = vec![0; self.data_len()];
        flat.copy_data_u8(&mut bytes, flat.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype().bitsize() / 8
    }
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
