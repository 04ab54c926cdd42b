//! The runs of the store's tests, which cannot know those of the program.

use std::path::Path;

use serde_json::Value;

use super::{RunFacts, plain};

/// Reads `pipeline.json` and `run.json` as far as the tests write them.
pub(super) fn read_run(folder: &Path) -> RunFacts {
    let read = |name: &str| -> Option<Value> {
        serde_json::from_slice(&plain::read(&folder.join(name), plain::LARGE).ok()?).ok()
    };
    let plan = read("pipeline.json");
    let of_plan = |pointer: &str| text(plan.as_ref()?.pointer(pointer)?);
    let report = read("run.json").unwrap_or_default();
    let stages = report["stages"].as_array().into_iter().flatten();
    RunFacts {
        is_run: plan.is_some(),
        newer: false,
        first: Some(folder.join("pipeline.json")),
        pipeline: of_plan("/name"),
        file: of_plan("/path").map(Into::into),
        host: of_plan("/environment/host"),
        stages: stages
            .filter_map(|s| Some((s["key"].as_str()?.parse().ok()?, text(&s["stage"])?)))
            .collect(),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
