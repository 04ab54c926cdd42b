//! The file server's clock: times of files are compared with each other only,
//! never with this machine's clock, since machines that share a cache differ.

use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;

use super::{Store, StoreError, atomic};

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

    fn touch_new(&self) -> std::io::Result<SystemTime> {
        let file = tempfile::Builder::new()
            .prefix(atomic::TEMPORARY)
            .tempfile_in(self.tmp_dir())?;
        touch(file.as_file())?;
        file.as_file().metadata()?.modified()
    }

    /// A new empty file in `tmp/`, removed when dropped.
    pub(super) fn tmp_file(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let tmp = self.tmp_dir();
        tempfile::Builder::new()
            .prefix(&format!("{}{}-", atomic::TEMPORARY, std::process::id()))
            .tempfile_in(&tmp)
            .map_err(StoreError::io("make a temporary file in", &tmp))
    }
}
