//! What happens by the clock: timeouts, retries, and polling stages that another process computes.

use std::time::Instant;

use super::state::NodePhase;
use super::{Dispatcher, POLL_INTERVAL};
use crate::schedule::Stop;

impl Dispatcher<'_, '_> {
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        let backoff = self
            .backoff
            .iter()
            .filter_map(|&i| match self.states[i].phase {
                NodePhase::Backoff(until) => Some(until),
                _ => None,
            });
        let deadlines = self
            .running
            .values()
            .filter(|r| !r.timed_out)
            .filter_map(|r| r.deadline);
        let poll = self.poll_at.filter(|_| !self.held.is_empty());
        backoff.chain(deadlines).chain(poll).min()
    }

    pub(super) fn alarm(&mut self) {
        let now = Instant::now();
        for running in self.running.values_mut() {
            if !running.timed_out && running.deadline.is_some_and(|at| at <= now) {
                running.timed_out = true;
                running.stop.send_replace(Stop::Soon);
            }
        }
        for index in std::mem::take(&mut self.backoff) {
            match self.states[index].phase {
                NodePhase::Backoff(until) if until > now => {
                    self.backoff.insert(index);
                }
                // Decided anew, since an input may have been recomputed meanwhile.
                _ => self.requeue(index),
            }
        }
        if self.poll_at.is_some_and(|at| at <= now) {
            self.poll_at = None;
            self.poll_held();
            if !self.held.is_empty() {
                self.poll_at = Some(now + POLL_INTERVAL);
            }
        }
    }
}
