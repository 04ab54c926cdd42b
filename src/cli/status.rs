//! `genius status`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::environment::Environment;
use super::pipeline_args::CacheArgs;
use super::{CliError, Terminal, runs};
use crate::report::tables;
use crate::run::{Counts, Follower, History, Run, RunState, RunStatus, took};
use crate::text::{Live, LiveLine};

/// How often a followed run is polled.
const POLL: Duration = Duration::from_millis(200);
/// A run without a heartbeat yet, or that just wrote its end, is checked again before
/// it counts as cut.
const GRACE: Duration = Duration::from_secs(2);

/// Show the progress of a run: every stage with its state and time.
///
/// Without RUN it shows the newest active run, also of another terminal, else the
/// newest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's id, a prefix of it, or `latest`.
    run: Option<String>,
    /// Print JSON on stdout; with `--follow` one object per line at each change.
    #[arg(long)]
    json: bool,
    /// Keep showing until the run ends.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Shows the run.
///
/// # Errors
/// When there is no such run.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let (_, history) = runs::history(&args.cache, environment)?;
    let run_id = match &args.run {
        Some(name) => history.find(name)?,
        None => history.current()?,
    };
    let run = history.open(&run_id)?;
    let mut follower = run.follow();
    if args.follow {
        follow(args, terminal, &history, &run, &mut follower);
    }
    follower.poll();
    let (state, status) = look(&history, &run, &follower);
    if args.json {
        if !args.follow {
            terminal.json(&to_json(&run, &state, status));
        }
    } else {
        terminal.data(tables::status(&run_id, &state, status, Timestamp::now()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The state so far, with the unfinished stages of a cut run marked.
fn look(history: &History, run: &Run, follower: &Follower) -> (RunState, RunStatus) {
    let mut state = follower.state().clone();
    let status = history.status(run, &state);
    if status == RunStatus::Cut {
        state.cut();
    }
    (state, status)
}

/// Shows the run until it ends or the reader goes away.
fn follow(args: &Args, terminal: &Terminal, history: &History, run: &Run, follower: &mut Follower) {
    let mut shown = RunState::default();
    let mut screen = (terminal.live() && !args.json).then(Screen::new);
    let mut silent_since: Option<Instant> = None;
    loop {
        let news = follower.poll();
        let status = history.status(run, follower.state());
        silent_since = match status {
            RunStatus::Cut => silent_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        let ended = match status {
            RunStatus::Running => false,
            RunStatus::Cut => silent_since.is_some_and(|since| since.elapsed() >= GRACE),
            RunStatus::Ok | RunStatus::Failed | RunStatus::Interrupted | RunStatus::Newer => true,
        };
        let mut state = follower.state().clone();
        let status = if ended || status != RunStatus::Cut {
            status
        } else {
            RunStatus::Running
        };
        if status == RunStatus::Cut {
            state.cut();
        }
        let heard = if let Some(screen) = &mut screen {
            screen.show(&tables::status(run.id(), &state, status, Timestamp::now()));
            true
        } else if args.json {
            // Passing seconds are not a change.
            let shown = news || ended;
            !shown || terminal.json(&to_json(run, &state, status))
        } else {
            let text = tables::changes(&shown, &state);
            shown = state;
            text.is_empty() || terminal.data(text)
        };
        if ended || !heard {
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// The object that `--json` prints.
fn to_json(run: &Run, state: &RunState, status: RunStatus) -> Value {
    json!({
        "run_id": run.id(),
        "pipeline": state.pipeline,
        "state": status,
        "started": state.started,
        "seconds": took(state, status, state.started, Timestamp::now()),
        "counts": Counts::new(state),
        "stages": state.stages,
        "folder": run.folder(),
    })
}

/// Lines at the bottom of the terminal that are redrawn in place.
struct Screen {
    live: Live,
    lines: Vec<LiveLine>,
}

impl Screen {
    fn new() -> Self {
        Self {
            live: Live::new(false),
            lines: Vec::new(),
        }
    }

    fn show(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        while self.lines.len() < lines.len() {
            self.lines.push(self.live.plain());
        }
        for (line, text) in self.lines.iter().zip(&lines) {
            line.message(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn json_has_the_documented_shape() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let folder = store.runs_dir().join("20260102T030405-1a2b");
        std::fs::create_dir_all(&folder).unwrap();
        let events = r#"{"time":"2026-01-02T03:04:05Z","event":"run_started","pipeline":"p","stages":["a"]}
{"time":"2026-01-02T03:04:06Z","event":"stage_started","stage":"a","key":"12","reason":"new"}
{"time":"2026-01-02T03:04:07Z","event":"stage_progress","stage":"a","progress":{"phase":"x","done":1,"total":2,"unit":"u","detail":""}}
"#;
        std::fs::write(folder.join("events.jsonl"), events).unwrap();
        let history = History::new(store, crate::store::Times::default());
        let run = history.open("20260102T030405-1a2b").unwrap();
        let mut follower = run.follow();
        follower.poll();
        let mut json = to_json(&run, follower.state(), RunStatus::Running);
        json["seconds"] = json!("REDACTED");
        json["folder"] = json!("REDACTED");
        insta::assert_snapshot!(format!("{json:#}"), @r#"
        {
          "run_id": "20260102T030405-1a2b",
          "pipeline": "p",
          "state": "running",
          "started": "2026-01-02T03:04:05Z",
          "seconds": "REDACTED",
          "counts": {
            "executed": 0,
            "cached": 0,
            "failed": 0,
            "skipped": 0,
            "running": 1,
            "waiting": 0,
            "cut": 0
          },
          "stages": [
            {
              "stage": "a",
              "state": "running",
              "key": "12",
              "reason": "new",
              "hint": null,
              "progress": {
                "phase": "x",
                "done": 1,
                "total": 2,
                "unit": "u",
                "detail": ""
              },
              "started": "2026-01-02T03:04:06Z",
              "seconds": null,
              "peak_memory_bytes": null,
              "attempt": null
            }
          ],
          "folder": "REDACTED"
        }
        "#);
        // Its process is gone, which shows without a lease.
        let (state, status) = look(&history, &run, &follower);
        assert_eq!(status, RunStatus::Cut);
        assert_eq!(Counts::new(&state).cut, 1);
    }
}
