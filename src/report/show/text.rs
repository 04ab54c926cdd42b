//! Texts of a model on a terminal: [`shorten`] to a width, and [`whole`] lines;
//! in neither can a control character reach the terminal.

use crate::text::is_hidden;

/// Shown for a newline.
const NEWLINE: &str = "⏎";

/// A text on one line, of at most `columns` of a terminal.
pub(super) fn shorten(text: &str, columns: usize) -> String {
    let mut shown = String::new();
    let mut used = 0;
    // Where the ellipsis goes, should there be more than fits.
    let mut fits = 0;
    for c in text.chars() {
        let piece = escape(c);
        used += width(&piece);
        if used > columns {
            shown.truncate(fits);
            shown.push('…');
            return shown;
        }
        shown.push_str(&piece);
        if used < columns {
            fits = shown.len();
        }
    }
    shown
}

/// A text on as many lines as it has; each newline is seen at the end of its line.
pub(super) fn whole(text: &str) -> Vec<String> {
    text.split_inclusive('\n')
        .map(|line| line.chars().map(escape).collect())
        .collect()
}

/// A character as it may be shown: what would move the cursor, change the
/// direction of writing or not be seen at all is written out.
fn escape(c: char) -> String {
    match c {
        '\n' => NEWLINE.to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        c if is_hidden(c) => c.escape_unicode().to_string(),
        c => c.to_string(),
    }
}

/// Columns that a text takes: two for the wide characters of East Asia and for
/// pictures, none for marks combined with the character before.
pub(super) fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x0300..=0x036f | 0x200c..=0x200d | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_reaches_the_terminal_but_what_can_be_seen() {
        assert_eq!(
            shorten("a\tb\r\n\u{1b}[31m\u{7}\u{202e}\u{0}é", 80),
            r"a\tb\r⏎\u{1b}[31m\u{7}\u{202e}\u{0}é"
        );
        assert_eq!(whole("one\n\ntwo\u{8}"), ["one⏎", "⏎", r"two\u{8}"]);
        assert!(whole("").is_empty());
    }

    #[test]
    fn what_is_cut_ends_with_an_ellipsis() {
        assert_eq!(shorten("12345", 5), "12345");
        assert_eq!(shorten("123456", 5), "1234…");
        // A wide character takes two columns, an escape as many as it has characters.
        assert_eq!(shorten("数学数学", 7), "数学数…");
        assert_eq!(shorten("数学数学", 6), "数学…");
        assert_eq!(shorten("ab\u{1b}", 6), "ab…");
    }

    proptest! {
        #[test]
        fn it_is_never_wider_than_asked(text in any::<String>(), columns in 1usize..60) {
            let shown = shorten(&text, columns);
            prop_assert!(width(&shown) <= columns, "{shown:?}");
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
