//! [`Folder`]: a folder that is held open. Names are looked up in it one at a
//! time, without following a link and without leaving its file system, so that
//! what was looked at is what is then read, moved or removed, whatever a program
//! does to the paths meanwhile.
//!
//! A stage's program may put anything into its output's place: a link to a folder
//! of a person's, or that folder itself, mounted there. Nothing that is reached
//! through one may be changed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Permissions that a folder needs before what is in it can be removed.
const OPEN_TO_OWNER: libc::mode_t = 0o700;

/// A folder that is held open.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
}

/// What the file system says of an entry itself, not of what it links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    mode: u32,
    /// Number of its names.
    pub links: u64,
    /// Its size.
    pub bytes: u64,
    modified: (i64, i64),
}

impl Seen {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        clippy::cast_sign_loss,
        reason = "the types differ between systems"
    )]
    fn new(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            mode: stat.st_mode as u32,
            links: stat.st_nlink as u64,
            bytes: stat.st_size as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        }
    }

    /// Of a file that is open.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::new(&fstat(file)?))
    }

    /// Whether it is of this file or folder.
    pub fn is_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }

    /// Whether both are of one file or folder.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether the content is what it was, as far as size and time say.
    pub fn is_unwritten(&self, other: &Self) -> bool {
        self.is_same(other) && (self.bytes, self.modified) == (other.bytes, other.modified)
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// Whether its owner may run it.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    fn kind(&self) -> libc::mode_t {
        self.mode as libc::mode_t & libc::S_IFMT
    }

    /// What an entry that is not a file is, for people.
    pub fn describe(&self) -> &'static str {
        match self.kind() {
            libc::S_IFREG => "file",
            libc::S_IFDIR => "folder",
            libc::S_IFLNK => "symbolic link",
            libc::S_IFSOCK => "socket",
            libc::S_IFIFO => "pipe",
            libc::S_IFBLK | libc::S_IFCHR => "device",
            _ => "special file",
        }
    }
}

impl Folder {
    /// Opens the folder at a path of the cache. It is not a link itself; people put
    /// caches behind links.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, OFlag::O_NOFOLLOW)
    }

    fn open_with(path: &Path, flags: OFlag) -> io::Result<Self> {
        let flags = flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// A folder in this one.
    ///
    /// # Errors
    /// [`io::ErrorKind::CrossesDevices`] says that something is mounted there.
    pub fn folder(&self, name: &OsStr) -> io::Result<Self> {
        let fd = self.open_in(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(Self { fd })
    }

    /// A file in this folder, to be read.
    ///
    /// # Errors
    /// As for [`Folder::folder`].
    pub fn file(&self, name: &OsStr) -> io::Result<File> {
        // A pipe that came into its place keeps nobody waiting.
        let fd = self.open_in(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        Ok(File::from(fd))
    }

    /// The folder at a relative path of plain parts; the empty one is this folder.
    pub fn descend(&self, relative: &str) -> io::Result<Self> {
        let mut here = Self {
            fd: self.fd.try_clone()?,
        };
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            here = here.folder(OsStr::new(part))?;
        }
        Ok(here)
    }

    fn open_in(&self, name: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        #[cfg(target_os = "linux")]
        {
            use nix::fcntl::{OpenHow, ResolveFlag, openat2};
            let how = OpenHow::new().flags(flags).resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
            match openat2(&self.fd, name, how) {
                // An old kernel, or a container that does not know the call.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                opened => return Ok(opened?),
            }
        }
        self.open_in_by_hand(name, flags)
    }

    /// Where the kernel cannot be asked to stay on a mount.
    fn open_in_by_hand(&self, name: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        let device = |fd: &OwnedFd| fstat(fd).map(|stat| stat.st_dev);
        if device(&fd)? == device(&self.fd)? && mount_of(&fd) == mount_of(&self.fd) {
            Ok(fd)
        } else {
            Err(Errno::EXDEV.into())
        }
    }

    /// What an entry is.
    pub fn look(&self, name: &OsStr) -> io::Result<Seen> {
        let stat = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(Seen::new(&stat))
    }

    /// What this folder is.
    pub fn seen(&self) -> io::Result<Seen> {
        Ok(Seen::new(&fstat(&self.fd)?))
    }

    /// The names in it, sorted.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = Dir::openat(&self.fd, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a folder in it that only this user may enter.
    pub fn make(&self, name: &OsStr) -> io::Result<Self> {
        nix::sys::stat::mkdirat(&self.fd, name, Mode::S_IRWXU)?;
        self.folder(name)
    }

    /// Renames an entry; a link is itself renamed.
    pub fn rename(&self, name: &OsStr, to: &Folder, new: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, new)?)
    }

    /// Removes an entry that is not a folder.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes an entry with all that is in it, except what is mounted in it: that
    /// stays, with the folders on the way there.
    ///
    /// # Errors
    /// The first of what could not be removed.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match self.look(name) {
            Ok(seen) if seen.is_dir() => {}
            Ok(_) => return self.unlink(name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        let folder = match self.folder(name) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let mode = Mode::from_bits_truncate(OPEN_TO_OWNER);
                fchmodat(&self.fd, name, mode, FchmodatFlags::NoFollowSymlink)?;
                self.folder(name)?
            }
            opened => opened?,
        };
        if fstat(&folder.fd)?.st_mode & OPEN_TO_OWNER != OPEN_TO_OWNER {
            let mode = Mode::from_bits_truncate(OPEN_TO_OWNER);
            // Another user's folder cannot be changed, and says so below.
            let _ = fchmod(&folder.fd, mode);
        }
        let mut first = Ok(());
        for entry in folder.names()? {
            let removed = folder.remove(&entry);
            first = first.and(removed);
        }
        first?;
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir)?)
    }
}

