//! [`facts`]: what the store needs to know about a run's folder; it knows bytes, not runs.

use std::path::Path;

use super::Run;
use super::format::PLAN_FILE;
use crate::store::RunFacts;

/// What is known of a run from its folder: for [`Store::reading_runs`](crate::store::Store::reading_runs).
pub fn facts(folder: &Path) -> RunFacts {
    let run = Run::new(folder);
    let plan = run.plan();
    let newer = plan.as_ref().is_err_and(super::Unreadable::is_too_new);
    let stages = run.report().map(|report| report.stages).unwrap_or_default();
    let stages = stages.into_iter().filter_map(|stage| {
        let key = stage.key?.parse().ok()?;
        Some((key, stage.stage))
    });
    let mut facts = RunFacts {
        is_run: plan.is_ok() || newer,
        newer,
        first: Some(folder.join(PLAN_FILE)),
        stages: stages.collect(),
        ..RunFacts::default()
    };
    if let Ok(plan) = plan {
        facts.pipeline = Some(plan.name).filter(|name| !name.is_empty());
        facts.file = Some(plan.path).filter(|path| !path.as_os_str().is_empty());
        facts.host = Some(plan.environment.host).filter(|host| !host.is_empty());
    }
    facts
}
