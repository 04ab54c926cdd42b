//! `genius logs`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::environment::Environment;
use super::pipeline_args::CacheArgs;
use super::{CliError, Terminal, runs};
use crate::run::{History, Run, RunError, RunState, RunStatus, StagePhase, StageState};
use crate::store::{Key, Results, Store, log_name, plain};

/// How often a followed log is polled.
const POLL: Duration = Duration::from_millis(200);
/// A run without a heartbeat yet is checked again before it counts as cut.
const GRACE: Duration = Duration::from_secs(2);
/// How much of a log is read at a time.
const CHUNK: usize = 64 * 1024;

/// Print the log of a stage of a run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's id, a prefix of it, or `latest`.
    run: String,
    /// The stage, as in the pipeline, or `STAGE@VARIANT`: any of the variants that
    /// share it.
    stage: String,
    /// Keep printing until the stage has ended.
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines.
    #[arg(short = 'n', value_name = "LINES")]
    lines: Option<usize>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Prints the log.
///
/// # Errors
/// When there is no such run or stage, or the log of a stage that ran is gone.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let (store, history) = runs::history(&args.cache, environment)?;
    let run_id = history.find(&args.run)?;
    let run = history.open(&run_id)?;
    let mut follower = run.follow();
    follower.poll();
    let stage = find_stage(&run, follower.state(), &args.stage)?;
    let mut log = Log::default();
    let mut since_silent: Option<Instant> = None;
    loop {
        follower.poll();
        let state = follower.state().find(&stage);
        let phase = state.map_or(StagePhase::Waiting, |s| s.phase);
        let status = history.status(&run, follower.state());
        since_silent = match status {
            RunStatus::Cut => since_silent.or_else(|| Some(Instant::now())),
            _ => None,
        };
        let over = match status {
            RunStatus::Running => phase.is_end(),
            RunStatus::Cut => {
                phase.is_end() || since_silent.is_some_and(|since| since.elapsed() >= GRACE)
            }
            _ => true,
        };
        // Checked before the log is read, so that everything up to the end is printed.
        let path = run.folder().join(log_name(&stage));
        let heard = log.print(&path, args.lines, &mut |bytes| terminal.bytes(bytes))?;
        if heard && args.follow && !over {
            std::thread::sleep(POLL);
            continue;
        }
        log.finish(terminal);
        if !log.is_open() {
            let what = absent(&store, &history, &run_id, &stage, state, &path)?;
            terminal.status(what);
        }
        return Ok(ExitCode::SUCCESS);
    }
}

/// The name of a stage in the run, given any of its names.
fn find_stage(run: &Run, state: &RunState, asked: &str) -> Result<String, RunError> {
    let plan = run.plan().ok();
    if let Some(name) = plan.as_ref().and_then(|plan| plan.name_of(asked)) {
        return Ok(name.to_owned());
    }
    // The plan is missing or cut: the events have names alone.
    if state.find(asked).is_some() {
        return Ok(asked.to_owned());
    }
    let planned = plan.map(|plan| plan.stages).unwrap_or_default();
    let mut known: Vec<String> = planned.into_iter().map(|stage| stage.name).collect();
    if known.is_empty() {
        known = state.stages.iter().map(|s| s.stage.clone()).collect();
    }
    Err(RunError::NoStage {
        run_id: run.id().to_owned(),
        stage: asked.to_owned(),
        known,
    })
}

/// Why there is no log, and where to find one.
fn absent(
    store: &Store,
    history: &History,
    run_id: &str,
    stage: &str,
    state: Option<&StageState>,
    path: &Path,
) -> Result<String, CliError> {
    let reason = state.and_then(|s| s.reason.as_deref()).unwrap_or("not yet");
    Ok(match state.map_or(StagePhase::Waiting, |s| s.phase) {
        StagePhase::Cached => {
            let reused = format!("stage `{stage}` was not run in {run_id}: its result was reused");
            match maker(store, history, state) {
                Some((maker, name)) if history.folder(&maker).is_dir() => {
                    format!("{reused}\n  = help: it ran in {maker}: `genius logs {maker} {name}`\n")
                }
                Some((maker, _)) => {
                    format!("{reused}\n  = help: it ran in {maker}, whose folder is gone\n")
                }
                None => format!("{reused}; the run that made it is unknown\n"),
            }
        }
        StagePhase::Skipped => format!("stage `{stage}` was not run in {run_id}: {reason}\n"),
        StagePhase::Waiting => format!("stage `{stage}` has not been started in {run_id}\n"),
        StagePhase::WaitingForAnother => format!(
            "stage `{stage}` has not been started in {run_id}: it is waiting for {reason}, which computes the same stage\n"
        ),
        // Just started: nothing was written so far.
        StagePhase::Running | StagePhase::Retrying => {
            format!("stage `{stage}` of {run_id} has written nothing yet\n")
        }
        StagePhase::Executed | StagePhase::Failed | StagePhase::Cut => {
            return Err(RunError::NoLog {
                run_id: run_id.to_owned(),
                stage: stage.to_owned(),
                path: path.to_owned(),
            }
            .into());
        }
    })
}

