//! Text that shows what a trust covers ([`commands`]), and what has changed
//! ([`changes`]).

use std::collections::BTreeMap;

use serde_json::Value;

use super::cover::{Named, State, contents, words};
use super::facts::{Command, Facts, differences, find};
use super::keep::Trust;
use crate::cli::environment::command_line;
use crate::text::{Style, Text, strict};

/// What holds of every command.
const OF_ALL: &str = "\
Each program runs in its own empty folder and gets the variables above, TMPDIR, and
CUDA_VISIBLE_DEVICES where it has devices. It may do whatever you may. Not covered: the values
of inherited variables, programs outside the project, inputs, and what a program reads that is
not named here.
";

/// Every command: what it runs, with what, and what of that is covered. For a variant
/// only what differs from the plain file.
pub fn commands(
    commands: &[Command],
    named: &[Vec<Named>],
    variables: &BTreeMap<String, String>,
) -> Text {
    let mut text = Text::new();
    for (command, own) in commands.iter().zip(named) {
        let base = commands
            .iter()
            .position(|c| c.variant.is_none() && c.stage == command.stage)
            .filter(|_| command.variant.is_some());
        text.paint(Style::Bold, &strict(&command.name()));
        text.push(match base {
            Some(_) => ": as in the plain file, except\n",
            None => ":\n",
        });
        let there = base.map(|at| &commands[at].facts);
        let differs = |key: &str| there.is_none_or(|f| f.get(key) != command.facts.get(key));
        if differs("run") || differs("shell") {
            run(&mut text, &command.facts);
        }
        for (key, value) in command.facts.iter().filter(|(key, _)| differs(key)) {
            if let Some(shown) = fact(key, value, variables) {
                line(&mut text, key, &shown);
            }
        }
        let gone = there.into_iter().flat_map(Facts::keys);
        for key in gone.filter(|key| !command.facts.contains_key(*key)) {
            line(&mut text, key, "not given");
        }
        let known = |one: &Named| base.is_some_and(|at| named[at].contains(one));
        for one in own.iter().filter(|one| !known(one)) {
            line(&mut text, &one.role, &covered(one));
        }
        if base.is_none() && lacks_program(command, own) {
            let what = "not found: it is looked up in PATH, relative to the empty folder";
            line(&mut text, "program", what);
        }
    }
    if !commands.is_empty() {
        text.push(OF_ALL);
    }
    text
}

fn line(text: &mut Text, name: &str, value: &str) {
    text.push(&format!("    {:<13} {value}\n", strict(name)));
}

/// The program and its arguments; the lines of a script one under the other.
fn run(text: &mut Text, facts: &Facts) {
    let run = words(facts, "run");
    if facts.get("shell") == Some(&Value::Bool(true)) {
        let script = run.join(" ");
        let mut name = "sh -eu";
        for each in script.split('\n') {
            line(text, name, &format!("| {}", strict(each)));
            name = "";
        }
    } else {
        let words = run.into_iter().map(|w| w.to_owned().into());
        line(text, "run", &on_one_line(&command_line(words)));
    }
}

/// Escapes newlines, which could otherwise fake a line.
fn on_one_line(text: &str) -> String {
    strict(text).replace('\n', "\\n")
}

/// A value as shown; `None` if there is nothing to show.
fn fact(key: &str, value: &Value, variables: &BTreeMap<String, String>) -> Option<String> {
    let kind = key.split('.').next().unwrap_or(key);
    match (kind, value) {
        // Shown separately, with their contents.
        ("run" | "shell" | "files", _) => None,
        ("inherit" | "pass_through", Value::Array(names)) => {
            let name = |name: &Value| {
                let name = name.as_str().unwrap_or_default();
                let set = if variables.contains_key(name) {
                    "set"
                } else {
                    "not set"
                };
                format!("{} ({set})", on_one_line(name))
            };
            let names: Vec<String> = names.iter().map(name).collect();
            (!names.is_empty()).then(|| names.join(", "))
        }
        ("outputs", Value::Object(output)) => {
            let none = output.get("files") == Some(&Value::Array(Vec::new()))
                && output.get("nonempty") == Some(&Value::Bool(false));
            Some(if none {
                "a folder".to_owned()
            } else {
                on_one_line(&value.to_string())
            })
        }
        ("env", Value::String(value)) => {
            let words = [value.clone().into()].into_iter();
            Some(on_one_line(&command_line(words)))
        }
        (_, Value::String(value)) => Some(on_one_line(value)),
        (_, other) => Some(on_one_line(&other.to_string())),
    }
}

