//! [`Text`]: what is shown to a person. Text from outside and the program's own
//! styling are different things in it, so that no escape sequence of a model, a
//! file or a tool ever reaches the terminal: only [`Text::render`] makes a string
//! of it, and writes out whatever is [hidden](is_hidden).

use std::fmt;

mod duration;
mod hidden;
mod live;
mod names;

pub use duration::duration;
pub use hidden::{Escaper, is_hidden, is_unseen, json, one_line, shown, strict};
pub use live::{Live, LiveLine, Meter};
pub use names::{choice, list, nearest, suggest};

/// How a part of a text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As the rest.
    Plain,
    /// Heavier.
    Bold,
    /// Red.
    Red,
    /// Green.
    Green,
    /// Yellow.
    Yellow,
    /// Cyan.
    Cyan,
    /// Heavier, and red.
    BoldRed,
    /// Heavier, and blue.
    BoldBlue,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
            Self::BoldRed => "1;31",
            Self::BoldBlue => "1;34",
        }
    }
}

/// A text with styles. Strings become plain text; whatever they hold, it is shown
/// and not obeyed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(Vec<(Style, String)>);

impl Text {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text without a style.
    pub fn push(&mut self, text: &str) {
        self.paint(Style::Plain, text);
    }

    /// Adds text with a style.
    pub fn paint(&mut self, style: Style, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some((last, whole)) if *last == style => whole.push_str(text),
            _ => self.0.push((style, text.to_owned())),
        }
    }

    /// Adds another one.
    pub fn append(&mut self, other: Text) {
        for (style, text) in other.0 {
            self.paint(style, &text);
        }
    }

    /// Takes the white space at its end away.
    pub fn trim_end(&mut self) {
        while let Some((_, last)) = self.0.last_mut() {
            last.truncate(last.trim_end().len());
            if !last.is_empty() {
                return;
            }
            self.0.pop();
        }
    }

    /// What goes to a terminal: hidden characters written out, styles as escape
    /// sequences if there is to be colour.
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for (at, (style, text)) in self.0.iter().enumerate() {
            // A CR that ends one part may have its LF in the next.
            let next = self.0.get(at + 1).and_then(|(_, t)| t.chars().next());
            let text = hidden::shown_before(text, next);
            if color && *style != Style::Plain {
                out.push_str(&format!("\x1b[{}m{text}\x1b[0m", style.code()));
            } else {
                out.push_str(&text);
            }
        }
        out
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut out = Self::new();
        out.push(text);
        out
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&Text> for Text {
    fn from(text: &Text) -> Self {
        text.clone()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_styles_work_and_foreign_ones_are_shown() {
        let mut text = Text::new();
        text.push("model ");
        text.paint(Style::Red, "bad\u{1b}[2J");
        text.push("\u{1b}[32mgood\n");
        assert_eq!(
            text.render(true),
            "model \u{1b}[31mbad\\u{1b}[2J\u{1b}[0m\\u{1b}[32mgood\n"
        );
        assert_eq!(text.render(false), "model bad\\u{1b}[2J\\u{1b}[32mgood\n");
    }

    #[test]
    fn a_line_ending_may_lie_across_two_styles() {
        let mut text = Text::from("a\r");
        text.paint(Style::Red, "\nb\r");
        assert_eq!(text.render(false), "a\r\nb\\r");
    }

    #[test]
    fn white_space_at_the_end_goes() {
        let mut text = Text::from("a");
        text.paint(Style::Red, " b  ");
        text.push("  \n");
        text.trim_end();
        assert_eq!(text.render(false), "a b");
    }
}
