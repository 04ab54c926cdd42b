//! Starts a program, and explains why one does not start: the system's error number shows
//! neither what was missing nor what was too large.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::reap::{Group, Started};
use crate::kind::command::Params;
use crate::protocol::Failure;
use crate::run::Exit;

/// How often to try a program that is open for writing: a process that is being started
/// may have inherited the file just after it was laid out.
pub(super) const TRIES_WHILE_BUSY: usize = 40;
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(25);
/// Where the system looks for programs without a PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// How many bytes at the start of a file are read to identify it.
const HEAD: u64 = 256;

/// Starts a program.
///
/// # Errors
/// The system's error, for [`explain`].
pub(super) async fn start(command: &mut Command) -> io::Result<Started> {
    for _ in 1..TRIES_WHILE_BUSY {
        match Group::start(command) {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            started => return started,
        }
    }
    Group::start(command)
}

/// Why the program of a `command` stage did not start; `params` are the stage's.
pub(super) fn explain(error: &io::Error, command: &Command, params: &Params) -> Failure {
    let program = command.get_program().to_string_lossy();
    let (why, cure) = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::E2BIG) => too_large(command, params),
        _ => cause(error, command),
    };
    let failure = Failure::new(format!("cannot start `{program}`: {why}"));
    match cure {
        Some(cure) => failure.hint(cure),
        None => failure,
    }
}

/// Why a program did not start, and what to do about it.
pub(super) fn cause(error: &io::Error, command: &Command) -> (String, Option<String>) {
    let with = |why: &str, cure: &str| (why.to_owned(), Some(cure.to_owned()));
    if let Some(folder) = command.get_current_dir()
        && !folder.is_dir()
    {
        return (
            format!("the folder to start it in is gone: {}", folder.display()),
            Some("something deleted it from the cache meanwhile; run again".to_owned()),
        );
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => with(
            "this user or container has reached its limit of processes",
            "end some, run fewer stages side by side (`--jobs`), or raise `ulimit -u`",
        ),
        Some(Errno::ENOMEM) => with(
            "there is not enough memory for another process",
            "run fewer stages side by side (`--jobs`)",
        ),
        Some(Errno::EMFILE | Errno::ENFILE) => with(
            "too many files are open",
            "run fewer stages side by side (`--jobs`), or raise `ulimit -n`",
        ),
        Some(Errno::ETXTBSY) => with(
            "it is open for writing",
            "wait until it has been written, then run again",
        ),
        Some(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EACCES
            | Errno::ELOOP
            | Errno::ENOEXEC
            | Errno::EISDIR
            | Errno::ENAMETOOLONG,
        ) => file_cause(error, command),
        _ => (error.to_string(), None),
    }
}

/// Why the file itself could not be run.
fn file_cause(error: &io::Error, command: &Command) -> (String, Option<String>) {
    let program = command.get_program();
    let Some(path) = locate(command) else {
        return not_found(program, command);
    };
    let shown = path.display();
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let why = match std::fs::symlink_metadata(&path) {
                Ok(_) => format!("{shown} is a broken link"),
                Err(_) => format!("{shown} does not exist"),
            };
            return (why, Some(NOT_FOUND.to_owned()));
        }
        Err(e) => return (format!("{shown} cannot be read: {e}"), None),
    };
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "folder"
        } else {
            "special file"
        };
        return (
            format!("{shown} is a {what}, not a program"),
            Some("name the file in it to run".to_owned()),
        );
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return (
            format!("{shown} is not executable"),
            Some(format!(
                "`chmod +x` it (in an input: in the stage that makes it), or name its interpreter: `run: [sh, {}]`",
                program.display()
            )),
        );
    }
    let head = head(&path);
    if let Some(interpreter) = interpreter(&head) {
        return interpreter_cause(&interpreter, &shown.to_string());
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if head.starts_with(ELF) => (
            format!("{shown} needs a loader that this system lacks"),
            Some("it was built for another system (another C library or processor): build it here, or link it statically".to_owned()),
        ),
        Some(Errno::EACCES) => (
            format!("{shown} is executable but may not be run here"),
            Some("its file system may be mounted `noexec` (`findmnt -T PATH`), or you may not enter a folder above it".to_owned()),
        ),
        Some(Errno::ENOEXEC) => (
            format!("{shown} is neither a program for this machine nor a script that begins with `#!`"),
            Some(UNKNOWN_FORMAT.to_owned()),
        ),
        _ => (error.to_string(), None),
    }
}