fn covered(one: &Named) -> String {
    let path = on_one_line(&one.path.display().to_string());
    match one.state {
        State::Covered(hash) if one.role.starts_with("files.") => {
            format!("{path} (covered: {})", hash.short())
        }
        State::Covered(hash) => format!(
            "{path} (covered, though not declared under `files`: {})",
            hash.short()
        ),
        State::Outside => format!("{path} (not covered: outside the project)"),
        State::Folder => format!("{path} (not covered: declare the folder under `files`)"),
        State::Missing => format!("{path} (not covered: it cannot be read now)"),
    }
}

/// Whether a command's program cannot be found.
fn lacks_program(command: &Command, named: &[Named]) -> bool {
    let shell = command.facts.get("shell") == Some(&Value::Bool(true));
    let first = words(&command.facts, "run").first().copied();
    let by_name = shell || first.is_some_and(|program| !program.contains('{'));
    by_name && !named.iter().any(|n| n.role == "program")
}

/// What differs from what was trusted, one line each; empty if it is still trusted.
pub fn changes(
    trust: &Trust,
    commands: &[Command],
    named: &[Vec<Named>],
    digest: &str,
    lines: &[String],
) -> Vec<String> {
    let mut all = Vec::new();
    for command in commands {
        let name = strict(&command.name()).into_owned();
        match find(&trust.commands, &command.stage, command.variant.as_deref()) {
            None => all.push(format!("stage `{name}` now runs a program")),
            Some(old) => all.extend(
                differences(&old.facts, &command.facts)
                    .into_iter()
                    .map(|difference| format!("stage `{name}`: {difference}")),
            ),
        }
    }
    for (path, now) in &contents(commands, named) {
        let named: Vec<&str> = now.named.iter().map(String::as_str).collect();
        let (path_shown, named) = (on_one_line(&path.display().to_string()), named.join(", "));
        match trust.contents.get(path) {
            Some(old) if old.hash == now.hash => {}
            Some(_) => all.push(format!("{path_shown} has changed ({named})")),
            None => all.push(format!("{path_shown} was not covered ({named})")),
        }
    }
    for one in named.iter().flatten() {
        let missing = one.state == State::Missing && trust.contents.contains_key(&one.path);
        let line = format!(
            "{} can no longer be read ({})",
            on_one_line(&one.path.display().to_string()),
            one.role
        );
        if missing && !all.contains(&line) {
            all.push(line);
        }
    }
    if trust.digest != digest {
        all.push(changed_lines(&trust.lines, lines));
    }
    all
}

/// Where the file differs: `the file itself, line 3`.
fn changed_lines(old: &[String], new: &[String]) -> String {
    let same = |pairs: &mut dyn Iterator<Item = (&String, &String)>| {
        pairs.take_while(|(a, b)| a == b).count()
    };
    let before = same(&mut old.iter().zip(new));
    let room = old.len().min(new.len()) - before;
    let after = same(&mut old.iter().rev().zip(new.iter().rev())).min(room);
    let (first, last) = (before + 1, new.len() - after);
    match (old.is_empty() || new.is_empty(), last.cmp(&first)) {
        (true, _) => "the file itself".to_owned(),
        (_, std::cmp::Ordering::Less) => {
            format!("the file itself: lines are gone after line {before}")
        }
        (_, std::cmp::Ordering::Equal) => format!("the file itself: line {first}"),
        (_, std::cmp::Ordering::Greater) => format!("the file itself: lines {first} to {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_found_from_both_ends() {
        let lines = |text: &str| -> Vec<String> { text.chars().map(String::from).collect() };
        let changed = |old, new| changed_lines(&lines(old), &lines(new));
        assert_eq!(changed("abc", "axc"), "the file itself: line 2");
        assert_eq!(changed("abcd", "axyd"), "the file itself: lines 2 to 3");
        assert_eq!(changed("abc", "abcd"), "the file itself: line 4");
        assert_eq!(changed("aab", "aaab"), "the file itself: line 3");
        assert_eq!(
            changed("abc", "ac"),
            "the file itself: lines are gone after line 1"
        );
        // Only line endings differ.
        assert_eq!(changed("", "abc"), "the file itself");
    }
}
