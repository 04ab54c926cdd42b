//! The day of `strftime_now`: [`strftime`]. It is a fixed one, since a prompt
//! must not change overnight.

/// The day that Llama 3's template falls back to.
const TODAY: jiff::civil::Date = jiff::civil::date(2024, 7, 26);

/// The day as Python's `strftime` writes it.
pub(super) fn strftime(format: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = String::from('%');
        let mut kind = chars.next();
        if let Some('-') = kind {
            directive.push('-');
            kind = chars.next();
        }
        let unknown = || format!("`{format}` for strftime_now");
        let kind = kind.ok_or_else(unknown)?;
        directive.push(kind);
        match kind {
            '%' => out.push('%'),
            // Microseconds; and of a time without a zone Python writes nothing.
            'f' => out.push_str("000000"),
            'z' | 'Z' => {}
            'a' | 'A' | 'b' | 'B' | 'd' | 'e' | 'F' | 'H' | 'I' | 'j' | 'm' | 'M' | 'p' | 'S'
            | 'T' | 'u' | 'U' | 'w' | 'W' | 'y' | 'Y' | 'D' | 'R' | 'G' | 'V' => {
                let part = jiff::fmt::strtime::format(&directive, TODAY.at(0, 0, 0, 0))
                    .map_err(|_| unknown())?;
                out.push_str(&part);
            }
            _ => return Err(unknown()),
        }
    }
    Ok(out)
}
