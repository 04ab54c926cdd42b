//! Which files of a folder are its weights: [`Layout`].
//!
//! The index decides where there is one. Without it, model.safetensors is the
//! whole model, or a complete set of model-0000i-of-0000n.safetensors is.
//! Whatever else lies beside them (consolidated.*, variants) is not read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{CheckpointError, INDEX_FILE, WEIGHTS_FILE};
use crate::model::json::{INDEX_BYTES, brief, read_object};

/// Configuration of an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Files that show that a folder holds an adapter.
const ADAPTER_FILES: &[&str] = &[
    ADAPTER_CONFIG,
    "adapter_model.safetensors",
    "adapter_model.bin",
];

/// The files of the weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Names, sorted.
    pub files: Vec<String>,
    /// By tensor the name of its file, where there is an index.
    pub index: Option<BTreeMap<String, String>>,
    /// Other *.safetensors in the folder, sorted.
    pub strays: Vec<String>,
}

impl Layout {
    /// Decides it for a folder.
    ///
    /// # Errors
    /// When there are no weights, some are missing, or it is not clear which are meant.
    pub fn find(folder: &Path) -> Result<Self, CheckpointError> {
        let names = plain_files(folder)?;
        if let Some(file) = ADAPTER_FILES.iter().find(|file| names.contains(**file)) {
            return Err(CheckpointError::Adapter {
                folder: folder.to_owned(),
                file: (*file).to_owned(),
            });
        }
        let present: BTreeSet<String> = names
            .iter()
            .filter(|name| name.ends_with(".safetensors"))
            .cloned()
            .collect();
        let has_index = names.contains(INDEX_FILE);
        let (files, index) = if has_index {
            let index = read_index(folder, &present)?;
            let files: BTreeSet<String> = index.values().cloned().collect();
            if present.contains(WEIGHTS_FILE) && !files.contains(WEIGHTS_FILE) {
                return Err(CheckpointError::Ambiguous {
                    folder: folder.to_owned(),
                    first: WEIGHTS_FILE.into(),
                    second: format!("the files that {INDEX_FILE} names"),
                });
            }
            (files, Some(index))
        } else {
            (without_index(folder, &names, &present)?, None)
        };
        let strays = present.difference(&files).cloned().collect();
        Ok(Self {
            files: files.into_iter().collect(),
            index,
            strays,
        })
    }
}

/// Whether a folder holds an adapter, which is refused.
pub fn is_adapter(folder: &Path) -> bool {
    ADAPTER_FILES.iter().any(|file| folder.join(file).is_file())
}

fn plain_files(folder: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let io = |source| CheckpointError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        // A link counts as what it leads to: a hub snapshot is made of links.
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_file() {
            names.insert(name.to_string_lossy().into_owned());
        } else if path.is_dir() && (name == WEIGHTS_FILE || name == INDEX_FILE) {
            let source = std::io::Error::other("it is a folder, not a file");
            return Err(CheckpointError::Io { path, source });
        }
    }
    Ok(names)
}

