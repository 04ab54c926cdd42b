//! Hugging Face model folders: what must be in one, and copying one.

use std::path::Path;

use serde_json::{Map, Value, json};

use genius::artifact::write_json;
use genius::protocol::{Failure, Figure, Level, Progress, Unit};
use genius::stage::{Context, JobResult};

use super::checkpoint::{ADAPTER_CONFIG, Checkpoint, INDEX_FILE, is_adapter};
use super::config::{CONFIG_FILE as CONFIG, Config, ConfigError};
use super::json::{self, read_bytes, read_object};
use super::llama::Llama;
use crate::infer::special_tokens::SpecialTokens;

/// Files beside the weights that a model folder may have; nothing else is
/// taken, so that notebooks, ONNX exports or other frameworks' weights beside
/// them do not change a key.
pub const SMALL_FILES: &[&str] = &[
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS_MAP,
    ADDED_TOKENS,
    CHAT_TEMPLATE,
    "vocab.json",
    "merges.txt",
    INDEX_FILE,
];

const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Whether `name` is a file that a model folder is made of, or that shows that it
/// is not one.
pub fn is_wanted(name: &str) -> bool {
    SMALL_FILES.contains(&name)
        || name == ADAPTER_CONFIG
        || (name.ends_with(".safetensors") && !name.contains('/'))
}

/// Largest size that a small file may have, bytes.
fn limit(name: &str) -> u64 {
    match name {
        CONFIG | GENERATION_CONFIG => json::CONFIG_BYTES,
        TOKENIZER_CONFIG | CHAT_TEMPLATE => json::TOKENIZER_CONFIG_BYTES,
        INDEX_FILE => json::INDEX_BYTES,
        _ => json::TOKENIZER_BYTES,
    }
}

/// Checks that `folder` is a complete model folder; its weights.
///
/// # Errors
/// Names the first thing that is missing or damaged.
pub fn check(folder: &Path) -> Result<Checkpoint, Failure> {
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
        // Before the files that an adapter's folder lacks: the kind of folder explains more.
        if is_adapter(folder) {
            break;
        }
        if !is_there(&folder.join(name)) {
            let hint = gguf_in(folder).map_or_else(
                || remedy.to_owned(),
                |file| format!("it holds {file}: give `source.path` that file to convert it"),
            );
            return Err(Failure::new(format!("{shown} has no {name}")).hint(hint));
        }
    }
    let checkpoint = Checkpoint::open(folder)?;
    read_object(&folder.join(CONFIG), limit(CONFIG))?;
    check_tokenizer(&folder.join(TOKENIZER))?;
    Ok(checkpoint)
}

/// The tokenizer is looked into when it is used: here only that it is an object.
fn check_tokenizer(path: &Path) -> Result<(), Failure> {
    let bytes = read_bytes(path, limit(TOKENIZER))?;
    serde_json::from_slice::<std::collections::HashMap<String, serde::de::IgnoredAny>>(&bytes)
        .map(drop)
        .map_err(|e| Failure::new(format!("{} is damaged: {e}", path.display())))
}

/// Reads every small file that is there: bounded, the JSON ones whole.
///
/// # Errors
/// With the path: not a plain file, too large, not what its name suggests.
pub fn read_small_files(folder: &Path) -> Result<(), Failure> {
    for name in SMALL_FILES {
        let path = folder.join(name);
        if !is_there(&path) {
            continue;
        }
        match *name {
            // Looked into where they are used: the index with the weights.
            TOKENIZER | INDEX_FILE | CHAT_TEMPLATE | "vocab.json" | "merges.txt" => {
                read_bytes(&path, limit(name))?;
            }
            _ => {
                read_object(&path, limit(name))?;
            }
        }
    }
    Ok(())
}

