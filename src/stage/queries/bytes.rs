//! From a file to its text: [`read`]. Packed files, tables of other programs and
//! other encodings are recognised by their bytes, whatever the file's name is.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::protocol::Failure;

/// The limit of an unpacked file: a few kilobytes of gzip can expand to gigabytes.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// A file's text, without a byte order mark.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// The file's name, without the extension of a packed file.
    pub(super) name: PathBuf,
}

/// Reads a file, unpacking gzip.
pub(super) fn read(path: &Path) -> Result<Text, Failure> {
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::new(format!("cannot read {}: {e}", path.display()))
            .hint("`source.path` must be a file of queries that can be read")
    })?;
    let (bytes, name) = if bytes.starts_with(b"\x1f\x8b") {
        let packed = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let name = if packed {
            path.with_extension("")
        } else {
            path.to_owned()
        };
        (unpack(path, &bytes, MAX_UNPACKED_BYTES)?, name)
    } else {
        (bytes, path.to_owned())
    };
    let text = decode(path, bytes)?;
    Ok(Text { text, name })
}

/// Unpacks gzip, at most `limit` bytes.
pub(super) fn unpack(path: &Path, packed: &[u8], limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(packed)
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| {
            Failure::new(format!("{}: damaged gzip: {e}", path.display()))
                .hint("`gzip -t FILE` checks it; fetch or pack the file again")
        })?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(format!(
            "{}: unpacks to more than {limit} bytes",
            path.display()
        ))
        .hint("unpack it first, with gunzip"));
    }
    Ok(bytes)
}

fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    let at = path.display();
    if let Some((what, remedy)) = foreign(path, &bytes) {
        return Err(Failure::new(format!("{at}: {what}, not a text file")).hint(remedy));
    }
    if let Some(encoding) = wide_encoding(&bytes) {
        return Err(
            Failure::new(format!("{at}: {encoding} text, not UTF-8")).hint(format!(
                "convert it first: `iconv -f {encoding} -t UTF-8 {} > OUT`",
                shown(path)
            )),
        );
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let bytes = e.as_bytes();
        let line_start = bytes[..good]
            .iter()
            .rposition(|b| matches!(b, b'\n' | b'\r'))
            .map_or(0, |end| end + 1);
        Failure::new(format!(
            "{at}, line {}, byte {} of the line (0x{:02X}): not UTF-8 text",
            line_of(&bytes[..good]),
            good - line_start + 1,
            bytes[good],
        ))
        .hint(format!(
            "convert it first; if it is Latin-1 or Windows-1252: `iconv -f WINDOWS-1252 -t UTF-8 {} > OUT`",
            shown(path)
        ))
    })?;
    if let Some(nul) = text.find('\0') {
        let line = line_of(&text.as_bytes()[..nul]);
        return Err(Failure::new(format!(
            "{at}, line {line}: a zero byte, so not a text file"
        ))
        .hint("a file of queries is JSONL, JSON, CSV, TSV or plain text in UTF-8"));
    }
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// The line, from 1, that follows these bytes. Lines end in LF, CR LF or CR.
pub(super) fn line_of(before: &[u8]) -> u64 {
    let mut line = 1;
    for (i, &b) in before.iter().enumerate() {
        let ends = b == b'\n' || (b == b'\r' && before.get(i + 1) != Some(&b'\n'));
        line += u64::from(ends);
    }
    line
}

