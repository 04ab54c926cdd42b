//! [`tree`]: a [`View`] as text.

use crate::text::{self, Text};

use super::text::{shorten, whole, width};
use super::view::{BeamView, CandidateView, Mark, PairView, PairsView, StepView, View};

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal, to which texts are shortened.
    pub columns: usize,
    /// Whether texts are shown whole, however long they are.
    pub full: bool,
}

/// The least columns of a text.
const LEAST: usize = 24;

impl Style {
    /// Columns left after `used`: never too few to read anything.
    pub(super) fn columns_after(&self, used: usize) -> usize {
        self.columns.saturating_sub(used).max(LEAST)
    }
}

/// The query, its steps with their beams and candidates, and its pairs.
pub fn tree(view: &View, style: &Style) -> Text {
    let mut out = Text::new();
    let id = shorten(&view.query_id, usize::MAX);
    let head = format!("query {id} (#{} of {})", view.position, view.queries);
    out.paint(text::Style::Bold, &head);
    out.push("\n");
    field(&mut out, style, "query", &view.query);
    if let Some(system) = &view.system {
        field(&mut out, style, "system", system);
    }
    field(&mut out, style, "prefix", &view.prefix);
    field(&mut out, style, "tau", &view.tau.to_string());
    if let Some(skipped) = &view.skipped {
        field(&mut out, style, "skipped", skipped);
    }
    for step in &view.steps {
        out.push("\n");
        show_step(&mut out, step, style);
    }
    if view.steps.is_empty() {
        return out;
    }
    out.push("\n");
    if view.pairs.is_empty() {
        line(
            &mut out,
            "no pairs: no stage of the pipeline makes pairs of these rollouts",
        );
    }
    for pairs in &view.pairs {
        show_pairs(&mut out, view, pairs);
    }
    out
}

fn line(out: &mut Text, text: &str) {
    out.push(text.trim_end());
    out.push("\n");
}

fn end_line(out: &mut Text, mut text: Text) {
    text.trim_end();
    out.append(text);
    out.push("\n");
}

/// `  prefix  The reasoning steps are:⏎⏎`.
fn field(out: &mut Text, style: &Style, name: &str, text: &str) {
    let lines = if style.full {
        whole(text)
    } else {
        vec![shorten(text, style.columns_after(11))]
    };
    let mut name = name;
    for text in lines {
        line(out, &format!("  {name:<7}  {text}"));
        name = "";
    }
}

fn show_step(out: &mut Text, step: &StepView, style: &Style) {
    let how = if step.light {
        ", light: no look-ahead, f is the step's own"
    } else if !step.candidates.is_empty() && step.candidates.iter().all(|c| c.completion) {
        ", without foresight: f is the step's own"
    } else {
        ""
    };
    out.paint(text::Style::Bold, &format!("step {}", step.step));
    let (beams, candidates) = (step.beams.len(), step.candidates.len());
    line(
        out,
        &format!(
            ": {}, {}{how}",
            count(beams, "beam"),
            count(candidates, "candidate")
        ),
    );
    let cells: Vec<Cells> = step.candidates.iter().map(Cells::new).collect();
    let columns = Columns::new(&cells);
    let named = step.beams.iter().enumerate();
    let mut groups: Vec<(String, Vec<usize>)> = named
        .map(|(at, beam)| {
            let own = (0..candidates).filter(|&c| step.candidates[c].parent as usize == at);
            (describe_beam(at, beam, step.step), own.collect())
        })
        .collect();
    // Possible in a file written by a user's own program.
    let strays = (0..candidates).filter(|&c| step.candidates[c].parent as usize >= beams);
    let strays: Vec<usize> = strays.collect();
    if !strays.is_empty() {
        groups.push(("no beam of this step".to_owned(), strays));
    }
    for (at, (name, own)) in groups.iter().enumerate() {
        let (branch, below) = branches(at + 1 == groups.len());
        line(out, &format!("{branch}{name}"));
        for (nth, &c) in own.iter().enumerate() {
            let (branch, under) = branches(nth + 1 == own.len());
            let candidate = &step.candidates[c];
            let branch = format!("{below}{branch}");
            let mut before = Text::from(branch.as_str());
            before.append(cells[c].line(&columns));
            let indent = format!("{below}{under}   ");
            let used = width(&branch) + columns.total() + 2;
            if style.full {
                end_line(out, before);
                full_text(out, &indent, "step", &candidate.step_text);
                full_text(out, &indent, "foresight", &candidate.foresight_text);
            } else if used + LEAST <= style.columns {
                let text = shorten(&candidate.step_text, style.columns - used);
                before.push(&format!("  {text}"));
                end_line(out, before);
            } else {
                end_line(out, before);
                let room = style.columns_after(width(&indent));
                line(
                    out,
                    &format!("{indent}{}", shorten(&candidate.step_text, room)),
                );
            }
        }
    }
}

