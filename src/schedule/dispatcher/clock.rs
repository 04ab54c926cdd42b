//! What comes with time: limits, repetitions, another look at what others compute.

use std::time::Instant;

use super::state::Phase;
use super::{Dispatcher, LOOK_AGAIN};
use crate::schedule::Stop;

impl Dispatcher<'_, '_> {
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        let backoff = self
            .backoff
            .iter()
            .filter_map(|&i| match self.states[i].phase {
                Phase::Backoff(until) => Some(until),
                _ => None,
            });
        let deadlines = self
            .running
            .values()
            .filter(|r| !r.timed_out)
            .filter_map(|r| r.deadline);
        let look = self.look_at.filter(|_| !self.held.is_empty());
        backoff.chain(deadlines).chain(look).min()
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
                Phase::Backoff(until) if until > now => {
                    self.backoff.insert(index);
                }
                // Decided anew: an input may have been made again meanwhile.
                _ => self.requeue(index),
            }
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.look_again();
            if !self.held.is_empty() {
                self.look_at = Some(now + LOOK_AGAIN);
            }
        }
    }
}
