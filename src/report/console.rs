//! The console while a run goes on: a live line a stage in a terminal
//! ([`LiveConsole`]), plain lines elsewhere ([`PlainConsole`]).

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::protocol::{Level, Progress};
use crate::schedule::{Event, Subscriber};

/// How often a plain console tells of one stage's progress.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A live line a running stage; finished stages stay as plain lines above.
pub struct LiveConsole {
    multi: MultiProgress,
    bars: BTreeMap<String, Live>,
    width: usize,
    color: bool,
}

/// The line of a running stage.
struct Live {
    bar: ProgressBar,
    phase: String,
    /// When the phase began, and what was done by then.
    since: (Instant, u64),
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
        if let Some(live) = self.bars.remove(stage) {
            live.bar.finish_and_clear();
            self.multi.remove(&live.bar);
        }
    }
}

impl Subscriber for LiveConsole {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => self.width = widest(stages),
            Event::StageStarted { stage, .. } => {
                let bar = self.multi.add(ProgressBar::new_spinner());
                // `wide_msg` is cut at the terminal's edge: a line that wraps cannot be redrawn.
                let style = ProgressStyle::with_template(if self.color {
                    "{prefix}  {spinner:.cyan} {time:>6}  {wide_msg}"
                } else {
                    "{prefix}  {spinner} {time:>6}  {wide_msg}"
                });
                if let Ok(style) = style {
                    bar.set_style(style.with_key(
                        "time",
                        |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                            let _ = to.write_str(&whole_seconds(state.elapsed()));
                        },
                    ));
                }
                bar.set_prefix(format!("{stage:<width$}", width = self.width));
                bar.set_message("starting");
                bar.enable_steady_tick(Duration::from_millis(125));
                let live = Live {
                    bar,
                    phase: String::new(),
                    since: (Instant::now(), 0),
                };
                self.bars.insert(stage.clone(), live);
            }
            Event::StageProgress { stage, progress } => {
                if let Some(live) = self.bars.get_mut(stage) {
                    if live.phase != progress.phase {
                        live.phase.clone_from(&progress.phase);
                        live.since = (Instant::now(), progress.done);
                    }
                    let (since, before) = live.since;
                    let left = time_left(progress, before, since.elapsed());
                    live.bar
                        .set_message(format!("{}{left}", describe(progress)));
                }
            }
            Event::RunFinished { .. } => {
                for live in self.bars.values() {
                    live.bar.finish_and_clear();
                }
                self.bars.clear();
            }
            other => {
                if let Event::StageFinished { stage, .. }
                | Event::StageFailed { stage, .. }
                | Event::StageRetrying { stage, .. }
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
    only_failures: bool,
    told: BTreeMap<String, Instant>,
}

impl<W: Write> PlainConsole<W> {
    /// A console that writes to `out`.
    pub fn new(out: W, color: bool) -> Self {
        Self {
            out,
            width: 0,
            color,
            only_failures: false,
            told: BTreeMap::new(),
        }
    }

    /// The same, silent but for stages that fail.
    #[must_use]
    pub fn only_failures(mut self) -> Self {
        self.only_failures = true;
        self
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
            other if self.only_failures && !matches!(other, Event::StageFailed { .. }) => {}
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
pub(super) fn describe(p: &Progress) -> String {
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

/// `, 1m20s left`, as far as the past of the phase tells: `before` was done when
/// it began, `elapsed` ago.
fn time_left(p: &Progress, before: u64, elapsed: Duration) -> String {
    let past = p.done.saturating_sub(before);
    match p.total {
        Some(total) if past > 0 && p.done < total && elapsed.as_secs() >= 2 => {
            let rest = elapsed.as_secs_f64() * (total - p.done) as f64 / past as f64;
            format!(", {} left", whole_seconds(Duration::from_secs_f64(rest)))
        }
        _ => String::new(),
    }
}

/// `7s`, `42s`, `3m05s`, `2h07m`.
fn whole_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => super::summary::duration(seconds as f64),
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
        Event::StageWaiting { stage, holder } => Some(line(
            stage,
            format!(
                "{} for {holder}, which computes the same",
                paint("33", "waiting")
            ),
        )),
        Event::StageRetrying {
            stage,
            attempt,
            of,
            failure,
            wait_secs,
        } => {
            let wait = super::summary::duration(*wait_secs);
            Some(line(
                stage,
                format!(
                    "{}: {failure}\n{:<width$}  attempt {attempt} of {of} in {wait}",
                    paint("33", "failed"),
                    ""
                ),
            ))
        }
        Event::Interrupted { times: 1 } => Some(
            "stopping the workers and keeping what is finished; once more to stop at once"
                .to_owned(),
        ),
        Event::Interrupted { .. } => Some("stopping at once".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Failure;

    /// What a plain console without colour writes.
    fn shown(events: &[Event]) -> String {
        let mut out = Vec::new();
        let mut console = PlainConsole::new(&mut out, false);
        for event in events {
            console.on(event);
        }
        String::from_utf8(out).unwrap()
    }

    fn log(level: Level, text: &str) -> Event {
        Event::StageLog {
            stage: "train".into(),
            level,
            text: text.into(),
        }
    }

    #[test]
    fn plain_lines_tell_of_changes_and_are_aligned() {
        let text = shown(&[
            Event::RunStarted {
                run_id: "1".into(),
                pipeline: "p".into(),
                stages: vec!["queries".into(), "train".into()],
            },
            Event::StageCached {
                stage: "queries".into(),
                key: "0123456789abcdef".into(),
            },
            Event::StageStarted {
                stage: "train".into(),
                key: "0".into(),
                reason: String::new(),
                preimage: serde_json::Value::Null,
            },
            Event::StageFailed {
                stage: "train".into(),
                failure: Failure::new("out of memory").hint("a smaller width"),
                seconds: 1.0,
            },
        ]);
        insta::assert_snapshot!(text, @r"
        queries  cached (0123456789ab)
        train    started
        train    failed: out of memory
                 hint: a smaller width
        ");
    }

    #[test]
    fn warnings_are_shown_and_the_rest_is_for_the_log() {
        let text = shown(&[
            log(Level::Debug, "a"),
            log(Level::Info, "b"),
            log(Level::Warn, "c"),
        ]);
        assert_eq!(text, "train  warning: c\n");
    }

    #[test]
    fn the_time_left_follows_the_phase_and_not_the_stage() {
        let progress = Progress {
            done: 30,
            total: Some(100),
            ..Progress::default()
        };
        // 20 of them in 4 seconds: 70 more take 14.
        let left = time_left(&progress, 10, Duration::from_secs(4));
        assert_eq!(left, ", 14s left");
        assert_eq!(time_left(&progress, 30, Duration::from_secs(4)), "");
    }
}
