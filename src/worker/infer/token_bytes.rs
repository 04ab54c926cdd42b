//! What every token id means in bytes, and which ids end a turn: [`TokenBytes`].
//!
//! Boundaries and stop texts are decided on bytes, because a character may be
//! spread over tokens and a newline may sit inside one. Read straight from
//! `tokenizer.json`: a tokenizer's own `decode` trims and replaces.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

use super::special_tokens::SpecialTokens;

/// Why a model folder's tokenizer files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FolderError {
    /// File.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl FolderError {
    /// An error about `path`.
    pub fn new(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

impl From<FolderError> for genius::protocol::Failure {
    fn from(e: FolderError) -> Self {
        Self::new(e.to_string())
    }
}

/// The bytes of every token of a vocabulary, and its end tokens.
#[derive(Debug, Clone, Default)]
pub struct TokenBytes {
    bytes: Vec<Vec<u8>>,
    special: Vec<bool>,
    ends: Vec<u32>,
}

/// How a tokenizer writes bytes as characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    /// GPT-2's map of the 256 bytes onto printable characters.
    ByteLevel,
    /// SentencePiece: U+2581 for a space, `<0xNN>` for a byte of its own.
    ByteFallback,
}

impl TokenBytes {
    /// Reads `tokenizer.json`, the special tokens that the files beside it name,
    /// and the end tokens: `eos_token_id` of `generation_config.json`, else of
    /// `config.json`, else the special token `eos_token`.
    ///
    /// # Errors
    /// When a file is missing or of an unknown kind, no end token is named, or
    /// one lies outside the vocabulary.
    pub fn load(folder: &Path) -> Result<Self, FolderError> {
        let (mut table, tokens) = Self::without_end_tokens(folder)?;
        table.ends = table.read_ends(folder, &tokens)?;
        Ok(table)
    }

    /// Reads the same; why there is no end token, where only that is wrong.
    ///
    /// # Errors
    /// As [`TokenBytes::load`] otherwise.
    pub(crate) fn check(folder: &Path) -> Result<Option<FolderError>, FolderError> {
        let (table, tokens) = Self::without_end_tokens(folder)?;
        Ok(table.read_ends(folder, &tokens).err())
    }

    fn without_end_tokens(folder: &Path) -> Result<(Self, SpecialTokens), FolderError> {
        let path = folder.join("tokenizer.json");
        let json = read_json(&path)?
            .ok_or_else(|| FolderError::new(&path, "not found; the model needs a tokenizer"))?;
        let mut table = Self::from_json(&json).map_err(|e| FolderError::new(&path, e))?;
        let tokens = SpecialTokens::load(folder)?;
        let known: Vec<AddedToken> = json["added_tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| serde_json::from_value(token.clone()).ok())
            .collect();
        for token in tokens.beside(&known).iter().filter(|t| t.special) {
            // One that is in the vocabulary alone; others have no row of the weights.
            if let Some(id) = table.id_of(token.content.as_bytes()) {
                table.special[id as usize] = true;
            }
        }
        Ok((table, tokens))
    }

    /// The table of a parsed `tokenizer.json`, without end tokens.
    fn from_json(json: &Value) -> Result<Self, String> {
        let mut ids: Vec<(u32, Vec<u8>, bool)> = Vec::new();
        let alphabet = alphabet(json)?;
        let chars = byte_of_char();
        let mut add = |id: u64, text: &str| -> Result<(), String> {
            let id = u32::try_from(id).map_err(|_| format!("token id {id} is too large"))?;
            ids.push((id, to_bytes(text, alphabet, &chars), false));
            Ok(())
        };
        match &json["model"]["vocab"] {
            Value::Object(map) => {
                for (text, id) in map {
                    let id = id
                        .as_u64()
                        .ok_or("`model.vocab` has an id that is not a number")?;
                    add(id, text)?;
                }
            }
            Value::Array(list) => {
                for (id, piece) in list.iter().enumerate() {
                    let text = piece[0]
                        .as_str()
                        .ok_or("`model.vocab` has a piece without text")?;
                    add(id as u64, text)?;
                }
            }
            _ => return Err("has no `model.vocab`".into()),
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) else {
                return Err("`added_tokens` has one without `id` or `content`".into());
            };
            let id = u32::try_from(id).map_err(|_| format!("token id {id} is too large"))?;
            let special = token["special"].as_bool().unwrap_or(false);
            ids.push((id, text.as_bytes().to_vec(), special));
        }
        let len = ids
            .iter()
            .map(|(id, ..)| *id as usize + 1)
            .max()
            .unwrap_or(0);
        if len > 16 * ids.len() + 1024 {
            return Err(format!("{} tokens, but ids up to {len}", ids.len()));
        }
        let mut table = Self {
            bytes: vec![Vec::new(); len],
            special: vec![false; len],
            ends: Vec::new(),
        };
        for (id, bytes, special) in ids {
            table.bytes[id as usize] = bytes;
            table.special[id as usize] = special;
        }
        Ok(table)
    }

