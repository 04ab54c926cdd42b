//! Tables: quotes, delimiters, headers.

use super::*;

#[test]
fn quotes_close_where_a_field_ends() {
    for (content, words) in [
        // Never closed: the rest of the file would be one query.
        (
            "q,a\n\"What is 1?,2\nWhat is 2?,3\n",
            "line 2: a quote opens here and is never closed",
        ),
        (
            "q\none\n\"two\nthree\n",
            "line 3: a quote opens here and is never closed",
        ),
        // Closed by the quote of a later row.
        (
            "q,a\n\"What is 1?,2\nWhat is 2?,\"3\"\n",
            "line 3: a quote in the middle of a quoted field that a quote on line 2 opened",
        ),
        (
            "q,a\n\"She said \"yes\" to it\",1\n",
            "line 2: a quote in the middle of a quoted field",
        ),
        (
            "q,a\n\"She said \\\"yes\\\" to it\",1\n",
            "line 2: a quote in the middle of a quoted field",
        ),
        (
            "q,a\n\"one\" two,1\n",
            "line 2: a quote in the middle of a quoted field",
        ),
        (
            "q,a\n\"one\" ,1\n",
            "line 2: a quote in the middle of a quoted field",
        ),
        ("q,a\n1, \"b, c\"\n", "line 2: blanks before a quote"),
        // One field or two?
        (
            "q,a\nsay \"x, y\"\n",
            "line 2: a quote in the middle of a field and another one",
        ),
        (
            "q,a\none\n",
            "line 2: 1 field where the header (line 1) has 2",
        ),
        (
            "q,a\none,1,2\n",
            "line 2: 3 fields where the header (line 1) has 2",
        ),
        ("q,a\n\"x\n\r\ny\rz\",1\none\n", "line 6: 1 field where"),
    ] {
        let failure = failure("q.csv", content, json!({ "field": "q" }));
        assert!(
            failure.starts_with(&format!("q.csv, {words}")),
            "{content:?}: {failure}"
        );
    }
}

#[test]
fn quotes_that_are_text_are_kept() {
    for (content, want) in [
        ("q,a\nShe said \"yes\" to it,1\n", "She said \"yes\" to it"),
        ("q,a\n5\" pipe,1\n", "5\" pipe"),
        (
            "q,a\n\"She said \"\"yes\"\" to it\",1\n",
            "She said \"yes\" to it",
        ),
        ("q,a\n\"\"\"all\"\"\",1\n", "\"all\""),
        (
            "q,a\n\"two\nlines, and \"\"more\"\"\",1\n",
            "two\nlines, and \"more\"",
        ),
        ("q,a\r\n\"x\r\ny\",1\r\n", "x\r\ny"),
        ("q,a\rone,1\r", "one"),
        ("q,a\n\n  \none,1", "one"),
        ("a,q\n1,one\n", "one"),
    ] {
        assert_eq!(
            texts("q.csv", content, json!({ "field": "q" })),
            set(&[want]),
            "{content:?}"
        );
    }
}

#[test]
fn the_header_shows_the_delimiter() {
    for (name, content) in [
        ("q.csv", "question;answer\nWhat, then?;1\n"),
        ("q.csv", "question\tanswer\nWhat, then?\t1\n"),
        ("q.csv", "question|answer\nWhat, then?|1\n"),
        ("q.csv", "question,answer\n\"What, then?\",1;2\n"),
        ("q.csv", "\"question\",\"a;b\"\n\"What, then?\",1\n"),
        // Both are in the header: only one of them makes rows of one length.
        ("q.csv", "question;answer, or more\nWhat, then?;1, 2\n"),
        ("q.tsv", "question\tanswer\nWhat, then?\t1\n"),
        ("q.tab", "id\tquestion\n1\tWhat, then?\n"),
        ("q", "question;answer\nWhat, then?;1\n"),
        ("q.csv", " question ; answer\nWhat, then?;1\n"),
        ("q.csv", "question;answer;\nWhat, then?;1;\n"),
    ] {
        assert_eq!(
            texts(name, content, json!({})),
            set(&["What, then?"]),
            "{content:?}"
        );
    }
    let ambiguous = "question;a,b\nx;y,z\n";
    let message = failure("q.csv", ambiguous, json!({}));
    assert!(
        message.starts_with("q.csv, line 1: the header has `comma` and `semicolon`: which"),
        "{message}"
    );
    assert_eq!(
        texts("q.csv", ambiguous, json!({ "delimiter": "semicolon" })),
        set(&["x"])
    );
    for name in ["q.jsonl", "q.txt"] {
        let message = failure(name, "{\"q\":\"a\"}\n", json!({ "delimiter": "tab" }));
        assert!(
            message.contains("`source.delimiter` is given, but this is not a table"),
            "{message}"
        );
    }
    let tabs = json!({ "delimiter": "tab" });
    assert_eq!(texts("q.csv", "question\ta,b\nx\ty\n", tabs), set(&["x"]));
    assert_eq!(
        texts("q.dat", "question\ta\nx\ty\n", json!({ "format": "tsv" })),
        set(&["x"])
    );
}

#[test]
fn a_header_is_not_a_query() {
    for (name, content, words) in [
        (
            "q.csv",
            "What is 1+1?\nWhat is 2+2?\n",
            "line 1: is \"What is 1+1?\" the name of the column, or a query?",
        ),
        (
            "q.csv",
            "Name a colour\nName a town\n",
            "line 1: is \"Name a colour\" the name",
        ),
        (
            "q.tsv",
            "question,answer\nx,1\n",
            "line 1: is \"question,answer\" the name",
        ),
        (
            "q.csv",
            "1,What is 1+1?\n2,What is 2+2?\n",
            "line 2: which field holds the query? There are `1`, `What is 1+1?`",
        ),
        (
            "q.csv",
            "question,answer,question\nx,1,y\n",
            "line 1: two columns are named `question`",
        ),
        (
            "q.csv",
            "question, question\nx,1\n",
            "line 1: two columns are named `question`",
        ),
        ("q.csv", "answer\n4\n", "line 1: is \"answer\" the name"),
    ] {
        let failure = failure(name, content, json!({}));
        assert!(
            failure.starts_with(&format!("{name}, {words}")),
            "{content:?}: {failure}"
        );
    }
    // A name that is given decides what line 1 is.
    assert_eq!(
        texts(
            "q.csv",
            "Name a colour\nx\n",
            json!({ "field": "Name a colour" })
        ),
        set(&["x"])
    );
    // Columns without a name.
    assert_eq!(
        texts("q.csv", ",question,\n1,x,2\n", json!({})),
        set(&["x"])
    );
}
