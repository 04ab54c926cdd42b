//! From a rendered prompt to tokens: [`Encoder`].
//!
//! A special token's text inside a message stays text. So the special tokens
//! that the template wrote are replaced by characters of private use, which the
//! tokenizer knows in their place, and the special tokens themselves are
//! switched off. The prompt is encoded in one go: a tokenizer looks at where in
//! the whole text a piece begins.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use tokenizers::{AddedToken, Tokenizer};

use super::super::special_tokens::SpecialTokens;
use super::super::token_bytes::{FolderError, TokenBytes};
use super::ChatError;

/// The first of the characters that replace special tokens.
const FIRST_SIGN: u32 = 0xF_0000;

/// What a text may follow when it is tokenised within a turn: a
/// SentencePiece tokenizer puts a blank before a text that begins a prompt.
const ANCHORS: [&str; 4] = ["", "\n", "a", "."];

/// A special token's text and the character that replaces it.
#[derive(Debug)]
struct Special {
    text: String,
    sign: char,
}

/// A model's tokenizer, for whole prompts and for plain text.
#[derive(Debug)]
pub(super) struct Encoder {
    folder: PathBuf,
    /// Makes one token of a special token's text.
    tokenizer: Tokenizer,
    /// Makes one token of a sign, and takes a special token's text for what it is.
    plain: Tokenizer,
    /// The longest first, as they are found.
    specials: Vec<Special>,
    /// Whether a special token's text begins with this byte.
    first: [bool; 256],
    ids: HashSet<u32>,
    /// Special tokens by their signs' ids.
    of_sign: HashMap<u32, u32>,
    /// Stands for what the vocabulary lacks, wherever it is.
    unknown: Option<u32>,
    /// The largest id that `tokenizer.json` knows.
    largest: u32,
}

/// The marks around a special token's text inside a message.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    begin: String,
    end: String,
}

