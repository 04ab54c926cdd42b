//! What the dispatcher knows about each stage while a run goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;

use crate::protocol::Figure;
use crate::run::{Exit, Status};
use crate::schedule::Stop;
use crate::schedule::resources::Allocation;
use crate::store::{Key, Tree};

/// How far a node has got.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum NodePhase {
    /// Waiting for its inputs.
    #[default]
    Waiting,
    /// Its key has no result yet: waiting for resources.
    Queued,
    /// Waiting for another process, or another stage of this run, that is computing the same key.
    Held,
    /// Waiting for its next attempt.
    Backoff(Instant),
    Running,
    Ended(Status),
}

#[derive(Debug, Default)]
pub(super) struct NodeState {
    pub phase: NodePhase,
    /// Number of inputs without a result.
    pub missing: usize,
    pub key: Option<Key>,
    pub preimage: Value,
    pub outputs: BTreeMap<String, Tree>,
    pub figures: Vec<Figure>,
    pub reason: String,
    pub seconds: f64,
    pub peak_memory_bytes: u64,
    pub exit: Option<Exit>,
    pub repairs: u32,
    pub failures: u32,
    pub warnings: Vec<String>,
    /// Whether the process that it waits for has been reported.
    pub wait_reported: bool,
}

pub(super) struct Running {
    pub started: Instant,
    pub allocation: Allocation,
    pub stop: watch::Sender<Stop>,
    pub deadline: Option<Instant>,
    /// Whether the deadline has passed.
    pub timed_out: bool,
    /// How often each stage that made its inputs had been repaired when this one started.
    pub repairs: BTreeMap<usize, u32>,
}
