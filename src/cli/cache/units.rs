//! Ages and sizes in human-readable form.

use std::time::Duration;

use jiff::Timestamp;

const AGES: &str = "write an age as 90m, 12h, 30d or 8w";
const SIZES: &str = "write a size as 500MB, 50GB or 1.5TiB (1 GB is 1000 MB, 1 GiB is 1024 MiB)";

/// `90m`, `12h`, `30d`, `8w`.
///
/// # Errors
/// Returns what is wrong, with examples.
pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text, AGES)?;
    let seconds = match unit.trim_end_matches('s').to_lowercase().as_str() {
        // `s` itself has lost its only letter.
        "" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 24 * 3600,
        "w" | "week" => 7 * 24 * 3600,
        _ => return Err(format!("`{unit}` is not a unit: {AGES}")),
    };
    times(number, seconds, AGES).map(Duration::from_secs)
}

/// `500MB`, `50GB`, `1.5TiB`: bytes. 0 needs no unit.
///
/// # Errors
/// Returns what is wrong, with examples.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let (number, unit) = split(text, SIZES)?;
    let bytes = match unit.to_lowercase().as_str() {
        "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(format!("`{unit}` is not a unit: {SIZES}")),
    };
    times(number, bytes, SIZES)
}

/// Number and unit.
fn split<'a>(text: &'a str, examples: &str) -> Result<(&'a str, &'a str), String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    if number.is_empty() {
        return Err(format!("it does not begin with a number: {examples}"));
    }
    if unit.is_empty() {
        return Err(format!("it has no unit: {examples}"));
    }
    Ok((number, unit))
}

fn times(number: &str, unit: u64, examples: &str) -> Result<u64, String> {
    let wrong = || format!("`{number}` is not a number: {examples}");
    if number.contains('.') {
        let number: f64 = number.parse().map_err(|_| wrong())?;
        // Saturates: such a large value is as good as no limit.
        return Ok((number * unit as f64).round() as u64);
    }
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    Ok(number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .unwrap_or(u64::MAX))
}

/// `512 B`, `1.5 KiB`, `12.3 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1024.0 of a unit is shown as 1.0 of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `just now`, `5 minutes ago`, `3 days ago`.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    if seconds < 60 {
        return "just now".to_owned();
    }
    let (count, unit) = match seconds {
        ..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..5_184_000 => (seconds / 86_400, "day"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{} ago", counted(count.unsigned_abs() as usize, unit))
}

/// `30 days`, `12 hours`, `90 minutes`: in the largest unit that gives a whole number.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (unit, name) = [(86_400, "day"), (3600, "hour"), (60, "minute")]
        .into_iter()
        .find(|(unit, _)| seconds.is_multiple_of(*unit) && seconds > 0)
        .unwrap_or((1, "second"));
    counted((seconds / unit) as usize, name)
}

/// `1 blob`, `12,345 blobs`; a plural other than with `s` is written `entry|entries`.
pub(super) fn counted(count: usize, name: &str) -> String {
    let (one, many) = match name.split_once('|') {
        Some((one, many)) => (one.to_owned(), many.to_owned()),
        None => (name.to_owned(), format!("{name}s")),
    };
    let digits = count.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_with_their_unit() {
        let seconds = |text| parse_age(text).map(|d| d.as_secs());
        assert_eq!(seconds("45s"), Ok(45));
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("1.5h"), Ok(5400));
        assert_eq!(seconds("30d"), Ok(30 * 86_400));
        assert_eq!(seconds("2 weeks"), Ok(14 * 86_400));
        assert_eq!(seconds("0d"), Ok(0));
        for wrong in ["", "d", "30", "-3d", "1.2.3d", "3 potatoes", "30d12h"] {
            assert!(seconds(wrong).unwrap_err().ends_with(AGES), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("512B"), Ok(512));
        assert_eq!(parse_size("50GB"), Ok(50_000_000_000));
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_size("2tib"), Ok(2 << 40));
        assert_eq!(parse_size("99999999999TB"), Ok(u64::MAX));
        for wrong in ["", "GB", "50", "50G", "-1GB", "1..5GB"] {
            assert!(parse_size(wrong).unwrap_err().ends_with(SIZES), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_in_powers_of_1024() {
        let shown = [0, 1023, 1024, 1_048_575, 5 << 20, 13_207_024_435, u64::MAX].map(size);
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.0 MiB",
                "5.0 MiB",
                "12.3 GiB",
                "16777216.0 TiB"
            ]
        );
    }

    #[test]
    fn spans_are_shown_in_their_largest_unit() {
        let shown = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(shown(30 * 86_400), "30 days");
        assert_eq!(shown(36 * 3600), "36 hours");
        assert_eq!(shown(60), "1 minute");
        assert_eq!(shown(0), "0 seconds");
    }

    #[test]
    fn ages_are_shown_in_words() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let shown = [
            5,
            60,
            3 * 3600,
            86_400,
            59 * 86_400,
            61 * 86_400,
            800 * 86_400,
            -90,
        ]
        .map(|seconds| age(now - jiff::SignedDuration::from_secs(seconds), now));
        assert_eq!(
            shown,
            [
                "just now",
                "1 minute ago",
                "3 hours ago",
                "1 day ago",
                "59 days ago",
                "2 months ago",
                "2 years ago",
                "just now"
            ]
        );
        assert_eq!(counted(1_234_567, "blob"), "1,234,567 blobs");
        assert_eq!(counted(1, "entry|entries"), "1 entry");
    }
}
