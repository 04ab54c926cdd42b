//! The keys of a stage that control how it is run: [`Policy`] declares them,
//! [`policy`] reads them.

use super::check::Checker;
use super::diagnostic::Problem;
use super::yaml::{Entry, Value, YamlNode};
use crate::kind::declare::params;
use crate::kind::schema::Schema;

/// The most retries allowed.
pub(super) const MAX_TIMES: i64 = 100;

params! {
    /// How a stage is run: the resources it needs, how often it is retried and how long
    /// it may take. It affects no result and is not part of the key.
    #[derive(Default)]
    pub struct Policy {
        /// What it needs of the machine while it runs; the kind decides what is left out.
        resources: Option<Resources> => declared::<Resources>().optional().knob(),
        /// Whether it is retried when it fails; by default it is not. `retry: 2` is
        /// short for `retry: { times: 2 }`.
        retry: Option<Retry> => declared::<Retry>().optional().knob(),
        /// Seconds after which it is stopped and counts as failed; by default there is no
        /// limit.
        timeout_secs: Option<f64> => positive().optional().knob(),
    }
}

params! {
    /// What a stage needs of the machine while it runs.
    #[derive(Copy, Default)]
    pub struct Resources {
        /// Devices (CUDA or Metal).
        gpu: Option<u32> => int(0..=u32::MAX.into()).optional().knob(),
        /// Main memory, GiB.
        memory_gb: Option<f64> => positive().optional().knob(),
        /// Processor cores.
        cores: Option<u32> => int(1..=u32::MAX.into()).optional().knob(),
    }
}

params! {
    /// What happens when a stage fails.
    #[derive(Copy)]
    pub struct Retry {
        /// How often it is retried.
        times: u32 => int(0..=MAX_TIMES).knob(),
        /// Seconds before the first retry; doubled each time, up to an hour.
        backoff_secs: f64 => non_negative().or(1.0).knob(),
    }
}

/// Reads it; `entries` are those of the stage that `schema` has, references replaced.
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
                entry.value = YamlNode::new(entry.value.span, Value::Map(vec![times]));
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
    // Of another shape only where a mistake was reported.
    serde_json::from_value(read).unwrap_or_default()
}
