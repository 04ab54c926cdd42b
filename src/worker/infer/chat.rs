//! Chat templates: a query becomes the prompt that the model was trained on,
//! [`ChatTemplate::render_prompt`].
//!
//! Rendered as Hugging Face transformers does (Jinja with `trim_blocks` and
//! `lstrip_blocks`, Python's string methods), except that `strftime_now` gives
//! a fixed day: a prompt must not change overnight.
//!
//! A special token's text inside a query stays plain text: only special tokens
//! that the template wrote become one token.

mod json;

use std::path::{Path, PathBuf};

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};
use tokenizers::Tokenizer;

use super::token_bytes::{FolderError, read_json, special_text};

/// The day of `strftime_now`: the one that Llama 3's template falls back to.
const TODAY: jiff::civil::Date = jiff::civil::date(2024, 7, 26);

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its text, special tokens written out.
    pub text: String,
    /// Its tokens.
    pub token_ids: Vec<u32>,
}

/// Why a query cannot be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A file of the model folder is missing or broken.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The template refuses these messages, or does not render.
    #[error("chat template of {path}: {reason}")]
    Template {
        /// Model folder.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// The tokenizer cannot encode a text.
    #[error("tokenizer of {path}: {reason}")]
    Tokenizer {
        /// Model folder.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
}

impl From<ChatError> for genius::protocol::Failure {
    fn from(e: ChatError) -> Self {
        Self::new(e.to_string())
    }
}

/// A model's chat template and tokenizer.
#[derive(Debug)]
pub struct ChatTemplate {
    folder: PathBuf,
    source: String,
    /// `bos_token` and the like, as the template may name them.
    named_tokens: Vec<(&'static str, String)>,
    /// Makes one token of a special token's text.
    tokenizer: Tokenizer,
    /// Takes such text for what it is.
    plain: Tokenizer,
    /// Text and id of the special tokens, the longest first.
    specials: Vec<(String, u32)>,
}

/// A rendered message's content: where its text goes in the template's output.
struct Slot<'a> {
    mark: String,
    content: &'a str,
}

impl ChatTemplate {
    /// Reads `tokenizer.json` and the template: `chat_template.jinja`, else
    /// `chat_template` of `tokenizer_config.json` (of several, `default`).
    ///
    /// # Errors
    /// When a file is missing or broken, or there is no template.
    pub fn load(folder: &Path) -> Result<Self, ChatError> {
        let config_path = folder.join("tokenizer_config.json");
        let config = read_json(&config_path)?.unwrap_or_default();
        let source = template_source(folder, &config)?.ok_or_else(|| {
            FolderError::new(
                &config_path,
                "the model has no chat template; put its template into chat_template.jinja in \
                 this folder, or use the instruction-tuned version of the model",
            )
        })?;
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|e| FolderError::new(&path, e.to_string()))?;
        let tokenizer = Tokenizer::from_bytes(&bytes)
            .map_err(|e| FolderError::new(&path, format!("cannot be read: {e}")))?;
        let mut plain = tokenizer.clone();
        plain.set_encode_special_tokens(true);
        let mut specials: Vec<(String, u32)> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (token.content, id))
            .collect();
        specials.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        let named_tokens = ["bos_token", "eos_token", "unk_token", "pad_token"]
            .into_iter()
            .filter_map(|key| Some((key, special_text(&config, key)?.to_owned())))
            .collect();
        let template = Self {
            folder: folder.to_path_buf(),
            source,
            named_tokens,
            tokenizer,
            plain,
            specials,
        };
        // A template that cannot be parsed is reported now.
        template.environment()?;
        Ok(template)
    }

    /// The prompt of one user turn, generation prompt added.
    ///
    /// # Errors
    /// When the template refuses (some allow no system message), or changes a
    /// content that has a special token's text in it, so that it is not found again.
    pub fn render_prompt(&self, system: Option<&str>, user: &str) -> Result<Prompt, ChatError> {
        let text = self.render(system, user)?;
        let tricky = system
            .into_iter()
            .chain([user])
            .any(|c| self.has_special(c));
        let token_ids = if tricky {
            self.encode_apart(&text, system, user)?
        } else {
            self.encode(&self.tokenizer, &text)?
        };
        Ok(Prompt { text, token_ids })
    }

    /// Tokens of a text in which no special token is meant.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        self.encode(&self.plain, text)
    }

    fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ChatError> {
        tokenizer
            .encode(text, false)
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| ChatError::Tokenizer {
                path: self.folder.clone(),
                reason: e.to_string(),
            })
    }

    fn has_special(&self, text: &str) -> bool {
        self.specials.iter().any(|(s, _)| text.contains(s.as_str()))
    }

    /// Encodes `text`, the rendered prompt, with special tokens only where the
    /// template wrote them: it is rendered once more with marks for the
    /// contents. What stands between two special tokens is encoded in one go,
    /// template text and content together, as the tokenizer itself would.
    fn encode_apart(
        &self,
        text: &str,
        system: Option<&str>,
        user: &str,
    ) -> Result<Vec<u32>, ChatError> {
        let all = [system.unwrap_or_default(), user, &self.source].concat();
        let slots: Vec<Slot> = [("s", system), ("u", Some(user))]
            .into_iter()
            .filter_map(|(role, content)| {
                let content = content?;
                // Private-use characters; more of them until it is unique.
                let mut mark = format!("\u{E000}{role}\u{E001}");
                while all.contains(&mark) {
                    mark.insert(0, '\u{E000}');
                }
                Some(Slot { mark, content })
            })
            .collect();
        let mark = |i: usize| slots.get(i).map(|s| s.mark.as_str());
        let marked = match system {
            Some(_) => self.render(mark(0), mark(1).unwrap_or_default())?,
            None => self.render(None, mark(0).unwrap_or_default())?,
        };
        // Some templates trim the contents.
        for trim in [false, true] {
            let (ids, rebuilt) = self.encode_marked(&marked, &slots, trim)?;
            if rebuilt == text {
                return Ok(ids);
            }
        }
        Err(self.template_error(
            "it changes a message that holds the text of a special token, so the message cannot \
             be kept plain text; remove that text from the query"
                .into(),
        ))
    }

    /// Tokens of a marked rendering with the contents filled in, and its text.
    fn encode_marked(
        &self,
        marked: &str,
        slots: &[Slot],
        trim: bool,
    ) -> Result<(Vec<u32>, String), ChatError> {
        let mut ids = Vec::new();
        let mut rebuilt = String::new();
        let mut span = String::new();
        let mut rest = marked;
        while let Some(c) = rest.chars().next() {
            if let Some(slot) = slots.iter().find(|s| rest.starts_with(&s.mark)) {
                let content = if trim {
                    slot.content.trim()
                } else {
                    slot.content
                };
                span.push_str(content);
                rebuilt.push_str(content);
                rest = &rest[slot.mark.len()..];
            } else if let Some((special, id)) = self
                .specials
                .iter()
                .find(|(s, _)| rest.starts_with(s.as_str()))
            {
                ids.extend(self.encode_plain(&span)?);
                span.clear();
                ids.push(*id);
                rebuilt.push_str(special);
                rest = &rest[special.len()..];
            } else {
                span.push(c);
                rebuilt.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        ids.extend(self.encode_plain(&span)?);
        Ok((ids, rebuilt))
    }

    fn render(&self, system: Option<&str>, user: &str) -> Result<String, ChatError> {
        let mut messages = Vec::new();
        if let Some(system) = system {
            messages.push(context! { role => "system", content => system });
        }
        messages.push(context! { role => "user", content => user });
        let named: Value = self
            .named_tokens
            .iter()
            .map(|(key, text)| (*key, Value::from(text.as_str())))
            .collect();
        self.environment()?
            .get_template("chat")
            .and_then(|t| {
                t.render(context! {
                    messages,
                    add_generation_prompt => true,
                    tools => Value::from(()),
                    documents => Value::from(()),
                    ..named
                })
            })
            .map_err(|e| self.template_error(format!("{e:#}")))
    }

    fn environment(&self) -> Result<Environment<'_>, ChatError> {
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", raise_exception);
        env.add_function("strftime_now", strftime_now);
        env.add_filter("tojson", json::tojson);
        env.add_template("chat", &self.source)
            .map_err(|e| self.template_error(format!("{e:#}")))?;
        Ok(env)
    }

    fn template_error(&self, reason: String) -> ChatError {
        ChatError::Template {
            path: self.folder.clone(),
            reason,
        }
    }
}

