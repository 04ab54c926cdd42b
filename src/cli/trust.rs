//! `genius trust`, and whether a pipeline's commands may run: [`is_trusted`],
//! [`refusal`].
//!
//! A trust is a file `<GENIUS_HOME>/trust/<hash of path and content>`: a changed
//! file is another file, and so is a copy elsewhere, which names other scripts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::environment::{Environment, command_line};
use super::{CliError, Terminal};
use crate::spec::{self, Pipeline, Stage};
use crate::stage::StageKind;

/// Let the `command` stages of a pipeline file run, as the file is now.
///
/// What they would run is shown first. A trust is this user's; when the file
/// changes, it has to be given again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pipeline file.
    #[arg(required_unless_present = "list")]
    pipeline: Option<PathBuf>,
    /// Take the trust back.
    #[arg(long)]
    revoke: bool,
    /// List what is trusted.
    #[arg(long, conflicts_with_all = ["pipeline", "revoke"])]
    list: bool,
    /// Print JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// What a trust holds.
#[derive(Debug, Serialize, Deserialize)]
struct Trust {
    /// The file, absolute, when the trust was given.
    path: PathBuf,
    /// What it held then.
    digest: String,
    /// When.
    when: Timestamp,
}

/// A pipeline that runs programs, and that nobody trusts.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} runs programs of its own in {}, and nobody said that it may",
    .path.display(), stages(.commands)
)]
pub struct Untrusted {
    /// The pipeline file.
    pub path: PathBuf,
    /// Names of its command stages.
    pub commands: Vec<String>,
}

impl Untrusted {
    /// Both ways to let it.
    pub fn hint(&self) -> String {
        format!(
            "`genius trust {}` shows them and lets this exact file run them from now on; \
             `genius run --allow-commands` lets one run",
            command_line([self.path.as_os_str().to_owned()].into_iter())
        )
    }
}

/// `stage `a`` or `stages `a`, `b` and 3 more`.
fn stages(names: &[String]) -> String {
    let some: Vec<String> = names.iter().take(3).map(|n| format!("`{n}`")).collect();
    let word = if names.len() == 1 { "stage" } else { "stages" };
    let more = names.len().saturating_sub(3);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{word} {}{rest}", some.join(", "))
}

/// Whether the pipeline's commands may run: it has none, or this user trusts its
/// exact file.
pub fn is_trusted(home: &Path, pipeline: &Pipeline) -> bool {
    commands(pipeline).is_empty() || trust_file(home, pipeline).is_file()
}

/// The error of a run of commands that nobody trusts.
pub fn refusal(pipeline: &Pipeline) -> CliError {
    let mut names: Vec<String> = Vec::new();
    for (_, stage) in commands(pipeline) {
        if !names.contains(&stage.name) {
            names.push(stage.name.clone());
        }
    }
    Untrusted {
        path: pipeline.path.clone(),
        commands: names,
    }
    .into()
}

/// Every command stage with its variant; in a variant, only those that run
/// something else than the stage of that name in the file as it stands.
fn commands(pipeline: &Pipeline) -> Vec<(Option<&str>, &Stage)> {
    let is_command = |stage: &&Stage| stage.kind == StageKind::Command;
    let base: Vec<&Stage> = pipeline.stages.iter().filter(is_command).collect();
    let mut all: Vec<(Option<&str>, &Stage)> = base.iter().map(|s| (None, *s)).collect();
    for variant in &pipeline.variants {
        for stage in variant.stages.iter().filter(is_command) {
            let same = base
                .iter()
                .any(|b| b.name == stage.name && argv(b) == argv(stage));
            if !same {
                all.push((Some(&variant.name), stage));
            }
        }
    }
    all
}