/// The run that made a reused result, and the stage's name in it.
fn maker(store: &Store, history: &History, state: Option<&StageState>) -> Option<(String, String)> {
    let key: Key = state?.key.as_ref()?.parse().ok()?;
    let record = store.lookup(&key)?;
    let run = record.provenance["run_id"].as_str()?.to_owned();
    let stage = record.provenance["stage"].as_str()?;
    // Its variants show which stage of that name it was.
    let variant = record.provenance["variants"][0].as_str();
    let asked = variant.map_or_else(|| stage.to_owned(), |v| format!("{stage}@{v}"));
    let plan = Run::new(&history.folder(&run)).plan().ok();
    let name = plan.as_ref().and_then(|plan| plan.name_of(&asked));
    let name = name.map_or_else(|| asked.clone(), str::to_owned);
    Some((run, name))
}

/// A log that is printed as it grows.
#[derive(Default)]
struct Log {
    file: Option<File>,
    /// Whether the last output ended its line.
    open_line: bool,
}

impl Log {
    fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Prints what is new; the first time only the last `lines`. False when the reader
    /// has gone.
    fn print(
        &mut self,
        path: &Path,
        lines: Option<usize>,
        out: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, RunError> {
        let io = |source| RunError::Io {
            path: path.to_owned(),
            source,
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => match plain::open(path) {
                Ok(mut file) => {
                    if let Some(lines) = lines {
                        let start = last_lines(&mut file, lines).map_err(io)?;
                        file.seek(SeekFrom::Start(start)).map_err(io)?;
                    }
                    none.insert(file)
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
                Err(e) => return Err(io(e)),
            },
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = file.read(&mut chunk).map_err(io)?;
            if n == 0 {
                return Ok(true);
            }
            self.open_line = chunk[n - 1] != b'\n';
            if !out(&chunk[..n]) {
                return Ok(false);
            }
        }
    }

    /// Ends the last line.
    fn finish(&mut self, terminal: &Terminal) {
        if std::mem::take(&mut self.open_line) {
            terminal.data("\n");
        }
    }
}

/// Where the last `lines` lines of a file begin; reads no more than these.
fn last_lines(file: &mut File, lines: usize) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut at = end;
    let mut seen = 0;
    let mut chunk = vec![0; CHUNK];
    while at > 0 {
        let n = CHUNK.min(usize::try_from(at).unwrap_or(CHUNK));
        at -= n as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut chunk[..n])?;
        for index in (0..n).rev() {
            // The newline at the very end ends the last line and begins none.
            if chunk[index] == b'\n' && at + index as u64 + 1 < end {
                seen += 1;
                if seen == lines {
                    return Ok(at + index as u64 + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use serde_json::{Value, json};

    use super::*;
    use crate::store::{RECORD_FORMAT, Record};

    const RUN: &str = "20260102T030405-1a2b";

    struct Cache {
        _dir: tempfile::TempDir,
        store: Store,
        history: History,
    }

    impl Cache {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("cache")).unwrap();
            std::fs::create_dir_all(store.runs_dir().join(RUN)).unwrap();
            Self {
                _dir: dir,
                history: History::new(store.clone(), crate::store::Times::default()),
                store,
            }
        }

        /// The message for a stage with these events and no log.
        fn absent(&self, events: &[Value]) -> String {
            let mut state = RunState::default();
            for event in events {
                state.apply(&serde_json::from_value(event.clone()).unwrap());
            }
            let folder = self.history.folder(RUN);
            let path = folder.join(log_name("train"));
            match absent(
                &self.store,
                &self.history,
                RUN,
                "train",
                state.find("train"),
                &path,
            ) {
                Ok(text) => text,
                Err(error) => error
                    .render(false)
                    .replace(&self.store.root().display().to_string(), "CACHE"),
            }
        }

        fn keep(&self, key: Key, run: &str) {
            let record = Record {
                format: RECORD_FORMAT,
                key,
                kind: "train".into(),
                preimage: Value::Null,
                outputs: BTreeMap::new(),
                figures: json!([]),
                provenance: json!({"run_id": run, "stage": "train@base"}),
            };
            self.store.put(&record).unwrap();
        }
    }

    #[test]
    fn a_reused_stage_has_its_log_in_the_run_that_made_it() {
        let cache = Cache::new();
        let key = Key::from_bytes([7; 32]);
        let cached = json!({"event": "stage_cached", "stage": "train", "key": key});
        insta::assert_snapshot!(cache.absent(std::slice::from_ref(&cached)), @"stage `train` was not run in 20260102T030405-1a2b: its result was reused; the run that made it is unknown");
        cache.keep(key, "20260101T000000-aaaa");
        insta::assert_snapshot!(cache.absent(std::slice::from_ref(&cached)), @r"
        stage `train` was not run in 20260102T030405-1a2b: its result was reused
          = help: it ran in 20260101T000000-aaaa, whose folder is gone
        ");
        std::fs::create_dir_all(cache.history.folder("20260101T000000-aaaa")).unwrap();
        insta::assert_snapshot!(cache.absent(&[cached]), @r"
        stage `train` was not run in 20260102T030405-1a2b: its result was reused
          = help: it ran in 20260101T000000-aaaa: `genius logs 20260101T000000-aaaa train@base`
        ");
    }

    #[test]
    fn a_missing_log_is_explained() {
        let cache = Cache::new();
        insta::assert_snapshot!(cache.absent(&[json!({"event": "run_started", "stages": ["train"]})]), @"stage `train` has not been started in 20260102T030405-1a2b");
        insta::assert_snapshot!(cache.absent(&[json!({"event": "stage_skipped", "stage": "train", "reason": "needs `pairs`, which has no result"})]), @"stage `train` was not run in 20260102T030405-1a2b: needs `pairs`, which has no result");
        insta::assert_snapshot!(cache.absent(&[json!({"event": "stage_waiting", "stage": "train", "holder": "run 2026 on box"})]), @"stage `train` has not been started in 20260102T030405-1a2b: it is waiting for run 2026 on box, which computes the same stage");
        insta::assert_snapshot!(cache.absent(&[json!({"event": "stage_started", "stage": "train"})]), @"stage `train` of 20260102T030405-1a2b has written nothing yet");
        insta::assert_snapshot!(cache.absent(&[json!({"event": "stage_finished", "stage": "train", "seconds": 1.0})]), @r"
        error: the log of stage `train` of run 20260102T030405-1a2b is missing: CACHE/runs/20260102T030405-1a2b/train.log
          = help: it was removed or could not be written; `genius status 20260102T030405-1a2b` shows how the stage ended
        ");
    }

    #[test]
    fn without_a_plan_names_are_those_of_events() {
        let cache = Cache::new();
        let run = Run::new(&cache.history.folder(RUN));
        let started =
            json!({"event": "run_started", "stages": ["train", "train@sweep:lr=1e-6", "eval"]});
        let mut state = RunState::default();
        state.apply(&serde_json::from_value(started).unwrap());
        let found = |asked: &str| find_stage(&run, &state, asked);
        assert_eq!(found("train@sweep:lr=1e-6").unwrap(), "train@sweep:lr=1e-6");
        let message = |asked: &str| CliError::from(found(asked).unwrap_err()).render(false);
        insta::assert_snapshot!(message("trian"), @r"
        error: run 20260102T030405-1a2b has no stage `trian`
          = help: did you mean `train`?
        ");
        insta::assert_snapshot!(message("pretraining"), @r"
        error: run 20260102T030405-1a2b has no stage `pretraining`
          = help: there is `train`, `train@sweep:lr=1e-6` and `eval`
        ");
    }

    #[test]
    fn the_last_lines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let text = |content: &str, lines| {
            std::fs::write(&path, content).unwrap();
            let start = last_lines(&mut File::open(&path).unwrap(), lines).unwrap();
            content[usize::try_from(start).unwrap()..].to_owned()
        };
        assert_eq!(text("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(text("a\nb\nc", 2), "b\nc");
        assert_eq!(text("a\nb\n", 9), "a\nb\n");
        assert_eq!(text("a\n\n\n", 2), "\n\n");
        assert_eq!(text("a\n", 0), "");
        assert_eq!(text("", 3), "");
        let long = "x".repeat(CHUNK) + "\n" + &"y".repeat(2 * CHUNK) + "\nz\n";
        assert_eq!(text(&long, 2).len(), 2 * CHUNK + 3);
    }

    #[test]
    fn a_growing_log_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Log::default();
        let mut heard = Vec::new();
        let mut read_on = || {
            let mut out = |bytes: &[u8]| {
                heard.extend_from_slice(bytes);
                true
            };
            assert!(log.print(&path, Some(1), &mut out).unwrap());
            (String::from_utf8(heard.clone()).unwrap(), log.open_line)
        };
        assert_eq!(read_on(), (String::new(), false));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntwo").unwrap();
        assert_eq!(read_on(), ("two".to_owned(), true));
        file.write_all(b" and more\n").unwrap();
        assert_eq!(read_on(), ("two and more\n".to_owned(), false));
    }
}