impl Encoder {
    pub(super) fn load(folder: &Path, named: &SpecialTokens) -> Result<Self, FolderError> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|e| FolderError::new(&path, e.to_string()))?;
        let wrong = |e: tokenizers::Error| FolderError::new(&path, format!("cannot be read: {e}"));
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(wrong)?;
        // A prompt is neither cut nor filled up, whatever the file sets.
        tokenizer.with_truncation(None).map_err(wrong)?;
        tokenizer.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let known: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
        tokenizer.add_tokens(&named.beside(&known));
        let vocabulary = tokenizer.get_added_vocabulary();
        let mut tokens: Vec<(u32, AddedToken)> = vocabulary
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, t)| !t.content.is_empty() && vocabulary.is_special_token(&t.content))
            .map(|(id, token)| (*id, token.clone()))
            .collect();
        tokens.sort_by(|(a_id, a), (b_id, b)| {
            let longer = b.content.len().cmp(&a.content.len());
            longer.then_with(|| (&a.content, a_id).cmp(&(&b.content, b_id)))
        });
        let signs: Vec<char> = (FIRST_SIGN..)
            .filter_map(char::from_u32)
            .take(tokens.len())
            .collect();
        let mut plain = tokenizer.clone();
        plain.set_encode_special_tokens(true);
        let added: Vec<AddedToken> = tokens
            .iter()
            .zip(&signs)
            .map(|((_, token), sign)| AddedToken {
                content: sign.to_string(),
                special: false,
                ..token.clone()
            })
            .collect();
        plain.add_tokens(&added);
        let mut first = [false; 256];
        let (mut ids, mut of_sign) = (HashSet::new(), HashMap::new());
        let mut specials = Vec::new();
        for ((id, token), sign) in tokens.into_iter().zip(signs) {
            let text = token.content;
            if let Some(byte) = text.bytes().next() {
                first[usize::from(byte)] = true;
            }
            ids.insert(id);
            if let Some(sign_id) = plain.token_to_id(&sign.to_string()) {
                of_sign.insert(sign_id, id);
            }
            specials.push(Special { text, sign });
        }
        let unknown = named
            .text("unk_token")
            .and_then(|text| tokenizer.token_to_id(text));
        Ok(Self {
            folder: folder.to_path_buf(),
            tokenizer,
            plain,
            specials,
            first,
            ids,
            of_sign,
            unknown,
            largest,
        })
    }

    fn error(&self, reason: impl Into<String>) -> ChatError {
        ChatError::Tokenizer {
            path: self.folder.join("tokenizer.json"),
            reason: reason.into(),
        }
    }

    fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ChatError> {
        tokenizer
            .encode(text, false)
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| self.error(e.to_string()))
    }

    /// The special token that `text` begins with.
    fn special_at(&self, text: &str) -> Option<&Special> {
        if !text
            .bytes()
            .next()
            .is_some_and(|b| self.first[usize::from(b)])
        {
            return None;
        }
        self.specials.iter().find(|s| text.starts_with(&s.text))
    }

    /// Whether a text holds that of a special token.
    pub(super) fn has_special(&self, text: &str) -> bool {
        self.specials.iter().any(|s| text.contains(&s.text))
    }

    /// Special tokens among these, not counting the unknown one.
    fn count(&self, ids: &[u32]) -> usize {
        let special = |id: &&u32| Some(**id) != self.unknown && self.ids.contains(*id);
        ids.iter().filter(special).count()
    }

    /// Marks that none of these texts holds.
    pub(super) fn marks(texts: &[&str]) -> Marks {
        let mut n = 1;
        loop {
            let mark = |last: &str| format!("{}{last}", "\u{E000}".repeat(n));
            let (begin, end) = (mark("\u{E001}"), mark("\u{E002}"));
            if !texts.iter().any(|t| t.contains(&begin) || t.contains(&end)) {
                return Marks { begin, end };
            }
            n += 1;
        }
    }

    /// A message with marks around what would be special tokens.
    pub(super) fn mark(&self, message: &str, marks: &Marks) -> String {
        let mut out = String::with_capacity(message.len());
        let mut rest = message;
        while let Some(c) = rest.chars().next() {
            let len = match self.special_at(rest) {
                Some(special) => {
                    out.push_str(&marks.begin);
                    out.push_str(&special.text);
                    out.push_str(&marks.end);
                    special.text.len()
                }
                None => {
                    out.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[len..];
        }
        out
    }

    /// Tokens of a prompt whose messages hold no special token's text.
    pub(super) fn prompt(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        let ids = self.encode(&self.tokenizer, text)?;
        // A normalizer may make a special token of other text, such as `<S>`.
        let written = self.sign(text, None).1;
        let ids = if self.count(&ids) > written {
            self.signed(&self.sign(text, None).0, written)?
        } else {
            ids
        };
        self.known(ids)
    }

    /// Tokens of a prompt in whose messages special tokens' texts are marked;
    /// none if the marks changed what the template wrote.
    pub(super) fn marked_prompt(
        &self,
        text: &str,
        marked: &str,
        marks: &Marks,
    ) -> Result<Option<Vec<u32>>, ChatError> {
        if marked.replace(&marks.begin, "").replace(&marks.end, "") != text {
            return Ok(None);
        }
        let (signed, written) = self.sign(marked, Some(marks));
        self.signed(&signed, written)
            .and_then(|ids| self.known(ids))
            .map(Some)
    }

    /// A prompt with a sign for each special token that the template wrote, and
    /// their number; marks are dropped.
    fn sign(&self, text: &str, marks: Option<&Marks>) -> (String, usize) {
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut written, mut inside) = (text, 0, false);
        while let Some(c) = rest.chars().next() {
            if let Some(marks) = marks {
                let mark = [(&marks.begin, true), (&marks.end, false)]
                    .into_iter()
                    .find(|(mark, _)| rest.starts_with(mark.as_str()));
                if let Some((mark, begins)) = mark {
                    inside = begins;
                    rest = &rest[mark.len()..];
                    continue;
                }
            }
            if let Some(special) = self.special_at(rest).filter(|_| !inside) {
                out.push(special.sign);
                written += 1;
                rest = &rest[special.text.len()..];
            } else {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        (out, written)
    }

    /// Tokens of a text with signs.
    fn signed(&self, text: &str, written: usize) -> Result<Vec<u32>, ChatError> {
        let mut ids = self.encode(&self.plain, text)?;
        if self.count(&ids) > 0 {
            return Err(self.error(
                "makes a special token of plain text; remove that token's text from the query",
            ));
        }
        let mut found = 0;
        for id in &mut ids {
            if let Some(special) = self.of_sign.get(id) {
                *id = *special;
                found += 1;
            }
        }
        if found != written {
            return Err(self.error(
                "cannot keep the template's special tokens apart from a message that holds the \
                 text of one; remove that text from the query",
            ));
        }
        Ok(ids)
    }

    /// Refuses a token that is named beside the tokenizer and that it does not have.
    fn known(&self, ids: Vec<u32>) -> Result<Vec<u32>, ChatError> {
        let Some(id) = ids.iter().find(|id| **id > self.largest) else {
            return Ok(ids);
        };
        let text = self.tokenizer.id_to_token(*id).unwrap_or_default();
        Err(self.error(format!(
            "has no token {text:?}, which the chat template writes; add it there, with its row of \
             the weights"
        )))
    }

    /// Tokens of a text that goes on within a turn: their bytes are the text's.
    pub(super) fn within(&self, text: &str, table: &TokenBytes) -> Result<Vec<u32>, ChatError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        for anchor in ANCHORS {
            let ids = self.encode(&self.plain, &format!("{anchor}{text}"))?;
            if self.count(&ids) > 0 || ids.iter().any(|id| *id > self.largest) {
                continue;
            }
            let mut left = text.as_bytes();
            for (i, id) in ids.iter().enumerate().rev() {
                let Some(before) = left.strip_suffix(table.bytes(*id)) else {
                    break;
                };
                left = before;
                if left.is_empty() {
                    return Ok(ids[i..].to_vec());
                }
            }
        }
        Err(self.error(format!(
            "has no tokens that give the text {text:?} back after a prompt"
        )))
    }
}