/// Lets a file that is open be read by all, and neither written nor run.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    Ok(fchmod(
        file.as_fd(),
        Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH,
    )?)
}

/// As [`std::fs::remove_dir_all`], but what is mounted below stays as it is.
pub(super) fn remove_dir_all(path: &Path) -> io::Result<()> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Folder::open_with(parent, OFlag::empty())?.remove(name),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The number of the mount that an open file lies on, where the system says it.
fn mount_of(fd: &OwnedFd) -> Option<String> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("mnt_id:"))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir_all(at("mine/sub")).unwrap();
        std::fs::write(at("mine/x"), "x").unwrap();
        std::fs::create_dir(at("f")).unwrap();
        symlink(at("mine"), at("f/link")).unwrap();
        symlink(at("mine/x"), at("f/file")).unwrap();
        let folder = Folder::open(&at("f")).unwrap();
        assert!(folder.folder(name("link")).is_err());
        assert!(folder.file(name("file")).is_err());
        assert!(folder.descend("link/sub").is_err());
        assert!(folder.descend("..").is_err(), "nothing leads up");
        let seen = folder.look(name("link")).unwrap();
        assert_eq!(seen.describe(), "symbolic link");
        let by_hand = folder.open_in_by_hand(name("link"), OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW);
        assert!(by_hand.is_err());
    }

    #[test]
    fn what_is_mounted_is_not_entered() {
        // Everywhere a mount of its own.
        let root = Folder::open(Path::new("/")).unwrap();
        let crossed = |e: io::Error| e.kind() == io::ErrorKind::CrossesDevices;
        assert!(root.folder(name("proc")).is_err_and(crossed));
        let by_hand = root.open_in_by_hand(name("proc"), OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW);
        assert!(by_hand.is_err_and(crossed));
    }

    #[test]
    fn removal_goes_through_closed_folders_and_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir_all(at("f/closed/deep")).unwrap();
        std::fs::create_dir(at("mine")).unwrap();
        std::fs::write(at("mine/x"), "x").unwrap();
        std::fs::write(at("f/closed/deep/x"), "x").unwrap();
        symlink(at("mine"), at("f/closed/link")).unwrap();
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(at("f/closed/deep"), closed.clone()).unwrap();
        std::fs::set_permissions(at("f/closed"), closed).unwrap();
        remove_dir_all(&at("f")).unwrap();
        assert!(!at("f").exists());
        assert!(at("mine/x").exists());
        remove_dir_all(&at("f")).unwrap();
    }
}
