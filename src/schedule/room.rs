//! [`Room`]: what is left of the machine while stages run side by side.

use std::collections::BTreeSet;

use crate::plan::Capacity;

/// What stages share, and how much of it is taken.
#[derive(Debug)]
pub(super) struct Room {
    free: Capacity,
    free_gpus: BTreeSet<u32>,
    /// Whether devices are handed out by number.
    numbered: bool,
    /// Most stages at a time.
    jobs: usize,
    running: usize,
}

/// What one stage was given.
#[derive(Debug)]
pub(super) struct Share {
    demand: Capacity,
    /// Numbers of its devices, where there are several to tell apart.
    pub gpus: Vec<u32>,
}

impl Room {
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

    /// Takes what a stage asks for, if it is there.
    pub fn take(&mut self, demand: &Capacity) -> Option<Share> {
        // Sums of fractions of a gigabyte are not exact.
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
        Some(Share { demand, gpus })
    }

    /// Gives it back.
    pub fn give_back(&mut self, share: Share) {
        self.running -= 1;
        self.free.cores += share.demand.cores;
        self.free.gpu += share.demand.gpu;
        self.free.memory_gb += share.demand.memory_gb;
        self.free_gpus.extend(share.gpus);
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
    fn stages_run_side_by_side_as_far_as_there_is_room() {
        let mut room = Room::new(capacity(1, 20.0, 4), None);
        let big = room.take(&capacity(1, 15.0, 2)).unwrap();
        assert!(room.take(&capacity(1, 0.0, 1)).is_none(), "no GPU is left");
        assert!(room.take(&capacity(0, 6.0, 1)).is_none(), "no memory");
        assert!(room.take(&capacity(0, 0.0, 3)).is_none(), "no cores");
        let small = room.take(&capacity(0, 5.0, 2)).unwrap();
        assert!(room.is_full());
        room.give_back(big);
        room.give_back(small);
        assert!(room.take(&capacity(1, 20.0, 4)).is_some());
    }

    #[test]
    fn jobs_are_a_limit_of_their_own() {
        let mut room = Room::new(capacity(0, 1.0, 8), Some(1));
        let one = room.take(&capacity(0, 0.0, 1)).unwrap();
        assert!(room.is_full() && room.take(&capacity(0, 0.0, 1)).is_none());
        room.give_back(one);
        assert!(!room.is_full());
    }

    #[test]
    fn several_devices_are_handed_out_by_number() {
        let mut room = Room::new(capacity(3, 1.0, 8), None);
        let one = room.take(&capacity(1, 0.0, 1)).unwrap();
        let two = room.take(&capacity(2, 0.0, 1)).unwrap();
        assert_eq!((&one.gpus[..], &two.gpus[..]), (&[0][..], &[1, 2][..]));
        room.give_back(one);
        assert_eq!(room.take(&capacity(1, 0.0, 1)).unwrap().gpus, [0]);
        // A lone device needs no number.
        assert!(
            Room::new(capacity(1, 1.0, 1), None)
                .take(&capacity(1, 0.0, 1))
                .unwrap()
                .gpus
                .is_empty()
        );
    }
}