const ELF: &[u8] = b"\x7fELF";
const NOT_FOUND: &str = "programs are searched for in PATH, relative to an empty folder: name a file of your own under `files` and write `{files.NAME}`";
const UNKNOWN_FORMAT: &str =
    "name its interpreter (`run: [python3, ...]`), or begin it with `#!/usr/bin/env python3`";

fn not_found(program: &OsStr, command: &Command) -> (String, Option<String>) {
    if program.is_empty() {
        return ("its name is empty".to_owned(), None);
    }
    let path = path_variable(command);
    let why = match &path {
        Some(path) => format!("it is in none of the folders in PATH ({})", path.display()),
        None => format!("PATH is not passed through, and it is not in {DEFAULT_PATH}"),
    };
    let cure = match path {
        Some(_) => NOT_FOUND.to_owned(),
        None => format!("write `pass_through: [PATH]`; {NOT_FOUND}"),
    };
    (why, Some(cure))
}

fn interpreter_cause(interpreter: &str, script: &str) -> (String, Option<String>) {
    let names = format!(
        "the first line of {script} names the interpreter `{}`",
        interpreter.escape_debug()
    );
    if let Some(name) = interpreter.strip_suffix('\r') {
        return (
            format!("{names}, followed by a Windows line end"),
            Some(format!(
                "save it with Unix line ends (`sed -i 's/\\r$//'`): then `{name}` is found"
            )),
        );
    }
    let path = Path::new(interpreter);
    let why = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => "which is not there",
        Err(_) => "which cannot be read",
        Ok(m) if m.is_dir() => "which is a folder",
        Ok(m) if m.permissions().mode() & 0o111 == 0 => "which is not executable",
        Ok(_) if path.is_relative() => "which is not found from an empty folder",
        Ok(_) => "which does not start",
    };
    (
        format!("{names}, {why}"),
        Some("install it, write the right path after `#!` (`#!/usr/bin/env NAME` searches PATH), or name it in `run`".to_owned()),
    )
}

/// The file that a command runs, found as the system would; none if PATH has no such file.
fn locate(command: &Command) -> Option<PathBuf> {
    let program = command.get_program();
    if program.as_encoded_bytes().contains(&b'/') {
        let folder = command.get_current_dir().unwrap_or(Path::new(""));
        return Some(folder.join(program));
    }
    let path = path_variable(command).unwrap_or_else(|| DEFAULT_PATH.into());
    let here = command.get_current_dir().unwrap_or(Path::new(""));
    let found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| here.join(folder).join(program))
        .filter(|file| file.is_file())
        .collect();
    let runs = |file: &&PathBuf| {
        std::fs::metadata(file).is_ok_and(|m| m.permissions().mode() & 0o111 != 0)
    };
    found.iter().find(runs).or(found.first()).cloned()
}

/// The PATH that the program sees.
fn path_variable(command: &Command) -> Option<std::ffi::OsString> {
    let mut set = command.get_envs();
    set.find(|(name, _)| *name == "PATH")
        .and_then(|(_, value)| value.map(OsStr::to_owned))
}

/// The first bytes of a file.
fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    let _ = std::fs::File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    head
}

