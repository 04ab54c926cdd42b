//! Hugging Face model folders: what must be in one, and copying one.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use genius::artifact::write_json;
use genius::protocol::{Failure, Level, Progress};
use genius::stage::{Context, JobResult};

/// Files beside the weights that a model folder may have; nothing else is
/// taken, so that notebooks, ONNX exports or other frameworks' weights beside
/// them change no key.
pub const SMALL_FILES: &[&str] = &[
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    INDEX,
];

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const INDEX: &str = "model.safetensors.index.json";

/// Whether `name` is a file that a model folder is made of.
pub fn is_wanted(name: &str) -> bool {
    SMALL_FILES.contains(&name) || (name.ends_with(".safetensors") && !name.contains('/'))
}

/// The weight files of a folder, sorted, every shard of its index among them.
///
/// # Errors
/// When there are none, or the index names a shard that is missing.
pub fn weight_files(folder: &Path) -> Result<BTreeSet<String>, Failure> {
    let shown = folder.display();
    let mut present = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Failure::new(format!("{shown}: {e}")))? {
        let entry = entry.map_err(|e| Failure::new(format!("{shown}: {e}")))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") && entry.path().is_file() {
            present.insert(name);
        }
    }
    if folder.join(INDEX).is_file() {
        let index = read_object(&folder.join(INDEX))?;
        let map = index
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| Failure::new(format!("{shown}/{INDEX} has no `weight_map`")))?;
        let named: BTreeSet<String> = map
            .values()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if let Some(missing) = named.iter().find(|n| !present.contains(*n)) {
            return Err(Failure::new(format!(
                "{shown}/{INDEX} names {missing}, which is not there"
            ))
            .hint("the folder is incomplete: fetch it again"));
        }
        return Ok(named);
    }
    if present.is_empty() {
        let failure = Failure::new(format!("{shown} holds no *.safetensors"));
        return Err(match gguf_in(folder) {
            Some(file) => failure.hint(format!("it holds {file}: give `source.path` that file to convert it")),
            None => failure.hint("weights in other formats (*.bin, *.pt) are not read: save the model with safetensors"),
        });
    }
    Ok(present)
}

/// Checks that `folder` is a complete model folder.
///
/// # Errors
/// Names the first thing that is missing or damaged.
pub fn check(folder: &Path) -> Result<BTreeSet<String>, Failure> {
    let shown = folder.display();
    for (name, remedy) in [
        (
            CONFIG,
            "a Hugging Face model folder has one: is this the right folder?",
        ),
        (
            TOKENIZER,
            "save the tokenizer in its fast form: `AutoTokenizer.from_pretrained(...).save_pretrained(folder)`",
        ),
    ] {
        if !folder.join(name).is_file() {
            let hint = gguf_in(folder).map_or_else(
                || remedy.to_owned(),
                |file| format!("it holds {file}: give `source.path` that file to convert it"),
            );
            return Err(Failure::new(format!("{shown} has no {name}")).hint(hint));
        }
        read_object(&folder.join(name))?;
    }
    let weights = weight_files(folder)?;
    for name in &weights {
        check_safetensors(&folder.join(name))?;
    }
    Ok(weights)
}

/// Copies a model folder, and fills in what later stages count on: explicit
/// end tokens in generation_config.json, and the chat template in
/// tokenizer_config.json where it lies in a file of its own.
///
/// # Errors
/// When the folder is incomplete or damaged, or cannot be copied.
pub fn copy(context: &Context, from: &Path, to: &Path) -> Result<(), Failure> {
    let weights = check(from)?;
    let small = SMALL_FILES
        .iter()
        .filter(|name| from.join(name).is_file())
        .map(|name| (*name).to_owned());
    let files: Vec<String> = small.chain(weights).collect();
    for (done, name) in files.iter().enumerate() {
        context.check_cancelled()?;
        context.progress(Progress {
            phase: "copying".into(),
            done: done as u64,
            total: Some(files.len() as u64),
            unit: "files".into(),
            detail: name.clone(),
        });
        // A hub snapshot is made of links: the content is copied.
        std::fs::copy(from.join(name), to.join(name)).map_err(|e| {
            Failure::new(format!(
                "cannot copy {} to {}: {e}",
                from.join(name).display(),
                to.display()
            ))
        })?;
    }
    complete_generation_config(context, to)?;
    complete_chat_template(context, to)
}