/// The program and its arguments as they stand in the file, for a person.
fn argv(stage: &Stage) -> String {
    let words = stage.with["run"].as_array().into_iter().flatten();
    let words: Vec<String> = words
        .filter_map(|w| w.as_str().map(ToOwned::to_owned))
        .collect();
    let text = if stage.with["shell"] == true {
        format!("sh -eu: {}", words.join(" "))
    } else {
        command_line(words.into_iter().map(Into::into))
    };
    // What a terminal would obey instead of show must not hide what runs.
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

fn trust_file(home: &Path, pipeline: &Pipeline) -> PathBuf {
    // The same text in another folder names other scripts.
    let mut hasher = blake3::Hasher::new();
    hasher.update(pipeline.digest.as_bytes());
    hasher.update(pipeline.path.as_os_str().as_encoded_bytes());
    home.join("trust").join(hasher.finalize().to_hex().as_str())
}

/// Gives, takes or lists trust.
///
/// # Errors
/// When the file is wrong, or the trust cannot be written.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let home = &environment.home;
    let Some(path) = &args.pipeline else {
        let all = list(home);
        if args.json {
            let all: Vec<_> = all
                .iter()
                .map(|(_, t)| json!({"digest": t.digest, "path": t.path, "when": t.when}))
                .collect();
            terminal.data(&format!("{}\n", serde_json::Value::from(all)));
        } else if all.is_empty() {
            terminal.status("no pipeline file is trusted\n");
        } else {
            terminal.data(&table(&all));
        }
        return Ok(ExitCode::SUCCESS);
    };
    if args.revoke {
        // Whatever the file holds by now, and whether it is there at all.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let was = revoke(home, &path)?;
        terminal.status(&revoked(&path, was));
        if args.json {
            let json = json!({"path": path, "digest": null, "trusted": false});
            terminal.data(&format!("{json}\n"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let pipeline = spec::load(path, &[])?;
    terminal.status(&would_run(&pipeline));
    give(home, &pipeline)?;
    terminal.status(&given(&pipeline));
    if args.json {
        let json = json!({"path": pipeline.path, "digest": pipeline.digest, "trusted": true});
        terminal.data(&format!("{json}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What each command stage would run.
fn would_run(pipeline: &Pipeline) -> String {
    commands(pipeline)
        .iter()
        .map(|(variant, stage)| {
            let at = variant.map_or_else(String::new, |v| format!("@{v}"));
            let argv = argv(stage).replace('\n', "\n    ");
            format!("{}{at}:\n    {argv}\n", stage.name)
        })
        .collect()
}

fn given(pipeline: &Pipeline) -> String {
    if commands(pipeline).is_empty() {
        return format!(
            "{} has no `command` stage: it needs no trust\n",
            pipeline.path.display()
        );
    }
    format!(
        "{} may run these from now on, as long as the file stays as it is\n",
        pipeline.path.display()
    )
}

fn revoked(path: &Path, was: bool) -> String {
    let path = path.display();
    if was {
        format!("{path} is trusted no longer\n")
    } else {
        format!("{path} was not trusted\n")
    }
}

/// Records the trust, whole or not at all. A pipeline without commands needs none.
fn give(home: &Path, pipeline: &Pipeline) -> Result<(), CliError> {
    if commands(pipeline).is_empty() {
        return Ok(());
    }
    let target = trust_file(home, pipeline);
    let trust = Trust {
        path: pipeline.path.clone(),
        digest: pipeline.digest.clone(),
        when: Timestamp::now(),
    };
    let write = || -> std::io::Result<()> {
        let folder = home.join("trust");
        std::fs::create_dir_all(&folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        serde_json::to_writer(&mut file, &trust)?;
        file.as_file().sync_all()?;
        file.persist(&target)?;
        Ok(())
    };
    write().map_err(|source| CliError::Io {
        action: "write",
        path: target.clone(),
        source,
    })
}

/// Takes back every trust in a file; whether there was one.
fn revoke(home: &Path, path: &Path) -> Result<bool, CliError> {
    let mut was = false;
    for (name, _) in list(home).into_iter().filter(|(_, t)| t.path == path) {
        let file = home.join("trust").join(name);
        std::fs::remove_file(&file).map_err(|source| CliError::Io {
            action: "remove",
            path: file,
            source,
        })?;
        was = true;
    }
    Ok(was)
}

/// Digest and trust of every file, by path. What is no trust is passed over.
fn list(home: &Path) -> Vec<(String, Trust)> {
    let entries = std::fs::read_dir(home.join("trust")).into_iter().flatten();
    let mut all: Vec<(String, Trust)> = entries
        .flatten()
        .filter_map(|entry| {
            let digest = entry.file_name().into_string().ok()?;
            let trust = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
            Some((digest, trust))
        })
        .collect();
    all.sort_by(|a, b| (&a.1.path, a.1.when).cmp(&(&b.1.path, b.1.when)));
    all
}

/// A line a trusted file: since when, which content, where; and whether the file
/// is still that one.
fn table(all: &[(String, Trust)]) -> String {
    all.iter()
        .map(|(_, trust)| {
            let now =
                std::fs::read(&trust.path).map(|bytes| blake3::hash(&bytes).to_hex().to_string());
            let note = match now {
                Ok(now) if now == trust.digest => "",
                Ok(_) => "  (changed since: no longer trusted)",
                Err(_) => "  (no longer there)",
            };
            format!(
                "{}  {:.12}  {}{note}\n",
                trust.when.strftime("%Y-%m-%d"),
                trust.digest,
                trust.path.display()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
version: 1
name: mine
stages:
  make:
    uses: command
    with: { run: [python, '{files.script}', 'two words'], files: { script: s.py }, outputs: { data: {} } }
  count:
    uses: command
    needs: { data: make.data }
    with: { run: ['wc -l {inputs.data}/* > {outputs.n}/n'], shell: true, outputs: { n: {} } }
";

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("p.yaml"), text).unwrap();
            for file in ["s.py", "q.jsonl"] {
                std::fs::write(dir.path().join(file), "").unwrap();
            }
            Self { dir }
        }

        fn home(&self) -> PathBuf {
            self.dir.path().join("home")
        }

        fn pipeline(&self) -> Pipeline {
            spec::load(&self.dir.path().join("p.yaml"), &[]).unwrap_or_else(|e| panic!("{e}"))
        }

        fn plain(&self, text: &str) -> String {
            let folder = self.dir.path().canonicalize().unwrap();
            text.replace(&folder.display().to_string(), "DIR")
                .replace(&self.dir.path().display().to_string(), "DIR")
        }
    }

    #[test]
    fn trust_is_given_to_one_content_and_taken_back() {
        let place = Place::new(TEXT);
        let home = place.home();
        let pipeline = place.pipeline();
        assert!(!is_trusted(&home, &pipeline));
        give(&home, &pipeline).unwrap();
        assert!(is_trusted(&home, &pipeline));

        let changed = TEXT.replace("wc -l", "rm -r");
        std::fs::write(place.dir.path().join("p.yaml"), changed).unwrap();
        assert!(!is_trusted(&home, &place.pipeline()));
        let shown = place.plain(&table(&list(&home)));
        assert!(
            shown.ends_with("DIR/p.yaml  (changed since: no longer trusted)\n"),
            "{shown}"
        );

        std::fs::write(place.dir.path().join("p.yaml"), TEXT).unwrap();
        assert!(is_trusted(&home, &place.pipeline()));
        // Also when the file is another by then.
        std::fs::write(place.dir.path().join("p.yaml"), "no pipeline").unwrap();
        assert!(revoke(&home, &pipeline.path).unwrap());
        assert!(!revoke(&home, &pipeline.path).unwrap());
        assert!(!is_trusted(&home, &pipeline));
        assert_eq!(table(&list(&home)), "");
    }

    #[test]
    fn what_would_run_is_shown() {
        let place = Place::new(TEXT);
        let pipeline = place.pipeline();
        insta::assert_snapshot!(would_run(&pipeline), @r"
        make:
            python '{files.script}' 'two words'
        count:
            sh -eu: wc -l {inputs.data}/* > {outputs.n}/n
        ");
        insta::assert_snapshot!(place.plain(&given(&pipeline)), @"DIR/p.yaml may run these from now on, as long as the file stays as it is");
        insta::assert_snapshot!(place.plain(&revoked(&pipeline.path, true)), @"DIR/p.yaml is trusted no longer");
        insta::assert_snapshot!(place.plain(&revoked(&pipeline.path, false)), @"DIR/p.yaml was not trusted");
    }

    #[test]
    fn nothing_is_hidden_from_the_terminal() {
        let text = "version: 1\nname: n\nstages:\n  a: { uses: command, with: { run: [rm, \"x\\e[8m\\r\"], outputs: { o: {} } } }\n";
        insta::assert_snapshot!(would_run(&Place::new(text).pipeline()), @r"
        a:
            rm 'x\u{1b}[8m\r'
        ");
    }

    #[test]
    fn the_refusal_names_both_ways() {
        let place = Place::new(TEXT);
        let error = refusal(&place.pipeline());
        assert_eq!(error.exit_code(), 3);
        insta::assert_snapshot!(place.plain(&error.render(false)), @r"
        error: DIR/p.yaml runs programs of its own in stages `make`, `count`, and nobody said that it may
          = help: `genius trust DIR/p.yaml` shows them and lets this exact file run them from now on; `genius run --allow-commands` lets one run
        ");
        assert_eq!(stages(&["a".to_owned()]), "stage `a`");
        let five: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(stages(&five), "stages `a`, `b`, `c` and 2 more");
    }

    #[test]
    fn a_pipeline_without_commands_needs_none() {
        let text = "version: 1\nname: n\nstages:\n  q: { uses: queries, with: { source: { path: s.py } } }\n";
        let place = Place::new(text);
        let pipeline = place.pipeline();
        assert!(is_trusted(&place.home(), &pipeline));
        give(&place.home(), &pipeline).unwrap();
        assert!(!place.home().exists());
        insta::assert_snapshot!(place.plain(&given(&pipeline)), @"DIR/p.yaml has no `command` stage: it needs no trust");
    }
}
