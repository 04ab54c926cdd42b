//! The console during a run: a live line per stage in a terminal
//! ([`LiveConsole`]), plain lines elsewhere ([`PlainConsole`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::{Level, Progress};
use crate::run::{Event, Subscriber};
use crate::text::{Live, LiveLine, Style, Text, duration, one_line};

/// How often a plain console reports one stage's progress.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A live line per running stage; finished stages stay as plain lines above.
pub struct LiveConsole {
    live: Live,
    running: BTreeMap<String, Running>,
    width: usize,
}

/// The line of a running stage.
struct Running {
    line: LiveLine,
    phase: String,
    /// When the phase began, and what was done by then.
    since: (Instant, u64),
}

impl LiveConsole {
    /// A console on stderr.
    pub fn new(color: bool) -> Self {
        Self {
            live: Live::new(color),
            running: BTreeMap::new(),
            width: 0,
        }
    }
}

impl Subscriber for LiveConsole {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => self.width = widest(stages),
            Event::StageStarted { stage, .. } => {
                let name = format!("{stage:<width$}", width = self.width);
                let line = self.live.running(&name, whole_seconds);
                line.message("starting");
                let running = Running {
                    line,
                    phase: String::new(),
                    since: (Instant::now(), 0),
                };
                self.running.insert(stage.clone(), running);
            }
            Event::StageProgress { stage, progress } => {
                if let Some(running) = self.running.get_mut(stage) {
                    if running.phase != progress.phase {
                        running.phase.clone_from(&progress.phase);
                        running.since = (Instant::now(), progress.done);
                    }
                    let (since, before) = running.since;
                    let left = time_left(progress, before, since.elapsed());
                    running
                        .line
                        .message(&format!("{}{left}", describe(progress)));
                }
            }
            Event::RunFinished { .. } => self.running.clear(),
            other => {
                if let Event::StageFinished { stage, .. }
                | Event::StageFailed { stage, .. }
                | Event::StageRetrying { stage, .. }
                | Event::StageSkipped { stage, .. } = other
                {
                    self.running.remove(stage);
                }
                if let Some(text) = state_line(other, self.width) {
                    self.live.above(&text);
                }
            }
        }
    }
}

/// A line per change of state, and progress now and then.
pub struct PlainConsole<W: FnMut(&Text)> {
    line: W,
    width: usize,
    only_failures: bool,
    /// When each stage was last shown.
    reported: BTreeMap<String, Instant>,
}

impl<W: FnMut(&Text)> PlainConsole<W> {
    /// A console that gives its lines to `line`.
    pub fn new(line: W) -> Self {
        Self {
            line,
            width: 0,
            only_failures: false,
            reported: BTreeMap::new(),
        }
    }

    /// The same, silent but for stages that fail.
    #[must_use]
    pub fn only_failures(mut self) -> Self {
        self.only_failures = true;
        self
    }
}