/// Later stages take the end tokens from generation_config.json alone.
fn complete_generation_config(context: &Context, folder: &Path) -> Result<(), Failure> {
    let path = folder.join(GENERATION_CONFIG);
    let mut generation = if path.is_file() {
        read_object(&path)?
    } else {
        Map::new()
    };
    if generation.get("eos_token_id").is_some_and(|v| !v.is_null()) {
        return Ok(());
    }
    let config = read_object(&folder.join(CONFIG))?;
    let Some(eos) = config.get("eos_token_id").filter(|v| !v.is_null()) else {
        context.log(
            Level::Warn,
            format!("neither {GENERATION_CONFIG} nor {CONFIG} names an end token: generations of this model end by length alone"),
        );
        return Ok(());
    };
    for name in ["bos_token_id", "pad_token_id"] {
        if let Some(id) = config.get(name).filter(|v| !v.is_null()) {
            generation.entry(name).or_insert_with(|| id.clone());
        }
    }
    generation.insert("eos_token_id".into(), eos.clone());
    Ok(write_json(&replaceable(path)?, &generation)?)
}

/// Newer folders keep the template in chat_template.jinja.
fn complete_chat_template(context: &Context, folder: &Path) -> Result<(), Failure> {
    let path = folder.join(TOKENIZER_CONFIG);
    let mut config = if path.is_file() {
        read_object(&path)?
    } else {
        Map::new()
    };
    if config.get("chat_template").is_some_and(|v| !v.is_null()) {
        return Ok(());
    }
    let template = folder.join("chat_template.jinja");
    if !template.is_file() {
        context.log(
            Level::Warn,
            "the model has no chat template: its tokenizer_config.json holds none",
        );
        return Ok(());
    }
    let text = std::fs::read_to_string(&template)
        .map_err(|e| Failure::new(format!("{}: {e}", template.display())))?;
    config.insert("chat_template".into(), text.into());
    Ok(write_json(&replaceable(path)?, &config)?)
}

/// Copies keep their permissions: a read-only one must go before it is rewritten.
fn replaceable(path: std::path::PathBuf) -> Result<std::path::PathBuf, Failure> {
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(format!(
            "cannot replace {}: {e}",
            path.display()
        ))),
        _ => Ok(path),
    }
}

/// Figures of a finished model folder: architecture, parameters, bytes.
///
/// # Errors
/// When the folder is not complete after all.
pub fn summary(folder: &Path) -> JobResult {
    let weights = check(folder)?;
    let config = read_object(&folder.join(CONFIG))?;
    let mut parameters = 0u64;
    let mut bytes = 0u64;
    for name in &weights {
        let (tensors, size) = check_safetensors(&folder.join(name))?;
        parameters += tensors;
        bytes += size;
    }
    Ok(vec![
        (
            "architecture".into(),
            config.get("model_type").cloned().unwrap_or(Value::Null),
        ),
        ("parameters".into(), json!(parameters)),
        ("weight_bytes".into(), json!(bytes)),
    ])
}

/// Reads the header of a safetensors file and compares its length with what
/// the header promises; returns the number of values and the file's bytes.
fn check_safetensors(path: &Path) -> Result<(u64, u64), Failure> {
    let damaged = |why: String| {
        Failure::new(format!("{} is damaged: {why}", path.display()))
            .hint("the file may be cut short, or be a Git LFS pointer: fetch it again")
    };
    let file =
        std::fs::File::open(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    // SAFETY: the map is read here alone and dropped at the end; inputs of a
    // stage are not written to while it runs.
    let map = unsafe { memmap2::Mmap::map(&file) }
        .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let tensors =
        safetensors::SafeTensors::deserialize(&map).map_err(|e| damaged(e.to_string()))?;
    let values = tensors
        .iter()
        .map(|(_, view)| view.shape().iter().product::<usize>() as u64)
        .sum();
    Ok((values, map.len() as u64))
}

/// Parses a file that must hold a JSON object.
fn read_object(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|e| Failure::new(format!("{} is damaged: {e}", path.display())))
}

fn gguf_in(folder: &Path) -> Option<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.to_ascii_lowercase().ends_with(".gguf"))
        .collect();
    names.sort();
    names.into_iter().next()
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
