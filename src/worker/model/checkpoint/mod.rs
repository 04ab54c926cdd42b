//! [`Checkpoint`]: the weights of a model folder, each tensor in the one file
//! that it is read from. What imports a folder, trains a model and runs it goes
//! through here, so that all of them have the same weights.
//!
//! Headers are checked, and tensors are read and not mapped: a file that someone
//! cuts short meanwhile is an error, and not the end of the process.

mod error;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::json;
use layout::{Layout, Numbered};

pub use error::CheckpointError;
pub(super) use layout::{ADAPTER_CONFIG, is_adapter, some_of};

/// Single file of weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Index of a sharded set.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Bytes in front of a header: its length.
const LENGTH_BYTES: u64 = 8;
/// Longest header, bytes: the format's own bound.
const HEADER_BYTES: u64 = 100_000_000;
/// Bytes compared at once.
const PIECE: usize = 1 << 20;

/// The weights of a folder, opened.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, TensorInfo>,
    strays: Vec<String>,
}

/// A file of weights.
#[derive(Debug)]
pub struct WeightFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    file: File,
}

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its number format.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Which of the files.
    pub file: usize,
    /// First byte in the file.
    start: u64,
    /// Bytes in the file.
    bytes: usize,
}

impl TensorInfo {
    /// Where it lies, for reading in order.
    pub fn place(&self) -> (usize, u64) {
        (self.file, self.start)
    }

    /// Number of values; the header's check has multiplied them before.
    fn values(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

impl Checkpoint {
    /// Decides which files are the weights, and checks their headers against their
    /// sizes, the index and one another.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let layout = Layout::find(folder)?;
        let mut checkpoint = Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            strays: layout.strays,
        };
        for name in layout.files {
            checkpoint.add(name, layout.index.as_ref())?;
        }
        for (tensor, file) in layout.index.iter().flatten() {
            if !checkpoint.tensors.contains_key(tensor) {
                return Err(CheckpointError::MissingTensor {
                    path: folder.join(INDEX_FILE),
                    file: file.clone(),
                    tensor: tensor.clone(),
                });
            }
        }
        Ok(checkpoint)
    }

    fn add(
        &mut self,
        name: String,
        index: Option<&BTreeMap<String, String>>,
    ) -> Result<(), CheckpointError> {
        let path = self.folder.join(&name);
        let (file, bytes, metadata, data) = read_header(&path)?;
        // In order, so that the same folder gives the same message.
        let named: BTreeMap<String, _> = metadata.tensors().into_iter().collect();
        for (tensor, info) in named {
            let named = index.map(|index| index.get(&tensor));
            let twice = |other: &str| CheckpointError::Twice {
                folder: self.folder.clone(),
                tensor: tensor.clone(),
                first: other.to_owned(),
                second: name.clone(),
            };
            match named {
                Some(Some(file)) if *file != name => return Err(twice(file)),
                Some(None) if !is_unread(&tensor) => {
                    return Err(CheckpointError::Unnamed { path, tensor });
                }
                _ => {}
            }
            let place = TensorInfo {
                dtype: info.dtype,
                shape: info.shape.clone(),
                file: self.files.len(),
                start: data + info.data_offsets.0 as u64,
                bytes: info.data_offsets.1 - info.data_offsets.0,
            };
            if let Some(other) = self.tensors.get(&tensor) {
                return Err(twice(&self.files[other.file].name));
            }
            self.tensors.insert(tensor, place);
        }
        self.files.push(WeightFile { name, bytes, file });
        Ok(())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files, in order of their names.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// Other *.safetensors in the folder, which are not read.
    pub fn strays(&self) -> &[String] {
        &self.strays
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Path of the file that holds a tensor.
    pub fn path_of(&self, info: &TensorInfo) -> PathBuf {
        self.folder.join(&self.files[info.file].name)
    }

    /// Number of values of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(TensorInfo::values).sum()
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.values().map(|info| info.bytes as u64).sum()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads a tensor's bytes into `buffer`, in place of what is in it.
    ///
    /// # Errors
    /// The file system's, with the file.
    pub fn read(&self, info: &TensorInfo, buffer: &mut Vec<u8>) -> Result<(), CheckpointError> {
        buffer.resize(info.bytes, 0);
        self.read_at(info, 0, buffer)
    }

    fn read_at(
        &self,
        info: &TensorInfo,
        from: usize,
        buffer: &mut [u8],
    ) -> Result<(), CheckpointError> {
        self.files[info.file]
            .file
            .read_exact_at(buffer, info.start + from as u64)
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::UnexpectedEof => CheckpointError::Damaged {
                    path: self.path_of(info),
                    what: "it was cut short while it was read".into(),
                },
                _ => CheckpointError::Io {
                    path: self.path_of(info),
                    source,
                },
            })
    }