/// The template's source in the dialect of minijinja.
fn template_source(
    folder: &Path,
    config: &serde_json::Value,
) -> Result<Option<String>, FolderError> {
    let path = folder.join("chat_template.jinja");
    let source = match std::fs::read_to_string(&path) {
        Ok(source) => Some(source),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => match &config["chat_template"] {
            serde_json::Value::Array(several) => several
                .iter()
                .find(|t| t["name"] == "default")
                .and_then(|t| t["template"].as_str())
                .map(str::to_owned),
            one => one.as_str().map(str::to_owned),
        },
        Err(e) => return Err(FolderError::new(path, e.to_string())),
    };
    // Marks of transformers for its masks, which print nothing, and a Python
    // slice that minijinja lacks.
    Ok(source.map(|s| {
        let s = [
            "{% generation %}",
            "{%- generation %}",
            "{%- generation -%}",
            "{% generation -%}",
        ]
        .iter()
        .fold(s, |s, mark| {
            s.replace(mark, &mark.replace("generation", "if true"))
        });
        let s = [
            "{% endgeneration %}",
            "{%- endgeneration %}",
            "{%- endgeneration -%}",
            "{% endgeneration -%}",
        ]
        .iter()
        .fold(s, |s, mark| {
            s.replace(mark, &mark.replace("endgeneration", "endif"))
        });
        s.replace("[::-1]", "|reverse")
    }))
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(&format, TODAY.at(0, 0, 0, 0))
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

#[cfg(test)]
mod tests;
