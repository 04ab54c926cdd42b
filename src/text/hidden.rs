//! Which characters a terminal would obey, or not show at all, and how they are
//! written out.

use std::borrow::Cow;

/// Whether a character must not reach a terminal: it would move the cursor, change
/// the direction of writing, or end a line unseen. Newline and tab may.
pub fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // C0, DEL and C1
        c if c.is_control() => true,
        // marks, embeddings, overrides and isolates of direction
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        // zero-width space, separators of lines and paragraphs, invisible operators,
        // a byte order mark, marks of annotations, tags
        '\u{180e}'
        | '\u{200b}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Whether a character cannot be seen, or looks like a blank: besides the
/// [hidden](is_hidden) ones joiners, variation selectors, fillers and the blanks of
/// Unicode. Text of people has some of these; a command that somebody is to judge
/// must not.
pub fn is_unseen(c: char) -> bool {
    is_hidden(c)
        || matches!(c,
            '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{1680}'
            | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}'
            | '\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{2800}' | '\u{3000}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text as it may be shown: `\u{1b}` for an escape character. Newlines and tabs
/// stay; of carriage returns those before a newline.
pub fn shown(text: &str) -> Cow<'_, str> {
    shown_before(text, None)
}

/// The same of a text that `next` follows.
pub(super) fn shown_before(text: &str, next: Option<char>) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\r' && rest.peek().copied().or(next) == Some('\n') {
            out.push(c);
        } else if is_hidden(c) {
            write_out(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A text on one line: newlines and tabs are written out too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    each(text, |c| is_hidden(c) || c == '\n' || c == '\t')
}

/// A text that somebody is to judge: whatever cannot be seen is written out, but
/// for plain blanks and newlines.
pub fn strict(text: &str) -> Cow<'_, str> {
    each(text, |c| is_unseen(c) || c == '\t')
}

/// JSON that a terminal only shows: the same value, in which hidden characters
/// stand as JSON's own escapes.
pub fn json(text: &str) -> Cow<'_, str> {
    // Between its strings JSON has newlines and blanks only.
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn each(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            write_out(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn write_out(out: &mut String, c: char) {
    match c {
        '\r' => out.push_str("\\r"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        c => out.extend(c.escape_unicode()),
    }
}

/// Makes bytes that come piece by piece fit to be shown, wherever they are cut.
/// What is not UTF-8 is written as `\x9b`.
#[derive(Debug, Default)]
pub struct Escaper {
    /// The beginning of a character, or a carriage return whose successor is not known.
    pending: Vec<u8>,
}

impl Escaper {
    /// What can be shown by now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.pending);
        let mut keep = incomplete(&bytes);
        if keep == 0 && bytes.last() == Some(&b'\r') {
            keep = 1;
        }
        let (now, later) = bytes.split_at(bytes.len() - keep);
        self.pending = later.to_vec();
        lossless(now)
    }

    /// The rest.
    pub fn finish(&mut self) -> String {
        lossless(&std::mem::take(&mut self.pending))
    }
}

/// Bytes at the end that may begin a character of UTF-8.
fn incomplete(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

fn lossless(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of each kind of character that a terminal obeys or hides.
    const HOSTILE: [char; 20] = [
        '\u{0}',
        '\u{7}',
        '\u{8}',
        '\u{b}',
        '\u{c}',
        '\u{e}',
        '\u{1b}',
        '\u{7f}',
        '\u{80}',
        '\u{85}',
        '\u{90}',
        '\u{9b}',
        '\u{9d}',
        '\u{9f}',
        '\u{61c}',
        '\u{200f}',
        '\u{202e}',
        '\u{2028}',
        '\u{2066}',
        '\u{e0041}',
    ];

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        for c in HOSTILE {
            let text = format!("a{c}b\tc\n");
            let expected = format!("a{}b\tc\n", c.escape_unicode());
            assert_eq!(shown(&text), expected);
            assert!(!one_line(&text).contains(['\n', '\t', c]));
            assert!(!strict(&text).contains(c));
        }
        assert_eq!(shown("10%\r20%\r\nend\r"), "10%\\r20%\r\nend\\r");
        assert_eq!(one_line("a\r\nb"), "a\\r\\nb");
    }

    #[test]
    fn text_of_people_stays_as_it_is() {
        for text in [
            "Straße, 数学, שלום, हिन्दी",
            "👩\u{200d}🔬 ⏎ … └─",
            "می\u{200c}خواهم",
            "a\tb\n",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_written_out_for_a_judge() {
        for c in [
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{a0}',
            '\u{3000}',
            '\u{ad}',
            '\u{fe0f}',
            '\u{3164}',
            '\u{2800}',
            '\u{feff}',
            '\u{e0100}',
            '\u{2007}',
            '\u{115f}',
            '\t',
        ] {
            assert!(!strict(&format!("a{c}b")).contains(c), "{c:?}");
        }
        assert_eq!(strict("a b\nc"), "a b\nc");
    }

    #[test]
    fn json_means_the_same_and_hides_nothing() {
        for c in HOSTILE.into_iter().chain(['\r', '\n', '"', '\\', 'é']) {
            let value = serde_json::json!({ "a": format!("x{c}y") });
            for text in [value.to_string(), format!("{value:#}")] {
                let safe = json(&text);
                assert!(!safe.contains(is_hidden), "{safe:?}");
                let back: serde_json::Value = serde_json::from_str(&safe).unwrap();
                assert_eq!(back, value);
            }
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_written_out() {
        let mut escaper = Escaper::default();
        let mut out = escaper.push(b"a\xff\x9b2J\xc3");
        out.push_str(&escaper.push(b"\xa9\r"));
        out.push_str(&escaper.push(b"\nend\xe2\x80"));
        out.push_str(&escaper.finish());
        assert_eq!(out, "a\\xff\\x9b2Jé\r\nend\\xe2\\x80");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(text in any::<String>()) {
            prop_assert!(!shown(&text).replace("\r\n", "").contains(is_hidden));
            prop_assert!(!one_line(&text).contains(is_hidden));
            prop_assert!(!strict(&text).contains(is_unseen));
        }

        #[test]
        fn where_bytes_are_cut_changes_nothing(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let whole = {
                let mut escaper = Escaper::default();
                escaper.push(&bytes) + &escaper.finish()
            };
            let (one, two) = bytes.split_at(at.index(bytes.len() + 1));
            let mut escaper = Escaper::default();
            let cut = escaper.push(one) + &escaper.push(two) + &escaper.finish();
            prop_assert_eq!(whole, cut);
        }
    }
}
