//! Which files decide what a command runs: [`survey`] finds those that its stages name,
//! and the programs that their names resolve to.
//!
//! A trust covers (by hash) the declared `files` and whatever else a command names in
//! the project: its program, and absolute paths in its arguments and variables. It does
//! not cover programs of the system.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts::{Command, Facts};
use crate::store::{ContentHash, HashMemory};

/// The project's folder: the git repository around the pipeline, else the pipeline's
/// folder.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
    canonical: PathBuf,
}

impl Project {
    /// Of a pipeline file.
    pub fn containing(pipeline: &Path) -> Self {
        let folder = pipeline.parent().unwrap_or(pipeline);
        let repository = folder.ancestors().find(|a| a.join(".git").exists());
        let root = repository.unwrap_or(folder).to_owned();
        Self {
            canonical: root.canonicalize().unwrap_or_else(|_| root.clone()),
            root,
        }
    }

    /// Whether it is in there by its name.
    pub fn names(&self, path: &Path) -> bool {
        path.starts_with(&self.root) || path.starts_with(&self.canonical)
    }

    /// Whether it is in there, by its name or through a link.
    pub fn holds(&self, path: &Path) -> bool {
        let real = path.canonicalize();
        self.names(path) || real.is_ok_and(|real| real.starts_with(&self.canonical))
    }
}

/// A file or folder that a command names.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// `files.script`, `program`, or what names it.
    pub role: String,
    /// Where.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
}

/// Whether a trust covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its content is covered.
    Covered(ContentHash),
    /// Not covered: a program of the system.
    Outside,
    /// Not covered: a folder that is not declared.
    Folder,
    /// It does not exist or cannot be read.
    Missing,
}

/// The content of a file or folder in a trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Of a file its bytes, of a folder its files.
    pub hash: ContentHash,
    /// What names it in which stages: `make: files.script`.
    pub named: BTreeSet<String>,
    /// The stages.
    pub stages: BTreeSet<String>,
}

/// Path -> its content.
pub type Contents = BTreeMap<PathBuf, Content>;

/// What each command names, in the order of the commands.
pub fn survey(
    commands: &[Command],
    project: &Project,
    variables: &BTreeMap<String, String>,
    memory: Option<&HashMemory>,
) -> Vec<Vec<Named>> {
    let place = Place { project, memory };
    commands
        .iter()
        .map(|command| place.named(&command.facts, variables))
        .collect()
}

/// All that is covered.
pub fn contents(commands: &[Command], named: &[Vec<Named>]) -> Contents {
    let mut all = Contents::new();
    for (command, named) in commands.iter().zip(named) {
        for one in named {
            let State::Covered(hash) = one.state else {
                continue;
            };
            let content = all.entry(one.path.clone()).or_insert_with(|| Content {
                hash,
                named: BTreeSet::new(),
                stages: BTreeSet::new(),
            });
            content
                .named
                .insert(format!("{}: {}", command.stage, one.role));
            content.stages.insert(command.stage.clone());
        }
    }
    all
}

struct Place<'a> {
    project: &'a Project,
    memory: Option<&'a HashMemory>,
}

