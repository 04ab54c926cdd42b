//! What the schema of `command` cannot express: [`check`]. Placeholders must
//! be declared and names must be valid.

use std::path::Path;

use serde_json::Value as Json;

use super::diagnostic::{Problem, Report};
use super::yaml::{Span, Value, YamlNode};
use crate::kind::command::{Piece, is_name, pieces};
use crate::kind::script;
use crate::text::nearest;

/// Checks the `with` of a command after references are replaced. `needs` are its
/// slots.
pub(super) fn check(
    with: &YamlNode,
    needs: &[(String, String, Span)],
    name: &str,
    report: &mut Report,
) {
    check_placeholders(with, needs, name, report);
    check_run(with, report);
    check_variables(with, report);
    check_outputs(with, report);
}

/// Placeholders in arguments and variables.
fn check_placeholders(
    with: &YamlNode,
    needs: &[(String, String, Span)],
    name: &str,
    report: &mut Report,
) {
    let slots: Vec<&str> = needs.iter().map(|(slot, ..)| slot.as_str()).collect();
    let (files, outputs) = (names(with, "files"), names(with, "outputs"));
    let arguments = items(with, "run").iter().enumerate();
    let arguments = arguments.map(|(index, node)| (format!("run[{index}]"), node));
    let variables = match with.get("env").map(|e| &e.value.value) {
        Some(Value::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    let variables = variables
        .iter()
        .map(|entry| (format!("env.{}", entry.key), &entry.value));
    for (path, node) in arguments.chain(variables) {
        let Value::Str(argument) = &node.value else {
            continue;
        };
        refuse_nul(argument, node.span, &path, report);
        for piece in pieces(argument) {
            let (word, what, used, known, cure) = match piece {
                Piece::Text(_) => continue,
                Piece::Input(used) => (
                    "inputs",
                    "input",
                    used,
                    slots.as_slice(),
                    format!("declare it: `needs: {{ {used}: STAGE }}`"),
                ),
                Piece::Output(used) => (
                    "outputs",
                    "output",
                    used,
                    outputs.as_slice(),
                    format!("declare it: `with: {{ outputs: {{ {used}: {{}} }} }}`"),
                ),
                Piece::File(used) => (
                    "files",
                    "file",
                    used,
                    files.as_slice(),
                    format!("declare it: `with: {{ files: {{ {used}: PATH }} }}`"),
                ),
            };
            if known.contains(&used) {
                continue;
            }
            report.add(
                Problem::new(
                    node.span,
                    format!("`{{{word}.{used}}}`: stage `{name}` has no {what} `{used}`"),
                )
                .label(format!("in `{path}`"))
                .hint(match nearest(used, known.iter().copied()) {
                    Some(near) => format!("did you mean `{{{word}.{near}}}`?"),
                    None => cure,
                }),
            );
        }
    }
}

/// The shape of `run`.
fn check_run(with: &YamlNode, report: &mut Report) {
    let run = items(with, "run");
    let shell = with
        .get("shell")
        .is_some_and(|e| e.value.value == Value::Bool(true));
    if shell && run.len() > 1 {
        report.add(
            Problem::new(
                run[1].span,
                format!(
                    "with `shell: true`, `run` is one script, found {} items",
                    run.len()
                ),
            )
            .hint("write the script as one string: `run: [\"first | second\"]`"),
        );
    }
    if let Some(YamlNode {
        value: Value::Str(program),
        span,
        ..
    }) = run.first()
        && program.trim().is_empty()
    {
        let what = if shell { "the script" } else { "the program" };
        report.add(Problem::new(
            *span,
            format!("`run[0]` is {what}: it must not be empty"),
        ));
    }
}

/// Refuses files whose paths would have to be quoted in code, given `with` as written
/// and as resolved.
pub(super) fn check_code(with: &YamlNode, resolved: &Json, report: &mut Report) {
    let nodes = items(with, "run");
    let run: Vec<String> = nodes
        .iter()
        .map(|node| match &node.value {
            Value::Str(text) => text.clone(),
            _ => String::new(),
        })
        .collect();
    for (index, (argument, node)) in run.iter().zip(nodes).enumerate() {
        let Some(code) = script::code_at(&run, resolved["shell"] == true, index) else {
            continue;
        };
        for piece in pieces(argument) {
            let Piece::File(name) = piece else {
                continue;
            };
            let Some(path) = resolved["files"][name].as_str().map(Path::new) else {
                continue;
            };
            if let Some(sign) = script::sign_in(path, code) {
                let placeholder = format!("{{files.{name}}}");
                report.add(
                    Problem::new(node.span, script::refusal(&placeholder, index, path, sign))
                        .hint(script::cure(&placeholder, name)),
                );
            }
        }
    }
}

/// Names of environment variables, where they are given.
fn check_variables(with: &YamlNode, report: &mut Report) {
    if let Some(Value::Map(entries)) = with.get("env").map(|e| &e.value.value) {
        for entry in entries {
            // An invalid name is reported elsewhere.
            if is_name(&entry.key) {
                refuse_variable(&entry.key, entry.key_span, "env", report);
            }
        }
    }
    for list in ["inherit", "pass_through"] {
        for (index, node) in items(with, list).iter().enumerate() {
            if let Value::Str(name) = &node.value
                && !name.is_empty()
            {
                refuse_variable(name, node.span, &format!("{list}[{index}]"), report);
            }
        }
    }
}

/// Files of outputs lie in them.
fn check_outputs(with: &YamlNode, report: &mut Report) {
    let Some(Value::Map(outputs)) = with.get("outputs").map(|e| &e.value.value) else {
        return;
    };
    for output in outputs {
        for (index, node) in items(&output.value, "files").iter().enumerate() {
            let Value::Str(file) = &node.value else {
                continue;
            };
            let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
            if !file.is_empty() && !file.split('/').all(plain) {
                report.add(
                    Problem::new(
                        node.span,
                        format!(
                            "`outputs.{}.files[{index}]` must be a path inside the output's folder, found {}",
                            output.key,
                            node.describe()
                        ),
                    )
                    .hint("write it without `/` in front, and without `.` and `..`: `result.json`, `part/1.json`"),
                );
            }
        }
    }
}

fn refuse_variable(name: &str, span: Span, path: &str, report: &mut Report) {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return;
    }
    let hint = match name.split_once('=') {
        Some((variable, value)) if path != "env" => {
            format!("its name alone; to set it: `env: {{ {variable}: \"{value}\" }}`")
        }
        _ => "a name starts with a letter or `_`, followed by letters, digits and `_`".to_owned(),
    };
    report.add(
        Problem::new(
            span,
            format!("`{path}`: `{name}` is not a valid name of an environment variable"),
        )
        .hint(hint),
    );
}

fn refuse_nul(text: &str, span: Span, path: &str, report: &mut Report) {
    if text.contains('\0') {
        report.add(Problem::new(
            span,
            format!("`{path}` contains a NUL character, which cannot be passed to a program"),
        ));
    }
}

fn names<'a>(with: &'a YamlNode, key: &str) -> Vec<&'a str> {
    match with.get(key).map(|e| &e.value.value) {
        Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn items<'a>(node: &'a YamlNode, key: &str) -> &'a [YamlNode] {
    match node.get(key).map(|e| &e.value.value) {
        Some(Value::Seq(items)) => items,
        _ => &[],
    }
}
