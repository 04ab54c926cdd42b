//! Files: packed, of other programs, in other encodings, of plain text, of JSON in other shapes.

use std::io::Write;
use std::path::Path;

use super::super::bytes::unpack;
use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

#[test]
fn gzip_is_unpacked() {
    let jsonl = b"{\"question\":\"a\"}\n";
    let csv = b"question,n\na,1\n";
    for (name, content) in [
        ("q.jsonl.gz", gzip(jsonl)),
        ("q.csv.GZ", gzip(csv)),
        // By its bytes, whatever it is called.
        ("q.jsonl", gzip(jsonl)),
        // Members one after the other.
        (
            "q.jsonl.gz",
            [gzip(b"{\"question\":"), gzip(b"\"a\"}")].concat(),
        ),
    ] {
        assert_eq!(texts(name, content, json!({})), set(&["a"]), "{name}");
    }
    let mut cut = gzip(jsonl);
    cut.truncate(cut.len() - 4);
    let message = failure("q.jsonl.gz", cut, json!({}));
    assert!(
        message.starts_with("q.jsonl.gz: damaged gzip: "),
        "{message}"
    );
    let message = failure("q.jsonl.gz", gzip(&gzip(jsonl)), json!({}));
    assert!(
        message.starts_with("q.jsonl.gz: gzip within gzip, not a text file"),
        "{message}"
    );
}

#[test]
fn gzip_unpacks_to_a_bounded_size() {
    let bomb = gzip(&vec![b'a'; 1 << 20]);
    assert!(bomb.len() < 1 << 14);
    let path = Path::new("q.gz");
    assert_eq!(unpack(path, &bomb, 1 << 20).unwrap().len(), 1 << 20);
    let error = unpack(path, &bomb, (1 << 20) - 1).unwrap_err();
    assert_eq!(error.message, "q.gz: unpacks to more than 1048575 bytes");
}

#[test]
fn files_of_other_programs_are_named() {
    let tar = [&[b'q'; 257][..], b"ustar\0"].concat();
    let cases: [(&[u8], &str, &str); 17] = [
        (
            b"\x28\xb5\x2f\xfd....",
            "packed with zstd",
            "zstd -d q.jsonl",
        ),
        (b"BZh91AY&SY......", "packed with bzip2", "bunzip2 q.jsonl"),
        (b"\xfd7zXZ\0....", "packed with xz", "unxz q.jsonl"),
        (b"\x04\x22\x4d\x18....", "packed with lz4", "lz4 -d q.jsonl"),
        (b"7z\xbc\xaf\x27\x1c...", "a 7z archive", "7z x"),
        (b"PK\x03\x04....q.jsonl", "a zip archive", "unzip q.jsonl"),
        (
            b"PK\x03\x04....xl/workbook.xml",
            "an Excel workbook",
            "pandas.read_excel('q.jsonl').to_json('queries.jsonl'",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "an Excel workbook or another",
            "read_excel",
        ),
        (&tar, "a tar archive", "tar -xf q.jsonl"),
        (
            b"PAR1....PAR1",
            "a Parquet file",
            "python3 -c \"import pandas; pandas.read_parquet('q.jsonl').to_json('queries.jsonl', orient='records', lines=True)\"",
        ),
        (b"ARROW1\0\0", "an Arrow (Feather) file", "read_feather"),
        (
            b"\xff\xff\xff\xff\x10\0\0\0",
            "an Arrow stream",
            "Dataset.from_file('q.jsonl')",
        ),
        (b"SQLite format 3\0", "an SQLite database", "CSV"),
        (b"%PDF-1.7", "a PDF", "one query a line"),
        (b"\x80\x04\x95", "a Python pickle", "JSONL"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a Git LFS pointer",
            "git lfs pull",
        ),
        (
            b"\n<!DOCTYPE HTML><html>",
            "a web page",
            "download the file itself",
        ),
    ];
    for (content, what, remedy) in cases {
        let message = failure("q.jsonl", content, json!({}));
        assert!(
            message.starts_with(&format!("q.jsonl: {what}")),
            "{message}"
        );
        assert!(message.contains(remedy), "{message}");
    }
}

