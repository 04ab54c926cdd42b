//! `genius out`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::environment::{Environment, command_line};
use super::pipeline_args::PipelineArgs;
use super::{CliError, Terminal};
use crate::plan::{BASE, Forecast, Graph, Outlook, PlanError, Resolver};
use crate::run::{History, Run};
use crate::spec::Pipeline;
use crate::store::{ContentHash, Store, StoreError, Tree, hash_path};
use crate::text::suggest;

/// Print the folder of a stage's output.
///
/// The folder lies in the cache and is read-only. Nothing runs, and the network
/// is not asked: a branch of a model on the hub is what the last run found.
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

/// Why an output cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// The stage has no such output.
    #[error("stage `{stage}` has no output `{output}`")]
    NoOutput {
        /// The stage.
        stage: String,
        /// As written.
        output: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No stage is called so.
    #[error("the pipeline has no stage `{name}`")]
    NoStage {
        /// As written.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A name that means different results in the variants asked for.
    #[error("stage `{stage}` has {} results in the variants asked for", .names.len())]
    Several {
        /// The stage.
        stage: String,
        /// How each is called.
        names: Vec<String>,
    },
    /// A stage has not been computed as the pipeline is now.
    #[error("stage `{missing}` has no result in the cache{}", .wanted.as_ref().map(|w| format!(", and `{w}` needs it")).unwrap_or_default())]
    NoResult {
        /// The first stage without a result.
        missing: String,
        /// The stage asked for, if it is another.
        wanted: Option<String>,
        /// What computes it.
        command: String,
    },
    /// What was kept is damaged.
    #[error("the result of stage `{stage}` is damaged and was dropped: {source}")]
    Damaged {
        /// The stage.
        stage: String,
        /// Which blob, and how.
        source: Box<StoreError>,
        /// What computes it again.
        command: String,
    },
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
    /// A copy is not what it was made from.
    #[error("the copy {path} is not what was copied: the disk or the memory errs")]
    BadCopy {
        /// The file.
        path: PathBuf,
    },
}

impl OutError {
    /// As documented in the help.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoOutput { .. } | Self::NoStage { .. } | Self::Several { .. } => 2,
            Self::NoResult { .. } => 1,
            Self::Damaged { .. } | Self::Taken { .. } | Self::BadCopy { .. } => 4,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoOutput { output, known, .. } => Some(suggest(output, known)),
            Self::NoStage { name, known } => Some(suggest(name, known)),
            Self::Several { names, .. } => Some(format!("name one: {}", quoted(names))),
            Self::NoResult { command, .. } => Some(format!("`{command}` computes it")),
            Self::Damaged { command, .. } => Some(format!("`{command}` computes it again")),
            Self::Taken { hint, .. } => Some((*hint).to_owned()),
            Self::BadCopy { .. } => Some("nothing was left there; try again".to_owned()),
        }
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    names.join(", ")
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
        // A script reads a path as it is, whatever its name has in it.
        let mut line = shown.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        terminal.bytes(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Plans a pipeline, with a variant that a name asks for besides, without asking
/// the network; and opens the cache if one is there.
///
/// # Errors
/// When a name is wrong, or it cannot be planned here.
pub(super) fn look(
    args: &PipelineArgs,
    pipeline: &Pipeline,
    variant: Option<&str>,
    environment: &Environment,
) -> Result<(Graph, Option<Store>), CliError> {
    let mut options = args.clone();
    if let Some(variant) = variant
        && !options.all_variants
        && !options.variants.iter().any(|v| v == variant)
    {
        options.variants.push(variant.to_owned());
    }
    let store = Store::open_existing(&options.cache.root(environment))?;
    let resolver = Offline {
        inner: &environment.resolver(Some(options.cache.memory(environment)?)),
        known: store.clone().map(known_commits).unwrap_or_default(),
    };
    Ok((options.graph(pipeline, &resolver)?, store))
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

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) stage: String,
    pub(super) variant: Option<String>,
    pub(super) output: Option<String>,
}

impl Wanted {
    /// `STAGE[@VARIANT][.OUTPUT]`. Names of variants may have dots in them.
    pub(super) fn parse(text: &str, pipeline: &Pipeline) -> Result<Self, OutError> {
        let is_variant = |name: &str| {
            name == BASE
                || pipeline
                    .variants
                    .iter()
                    .any(|v| v.name == name || v.group == name)
        };
        let is_stage = |name: &str| {
            let mut variants = pipeline.variants.iter().flat_map(|v| &v.stages);
            pipeline.stages.iter().any(|s| s.name == name) || variants.any(|s| s.name == name)
        };
        let split = |name: &str| match name.split_once('@') {
            Some((stage, variant)) => (stage.to_owned(), Some(variant.to_owned())),
            None => (name.to_owned(), None),
        };
        let whole = std::iter::once((text, None));
        let dotted = text.rsplit_once('.').map(|(name, out)| (name, Some(out)));
        for (name, output) in whole.chain(dotted) {
            let (stage, variant) = split(name);
            if is_stage(&stage) && variant.as_deref().is_none_or(is_variant) {
                return Ok(Self {
                    stage,
                    variant,
                    output: output.map(ToOwned::to_owned),
                });
            }
        }
        let (stage, variant) = split(text);
        let stage = stage.split('.').next().unwrap_or_default().to_owned();
        Err(match variant {
            Some(_) if is_stage(&stage) => OutError::NoStage {
                name: text.to_owned(),
                known: [BASE]
                    .into_iter()
                    .chain(pipeline.variants.iter().map(|v| v.name.as_str()))
                    .map(|v| format!("{stage}@{v}"))
                    .collect(),
            },
            _ => OutError::NoStage {
                name: stage,
                known: pipeline.stages.iter().map(|s| s.name.clone()).collect(),
            },
        })
    }
}

/// An output with a result.
pub(super) struct Found {
    stage: String,
    output: String,
    /// All that the stage has.
    outputs: Vec<String>,
    pub(super) key: String,
    tree: Tree,
    /// What computes it.
    command: String,
}

/// The output that is asked for, if it is there.
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

/// The node that a name means.
///
/// # Errors
/// When there is none, or variants differ in it.
pub(super) fn one_node(graph: &Graph, wanted: &Wanted) -> Result<usize, CliError> {
    let name = match &wanted.variant {
        Some(variant) => format!("{}@{variant}", wanted.stage),
        None => wanted.stage.clone(),
    };
    let indices = graph.select(&name)?;
    match indices.as_slice() {
        &[target] => Ok(target),
        _ => Err(several(graph, wanted.stage.clone(), &indices)),
    }
}

/// That variants differ in a stage, with how each of its nodes is called.
fn several(graph: &Graph, stage: String, indices: &[usize]) -> CliError {
    let variant = |i: &usize| format!("{stage}@{}", graph.nodes[*i].variants[0]);
    let names = indices.iter().map(variant).collect();
    OutError::Several { stage, names }.into()
}

/// An output of a node. Follows the keys from stage to stage: nothing runs.
/// `command` is what computes it.
///
/// # Errors
/// When it has no such output, or no result.
pub(super) fn result(
    graph: &Graph,
    target: usize,
    output: &str,
    store: Option<&Store>,
    command: String,
) -> Result<Found, CliError> {
    let node = &graph.nodes[target];
    if !node.outputs.iter().any(|o| o == output) {
        return Err(OutError::NoOutput {
            stage: node.name.clone(),
            output: output.to_owned(),
            known: node.outputs.clone(),
        }
        .into());
    }
    let graph = graph.restricted_to(&[target]);
    let last = graph.nodes.len() - 1;
    let forecast = Forecast::new(&graph, store, &[]);
    let missing = forecast
        .stages
        .iter()
        .position(|stage| stage.outlook != Outlook::Reuse);
    let key = forecast.stages[last].key;
    // A record of the target's key without a declared output is none either.
    let tree = store.zip(key).and_then(|(store, key)| {
        let record = store.lookup(&key).filter(|_| missing.is_none())?;
        record.outputs.get(output).cloned()
    });
    match (tree, key) {
        (Some(tree), Some(key)) => Ok(Found {
            stage: node.name.clone(),
            output: output.to_owned(),
            outputs: node.outputs.clone(),
            key: key.to_string(),
            tree,
            command,
        }),
        _ => {
            let missing = missing.unwrap_or(last);
            Err(OutError::NoResult {
                missing: graph.nodes[missing].name.clone(),
                wanted: (missing != last).then(|| graph.nodes[last].name.clone()),
                command,
            }
            .into())
        }
    }
}

/// `genius run p.yaml --target train`, with the values and variants asked for.
pub(super) fn run_command(args: &PipelineArgs, wanted: &Wanted) -> String {
    let mut words = command_words("run", args, wanted);
    words.extend(["--target".into(), wanted.stage.clone().into()]);
    command_line(words.into_iter())
}

/// `genius VERB p.yaml`, with the values and variants asked for.
pub(super) fn command_words(verb: &str, args: &PipelineArgs, wanted: &Wanted) -> Vec<OsString> {
    let mut words = vec![
        "genius".into(),
        verb.into(),
        args.pipeline.clone().into_os_string(),
    ];
    for set in &args.set {
        words.extend(["--set".into(), set.into()]);
    }
    let variants = match &wanted.variant {
        Some(variant) if variant == BASE => &[][..],
        Some(variant) => std::slice::from_ref(variant),
        None => &args.variants,
    };
    for variant in variants {
        words.extend(["--variant".into(), variant.into()]);
    }
    if args.all_variants && wanted.variant.is_none() {
        words.push("--all-variants".into());
    }
    words
}

/// The folder, every file of which was read through its hash just now. One that
/// is not what it should be is laid out again from its blob; if that is damaged
/// too, the record is a miss from then on.
pub(super) fn lay_out(store: &Store, found: &Found) -> Result<PathBuf, CliError> {
    let failed = |e: StoreError| -> CliError {
        if e.is_damage() {
            OutError::Damaged {
                stage: found.stage.clone(),
                source: Box::new(e),
                command: found.command.clone(),
            }
            .into()
        } else {
            e.into()
        }
    };
    let folder = store.materialise(&found.tree).map_err(failed)?;
    if is_sound(&folder, &found.tree) {
        return Ok(folder);
    }
    // Out of the way: laying it out anew reads every blob.
    store.drop_tree(&found.tree);
    store.materialise(&found.tree).map_err(failed)
}

fn is_sound(folder: &Path, tree: &Tree) -> bool {
    tree.files
        .iter()
        .all(|file| hash_path(&folder.join(&file.path)).is_ok_and(|hash| hash == file.hash))
}

/// Copies the files of a tree to `target`, whole or not at all, and reads every
/// copy through its hash.
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
            hint: "name a folder that is missing or empty",
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
            return Err(taken("is there and no folder: nothing was copied"));
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
    // Renaming over an empty folder replaces it; one that was filled meanwhile refuses.
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
                what: "is there and no symbolic link: it was left alone",
                hint: "name a place that is free, or an old link",
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

/// (repository, revision) -> commit.
type Commits = BTreeMap<(String, String), String>;

/// Answers without the network: a branch is what the newest run found it to be.
struct Offline<'a> {
    inner: &'a dyn Resolver,
    known: Commits,
}