/// What a file is that is not text, and how to make text of it.
fn foreign(path: &Path, bytes: &[u8]) -> Option<(&'static str, String)> {
    let file = shown(path);
    let python = |code: &str| {
        format!("convert it first: `python3 -c \"{code}\"`")
            .replace("IN", &file)
            .replace("OUT", "queries.jsonl")
    };
    let pandas = |reader: &str| {
        python(&format!(
            "import pandas; pandas.{reader}('IN').to_json('OUT', orient='records', lines=True)"
        ))
    };
    let is = |magic: &[u8]| bytes.starts_with(magic);
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    let workbook = (is(b"PK\x03\x04") || is(b"PK\x05\x06")) && holds(b"xl/workbook");
    if let Some((what, tool)) = packed(bytes).filter(|_| !workbook) {
        return Some((what, format!("unpack it first: `{tool} {file}`")));
    }
    let found = if workbook {
        ("an Excel workbook", pandas("read_excel"))
    } else if is(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        (
            "an Excel workbook or another Office file",
            pandas("read_excel"),
        )
    } else if is(b"PAR1") {
        ("a Parquet file", pandas("read_parquet"))
    } else if is(b"ARROW1") || is(b"FEA1") {
        ("an Arrow (Feather) file", pandas("read_feather"))
    } else if is(b"\xff\xff\xff\xff") {
        (
            "an Arrow stream",
            python("from datasets import Dataset; Dataset.from_file('IN').to_json('OUT')"),
        )
    } else if is(b"ORC") && bytes.ends_with(b"ORC") {
        ("an ORC file", pandas("read_orc"))
    } else if is(b"Obj\x01") {
        ("an Avro file", "convert it to JSONL first".to_owned())
    } else if is(b"SQLite format 3\0") {
        (
            "an SQLite database",
            "export the table as CSV with a header first".to_owned(),
        )
    } else if is(b"\x89HDF\r\n") {
        ("an HDF5 file", pandas("read_hdf"))
    } else if is(b"%PDF") {
        (
            "a PDF",
            "write the queries to a file of one query a line first".to_owned(),
        )
    } else if is(b"\x80") && matches!(bytes.get(1), Some(2..=5)) {
        (
            "a Python pickle",
            "write it as JSONL from Python first".to_owned(),
        )
    } else if is(b"version https://git-lfs.github.com/spec/") {
        (
            "a Git LFS pointer",
            "fetch the file itself: `git lfs pull`".to_owned(),
        )
    } else if is_web_page(bytes) {
        (
            "a web page",
            "download the file itself, not the page that shows it".to_owned(),
        )
    } else {
        return None;
    };
    Some(found)
}

/// A packed file or an archive, and the tool that unpacks it.
fn packed(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|b| b.starts_with(magic));
    let is = |magic: &[u8]| has(0, magic);
    let found = if is(b"\x1f\x8b") {
        ("gzip within gzip", "gunzip")
    } else if is(b"\x28\xb5\x2f\xfd") || has(1, b"\x2a\x4d\x18") {
        ("packed with zstd", "zstd -d")
    } else if is(b"BZh") && has(4, b"1AY&SY") {
        ("packed with bzip2", "bunzip2")
    } else if is(b"\xfd7zXZ\0") {
        ("packed with xz", "unxz")
    } else if is(b"\x04\x22\x4d\x18") {
        ("packed with lz4", "lz4 -d")
    } else if is(b"7z\xbc\xaf\x27\x1c") {
        ("a 7z archive", "7z x")
    } else if is(b"Rar!") {
        ("a RAR archive", "unrar x")
    } else if is(b"PK\x03\x04") || is(b"PK\x05\x06") {
        ("a zip archive", "unzip")
    } else if has(257, b"ustar") {
        ("a tar archive", "tar -xf")
    } else {
        return None;
    };
    Some(found)
}

fn is_web_page(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| {
        start
            .get(..tag.len())
            .is_some_and(|s| s.eq_ignore_ascii_case(tag))
    })
}

/// UTF-16 or UTF-32, by the byte order mark or, without one, by the places of zero bytes.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    let is = |mark: &[u8]| bytes.starts_with(mark);
    if is(b"\xff\xfe\0\0") || is(b"\0\0\xfe\xff") {
        return Some("UTF-32");
    }
    if is(b"\xff\xfe") || is(b"\xfe\xff") {
        return Some("UTF-16");
    }
    let start = &bytes[..bytes.len().min(1024)];
    let zeros = |odd: usize| {
        let half = start.iter().skip(odd).step_by(2);
        half.filter(|&&b| b == 0).count() * 4 > start.len()
    };
    match (zeros(0), zeros(1)) {
        (false, true) => Some("UTF-16LE"),
        (true, false) => Some("UTF-16BE"),
        _ => None,
    }
}

/// The path as a word of a command, or `FILE` where it would need quoting.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=".contains(c);
    if text.chars().all(plain) {
        text.into_owned()
    } else {
        "FILE".to_owned()
    }
}
