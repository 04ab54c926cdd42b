//! `genius trust`, and whether a pipeline's commands may run: [`check`].
//!
//! A trust covers the file, everything it sets for its commands, and the content of
//! the files that they name ([`facts`], [`cover`]); [`keep`] stores and validates it,
//! and [`show`] lists what has changed. [`Guard`] checks the contents once more when a
//! command is about to start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;

mod cover;
mod facts;
mod keep;
mod show;
#[cfg(test)]
mod tests;

use super::environment::{Environment, command_line};
use super::{CliError, Terminal};
use crate::plan::Node;
use crate::protocol::Failure;
use crate::spec::{self, Pipeline};
use crate::store::HashMemory;
use crate::text::Text;
use cover::{Contents, Named, Project};
use facts::Command;
pub use keep::KeepError;
use keep::{Entry, Keeper, Trust};

/// Lines of a file whose changes are shown one by one.
const MOST_LINES: usize = 20_000;
/// Changes that are shown at most.
const MOST_CHANGES: usize = 20;

/// Let the `command` stages of a pipeline file run, as the file is now.
///
/// What they would run is shown first. A trust is valid for this user only; when the
/// file, or a file that a command names, changes, it has to be given again.
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

/// A pipeline that runs programs and is not trusted as it is.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} runs its own programs in {}, and {why}",
    .path.display(), stages(.commands)
)]
pub struct Untrusted {
    /// The pipeline file.
    pub path: PathBuf,
    /// Names of its command stages.
    pub commands: Vec<String>,
    /// Why not.
    pub why: Why,
}

/// Why a pipeline's commands may not run.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// No trust was ever given.
    #[error("it is not trusted yet")]
    Never,
    /// Something has changed.
    #[error("something has changed since it was trusted:{}", .changes.iter().map(|c| format!("\n  {c}")).collect::<String>())]
    Changed {
        /// A line each.
        changes: Vec<String>,
        /// Whether the file itself is unchanged, so that `--set` is the cause.
        by_set: bool,
    },
    /// There is no valid trust.
    #[error("{0}")]
    Keep(KeepError),
}

impl Untrusted {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let file = command_line([self.path.as_os_str().to_owned()].into_iter());
        let again = format!("`genius trust {file}`");
        match &self.why {
            Why::Never => format!(
                "{again} shows them and lets this exact file run them from now on; \
                 `genius run --allow-commands` lets one run"
            ),
            Why::Changed { by_set: true, .. } => "a trust covers the pipeline file, without \
                 what `--set` changes in a command: `genius run --allow-commands` lets this run"
                .to_owned(),
            Why::Changed { .. } => format!(
                "check the changes; {again} shows what would run and trusts it as it is now, \
                 `genius run --allow-commands` lets one run"
            ),
            Why::Keep(e) => e.hint(),
        }
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

/// A pipeline's commands, and the files that they name.
struct Seen {
    commands: Vec<Command>,
    named: Vec<Vec<Named>>,
    lines: Vec<String>,
}

impl Seen {
    fn new(
        pipeline: &Pipeline,
        commands: Vec<Command>,
        variables: &BTreeMap<String, String>,
        memory: Option<&HashMemory>,
    ) -> Self {
        let project = Project::containing(&pipeline.path);
        let named = cover::survey(&commands, &project, variables, memory);
        Self {
            commands,
            named,
            lines: lines(pipeline),
        }
    }

