//! Tests of the `queries` stage: formats, layouts, samples, messages.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::artifact::{QUERIES_FILE, QueryRecord};
use crate::kind::StageKind;
use crate::protocol::{Failure, Level};
use crate::stage::run_light;
use crate::stage::testing::TestJob;

mod files;
mod records;
mod tables;

/// A run over a file `name` that holds `content`, `more` laid over the parameters' defaults.
struct Case {
    dir: tempfile::TempDir,
    job: TestJob,
}

impl Case {
    fn new(name: &str, content: impl AsRef<[u8]>, more: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut source = json!({ "path": path, "format": "auto", "delimiter": "auto", "layout": "auto", "field": null });
        for (key, value) in more.as_object().unwrap() {
            source[key] = value.clone();
        }
        let sample = source
            .as_object_mut()
            .unwrap()
            .remove("sample")
            .unwrap_or_default();
        let job = TestJob::new(
            StageKind::Queries,
            json!({ "source": source, "sample": sample }),
        );
        Self { dir, job }
    }

    fn run(&self) -> Result<Vec<String>, Failure> {
        self.job.run(run_light)?;
        let records: Vec<QueryRecord> = self.job.records("queries", QUERIES_FILE);
        Ok(records.into_iter().map(|record| record.text).collect())
    }
}

/// The texts that come of a file, as a set.
#[track_caller]
fn texts(name: &str, content: impl AsRef<[u8]>, more: Value) -> BTreeSet<String> {
    Case::new(name, content, more)
        .run()
        .unwrap()
        .into_iter()
        .collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The failure of a file, without its folder.
#[track_caller]
fn failure(name: &str, content: impl AsRef<[u8]>, more: Value) -> String {
    let case = Case::new(name, content, more);
    let failure = case.run().unwrap_err();
    let whole = format!("{} | {}", failure.message, failure.hint.unwrap_or_default());
    whole.replace(&format!("{}/", case.dir.path().display()), "")
}

#[test]
fn formats_are_known_by_name_or_by_their_first_character() {
    let jsonl = "{\"question\":\"a\",\"n\":1}\n\n{\"question\":\"b\",\"n\":2}\n";
    let json = " [{\"question\":\"a\",\"n\":1}, {\"question\":\"b\",\"n\":2}]";
    let csv = "n,question\n1,a\n2,b\n";
    for (name, content) in [
        ("q.jsonl", jsonl),
        ("q.ndjson", jsonl),
        ("q.json", jsonl),
        ("q", jsonl),
        ("q.json", json),
        ("q.txt", json),
        ("q.csv", csv),
        ("q.CSV", csv),
        ("q", csv),
    ] {
        assert_eq!(
            texts(name, content, json!({})),
            set(&["a", "b"]),
            "{name}: {content}"
        );
    }
    // A format that is given wins over the name.
    assert_eq!(
        texts("q.csv", jsonl, json!({ "format": "jsonl" })),
        set(&["a", "b"])
    );
}

#[test]
fn byte_order_mark_and_cr_lf_are_no_part_of_a_query() {
    let bom = "\u{feff}";
    let jsonl = format!("{bom}{{\"q\":\"a\"}}\r\n{{\"q\":\"b\"}}\r\n\r\n");
    let csv = format!("{bom}q,n\r\na,1\r\nb,2\r\n");
    for (name, content) in [("q.jsonl", jsonl), ("q.csv", csv)] {
        assert_eq!(
            texts(name, content, json!({ "field": "q" })),
            set(&["a", "b"])
        );
    }
}

#[test]
fn a_text_is_kept_as_it_stands() {
    let csv = "q\n\" two\r\nlines, \"\"quoted\"\" \"\n";
    assert_eq!(
        texts("q.csv", csv, json!({})),
        set(&[" two\r\nlines, \"quoted\" "])
    );
    let jsonl = r#"{"q":"\ttab\n"}"#;
    assert_eq!(texts("q.jsonl", jsonl, json!({})), set(&["\ttab\n"]));
}

#[test]
fn plain_texts_are_queries_themselves() {
    assert_eq!(
        texts("q.json", r#"["a", "b"]"#, json!({})),
        set(&["a", "b"])
    );
    assert_eq!(
        texts("q.jsonl", "\"a\"\n\"b\"\n", json!({})),
        set(&["a", "b"])
    );
}

#[test]
fn alpaca_joins_instruction_and_input() {
    let file = concat!(
        r#"{"instruction":"Add.","input":"1 2","output":"3"}"#,
        "\n",
        r#"{"instruction":"Sing.","input":"","output":"La"}"#,
        "\n",
        r#"{"instruction":"Dance.","input":null}"#,
        "\n",
        r#"{"instruction":"Hum."}"#,
        "\n",
        r#"{"instruction":"","input":"1 + 2?"}"#,
        "\n",
    );
    let want = set(&["Add.\n\n1 2", "Sing.", "Dance.", "Hum.", "1 + 2?"]);
    for layout in ["auto", "alpaca"] {
        assert_eq!(texts("q.jsonl", file, json!({ "layout": layout })), want);
    }
    // A named field is that field alone.
    let alone = texts("q.jsonl", file, json!({ "field": "instruction" }));
    assert_eq!(alone, set(&["Add.", "Sing.", "Dance.", "Hum."]));
}

#[test]
fn sharegpt_takes_the_first_human_turn() {
    let file = concat!(
        r#"{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},{"from":"gpt","value":"x"},{"from":"human","value":"b"}]}"#,
        "\n",
        r#"{"conversations":[{"from":"gpt","value":"y"},{"from":"user","value":"c"}]}"#,
        "\n",
    );
    for layout in ["auto", "sharegpt"] {
        assert_eq!(
            texts("q.jsonl", file, json!({ "layout": layout })),
            set(&["a", "c"])
        );
    }
    let renamed = file.replace("conversations", "chat");
    let more = json!({ "layout": "sharegpt", "field": "chat" });
    assert_eq!(texts("q.jsonl", renamed, more), set(&["a", "c"]));
}

#[test]
fn chat_messages_take_the_first_user_turn() {
    let file = r#"[
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]}]}
    ]"#;
    for layout in ["auto", "messages"] {
        assert_eq!(
            texts("q.json", file, json!({ "layout": layout })),
            set(&["a", "bc"])
        );
    }
}

