//! `genius out`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::environment::Environment;
use super::lookup::{Found, Wanted, lay_out, look, one_node, result, run_command};
use super::pipeline_args::PipelineArgs;
use super::{CliError, Terminal};
use crate::plan::Graph;
use crate::store::{Store, Tree, hash_path};

/// Print the folder of a stage's output.
///
/// The folder lies in the cache and is read-only. Nothing runs, and the network
/// is not used: a branch of a model on the hub is the commit that the last run found.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or its output: `train`, `train.metrics`, `train@wo-foresight.model`.
    /// Without an output its first one.
    #[arg(value_name = "STAGE[.OUTPUT]")]
    output: String,
    /// Copy its files to this folder, which must be missing or empty.
    #[arg(long, value_name = "DIR")]
    copy: Option<PathBuf>,
    /// Make a symbolic link to the folder here.
    #[arg(long, value_name = "PATH")]
    link: Option<PathBuf>,
    /// Print JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Why an output cannot be put where it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// The place to copy or link to is taken.
    #[error("{path} {what}")]
    Taken {
        /// The place.
        path: PathBuf,
        /// What is there.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A copy does not match its source.
    #[error("the copy {path} does not match its source: the disk or memory may be faulty")]
    BadCopy {
        /// The file.
        path: PathBuf,
    },
}

impl OutError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Taken { hint, .. } => hint,
            Self::BadCopy { .. } => "nothing was left behind; try again",
        }
    }
}

/// Finds the output and prints where it is.
///
/// # Errors
/// When the pipeline or the name is wrong, there is no result, or it is damaged.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let pipeline = args.pipeline.load()?;
    let wanted = Wanted::parse(&args.output, &pipeline)?;
    let (graph, store) = look(
        &args.pipeline,
        &pipeline,
        wanted.variant.as_deref(),
        environment,
    )?;
    let found = find(&graph, &wanted, store.as_ref(), &args.pipeline)?;
    // Without a cache, `find` has found nothing.
    let Some(store) = store else {
        return Ok(ExitCode::FAILURE);
    };
    let folder = lay_out(&store, &found)?;
    if let Some(target) = &args.copy {
        copy(&folder, &found.tree, target)?;
    }
    if let Some(link) = &args.link {
        make_link(&folder, link)?;
    }
    if args.json {
        terminal.json(&to_json(&found, &folder, args));
    } else {
        let shown = args.copy.as_deref().unwrap_or(&folder);
        // A script gets the path unchanged, whatever characters it has.
        let mut line = shown.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        terminal.bytes(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// The object that `--json` prints.
fn to_json(found: &Found, folder: &Path, args: &Args) -> Value {
    json!({
        "stage": found.stage,
        "output": found.output,
        "outputs": found.outputs,
        "key": found.key,
        "hash": found.tree.hash,
        "folder": folder,
        "files": found.tree.files,
        "copy": args.copy,
        "link": args.link,
    })
}

/// The requested output, if it exists.
fn find(
    graph: &Graph,
    wanted: &Wanted,
    store: Option<&Store>,
    args: &PipelineArgs,
) -> Result<Found, CliError> {
    let target = one_node(graph, wanted)?;
    let node = &graph.nodes[target];
    let output = match &wanted.output {
        Some(output) => output.clone(),
        None => node.outputs.first().cloned().unwrap_or_default(),
    };
    result(graph, target, &output, store, run_command(args, wanted))
}

/// Copies the files of a tree to `target`, whole or not at all, and checks the hash
/// of every copy.
fn copy(folder: &Path, tree: &Tree, target: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::PermissionsExt;
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Io {
            action,
            path,
            source,
        }
    };
    let target = std::path::absolute(target).map_err(io("find", target))?;
    let taken = |what| {
        CliError::from(OutError::Taken {
            path: target.clone(),
            what,
            hint: "choose a folder that is missing or empty",
        })
    };
    match std::fs::read_dir(&target) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(taken("is not empty: nothing was copied"));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(taken("is not a folder: nothing was copied"));
        }
        Err(e) => return Err(io("read", &target)(e)),
    }
    let parent = target.parent().unwrap_or(&target);
    std::fs::create_dir_all(parent).map_err(io("make", parent))?;
    // Beside the target, so that one rename puts all of it in place.
    let work = tempfile::Builder::new()
        .prefix(".genius-copy-")
        .tempdir_in(parent)
        .map_err(io("make a folder in", parent))?;
    let whole = work.path().join("copy");
    std::fs::create_dir(&whole).map_err(io("make", &whole))?;
    for file in &tree.files {
        let to = whole.join(&file.path);
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(io("make", dir))?;
        }
        // Clones where the file system can.
        std::fs::copy(folder.join(&file.path), &to).map_err(io("copy to", &to))?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode))
            .map_err(io("set the mode of", &to))?;
        if hash_path(&to)? != file.hash {
            let path = target.join(&file.path);
            return Err(OutError::BadCopy { path }.into());
        }
    }
    // Renaming replaces an empty folder, and fails if it was filled meanwhile.
    std::fs::rename(&whole, &target).map_err(io("rename into place", &target))
}

/// A symbolic link at `link`; an old link is replaced, anything else stays.
fn make_link(folder: &Path, link: &Path) -> Result<(), CliError> {
    let io = |source| CliError::Io {
        action: "make the link",
        path: link.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(link) {
        Ok(there) if !there.is_symlink() => {
            return Err(OutError::Taken {
                path: link.to_owned(),
                what: "is not a symbolic link: it was left alone",
                hint: "choose a path that does not exist, or an old link",
            }
            .into());
        }
        _ => {}
    }
    let parent = link.parent().filter(|p| !p.as_os_str().is_empty());
    let work = tempfile::Builder::new()
        .prefix(".genius-link-")
        .tempdir_in(parent.unwrap_or(Path::new(".")))
        .map_err(io)?;
    let new = work.path().join("link");
    std::os::unix::fs::symlink(folder, &new).map_err(io)?;
    std::fs::rename(&new, link).map_err(io)
}

#[cfg(test)]
#[path = "out_tests.rs"]
mod tests;
