//! What is known of each stage while a run goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;

use crate::protocol::Figure;
use crate::run::{Exit, Status};
use crate::schedule::Stop;
use crate::schedule::room::Share;
use crate::store::{Key, Tree};

/// Where a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Phase {
    /// For its inputs.
    #[default]
    Waiting,
    /// Its key is known and has no result: for room.
    Queued,
    /// For another process, or another stage of this run, that computes the same key.
    Held,
    /// For its next attempt.
    Backoff(Instant),
    Running,
    Ended(Status),
}

#[derive(Debug, Default)]
pub(super) struct NodeState {
    pub phase: Phase,
    /// Inputs without a result.
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
    /// For whom it waits was told.
    pub told: bool,
}

pub(super) struct Running {
    pub started: Instant,
    pub share: Share,
    pub stop: watch::Sender<Stop>,
    /// When its time is over, and whether it was.
    pub deadline: Option<Instant>,
    pub timed_out: bool,
    /// Of the stages that made its inputs: how often each had been repaired.
    pub repairs: BTreeMap<usize, u32>,
}
