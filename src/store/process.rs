//! [`Process`]: which process of which machine something belongs to, and
//! whether that process is known to be gone.

use serde::{Deserialize, Serialize};

/// A process, told from every other one by more than its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub host: String,
    pub pid: u32,
    /// In clock ticks after the boot; numbers of processes are used again.
    #[serde(default)]
    pub start_time: Option<u64>,
    /// Random, new at each boot; two machines may have one name.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// Containers may share name and boot, and yet not see each other's processes.
    #[serde(default)]
    pub pid_namespace: Option<String>,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self {
            host: host(),
            pid,
            start_time: state_of(pid).map(|(_, start_time)| start_time),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .ok()
                .map(|id| id.trim().to_owned()),
            pid_namespace: std::fs::read_link("/proc/self/ns/pid")
                .ok()
                .map(|name| name.to_string_lossy().into_owned()),
        }
    }

    /// Whether it would be seen from here: it is or was of this machine since its
    /// last boot, and of no other container.
    fn is_visible(&self) -> bool {
        let here = Self::this();
        self.host == here.host
            && here.boot_id.is_some()
            && self.boot_id == here.boot_id
            && self.pid_namespace == here.pid_namespace
    }

    /// Whether it is certain that it runs.
    pub fn is_seen(&self) -> bool {
        self.is_visible()
            && self.start_time.is_some()
            && state_of(self.pid).is_some_and(|(_, started)| Some(started) == self.start_time)
            && !self.is_gone()
    }

    /// Whether it is certain that it runs no more. Of a process that cannot be
    /// seen from here (another machine or container) nothing is certain.
    pub fn is_gone(&self) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().filter(|pid| *pid > 0) else {
            return false;
        };
        if !self.is_visible() {
            return false;
        }
        let answer = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
        if answer == Err(nix::errno::Errno::ESRCH) {
            return true;
        }
        match state_of(self.pid) {
            // Ended, and only its parent has not asked how yet.
            Some(('Z' | 'X', _)) => true,
            Some((_, start_time)) => self.start_time.is_some_and(|own| own != start_time),
            None => false,
        }
    }
}

/// State letter and start time of a process, where there is a `/proc`.
fn state_of(pid: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may hold spaces and brackets.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the start time field 22.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Name of this machine.
pub(super) fn host() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| String::new(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// 64 bits that no other process draws: the standard library's random keys,
/// with the number of the process (a forked one has the same keys) and the time.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_i128(jiff::Timestamp::now().as_nanosecond());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_gone() {
        let this = Process::this();
        assert!(!this.is_gone());
        if this.boot_id.is_none() || this.start_time.is_none() {
            return; // no /proc here: nothing is ever certain
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let dead = Process {
            pid,
            ..this.clone()
        };
        assert!(this.is_seen());
        assert!(dead.is_gone() && !dead.is_seen());
        let other = |f: fn(&mut Process)| {
            let mut other = dead.clone();
            f(&mut other);
            other.is_gone()
        };
        assert!(!other(|p| p.host = "elsewhere".to_owned()));
        assert!(!other(|p| p.boot_id = Some("another".to_owned())));
        assert!(!other(|p| p.pid_namespace = Some("pid:[1]".to_owned())));
        assert!(!other(|p| p.pid = 0));

        let reused = Process {
            start_time: this.start_time.map(|t| t + 1),
            ..this
        };
        assert!(!reused.is_seen());
        assert!(reused.is_gone(), "its number was given to another process");
    }
}
