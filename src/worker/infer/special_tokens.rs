//! The special tokens that a model folder names beside `tokenizer.json`:
//! [`SpecialTokens`].
//!
//! Read as Hugging Face transformers does: from `tokenizer_config.json`; if that
//! lists no `added_tokens_decoder`, `special_tokens_map.json` goes over it, and
//! `added_tokens.json` counts as well. What `tokenizer.json` has on a token's
//! white space stays.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::token_bytes::{FolderError, read_json};

/// Names that every tokenizer may have.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// Special tokens by name, and those that the tokenizer has beside its file's.
#[derive(Debug, Default)]
pub(crate) struct SpecialTokens {
    /// Name and text, such as `bos_token` and `<s>`.
    named: Vec<(String, String)>,
    /// `added_tokens_decoder`, which goes over `tokenizer.json`.
    listed: Vec<AddedToken>,
    /// Tokens that count where `tokenizer.json` does not add them.
    others: Vec<AddedToken>,
}

impl SpecialTokens {
    /// Reads a model folder; without any of the files there are none.
    ///
    /// # Errors
    /// When a file is broken, or a token is neither a text nor an object with one.
    pub(crate) fn load(folder: &Path) -> Result<Self, FolderError> {
        let config = object(folder, CONFIG)?;
        let mut found = Found::default();
        for (key, value) in &config {
            found.take(folder, CONFIG, key, value)?;
        }
        let mut tokens = Self::default();
        if let Some(listed) = config.get("added_tokens_decoder") {
            tokens.listed = listed_tokens(folder, listed)?;
        } else {
            for (key, value) in &object(folder, MAP)? {
                found.take(folder, MAP, key, value)?;
            }
            let mut by_id = Vec::new();
            for (text, id) in &object(folder, ADDED)? {
                let id = id.as_u64().ok_or_else(|| {
                    let path = folder.join(ADDED);
                    FolderError::new(path, format!("`{text}` has an id that is not a number"))
                })?;
                let special = found.has(text);
                by_id.push((id, AddedToken::from(text.as_str(), special)));
            }
            by_id.sort_by_key(|(id, _)| *id);
            tokens.others = by_id.into_iter().map(|(_, token)| token).collect();
        }
        let extra = found.extra.into_iter().chain(found.additional);
        tokens
            .others
            .extend(found.named.iter().map(|(_, t)| t.clone()).chain(extra));
        tokens.named = found
            .named
            .into_iter()
            .map(|(name, token)| (name, token.content))
            .collect();
        Ok(tokens)
    }

    /// Names and texts, as a template sees them.
    pub(crate) fn named(&self) -> &[(String, String)] {
        &self.named
    }

    /// The text of one name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.named
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, text)| text.as_str())
    }

    /// What the folder adds to the tokens that `tokenizer.json` adds (`known`).
    pub(crate) fn beside(&self, known: &[AddedToken]) -> Vec<AddedToken> {
        let mut added: Vec<AddedToken> = Vec::new();
        for token in self.listed.iter().filter(|t| !known.contains(t)) {
            let named = self.named.iter().any(|(_, text)| *text == token.content);
            added.push(token.clone().special(token.special || named));
        }
        for token in &self.others {
            let mut all = known.iter().chain(&self.listed).chain(&added);
            if !token.content.is_empty() && all.all(|t| t.content != token.content) {
                added.push(token.clone());
            }
        }
        added
    }
}

/// What the files name, the later over the earlier.
#[derive(Default)]
struct Found {
    named: Vec<(String, AddedToken)>,
    /// `extra_special_tokens`.
    extra: Vec<AddedToken>,
    /// `additional_special_tokens`, its older name.
    additional: Vec<AddedToken>,
}

impl Found {
    fn has(&self, text: &str) -> bool {
        let extra = self.extra.iter().chain(&self.additional);
        self.named
            .iter()
            .map(|(_, token)| token)
            .chain(extra)
            .any(|token| token.content == text)
    }

