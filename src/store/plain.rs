//! Reading what lies in a cache, where others may write too: [`open`], [`read`].
//!
//! A link, a pipe or a device in the place of a file is refused by name: a link
//! would lead out of the cache, and opening a pipe would wait for ever. What is
//! read whole is read up to a size, so that nobody's memory is filled.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::walk::describe;

/// Bytes of a small file: a lease, a claim, whose a folder is.
pub const SMALL: u64 = 64 * 1024;
/// Bytes of a file that lists things: a record, a run's events.
pub const LARGE: u64 = 1 << 30;

/// How such a file is opened, whatever for: `O_NONBLOCK` is for pipes, and means
/// nothing for a file.
pub(super) const FLAGS: OFlag = OFlag::O_NOFOLLOW
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

/// Opens a plain file for reading.
///
/// # Errors
/// When it is not there, cannot be read, or is not a plain file.
pub fn open(path: &Path) -> Result<File> {
    let opened = File::options()
        .read(true)
        .custom_flags(FLAGS.bits())
        .open(path);
    checked(opened.map_err(|e| explain(e, path))?)
}

/// Reads all of a plain file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; when it is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_open(&mut open(path)?, most)
}

/// The same of a file that is open.
pub(super) fn read_open(file: &mut File, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {most} bytes"),
        ));
    }
    Ok(bytes)
}

/// Whether a path is itself a folder, and not a link to one.
pub fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// A file that was opened with [`FLAGS`], if it is a plain one.
pub(super) fn checked(file: File) -> Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(not_plain("folder"))
    } else {
        Err(not_plain(describe(kind)))
    }
}

/// Whether something else than a file stands at its place.
pub(super) fn is_not_plain(error: &Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotPlain>())
}

/// Says of a link that it is one: the system says "too many levels of links", and of
/// a pipe without a reader, or a socket, "no such device".
pub(super) fn explain(error: Error, path: &Path) -> Error {
    let code = error.raw_os_error().map(Errno::from_raw);
    if !matches!(
        code,
        Some(Errno::ELOOP | Errno::EMLINK | Errno::ENXIO | Errno::ENODEV | Errno::EISDIR)
    ) {
        return error;
    }
    match std::fs::symlink_metadata(path).map(|m| m.file_type()) {
        Ok(kind) if kind.is_dir() => not_plain("folder"),
        Ok(kind) if !kind.is_file() => not_plain(describe(kind)),
        _ => error,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it is a {0}, and not a file of its own")]
struct NotPlain(&'static str);

pub(super) fn not_plain(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, NotPlain(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        for (link, to) in [("link", "file"), ("dangling", "nowhere"), ("dir", "folder")] {
            std::os::unix::fs::symlink(at(to), at(link)).unwrap();
        }
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();

        assert_eq!(read(&at("file"), 4).unwrap(), b"text");
        assert_eq!(
            read(&at("file"), 3).unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
        assert_eq!(
            read(&at("none"), 9).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        for (name, what) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("dir", "symbolic link"),
            ("pipe", "pipe"),
            ("socket", "socket"),
            ("folder", "folder"),
        ] {
            let error = read(&at(name), 9).unwrap_err();
            assert!(is_not_plain(&error), "{name}: {error}");
            assert!(error.to_string().contains(what), "{name}: {error}");
        }
        let error = open(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("device"), "{error}");
        assert!(!is_folder(&at("dir")) && is_folder(&at("folder")));
    }
}
