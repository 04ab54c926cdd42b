//! Placeholders in code: which arguments of a command a shell or an interpreter
//! reads as a program of its own, and which paths mean nothing there.
//!
//! A program gets its arguments as they are, so that a path may hold anything. In
//! the text of a script it may not: a blank takes it apart, `$(...)` runs. How it
//! would have to be quoted depends on where it stands, and on every script within
//! the script (`ssh host '...'`, `eval`), which only the shell itself knows. So a
//! path goes into code as it is if it is plain, and is refused otherwise.

use std::path::Path;

use super::command::{Piece, pieces};

/// What code is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The language of a shell.
    Shell,
    /// Another one.
    Language,
}

/// Where a program takes code from.
#[derive(Clone, Copy)]
enum Reader {
    /// From the argument after an option.
    Option {
        /// Letters of that option.
        code: &'static str,
        /// Letters of options that take the rest of their argument.
        rest: &'static str,
        /// Whether what follows the code are arguments of it.
        ends: bool,
    },
    /// From whatever argument is not a path.
    Text,
    /// From all of its arguments.
    All,
}

/// Options that take code, of any of them.
const LONG_OPTIONS: [&str; 8] = [
    "--command",
    "--eval",
    "--exec",
    "--execute",
    "--expression",
    "--print",
    "--run",
    "--split-string",
];

/// How a program of that name reads code, if it does.
fn reader(word: &str) -> Option<Reader> {
    let name = word.rsplit('/').next().unwrap_or_default();
    // python3.12, lua5.4
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    let option = |code, rest, ends| Some(Reader::Option { code, rest, ends });
    match name {
        "sh" | "bash" | "rbash" | "dash" | "zsh" | "ksh" | "mksh" | "oksh" | "yash" | "ash"
        | "fish" | "csh" | "tcsh" | "elvish" | "nu" | "pwsh" | "su" | "runuser" | "script"
        | "flock" => option("c", "", true),
        "python" | "pypy" | "ipython" => option("c", "mWX", true),
        "perl" => option("eE", "CDFIMVimx", false),
        "ruby" | "jruby" => option("e", "CEFIKTWrx", false),
        "node" | "nodejs" | "bun" | "deno" => option("ep", "rC", false),
        "lua" | "luajit" | "texlua" => option("e", "l", false),
        "php" => option("rBRE", "cdfSt", false),
        "R" | "Rscript" | "julia" | "osascript" | "ghc" | "scala" | "groovy" | "elixir" => {
            option("eE", "", false)
        }
        "psql" | "duckdb" => option("c", "dfhopU", false),
        "mysql" | "mariadb" => option("e", "DhPpu", false),
        "env" => option("S", "uC", true),
        "nix-shell" | "nix" => option("", "", false),
        "awk" | "gawk" | "mawk" | "nawk" | "sed" | "gsed" | "jq" | "yq" | "gojq" | "sqlite"
        | "sbatch" | "tclsh" | "expect" | "octave" | "vim" | "ed" | "ex" | "xq" => {
            Some(Reader::Text)
        }
        "ssh" | "mosh" | "pdsh" | "rsh" | "parallel" | "watch" | "make" | "gmake" | "tmux"
        | "screen" | "just" => Some(Reader::All),
        _ => None,
    }
}

