//! `command`: a program of one's own as a stage. Started by `genius` itself
//! (`crate::schedule`), without a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{Default, Field, Role, Schema, Type};

/// Parameters of the kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Params {
    pub run: Vec<String>,
    pub shell: bool,
    pub files: BTreeMap<String, PathBuf>,
    pub outputs: BTreeMap<String, Output>,
    pub env: BTreeMap<String, String>,
    pub inherit: Vec<String>,
    pub pass_through: Vec<String>,
}

/// What an output must be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is described in the schema below")]
pub struct Output {
    pub files: Vec<String>,
    pub nonempty: bool,
}

/// The parameters under `with:`.
pub fn schema() -> Schema {
    let output = Schema::new(vec![
        Field::with_default(
            "files",
            Type::List {
                items: Box::new(Type::NonEmpty),
                min: 0,
            },
            json!([]),
            "Files that must be there when the program ends, relative to the output's folder.",
        ),
        Field::with_default(
            "nonempty",
            Type::Bool,
            false,
            "Whether a file of 0 bytes in it is a failure.",
        ),
    ]);
    let names = || Type::List {
        items: Box::new(Type::NonEmpty),
        min: 0,
    };
    Schema::new(vec![
        Field::required(
            "run",
            Type::List {
                items: Box::new(Type::Text),
                min: 1,
            },
            "The program and its arguments, as they are: no shell. `{inputs.SLOT}` and `{outputs.NAME}` stand for folders, `{files.NAME}` for a path.",
        ),
        Field::with_default(
            "shell",
            Type::Bool,
            false,
            "Whether `run` is one script for `sh -eu` instead.",
        ),
        Field {
            name: "files",
            doc: "Name -> file or folder outside the cache that the program reads (a script, data); its content is in the key.",
            ty: Type::Map(Box::new(Type::Path)),
            default: Default::Value(json!({})),
            role: Role::Identity,
        },
        Field {
            name: "outputs",
            doc: "Name -> what must be in it. Each output is a folder, made before the program starts, that must not stay without files.",
            ty: Type::Map(Box::new(Type::Object(output))),
            default: Default::Value(json!({})),
            role: Role::Identity,
        },
        Field {
            name: "env",
            doc: "Environment variables and their values, which are in the key.",
            ty: Type::Map(Box::new(Type::Text)),
            default: Default::Value(json!({})),
            role: Role::Identity,
        },
        Field::with_default(
            "inherit",
            names(),
            json!([]),
            "Variables taken from the environment of `genius`; their values are in the key (and in its record: no secrets here).",
        ),
        Field::with_default(
            "pass_through",
            names(),
            json!(["PATH"]),
            "Variables taken from the environment of `genius` that change no result: their values are in no key.",
        )
        .execution(),
    ])
}

/// A part of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// `{inputs.NAME}`: an input's folder.
    Input(&'a str),
    /// `{outputs.NAME}`: an output's folder.
    Output(&'a str),
    /// `{files.NAME}`: a file's path.
    File(&'a str),
}

/// Takes an argument apart at its placeholders. Braces around anything else stay.
pub fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut text = 0;
    let mut at = 0;
    while let Some(open) = argument[at..].find('{').map(|i| at + i) {
        at = open + 1;
        let Some(close) = argument[at..].find('}').map(|i| at + i) else {
            break;
        };
        let piece = match argument[at..close].split_once('.') {
            Some((_, name)) if !is_name(name) => continue,
            Some(("inputs", name)) => Piece::Input(name),
            Some(("outputs", name)) => Piece::Output(name),
            Some(("files", name)) => Piece::File(name),
            _ => continue,
        };
        if text < open {
            pieces.push(Piece::Text(&argument[text..open]));
        }
        pieces.push(piece);
        at = close + 1;
        text = at;
    }
    if text < argument.len() {
        pieces.push(Piece::Text(&argument[text..]));
    }
    pieces
}

/// Whether it can be the name of an input, output or file of a command: a letter
/// or `_`, then letters, digits, `_` and `-`.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_known_words_and_other_braces_stay() {
        assert_eq!(
            pieces("{inputs.a}/x:{outputs.b}"),
            [Piece::Input("a"), Piece::Text("/x:"), Piece::Output("b")]
        );
        assert_eq!(pieces("{files.seed-1}"), [Piece::File("seed-1")]);
        for plain in [
            "{}",
            "{x}",
            "awk '{print $1}'",
            "{inputs}",
            "{inputs.}",
            "{inputs.a b}",
            "{",
            "a{b.c}",
        ] {
            assert_eq!(pieces(plain), [Piece::Text(plain)], "{plain}");
        }
        assert_eq!(
            pieces("{{inputs.a}}"),
            [Piece::Text("{"), Piece::Input("a"), Piece::Text("}")]
        );
        assert_eq!(pieces(""), []);
    }
}