#[test]
fn other_encodings_are_named_with_line_and_byte() {
    let wide = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    };
    let csv = "question,n\na,1\n";
    let marked = format!("\u{feff}{csv}");
    for (content, words) in [
        (
            wide(&marked, u16::to_le_bytes),
            "q.csv: UTF-16 text, not UTF-8 | convert it first: `iconv -f UTF-16 -t UTF-8 q.csv > OUT`",
        ),
        (wide(&marked, u16::to_be_bytes), "q.csv: UTF-16 text"),
        (wide(csv, u16::to_le_bytes), "q.csv: UTF-16LE text"),
        (wide(csv, u16::to_be_bytes), "q.csv: UTF-16BE text"),
        (b"\xff\xfe\0\0q\0\0\0".to_vec(), "q.csv: UTF-32 text"),
        (
            b"question,n\r\ncaf\xe9,1\r\n".to_vec(),
            "q.csv, line 2, byte 4 of the line (0xE9): not UTF-8 text",
        ),
        (
            b"question,n\rcaf\xe9,1\r".to_vec(),
            "q.csv, line 2, byte 4 of the line (0xE9)",
        ),
        (
            b"question,n\na\0b,1\n".to_vec(),
            "q.csv, line 2: a zero byte",
        ),
    ] {
        let message = failure("q.csv", content, json!({}));
        assert!(message.starts_with(words), "{message}");
    }
}

#[test]
fn plain_text_is_one_query_a_line() {
    let all = set(&["What is 1+1?", " \"Yes\" is what?", "[1] and 2, 3"]);
    let content = "What is 1+1?\n \"Yes\" is what?\n\n[1] and 2, 3";
    assert_eq!(texts("q.txt", content, json!({})), all);
    assert_eq!(
        texts("q.txt", content.replace('\n', "\r\n"), json!({})),
        all
    );
    assert_eq!(texts("q.txt", content.replace('\n', "\r"), json!({})), all);
    assert_eq!(texts("q.md", content, json!({ "format": "txt" })), all);
    // A first line that looks like JSON and is none.
    assert_eq!(
        texts("q.txt", "[note] do this\n{x} and that\n", json!({})),
        set(&["[note] do this", "{x} and that"])
    );
    for (name, content) in [
        ("q.txt", "id\tquestion\n1\tx\n"),
        ("q.txt", "question,answer\nx,1\n"),
        ("q.md", "# Questions\n- x\n"),
        ("q", "What is 1+1?\nWhat is 2+2?\n"),
        ("q.dat", "What is 1, or 2?\nWhat is 2, or 3?\n"),
    ] {
        let message = failure(name, content, json!({}));
        assert!(
            message.starts_with(&format!("{name}: which format is this?")),
            "{message}"
        );
        assert!(message.contains("`source.format`"), "{message}");
    }
}

#[test]
fn json_of_other_shapes_is_read() {
    for (name, content) in [
        ("q.jsonl", "[{\"question\":\"a\"},{\"question\":\"b\"}]"),
        (
            "q.jsonl",
            "[\n{\"question\":\"a\"},\n{\"question\":\"b\"}\n]\n",
        ),
        (
            "q.json",
            "{\n \"question\": \"a\"\n}\n{\n \"question\": \"b\"\n}\n",
        ),
        (
            "q.jsonl",
            "{\n \"question\": \"a\"\n}\n{\n \"question\": \"b\"\n}\n",
        ),
        ("q.json", "{\"question\":[\"a\",\"b\"],\"n\":[1,2]}"),
        ("q.json", "{\"prompt\":[\"a\",\"b\"]}"),
        (
            "q.json",
            "{\"messages\":[[{\"role\":\"user\",\"content\":\"a\"}],[{\"role\":\"user\",\"content\":\"b\"}]]}",
        ),
        ("q.jsonl", "{\"question\":\"a\"}\r{\"question\":\"b\"}\r"),
        (
            "q.ndjson",
            "\n{\"question\":\"a\"}\n\n \n{\"question\":\"b\"}\n",
        ),
        ("q.json", "[\"a\",\"b\"]"),
    ] {
        assert_eq!(
            texts(name, content, json!({})),
            set(&["a", "b"]),
            "{content}"
        );
    }
    let one = "{\n \"question\": \"a\"\n}";
    assert_eq!(texts("q.json", one, json!({})), set(&["a"]));
    let more = json!({ "format": "json" });
    assert_eq!(texts("q.dat", one, more), set(&["a"]));
}