/// The interpreter named after `#!`, without its argument.
fn interpreter(head: &[u8]) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(head.strip_prefix(b"#!")?)
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8_lossy(&line);
    let line = line.trim_matches(|c| matches!(c, ' ' | '\t' | '\n'));
    let name = line.split([' ', '\t']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// A hint for a file that failed because it is not a program: the C library passes files that
/// the system cannot run to `sh`, whose error message explains nothing.
pub(super) fn hint_after_exit(command: &Command, exit: &Exit) -> Option<String> {
    if exit.ok() || exit.signal.is_some() {
        return None;
    }
    let path = locate(command)?;
    let head = head(&path);
    let own = head_of_this_program();
    let foreign = head.starts_with(ELF) && !own.is_empty() && machine(&head) != machine(&own);
    if head.starts_with(b"#!") || head.starts_with(ELF) && !foreign {
        return None;
    }
    let what = if foreign {
        "is a program for another machine"
    } else {
        "does not begin with `#!`"
    };
    Some(format!(
        "{} {what}, so it was run as a script of sh: {UNKNOWN_FORMAT}",
        path.display()
    ))
}

fn head_of_this_program() -> Vec<u8> {
    head(Path::new("/proc/self/exe"))
}

/// Class, byte order and machine from an ELF header.
fn machine(head: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((head.get(4..6)?, head.get(18..20)?))
}

/// Which argument or variable is too large for the system, or that all together are.
fn too_large(command: &Command, params: &Params) -> (String, Option<String>) {
    let mut sizes = sizes(command, params);
    sizes.sort_by_key(|(_, bytes, _)| std::cmp::Reverse(*bytes));
    let total: usize = sizes
        .iter()
        .map(|(_, bytes, _)| bytes + 1 + size_of::<usize>())
        .sum();
    let Some((largest, bytes, cure)) = sizes.into_iter().next() else {
        return ("its arguments are too large".to_owned(), None);
    };
    // As the kernel counts: 32 pages for one, and the byte that ends it.
    let page = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    let one = usize::try_from(page).unwrap_or(4096) * 32 - 1;
    if bytes > one {
        return (
            format!(
                "{largest} has {bytes} bytes, and the system takes at most {one} in one argument or variable"
            ),
            Some(cure),
        );
    }
    let all = match getrlimit(Resource::RLIMIT_STACK) {
        Ok((soft, _)) => (soft / 4).clamp(128 << 10, 6 << 20),
        Err(_) => 2 << 20,
    };
    (
        format!(
            "its arguments and variables have {total} bytes together, and the system takes at most {all}; \
             the largest is {largest} with {bytes}"
        ),
        Some(format!(
            "{cure}; or raise the limit, a quarter of `ulimit -s`"
        )),
    )
}

/// Each argument and variable of a command: its name in the pipeline file, its size, and
/// what to do if it is too large.
fn sizes(command: &Command, params: &Params) -> Vec<(String, usize, String)> {
    let is_shell = params.shell;
    let argument = |(at, argument): (usize, &OsStr)| {
        // A script stands behind `sh -euc`.
        let index = if is_shell { at.saturating_sub(2) } else { at };
        let cure = if is_shell || at == 0 {
            "put the script into a file, name that under `files`, and run it: `run: [sh, -eu, \"{files.NAME}\"]`"
        } else {
            "put its value into a file, name that under `files`, and pass `{files.NAME}`"
        };
        (format!("`run[{index}]`"), argument.len(), cure.to_owned())
    };
    let lists = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
    let variable = |(name, value): (&OsStr, Option<&OsStr>)| {
        let shown = name.to_string_lossy();
        let bytes = name.len() + 1 + value.map_or(0, OsStr::len);
        let (of, cure) = if params.env.contains_key(&*shown) {
            (
                "env",
                "put its value into a file, name that under `files`, and pass its path: `{files.NAME}`",
            )
        } else if lists(&params.inherit, &shown) {
            (
                "inherit",
                "remove it from `inherit`; pass the content of a file under `files`",
            )
        } else if lists(&params.pass_through, &shown) {
            (
                "pass_through",
                "remove it from `pass_through`, or make it smaller where `genius` is started",
            )
        } else {
            (
                "the environment",
                "make it smaller where `genius` is started",
            )
        };
        (
            format!("the variable `{shown}` (of {of})"),
            bytes,
            cure.to_owned(),
        )
    };
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .enumerate()
        .map(argument)
        .chain(command.get_envs().map(variable))
        .collect()
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
