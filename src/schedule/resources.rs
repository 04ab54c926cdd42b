//! [`Resources`]: what is still free on the machine while stages run side by side.

use std::collections::BTreeSet;

use crate::plan::Capacity;
/// The devices, memory and cores that stages share, and how much of them is free.
#[derive(Debug)]
pub(super) struct Resources {
    free: Capacity,
    free_gpus: BTreeSet<u32>,
    /// Whether devices are handed out by number.
    numbered: bool,
    /// How many stages may run at a time.
    jobs: usize,
    running: usize,
}

/// What one stage has been given.
#[derive(Debug)]
pub(super) struct Allocation {
    demand: Capacity,
    /// Numbers of its devices, if the machine has several.
    pub gpus: Vec<u32>,
}

impl Resources {
    pub fn new(capacity: Capacity, jobs: Option<usize>) -> Self {
        Self {
            free: capacity,
            free_gpus: (0..capacity.gpu).collect(),
            numbered: capacity.gpu > 1,
            jobs: jobs.unwrap_or(usize::MAX).max(1),
            running: 0,
        }
    }

    /// Whether nothing at all can start: every stage takes a core.
    pub fn is_full(&self) -> bool {
        self.running >= self.jobs || self.free.cores == 0
    }

    /// Allocates what a stage asks for, if that much is free.
    pub fn take(&mut self, demand: &Capacity) -> Option<Allocation> {
        // Sums of fractions of a gigabyte are inexact.
        const SLACK: f64 = 1e-9;
        let fits = self.running < self.jobs
            && demand.cores <= self.free.cores
            && demand.gpu <= self.free.gpu
            && demand.memory_gb <= self.free.memory_gb + SLACK;
        if !fits {
            return None;
        }
        self.running += 1;
        self.free.cores -= demand.cores;
        self.free.gpu -= demand.gpu;
        self.free.memory_gb -= demand.memory_gb;
        let mut gpus = Vec::new();
        if self.numbered {
            for _ in 0..demand.gpu {
                gpus.extend(self.free_gpus.pop_first());
            }
        }
        let demand = *demand;
        Some(Allocation { demand, gpus })
    }

    pub fn give_back(&mut self, allocation: Allocation) {
        self.running -= 1;
        self.free.cores += allocation.demand.cores;
        self.free.gpu += allocation.demand.gpu;
        self.free.memory_gb += allocation.demand.memory_gb;
        self.free_gpus.extend(allocation.gpus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(gpu: u32, memory_gb: f64, cores: u32) -> Capacity {
        Capacity {
            gpu,
            memory_gb,
            cores,
        }
    }

    #[test]
    fn stages_run_side_by_side_while_resources_last() {
        let mut resources = Resources::new(capacity(1, 20.0, 4), None);
        let big = resources.take(&capacity(1, 15.0, 2)).unwrap();
        assert!(
            resources.take(&capacity(1, 0.0, 1)).is_none(),
            "no GPU is left"
        );
        assert!(resources.take(&capacity(0, 6.0, 1)).is_none(), "no memory");
        assert!(resources.take(&capacity(0, 0.0, 3)).is_none(), "no cores");
        let small = resources.take(&capacity(0, 5.0, 2)).unwrap();
        assert!(resources.is_full());
        resources.give_back(big);
        resources.give_back(small);
        assert!(resources.take(&capacity(1, 20.0, 4)).is_some());
    }

    #[test]
    fn jobs_are_a_separate_limit() {
        let mut resources = Resources::new(capacity(0, 1.0, 8), Some(1));
        let one = resources.take(&capacity(0, 0.0, 1)).unwrap();
        assert!(resources.is_full() && resources.take(&capacity(0, 0.0, 1)).is_none());
        resources.give_back(one);
        assert!(!resources.is_full());
    }

    #[test]
    fn several_devices_are_handed_out_by_number() {
        let mut resources = Resources::new(capacity(3, 1.0, 8), None);
        let one = resources.take(&capacity(1, 0.0, 1)).unwrap();
        let two = resources.take(&capacity(2, 0.0, 1)).unwrap();
        assert_eq!((&one.gpus[..], &two.gpus[..]), (&[0][..], &[1, 2][..]));
        resources.give_back(one);
        assert_eq!(resources.take(&capacity(1, 0.0, 1)).unwrap().gpus, [0]);
        // A single device needs no number.
        assert!(
            Resources::new(capacity(1, 1.0, 1), None)
                .take(&capacity(1, 0.0, 1))
                .unwrap()
                .gpus
                .is_empty()
        );
    }
}