#[test]
fn empty_and_duplicate_queries_are_dropped_and_counted() {
    let file = concat!(
        r#"{"messages":[{"role":"user","content":"a"}]}"#,
        "\n",
        r#"{"messages":[{"role":"user","content":"a"}]}"#,
        "\n",
        // Other white space makes another query.
        r#"{"messages":[{"role":"user","content":"a "}]}"#,
        "\n",
        r#"{"messages":[{"role":"user","content":" \n"}]}"#,
        "\n",
        r#"{"messages":[{"role":"assistant","content":"x"}]}"#,
        "\n",
        r#"{"messages":[]}"#,
        "\n",
        r#"{"messages":null}"#,
        "\n",
    );
    let case = Case::new("q.jsonl", file, json!({ "sample": { "n": 1, "seed": 0 } }));
    assert_eq!(case.run().unwrap().len(), 1);
    let want = json!({
        "read": 7, "empty": 1, "null": 1, "no_user_turn": 2, "not_text": 0, "duplicates": 1,
        "distinct": 2, "kept": 1,
    });
    assert_eq!(case.job.metrics(), want);
    let message = case.job.logged(Level::Warn);
    assert_eq!(message.len(), 1);
    assert!(
        message[0].ends_with(
            "q.jsonl: records without a query were dropped: blank: 1 (line 4); null: 1 (line 7); without a turn of the user: 2 (lines 5, 6)"
        ),
        "{message:?}"
    );
}

fn numbered(range: impl Iterator<Item = usize>) -> String {
    range
        .map(|i| format!("{{\"q\":\"query {i}\"}}\n"))
        .collect()
}

#[test]
fn the_order_of_the_file_changes_no_byte() {
    for sample in [json!(null), json!({ "n": 20, "seed": 3 })] {
        let [there, back] = [numbered(0..50), numbered((0..50).rev())].map(|file| {
            let case = Case::new("q.jsonl", file, json!({ "sample": sample }));
            case.run().unwrap();
            std::fs::read(case.job.path("queries", QUERIES_FILE)).unwrap()
        });
        assert_eq!(there, back);
    }
}

#[test]
fn a_larger_sample_contains_the_smaller() {
    let take = |n: usize, seed: u64| {
        let more = json!({ "sample": { "n": n, "seed": seed } });
        Case::new("q.jsonl", numbered(0..50), more).run().unwrap()
    };
    assert_eq!(take(20, 1)[..5], take(5, 1));
    assert_ne!(take(5, 1), take(5, 2));
    // Nor does it depend on what else the file holds, but for what is taken.
    let more = json!({ "sample": { "n": 60, "seed": 1 } });
    let larger = Case::new("q.jsonl", numbered(0..60), more).run().unwrap();
    let kept: Vec<String> = larger
        .into_iter()
        .filter(|q| take(50, 1).contains(q))
        .collect();
    assert_eq!(kept, take(50, 1));
}

#[test]
fn records_are_sorted_by_id_unless_sampled() {
    let case = Case::new("q.jsonl", numbered(0..20), json!({}));
    case.run().unwrap();
    let ids: Vec<String> = case
        .job
        .records::<QueryRecord>("queries", QUERIES_FILE)
        .into_iter()
        .map(|record| record.id)
        .collect();
    assert!(ids.is_sorted());
}