impl<W: FnMut(&Text)> Subscriber for PlainConsole<W> {
    fn on(&mut self, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => self.width = widest(stages),
            other if self.only_failures && !matches!(other, Event::StageFailed { .. }) => {}
            Event::StageStarted { stage, .. } => {
                self.reported.insert(stage.clone(), Instant::now());
                let text = format!("{stage:<width$}  started", width = self.width);
                (self.line)(&text.into());
            }
            Event::StageProgress { stage, progress } => {
                let due = self
                    .reported
                    .get(stage)
                    .is_none_or(|t| t.elapsed() >= PLAIN_EVERY);
                if due {
                    self.reported.insert(stage.clone(), Instant::now());
                    let described = describe(progress);
                    let text = format!("{stage:<w$}  {}", one_line(&described), w = self.width);
                    (self.line)(&text.into());
                }
            }
            other => {
                if let Some(text) = state_line(other, self.width) {
                    (self.line)(&text);
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

/// `, 1m20s left`, extrapolated from the phase so far: `before` was done when it began,
/// `elapsed` ago.
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
        seconds => duration(seconds as f64),
    }
}

fn state_line(event: &Event, width: usize) -> Option<Text> {
    let line = |stage: &str, style: Style, state: &str, rest: String| {
        let mut text = Text::from(format!("{stage:<width$}  "));
        text.paint(style, state);
        text.push(&rest);
        text
    };
    match event {
        Event::StageCached { stage, key } => {
            let key = format!(" ({})", &key[..12.min(key.len())]);
            Some(line(stage, Style::Cyan, "cached", key))
        }
        Event::StageFinished { stage, seconds, .. } => {
            let time = format!(" in {}", duration(*seconds));
            Some(line(stage, Style::Green, "done", time))
        }
        Event::StageFailed { stage, failure, .. } => {
            let mut text = line(stage, Style::Red, "failed", format!(": {failure}"));
            if let Some(hint) = &failure.hint {
                text.push(&format!("\n{:<width$}  hint: {hint}", ""));
            }
            Some(text)
        }
        Event::StageSkipped { stage, reason } => {
            Some(line(stage, Style::Yellow, "skipped", format!(": {reason}")))
        }
        Event::StageLog {
            stage,
            level: Level::Warn,
            text,
        } => Some(line(stage, Style::Yellow, "warning", format!(": {text}"))),
        Event::StageWaiting { stage, holder } => Some(line(
            stage,
            Style::Yellow,
            "waiting",
            format!(" for {holder}, which computes the same"),
        )),
        Event::StageRetrying {
            stage,
            attempt,
            of,
            failure,
            wait_secs,
        } => {
            let wait = duration(*wait_secs);
            Some(line(
                stage,
                Style::Yellow,
                "failed",
                format!(
                    ": {failure}\n{:<width$}  attempt {attempt} of {of} in {wait}",
                    ""
                ),
            ))
        }
        Event::Interrupted { times: 1 } => Some(Text::from(
            "stopping the workers and keeping what is finished; once more to stop at once",
        )),
        Event::Interrupted { .. } => Some(Text::from("stopping at once")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Failure;

    /// What a plain console without colour writes.
    fn shown(events: &[Event]) -> String {
        let mut out = String::new();
        let mut console = PlainConsole::new(|text| out.push_str(&(text.render(false) + "\n")));
        for event in events {
            console.on(event);
        }
        out
    }

    fn log(level: Level, text: &str) -> Event {
        Event::StageLog {
            stage: "train".into(),
            level,
            text: text.into(),
        }
    }

    #[test]
    fn plain_lines_report_changes_and_are_aligned() {
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
    fn a_run_that_is_read_back_is_shown_as_it_ran() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/run/fixtures/format-1");
        let run = crate::run::Run::new(std::path::Path::new(folder));
        let events: Vec<Event> = run.events().map(|line| line.event).collect();
        insta::assert_snapshot!(shown(&events), @r"
        queries  started
        broken   started
        broken   failed: `sh` ended with exit code 3. Its last words:
            no
                 attempt 2 of 2 in 0.01s
        queries  done in 0.01s
        count    started
        broken   started
        count    done in 0.01s
        broken   failed: `sh` ended with exit code 3. Its last words:
            no
        report   skipped: needs `broken`, which has no result
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

    /// Genius's own colours are escape sequences; a model's are shown as text.
    #[test]
    fn no_escape_sequence_of_a_stage_is_obeyed() {
        let hostile = "a\u{1b}[2J\u{9b}1A\u{202e}b\r\u{7f}";
        let failure = || Failure::new(hostile).hint(hostile);
        let stage = || "train".to_owned();
        let events = [
            log(Level::Warn, hostile),
            Event::StageProgress {
                stage: stage(),
                progress: Progress {
                    phase: hostile.into(),
                    unit: hostile.into(),
                    detail: hostile.into(),
                    done: 1,
                    total: Some(2),
                },
            },
            Event::StageFailed {
                stage: stage(),
                failure: failure(),
                seconds: 1.0,
            },
            Event::StageSkipped {
                stage: stage(),
                reason: hostile.into(),
            },
            Event::StageWaiting {
                stage: stage(),
                holder: hostile.into(),
            },
            Event::StageRetrying {
                stage: stage(),
                attempt: 1,
                of: 2,
                failure: failure(),
                wait_secs: 1.0,
            },
        ];
        let text = shown(&events);
        assert!(!text.contains(crate::text::is_hidden), "{text:?}");
        assert!(
            text.matches(r"a\u{1b}[2J\u{9b}1A\u{202e}b\r\u{7f}").count() >= 9,
            "{text}"
        );
        for event in &events {
            let Some(line) = state_line(event, 5) else {
                continue;
            };
            let colored = line.render(true);
            let own = colored.matches('\u{1b}').count();
            assert_eq!(own, 2, "{colored:?}");
        }
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
