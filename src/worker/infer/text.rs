//! Between text and tokens, as the stages need it: [`Text`], and a model
//! folder's own, [`ModelText`].

use std::path::Path;

use super::chat::ChatTemplate;
use super::token_bytes::TokenBytes;
use genius::protocol::Failure;

/// How a model's folder turns texts into tokens and back.
pub trait Text {
    /// The chat prompt of a user turn (and a system turn), generation prompt
    /// included: its text and its tokens. The error is why there is none.
    fn render(&self, system: Option<&str>, user: &str) -> Result<(String, Vec<u32>), String>;

    /// Tokens of a text that goes on within a turn: decoded after a prompt they
    /// give it back. The error is why they cannot.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// Text of some tokens; special tokens have none.
    fn decode(&self, tokens: &[u32]) -> String;
}

/// A model folder's tokenizer and chat template.
pub struct ModelText {
    template: ChatTemplate,
    bytes: TokenBytes,
}

impl ModelText {
    /// Reads the tokenizer and the template of a model folder.
    ///
    /// # Errors
    /// When a file is missing or broken, or there is no template.
    pub fn load(folder: &Path) -> Result<Self, Failure> {
        Ok(Self {
            template: ChatTemplate::load(folder)?,
            bytes: TokenBytes::load(folder).map_err(|e| Failure::new(e.to_string()))?,
        })
    }
}

impl Text for ModelText {
    fn render(&self, system: Option<&str>, user: &str) -> Result<(String, Vec<u32>), String> {
        let prompt = self
            .template
            .render_prompt(system, user)
            .map_err(|e| e.to_string())?;
        Ok((prompt.text, prompt.token_ids))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.template
            .encode_within(text, &self.bytes)
            .map_err(|e| e.to_string())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        self.bytes.decode(tokens)
    }
}