    /// Whether two tensors are the same: format, shape and every byte.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn same(&self, a: &TensorInfo, b: &TensorInfo) -> Result<bool, CheckpointError> {
        if (a.dtype, &a.shape) != (b.dtype, &b.shape) {
            return Ok(false);
        }
        let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
        for from in (0..a.bytes).step_by(PIECE) {
            let length = PIECE.min(a.bytes - from);
            self.read_at(a, from, &mut left[..length])?;
            self.read_at(b, from, &mut right[..length])?;
            if left[..length] != right[..length] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The names that every reader knows: model.safetensors for a single file, else
    /// model-00001-of-0000n.safetensors; in the order of the files.
    pub fn plain_names(&self) -> Vec<String> {
        let count = self.files.len();
        if count == 1 {
            return vec![WEIGHTS_FILE.to_owned()];
        }
        (1..=count)
            .map(|number| format!("model-{number:05}-of-{count:05}.safetensors"))
            .collect()
    }

    /// Refuses a folder in which mistral.rs would find other weights: it reads no
    /// index, but every file whose name fits.
    ///
    /// # Errors
    /// Names the file.
    pub fn check_for_mistralrs(&self) -> Result<(), CheckpointError> {
        let other = |file: &str, what| CheckpointError::OtherName {
            folder: self.folder.clone(),
            file: file.to_owned(),
            what,
        };
        for file in &self.files {
            if file.name != WEIGHTS_FILE && Numbered::parse(&file.name).is_none() {
                return Err(other(&file.name, "not a name that it looks for"));
            }
        }
        match self.strays.iter().find(|name| {
            ["model.safetensors", "consolidated.safetensors"]
                .iter()
                .any(|end| name.ends_with(end))
                || name.contains("model-") && name.contains("-of-")
        }) {
            Some(stray) => Err(other(stray, "not of the model")),
            None => Ok(()),
        }
    }
}

/// Tensors that no model here reads: old checkpoints store the rotary
/// frequencies, which follow from the configuration.
pub fn is_unread(tensor: &str) -> bool {
    tensor.ends_with("rotary_emb.inv_freq")
}

/// The file, its size, its header, and where the data begin.
fn read_header(path: &Path) -> Result<(File, u64, Metadata, u64), CheckpointError> {
    let io = |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    };
    let damaged = |what: String| CheckpointError::Damaged {
        path: path.to_owned(),
        what,
    };
    let file = json::open_plain(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let mut length = [0; LENGTH_BYTES as usize];
    if bytes < LENGTH_BYTES {
        return Err(damaged(format!("it has {bytes} bytes")));
    }
    if json::begins_as_pointer(&file).map_err(io)? {
        return Err(json::JsonError::Pointer {
            path: path.to_owned(),
        }
        .into());
    }
    file.read_exact_at(&mut length, 0).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES || length > bytes - LENGTH_BYTES {
        return Err(damaged(format!(
            "its header would have {length} bytes, and the file has {bytes}"
        )));
    }
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io)?;
    // The parser of the format lets a name that is given twice pass.
    json::parse(&header).map_err(|e| damaged(format!("its header: {e}")))?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| damaged(format!("its header: {e}")))?;
    let data = LENGTH_BYTES + length;
    let promised = data.checked_add(metadata.data_len() as u64);
    if promised != Some(bytes) {
        return Err(damaged(match promised {
            Some(promised) if promised > bytes => {
                format!("it is cut short: its header promises {promised} bytes, it has {bytes}")
            }
            _ => format!("it has {bytes} bytes, more than its header declares"),
        }));
    }
    Ok((file, bytes, metadata, data))
}
