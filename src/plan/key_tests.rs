//! From the text of a pipeline to keys: two stages have one key if, and only if,
//! they mean the same, however they are written.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::protocol::example;
use crate::spec;
use crate::store::{ContentHash, Key};

/// No files, no hub.
struct Nothing;

impl Resolver for Nothing {
    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError> {
        Ok(ContentHash::of(path.as_os_str().as_encoded_bytes()))
    }

    fn hub_commit(&self, _repo: &str, _revision: &str) -> Result<String, PlanError> {
        Ok("a".repeat(40))
    }
}

/// A stage as it is written, and what it means.
#[derive(Debug, Clone)]
struct Written {
    /// Lines under `with:`, in any order.
    with: Vec<String>,
    /// The value of every parameter that was drawn.
    means: BTreeMap<&'static str, String>,
}

/// The key of a lone stage of that kind.
fn key(kind: &str, written: &Written) -> Key {
    let text = format!(
        "version: 1\nname: n\nstages:\n  s:\n    uses: {kind}\n    with:\n      {}\n",
        written.with.join("\n      ")
    );
    let pipeline =
        spec::load_str(&text, Path::new("/p/p.yaml"), &[]).unwrap_or_else(|e| panic!("{e}"));
    let machine = Machine::known(example::cpu("avx2"));
    let graph = Graph::build(&pipeline, &machine, &RunOptions::default(), &Nothing).unwrap();
    Fingerprint::new(&graph.nodes[0], &BTreeMap::new()).key()
}

/// A parameter: left out (it then means its default), or written in one of
/// several ways that come with their meaning.
fn parameter(
    name: &'static str,
    default: &'static str,
    ways: &'static [(&'static str, &'static str)],
) -> impl Strategy<Value = (&'static str, Option<String>, String)> {
    proptest::option::of(proptest::sample::select(ways)).prop_map(move |way| match way {
        None => (name, None, default.to_owned()),
        Some((text, means)) => (name, Some(format!("{name}: {text}")), means.to_owned()),
    })
}

fn command() -> impl Strategy<Value = Written> {
    let always = |text: &'static str| Just(("run", Some(format!("run: {text}")), text.to_owned()));
    (
        prop_oneof![
            always("[a, b]"),
            always("[a b]"),
            always("[a, 'b ']"),
            always("[ab]"),
        ],
        parameter("shell", "false", &[("false", "false")]),
        parameter(
            "env",
            "",
            &[
                ("{}", ""),
                ("{ A: '1' }", "A=1"),
                ("{ A: '1', B: '' }", "A=1,B="),
                ("{ B: '', A: \"1\" }", "A=1,B="),
                ("{ A: '1,B=' }", "A=1 comma"),
                ("{ AB: '1' }", "AB=1"),
            ],
        ),
        parameter(
            "outputs",
            "",
            &[
                ("{}", ""),
                ("{ o: {} }", "o"),
                ("{ o: { nonempty: false, files: [] } }", "o"),
                ("{ o: { nonempty: true } }", "o!"),
                ("{ o: { files: [x] } }", "o x"),
                ("{ o: { files: [x, y] } }", "o x y"),
                ("{ o: { files: [y, x] } }", "o y x"),
                ("{ o: {}, p: {} }", "o p"),
                ("{ p: {}, o: {} }", "o p"),
            ],
        ),
        // Knobs of execution mean nothing.
        parameter("pass_through", "", &[("[]", ""), ("[PATH, HOME]", "")]),
    )
        .prop_flat_map(|(a, b, c, d, e)| Just(vec![a, b, c, d, e]).prop_shuffle())
        .prop_map(written)
}

/// Queries of one file; the sample's numbers are what may differ.
fn queries() -> impl Strategy<Value = Written> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let source = format!("source: {{ path: {file}, format: jsonl }}");
    let spelt = format!("source: {{ layout: auto, format: jsonl, path: {file} }}");
    let csv = format!("source: {{ path: {file}, format: csv }}");
    (
        prop_oneof![
            Just(("source", Some(source), "jsonl".to_owned())),
            Just(("source", Some(spelt), "jsonl".to_owned())),
            Just(("source", Some(csv), "csv".to_owned())),
        ],
        parameter(
            "sample",
            "",
            &[
                ("{ n: 1 }", "1 of seed 0"),
                ("{ n: 1, seed: 0 }", "1 of seed 0"),
                ("{ seed: 0x7, n: 1 }", "1 of seed 7"),
                ("{ n: 1, seed: 7 }", "1 of seed 7"),
                ("{ n: 7, seed: 1 }", "7 of seed 1"),
            ],
        ),
    )
        .prop_flat_map(|(a, b)| Just(vec![a, b]).prop_shuffle())
        .prop_map(written)
}

fn written(parameters: Vec<(&'static str, Option<String>, String)>) -> Written {
    let mut with = Vec::new();
    let mut means = BTreeMap::new();
    for (name, text, meaning) in parameters {
        with.extend(text);
        means.insert(name, meaning);
    }
    Written { with, means }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn commands_share_a_key_if_and_only_if_they_mean_the_same(a in command(), b in command()) {
        prop_assert_eq!(a.means == b.means, key("command", &a) == key("command", &b), "{:?} {:?}", a, b);
    }

    #[test]
    fn queries_share_a_key_if_and_only_if_they_mean_the_same(a in queries(), b in queries()) {
        prop_assert_eq!(a.means == b.means, key("queries", &a) == key("queries", &b), "{:?} {:?}", a, b);
    }
}
