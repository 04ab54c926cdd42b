//! `genius runs`, and what the commands about a run have in common.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use super::environment::Environment;
use super::pipeline_args::CacheArgs;
use super::{CliError, Terminal};
use crate::report::tables;
use crate::run::{History, RunError, RunSummary};
use crate::store::Store;

/// List the runs of the cache, newest first.
///
/// A run that is `cut` ended without a report: its process was killed, or the
/// machine went down. The results of its finished stages are kept.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON array on stdout.
    #[arg(long)]
    json: bool,
    /// How many at most; 0: all.
    #[arg(short = 'n', value_name = "N", default_value_t = 20)]
    number: usize,
    /// Only runs of the pipeline of this name or file.
    #[arg(long, value_name = "NAME|FILE")]
    pipeline: Option<String>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Prints the list.
///
/// # Errors
/// When the cache cannot be read.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let now = Timestamp::now();
    let root = args.cache.root(environment);
    let (runs, more) = match Store::open_existing(&root)? {
        Some(store) => list(&History::new(store, environment.times()), args, now)?,
        None => (Vec::new(), 0),
    };
    if args.json {
        terminal.json(&runs);
        return Ok(ExitCode::SUCCESS);
    }
    if runs.is_empty() {
        terminal.status(nothing(args.pipeline.as_deref(), &root));
    } else {
        terminal.data(tables::runs(&runs, now));
    }
    if more > 0 {
        terminal.status(format!("and {more} earlier ones: `-n 0` shows all\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The runs to show, and how many more there are.
fn list(
    history: &History,
    args: &Args,
    now: Timestamp,
) -> Result<(Vec<RunSummary>, usize), CliError> {
    let ids = history.ids()?;
    let most = if args.number == 0 {
        usize::MAX
    } else {
        args.number
    };
    let Some(asked) = &args.pipeline else {
        let runs: Vec<_> = ids
            .iter()
            .take(most)
            .map(|id| history.summary(id, now))
            .collect();
        let more = ids.len() - runs.len();
        return Ok((runs, more));
    };
    let file = std::path::absolute(asked).ok();
    let mut runs: Vec<_> =
        ids.iter()
            .map(|id| history.summary(id, now))
            .filter(|run| {
                run.pipeline.as_ref() == Some(asked)
                    || run.path.as_deref().is_some_and(|path| {
                        file.as_deref().is_some_and(|asked| same_file(asked, path))
                    })
            })
            .collect();
    let more = runs.len().saturating_sub(most);
    runs.truncate(most);
    Ok((runs, more))
}

/// Whether two paths are one file, also if it is gone by now.
fn same_file(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn nothing(pipeline: Option<&str>, root: &Path) -> String {
    match pipeline {
        Some(name) => format!(
            "no run of `{name}` in the cache {}: `genius runs` lists them all\n",
            root.display()
        ),
        None => format!(
            "no run yet in the cache {}: `genius run FILE` makes one\n",
            root.display()
        ),
    }
}

/// The runs of the cache; there must be at least one.
pub(super) fn history(
    cache: &CacheArgs,
    environment: &Environment,
) -> Result<(Store, History), CliError> {
    let root = cache.root(environment);
    let store = Store::open_existing(&root)?.ok_or_else(|| RunError::None {
        root: std::path::absolute(&root).unwrap_or_else(|_| PathBuf::from(&root)),
    })?;
    Ok((store.clone(), History::new(store, environment.times())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_show_is_a_note_and_no_error() {
        let root = Path::new("cache");
        insta::assert_snapshot!(nothing(None, root), @"no run yet in the cache cache: `genius run FILE` makes one");
        insta::assert_snapshot!(nothing(Some("quick"), root), @"no run of `quick` in the cache cache: `genius runs` lists them all");
    }

    #[test]
    fn read_only_commands_create_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            Store::open_existing(&dir.path().join("cache"))
                .unwrap()
                .is_none()
        );
        assert!(!dir.path().join("cache").exists());
    }

    #[test]
    fn a_pipeline_is_found_by_its_name_or_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let file = dir.path().join("p.yaml");
        std::fs::write(&file, "").unwrap();
        for (id, name) in [
            ("20260101T000000-a", "one"),
            ("20260102T000000-b", "two"),
            ("20260103T000000-c", "two"),
        ] {
            let folder = store.runs_dir().join(id);
            std::fs::create_dir_all(&folder).unwrap();
            let plan = serde_json::json!({"name": name, "seed": 0, "path": file, "stages": []});
            std::fs::write(folder.join("pipeline.json"), plan.to_string()).unwrap();
        }
        let history = History::new(store, crate::store::Times::default());
        let shown = |pipeline: Option<&str>, number| {
            let args = Args {
                json: false,
                number,
                pipeline: pipeline.map(ToOwned::to_owned),
                cache: CacheArgs { cache: None },
            };
            let (runs, more) = list(&history, &args, Timestamp::now()).unwrap();
            let ids: Vec<String> = runs
                .into_iter()
                .map(|r| r.run_id[14..].to_owned())
                .collect();
            (ids.join(" "), more)
        };
        // Ids are shortened to their ends.
        assert_eq!(shown(None, 0).0, "0-c 0-b 0-a");
        assert_eq!(shown(None, 1).1, 2);
        assert_eq!(shown(Some("two"), 0).0, "0-c 0-b");
        assert_eq!(shown(Some("two"), 1).1, 1);
        assert_eq!(shown(file.to_str(), 0).0, "0-c 0-b 0-a");
        assert_eq!(shown(Some("three"), 0).0, "");
    }
}