/// What the argument at `index` of `run` is read as, if it is read as code.
pub fn code_at(run: &[String], shell: bool, index: usize) -> Option<Code> {
    if shell {
        return Some(Code::Shell);
    }
    let mut current = None;
    let mut code = Code::Shell;
    let mut expected = false;
    for (at, word) in run.iter().enumerate().take(index + 1) {
        // Other options may come between `-c` and the script of a shell.
        let is_option = code == Code::Shell && (word.starts_with('-') || word.starts_with('+'));
        if expected && !is_option {
            if at == index {
                return Some(code);
            }
            expected = false;
            if matches!(current, Some(Reader::Option { ends: true, .. })) {
                current = None;
            }
            continue;
        }
        let takes_code = match current {
            Some(Reader::Option { code, rest, .. }) => option(word, code, rest),
            _ => false,
        };
        if at == index {
            let is_code = match current {
                None => false,
                // Code in one argument with its option: `-cprint(1)`, `--eval=1`.
                Some(Reader::Option { .. }) => takes_code,
                Some(Reader::Text) => !is_framed_by_a_path(word),
                Some(Reader::All) => true,
            };
            return is_code.then_some(code);
        }
        if let Some(reader) = reader(word) {
            current = Some(reader);
            code = match reader {
                Reader::Option {
                    code: "c" | "S",
                    rest: "" | "uC",
                    ..
                }
                | Reader::All => Code::Shell,
                _ => Code::Language,
            };
            expected = false;
        } else if takes_code {
            // Of `--eval=1` nothing more is to come.
            expected = !word.contains('=');
        }
    }
    None
}

/// Whether a word is an option that takes code: `-c`, `-euc`, `--eval`.
fn option(word: &str, code: &str, rest: &str) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        return LONG_OPTIONS.iter().any(|known| known[2..] == *name);
    }
    let Some(letters) = word.strip_prefix('-') else {
        return false;
    };
    letters
        .chars()
        .take_while(|letter| !rest.contains(*letter))
        .any(|letter| code.contains(letter))
}

/// Whether around its placeholders an argument has nothing but what paths have.
fn is_framed_by_a_path(argument: &str) -> bool {
    pieces(argument).iter().all(|piece| match piece {
        Piece::Text(text) => text.chars().all(|sign| is_plain(sign, Code::Language)),
        _ => true,
    })
}

/// Whether shells and languages take it literally, in any quotes.
fn is_plain(sign: char, code: Code) -> bool {
    sign.is_alphanumeric()
        || matches!(sign, '_' | '+' | '=' | ':' | ',' | '.' | '/' | '-' | '%')
        // An array in a text of Perl.
        || sign == '@' && code == Code::Shell
}

/// The first character of a path that would mean something in code.
pub fn sign_in(path: &Path, code: Code) -> Option<char> {
    let Some(text) = path.to_str() else {
        // Not UTF-8.
        return Some(char::REPLACEMENT_CHARACTER);
    };
    text.chars().find(|sign| !is_plain(*sign, code))
}

/// The error that a path cannot be put into code.
pub fn refusal(placeholder: &str, index: usize, path: &Path, sign: char) -> String {
    let sign = match sign {
        ' ' => "a blank".to_owned(),
        '\n' => "a line break".to_owned(),
        '`' => "a backquote".to_owned(),
        char::REPLACEMENT_CHARACTER => "a byte that is not UTF-8".to_owned(),
        sign if sign.is_control() || sign.is_whitespace() => {
            format!("the character {}", sign.escape_unicode())
        }
        sign => format!("`{sign}`"),
    };
    format!(
        "`{placeholder}` is in code (`run[{index}]`), and its path has {sign} in it, \
         which code would take for something else: {}",
        path.display().to_string().escape_debug()
    )
}

