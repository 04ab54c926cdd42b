//! What is wrong with a pipeline file, where, and what was probably meant:
//! [`Diagnostic`], and [`Diagnostics`] for all of them at once.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::yaml::Span;
use crate::text::{Style, Text, is_hidden};

/// Columns of an offending line that are shown at most.
const SHOWN_COLUMNS: usize = 140;
/// Problems that are collected; a longer list would not be read.
const MAX_PROBLEMS: usize = 200;
/// Characters of a message or hint, which may quote megabytes of text.
const SHOWN_CHARACTERS: usize = 2000;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The pipeline file, as the user named it.
    pub path: PathBuf,
    /// The `--set` text that the problem is in, if it is not in the file.
    pub set: Option<String>,
    /// From 1; 0 when the problem has no line.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters; what the caret underlines.
    pub length: usize,
    /// The offending line.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// The text beside the caret.
    pub label: Option<String>,
    /// What to do about it, often the nearest right name.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// `file:line:column`, or the `--set` text.
    pub fn place(&self) -> String {
        match &self.set {
            Some(set) => format!("--set {set}"),
            None if self.line == 0 => self.path.display().to_string(),
            None => format!("{}:{}:{}", self.path.display(), self.line, self.column),
        }
    }

    /// The problem in the style of rustc, with a final newline.
    pub fn text(&self) -> Text {
        let shown = self.set.is_none() && self.line > 0;
        let width = if shown {
            self.line.to_string().len()
        } else {
            1
        };
        let blank = " ".repeat(width);
        let mut out = Text::new();
        out.paint(Style::BoldRed, "error");
        out.paint(Style::Bold, &format!(": {}", printable(&self.message)));
        out.push(&format!("\n{blank}"));
        out.paint(Style::BoldBlue, "-->");
        out.push(&format!(" {}\n", printable(&self.place())));
        let bar = |out: &mut Text| {
            out.push(&format!("{blank} "));
            out.paint(Style::BoldBlue, "|");
        };
        if shown {
            let (source, before, carets) = self.window();
            let label = self
                .label
                .as_deref()
                .map(|l| format!(" {}", printable(l)))
                .unwrap_or_default();
            bar(&mut out);
            out.push("\n");
            out.paint(Style::BoldBlue, &format!("{:>width$} |", self.line));
            out.push(&format!(" {source}\n"));
            bar(&mut out);
            out.push(&format!(" {before}"));
            out.paint(Style::BoldRed, &format!("{}{label}", "^".repeat(carets)));
            out.push("\n");
        }
        if let Some(hint) = &self.hint {
            if shown {
                bar(&mut out);
                out.push("\n");
            }
            out.push(&format!("{blank} "));
            out.paint(Style::BoldBlue, "=");
            out.push(" ");
            out.paint(Style::Bold, "help");
            out.push(&format!(": {}\n", printable(hint)));
        }
        out
    }

    /// The part of the line to show, the blanks before the caret (tabs stay
    /// tabs, so that it lines up) and the number of carets.
    fn window(&self) -> (String, String, usize) {
        let characters: Vec<char> = self.source.trim_end().chars().collect();
        let at = self.column.saturating_sub(1).min(characters.len());
        let start = if characters.len() <= SHOWN_COLUMNS {
            0
        } else {
            at.saturating_sub(SHOWN_COLUMNS / 2)
        };
        let end = characters.len().min(start + SHOWN_COLUMNS);
        let mut line: String = characters[start..end]
            .iter()
            .copied()
            .map(visible)
            .collect();
        let mut before: String = characters[start..at]
            .iter()
            .map(|c| if *c == '\t' { '\t' } else { ' ' })
            .collect();
        if start > 0 {
            line.insert(0, '…');
            before.insert(0, ' ');
        }
        if end < characters.len() {
            line.push('…');
        }
        (line, before, self.length.min(end - at).max(1))
    }
}

/// Shows an unprintable character as one column, so that the caret lines up.
fn visible(c: char) -> char {
    if is_hidden(c) { '\u{fffd}' } else { c }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' { ' ' } else { visible(c) })
        .collect()
}