/// Whether there is anything of this name: a folder or a link to nothing is not
/// passed over, but refused when it is read.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Checks that the weights of a complete folder are those of its config.json,
/// where that is of an architecture that is built here.
///
/// # Errors
/// A value of config.json that means nothing; tensors that do not belong to it.
pub fn verify(folder: &Path) -> Result<(), Failure> {
    match Config::load(folder) {
        Ok(config) => Llama::check(&config, &Checkpoint::open(folder)?),
        // Another engine may know it.
        Err(ConfigError::Unsupported { .. }) => {
            let config = read_object(&folder.join(CONFIG), limit(CONFIG))?;
            match config.get("tie_word_embeddings") {
                Some(Value::Bool(true)) => Llama::check_tied(&Checkpoint::open(folder)?),
                _ => Ok(()),
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// Checks that mistral.rs, which loads a folder by itself, finds the weights that
/// everything else reads, and that they belong to the configuration.
///
/// # Errors
/// As [`verify`], and files under other names than it looks for.
pub fn weights_for_mistralrs(folder: &Path) -> Result<(), Failure> {
    Checkpoint::open(folder)?.check_for_mistralrs()?;
    verify(folder)
}

/// Copies a model folder: the weights under the names that every reader knows, with
/// an index that names them, and no other weights; and what later stages count on:
/// explicit end tokens in generation_config.json, and the chat template in
/// tokenizer_config.json where it lies in a file of its own.
///
/// # Errors
/// When the folder is incomplete or damaged, or cannot be copied.
pub fn copy(context: &Context, from: &Path, to: &Path) -> Result<(), Failure> {
    let checkpoint = check(from)?;
    // Everything is read where the user knows it, so that messages name that place.
    let rewritten = [
        (GENERATION_CONFIG, complete_generation_config(from)?),
        (TOKENIZER_CONFIG, complete_chat_template(from)?),
    ];
    let rewritten: Vec<(&str, Map<String, Value>)> = rewritten
        .into_iter()
        .filter_map(|(name, map)| Some((name, map?)))
        .collect();
    if !checkpoint.strays().is_empty() {
        context.log(
            Level::Info,
            format!(
                "not taken, since they are not of the model's weights: {}",
                checkpoint.strays().join(", ")
            ),
        );
    }
    for name in SMALL_FILES {
        let taken = *name != INDEX_FILE && rewritten.iter().all(|(other, _)| name != other);
        if taken && is_there(&from.join(name)) {
            let bytes = read_bytes(&from.join(name), limit(name))?;
            let path = to.join(name);
            std::fs::write(&path, bytes)
                .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        }
    }
    for (name, map) in &rewritten {
        write_json(&to.join(name), map)?;
    }
    copy_weights(context, &checkpoint, to)
}

fn copy_weights(context: &Context, checkpoint: &Checkpoint, to: &Path) -> Result<(), Failure> {
    let (files, names) = (checkpoint.files(), checkpoint.plain_names());
    for (done, (file, name)) in files.iter().zip(&names).enumerate() {
        context.check_cancelled()?;
        context.progress(Progress {
            phase: "copying".into(),
            done: done as u64,
            total: Some(files.len() as u64),
            unit: "files".into(),
            detail: file.name.clone(),
        });
        let (from, to) = (checkpoint.folder().join(&file.name), to.join(name));
        // A hub snapshot is made of links: the content is copied.
        let copied = std::fs::copy(&from, &to).map_err(|e| {
            Failure::new(format!(
                "cannot copy {} to {}: {e}",
                from.display(),
                to.display()
            ))
        })?;
        if copied != file.bytes {
            return Err(Failure::new(format!(
                "{} changed while it was copied: it had {} bytes, and {copied} were read",
                from.display(),
                file.bytes
            )));
        }
    }
    if names.len() == 1 {
        return Ok(());
    }
    let theirs = checkpoint.folder().join(INDEX_FILE);
    let own = to.join(INDEX_FILE);
    if files.iter().map(|file| &file.name).eq(&names) && theirs.is_file() {
        let bytes = read_bytes(&theirs, limit(INDEX_FILE))?;
        return std::fs::write(&own, bytes)
            .map_err(|e| Failure::new(format!("{}: {e}", own.display())));
    }
    let map: Map<String, Value> = checkpoint
        .tensors()
        .iter()
        .map(|(tensor, info)| (tensor.clone(), json!(names[info.file])))
        .collect();
    let total: u64 = checkpoint.tensor_bytes();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    Ok(write_json(&own, &index)?)
}

/// The generation_config.json of a folder with its end tokens filled in; `None` if
/// the one that is there has them. Every engine then takes the same ones.
fn complete_generation_config(folder: &Path) -> Result<Option<Map<String, Value>>, Failure> {
    let path = folder.join(GENERATION_CONFIG);
    let mut generation = read_if_there(&path)?;
    if end_tokens(&generation, &path)?.is_some() {
        return Ok(None);
    }
    let path = folder.join(CONFIG);
    let config = read_object(&path, limit(CONFIG))?;
    if let Some(eos) = end_tokens(&config, &path)? {
        for name in ["bos_token_id", "pad_token_id"] {
            if let Some(id) = config.get(name).filter(|v| !v.is_null()) {
                generation.entry(name).or_insert_with(|| id.clone());
            }
        }
        generation.insert("eos_token_id".into(), eos.clone());
        return Ok(Some(generation));
    }
    // None of the files that name special tokens is too large.
    for name in [TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS] {
        read_if_there(&folder.join(name))?;
    }
    let tokens = SpecialTokens::load(folder)?;
    let Some(token) = tokens.text("eos_token") else {
        return Ok(None);
    };
    let id = token_id(&folder.join(TOKENIZER), token)?;
    Ok(id.map(|id| {
        generation.insert("eos_token_id".into(), id.into());
        generation
    }))
}

/// `eos_token_id`, where it names any.
fn end_tokens<'a>(
    config: &'a Map<String, Value>,
    path: &Path,
) -> Result<Option<&'a Value>, Failure> {
    let is_id = |value: &Value| value.as_u64().is_some_and(|id| id <= u32::MAX.into());
    match config.get("eos_token_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(ids)) if ids.is_empty() => Ok(None),
        Some(Value::Array(ids)) if ids.iter().all(is_id) => Ok(config.get("eos_token_id")),
        Some(id) if is_id(id) => Ok(Some(id)),
        Some(other) => Err(Failure::new(format!(
            "{}: eos_token_id: {other} is not the id of a token, or a list of such ids",
            path.display()
        ))),
    }
}

/// The id of a token by its text: an added token, else one of the vocabulary.
fn token_id(path: &Path, token: &str) -> Result<Option<u64>, Failure> {
    let bytes = read_bytes(path, limit(TOKENIZER))?;
    let json: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Failure::new(format!("{} is damaged: {e}", path.display())))?;
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added = added
        .filter(|entry| entry["content"] == token)
        .find_map(|entry| entry["id"].as_u64());
    Ok(added.or_else(|| match &json["model"]["vocab"] {
        Value::Array(pieces) => {
            let at = pieces.iter().position(|piece| piece[0] == token)?;
            u64::try_from(at).ok()
        }
        vocabulary => vocabulary.get(token)?.as_u64(),
    }))
}

/// The tokenizer_config.json of a folder with its chat template; `None` if the one
/// that is there has it, or there is none. Newer folders keep it in chat_template.jinja.
fn complete_chat_template(folder: &Path) -> Result<Option<Map<String, Value>>, Failure> {
    let mut config = read_if_there(&folder.join(TOKENIZER_CONFIG))?;
    if config.get("chat_template").is_some_and(|v| !v.is_null()) {
        return Ok(None);
    }
    let template = folder.join(CHAT_TEMPLATE);
    if !is_there(&template) {
        return Ok(None);
    }
    let text = String::from_utf8(read_bytes(&template, limit(CHAT_TEMPLATE))?)
        .map_err(|e| Failure::new(format!("{}: {e}", template.display())))?;
    config.insert("chat_template".into(), text.into());
    Ok(Some(config))
}

fn read_if_there(path: &Path) -> Result<Map<String, Value>, Failure> {
    if !is_there(path) {
        return Ok(Map::new());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(read_object(path, limit(&name))?)
}

/// Figures of a finished model folder: architecture, parameters, bytes.
///
/// # Errors
/// When the folder is not complete after all.
pub fn figures(folder: &Path) -> JobResult {
    let checkpoint = check(folder)?;
    let config = read_object(&folder.join(CONFIG), limit(CONFIG))?;
    Ok(vec![
        Figure::new(
            "architecture",
            config.get("model_type").cloned().unwrap_or(Value::Null),
            Unit::Text,
        ),
        Figure::new("parameters", checkpoint.parameters(), Unit::Count),
        Figure::new("weight_bytes", checkpoint.bytes(), Unit::Bytes),
    ])
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
