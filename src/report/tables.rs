//! What `genius runs` and `genius status` show: [`runs`], [`status`] and, line by
//! line during a run, [`changes`].

use jiff::Timestamp;

use super::console::describe;
use crate::run::{
    Counts, RunState, RunStatus, RunSummary, StagePhase, StageState, seconds_between, took,
};
use crate::text::{duration, one_line};

/// The table of runs, with a line of headings.
pub fn runs(runs: &[RunSummary], now: Timestamp) -> String {
    let mut rows =
        vec![["RUN", "PIPELINE", "STARTED", "TOOK", "STATE", "STAGES"].map(str::to_owned)];
    rows.extend(runs.iter().map(|run| {
        [
            run.run_id.clone(),
            run.pipeline.clone().unwrap_or_else(|| "-".to_owned()),
            run.started.map_or_else(|| "-".to_owned(), |t| ago(t, now)),
            run.seconds.map_or_else(|| "-".to_owned(), duration),
            run.state.word().to_owned(),
            run.stages.text(),
        ]
    }));
    align(&rows, "")
}

/// A run with its stages. `state` has its cut stages marked.
pub fn status(run_id: &str, state: &RunState, status: RunStatus, now: Timestamp) -> String {
    let mut text = format!("{}\n", headline(run_id, state, status, now));
    let rows: Vec<[String; 4]> = state.stages.iter().map(|s| row(s, now)).collect();
    text.push_str(&align(&rows, "  "));
    text.push_str(&format!("{}\n", Counts::new(state).text()));
    text
}

/// `run ... of quickstart: running for 3m05s, started 3 minutes ago`.
fn headline(run_id: &str, state: &RunState, status: RunStatus, now: Timestamp) -> String {
    let pipeline = state.pipeline.as_deref();
    let of = pipeline.map_or_else(String::new, |name| format!(" of {name}"));
    let after = took(state, status, state.started, now).map(duration);
    let how = match (status, after) {
        (RunStatus::Running, Some(time)) => format!("running for {time}"),
        (RunStatus::Ok, Some(time)) => format!("ok, took {time}"),
        (RunStatus::Cut, Some(time)) => format!("cut after {time}: its process went away"),
        (status, Some(time)) => format!("{} after {time}", status.word()),
        (status, None) => status.word().to_owned(),
    };
    let when = state
        .started
        .map_or_else(String::new, |t| format!(", started {}", ago(t, now)));
    let stopping = match status {
        RunStatus::Running if state.interrupted => ", stopping",
        _ => "",
    };
    one_line(&format!("run {run_id}{of}: {how}{when}{stopping}")).into_owned()
}

/// Name, state, time and details.
fn row(stage: &StageState, now: Timestamp) -> [String; 4] {
    let time = match (stage.phase, stage.started) {
        (StagePhase::Running, Some(started)) => duration(seconds_between(started, now)),
        (StagePhase::Executed | StagePhase::Failed, _) => {
            stage.seconds.map(duration).unwrap_or_default()
        }
        _ => String::new(),
    };
    [
        stage.stage.clone(),
        word(stage.phase).to_owned(),
        time,
        detail(stage),
    ]
}

fn word(phase: StagePhase) -> &'static str {
    match phase {
        StagePhase::Waiting | StagePhase::WaitingForAnother => "waiting",
        StagePhase::Retrying => "retrying",
        StagePhase::Running => "running",
        StagePhase::Cached => "cached",
        StagePhase::Executed => "executed",
        StagePhase::Failed => "failed",
        StagePhase::Skipped => "skipped",
        StagePhase::Cut => "cut",
    }
}

fn detail(stage: &StageState) -> String {
    let reason = || {
        let reason = stage.reason.as_deref().unwrap_or_default();
        reason.lines().next().unwrap_or_default().to_owned()
    };
    match stage.phase {
        StagePhase::Running => stage.progress.as_ref().map(describe).unwrap_or_default(),
        StagePhase::Executed => stage
            .peak_memory_bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| format!("peak memory {}", memory(bytes)))
            .unwrap_or_default(),
        StagePhase::WaitingForAnother => format!("for {}, which computes the same", reason()),
        StagePhase::Retrying | StagePhase::Failed | StagePhase::Skipped | StagePhase::Cut => {
            reason()
        }
        StagePhase::Waiting | StagePhase::Cached => String::new(),
    }
}

/// The stages whose phase or details changed, a line each; passing time is not a change.
pub fn changes(before: &RunState, after: &RunState) -> String {
    let width = names(after.stages.iter().map(|s| s.stage.as_str()));
    let mut text = String::new();
    for stage in &after.stages {
        let old = before.find(&stage.stage);
        if stage.phase == StagePhase::Waiting && old.is_none() {
            continue;
        }
        if old.is_some_and(|o| o.phase == stage.phase && detail(o) == detail(stage)) {
            continue;
        }
        let time = stage.seconds.filter(|_| stage.phase.is_end());
        let parts = [time.map(duration).unwrap_or_default(), detail(stage)];
        let parts: Vec<&str> = parts
            .iter()
            .map(String::as_str)
            .filter(|p| !p.is_empty())
            .collect();
        let line = format!(
            "{:<width$}  {:<8}  {}",
            stage.stage,
            word(stage.phase),
            parts.join(", ")
        );
        text.push_str(one_line(line.trim_end()).as_ref());
        text.push('\n');
    }
    text
}

/// `just now`, `5 minutes ago`, `2 hours ago`, `3 days ago`; a date beyond two weeks.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    let (n, unit) = match seconds {
        ..10 => return "just now".to_owned(),
        10..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        _ => return then.strftime("%Y-%m-%d").to_string(),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

