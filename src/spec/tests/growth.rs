//! Files of ten thousand stages; nothing here looks at the clock.

use std::fmt::Write as _;

use super::{Folder, load, stages};

fn command(name: &str, needs: &str) -> String {
    let (slots, argument) = if needs.is_empty() {
        (String::new(), String::new())
    } else {
        (
            format!(" needs: {{ before: {needs} }},"),
            ", '{inputs.before}'".to_owned(),
        )
    };
    format!(
        "  {name}: {{ uses: command,{slots} with: {{ run: [./step, --out, '{{outputs.out}}'{argument}], outputs: {{ out: {{}} }} }} }}\n"
    )
}

/// A chain in which each stage needs the one after it in the file.
fn chain(length: usize) -> String {
    let mut text = String::new();
    for at in 1..length {
        text += &command(&format!("s{}", at - 1), &format!("s{at}"));
    }
    stages(&(text + &command(&format!("s{}", length - 1), "")))
}

fn fan(width: usize) -> String {
    let mut text = command("first", "");
    for at in 0..width {
        text += &command(&format!("s{at}"), "first");
    }
    stages(&text)
}

#[test]
fn ten_thousand_stages_are_read() {
    let folder = Folder::new();
    for text in [chain(10_000), fan(10_000)] {
        let pipeline = folder.load(&text, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(pipeline.stages.len() >= 10_000);
    }
}

#[test]
fn a_cycle_of_ten_thousand_stages_and_as_many_mistakes_are_reported() {
    let folder = Folder::new();
    let circle = chain(10_000).replace(
        "s9999: { uses: command,",
        "s9999: { uses: command, needs: { x: s0 },",
    );
    let problems = folder.errors(&circle, &[]);
    assert!(
        problems.starts_with("error: stages depend on each other in a cycle: s0 -> s1 -> "),
        "{}",
        &problems[..200]
    );

    let mut text = String::new();
    for at in 0..10_000 {
        let _ = writeln!(text, "  s{at}: {{ uses: comand, wiht: {{}} }}");
    }
    let problems = folder.errors(&stages(&text), &[]);
    insta::assert_snapshot!(problems.lines().rev().take(2).collect::<Vec<_>>().join("\n"), @r"
     --> pipeline.yaml
    error: the first 200 problems are shown; there may be more
    ");
}

/// Two hundred kilobytes that would be a gigabyte.
#[test]
fn parameters_are_bounded_by_the_text_they_repeat() {
    let folder = Folder::new();
    let long = "x".repeat(60_000);
    let uses: String = (0..3000)
        .map(|at| {
            format!("  s{at}: {{ uses: command, with: {{ run: [a], env: {{ A: \"${{params.p}}\" }} }} }}\n")
        })
        .collect();
    let text = format!("version: 1\nname: x\nparams: {{ p: {long} }}\nstages:\n{uses}");
    assert!(text.len() < 300_000);
    let problems = folder.errors(&text, &[]);
    assert!(
        problems.contains("references expand to more than 16777216 bytes of text"),
        "{}",
        &problems[..300]
    );
    // A hundred of them are what a person may write.
    let few: String = uses.lines().take(100).map(|l| format!("{l}\n")).collect();
    let text = format!("version: 1\nname: x\nparams: {{ p: {long} }}\nstages:\n{few}");
    folder.load(&text, &[]).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn an_endless_file_is_refused() {
    let error = load(std::path::Path::new("/dev/zero"), &[]).unwrap_err();
    assert!(
        error.to_string().contains("at most 16777216 bytes"),
        "{error}"
    );
}
