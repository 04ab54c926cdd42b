//! Starting a program, and why one does not start: the system gives a number, which
//! says neither what was missing nor what was too large.

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

/// How often a program is started that another process still writes: one that was
/// just laid out, while a process that is being started has its files open.
const TRIES_WHILE_BUSY: usize = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(25);
/// Where programs are looked for if there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Bytes of a file that say what it is.
const HEAD: u64 = 256;

/// Starts it.
///
/// # Errors
/// What the system says, for [`explain`].
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

/// What was in the way, and what to do about it.
pub(super) fn cause(error: &io::Error, command: &Command) -> (String, Option<String>) {
    let with = |why: &str, cure: &str| (why.to_owned(), Some(cure.to_owned()));
    if let Some(folder) = command.get_current_dir()
        && !folder.is_dir()
    {
        return (
            format!(
                "the folder in which it starts is gone: {}",
                folder.display()
            ),
            Some("something removed it from the cache meanwhile; run again".to_owned()),
        );
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => with(
            "this user or container has as many processes as it may have",
            "end some, run fewer stages side by side (`--jobs`), or raise `ulimit -u`",
        ),
        Some(Errno::ENOMEM) => with(
            "there is no memory for another process",
            "run fewer stages side by side (`--jobs`)",
        ),
        Some(Errno::EMFILE | Errno::ENFILE) => with(
            "too many files are open",
            "run fewer stages side by side (`--jobs`), or raise `ulimit -n`",
        ),
        Some(Errno::ETXTBSY) => with(
            "something still writes to it",
            "wait for what writes it, then run again",
        ),
        Some(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EACCES
            | Errno::ELOOP
            | Errno::ENOEXEC
            | Errno::EISDIR
            | Errno::ENAMETOOLONG,
        ) => of_the_file(error, command),
        _ => (error.to_string(), None),
    }
}

/// Something is wrong with the file that is to run.
fn of_the_file(error: &io::Error, command: &Command) -> (String, Option<String>) {
    let program = command.get_program();
    let Some(path) = locate(command) else {
        return not_found(program, command);
    };
    let shown = path.display();
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let why = match std::fs::symlink_metadata(&path) {
                Ok(_) => format!("{shown} is a link to something that is not there"),
                Err(_) => format!("{shown} does not exist"),
            };
            return (why, Some(NOT_FOUND.to_owned()));
        }
        Err(e) => return (format!("{shown} cannot be looked at: {e}"), None),
    };
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "folder"
        } else {
            "special file"
        };
        return (
            format!("{shown} is a {what}, not a program"),
            Some("name the file in it that is to run".to_owned()),
        );
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return (
            format!("{shown} is not executable"),
            Some(format!(
                "`chmod +x` it (in an input: in the stage that makes it), or name what runs it: `run: [sh, {}]`",
                program.display()
            )),
        );
    }
    let head = head(&path);
    if let Some(interpreter) = interpreter(&head) {
        return of_the_interpreter(&interpreter, &shown.to_string());
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if head.starts_with(ELF) => (
            format!("{shown} needs a loader that this system does not have"),
            Some("it was built for another system (another C library or processor): build it here, or link it statically".to_owned()),
        ),
        Some(Errno::EACCES) => (
            format!("{shown} may not be run here, though it is executable"),
            Some("its file system may be mounted `noexec` (`findmnt -T PATH`), or a folder above it may not be entered".to_owned()),
        ),
        Some(Errno::ENOEXEC) => (
            format!("{shown} is neither a program of this machine nor a script that begins with `#!`"),
            Some(UNKNOWN_FORMAT.to_owned()),
        ),
        _ => (error.to_string(), None),
    }
}

const ELF: &[u8] = b"\x7fELF";
const NOT_FOUND: &str = "a program is looked for in PATH, relative to an empty folder: name a file of your own under `files` and write `{files.NAME}`";
const UNKNOWN_FORMAT: &str =
    "name what runs it (`run: [python3, ...]`), or begin it with `#!/usr/bin/env python3`";

fn not_found(program: &OsStr, command: &Command) -> (String, Option<String>) {
    if program.is_empty() {
        return ("its name is empty".to_owned(), None);
    }
    let path = path_of(command);
    let why = match &path {
        Some(path) => format!("it is in no folder of PATH ({})", path.display()),
        None => format!("PATH is not passed on to it, and it is not in {DEFAULT_PATH}"),
    };
    let cure = match path {
        Some(_) => NOT_FOUND.to_owned(),
        None => format!("write `pass_through: [PATH]`; {NOT_FOUND}"),
    };
    (why, Some(cure))
}

