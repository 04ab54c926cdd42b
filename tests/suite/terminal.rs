//! No escape sequence of a file, a tool or a name reaches a terminal, whichever
//! command prints it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use genius::text::is_hidden;
use tempfile::TempDir;

/// Clears the screen, moves the cursor, sets a title, turns the writing around.
const HOSTILE: &str = "a\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\rZ";
/// What a terminal must not get of it.
const OBEYED: [&str; 7] = [
    "\u{1b}[2J",
    "\u{1b}]0;",
    "\u{9b}",
    "\u{202e}",
    "\u{7f}",
    "\u{7}",
    "\rZ",
];

const PIPELINE: &str = r#"
version: 1
name: hostile
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl, field: q } } }
  made:
    uses: command
    with:
      run: ["printf 'x\\033]0;t\\007\\033[2J\\302\\2331m\\342\\200\\256\\177\\rZ\\n'; echo x > \"$OUT/f\""]
      shell: true
      env: { E: "\e[2J\u009b1m\u202e", OUT: "{outputs.o}" }
      outputs: { o: {} }
  broken:
    uses: command
    needs: { data: made }
    with:
      run: ["printf 'x\\033]0;t\\007\\033[2J\\302\\2331m\\342\\200\\256\\177\\rZ\\n' >&2; exit 3"]
      shell: true
      outputs: { o: {} }
"#;

/// A folder with a hostile name, in which a pipeline has run.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        let folder = place.folder();
        std::fs::create_dir(&folder).expect("a folder of that name");
        std::fs::write(folder.join("p.yaml"), PIPELINE).expect("a file");
        std::fs::write(
            folder.join("bad.yaml"),
            format!("version: {HOSTILE:?}\n{HOSTILE}: 1\n"),
        )
        .expect("a file");
        std::fs::write(folder.join("q.jsonl"), "{\"q\":\"one\"}\n").expect("a file");
        let ran = place
            .genius(&["run", "p.yaml", "--allow-commands", "-k"])
            .output()
            .expect("genius starts");
        assert_eq!(
            ran.status.code(),
            Some(1),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        place
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(HOSTILE)
    }

    fn genius(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genius"));
        command
            .args(args)
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .env("GENIUS_HOME", self.dir.path().join("home"))
            .env("TERM", "xterm-256color");
        for name in ["GENIUS_CACHE", "GENIUS_WORKER", "NO_COLOR", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    /// The key of the stage that was made.
    fn key(&self) -> String {
        let listed = self
            .genius(&["cache", "ls", "--json"])
            .output()
            .expect("genius starts");
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        listed[0]["key"].as_str().expect("a key").to_owned()
    }

    /// All that a terminal gets.
    fn on_terminal(&self, args: &[&str]) -> String {
        let (mut leader, follower) = terminal();
        let mut command = self.genius(args);
        command
            .stdout(follower.try_clone().expect("a descriptor"))
            .stderr(follower);
        let mut child = command.spawn().expect("genius starts");
        // Else the terminal stays open here.
        drop(command);
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        // Ends with an error when nobody holds the other side any more.
        while let Ok(n @ 1..) = leader.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..n]);
        }
        child.wait().expect("an end");
        String::from_utf8(bytes).expect("UTF-8")
    }
}

/// Both sides of a pseudo-terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut leader, mut follower) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: the two descriptors are written to living places; null asks for nothing else.
    let failed = unsafe {
        libc::openpty(
            &raw mut leader,
            &raw mut follower,
            none,
            none.cast(),
            none.cast(),
        )
    };
    assert_eq!(failed, 0, "a pseudo-terminal");
    // SAFETY: both were just opened and are nobody else's.
    unsafe { (File::from_raw_fd(leader), OwnedFd::from_raw_fd(follower)) }
}

