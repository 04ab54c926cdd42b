//! Records: which field is the query, turns in every spelling, and what is dropped.

use super::*;
use crate::protocol::{Figure, Unit};

fn turns(list: &str) -> String {
    format!("{{\"messages\":{list}}}\n")
}

#[test]
fn roles_and_texts_are_known_in_every_spelling() {
    for list in [
        r#"[{"role":"User","content":"a"}]"#,
        r#"[{"role":"USER","content":"a"}]"#,
        r#"[{"from":"Human","value":"a"}]"#,
        r#"[{"role":"prompter","text":"a"}]"#,
        r#"[{"from":"human","text":"a"},{"from":"gpt","text":"b"}]"#,
        r#"[{"role":"System","content":"s"},{"role":"user","content":"a"}]"#,
        r#"[{"role":"Assistant","content":null},{"role":"user","content":"a"}]"#,
        r#"[{"role":"user","content":null,"text":"a"}]"#,
        r#"[{"role":"user","content":["a"]}]"#,
        r#"[{"role":"user","parts":[{"text":"a"}]}]"#,
        r#"[{"role":"user","content":{"content_type":"text","parts":["a"]}}]"#,
        r#"[{"role":"user","content":[{"type":"text","text":"a"}]}]"#,
        r#"[{"role":"user","content":[{"type":"input_text","text":"a"}]}]"#,
        r#"[{"role":"developer","content":"s"},{"role":"user","content":"a"}]"#,
    ] {
        assert_eq!(
            texts("q.jsonl", turns(list), json!({})),
            set(&["a"]),
            "{list}"
        );
    }
}

