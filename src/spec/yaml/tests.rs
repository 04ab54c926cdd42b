//! Trees of small texts, and of texts that would be large ones.

use super::*;

fn tree(text: &str) -> YamlNode {
    let (root, problems) = parse(text);
    assert!(problems.is_empty(), "{problems:?}");
    root.unwrap()
}

fn problem(text: &str) -> String {
    parse(text)
        .1
        .first()
        .map(|p| format!("{}:{} {}", p.span.line, p.span.column, p.message))
        .unwrap()
}

#[test]
fn plain_scalars_follow_the_core_schema() {
    for (text, value) in [
        ("5.0e-7", Value::Float(5.0e-7)),
        ("1e-6", Value::Float(1e-6)),
        ("5e-7", Value::Float(5e-7)),
        (".5", Value::Float(0.5)),
        ("1.", Value::Float(1.0)),
        ("-1", Value::Int(-1)),
        ("+12", Value::Int(12)),
        ("0x1f", Value::Int(31)),
        ("0o17", Value::Int(15)),
        ("99999999999999999999", Value::Float(1e20)),
        ("-.inf", Value::Float(f64::NEG_INFINITY)),
        ("~", Value::Null),
        ("True", Value::Bool(true)),
        ("yes", Value::Str("yes".into())),
        ("0.1.2", Value::Str("0.1.2".into())),
        ("1_000", Value::Str("1_000".into())),
        ("e5", Value::Str("e5".into())),
        ("inf", Value::Str("inf".into())),
        ("nan", Value::Str("nan".into())),
        ("'1'", Value::Str("1".into())),
        ("\"null\"", Value::Str("null".into())),
        ("!!str 1", Value::Str("1".into())),
        ("!!float 1", Value::Float(1.0)),
    ] {
        assert_eq!(tree(text).value, value, "{text}");
    }
}

#[test]
fn everything_has_a_position() {
    let root = tree("a:\n  - bcd\n  - {e: 1}\n");
    let list = root.get("a").unwrap();
    assert_eq!(
        (
            list.key_span.line,
            list.key_span.column,
            list.key_span.length
        ),
        (1, 1, 1)
    );
    let Value::Seq(items) = &list.value.value else {
        panic!("{list:?}")
    };
    assert_eq!(
        (
            items[0].span.line,
            items[0].span.column,
            items[0].span.length
        ),
        (2, 5, 3)
    );
    assert_eq!(
        items[1]
            .get("e")
            .map(|e| (e.key_span.line, e.key_span.column)),
        Some((3, 6))
    );
}

#[test]
fn merge_keys_fill_in_what_is_missing() {
    let root = tree("x-a: &a {p: 1, q: 2}\nb:\n  <<: *a\n  q: 3\nc: {<<: [{p: 4}, *a]}\n");
    let number = |map: &str, key: &str| {
        root.get(map)
            .unwrap()
            .value
            .get(key)
            .unwrap()
            .value
            .value
            .clone()
    };
    assert_eq!(
        [number("b", "p"), number("b", "q")],
        [Value::Int(1), Value::Int(3)]
    );
    assert_eq!(
        [number("c", "p"), number("c", "q")],
        [Value::Int(4), Value::Int(2)]
    );
}

#[test]
fn only_one_document_is_accepted() {
    assert_eq!(
        problem("a: 1\nb: 2\na: 3\n"),
        "3:1 key `a` is written twice"
    );
    assert_eq!(
        problem("a: 1\n---\nb: 2\n"),
        "2:1 a second document begins here"
    );
    assert_eq!(
        problem("a: &x [*x]\n"),
        "1:8 an alias inside the value it refers to"
    );
    assert_eq!(
        problem("a: !ruby/object {}\n"),
        "1:4 unknown tag `!ruby/object`"
    );
    assert!(
        problem("a:\n\tb: 1\n").starts_with("2:2 this is not YAML"),
        "{}",
        problem("a:\n\tb: 1\n")
    );
    assert!(problem("a: [1, 2\n").contains("this is not YAML"));
    assert!(problem("a: *nowhere\n").contains("this is not YAML"));
}

#[test]
fn nesting_and_aliases_are_bounded() {
    let brackets = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(problem(&brackets(100)).contains("nested deeper"));
    assert!(parse(&brackets(50_000)).0.is_none());
    let mut laughs = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for level in 1..12 {
        let last = level - 1;
        laughs += &format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{last}"); 10].join(",")
        );
    }
    assert!(problem(&laughs).contains("more than 1000000 values"));
    let mut deep = String::from("a0: &a0 [1]\n");
    for level in 1..100 {
        deep += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(problem(&deep).contains("nested deeper"));
}

/// Two hundred kilobytes that would be gigabytes.
#[test]
fn aliases_are_bounded_by_their_text() {
    let long = "x".repeat(100_000);
    let many = vec!["*a"; 33_000].join(",");
    let cases = [
        (format!("a: &a {long}\nb: [{many}]\n"), 2),
        (format!("a: &a \"{long}\"\nb:\n- [{many}]\n"), 3),
        (format!("a: &a {{ k: [{long}] }}\nb: [{many}]\n"), 2),
        (format!("a: &a |\n  {long}\nb: [{many}]\n"), 3),
        (
            format!(
                "a: &a {long}\nb: {{<<: [{}]}}\n",
                vec!["{k: *a}"; 20_000].join(",")
            ),
            2,
        ),
    ];
    for (text, line) in cases {
        assert!(text.len() < 300_000);
        let message = problem(&text);
        assert!(
            message.starts_with(&format!("{line}:"))
                && message.contains("aliases expand to more than 16777216 bytes of text"),
            "{message}"
        );
    }
    // Each level ten times the one before it, by few nodes.
    let mut laughs = format!("a0: &a0 {long}\n");
    for level in 1..5 {
        let last = vec![format!("*a{}", level - 1); 10].join(",");
        laughs += &format!("a{level}: &a{level} [{last}]\n");
    }
    assert!(problem(&laughs).starts_with("4:"), "{}", problem(&laughs));
    // An ordinary file.
    let few = vec!["*a"; 100].join(",");
    assert!(parse(&format!("a: &a {long}\nb: [{few}]\n")).1.is_empty());
}

#[test]
fn anchors_inside_anchors_are_bounded() {
    let mut text = String::new();
    for level in 0..60 {
        text += &format!("&a{level} [");
    }
    text += &format!("\"{}\"", "x".repeat(2 << 20));
    text += &"]".repeat(60);
    assert!(problem(&text).contains("anchors inside anchors"));
}

#[test]
fn lines_are_bounded() {
    assert!(problem(&"\n".repeat(MAX_LINES + 1)).contains("more than 1000000 lines"));
    assert!(parse(&"\n".repeat(MAX_LINES)).0.is_some());
}

#[test]
fn enormous_keys_are_refused_at_their_position() {
    let key = "k".repeat(2000);
    let message = problem(&format!("a: 1\n? {key}\n: 2\n"));
    assert!(
        message.contains("2:3 a key of 2000 bytes is too long: at most 1024"),
        "{message}"
    );
    let message = problem(&format!("a: &a {key}\n*a : 2\n"));
    assert!(message.contains("a key of 2000 bytes"), "{message}");
}
