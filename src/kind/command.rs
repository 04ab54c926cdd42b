//! `command`: a program of the user's own as a stage. Started by `genius` itself
//! (`crate::schedule`), without a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::declare::params;
use super::{DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// The program and its arguments, as they are: no shell. `{inputs.SLOT}` and
        /// `{outputs.NAME}` become folders, `{files.NAME}` a path.
        run: Vec<String> => list(text(), 1),
        /// Whether `run` is one script for `sh -eu` instead.
        shell: bool => boolean().or(false),
        /// Name -> file or folder outside the cache that the program reads (a script, data); its
        /// content is in the key.
        files: BTreeMap<String, PathBuf> => map(path()).or(BTreeMap::new()),
        /// Name -> what must be in it. Each output is a folder, made before the program starts,
        /// that must not stay without files.
        outputs: BTreeMap<String, Output> => map(declared::<Output>()).or(BTreeMap::new()),
        /// Environment variables and their values, which are in the key.
        env: BTreeMap<String, String> => map(text()).or(BTreeMap::new()),
        /// Variables taken from the environment of `genius`; their values are in the key (and in
        /// its record: no secrets here).
        inherit: Vec<String> => list(non_empty(), 0).or(Vec::new()),
        /// Variables taken from the environment of `genius` that change no result: their values
        /// are not in the key.
        pass_through: Vec<String> => list(non_empty(), 0).or(vec!["PATH".to_owned()]).knob(),
    }
}

params! {
    /// What an output must be.
    pub struct Output {
        /// Files that must be there when the program ends, relative to the output's folder.
        files: Vec<String> => list(non_empty(), 0).or(Vec::new()),
        /// Whether a file of 0 bytes in it is a failure.
        nonempty: bool => boolean().or(false),
    }
}

impl Kind for Params {
    const NAME: &'static str = "command";
    /// 2: the executable bits of an output's files are kept.
    const VERSION: u32 = 2;
    /// Those that it declares.
    const INPUTS: &'static [Input] = &[];
    /// Those that it declares.
    const OUTPUTS: &'static [&'static str] = &[];
    const PROGRAM: Program = Program::Own;
    const PARTS: Option<Parts<Self>> = None;
    const DISK_BYTES: Option<DiskBytes<Self>> = None;

    fn resolve(&mut self, _: &Target<'_>) -> Result<Resolved, Unsupported> {
        Ok(Resolved::ANYWHERE)
    }

    fn declared_outputs(&self) -> Vec<String> {
        self.outputs.keys().cloned().collect()
    }

    /// The values of the variables that it inherits are in its key.
    fn identity(&self, identity: &mut Value, variable: &Variables<'_>) {
        let inherited = self.inherit.iter();
        identity["inherit"] = inherited
            .map(|name| (name.clone(), json!(variable(name))))
            .collect::<Map<_, _>>()
            .into();
    }
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