    fn take(
        &mut self,
        folder: &Path,
        file: &str,
        key: &str,
        value: &Value,
    ) -> Result<(), FolderError> {
        match (key, value) {
            ("extra_special_tokens" | "additional_special_tokens", Value::Null) => {}
            ("extra_special_tokens", Value::Object(names)) => {
                for (name, value) in names {
                    if let Some(token) = token(folder, file, name, value)? {
                        self.name(name, Some(token));
                    }
                }
            }
            ("extra_special_tokens" | "additional_special_tokens", Value::Array(list)) => {
                let tokens = list
                    .iter()
                    .filter_map(|value| token(folder, file, key, value).transpose())
                    .collect::<Result<Vec<_>, _>>()?;
                if key == "extra_special_tokens" {
                    self.extra = tokens;
                } else {
                    self.additional = tokens;
                }
            }
            ("extra_special_tokens" | "additional_special_tokens", _) => {
                return Err(FolderError::new(
                    folder.join(file),
                    format!("`{key}` is not a list; list its tokens"),
                ));
            }
            _ if NAMES.contains(&key) => {
                let token = token(folder, file, key, value)?;
                self.name(key, token);
            }
            // Names of the model's own, such as `image_token`; `add_bos_token` is a switch.
            (_, Value::String(_) | Value::Object(_)) if key.ends_with("_token") => {
                if let Some(token) = token(folder, file, key, value)? {
                    self.name(key, Some(token));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, name: &str, token: Option<AddedToken>) {
        self.named.retain(|(n, _)| n != name);
        if let Some(token) = token {
            self.named.push((name.to_owned(), token));
        }
    }
}

/// A token given as its text, or as an object with it; null is none.
fn token(
    folder: &Path,
    file: &str,
    key: &str,
    value: &Value,
) -> Result<Option<AddedToken>, FolderError> {
    let flag = |name: &str| value[name].as_bool();
    match (value, value["content"].as_str()) {
        (Value::Null, _) => Ok(None),
        (Value::String(text), _) => Ok(Some(AddedToken::from(text.as_str(), true))),
        (Value::Object(_), Some(text)) => Ok(Some(
            AddedToken::from(text, true)
                .lstrip(flag("lstrip").unwrap_or(false))
                .rstrip(flag("rstrip").unwrap_or(false))
                .single_word(flag("single_word").unwrap_or(false))
                .normalized(flag("normalized").unwrap_or(false)),
        )),
        _ => Err(FolderError::new(
            folder.join(file),
            format!(
                "`{key}` is neither a text nor an object with `content`; write the token's text"
            ),
        )),
    }
}

/// `added_tokens_decoder`: tokens by their ids, in the ids' order.
fn listed_tokens(folder: &Path, listed: &Value) -> Result<Vec<AddedToken>, FolderError> {
    let wrong = |what: String| FolderError::new(folder.join(CONFIG), what);
    let Value::Object(listed) = listed else {
        return Err(wrong("`added_tokens_decoder` is not an object".into()));
    };
    let mut tokens = Vec::new();
    for (id, value) in listed {
        let number: u64 = id
            .parse()
            .map_err(|_| wrong(format!("`added_tokens_decoder` has the id {id:?}")))?;
        let Some(token) = token(folder, CONFIG, "added_tokens_decoder", value)? else {
            continue;
        };
        let special = value["special"].as_bool().unwrap_or(false);
        let normalized = value["normalized"].as_bool().unwrap_or(!special);
        tokens.push((number, token.special(special).normalized(normalized)));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

/// A file that holds an object; empty if there is no file.
fn object(folder: &Path, file: &str) -> Result<Map<String, Value>, FolderError> {
    let path = folder.join(file);
    match read_json(&path)? {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(FolderError::new(path, "does not hold a JSON object")),
    }
}

#[cfg(test)]
mod tests;
