//! Templates beside what transformers renders of them
//! (`tests/reference/make_templates.py`), and the bounds of a rendering.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::*;

fn fixture() -> Json {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/fixtures/templates.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn render_with(source: &str, names: &Map<String, Json>) -> Result<String> {
    Template::parse(source)?.render(names, super::super::day::strftime)
}

fn render(source: &str) -> Result<String> {
    render_with(source, &Map::new())
}

/// What is wrong with one rendering, if anything.
fn fault(case: &Json, got: &Result<String>) -> Option<String> {
    let ok = match (got, case["text"].as_str(), case["refused"] == true) {
        (Ok(got), Some(want), _) => got == want,
        (Err(e), None, true) => e.unsupported,
        (Err(_), None, false) => true,
        _ => false,
    };
    let want = case["text"].as_str().or(case["error"].as_str());
    (!ok).then(|| format!("{}\n  want {want:?}\n  got  {got:?}", case["template"]))
}

#[test]
fn snippets_render_as_in_transformers() {
    let fixture = fixture();
    let names = fixture["vars"].as_object().unwrap();
    let snippets = fixture["snippets"].as_array().unwrap();
    let faults: Vec<String> = snippets
        .iter()
        .filter_map(|s| fault(s, &render_with(s["template"].as_str().unwrap(), names)))
        .collect();
    assert!(
        faults.is_empty(),
        "{} of {} differ:\n{}",
        faults.len(),
        snippets.len(),
        faults.join("\n")
    );
    let refused = snippets.iter().filter(|s| s["refused"] == true).count();
    assert!(refused * 30 < snippets.len(), "{refused} are refused");
}

#[test]
fn templates_of_many_kinds_render_as_in_transformers() {
    let fixture = fixture();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/templates");
    let cases = fixture["templates"].as_array().unwrap();
    let mut faults = Vec::new();
    for case in cases {
        let mut names = fixture["tokens"].as_object().unwrap().clone();
        names.insert("messages".into(), case["messages"].clone());
        names.insert("tools".into(), Json::Null);
        names.insert("documents".into(), Json::Null);
        names.insert("add_generation_prompt".into(), true.into());
        let source = std::fs::read_to_string(folder.join(case["template"].as_str().unwrap()));
        faults.extend(fault(case, &render_with(&source.unwrap(), &names)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(cases.len() >= 45);
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let endless = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = range(100000)|list %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}",
        "{% macro a(n) %}{% for i in n %}{{ a(n) }}{% endfor %}{% endmacro %}{{ a([1, 2]) }}",
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ 'a'.center(10 ** 12) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ 'a'|center(10 ** 12) }}",
        "{{ 'a\nb'|indent(10 ** 12) }}",
        "{{ [1]|batch(10 ** 12, 0)|list }}",
        "{{ [1]|slice(10 ** 12)|list }}",
        "{{ range(10 ** 12) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000) }}",
        "{{ ('\t' * 100000).expandtabs(100000) }}",
        "{% set ns = namespace(x='a') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}\
         {% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}\
         {% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}\
         {% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}\
         {% endfor %}",
        "{% set ns = namespace(x={}) %}{% for i in range(64) %}\
         {% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x == ns.x }}",
        "{% set x = 'a' * 100000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
        "{% set x = 'a' * 100000 %}{% for i in range(100000) %}{% if x in x %}{% endif %}\
         {% endfor %}",
        "{% set x = 'a' * 100000 %}{% for i in range(100000) %}{% set y = x[::-1] %}{% endfor %}",
        "{% set d = range(100000)|map('string')|unique|list %}",
        "{{ range(100000)|tojson(indent=1000) }}",
        "{{ [[1]] * 100000|tojson(indent=100000) }}",
    ];
    for source in endless {
        assert!(render(source).is_err(), "{source}");
    }
}

#[test]
fn nested_tags_and_expressions_have_a_bound() {
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("x[", "]")] {
        let source = format!("{{{{ {}1{} }}}}", open.repeat(50_000), close.repeat(50_000));
        assert!(render(&source).is_err(), "{open}");
    }
    for (part, first) in [
        (" + 1", "1"),
        (".a", "x"),
        ("|upper", "x"),
        ("(1)", "x"),
        (" or 1", "0"),
    ] {
        let source = format!("{{{{ {first}{} }}}}", part.repeat(50_000));
        assert!(render(&source).is_err(), "{part}");
    }
    let tags = "{% if 1 %}".repeat(50_000) + &"{% endif %}".repeat(50_000);
    assert!(render(&tags).is_err());
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(50_000));
    assert_eq!(render(&elifs).unwrap(), "");
    assert_eq!(render("{{ ((((((((((1)))))))))) }}").unwrap(), "1");
}

#[test]
fn a_long_query_goes_through() {
    let names = json!({"messages": [{"role": "user", "content": "word ".repeat(400_000)}]});
    let text = render_with(
        "{% for m in messages %}{{ m.content | trim | replace('w', 'W') }}{% endfor %}",
        names.as_object().unwrap(),
    )
    .unwrap();
    assert_eq!(text.len(), 5 * 400_000 - 1);
}

#[test]
fn an_error_names_the_line() {
    let e = render("a\n{{ 1 }}\n{% if x.y %}{% endif %}").unwrap_err();
    assert_eq!(e.to_string(), "line 3: 'x' is undefined");
    let e = render("a\n\n{% nonsense %}").unwrap_err();
    assert_eq!(e.to_string(), "line 3: unknown tag `nonsense`");
    let e = render("{{ 'a b'|wordwrap(1) }}").unwrap_err();
    assert!(e.to_string().contains("not supported; rewrite"), "{e}");
}