/// File name, content, and the beginning of the message.
const UNCLEAR_JSON: [(&str, &str, &str); 17] = [
    // A line that is cut short.
    (
        "q.jsonl",
        "{\"question\":\n{\"question\":\"b\"}\n",
        "q.jsonl, line 1: not JSON: EOF",
    ),
    (
        "q.json",
        "{\"version\":1,\"data\":[{\"question\":\"a\"}]}",
        "q.json: the file is one object with `version`, `data`, and none of these holds the query | if the records are in `data`",
    ),
    (
        "q.json",
        "{\"train\":[{\"question\":\"a\"}],\"test\":[]}",
        "q.json: the file is one object with `train`, `test`",
    ),
    (
        "q.json",
        "{\"question\":[\"a\",\"b\"],\"n\":[1]}",
        "q.json: column `n` has 1 items, `question` has 2",
    ),
    (
        "q.json",
        "{\"question\":[\"a\",\"b\"],\"n\":1}",
        "q.json: `question` is a column of 2 items, `n` is not a list",
    ),
    (
        "q.json",
        "{\"question\":{\"0\":\"a\"}}",
        "q.json, line 1: field `question` is an object, not text",
    ),
    (
        "q.json",
        "[{\"question\":\"a\"},]",
        "q.json: not a JSON array: trailing comma at line 1 column 19",
    ),
    (
        "q.json",
        "{\n\"question\": \"a\",\n}\n",
        "q.json, line 3: not JSON: trailing comma at column 1",
    ),
    (
        "q.json",
        "{\n\"question\": \"a\"\n}\n{\n\"question\": 5\n}\n",
        "q.json, line 4: field `question` is a number",
    ),
    (
        "q.jsonl",
        "{\"question\":\"a\"}\n{\"question\":\"b\",\"x\":NaN}\n",
        "q.jsonl, line 2: not JSON: expected value at column 21 | NaN and Infinity are not JSON",
    ),
    (
        "q.jsonl",
        "{\"question\":\"a\",\"question\":\"b\"}\n",
        "q.jsonl, line 1: not JSON: the key `question` is there twice",
    ),
    (
        "q.json",
        "[{\"question\":\"a\",\"m\":{\"x\":1,\"x\":2}}]",
        "q.json: not a JSON array: the key `x` is there twice",
    ),
    (
        "q.jsonl",
        "{\"question\":\"a\"}\n[\"b\"]\n",
        "q.jsonl, line 2: a list where an object",
    ),
    (
        "q.jsonl",
        "{\"question\":\"a\"} {\"question\":\"b\"}\n",
        "q.jsonl, line 1: not JSON: trailing characters",
    ),
    (
        "q.json",
        "[[\"a\"]]",
        "q.json, record 1: a list where an object",
    ),
    (
        "q.json",
        "[5]",
        "q.json, record 1: a number where an object",
    ),
    ("q.json", "\"a\"", "q.json: not a JSON array: no list"),
];

#[test]
fn json_that_is_unclear_is_refused() {
    for (name, content, words) in UNCLEAR_JSON {
        let message = failure(name, content, json!({}));
        assert!(message.starts_with(words), "{content}: {message}");
    }
}