/// Words of command lines, for every subcommand; `KEY` is a key.
const LINES: &[&[&str]] = &[
    &["run", "p.yaml", "--allow-commands", "-k"],
    &["run", "p.yaml", "--allow-commands", "-k", "--json"],
    &["run", "p.yaml"],
    &["run", "bad.yaml"],
    &["run", "nothing\u{1b}[2J.yaml"],
    &[
        "run",
        "p.yaml",
        "--set",
        "stages.made.with.env.E=\u{1b}[2J\u{202e}",
        "--dry-run",
    ],
    &["plan", "p.yaml"],
    &[
        "plan",
        "p.yaml",
        "--set",
        "stages.made.with.env.E=\u{1b}[2J\u{202e}\u{9b}",
    ],
    &["plan", "p.yaml", "--json"],
    &["plan", "p.yaml", "--set", "stages.\u{1b}[2J=1"],
    &[
        "explain",
        "p.yaml",
        "made",
        "--set",
        "stages.made.with.env.E=\u{1b}[2J\u{9b}",
    ],
    &[
        "explain",
        "p.yaml",
        "made",
        "--set",
        "stages.made.with.env.E=\u{9b}",
        "--json",
    ],
    &["explain", "p.yaml", "\u{1b}[2J"],
    &["diff", "KEY", "KEY"],
    &["diff", "\u{1b}[2J", "KEY"],
    &["graph", "p.yaml"],
    &["graph", "p.yaml", "--format", "mermaid"],
    &["graph", "p.yaml", "--format", "dot"],
    &["validate", "p.yaml"],
    &["validate", "bad.yaml"],
    &["validate", "bad.yaml", "--json"],
    &["runs"],
    &["runs", "--json"],
    &["runs", "--pipeline", "\u{1b}[2J"],
    &["status"],
    &["status", "-f"],
    &["status", "--json"],
    &["status", "\u{1b}[2J"],
    &["logs", "latest", "made"],
    &["logs", "latest", "broken"],
    &["logs", "latest", "broken", "-n", "1"],
    &["logs", "latest", "\u{1b}[2J"],
    &["out", "p.yaml", "made"],
    &["out", "p.yaml", "made", "--json"],
    &["out", "p.yaml", "\u{1b}[2J"],
    &["out", "p.yaml", "made", "--copy", "copy\u{1b}[2J"],
    &["show", "p.yaml"],
    &["show", "p.yaml", "\u{1b}[2J"],
    &["cache", "ls"],
    &["cache", "ls", "--json"],
    &["cache", "ls", "--kind", "\u{1b}[2J"],
    &["cache", "du"],
    &["cache", "du", "--cache", "none\u{1b}[2J"],
    &["cache", "gc", "--dry-run"],
    &["cache", "gc", "--dry-run", "--max-size", "1MB"],
    &["cache", "verify"],
    &["cache", "verify", "--json"],
    &["trust", "p.yaml"],
    &["trust", "p.yaml", "--json"],
    &["trust", "--list"],
    &["trust", "--list", "--json"],
    &["run", "p.yaml", "-k"],
    &["trust", "p.yaml", "--revoke"],
    &["init", "p.yaml"],
    &["init", "new\u{1b}[2J.yaml"],
    &["schema"],
    &["completions", "bash"],
    &["help"],
    &["\u{1b}[2J\u{202e}"],
    &["run", "--\u{9b}2J"],
    &["runs", "-n", "\u{1b}[2J"],
];

/// Commands whose stdout is for scripts: in a pipe it is as it is.
const RAW_IN_PIPES: [&str; 3] = ["logs", "out", "completions"];

#[test]
fn no_subcommand_lets_an_escape_sequence_through() {
    let place = Place::new();
    let help = place.genius(&["--help"]).output().expect("genius starts");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let commands = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next());
    let mut seen = 0;
    for command in commands {
        seen += 1;
        let tried = LINES.iter().any(|line| line[0] == command);
        assert!(tried, "`genius {command}` prints: try it here");
    }
    assert!(seen > 10, "{help}");
    let key = place.key();
    for line in LINES {
        let args: Vec<&str> = line
            .iter()
            .map(|word| if *word == "KEY" { key.as_str() } else { word })
            .collect();
        let piped = place.genius(&args).output().expect("genius starts");
        let stderr = String::from_utf8(piped.stderr).expect("UTF-8");
        assert!(!stderr.contains(is_hidden), "{args:?}: {stderr:?}");
        if !RAW_IN_PIPES.contains(&line[0]) || line.contains(&"--json") {
            let stdout = String::from_utf8(piped.stdout).expect("UTF-8");
            assert!(!stdout.contains(is_hidden), "{args:?}: {stdout:?}");
            if line.contains(&"--json") && !stdout.is_empty() {
                let json: Result<serde_json::Value, _> = serde_json::from_str(&stdout);
                assert!(json.is_ok(), "{args:?}: {stdout}");
            }
        }
        let shown = place.on_terminal(&args);
        for obeyed in OBEYED {
            assert!(!shown.contains(obeyed), "{args:?}: {obeyed:?} in {shown:?}");
        }
    }
}

#[test]
fn a_log_in_a_pipe_is_as_it_was_written() {
    let place = Place::new();
    let bytes = b"x\x1b]0;t\x07\x1b[2J\xc2\x9b1m\xe2\x80\xae\x7f\rZ\n";
    let piped = place
        .genius(&["logs", "latest", "made"])
        .output()
        .expect("genius starts");
    assert_eq!(piped.stdout, bytes);
    let shown = place.on_terminal(&["logs", "latest", "made"]);
    assert_eq!(
        shown,
        "x\\u{1b}]0;t\\u{7}\\u{1b}[2J\\u{9b}1m\\u{202e}\\u{7f}\\rZ\r\n"
    );
    // A path for a script.
    let piped = place
        .genius(&["out", "p.yaml", "made"])
        .output()
        .expect("genius starts");
    let path = String::from_utf8(piped.stdout).expect("UTF-8");
    assert!(
        std::path::Path::new(path.trim_end_matches('\n')).is_dir(),
        "{path:?}"
    );
}

#[test]
fn own_colours_and_live_lines_still_work() {
    let place = Place::new();
    let shown = place.on_terminal(&["run", "p.yaml", "--allow-commands", "-k", "--force", "made"]);
    assert!(shown.contains("\u{1b}[32mdone\u{1b}[0m"), "{shown:?}");
    assert!(shown.contains("\u{1b}[31mfailed\u{1b}[0m"), "{shown:?}");
    let shown = place.on_terminal(&["validate", "bad.yaml"]);
    assert!(shown.contains("\u{1b}[1;31merror\u{1b}[0m"), "{shown:?}");
}