#[test]
fn a_sample_larger_than_the_file_takes_all_and_says_so() {
    let case = Case::new(
        "q.jsonl",
        numbered(0..3),
        json!({ "sample": { "n": 4, "seed": 1 } }),
    );
    assert_eq!(case.run().unwrap().len(), 3);
    assert_eq!(
        case.job.logged(Level::Warn),
        ["4 queries were requested, but there are only 3: all are taken"]
    );
}

#[test]
fn a_missing_field_is_named_with_those_that_are_there() {
    let file = "{\"question\":\"a\",\"id\":1}\n{\"problem\":\"b\",\"id\":2}\n";
    insta::assert_snapshot!(
        failure("q.jsonl", file, json!({})),
        @"q.jsonl, line 2: no field `question`; there are `problem`, `id` | name the field that holds the query: `source.field`"
    );
    insta::assert_snapshot!(
        failure("q.json", r#"[{"a":"x","b":"y"}]"#, json!({})),
        @"q.json, record 1: which field holds the query? There are `a`, `b` | name it: `source.field`; the first line of a table is its header"
    );
    insta::assert_snapshot!(
        failure("q.csv", "a,b\n\"x\nx\",y\n", json!({ "field": "c" })),
        @"q.csv, line 2: no field `c`; there are `a`, `b` | name the field that holds the query: `source.field`"
    );
}

#[test]
fn a_field_of_another_type_is_refused() {
    insta::assert_snapshot!(
        failure("q.jsonl", r#"{"q":1}"#, json!({})),
        @"q.jsonl, line 1: field `q` is a number, not text | `source.layout` and `source.field` set where the query is; leave out records that have none"
    );
    insta::assert_snapshot!(
        failure("q.jsonl", r#"{"messages":"a"}"#, json!({ "layout": "messages" })),
        @"q.jsonl, line 1: field `messages` is text, not a list of turns | `source.layout` and `source.field` set where the query is; leave out records that have none"
    );
    insta::assert_snapshot!(
        failure("q.json", "[1]", json!({})),
        @"q.json, record 1: a number where an object with fields was expected | a file of queries has one object a record, or one text a record"
    );
    insta::assert_snapshot!(
        failure("q.json", r#"["a", {"q":"b"}]"#, json!({})),
        @"q.json, record 2: a text was expected, as in the first record | records must all be texts or all be objects"
    );
}

#[test]
fn damaged_files_are_named_with_the_line() {
    insta::assert_snapshot!(
        failure("q.jsonl", "{\"q\":\"a\"}\n{\"q\":\n", json!({})),
        @"q.jsonl, line 2: not JSON: EOF while parsing a value at column 5 | JSONL has one whole JSON object per line; a file with one array of objects is format `json`"
    );
    insta::assert_snapshot!(
        failure("q.json", "[{\"q\":\"a\"},\n{]", json!({})),
        @"q.json: not a JSON array: key must be a string at line 2 column 2 | a file with one JSON object a line is format `jsonl`"
    );
    insta::assert_snapshot!(
        failure("q.csv", "a,b\n1,2\n3\n", json!({ "field": "a" })),
        @"q.csv, line 3: 1 field where the header (line 1) has 2 | the delimiter here is `comma` (`source.delimiter`); a text with a delimiter, a quote or a newline must be quoted, with every quote inside doubled"
    );
    insta::assert_snapshot!(
        failure("q.jsonl", b"{\"q\":\"a\"}\n{\"q\":\"\xff\"}\n", json!({})),
        @"q.jsonl, line 2, byte 7 of the line (0xFF): not UTF-8 text | convert it first; if it is Latin-1 or Windows-1252: `iconv -f WINDOWS-1252 -t UTF-8 q.jsonl > OUT`"
    );
}

#[test]
fn a_file_without_a_query_is_refused() {
    for name in ["q.jsonl", "q.json", "q.csv"] {
        assert!(
            failure(name, "", json!({})).contains("holds no query: it has no record"),
            "{name}"
        );
    }
    insta::assert_snapshot!(
        failure("q.json", r#"[{"q":" "},{"q":null}]"#, json!({})),
        @"q.json holds no query: all of its 2 records have none: blank: 1 (record 1); null: 1 (record 2) | give a file of queries: JSONL, JSON, a table with a header, or one query a line"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let case = Case::new("q.jsonl", "", json!({ "path": "no/such/file.jsonl" }));
    let failure = case.run().unwrap_err();
    assert!(
        failure
            .message
            .starts_with("cannot read no/such/file.jsonl: "),
        "{failure}"
    );
}
