//! [`Group`]: a program in a process group of its own, from its start to its end,
//! with its exit status and peak memory.
//!
//! A group keeps its id until its leader has been waited for. After that the system
//! may give the id to another process, which a signal would then reach. So the end of a
//! leader is only observed (`WNOWAIT`) until the rest of its group has been killed; then
//! the leader is waited for, and no signal is sent any more.
//!
//! This is the only place in the orchestrator that makes system calls without a safe
//! wrapper: `waitid`; `wait4`, the only one that returns a child's own peak memory; and
//! `PR_SET_PDEATHSIG`, which must be set between fork and exec.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::run::Exit;

/// A program that has ended.
#[derive(Debug)]
pub(super) struct Reaped {
    pub exit: Exit,
    /// Highest resident memory of the program and of those of its children that
    /// it waited for.
    pub peak_memory_bytes: u64,
}

/// A running program and all that it starts. Dropping this kills them.
#[derive(Debug)]
pub(super) struct Group {
    leader: Arc<Leader>,
}

/// A program that was just started.
pub(super) struct Started {
    pub group: Group,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    /// Answers when the program itself has ended.
    pub ended: oneshot::Receiver<()>,
}

#[derive(Debug)]
struct Leader {
    pid: libc::pid_t,
    /// Whether it has been waited for: from then on its id may be another process's.
    waited_for: Mutex<bool>,
}

impl Group {
    /// Starts a program as the leader of a new group.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> std::io::Result<Started> {
        let mut child: Child = command.process_group(0).spawn()?;
        let pid = libc::pid_t::try_from(child.id()).map_err(std::io::Error::other)?;
        let leader = Arc::new(Leader {
            pid,
            waited_for: Mutex::new(false),
        });
        let group = Self {
            leader: Arc::clone(&leader),
        };
        let (sender, ended) = oneshot::channel();
        // A thread for each program that runs: few, and they sleep.
        std::thread::Builder::new()
            .name("end of a program".to_owned())
            .spawn(move || {
                look_at_end(leader.pid);
                let _ = sender.send(());
                // If the group has been dropped, it is killed and waited for here.
                drop(leader);
            })?;
        Ok(Started {
            group,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            ended,
        })
    }

    /// Sends a signal to the whole group, unless its leader has been waited for. Returns
    /// whether it was sent.
    pub fn signal(&self, signal: Signal) -> bool {
        self.leader.signal(&self.leader.lock(), signal)
    }

    /// Kills what is left of the group and waits for its leader.
    ///
    /// # Errors
    /// When the system does not know the leader, or it has been waited for before.
    pub fn finish(&self) -> std::io::Result<Reaped> {
        look_at_end(self.leader.pid);
        self.leader.finish()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

impl Leader {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.waited_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, waited_for: &bool, signal: Signal) -> bool {
        !waited_for && self.pid > 1 && killpg(Pid::from_raw(self.pid), signal).is_ok()
    }

    fn finish(&self) -> std::io::Result<Reaped> {
        let mut waited_for = self.lock();
        if *waited_for {
            return Err(std::io::Error::other("it was waited for before"));
        }
        // Kills whatever it left running.
        self.signal(&waited_for, Signal::SIGKILL);
        let reaped = wait(self.pid);
        *waited_for = true;
        reaped
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !*self.lock() {
            let _ = self.finish();
        }
    }
}

/// Blocks until a child has ended, without reaping it. Returns at once if the system does
/// not know it.
fn look_at_end(pid: libc::pid_t) {
    let Ok(id) = libc::id_t::try_from(pid) else {
        return;
    };
    loop {
        // SAFETY: an all-zero `siginfo_t` is a valid one: it consists of integers.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value of the type asked for.
        let looked = unsafe {
            libc::waitid(
                libc::P_PID,
                id,
                &raw mut info,
                libc::WEXITED | libc::WNOWAIT,
            )
        };
        let interrupted = || std::io::Error::last_os_error().kind();
        if looked == 0 || interrupted() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Blocks until a child has ended, and reaps it.
fn wait(pid: libc::pid_t) -> std::io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is a valid one: it consists of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the types asked for; the pid is of a
        // child that nothing else waits for: `Leader` owns it, and waits once.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // Kibibytes on Linux, bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Ok(Reaped {
        exit: Exit::from(ExitStatus::from_raw(status)),
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit,
    })
}

/// Has the system kill the program when this process ends, however it ends (Linux).
pub(super) fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the closure makes one system call, which is allowed after fork.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
                    .map_err(std::io::Error::from)
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use super::*;

    fn shell(script: &str) -> Started {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        Group::start(&mut command).unwrap()
    }

    /// Its state in `/proc`: none once it has been reaped.
    fn state(pid: libc::pid_t) -> Option<char> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(')')?.1.trim_start().chars().next()
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(
                started.elapsed() < Duration::from_secs(300),
                "never: {what}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn line(started: &mut Started) -> libc::pid_t {
        use std::io::BufRead;
        let mut line = String::new();
        let stdout = started.stdout.take().unwrap();
        std::io::BufReader::new(stdout)
            .read_line(&mut line)
            .unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn a_leader_keeps_its_number_until_finished() {
        let started = shell("exit 3");
        let pid = started.group.leader.pid;
        started.ended.blocking_recv().unwrap();
        assert_eq!(state(pid), Some('Z'), "ended, but not reaped");
        assert!(
            started.group.signal(Signal::SIGKILL),
            "the id is still its own"
        );
        let reaped = started.group.finish().unwrap();
        assert_eq!(reaped.exit.code, Some(3));
        assert_ne!(state(pid), Some('Z'));
    }

    #[test]
    fn nothing_is_signalled_once_finished() {
        let started = shell("exit 0");
        started.ended.blocking_recv().unwrap();
        started.group.finish().unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            assert!(
                !started.group.signal(signal),
                "the id may be another process's"
            );
        }
        assert!(started.group.finish().is_err(), "it is reaped only once");
    }

    #[test]
    fn what_a_leader_leaves_running_ends_with_it() {
        let mut started = shell("sleep 600 & echo $!");
        let left = line(&mut started);
        started.ended.blocking_recv().unwrap();
        assert!(state(left).is_some_and(|state| state != 'Z'));
        started.group.finish().unwrap();
        until("the end of what it left", || {
            state(left).is_none_or(|state| state == 'Z')
        });
    }

    #[test]
    fn a_dropped_group_is_ended_and_waited_for() {
        let mut started = shell("echo $$; sleep 600; sleep 600");
        let pid = line(&mut started);
        drop(started.group);
        until("its end", || state(pid).is_none());
    }

    #[test]
    fn finishing_waits_for_one_that_still_runs() {
        let started = shell("sleep 0.05; exit 4");
        assert_eq!(started.group.finish().unwrap().exit.code, Some(4));
    }
}