impl Place<'_> {
    fn named(&self, facts: &Facts, variables: &BTreeMap<String, String>) -> Vec<Named> {
        let text = |key: &str| facts.get(key).and_then(Value::as_str);
        let mut all = Vec::new();
        for (key, value) in facts {
            if let (true, Some(path)) = (key.starts_with("files."), value.as_str()) {
                let path = PathBuf::from(path);
                let hash = hash(&path, self.memory);
                all.push(Named {
                    role: key.clone(),
                    path,
                    state: hash.map_or(State::Missing, State::Covered),
                });
            }
        }
        let run: Vec<&str> = words(facts, "run");
        let shell = facts.get("shell") == Some(&Value::Bool(true));
        let program = if shell {
            Some("sh")
        } else {
            run.first().copied()
        };
        if let Some(program) = program.filter(|p| !p.contains('{')) {
            let passed = words(facts, "pass_through");
            let inherited = words(facts, "inherit");
            let given = passed.iter().chain(&inherited).any(|name| *name == "PATH");
            let path = text("env.PATH").or_else(|| {
                given
                    .then(|| variables.get("PATH").map(String::as_str))
                    .flatten()
            });
            if let Some(path) = resolve(program, path) {
                let state = self.state(&path);
                all.push(Named {
                    role: "program".to_owned(),
                    path,
                    state,
                });
            }
        }
        let arguments = run.iter().map(|word| ("run".to_owned(), *word));
        let values = facts.iter().filter_map(|(key, value)| {
            let text = value.as_str().filter(|_| key.starts_with("env."))?;
            Some((key.clone(), text))
        });
        for (role, word) in arguments.chain(values) {
            for path in absolute_paths(word) {
                let known = all.iter().any(|n| {
                    n.path == path || (n.role.starts_with("files.") && path.starts_with(&n.path))
                });
                if !known && path.exists() && self.project.holds(&path) {
                    let state = self.state(&path);
                    all.push(Named {
                        role: role.clone(),
                        path,
                        state,
                    });
                }
            }
        }
        all
    }

    /// Of something that is not declared.
    fn state(&self, path: &Path) -> State {
        if !self.project.holds(path) {
            State::Outside
        } else if path.is_dir() {
            State::Folder
        } else {
            hash(path, self.memory).map_or(State::Missing, State::Covered)
        }
    }
}

/// The hash of a path's content now.
pub fn hash(path: &Path, memory: Option<&HashMemory>) -> Option<ContentHash> {
    match memory {
        Some(memory) => memory.hash_path(path).ok(),
        None => crate::store::hash_path(path).ok(),
    }
}

/// The words of a list.
pub fn words<'a>(facts: &'a Facts, key: &str) -> Vec<&'a str> {
    let list = facts.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The program that a name resolves to, as found when a command starts: its folder is empty, so a
/// relative path does not exist.
fn resolve(program: &str, path: Option<&str>) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| p.is_absolute() && p.exists());
    }
    // What the C library takes where PATH is not set.
    let path = path.unwrap_or("/bin:/usr/bin");
    let runs = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    path.split(':')
        .map(Path::new)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(runs)
}

/// Absolute paths that a word may name: the word itself, and what begins with `/` in
/// it behind a blank, a quote or a mark of a shell or an option.
fn absolute_paths(word: &str) -> Vec<PathBuf> {
    let ends = |c: char| c.is_whitespace() || "'\"`;|&<>()${}[]=,:\\*?".contains(c);
    let mut all = BTreeSet::new();
    if word.starts_with('/') {
        all.insert(PathBuf::from(word));
    }
    for piece in word.split(ends) {
        // `@/path` names a file to many tools.
        let piece = piece.strip_prefix('@').unwrap_or(piece);
        if piece.starts_with('/') {
            all.insert(PathBuf::from(piece));
        }
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_found_anywhere_in_a_word() {
        let found = |word: &str| {
            let paths = absolute_paths(word);
            let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
            paths.join(" ")
        };
        assert_eq!(found("/a/b.py"), "/a/b.py");
        assert_eq!(found("--script=/a/b.py"), "/a/b.py");
        assert_eq!(
            found("python3 '/a/b.py' >/tmp/x; . /a/c.sh"),
            "/a/b.py /a/c.sh /tmp/x"
        );
        assert_eq!(found("/a/lib:/b/lib"), "/a/lib /a/lib:/b/lib /b/lib");
        assert_eq!(found("/with blank/x"), "/with /with blank/x");
        assert_eq!(found("@/a/body"), "/a/body");
        assert_eq!(found("b.py ./c a/b -x"), "");
    }

    #[test]
    fn programs_are_found_as_the_system_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("tool");
        std::fs::write(&tool, "").unwrap();
        let path = format!(".::relative:{}", dir.path().display());
        assert_eq!(resolve("tool", Some(&path)), None, "it is not executable");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(resolve("tool", Some(&path)), Some(tool.clone()));
        assert_eq!(resolve(tool.to_str().unwrap(), None), Some(tool));
        assert_eq!(resolve("./tool", Some(&path)), None);
        assert!(resolve("sh", None).is_some());
    }
}
