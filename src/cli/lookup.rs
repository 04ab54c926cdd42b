//! Finding the result of a stage by its name, for the commands that look at it: `genius
//! out` and `genius show`. Nothing runs, and the network is not used.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::CliError;
use super::environment::{Environment, command_line};
use super::offline::{Offline, known_commits};
use super::pipeline_args::PipelineArgs;
use crate::plan::{BASE, Forecast, Graph, Outlook};
use crate::spec::Pipeline;
use crate::store::{Results, Store, StoreError, Tree, hash_path};
use crate::text::suggest;

/// Why a result is not available.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The stage has no such output.
    #[error("stage `{stage}` has no output `{output}`")]
    NoOutput {
        /// The stage.
        stage: String,
        /// As written.
        output: String,
        /// The known ones.
        known: Vec<String>,
    },
    /// No stage has this name.
    #[error("the pipeline has no stage `{name}`")]
    NoStage {
        /// As written.
        name: String,
        /// The known ones.
        known: Vec<String>,
    },
    /// A name with different results in the selected variants.
    #[error("stage `{stage}` has {} results in the selected variants", .names.len())]
    Several {
        /// The stage.
        stage: String,
        /// The name of each.
        names: Vec<String>,
    },
    /// A stage has no result for the pipeline as it is now.
    #[error("stage `{missing}` has no result in the cache{}", .wanted.as_ref().map(|w| format!(", and `{w}` needs it")).unwrap_or_default())]
    NoResult {
        /// The first stage without a result.
        missing: String,
        /// The stage asked for, if it is another.
        wanted: Option<String>,
        /// What computes it.
        command: String,
    },
    /// The stored result is damaged.
    #[error("the result of stage `{stage}` is damaged and was removed: {source}")]
    Damaged {
        /// The stage.
        stage: String,
        /// Which blob is damaged, and how.
        source: Box<StoreError>,
        /// What computes it again.
        command: String,
    },
}

impl LookupError {
    /// As documented in the help.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoOutput { .. } | Self::NoStage { .. } | Self::Several { .. } => 2,
            Self::NoResult { .. } => 1,
            Self::Damaged { .. } => 4,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoOutput {
                output: name,
                known,
                ..
            }
            | Self::NoStage { name, known } => {
                suggest(name, known.iter().map(String::as_str)).unwrap_or_default()
            }
            Self::Several { names, .. } => format!("name one: {}", quoted(names)),
            Self::NoResult { command, .. } => format!("`{command}` computes it"),
            Self::Damaged { command, .. } => format!("`{command}` computes it again"),
        }
    }
}

pub(super) fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    names.join(", ")
}

/// Plans a pipeline without the network, including the variant that a name selects;
/// and opens the cache if there is one.
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
    let machine = options.machine(environment)?;
    Ok((options.graph(pipeline, &machine, &resolver)?, store))
}

/// What to look up.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) stage: String,
    pub(super) variant: Option<String>,
    pub(super) output: Option<String>,
}

impl Wanted {
    /// `STAGE[@VARIANT][.OUTPUT]`. Names of variants may have dots in them.
    pub(super) fn parse(text: &str, pipeline: &Pipeline) -> Result<Self, LookupError> {
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
            Some(_) if is_stage(&stage) => LookupError::NoStage {
                name: text.to_owned(),
                known: [BASE]
                    .into_iter()
                    .chain(pipeline.variants.iter().map(|v| v.name.as_str()))
                    .map(|v| format!("{stage}@{v}"))
                    .collect(),
            },
            _ => LookupError::NoStage {
                name: stage,
                known: pipeline.stages.iter().map(|s| s.name.clone()).collect(),
            },
        })
    }
}

/// An output with a result.
pub(super) struct Found {
    pub(super) stage: String,
    pub(super) output: String,
    /// All that the stage has.
    pub(super) outputs: Vec<String>,
    pub(super) key: String,
    pub(super) tree: Tree,
    /// What computes it.
    command: String,
}

/// The node that a name refers to.
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

/// The error that variants differ in a stage, with the names of its nodes.
fn several(graph: &Graph, stage: String, indices: &[usize]) -> CliError {
    let variant = |i: &usize| format!("{stage}@{}", graph.nodes[*i].variants[0]);
    let names = indices.iter().map(variant).collect();
    LookupError::Several { stage, names }.into()
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
        return Err(LookupError::NoOutput {
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
    // A record without a declared output counts as missing too.
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
            Err(LookupError::NoResult {
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

/// The folder, after checking the hash of every file. A file that does not match is
/// laid out again from its blob; if that is damaged too, the record is a miss from
/// then on.
pub(super) fn lay_out(store: &Store, found: &Found) -> Result<PathBuf, CliError> {
    let failed = |e: StoreError| -> CliError {
        if e.is_damage() {
            LookupError::Damaged {
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
    // Moved away: laying it out again reads every blob.
    store.drop_tree(&found.tree);
    store.materialise(&found.tree).map_err(failed)
}

pub(super) fn is_sound(folder: &Path, tree: &Tree) -> bool {
    tree.files
        .iter()
        .all(|file| hash_path(&folder.join(&file.path)).is_ok_and(|hash| hash == file.hash))
}
