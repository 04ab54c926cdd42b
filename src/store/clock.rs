//! The file server's clock: times of files are compared with each other only,
//! never with this machine's clock, since machines that share a cache differ.

use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;

use super::{Store, atomic};

/// Sets a file's times to the server's now.
pub(super) fn touch(file: impl AsFd) -> std::io::Result<()> {
    Ok(futimens(file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?)
}

/// Sets the times of what has this name to the server's now.
pub(super) fn touch_path(path: &Path) -> std::io::Result<()> {
    Ok(utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &TimeSpec::UTIME_NOW,
        &TimeSpec::UTIME_NOW,
        UtimensatFlags::NoFollowSymlink,
    )?)
}

/// How far apart the two are, whichever is first. A beat that lies in the future
/// comes of a clock that was set back, and its writer would have beaten since.
pub(super) fn apart(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_else(|e| e.duration())
}

/// How far ahead of the server's clock a time may lie and be believed: what was
/// written while others were looked at, and the steps of a file system's clock.
const AHEAD: SignedDuration = SignedDuration::from_secs(600);

/// When a file was written and changed. A time in the future comes of a clock that
/// was wrong, and says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileTimes {
    /// Of the last change of content; anyone may set it.
    pub content: Timestamp,
    /// Of the last change of the inode (name, mode, links): set by the server alone.
    inode: Timestamp,
}

impl FileTimes {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            content: timestamp(metadata.mtime(), metadata.mtime_nsec()),
            inode: timestamp(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The later of the two that can be believed.
    pub fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let times = [self.content, self.inode];
        times.into_iter().filter(|t| is_believed(*t, now)).max()
    }

    /// When its content was written: by the inode if that cannot be believed.
    pub fn written(&self, now: Timestamp) -> Option<Timestamp> {
        let times = [self.content, self.inode];
        times.into_iter().find(|t| is_believed(*t, now))
    }
}

/// Whether a time is not in the future.
pub(super) fn is_believed(time: Timestamp, now: Timestamp) -> bool {
    time <= now.checked_add(AHEAD).unwrap_or(Timestamp::MAX) && time < Timestamp::MAX
}

/// A time that no calendar has says as little as one in the future.
fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)).unwrap_or(Timestamp::MAX)
}

/// When a file was last written, by the server's clock.
pub(super) fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether what happens in a file here is seen elsewhere only once it is flushed.
pub(super) fn is_remote(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::statfs;
        /// 9P, SMB 2 and 3, CIFS, Ceph, Lustre, FUSE: may be shared, so taken to be.
        const OTHERS: [u32; 6] = [
            0x0102_1997,
            0xfe53_4d42,
            0xff53_4d42,
            0x00c3_6400,
            0x0bd0_0bd0,
            0x6573_5546,
        ];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "magic numbers have 32 bits; the type's width differs between systems"
        )]
        statfs::fstatfs(file).is_ok_and(|stat| {
            let kind = stat.filesystem_type();
            kind == statfs::NFS_SUPER_MAGIC || OTHERS.contains(&(kind.0 as u32))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

impl Store {
    /// What the server's clock says: the time of a file touched just now. In a
    /// cache that cannot be written, this machine's clock has to do.
    pub(super) fn server_now(&self) -> SystemTime {
        self.touch_new().unwrap_or_else(|_| SystemTime::now())
    }

    /// The same as a timestamp.
    pub(super) fn server_time(&self) -> Timestamp {
        Timestamp::try_from(self.server_now()).unwrap_or_else(|_| Timestamp::now())
    }

    fn touch_new(&self) -> std::io::Result<SystemTime> {
        let file = tempfile::Builder::new()
            .prefix(atomic::TEMPORARY)
            .tempfile_in(self.tmp_dir())?;
        touch(file.as_file())?;
        file.as_file().metadata()?.modified()
    }
}
