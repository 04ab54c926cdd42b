//! Between text and tokens, as the stages need it: [`Text`].

/// What a model's folder says of text.
pub trait Text {
    /// The chat prompt of a user turn (and a system turn), generation prompt
    /// included: its text and its tokens. The error says why there is none.
    fn render(&self, system: Option<&str>, user: &str) -> Result<(String, Vec<u32>), String>;

    /// Tokens of a text that goes on within a turn.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// Text of some tokens; special tokens have none.
    fn decode(&self, tokens: &[u32]) -> String;
}
