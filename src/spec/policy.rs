//! The keys of a stage that say how it is run: [`schema`] describes them,
//! [`policy`] reads them.

use serde_json::Value as Json;

use super::check::Checker;
use super::diagnostic::Problem;
use super::yaml::{Entry, Node, Value};
use super::{Policy, Resources};
use crate::kind::schema::{Field, Schema, Type};

/// Repetitions at most.
pub(super) const MAX_TIMES: i64 = 100;

/// `resources`, `retry` and `timeout_secs`.
pub(super) fn schema() -> Schema {
    let count = |min| Type::Int {
        min,
        max: i64::from(u32::MAX),
    };
    let resources = Schema::new(vec![
        Field::optional("gpu", count(0), "Devices (CUDA or Metal).").execution(),
        Field::optional("memory_gb", Type::positive(), "Main memory, GiB.").execution(),
        Field::optional("cores", count(1), "Processor cores.").execution(),
    ]);
    let retry = Schema::new(vec![
        Field::required(
            "times",
            Type::Int {
                min: 0,
                max: MAX_TIMES,
            },
            "How often it is tried again.",
        )
        .execution(),
        Field::with_default(
            "backoff_secs",
            Type::non_negative(),
            1.0,
            "Seconds before the first repetition; doubled each time, up to an hour.",
        )
        .execution(),
    ]);
    Schema::new(vec![
        Field::optional(
            "resources",
            Type::Object(resources),
            "What it takes of the machine while it runs; what is not written is decided by the kind.",
        )
        .execution(),
        Field::optional(
            "retry",
            Type::Object(retry),
            "What happens when it fails; unless given, it is not tried again. `retry: 2` is short for `retry: { times: 2 }`.",
        )
        .execution(),
        Field::optional(
            "timeout_secs",
            Type::positive(),
            "Seconds after which it is ended and has failed; unless given, it may take as long as it takes.",
        )
        .execution(),
    ])
}

/// Reads them; `entries` are those of the stage that [`schema`] has, references
/// replaced.
pub(super) fn policy(
    checker: &mut Checker,
    schema: &Schema,
    entries: &[Entry],
    owner: &str,
    at: super::yaml::Span,
) -> Policy {
    let mut entries: Vec<Entry> = entries.to_vec();
    for entry in entries.iter_mut().filter(|e| e.key == "retry") {
        match entry.value.value {
            Value::Int(_) | Value::Float(_) => {
                let times = Entry {
                    key: "times".to_owned(),
                    key_span: entry.key_span,
                    value: entry.value.clone(),
                };
                entry.value = Node::new(entry.value.span, Value::Map(vec![times]));
            }
            Value::Map(_) | Value::Null | Value::Invalid => {}
            _ => {
                checker.report.add(
                    Problem::new(
                        entry.value.span,
                        format!(
                            "`retry` must be a whole number or a mapping, found {}",
                            entry.value.describe()
                        ),
                    )
                    .hint("write `retry: 2` or `retry: { times: 2, backoff_secs: 5 }`"),
                );
                entry.value.value = Value::Invalid;
            }
        }
    }
    let read = checker.object(schema, &entries, "", owner, at);
    let count = |value: &Json| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let (resources, retry) = (&read["resources"], &read["retry"]);
    Policy {
        resources: Resources {
            gpu: count(&resources["gpu"]),
            memory_gb: resources["memory_gb"].as_f64(),
            cores: count(&resources["cores"]),
        },
        retries: count(&retry["times"]).unwrap_or(0),
        backoff_secs: retry["backoff_secs"].as_f64().unwrap_or(1.0),
        timeout_secs: read["timeout_secs"].as_f64(),
    }
}