/// `87 MiB`, `1.2 GiB`.
fn memory(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib @ 1..1024 => format!("{mib} MiB"),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|n| n.chars().count()).max().unwrap_or(0)
}

/// Columns under each other, two spaces between; the last one as long as it is. A
/// cell is one line, whatever is in it.
pub(super) fn align<const N: usize>(rows: &[[String; N]], indent: &str) -> String {
    let shown = |row: &[String; N]| row.each_ref().map(|cell| one_line(cell).into_owned());
    let rows: Vec<[String; N]> = rows.iter().map(shown).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| names(rows.iter().map(|row| row[column].as_str())));
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(format!("{indent}{}", cells.join("  ")).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn state(events: &[Value]) -> RunState {
        let mut state = RunState::default();
        for event in events {
            state.apply(&serde_json::from_value(event.clone()).unwrap());
        }
        state
    }

    fn under_way() -> RunState {
        state(&[
            json!({"time": "2026-01-02T03:00:00Z", "event": "run_started", "run_id": "r", "pipeline": "quickstart", "stages": ["queries", "policy", "rollout", "score", "train", "eval", "judge"]}),
            json!({"event": "stage_cached", "stage": "queries", "key": "0123"}),
            json!({"event": "stage_finished", "stage": "policy", "key": "4567", "seconds": 12.34, "peak_memory_bytes": 1_288_490_188_u64}),
            json!({"time": "2026-01-02T03:00:30Z", "event": "stage_started", "stage": "rollout", "key": "89", "reason": "new"}),
            json!({"event": "stage_progress", "stage": "rollout", "progress": {"phase": "rolling out", "done": 12, "total": 64, "unit": "queries", "detail": "27.9 tok/s"}}),
            json!({"event": "stage_waiting", "stage": "score", "holder": "run 20260102T0259 on box"}),
            json!({"event": "stage_failed", "stage": "train", "failure": {"message": "out of memory\nat 3", "hint": null}, "seconds": 1.2}),
            json!({"time": "2026-01-02T03:01:00Z", "event": "stage_skipped", "stage": "eval", "reason": "needs `train`, which has no result"}),
        ])
    }

    #[test]
    fn a_run_under_way() {
        let text = status(
            "20260102T030000-1a2b",
            &under_way(),
            RunStatus::Running,
            at("2026-01-02T03:02:10Z"),
        );
        insta::assert_snapshot!(text, @r"
        run 20260102T030000-1a2b of quickstart: running for 2m10s, started 2 minutes ago
          queries  cached
          policy   executed  12.3s  peak memory 1.2 GiB
          rollout  running   1m40s  rolling out 12/64 queries, 27.9 tok/s
          score    waiting          for run 20260102T0259 on box, which computes the same
          train    failed    1.20s  out of memory
          eval     skipped          needs `train`, which has no result
          judge    waiting
        1 executed, 1 cached, 1 failed, 1 skipped, 2 running, 1 waiting
        ");
    }

    #[test]
    fn a_run_that_was_cut() {
        let mut state = under_way();
        state.cut();
        let text = status(
            "20260102T030000-1a2b",
            &state,
            RunStatus::Cut,
            at("2026-01-05T03:02:10Z"),
        );
        insta::assert_snapshot!(text, @r"
        run 20260102T030000-1a2b of quickstart: cut after 1m00s: its process went away, started 3 days ago
          queries  cached
          policy   executed  12.3s  peak memory 1.2 GiB
          rollout  cut              the run was cut meanwhile
          score    cut              the run was cut meanwhile
          train    failed    1.20s  out of memory
          eval     skipped          needs `train`, which has no result
          judge    skipped          the run was cut before
        1 executed, 1 cached, 1 failed, 2 skipped, 2 cut
        ");
    }

    #[test]
    fn only_changes_are_told_where_nothing_can_be_redrawn() {
        let before = under_way();
        insta::assert_snapshot!(changes(&RunState::default(), &before), @r"
        queries  cached
        policy   executed  12.3s, peak memory 1.2 GiB
        rollout  running   rolling out 12/64 queries, 27.9 tok/s
        score    waiting   for run 20260102T0259 on box, which computes the same
        train    failed    1.20s, out of memory
        eval     skipped   needs `train`, which has no result
        ");
        let mut after = before.clone();
        assert_eq!(changes(&before, &after), "");
        let finished = json!({"event": "stage_finished", "stage": "rollout", "seconds": 100.0});
        after.apply(&serde_json::from_value(finished).unwrap());
        insta::assert_snapshot!(changes(&before, &after), @"rollout  executed  1m40s");
    }

    #[test]
    fn times_are_told_as_people_do() {
        let now = at("2026-02-20T12:00:00Z");
        let shown: Vec<String> = [
            "2026-02-20T12:00:05Z",
            "2026-02-20T11:59:48Z",
            "2026-02-20T11:58:59Z",
            "2026-02-20T10:00:00Z",
            "2026-02-19T11:00:00Z",
            "2026-01-02T03:04:05Z",
        ]
        .iter()
        .map(|then| ago(at(then), now))
        .collect();
        assert_eq!(
            shown,
            [
                "just now",
                "12 seconds ago",
                "1 minute ago",
                "2 hours ago",
                "1 day ago",
                "2026-01-02"
            ]
        );
        assert_eq!(memory(87 << 20), "87 MiB");
        assert_eq!(memory(5000), "4 KiB");
    }
}