#[test]
fn turns_that_are_not_understood_are_refused() {
    for (list, words) in [
        (r#"["a","b"]"#, "turn 1 is text, not an object"),
        (
            r#"[null,{"role":"user","content":"a"}]"#,
            "turn 1 is null, not an object",
        ),
        (
            r#"[{"content":"a"}]"#,
            "turn 1 has no `role` or `from`; there are `content`",
        ),
        (
            r#"[{"role":"narrator","content":"a"}]"#,
            "turn 1 has the unknown role \"narrator\"",
        ),
        (
            r#"[{"role":null,"content":"a"}]"#,
            "turn 1 has null as its role",
        ),
        (
            r#"[{"role":"system","content":"s"},{"role":"user","body":"a"}]"#,
            "turn 2 has no `content`",
        ),
        (
            r#"[{"role":"user","content":5}]"#,
            "turn 1 has a number as its text",
        ),
        (
            r#"[{"role":"user","content":["a","b"]}]"#,
            "turn 1 has a list of texts",
        ),
        (
            r#"[{"role":"user","content":"a","text":"b"}]"#,
            "turn 1 has several texts that differ",
        ),
    ] {
        let file = format!(
            "{}{}",
            turns(r#"[{"role":"user","content":"x"}]"#),
            turns(list)
        );
        let message = failure("q.jsonl", file, json!({}));
        assert!(
            message.starts_with(&format!("q.jsonl, line 2: `messages`: {words}")),
            "{message}"
        );
    }
}

#[test]
fn what_is_dropped_is_counted_by_reason() {
    for (line, reason) in [
        (turns(r#"[{"role":"user","content":null}]"#), "null"),
        (turns(r#"[{"role":"user","content":" "}]"#), "empty"),
        (turns(r#"[{"role":"user","content":[]}]"#), "empty"),
        (
            turns(r#"[{"role":"assistant","content":"a"}]"#),
            "no_user_turn",
        ),
        (turns("[]"), "no_user_turn"),
        (turns("null"), "null"),
        (
            turns(
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"What is it?"}]}]"#,
            ),
            "not_text",
        ),
        (
            turns(
                r#"[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image"}]}]"#,
            ),
            "not_text",
        ),
        (
            turns(r#"[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]"#),
            "not_text",
        ),
        (
            turns(
                r#"[{"role":"user","parts":[{"text":"What is it?"},{"inline_data":{"data":"x"}}]}]"#,
            ),
            "not_text",
        ),
        (
            r#"{"messages":[{"role":"user","content":"What is it?"}],"images":["a.png"]}"#
                .to_owned(),
            "not_text",
        ),
        (turns(r#"[{"role":"user","content":"a"}]"#), "duplicates"),
    ] {
        let file = format!("{}{line}", turns(r#"[{"role":"user","content":"a"}]"#));
        let case = Case::new("q.jsonl", file, json!({}));
        assert_eq!(case.run().unwrap(), ["a"], "{line}");
        let metrics = case.job.metrics();
        for name in ["empty", "null", "no_user_turn", "not_text", "duplicates"] {
            assert_eq!(
                metrics[name],
                u64::from(name == reason),
                "{line}: {metrics}"
            );
        }
        let figures = case.job.run(run_light).unwrap();
        assert!(
            figures.contains(&Figure::new(reason, 1, Unit::Count)),
            "{figures:?}"
        );
        // A duplicate loses nothing.
        let level = if reason == "duplicates" {
            Level::Info
        } else {
            Level::Warn
        };
        let message = case.job.logged(level).join("\n");
        assert!(message.contains("1 (line 2)"), "{message}");
    }
}

#[test]
fn the_first_lines_of_a_reason_are_named() {
    let file = format!("{{\"q\":\"a\"}}\n{}", "{\"q\":null}\n".repeat(7));
    let case = Case::new("q.jsonl", file, json!({}));
    case.run().unwrap();
    let message = case.job.logged(Level::Warn).join("\n");
    assert!(
        message.ends_with("null: 7 (lines 2, 3, 4, 5, 6, ...)"),
        "{message}"
    );
}

#[test]
fn the_whole_question_is_taken() {
    for (line, want) in [
        (
            r#"{"instruction":"a","instances":[{"input":"b","output":"x"}]}"#,
            "a\n\nb",
        ),
        (
            r#"{"instruction":"a","instances":[{"input":"","output":"x"}],"id":1}"#,
            "a",
        ),
        (
            r#"{"instruction":"a","context":"b","response":"x"}"#,
            "a\n\nb",
        ),
        (
            r#"{"instruction":"a","input":"","output":"x","text":"a x"}"#,
            "a",
        ),
        (r#"{"problem":"a","question":"a","answer":"x"}"#, "a"),
        (
            r#"{"passage":null,"question":"a","options":null,"answer":"x"}"#,
            "a",
        ),
        (
            r#"{"prompt":"a","messages":[{"role":"user","content":"a"}]}"#,
            "a",
        ),
        (
            r#"{"prompt":[{"role":"user","content":"a"}],"chosen":"x"}"#,
            "a",
        ),
        (r#"{"question":"a","image":null,"images":[]}"#, "a"),
    ] {
        assert_eq!(texts("q.jsonl", line, json!({})), set(&[want]), "{line}");
    }
}

#[test]
fn half_a_question_is_asked_for() {
    for (line, words) in [
        (
            r#"{"passage":"p","question":"a","options":["x","y"]}"#,
            "queries are in field `question`, and `passage`, `options` beside it may be a part of the question",
        ),
        (
            r#"{"question":"a","choices":{"text":["x"]}}"#,
            "queries are in field `question`, and `choices`",
        ),
        (
            r#"{"prompt":"a","input":"b"}"#,
            "queries are in field `prompt`, and `input`",
        ),
        (
            r#"{"question":"a","prompt":"b"}"#,
            "which field holds the query, `question` or `prompt`?",
        ),
        (
            r#"{"question":"a","text":"b"}"#,
            "which field holds the query, `question` or `text`?",
        ),
        (
            r#"{"instruction":"a","question":"b"}"#,
            "which field holds the query, `instruction` or `question`?",
        ),
        (
            r#"{"instruction":"a","input":"b","context":"c"}"#,
            "both `input` and `context` are beside the instruction",
        ),
        (
            r#"{"instruction":"a","options":["b"]}"#,
            "queries are in field `instruction`, with its input, and `options`",
        ),
        (
            r#"{"messages":[],"conversations":[]}"#,
            "which field holds the query, `conversations` or `messages`?",
        ),
        (
            r#"{"answer":"a"}"#,
            "which field holds the query? There are `answer`",
        ),
        (
            r#"{"input":"a","output":"b"}"#,
            "which field holds the query? There are `input`, `output`",
        ),
        (
            r#"{"Question":"a","n":1}"#,
            "which field holds the query? There are `Question`, `n`",
        ),
    ] {
        let message = failure("q.jsonl", line, json!({}));
        assert!(
            message.starts_with(&format!("q.jsonl, line 1: {words}")),
            "{line}: {message}"
        );
        assert!(message.contains("`source.field`"), "{message}");
    }
    // A field that is named is taken as it is.
    let line = r#"{"passage":"p","question":"a","image":"i.png"}"#;
    assert_eq!(
        texts("q.jsonl", line, json!({ "field": "question" })),
        set(&["a"])
    );
    // It is looked for in every record, not in the first alone.
    let later = "{\"question\":\"a\",\"passage\":null}\n{\"question\":\"b\",\"passage\":\"p\"}\n";
    let message = failure("q.jsonl", later, json!({}));
    assert!(
        message.starts_with("q.jsonl, line 2: queries are in field `question`, and `passage`"),
        "{message}"
    );
}

#[test]
fn nulls_at_the_start_decide_nothing() {
    let file = "{\"messages\":null}\n{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n";
    assert_eq!(texts("q.jsonl", file, json!({})), set(&["a"]));
    let file = "{\"question\":null,\"n\":1}\n{\"question\":\"a\",\"n\":2}\n";
    assert_eq!(texts("q.jsonl", file, json!({})), set(&["a"]));
}

#[test]
fn records_of_another_layout_are_named() {
    let chat = turns(r#"[{"role":"user","content":"a"}]"#);
    for (second, words) in [
        (
            "{\"question\":\"b\"}",
            "no field `messages`; there are `question`",
        ),
        (
            "{\"conversations\":[]}",
            "no field `messages`; there are `conversations`",
        ),
        ("\"b\"", "text where an object with fields was expected"),
        (
            "{\"messages\":{\"role\":\"user\"}}",
            "field `messages` is an object, not a list of turns",
        ),
    ] {
        let message = failure("q.jsonl", format!("{chat}{second}\n"), json!({}));
        assert!(
            message.starts_with(&format!("q.jsonl, line 2: {words}")),
            "{message}"
        );
    }
}