/// Every problem of a pipeline, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// All of them, with an empty line between two.
    pub fn text(&self) -> Text {
        let mut all = Text::new();
        for (at, diagnostic) in self.0.iter().enumerate() {
            if at > 0 {
                all.push("\n");
            }
            all.append(diagnostic.text());
        }
        all
    }

    /// The same as a string, with or without colour.
    pub fn render(&self, color: bool) -> String {
        self.text().render(color)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// A problem before the file's text is added to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub span: Span,
    pub message: String,
    pub label: Option<String>,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: shortened(message.into()),
            label: None,
            hint: None,
        }
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(shortened(hint.into()));
        self
    }

    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.map(shortened).or(self.hint);
        self
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > SHOWN_CHARACTERS
        && let Some((end, _)) = text.char_indices().nth(SHOWN_CHARACTERS)
    {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Nodes and bytes of text that references have expanded to, over the whole pipeline.
    pub referenced: (usize, usize),
    problems: Vec<Problem>,
    seen: HashSet<Problem>,
    circles: HashSet<BTreeSet<String>>,
    more: bool,
}

impl Report {
    pub fn add(&mut self, problem: Problem) {
        // A parameter used in several places would be reported once for each.
        if self.seen.contains(&problem) {
            return;
        }
        if self.is_full() {
            self.more = true;
            return;
        }
        self.seen.insert(problem.clone());
        self.problems.push(problem);
    }

    pub fn extend(&mut self, problems: Vec<Problem>) {
        problems.into_iter().for_each(|p| self.add(p));
    }

    /// Adds a variant's problems, except those that the plain file or an earlier
    /// variant has too.
    pub fn add_from_variant(&mut self, variant: &str, found: Report) {
        self.more |= found.more;
        for mut problem in found.problems {
            if self.seen.contains(&problem) {
                continue;
            }
            self.seen.insert(problem.clone());
            if problem.span.set.is_some() || problem.span.line == 0 {
                // No line is shown that could have a label.
                problem.message = format!("in variant `{variant}`: {}", problem.message);
            } else {
                problem.label = Some(match problem.label {
                    Some(label) => format!("{label}, in variant `{variant}`"),
                    None => format!("in variant `{variant}`"),
                });
            }
            self.add(problem);
        }
    }

    /// Whether this cycle of references is new: it is found from each of its members.
    pub fn is_new_cycle(&mut self, references: BTreeSet<String>) -> bool {
        self.circles.insert(references)
    }

    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the limit is reached.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// Everything found, by position; problems in `--set` come last.
    pub fn finish(mut self, path: &Path, text: &str, sets: &[String]) -> Diagnostics {
        self.problems
            .sort_by_key(|p| (p.span.set, p.span.line, p.span.column));
        let lines: Vec<&str> = text.lines().collect();
        let diagnostic = |p: Problem| Diagnostic {
            path: path.to_owned(),
            set: p.span.set.and_then(|i| sets.get(i).cloned()),
            line: p.span.line,
            column: p.span.column,
            length: p.span.length,
            source: p
                .span
                .line
                .checked_sub(1)
                .and_then(|i| lines.get(i))
                .unwrap_or(&"")
                .to_string(),
            message: p.message,
            label: p.label,
            hint: p.hint,
        };
        let full = self.is_full() || self.more;
        let mut all: Vec<Diagnostic> = self.problems.into_iter().map(diagnostic).collect();
        if full {
            all.push(Diagnostic {
                path: path.to_owned(),
                set: None,
                line: 0,
                column: 0,
                length: 0,
                source: String::new(),
                message: format!("the first {MAX_PROBLEMS} problems are shown; there may be more"),
                label: None,
                hint: None,
            });
        }
        Diagnostics(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_around_the_problem() {
        let mut report = Report::default();
        report.add(Problem::new(
            Span {
                set: None,
                line: 1,
                column: 301,
                length: 3,
            },
            "bad",
        ));
        let text = format!("{}abc{}", "x".repeat(300), "y".repeat(300));
        let rendered = report.finish(Path::new("p.yaml"), &text, &[]).render(false);
        let lines: Vec<&str> = rendered.lines().collect();
        let caret = lines[4].find('^').map(|i| lines[4][..i].chars().count());
        let fault = lines[3].find("abc").map(|i| lines[3][..i].chars().count());
        assert_eq!(caret, fault);
        assert!(lines[3].chars().count() < 160);
    }

    #[test]
    fn colour_is_used_only_on_request() {
        let mut report = Report::default();
        report.add(Problem::new(
            Span {
                set: None,
                line: 1,
                column: 1,
                length: 1,
            },
            "bad\x1b[2J",
        ));
        let found = report.finish(Path::new("p.yaml"), "x", &[]);
        assert!(found.render(true).contains("\x1b[1;31merror"));
        assert!(!found.render(false).contains('\x1b'));
    }
}
