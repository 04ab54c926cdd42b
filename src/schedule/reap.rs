//! The end of a program: how it ended, and what it took.
//!
//! The two places where the orchestrator talks to the system without a safe
//! wrapper: `wait4`, which alone tells a child's own peak memory, and
//! `PR_SET_PDEATHSIG`, which must be set between fork and exec.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use super::Exit;

/// A program that ended.
#[derive(Debug)]
pub(super) struct Reaped {
    pub exit: Exit,
    /// Highest resident memory of the program and of those of its children that
    /// it waited for.
    pub peak_memory_bytes: u64,
}

/// Waits for a child; blocks.
///
/// # Errors
/// When the system does not know it.
pub(super) fn wait(child: Child) -> std::io::Result<Reaped> {
    let pid = libc::pid_t::try_from(child.id()).map_err(std::io::Error::other)?;
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is a valid one: it consists of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the types asked for; the pid is of a
        // child that nobody else waits for, since `child` is ours and is not used otherwise.
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

/// Lets the program end when this process does, however it does (Linux).
pub(super) fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
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