fn of_the_interpreter(interpreter: &str, script: &str) -> (String, Option<String>) {
    let names = format!(
        "the first line of {script} names the interpreter `{}`",
        interpreter.escape_debug()
    );
    if let Some(name) = interpreter.strip_suffix('\r') {
        return (
            format!("{names}, with the line end of Windows behind it"),
            Some(format!(
                "save it with Unix line ends (`sed -i 's/\\r$//'`): then `{name}` is found"
            )),
        );
    }
    let path = Path::new(interpreter);
    let why = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => "which is not there",
        Err(_) => "which cannot be looked at",
        Ok(m) if m.is_dir() => "which is a folder",
        Ok(m) if m.permissions().mode() & 0o111 == 0 => "which is not executable",
        Ok(_) if path.is_relative() => "which is not found from an empty folder",
        Ok(_) => "which does not start",
    };
    (
        format!("{names}, {why}"),
        Some("install it, write the right path after `#!` (`#!/usr/bin/env NAME` looks in PATH), or name it in `run`".to_owned()),
    )
}

/// The file that a command runs, as the system would find it; none if it is in no folder
/// of PATH.
fn locate(command: &Command) -> Option<PathBuf> {
    let program = command.get_program();
    if program.as_encoded_bytes().contains(&b'/') {
        let folder = command.get_current_dir().unwrap_or(Path::new(""));
        return Some(folder.join(program));
    }
    let path = path_of(command).unwrap_or_else(|| DEFAULT_PATH.into());
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
fn path_of(command: &Command) -> Option<std::ffi::OsString> {
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

/// What stands behind `#!`, without the interpreter's argument.
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

/// What more there is to say of a program that ended badly: the C library hands what the
/// system cannot run to `sh`, whose complaint explains nothing.
pub(super) fn cure_of_end(command: &Command, exit: &Exit) -> Option<String> {
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
        "is a program of another machine"
    } else {
        "does not begin with `#!`"
    };
    Some(format!(
        "{} {what}, so that it was run as a script of sh: {UNKNOWN_FORMAT}",
        path.display()
    ))
}

fn head_of_this_program() -> Vec<u8> {
    head(Path::new("/proc/self/exe"))
}

/// Class, byte order and machine of an ELF header.
fn machine(head: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((head.get(4..6)?, head.get(18..20)?))
}

/// Which argument or variable is too large for the system, or all of them together.
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

/// Each argument and variable of a command: how a pipeline file calls it, its size, and
/// what to do if it is too large.
fn sizes(command: &Command, params: &Params) -> Vec<(String, usize, String)> {
    let is_shell = params.shell;
    let argument = |(at, argument): (usize, &OsStr)| {
        // A script stands behind `sh -euc`.
        let index = if is_shell { at.saturating_sub(2) } else { at };
        let cure = if is_shell || at == 0 {
            "put the script into a file, name that under `files`, and run it: `run: [sh, -eu, \"{files.NAME}\"]`"
        } else {
            "put what it holds into a file, name that under `files`, and pass `{files.NAME}`"
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
                "put what it holds into a file, name that under `files`, and pass its path: `{files.NAME}`",
            )
        } else if lists(&params.inherit, &shown) {
            (
                "inherit",
                "take it out of `inherit`; what a file holds is passed under `files`",
            )
        } else if lists(&params.pass_through, &shown) {
            (
                "pass_through",
                "take it out of `pass_through`, or make it smaller where `genius` is started",
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
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What starting a file with that content and mode says.
    fn said(content: &str, mode: u32) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        of(&mut Command::new(&file), dir.path(), json!({}))
    }

    fn of(command: &mut Command, dir: &Path, more: Value) -> (String, String) {
        let mut with = json!({
            "run": ["a"], "shell": false, "files": {}, "outputs": {}, "env": {},
            "inherit": [], "pass_through": [],
        });
        for (name, value) in more.as_object().unwrap() {
            with[name] = value.clone();
        }
        let params: Params = serde_json::from_value(with).unwrap();
        let error = command.current_dir(dir).spawn().unwrap_err();
        let failure = explain(&error, command, &params);
        let clean = |text: String| text.replace(&dir.display().to_string(), "DIR");
        (
            clean(failure.message),
            clean(failure.hint.unwrap_or_default()),
        )
    }

    #[track_caller]
    fn has(said: (String, String), why: &str, cure: &str) {
        assert!(said.0.contains(why), "{why} in {}", said.0);
        assert!(said.1.contains(cure), "{cure} in {}", said.1);
    }

    #[test]
    fn a_file_that_cannot_run_says_why() {
        has(
            said("#!/bin/sh\n", 0o644),
            "DIR/tool is not executable",
            "chmod +x",
        );
        has(
            said("#!/no/such/thing -x\n", 0o755),
            "names the interpreter `/no/such/thing`, which is not there",
            "install it",
        );
        has(
            said("#!/bin/sh\r\nexit\r\n", 0o755),
            "the line end of Windows",
            "then `/bin/sh` is found",
        );
        has(
            said("#!/etc/passwd\n", 0o755),
            "which is not executable",
            "in `run`",
        );
        has(
            said("#! /etc\n", 0o755),
            "`/etc`, which is a folder",
            "install it",
        );
    }

    #[test]
    fn a_program_that_is_not_there_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |path: &str| {
            let mut command = Command::new("no-such-program");
            command.env_clear();
            if !path.is_empty() {
                command.env("PATH", path);
            }
            command
        };
        has(
            of(&mut path("/x:/y"), dir.path(), json!({})),
            "in no folder of PATH (/x:/y)",
            "`{files.NAME}`",
        );
        has(
            of(&mut path(""), dir.path(), json!({})),
            "PATH is not passed on",
            "pass_through: [PATH]",
        );
        has(
            of(&mut Command::new("./tool"), dir.path(), json!({})),
            "DIR/./tool does not exist",
            "`{files.NAME}`",
        );
        has(
            of(&mut Command::new("/etc/passwd/x"), dir.path(), json!({})),
            "/etc/passwd/x cannot be looked at",
            "",
        );
        has(
            of(&mut Command::new("/etc"), dir.path(), json!({})),
            "/etc is a folder",
            "name the file",
        );
        std::os::unix::fs::symlink("gone", dir.path().join("link")).unwrap();
        has(
            of(&mut Command::new("./link"), dir.path(), json!({})),
            "is a link to something",
            "",
        );
        let gone = dir.path().join("gone");
        has(
            of(&mut Command::new("true"), &gone, json!({})),
            "the folder in which it starts is gone",
            "run again",
        );
    }

    #[test]
    fn what_is_too_large_is_named_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let large = "x".repeat(200_000);
        let mut script = Command::new("sh");
        script.arg("-euc").arg(&large);
        has(
            of(&mut script, dir.path(), json!({ "shell": true })),
            "`run[0]` has 200000 bytes",
            "`run: [sh, -eu, \"{files.NAME}\"]`",
        );
        let mut argument = Command::new("true");
        argument.args(["a", &large]);
        has(
            of(&mut argument, dir.path(), json!({})),
            "`run[2]` has 200000 bytes, and the system takes at most 131071",
            "pass `{files.NAME}`",
        );
        for (list, params) in [
            ("env", json!({ "env": { "BIG": "" } })),
            ("inherit", json!({ "inherit": ["BIG"] })),
            ("pass_through", json!({ "pass_through": ["BIG"] })),
        ] {
            let mut variable = Command::new("true");
            variable.env("BIG", &large);
            let why = format!("the variable `BIG` (of {list}) has 200004 bytes");
            has(of(&mut variable, dir.path(), params), &why, "");
        }
        // None of them alone.
        let mut many = Command::new("true");
        many.args(vec!["y".repeat(100_000); 90])
            .arg("z".repeat(120_000));
        has(
            of(&mut many, dir.path(), json!({})),
            "the largest is `run[91]` with 120000",
            "ulimit -s",
        );
    }

    #[test]
    fn what_sh_was_given_is_said_to_be_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        let failed = Exit {
            code: Some(2),
            signal: None,
        };
        let cure = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            cure_of_end(&Command::new(&file), &failed).unwrap_or_default()
        };
        assert!(cure(b"import sys\n").contains("does not begin with `#!`"));
        assert_eq!(cure(b"#!/bin/sh\nexit 2\n"), "");
        let mut own = head_of_this_program();
        assert_eq!(cure(&own), "");
        own[18] ^= 0xff;
        assert!(cure(&own).contains("is a program of another machine"));
    }
}
