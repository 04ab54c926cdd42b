//! The console while a run goes on: a live line a stage in a terminal
//! ([`LiveConsole`]), plain lines elsewhere ([`PlainConsole`]).

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::protocol::{Level, Progress};
use crate::schedule::{Event, Subscriber};

/// How often a plain console tells of one stage's progress.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A live line a running stage; finished stages stay as plain lines above.
pub struct LiveConsole {
    multi: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    width: usize,
    color: bool,
}

impl LiveConsole {
    /// A console on stderr.
    pub fn new(color: bool) -> Self {
        Self {
            multi: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)),
            bars: BTreeMap::new(),
            width: 0,
            color,
        }
    }

    fn line(&self, text: &str) {
        let _ = self.multi.println(text);
    }

    fn end(&mut self, stage: &str) {
        if let Some(bar) = self.bars.remove(stage) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }
}

impl Subscriber for LiveConsole {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => self.width = widest(stages),
            Event::StageStarted { stage, .. } => {
                let bar = self.multi.add(ProgressBar::new_spinner());
                let style = ProgressStyle::with_template(if self.color {
                    "{spinner:.cyan} {prefix} {elapsed:>4} {msg}"
                } else {
                    "{spinner} {prefix} {elapsed:>4} {msg}"
                });
                if let Ok(style) = style {
                    bar.set_style(style);
                }
                bar.set_prefix(format!("{stage:<width$}", width = self.width));
                bar.set_message("starting");
                bar.enable_steady_tick(Duration::from_millis(125));
                self.bars.insert(stage.clone(), bar);
            }
            Event::StageProgress { stage, progress } => {
                if let Some(bar) = self.bars.get(stage) {
                    let left = time_left(progress, bar.elapsed());
                    bar.set_message(format!("{}{left}", describe(progress)));
                }
            }
            Event::RunFinished { .. } => {
                for bar in self.bars.values() {
                    bar.finish_and_clear();
                }
                self.bars.clear();
            }
            other => {
                if let Event::StageFinished { stage, .. }
                | Event::StageFailed { stage, .. }
                | Event::StageSkipped { stage, .. } = other
                {
                    self.end(stage);
                }
                if let Some(text) = state_line(other, self.width, self.color) {
                    self.line(&text);
                }
            }
        }
    }
}

/// Lines on state changes, and progress now and then.
pub struct PlainConsole<W: Write> {
    out: W,
    width: usize,
    color: bool,
    told: BTreeMap<String, Instant>,
}

impl<W: Write> PlainConsole<W> {
    /// A console that writes to `out`.
    pub fn new(out: W, color: bool) -> Self {
        Self {
            out,
            width: 0,
            color,
            told: BTreeMap::new(),
        }
    }

    fn line(&mut self, text: &str) {
        // A reader that went away does not stop the run.
        let _ = writeln!(self.out, "{text}");
    }
}

impl<W: Write> Subscriber for PlainConsole<W> {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => self.width = widest(stages),
            Event::StageStarted { stage, .. } => {
                self.told.insert(stage.clone(), Instant::now());
                let text = format!("{stage:<width$}  started", width = self.width);
                self.line(&text);
            }
            Event::StageProgress { stage, progress } => {
                let due = self
                    .told
                    .get(stage)
                    .is_none_or(|t| t.elapsed() >= PLAIN_EVERY);
                if due {
                    self.told.insert(stage.clone(), Instant::now());
                    let text = format!("{stage:<w$}  {}", describe(progress), w = self.width);
                    self.line(&text);
                }
            }
            other => {
                if let Some(text) = state_line(other, self.width, self.color) {
                    self.line(&text);
                }
            }
        }
    }
}

fn widest(stages: &[String]) -> usize {
    stages.iter().map(|s| s.chars().count()).max().unwrap_or(0)
}

/// `rolling out 12/64 queries, 27.9 tok/s`.
fn describe(p: &Progress) -> String {
    let mut text = p.phase.clone();
    if let Some(total) = p.total {
        text.push_str(&format!(" {}/{} {}", p.done, total, p.unit));
    } else if p.done > 0 {
        text.push_str(&format!(" {} {}", p.done, p.unit));
    }
    if !p.detail.is_empty() {
        text.push_str(&format!(", {}", p.detail));
    }
    text
}

/// `, 1m20s left`, as far as the past tells.
fn time_left(p: &Progress, elapsed: Duration) -> String {
    match p.total {
        Some(total) if p.done > 0 && p.done < total && elapsed.as_secs() >= 2 => {
            let rest = elapsed.as_secs_f64() * (total - p.done) as f64 / p.done as f64;
            format!(", {} left", super::summary::duration(rest))
        }
        _ => String::new(),
    }
}

fn state_line(event: &Event, width: usize, color: bool) -> Option<String> {
    let paint = |code: &str, text: &str| {
        if color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    };
    let line = |stage: &str, state: String| format!("{stage:<width$}  {state}");
    match event {
        Event::StageCached { stage, key } => Some(line(
            stage,
            format!("{} ({})", paint("36", "cached"), &key[..12.min(key.len())]),
        )),
        Event::StageFinished { stage, seconds, .. } => {
            let time = super::summary::duration(*seconds);
            Some(line(stage, format!("{} in {time}", paint("32", "done"))))
        }
        Event::StageFailed { stage, failure, .. } => {
            let mut text = line(stage, format!("{}: {failure}", paint("31", "failed")));
            if let Some(hint) = &failure.hint {
                text.push_str(&format!("\n{:<width$}  hint: {hint}", ""));
            }
            Some(text)
        }
        Event::StageSkipped { stage, reason } => {
            Some(line(stage, format!("{}: {reason}", paint("33", "skipped"))))
        }
        Event::StageLog {
            stage,
            level: Level::Warn,
            text,
        } => Some(line(stage, format!("{}: {text}", paint("33", "warning")))),
        Event::StageLog {
            stage,
            level: Level::Info,
            text,
        } => Some(line(stage, text.clone())),
        Event::Interrupted { times: 1 } => Some(
            "stopping the workers and keeping what is finished; once more to stop at once"
                .to_owned(),
        ),
        Event::Interrupted { .. } => Some("stopping at once".to_owned()),
        _ => None,
    }
}