impl Resolver for Offline<'_> {
    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError> {
        self.inner.hash_path(path)
    }

    fn hub_commit(&self, repo: &str, revision: &str) -> Result<String, PlanError> {
        if revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(revision.to_owned());
        }
        let asked = (repo.to_owned(), revision.to_owned());
        self.known
            .get(&asked)
            .cloned()
            .ok_or_else(|| PlanError::Hub {
                repo: repo.to_owned(),
                revision: revision.to_owned(),
                reason:
                    "no run of this cache has asked, and a command that only looks asks no network"
                        .to_owned(),
                last_known: None,
            })
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }
}

/// What the newest runs found branches and tags to be, as their plans have it.
fn known_commits(store: Store) -> Commits {
    /// Older runs know nothing that is worth the reading.
    const RUNS: usize = 50;
    let history = History::new(store, crate::store::Times::default());
    let mut known = Commits::new();
    for id in history.ids().unwrap_or_default().iter().take(RUNS) {
        let plan = Run::new(&history.folder(id)).plan();
        for stage in plan.map(|plan| plan.stages).unwrap_or_default() {
            let hub = &stage.params["source"]["hub"];
            let words = [
                &hub["repo"],
                &stage.sources["hub_revision"],
                &hub["revision"],
            ];
            if let [Some(repo), Some(written), Some(commit)] = words.map(Value::as_str) {
                known
                    .entry((repo.to_owned(), written.to_owned()))
                    .or_insert_with(|| commit.to_owned());
            }
        }
    }
    known
}

#[cfg(test)]
#[path = "out_tests.rs"]
mod tests;