/// The hint for that error; `name` is that of the placeholder.
pub fn cure(placeholder: &str, name: &str) -> String {
    let variable: String = name
        .chars()
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_uppercase()
            }
        })
        .collect();
    format!(
        "pass it beside the code: `env: {{ {variable}: \"{placeholder}\" }}`, and in the script \
         `\"${variable}\"`; or as an argument: `run: [sh, -euc, 'cat \"$1\"', sh, \"{placeholder}\"]`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the first word with a placeholder of a file is code.
    fn is_code_at(words: &[&str]) -> bool {
        let index = words
            .iter()
            .position(|word| word.contains("{files."))
            .unwrap();
        let run: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        code_at(&run, false, index).is_some()
    }

    #[test]
    fn scripts_of_known_interpreters_are_code() {
        for words in [
            &["sh", "-c", "cat {files.f}"][..],
            &["sh", "-c", "{files.f}"],
            &["/bin/sh", "-ec", "cat '{files.f}'"],
            &["bash", "-lc", "cat {files.f}"],
            &["bash", "-euo", "pipefail", "-c", "cat \"{files.f}\""],
            &["bash", "-c", "-e", "cat {files.f}"],
            &["bash", "+x", "-c", "--", "cat {files.f}"],
            &["env", "-i", "bash", "-c", "cat {files.f}"],
            &["env", "-S", "cat {files.f}"],
            &["nice", "-n", "5", "zsh", "-c", "cat {files.f}"],
            &["busybox", "sh", "-c", "cat {files.f}"],
            &["sh", "-c", "ssh x 'cat {files.f}'"],
            &["docker", "run", "img", "sh", "-c", "cat {files.f}"],
            &["find", ".", "-exec", "sh", "-c", "cat {files.f}", ";"],
            &["python3", "-c", "open('{files.f}')"],
            &["python3.12", "-Ic", "open('{files.f}')"],
            &["python", "-copen('{files.f}')"],
            &["python", "-c", "-1; open('{files.f}')"],
            &["{inputs.env}/bin/python", "-c", "open('{files.f}')"],
            &["perl", "-lane", "print '{files.f}'"],
            &["perl", "-e", "1", "-e", "print '{files.f}'"],
            &["ruby", "-e", "puts '{files.f}'"],
            &["node", "--eval", "f('{files.f}')"],
            &["node", "--eval=f('{files.f}')"],
            &["awk", "{print FILENAME \"{files.f}\"}"],
            &["sed", "-e", "s|a|{files.f}|; p"],
            &["jq", ".a = \"{files.f}\""],
            &["ssh", "host", "cat", "{files.f}"],
            &["su", "me", "-c", "cat {files.f}"],
            &["make", "F={files.f}"],
            &["nix-shell", "--run", "cat {files.f}"],
        ] {
            assert!(is_code_at(words), "{words:?}");
        }
    }

    #[test]
    fn arguments_of_programs_are_not_code() {
        for words in [
            &["cat", "{files.f}"][..],
            &["{files.f}"],
            &["tool", "--title", "a text with {files.f}"],
            &["tool", "-c", "{files.f}"],
            &["sh", "{files.f}"],
            &["bash", "-eu", "{files.f}"],
            &["sh", "-c", "cat \"$1\"", "sh", "{files.f}"],
            &["sh", "-c", "cat \"$1\"", "sh", "see {files.f}"],
            &["python3", "{files.f}"],
            &["python3", "-W", "once", "{files.f}"],
            &["python3", "-m", "pkg", "{files.f}"],
            &["python3", "-c", "import sys", "{files.f}"],
            &["env", "A={files.f}", "tool"],
            &["awk", "{print}", "{files.f}"],
            &["sed", "-f", "{files.f}"],
            &["gcc", "-c", "{files.f}"],
            &["tar", "-czf", "x", "{files.f}"],
        ] {
            assert!(!is_code_at(words), "{words:?}");
        }
    }

    #[test]
    fn only_plain_paths_go_into_code() {
        for plain in [
            "/a/b-c_d.e",
            "/tmp/s-12-Ab/output/o",
            "/été/日本",
            "/a=b,c:d+e%f",
        ] {
            assert_eq!(sign_in(Path::new(plain), Code::Language), None, "{plain}");
        }
        for sign in " \t\n'\"`$\\*?[]{}()<>|&;!#~^@\u{a0}\u{3000}\u{202e}".chars() {
            let path = format!("/a/b{sign}c");
            assert_eq!(
                sign_in(Path::new(&path), Code::Language),
                Some(sign),
                "{sign:?}"
            );
        }
        use std::os::unix::ffi::OsStrExt;
        let odd = std::ffi::OsStr::from_bytes(b"/a/\xff");
        assert!(sign_in(Path::new(odd), Code::Shell).is_some());
        assert_eq!(sign_in(Path::new("/me@here"), Code::Shell), None);
    }
}