    fn contents(&self) -> Contents {
        cover::contents(&self.commands, &self.named)
    }
}

/// The beginning of the hash of each line of the file; none if it changed since it
/// was read, or is too long.
fn lines(pipeline: &Pipeline) -> Vec<String> {
    let bytes = std::fs::read(&pipeline.path).unwrap_or_default();
    if blake3::hash(&bytes).to_hex().as_str() != pipeline.digest {
        return Vec::new();
    }
    let hash = |line: &[u8]| blake3::hash(line).to_hex()[..8].to_owned();
    let lines: Vec<String> = bytes.split(|b| *b == b'\n').map(hash).collect();
    if lines.len() > MOST_LINES {
        Vec::new()
    } else {
        lines
    }
}

/// Known hashes of files, in this user's own folder, since others may have written
/// those of a cache.
fn memory(keeper: &Keeper) -> Option<HashMemory> {
    HashMemory::of_cache(&keeper.memory_folder()?).ok()
}

/// Whether the pipeline's commands may run: it has none (`None`), or this user trusts
/// it as it is now.
///
/// # Errors
/// When it is not trusted, with the reason.
pub fn check(environment: &Environment, pipeline: &Pipeline) -> Result<Option<Guard>, CliError> {
    let commands = facts::commands(pipeline);
    if commands.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<String> = Vec::new();
    for command in &commands {
        if !names.contains(&command.stage) {
            names.push(command.stage.clone());
        }
    }
    let refuse = |why: Why| -> CliError {
        Untrusted {
            path: pipeline.path.clone(),
            commands: names.clone(),
            why,
        }
        .into()
    };
    let project = Project::containing(&pipeline.path);
    let home = environment.folders.genius.as_deref();
    let keeper = Keeper::new(home).map_err(|e| refuse(Why::Keep(e)))?;
    let trust = keeper
        .check_apart(&project)
        .and_then(|()| keeper.read(&pipeline.path))
        .map_err(|e| refuse(Why::Keep(e)))?
        .ok_or_else(|| refuse(Why::Never))?;
    let memory = memory(&keeper);
    let seen = Seen::new(pipeline, commands, &environment.variables, memory.as_ref());
    let mut changes = show::changes(
        &trust,
        &seen.commands,
        &seen.named,
        &pipeline.digest,
        &seen.lines,
    );
    if let Some(memory) = &memory {
        memory.save();
    }
    if !changes.is_empty() {
        let more = changes.len().saturating_sub(MOST_CHANGES);
        changes.truncate(MOST_CHANGES);
        if more > 0 {
            changes.push(format!("and {more} more"));
        }
        // The same file can only differ through `--set`.
        let by_set = trust.digest == pipeline.digest
            && seen.commands.iter().any(|now| {
                let old = facts::find(&trust.commands, &now.stage, now.variant.as_deref());
                old.is_none_or(|old| old.facts != now.facts)
            });
        return Err(refuse(Why::Changed { changes, by_set }));
    }
    Ok(Some(Guard {
        contents: trust.contents,
        memory,
    }))
}

/// Checks, when a command is about to start, that the files it names are still what was
/// trusted.
pub struct Guard {
    contents: Contents,
    memory: Option<HashMemory>,
}

impl Guard {
    /// Whether a stage may start.
    ///
    /// # Errors
    /// When a file that it names has changed.
    pub fn may_start(&self, node: &Node) -> Result<(), Failure> {
        let own = self.contents.iter();
        for (path, content) in own.filter(|(_, c)| c.stages.contains(&node.stage)) {
            if cover::hash(path, self.memory.as_ref()) != Some(content.hash) {
                let what = format!(
                    "{} has changed since it was trusted: the program was not started",
                    path.display()
                );
                return Err(Failure::new(what)
                    .hint("check the file; `genius trust` trusts it as it is now"));
            }
        }
        Ok(())
    }
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
    let keeper = Keeper::new(environment.folders.genius.as_deref())?;
    let Some(path) = &args.pipeline else {
        let all = keeper.list();
        if args.json {
            let one = |e: &Entry| {
                json!({
                    "digest": e.trust.digest, "path": e.trust.path, "when": e.trust.when,
                    "doubt": e.doubt,
                })
            };
            terminal.json(&all.iter().map(one).collect::<Vec<_>>());
        } else if all.is_empty() {
            terminal.status("no pipeline file is trusted\n");
        } else {
            terminal.data(table(&all, memory(&keeper).as_ref()));
        }
        return Ok(ExitCode::SUCCESS);
    };
    if args.revoke {
        // Whatever the file is by now, even if it is gone.
        let path = spec::absolute(path).unwrap_or_else(|_| path.clone());
        let was = keeper.revoke(&path)?;
        terminal.status(revoked(&path, was));
        if args.json {
            terminal.json(&json!({"path": path, "digest": null, "trusted": false}));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let pipeline = spec::load(path, &[])?;
    let seen = give(&keeper, &pipeline, &environment.variables, |seen| {
        terminal.status(would_run(seen, &environment.variables));
    })?;
    terminal.status(given(&pipeline, &seen));
    if args.json {
        terminal.json(&json!({
            "path": pipeline.path, "digest": pipeline.digest, "trusted": true,
            "commands": seen.commands, "contents": seen.contents(),
        }));
    }
    Ok(ExitCode::SUCCESS)
}

/// What each command stage would run.
fn would_run(seen: &Seen, variables: &BTreeMap<String, String>) -> Text {
    show::commands(&seen.commands, &seen.named, variables)
}

fn given(pipeline: &Pipeline, seen: &Seen) -> String {
    if seen.commands.is_empty() {
        return format!(
            "{} has no `command` stage: it needs no trust\n",
            pipeline.path.display()
        );
    }
    format!(
        "{} may run these from now on, as long as it and what is covered stay as they are\n",
        pipeline.path.display()
    )
}

fn revoked(path: &Path, was: bool) -> String {
    let path = path.display();
    if was {
        format!("{path} is no longer trusted\n")
    } else {
        format!("{path} was not trusted\n")
    }
}

/// Records a trust in what `show` is given to see. A pipeline without commands needs
/// none.
fn give(
    keeper: &Keeper,
    pipeline: &Pipeline,
    variables: &BTreeMap<String, String>,
    show: impl FnOnce(&Seen),
) -> Result<Seen, CliError> {
    let commands = facts::commands(pipeline);
    keeper.check_apart(&Project::containing(&pipeline.path))?;
    // Read again, since a remembered hash would be believed as long as the trust.
    let seen = Seen::new(pipeline, commands, variables, None);
    show(&seen);
    if !seen.commands.is_empty() {
        keeper.write(Trust {
            format: 0,
            inode: 0,
            path: pipeline.path.clone(),
            digest: pipeline.digest.clone(),
            when: Timestamp::now(),
            lines: seen.lines.clone(),
            commands: seen.commands.clone(),
            contents: seen.contents(),
        })?;
    }
    Ok(seen)
}

/// One line for each trusted file: since when, its hash, its path; and whether the trust
/// is still valid and the file unchanged.
fn table(all: &[Entry], memory: Option<&HashMemory>) -> String {
    all.iter()
        .map(|Entry { trust, doubt, .. }| {
            let now =
                std::fs::read(&trust.path).map(|bytes| blake3::hash(&bytes).to_hex().to_string());
            let note = match (doubt, now) {
                (Some(why), _) => format!("  (not believed: {why})"),
                (None, Err(_)) => "  (no longer there)".to_owned(),
                (None, Ok(now)) if now != trust.digest => {
                    "  (changed since: no longer trusted)".to_owned()
                }
                (None, Ok(_)) => changed_content(trust, memory)
                    .map(|path| format!("  ({path} changed since: no longer trusted)"))
                    .unwrap_or_default(),
            };
            format!(
                "{}  {:.12}  {}{note}\n",
                trust.when.strftime("%Y-%m-%d"),
                trust.digest,
                crate::text::one_line(&trust.path.display().to_string())
            )
        })
        .collect()
}

/// The first file of a trust that has changed.
fn changed_content(trust: &Trust, memory: Option<&HashMemory>) -> Option<String> {
    let mut contents = trust.contents.iter();
    let (path, _) = contents.find(|(path, c)| cover::hash(path, memory) != Some(c.hash))?;
    Some(crate::text::one_line(&path.display().to_string()).into_owned())
}