/// The branch to an entry, and the prefix of the lines under it.
fn branches(last: bool) -> (&'static str, &'static str) {
    if last {
        ("└─ ", "   ")
    } else {
        ("├─ ", "│  ")
    }
}

fn full_text(out: &mut Text, indent: &str, name: &str, text: &str) {
    let mut name = name;
    for text in whole(text) {
        // Spaces at the end of a text are part of it.
        out.push(&format!("{indent}{name:<9}  {text}\n"));
        name = "";
    }
}

fn describe_beam(at: usize, beam: &BeamView, step: u32) -> String {
    match beam.origin {
        None if beam.tokens == 0 => format!("beam {at}: empty"),
        None => format!("beam {at}: {}", count(beam.tokens, "token")),
        Some(origin) => format!(
            "beam {at}: candidate {origin} of step {}, Q {}, {}",
            step.saturating_sub(1),
            number(Some(beam.q)),
            count(beam.tokens, "token")
        ),
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Three decimals; `-` where there is none.
pub(super) fn number(value: Option<f64>) -> String {
    let Some(value) = value.filter(|v| v.is_finite()) else {
        return "-".to_owned();
    };
    let text = format!("{value:.3}");
    // The sign of a number that rounds to zero is noise.
    match text.strip_prefix('-') {
        Some("0.000") => "0.000".to_owned(),
        _ => text,
    }
}

/// The cells before a candidate's text.
struct Cells {
    index: String,
    /// Names and values, to be aligned to the right: f, F, other Fs, A.
    values: Vec<(String, String)>,
    tokens: String,
    marks: Vec<(Mark, String)>,
}

impl Cells {
    fn new(c: &CandidateView) -> Self {
        let named = |name: &str, value: Option<f64>| (name.to_owned(), number(value));
        let mut values = vec![named("f", c.f), named("F", Some(c.probability))];
        for (stage, probability) in &c.score_probability {
            values.push(named(&format!("F of {stage}"), Some(*probability)));
        }
        values.push(named("A", c.advantage));
        let mark = |&mark: &Mark| {
            let text = match mark {
                Mark::Beam => {
                    let beams: Vec<String> = c.beams.iter().map(usize::to_string).collect();
                    format!("beam {}", beams.join("+"))
                }
                other => other.word().to_owned(),
            };
            (mark, text)
        };
        Self {
            index: c.index.to_string(),
            values,
            tokens: format!("{}+{} tok", c.step_tokens, c.foresight_tokens),
            marks: c.marks.iter().map(mark).collect(),
        }
    }

    /// Width of the marks, `, ` between them.
    fn marks_width(&self) -> usize {
        let words: usize = self.marks.iter().map(|(_, text)| width(text)).sum();
        words + 2 * self.marks.len().saturating_sub(1)
    }

    fn line(&self, columns: &Columns) -> Text {
        let mut text = Text::from(format!("{:>w$}", self.index, w = columns.index));
        for ((name, value), w) in self.values.iter().zip(&columns.values) {
            text.push(&format!("  {name} {value:>w$}"));
        }
        text.push(&format!("  {:<w$}  ", self.tokens, w = columns.tokens));
        for (at, (mark, word)) in self.marks.iter().enumerate() {
            text.push(if at > 0 { ", " } else { "" });
            text.paint(style_of(*mark), word);
        }
        text.push(&" ".repeat(columns.marks - self.marks_width()));
        text
    }
}

fn style_of(mark: Mark) -> text::Style {
    match mark {
        Mark::Beam | Mark::Drawn => text::Style::Cyan,
        Mark::Chosen => text::Style::Green,
        Mark::Rejected => text::Style::Red,
        Mark::Empty | Mark::NoScore => text::Style::Yellow,
        Mark::Stop | Mark::Ended | Mark::Cut | Mark::Truncated | Mark::Duplicate => {
            text::Style::Plain
        }
    }
}

/// Widths of a step's cells.
struct Columns {
    index: usize,
    values: Vec<usize>,
    names: usize,
    tokens: usize,
    marks: usize,
}

impl Columns {
    fn new(cells: &[Cells]) -> Self {
        let most = |of: &dyn Fn(&Cells) -> usize| cells.iter().map(of).max().unwrap_or(0);
        let first = cells
            .first()
            .map(|c| c.values.as_slice())
            .unwrap_or_default();
        Self {
            index: most(&|c| c.index.len()),
            values: (0..first.len())
                .map(|v| most(&|c| c.values[v].1.len()))
                .collect(),
            names: first.iter().map(|(name, _)| width(name) + 3).sum(),
            tokens: most(&|c| c.tokens.len()),
            marks: most(&Cells::marks_width),
        }
    }

    /// Columns that every line takes before its text.
    fn total(&self) -> usize {
        let values: usize = self.values.iter().sum();
        self.index + self.names + values + 2 + self.tokens + 2 + self.marks
    }
}

fn show_pairs(out: &mut Text, view: &View, pairs: &PairsView) {
    let stage = &pairs.stage;
    out.paint(text::Style::Bold, "pairs");
    if let Some(command) = &pairs.missing {
        let text = format!(": stage `{stage}` has no result yet: `{command}` computes it");
        return line(out, &text);
    }
    line(out, &format!(" of stage `{stage}`"));
    for (at, pair) in pairs.steps.iter().enumerate() {
        let (branch, _) = branches(at + 1 == pairs.steps.len());
        let text = match pair.none {
            Some(why) => format!("none ({why})"),
            None => describe_pair(view.steps.get(at), pair),
        };
        line(out, &format!("{branch}step {}: {text}", pair.step));
    }
}

/// `chosen 1 (f -0.2500, A 0.2500), rejected 0 (f -0.7500, A -0.1500), of one beam`.
fn describe_pair(step: Option<&StepView>, pair: &PairView) -> String {
    let find = |index: Option<u32>| {
        let candidates = step.map(|s| s.candidates.as_slice()).unwrap_or_default();
        index.and_then(|i| candidates.get(i as usize))
    };
    let (chosen, rejected) = (find(pair.chosen), find(pair.rejected));
    let side = |c: Option<&CandidateView>| match c {
        Some(c) => format!("{} (f {}, A {})", c.index, number(c.f), number(c.advantage)),
        None => "none of these candidates".to_owned(),
    };
    let of = match pair.same_parent {
        Some(true) => ", of one beam",
        Some(false) => ", of different beams",
        None => "",
    };
    let higher = match (
        chosen.and_then(|c| c.advantage),
        rejected.and_then(|c| c.advantage),
    ) {
        (Some(chosen), Some(rejected)) if rejected > chosen => ", A of the rejected is higher",
        _ => "",
    };
    format!(
        "chosen {}, rejected {}{of}{higher}",
        side(chosen),
        side(rejected)
    )
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
