//! What the schema of `command` cannot say of it: [`check`]. Placeholders must
//! be declared, names must be possible.

use super::diagnostic::{Problem, Report, nearest};
use super::yaml::{Node, Span, Value};
use crate::stage::command::{Piece, is_name, pieces};

/// Checks `with` of a command, references replaced. `needs` are the slots that
/// it has.
pub(super) fn check(
    with: &Node,
    needs: &[(String, String, Span)],
    name: &str,
    report: &mut Report,
) {
    let slots: Vec<&str> = needs.iter().map(|(slot, ..)| slot.as_str()).collect();
    let (files, outputs) = (names(with, "files"), names(with, "outputs"));
    let run = items(with, "run");
    for (index, node) in run.iter().enumerate() {
        let Value::Str(argument) = &node.value else {
            continue;
        };
        let path = format!("run[{index}]");
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
            .hint("write the script as one text: `run: [\"first | second\"]`"),
        );
    }
    if let Some(Node {
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
    check_variables(with, report);
    check_outputs(with, report);
}

/// Names of environment variables, where they are given.
fn check_variables(with: &Node, report: &mut Report) {
    if let Some(Value::Map(entries)) = with.get("env").map(|e| &e.value.value) {
        for entry in entries {
            // What is no name at all is refused as such already.
            if is_name(&entry.key) {
                refuse_variable(&entry.key, entry.key_span, "env", report);
            }
            if let Value::Str(text) = &entry.value.value {
                refuse_nul(
                    text,
                    entry.value.span,
                    &format!("env.{}", entry.key),
                    report,
                );
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
fn check_outputs(with: &Node, report: &mut Report) {
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
        _ => "a name begins with a letter or `_`; letters, digits and `_` follow".to_owned(),
    };
    report.add(
        Problem::new(
            span,
            format!("`{path}`: `{name}` cannot be the name of an environment variable"),
        )
        .hint(hint),
    );
}

fn refuse_nul(text: &str, span: Span, path: &str, report: &mut Report) {
    if text.contains('\0') {
        report.add(Problem::new(
            span,
            format!("`{path}` has a NUL character in it: no program can be given one"),
        ));
    }
}

fn names<'a>(with: &'a Node, key: &str) -> Vec<&'a str> {
    match with.get(key).map(|e| &e.value.value) {
        Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn items<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    match node.get(key).map(|e| &e.value.value) {
        Some(Value::Seq(items)) => items,
        _ => &[],
    }
}
