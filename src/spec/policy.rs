//! The keys of a stage that say how it is run: [`Policy`] declares them,
//! [`policy`] reads them.

use super::check::Checker;
use super::diagnostic::Problem;
use super::yaml::{Entry, Node, Value};
use crate::kind::declare::params;
use crate::kind::schema::Schema;

/// Repetitions at most.
pub(super) const MAX_TIMES: i64 = 100;

params! {
    /// How a stage is run: what it takes of the machine, how often it is tried again
    /// and how long it may take. Changes no result and is in no key.
    #[derive(Default)]
    pub struct Policy {
        /// What it takes of the machine while it runs; what is not written is decided by the
        /// kind.
        resources: Option<Resources> => of::<Resources>().optional().knob(),
        /// What happens when it fails; unless given, it is not tried again. `retry: 2` is
        /// short for `retry: { times: 2 }`.
        retry: Option<Retry> => of::<Retry>().optional().knob(),
        /// Seconds after which it is ended and has failed; unless given, it may take as long
        /// as it takes.
        timeout_secs: Option<f64> => positive().optional().knob(),
    }
}

params! {
    /// What a stage takes of the machine while it runs.
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
        /// How often it is tried again.
        times: u32 => int(0..=MAX_TIMES).knob(),
        /// Seconds before the first repetition; doubled each time, up to an hour.
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
    // Of another shape only where a mistake was reported.
    serde_json::from_value(read).unwrap_or_default()
}
