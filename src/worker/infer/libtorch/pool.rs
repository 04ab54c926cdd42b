//! Threads that share out the tasks of a short phase: [`Pool`].
//!
//! A decoding step has hundreds of phases of some ten microseconds, too short
//! to put a thread to sleep and wake it again each time: threads look out for
//! the next phase for a while before they sleep. A phase is over when its tasks
//! are done; a thread that the system holds up between tasks holds up nobody.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks at the work before a thread sleeps, some 50 to 100 microseconds.
const LOOKS: u32 = 4000;

/// Bits of a [`Shared::state`] for the next task, and for how many there are.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// Threads that work on one phase at a time.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Number of the phase, its tasks, and the next of them to be taken.
    state: AtomicU64,
    /// The phase's task; valid while one of its tasks is taken and not done.
    task: UnsafeCell<*const Task<'static>>,
    done: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `task` is written only between phases, before the store to `state`
// that publishes it, and read only by who took a task from that `state`.
unsafe impl Sync for Shared {}
// SAFETY: as above; what it points to is `Sync`.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's own among them.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            task: UnsafeCell::new(std::ptr::from_ref::<Task<'static>>(&|_| {})),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let threads = (1..threads)
            .map_while(|i| {
                let shared = Arc::clone(&shared);
                // Fewer threads are slower, not wrong.
                std::thread::Builder::new()
                    .name(format!("decode-{i}"))
                    .spawn(move || shared.serve())
                    .ok()
            })
            .collect();
        Self { shared, threads }
    }

    /// Threads, the caller's own among them.
    #[cfg(test)]
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `task` with every number below `tasks`, each once, on any thread and in any order.
    ///
    /// # Panics
    /// When a task panicked.
    pub fn run(&mut self, tasks: usize, task: impl Fn(usize) + Sync) {
        if self.threads.is_empty() || tasks <= 1 {
            (0..tasks).for_each(task);
            return;
        }
        let shared = &*self.shared;
        let task: &Task<'_> = &task;
        // SAFETY: the lifetime is only forgotten; no call is under way when this returns.
        let task: *const Task<'static> = unsafe { std::mem::transmute(task) };
        // SAFETY: the last phase is over, and nobody reads it before the store below.
        unsafe { *shared.task.get() = task };
        shared.done.store(0, Ordering::Relaxed);
        let phase = (shared.state.load(Ordering::Relaxed) >> (2 * BITS)) + 1;
        let tasks = tasks as u64 & MASK;
        shared
            .state
            .store((phase << (2 * BITS)) | (tasks << BITS), Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.work();
        let mut looks = 0_u32;
        while (shared.done.load(Ordering::Acquire) as u64) < tasks {
            looks += 1;
            if looks > LOOKS {
                // Somebody else may need this core to finish.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a thread of the decoder panicked"
        );
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let held = self.shared.lock.lock();
            let _held = held.unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn has_work(&self) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        (state & MASK) < ((state >> BITS) & MASK)
    }

    /// Takes tasks while there are any.
    fn work(&self) {
        while self.has_work() {
            let state = self.state.fetch_add(1, Ordering::AcqRel);
            let (next, tasks) = (state & MASK, (state >> BITS) & MASK);
            if next >= tasks {
                return;
            }
            // SAFETY: a task of the phase that `state` names is taken and not done,
            // so its caller waits and the pointer is valid.
            let task = unsafe { &**self.task.get() };
            if catch_unwind(AssertUnwindSafe(|| task(next as usize))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn serve(&self) {
        let mut looks = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.has_work() {
                self.work();
                looks = 0;
            } else if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
                looks = 0;
            }
        }
    }

    fn sleep(&self) {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.has_work() && !self.stop.load(Ordering::SeqCst) {
            held = self.wake.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_in_every_phase() {
        let mut pool = Pool::new(3);
        assert_eq!(pool.threads(), 3);
        for tasks in (0..40).chain(std::iter::repeat_n(7, 2000)) {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn threads_that_went_to_sleep_wake_up() {
        let mut pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.run(10, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_panic_in_a_task_is_the_caller_s() {
        let mut pool = Pool::new(2);
        let run = catch_unwind(AssertUnwindSafe(|| pool.run(8, |i| assert_ne!(i, 5))));
        assert!(run.is_err());
        pool.run(8, |_| {});
    }
}
