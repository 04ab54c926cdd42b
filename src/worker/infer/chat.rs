//! Chat templates: a query becomes the prompt that the model was trained on,
//! [`ChatTemplate::render_prompt`].
//!
//! Rendered as Hugging Face transformers does ([`jinja`]), except that
//! `strftime_now` gives a fixed day ([`day`]).
//!
//! A special token's text inside a query stays plain text: only special tokens
//! that the template wrote become one token ([`encode`]).

mod day;
mod encode;
mod jinja;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::special_tokens::SpecialTokens;
use super::token_bytes::{FolderError, TokenBytes, read_json};
use encode::Encoder;
use jinja::Template;

/// Template files larger than this are refused.
const MAX_TEMPLATE_BYTES: usize = 4 << 20;

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
        /// The file that holds it.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// The tokenizer cannot encode a text.
    #[error("{path}: the tokenizer {reason}")]
    Tokenizer {
        /// The tokenizer's file.
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
    /// The file that the template is from.
    path: PathBuf,
    source: String,
    template: Template,
    /// `bos_token` and the like, as the template may name them.
    named_tokens: Vec<(String, String)>,
    encoder: Encoder,
}

impl ChatTemplate {
    /// Reads `tokenizer.json`, the special tokens that the files beside it
    /// name, and the template: `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json` (of several, `default`).
    ///
    /// # Errors
    /// When a file is missing or broken, or there is no template.
    pub fn load(folder: &Path) -> Result<Self, ChatError> {
        let (path, source) = template_source(folder)?.ok_or_else(|| no_template(folder))?;
        let tokens = SpecialTokens::load(folder)?;
        let encoder = Encoder::load(folder, &tokens)?;
        let template = parse(&path, &source)?;
        Ok(Self {
            path,
            source,
            template,
            named_tokens: tokens.named().to_vec(),
            encoder,
        })
    }

    /// Reads the same; why there is no template to use, where only that is wrong.
    ///
    /// # Errors
    /// When a file is missing or broken.
    pub(crate) fn check(folder: &Path) -> Result<Option<ChatError>, FolderError> {
        let found = template_source(folder)?;
        Encoder::load(folder, &SpecialTokens::load(folder)?)?;
        Ok(match found {
            Some((path, source)) => parse(&path, &source).err(),
            None => Some(no_template(folder).into()),
        })
    }

    /// The prompt of one user turn, generation prompt added.
    ///
    /// # Errors
    /// When the template refuses (some allow no system message), or changes a
    /// content that has a special token's text in it, so that it is not found again.
    pub fn render_prompt(&self, system: Option<&str>, user: &str) -> Result<Prompt, ChatError> {
        let text = self.render(system, user)?;
        let messages = system.into_iter().chain([user]);
        let token_ids = if messages.clone().any(|m| self.encoder.has_special(m)) {
            let all: Vec<&str> = messages.chain([self.source.as_str()]).collect();
            let marks = Encoder::marks(&all);
            let system = system.map(|s| self.encoder.mark(s, &marks));
            let user = self.encoder.mark(user, &marks);
            let marked = self.render(system.as_deref(), &user)?;
            let ids = self.encoder.marked_prompt(&text, &marked, &marks)?;
            ids.ok_or_else(|| ChatError::Template {
                path: self.path.clone(),
                reason: "it changes a message that holds the text of a special token, so the \
                         message cannot be kept plain text; remove that text from the query"
                    .into(),
            })?
        } else {
            self.encoder.prompt(&text)?
        };
        Ok(Prompt { text, token_ids })
    }

    /// Tokens of a text that goes on within a turn, in which no special token is
    /// meant. Their bytes are the text's.
    ///
    /// # Errors
    /// When the tokenizer cannot give the text back.
    pub fn encode_within(&self, text: &str, table: &TokenBytes) -> Result<Vec<u32>, ChatError> {
        self.encoder.within(text, table)
    }

    fn render(&self, system: Option<&str>, user: &str) -> Result<String, ChatError> {
        let mut messages = Vec::new();
        if let Some(system) = system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": user}));
        self.render_messages(messages.into(), true)
    }

    /// The text of any conversation.
    pub(crate) fn render_messages(
        &self,
        messages: Value,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let mut names: Map<String, Value> = self
            .named_tokens
            .iter()
            .map(|(key, text)| (key.clone(), text.as_str().into()))
            .collect();
        names.insert("messages".into(), messages);
        names.insert("add_generation_prompt".into(), add_generation_prompt.into());
        names.insert("tools".into(), Value::Null);
        names.insert("documents".into(), Value::Null);
        self.template
            .render(&names, day::strftime)
            .map_err(|e| ChatError::Template {
                path: self.path.clone(),
                reason: e.to_string(),
            })
    }
}

fn parse(path: &Path, source: &str) -> Result<Template, ChatError> {
    Template::parse(source).map_err(|e| ChatError::Template {
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

fn no_template(folder: &Path) -> FolderError {
    FolderError::new(
        folder.join("tokenizer_config.json"),
        "the model has no chat template; put its template into chat_template.jinja in this \
         folder, or use the instruction-tuned version of the model",
    )
}

/// The template and the file that it is from, if there is one.
fn template_source(folder: &Path) -> Result<Option<(PathBuf, String)>, FolderError> {
    let path = folder.join("chat_template.jinja");
    let found = match std::fs::read_to_string(&path) {
        Ok(source) => Some((path, source)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let path = folder.join("tokenizer_config.json");
            let config = read_json(&path)?.unwrap_or_default();
            let source = match &config["chat_template"] {
                Value::Array(several) => several
                    .iter()
                    .find(|t| t["name"] == "default")
                    .and_then(|t| t["template"].as_str()),
                Value::Object(several) => several.get("default").and_then(Value::as_str),
                one => one.as_str(),
            };
            source.map(|s| (path, s.to_owned()))
        }
        Err(e) => return Err(FolderError::new(path, e.to_string())),
    };
    let Some((path, source)) = found else {
        return Ok(None);
    };
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(FolderError::new(
            path,
            format!(
                "the chat template is larger than {} MiB",
                MAX_TEMPLATE_BYTES >> 20
            ),
        ));
    }
    Ok(Some((path, source)))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tokenizer_tests;