    fn read_ends(&self, folder: &Path, tokens: &SpecialTokens) -> Result<Vec<u32>, FolderError> {
        for file in ["generation_config.json", "config.json"] {
            let path = folder.join(file);
            let Some(json) = read_json(&path)? else {
                continue;
            };
            let ids: Vec<&Value> = match &json["eos_token_id"] {
                Value::Null => continue,
                Value::Array(list) => list.iter().collect(),
                one => vec![one],
            };
            let mut ends = Vec::new();
            for id in ids {
                match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                    Some(id) if (id as usize) < self.bytes.len() => ends.push(id),
                    _ => {
                        return Err(FolderError::new(
                            path,
                            format!(
                                "end token `eos_token_id` {id} is outside the vocabulary of {} \
                                 tokens; correct it there",
                                self.bytes.len()
                            ),
                        ));
                    }
                }
            }
            if !ends.is_empty() {
                return Ok(ends);
            }
        }
        let path = folder.join("tokenizer_config.json");
        let Some(text) = tokens.text("eos_token") else {
            return Err(FolderError::new(
                folder.join("generation_config.json"),
                "no end token: neither this file nor config.json has `eos_token_id`, and \
                 neither tokenizer_config.json nor special_tokens_map.json has `eos_token`; \
                 name one",
            ));
        };
        match self.id_of(text.as_bytes()) {
            Some(id) => Ok(vec![id]),
            None => Err(FolderError::new(
                path,
                format!(
                    "end token `eos_token` {text:?} is not in the vocabulary; correct it there"
                ),
            )),
        }
    }

    /// The same without end tokens.
    #[cfg(test)]
    pub(crate) fn without_ends(&self) -> Self {
        Self {
            ends: Vec::new(),
            ..self.clone()
        }
    }

    /// A table of these tokens, for tests.
    #[cfg(test)]
    pub(crate) fn from_words(words: &[&[u8]], ends: Vec<u32>) -> Self {
        Self {
            bytes: words.iter().map(|w| w.to_vec()).collect(),
            special: vec![false; words.len()],
            ends,
        }
    }

    /// Number of token ids; some may have no meaning.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of a token; none if the id is outside the vocabulary.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether it is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether it ends a turn.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The end tokens.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The lowest id of a token with exactly these bytes, special tokens first.
    pub fn id_of(&self, bytes: &[u8]) -> Option<u32> {
        let find = |special: bool| {
            (0..self.bytes.len())
                .find(|&i| self.special[i] == special && self.bytes[i] == bytes)
                .and_then(|i| u32::try_from(i).ok())
        };
        find(true).or_else(|| find(false))
    }

    /// The text of tokens: their bytes in a row, special and end tokens left
    /// out. Only bytes that are not UTF-8 are replaced (by U+FFFD).
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in tokens {
            if !self.is_special(id) && !self.is_end(id) {
                bytes.extend_from_slice(self.bytes(id));
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }
}

/// A JSON file, or nothing if there is none.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, FolderError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| FolderError::new(path, format!("is not JSON: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FolderError::new(path, e.to_string())),
    }
}

fn alphabet(json: &Value) -> Result<Alphabet, String> {
    let decoder = &json["decoder"];
    if has_type(decoder, "ByteLevel") || has_type(&json["pre_tokenizer"], "ByteLevel") {
        Ok(Alphabet::ByteLevel)
    } else if has_type(decoder, "ByteFallback")
        || has_type(decoder, "Metaspace")
        || json["model"]["byte_fallback"] == Value::Bool(true)
    {
        Ok(Alphabet::ByteFallback)
    } else {
        Err(
            "its decoder is neither ByteLevel nor ByteFallback, so the bytes of a token are \
             not known"
                .into(),
        )
    }
}

/// Whether a tokenizer part, or one inside it, has this `type`.
fn has_type(part: &Value, name: &str) -> bool {
    match part {
        Value::Object(map) => part["type"] == name || map.values().any(|v| has_type(v, name)),
        Value::Array(list) => list.iter().any(|v| has_type(v, name)),
        _ => false,
    }
}

/// GPT-2's `bytes_to_unicode`, inverted: printable bytes map to themselves,
/// the others for U+0100 and on in order.
fn byte_of_char() -> HashMap<char, u8> {
    let mut next = 0x100_u32;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let own = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if own {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).map(|c| (c, byte))
        })
        .collect()
}

fn to_bytes(text: &str, alphabet: Alphabet, chars: &HashMap<char, u8>) -> Vec<u8> {
    match alphabet {
        Alphabet::ByteLevel => text
            .chars()
            .map(|c| chars.get(&c).copied())
            .collect::<Option<Vec<u8>>>()
            .unwrap_or_else(|| text.as_bytes().to_vec()),
        Alphabet::ByteFallback => text
            .strip_prefix("<0x")
            .and_then(|t| t.strip_suffix('>'))
            .filter(|hex| hex.len() == 2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .map_or_else(|| text.replace('\u{2581}', " ").into_bytes(), |b| vec![b]),
    }
}

#[cfg(test)]
mod tests;
