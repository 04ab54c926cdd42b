//! Weights of a model folder: safetensors, one file or a sharded set with its
//! index, read by name and shape ([`read`]) and written beside copies of the
//! other files ([`write_folder`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::config::CONFIG_FILE;

/// Single file of weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Index of a sharded set.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

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
    /// No safetensors in the folder.
    #[error("{folder}: holds neither {WEIGHTS_FILE} nor {INDEX_FILE}")]
    None {
        /// The folder.
        folder: PathBuf,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{path}: {source}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// Not the JSON that it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An index that names a file outside its folder.
    #[error("{path}: names the file `{file}`, which is not in its folder")]
    Outside {
        /// The index.
        path: PathBuf,
        /// What it names.
        file: String,
    },
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
        Self::new(e.to_string())
    }
}

/// Reads the tensors of `expected` from a model folder as `kind` on `device`.
///
/// `ignored` says which further names may be there. The files are mapped, so
/// one tensor at a time is copied.
///
/// # Errors
/// Missing, further, wrongly shaped or quantised tensors, by name; damaged files.
pub fn read(
    folder: &Path,
    expected: &Shapes,
    ignored: impl Fn(&str) -> bool,
    device: Device,
    kind: Kind,
) -> Result<Tensors, WeightsError> {
    let mut tensors = Tensors::new();
    let mut extra = BTreeSet::new();
    for path in files(folder)? {
        let io = |source| WeightsError::Io {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(io)?;
        // SAFETY: the map is read-only and dropped here. A file that another process
        // shortens meanwhile would fault; artifacts are never changed in place.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        let parsed =
            SafeTensors::deserialize(&map).map_err(|source| WeightsError::Safetensors {
                path: path.clone(),
                source,
            })?;
        for (name, view) in parsed.iter() {
            let Some(shape) = expected.get(name) else {
                if !ignored(name) {
                    extra.insert(name.to_owned());
                }
                continue;
            };
            let found: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            if found != *shape {
                return Err(WeightsError::Shape {
                    path,
                    name: name.into(),
                    found,
                    expected: shape.clone(),
                });
            }
            let stored = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::BF16 => Kind::BFloat16,
                Dtype::F16 => Kind::Half,
                other => {
                    return Err(WeightsError::Dtype {
                        path,
                        name: name.into(),
                        dtype: format!("{other:?}"),
                    });
                }
            };
            let tensor = Tensor::f_from_data_size(view.data(), &found, stored)
                .and_then(|t| t.f_to_device(device))
                .and_then(|t| t.f_to_kind(kind))
                .map_err(|source| WeightsError::Torch {
                    name: name.into(),
                    source,
                })?;
            tensors.insert(name.to_owned(), tensor);
        }
    }
    let missing: BTreeSet<_> = expected
        .keys()
        .filter(|n| !tensors.contains_key(*n))
        .cloned()
        .collect();
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
    Ok(tensors)
}

/// The weight files of a folder, each once.
fn files(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let single = folder.join(WEIGHTS_FILE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let path = folder.join(INDEX_FILE);
    if !path.is_file() {
        return Err(WeightsError::None {
            folder: folder.into(),
        });
    }
    let text = std::fs::read_to_string(&path).map_err(|source| WeightsError::Io {
        path: path.clone(),
        source,
    })?;
    let index: Index = serde_json::from_str(&text).map_err(|source| WeightsError::Json {
        path: path.clone(),
        source,
    })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|file| {
            // An index comes from a download: it may not lead out of its folder.
            if Path::new(&file)
                .file_name()
                .is_some_and(|n| n == file.as_str())
            {
                Ok(folder.join(file))
            } else {
                Err(WeightsError::Outside {
                    path: path.clone(),
                    file,
                })
            }
        })
        .collect()
}

fn some_of(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
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
    let text = std::fs::read_to_string(&path).map_err(|source| WeightsError::Io {
        path: path.clone(),
        source,
    })?;
    let json = |source| WeightsError::Json {
        path: path.clone(),
        source,
    };
    let mut map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(json)?;
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
    let mut text = serde_json::to_string_pretty(&map).map_err(json)?;
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
    // Older transformers refuse a file that does not say so.
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
mod tests {
    use super::*;

    fn shapes(list: &[(&str, &[i64])]) -> Shapes {
        list.iter()
            .map(|(n, s)| ((*n).to_owned(), s.to_vec()))
            .collect()
    }

    fn tensors(list: &[(&str, &[i64])]) -> Tensors {
        list.iter()
            .map(|(n, s)| {
                let count = s.iter().product::<i64>();
                let t = Tensor::arange(count, (Kind::Float, Device::Cpu)).reshape(*s) / 7.0;
                ((*n).to_owned(), t)
            })
            .collect()
    }

    fn read_f32(folder: &Path, expected: &Shapes) -> Result<Tensors, String> {
        read(folder, expected, |_| false, Device::Cpu, Kind::Float)
            .map_err(|e| e.to_string().replace(&folder.display().to_string(), "m"))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let list: &[(&str, &[i64])] = &[("a", &[2, 3]), ("b", &[4])];
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            write_tensors(&dir.path().join(WEIGHTS_FILE), &tensors(list), kind).unwrap();
            let back = read_f32(dir.path(), &shapes(list)).unwrap();
            for (name, tensor) in tensors(list) {
                assert_eq!(
                    back[&name],
                    tensor.to_kind(kind).to_kind(Kind::Float),
                    "{name} {kind:?}"
                );
            }
        }
    }

    #[test]
    fn a_sharded_set_is_read_through_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, list: &[(&str, &[i64])]| {
            write_tensors(&dir.path().join(file), &tensors(list), Kind::Float).unwrap();
        };
        write("one.safetensors", &[("a", &[2])]);
        write("two.safetensors", &[("b", &[3])]);
        let index = dir.path().join(INDEX_FILE);
        std::fs::write(
            &index,
            r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#,
        )
        .unwrap();
        let back = read_f32(dir.path(), &shapes(&[("a", &[2]), ("b", &[3])])).unwrap();
        assert_eq!(back.len(), 2);

        std::fs::write(&index, r#"{"weight_map":{"a":"../one.safetensors"}}"#).unwrap();
        insta::assert_snapshot!(
            read_f32(dir.path(), &shapes(&[("a", &[2])])).unwrap_err(),
            @"m/model.safetensors.index.json: names the file `../one.safetensors`, which is not in its folder"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(
            read_f32(dir.path(), &shapes(&[])).unwrap_err(),
            @"m: holds neither model.safetensors nor model.safetensors.index.json"
        );
        let file = dir.path().join(WEIGHTS_FILE);
        write_tensors(&file, &tensors(&[("a", &[2, 3]), ("x", &[1])]), Kind::Float).unwrap();
        let error = |list: &[(&str, &[i64])]| read_f32(dir.path(), &shapes(list)).unwrap_err();
        insta::assert_snapshot!(
            error(&[("a", &[3, 2]), ("x", &[1])]),
            @"m/model.safetensors: tensor `a` has the shape [2, 3]; the configuration asks for [3, 2]"
        );
        insta::assert_snapshot!(
            error(&[("a", &[2, 3]), ("b", &[1]), ("x", &[1])]),
            @"m: the configuration asks for tensors that the weights lack: b"
        );
        insta::assert_snapshot!(
            error(&[("a", &[2, 3])]),
            @"m: the weights hold tensors that the configuration does not ask for: x"
        );
        std::fs::write(&file, b"not a safetensors file").unwrap();
        assert!(error(&[]).starts_with("m/model.safetensors: "));
    }
}