fn read_index(
    folder: &Path,
    present: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, CheckpointError> {
    let path = folder.join(INDEX_FILE);
    let wrong = |key: &str, what: String| CheckpointError::Index {
        path: path.clone(),
        key: key.to_owned(),
        what,
    };
    let root = read_object(&path, INDEX_BYTES)?;
    let map = match root.get("weight_map") {
        Some(serde_json::Value::Object(map)) if !map.is_empty() => map,
        Some(serde_json::Value::Object(_)) => {
            return Err(wrong("weight_map", "it names no tensor".into()));
        }
        Some(other) => {
            return Err(wrong(
                "weight_map",
                format!("{} is not an object", brief(other)),
            ));
        }
        None => return Err(wrong("weight_map", "it is missing".into())),
    };
    let mut index = BTreeMap::new();
    for (tensor, file) in map {
        let key = || format!("weight_map.{tensor}");
        let Some(file) = file.as_str() else {
            return Err(wrong(
                &key(),
                format!("{} is not the name of a file", brief(file)),
            ));
        };
        // An index comes from a download: it may not lead out of its folder.
        if !is_plain_name(file) {
            return Err(CheckpointError::Outside {
                path: path.clone(),
                file: file.to_owned(),
            });
        }
        if !file.ends_with(".safetensors") {
            return Err(wrong(
                &key(),
                format!("`{file}` is not a *.safetensors, and other formats are not read"),
            ));
        }
        if !present.contains(file) {
            return Err(CheckpointError::MissingFile {
                path: path.clone(),
                file: file.to_owned(),
            });
        }
        index.insert(tensor.clone(), file.to_owned());
    }
    Ok(index)
}

fn is_plain_name(file: &str) -> bool {
    !file.contains(['\0', '\\'])
        && Path::new(file)
            .file_name()
            .is_some_and(|name| name.to_str() == Some(file))
}

fn without_index(
    folder: &Path,
    names: &BTreeSet<String>,
    present: &BTreeSet<String>,
) -> Result<BTreeSet<String>, CheckpointError> {
    let ambiguous = |first: &str, second: &str| CheckpointError::Ambiguous {
        folder: folder.to_owned(),
        first: first.to_owned(),
        second: second.to_owned(),
    };
    let numbered: Vec<(&str, Numbered)> = present
        .iter()
        .filter_map(|name| Some((name.as_str(), Numbered::parse(name)?)))
        .collect();
    if present.contains(WEIGHTS_FILE) {
        return match numbered.first() {
            Some((other, _)) => Err(ambiguous(WEIGHTS_FILE, other)),
            None => Ok([WEIGHTS_FILE.to_owned()].into()),
        };
    }
    let Some((first, set)) = numbered.first() else {
        return Err(if present.is_empty() {
            CheckpointError::None {
                folder: folder.to_owned(),
                gguf: names
                    .iter()
                    .find(|name| name.to_ascii_lowercase().ends_with(".gguf"))
                    .cloned(),
            }
        } else {
            CheckpointError::Unknown {
                folder: folder.to_owned(),
                found: some_of(present),
            }
        });
    };
    let mut by_number = BTreeMap::new();
    for (name, numbered) in &numbered {
        if numbered.of != set.of {
            return Err(ambiguous(first, name));
        }
        if let Some(other) = by_number.insert(numbered.number, *name) {
            return Err(ambiguous(other, name));
        }
    }
    // As many numbers as there are files at most: the set may claim any size.
    let missing = (1..=set.of).find(|number| !by_number.contains_key(number));
    if let Some(number) = missing {
        return Err(CheckpointError::Incomplete {
            folder: folder.to_owned(),
            present: (*first).to_owned(),
            missing: format!(
                "model-{number:0width$}-of-{of:0width$}.safetensors",
                width = set.width,
                of = set.of
            ),
        });
    }
    if let Some((number, name)) = by_number.iter().find(|(n, _)| !(1..=set.of).contains(*n)) {
        return Err(CheckpointError::Unknown {
            folder: folder.to_owned(),
            found: format!("{name}, which is number {number} of {}", set.of),
        });
    }
    Ok(by_number.into_values().map(str::to_owned).collect())
}

/// The parts of the name of a file of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbered {
    pub number: u32,
    pub of: u32,
    width: usize,
}

impl Numbered {
    /// Of `model-00001-of-00002.safetensors`.
    pub fn parse(name: &str) -> Option<Self> {
        let (number, of) = name
            .strip_prefix("model-")?
            .strip_suffix(".safetensors")?
            .split_once("-of-")?;
        let parse = |digits: &str| {
            digits
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| digits.parse::<u32>().ok())
                .flatten()
        };
        Some(Self {
            number: parse(number)?,
            of: parse(of)?,
            width: number.len(),
        })
    }
}

/// The first of some names, and how many more there are.
pub(crate) fn some_of(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
