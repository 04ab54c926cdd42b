//! Threads that share out the tasks of a short phase: [`Pool`].
//!
//! A decoding step has hundreds of phases of some ten microseconds, too short
//! to put a thread to sleep and wake it again each time: threads look out for
//! the next phase for a while before they sleep. A phase is over when its tasks
//! are done; a thread that the system holds up between tasks holds up nobody.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks at the work before a thread sleeps, some 50 to 100 microseconds.
const LOOKS: u32 = 4000;

/// Bits of a [`Shared::state`] for the next task; the upper half is how many there are.
const BITS: u32 = 32;
const MASK: u64 = (1 << BITS) - 1;

/// Threads of a pool at most. Each may count one beyond a phase's tasks.
const MOST_THREADS: usize = 1 << 16;

/// Tasks of a phase at most: with what threads count beyond them they fit into [`MASK`].
const MOST_TASKS: usize = (MASK as usize) - MOST_THREADS;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// Threads that work on one phase at a time.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// How many tasks the phase has, and the next of them to be taken.
    state: AtomicU64,
    /// The phase's task; valid while one of its tasks is taken and not done.
    task: UnsafeCell<*const Task<'static>>,
    done: AtomicUsize,
    /// What the first task that panicked did so with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: everything but `task` is `Sync` by itself. `task` is written by `Pool::phase`
// alone, which has the pool to itself (`&mut`) and has seen the last phase's tasks done,
// and before the store to `state` that publishes it. It is read only by a thread that
// took a task from that `state` (so after the store) and has not counted it as done (so
// before the next write). What it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: everything but `task` is `Send` by itself; `task` is a pointer to what is `Sync`,
// is followed as above alone, and belongs to no thread.
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
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let threads = (1..threads.min(MOST_THREADS))
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
    /// When a task panicked, as it did.
    pub fn run(&mut self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.run_in_phases(tasks, MOST_TASKS, &task);
    }

    /// Calls `task` once with every one of `parts` and its number, on any thread and in any order.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn each<T: Send>(
        &mut self,
        parts: impl Iterator<Item = T>,
        task: impl Fn(usize, T) + Sync,
    ) {
        if self.threads.is_empty() {
            parts.enumerate().for_each(|(i, part)| task(i, part));
            return;
        }
        let parts: Vec<_> = parts.map(|part| Mutex::new(Some(part))).collect();
        self.run(parts.len(), |i| {
            let part = parts[i]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(part) = part {
                task(i, part);
            }
        });
    }

    /// As [`Pool::run`], at most `most` tasks a phase.
    fn run_in_phases(&mut self, tasks: usize, most: usize, task: &(impl Fn(usize) + Sync)) {
        let mut first = 0;
        while first < tasks {
            let count = (tasks - first).min(most);
            self.phase(count, &|i| task(first + i));
            first += count;
        }
    }

    fn phase(&mut self, tasks: usize, task: &Task<'_>) {
        if self.threads.is_empty() || tasks <= 1 {
            (0..tasks).for_each(task);
            return;
        }
        assert!(
            tasks <= MOST_TASKS,
            "{tasks} tasks of a phase, which has at most {MOST_TASKS}"
        );
        let shared = &*self.shared;
        // SAFETY: the lifetime is only forgotten. Nothing below returns or unwinds before
        // every task is done, so no call is under way when this function ends; and without
        // a task taken nobody follows the pointer.
        let task: *const Task<'static> = unsafe { std::mem::transmute(task) };
        // SAFETY: the last phase's tasks are done, so nobody reads it before the store below.
        unsafe { *shared.task.get() = task };
        shared.done.store(0, Ordering::Relaxed);
        shared.state.store((tasks as u64) << BITS, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.work();
        let mut looks = 0_u32;
        while shared.done.load(Ordering::Acquire) < tasks {
            looks = looks.saturating_add(1);
            if looks > LOOKS {
                // Somebody else may need this core to finish.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        let panic = shared.panic.lock();
        let panic = panic.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
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
        (state & MASK) < (state >> BITS)
    }

    /// Takes tasks while there are any.
    fn work(&self) {
        while self.has_work() {
            let state = self.state.fetch_add(1, Ordering::AcqRel);
            let (next, tasks) = (state & MASK, state >> BITS);
            if next >= tasks {
                return;
            }
            // SAFETY: a task of the phase that `state` names is taken and not done, so
            // `Pool::phase` waits, and what the pointer shows is there.
            let task = unsafe { &**self.task.get() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(next as usize))) {
                let first = self.panic.lock();
                let mut first = first.unwrap_or_else(PoisonError::into_inner);
                if first.is_none() {
                    *first = Some(panic);
                } else {
                    // Dropping it could panic, before the task counts as done.
                    std::mem::forget(panic);
                }
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
    use super::super::testing::panic_message;
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

    /// Around every power of two up to a million.
    #[test]
    fn no_number_of_tasks_loses_any() {
        let mut pool = Pool::new(2);
        for bits in [4, 8, 16, 20] {
            for tasks in (1_usize << bits) - 1..=(1 << bits) + 1 {
                let (count, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
                pool.run(tasks, |i| {
                    count.fetch_add(1, Ordering::Relaxed);
                    sum.fetch_add(i, Ordering::Relaxed);
                });
                assert_eq!(count.into_inner(), tasks);
                assert_eq!(sum.into_inner(), tasks * (tasks - 1) / 2);
            }
        }
    }

    #[test]
    fn more_tasks_than_a_phase_holds_take_several() {
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads);
            for most in [1, 2, 7, 16] {
                for tasks in 0..50 {
                    let counts: Vec<AtomicUsize> =
                        (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run_in_phases(tasks, most, &|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_phase_and_its_threads_fit_the_counters() {
        let beyond = (MOST_TASKS + MOST_THREADS) as u64;
        assert!(beyond <= MASK);
        // However far threads count, the number of tasks stays as it is.
        let state = (MOST_TASKS as u64) << BITS;
        assert_eq!((state + beyond) >> BITS, MOST_TASKS as u64);
    }

    #[test]
    fn every_part_goes_to_one_task() {
        for threads in [1, 3] {
            let mut pool = Pool::new(threads);
            let mut numbers = vec![0; 1003];
            pool.each(numbers.chunks_mut(10).zip(0..), |i, (part, same)| {
                assert_eq!(i, same);
                part.iter_mut().for_each(|n| *n += i + 1);
            });
            assert!(numbers.iter().enumerate().all(|(at, n)| *n == at / 10 + 1));
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
        for threads in [1, 2] {
            let mut pool = Pool::new(threads);
            let message = panic_message(|| pool.run(8, |i| assert!(i < 5, "task {i} of 8")));
            assert!(message.ends_with("of 8"), "{message}");
            let done = AtomicUsize::new(0);
            pool.run(8, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 8);
        }
    }
}
