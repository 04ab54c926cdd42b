//! `genius show`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::environment::{Environment, command_line};
use super::lookup::{
    Found, LookupError, Wanted, command_words, lay_out, look, one_node, quoted, result, run_command,
};
use super::pipeline_args::PipelineArgs;
use super::{CliError, Terminal};
use crate::artifact::{
    ArtifactError, JsonlReader, PAIRS_FILE, PairRecord, ROLLOUTS_FILE, RolloutRecord,
};
use crate::kind::{Params, StageKind};
use crate::plan::{Graph, Node};
use crate::report::show::{
    PairsOf, QueryError, QueryHead, QuerySummary, ScoreTau, Style, View, find, list, tree,
};
use crate::store::Store;
use crate::text::suggest;

/// The name of a stage's rollouts among its outputs.
const ROLLOUTS: &str = "rollouts";

/// Show how a query was rolled out.
///
/// A tree of its steps: every candidate with f, F and A, which were drawn as
/// beams, and which became the two sides of a pair. Without `--query` the queries
/// of the rollout are listed. Nothing runs, and the network is not used.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage that produced the rollouts: STAGE, or STAGE@VARIANT; may be left out
    /// where only one produces rollouts.
    stage: Option<String>,
    /// The query: its id, a prefix of it, or '#N' for the Nth.
    #[arg(long, value_name = "ID")]
    query: Option<String>,
    /// Show full texts, foresights too, instead of shortening them to the terminal's width.
    #[arg(long, requires = "query")]
    full: bool,
    /// Print JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Why a query cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The stage produces something else.
    #[error("stage `{stage}` ({kind}) does not produce rollouts")]
    NotRollouts {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Those that produce rollouts.
        known: Vec<String>,
    },
    /// Several stages produce rollouts, and none was named.
    #[error("{} stages of the pipeline produce rollouts", .names.len())]
    WhichStage {
        /// Those that do.
        names: Vec<String>,
    },
    /// There is nothing to show in this pipeline.
    #[error("no stage of the pipeline produces rollouts")]
    NoRollouts,
    /// It is not known which query is meant.
    #[error("{source}")]
    Query {
        /// Why.
        source: QueryError,
        /// What lists the queries.
        list: String,
    },
    /// The file of a result is not what it should be.
    #[error("the result of stage `{stage}` cannot be read: {source}")]
    Unreadable {
        /// The stage.
        stage: String,
        /// Where, and why.
        source: ArtifactError,
    },
}

impl ShowError {
    /// As documented in the help.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable { .. } => 4,
            _ => 2,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotRollouts { known, .. } if known.is_empty() => Self::NoRollouts.hint(),
            Self::NotRollouts { stage, known, .. } => {
                suggest(stage, known.iter().map(String::as_str)).unwrap_or_default()
            }
            Self::WhichStage { names } => {
                format!("name one after the file: {}", quoted(names))
            }
            Self::NoRollouts => "a stage of kind `rollout` produces them".to_owned(),
            Self::Query { source, list } => source.hint(list),
            Self::Unreadable { .. } => {
                "docs/artifacts.md describes the file; correct the program that wrote it".to_owned()
            }
        }
    }
}

/// Prints the tree of a query, or the list of queries.
///
/// # Errors
/// When the pipeline or a name is wrong, or there is no result, or it is damaged.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let pipeline = args.pipeline.load()?;
    let asked = match &args.stage {
        Some(stage) => Some(Wanted::parse(stage, &pipeline)?),
        None => None,
    };
    let variant = asked.as_ref().and_then(|wanted| wanted.variant.as_deref());
    let (graph, store) = look(&args.pipeline, &pipeline, variant, environment)?;
    let target = rollout_stage(&graph, asked.as_ref())?;
    let place = Place {
        args: &args.pipeline,
        graph: &graph,
        store: store.as_ref(),
        variant,
    };
    let (found, folder) = place.result(target, ROLLOUTS)?;
    let file = folder.join(ROLLOUTS_FILE);
    let name = graph.nodes[target].name.as_str();
    let unreadable = |source| ShowError::Unreadable {
        stage: name.to_owned(),
        source,
    };
    let style = Style {
        // Without a terminal, a common width.
        columns: terminal.columns().unwrap_or(100),
        full: args.full,
    };
    let Some(asked) = &args.query else {
        let queries = summaries(&file).map_err(unreadable)?;
        if args.json {
            terminal.json(&queries);
        } else {
            terminal.data(list(&queries, &style));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let ids = query_ids(&file).map_err(unreadable)?;
    let at = find(name, &ids, asked).map_err(|source| ShowError::Query {
        source,
        list: place.list_command(target),
    })?;
    let Some(record) = nth::<RolloutRecord>(&file, at).map_err(unreadable)? else {
        // It existed a moment ago.
        return Err(CliError::Io {
            action: "read again",
            path: file,
            source: std::io::ErrorKind::UnexpectedEof.into(),
        });
    };
    let (scores, pairs) = place.downstream(target, &record.query_id)?;
    let view = View::new(&record, (at + 1, ids.len()), &scores, &pairs);
    if args.json {
        terminal.json(&to_json(name, &found.key, &view));
    } else {
        terminal.data(tree(&view, &style));
    }
    Ok(ExitCode::SUCCESS)
}

/// The object that `--json` prints: the stage and the query.
fn to_json(stage: &str, key: &str, view: &View) -> Value {
    let mut object = json!({ "stage": stage, "key": key });
    if let (Some(object), Ok(Value::Object(view))) =
        (object.as_object_mut(), serde_json::to_value(view))
    {
        object.extend(view);
    }
    object
}

/// The stage whose rollouts are to be shown: the one named, else the only one.
fn rollout_stage(graph: &Graph, asked: Option<&Wanted>) -> Result<usize, CliError> {
    let makes = |node: &Node| node.outputs.iter().any(|output| output == ROLLOUTS);
    let all = || (0..graph.nodes.len()).filter(|&i| makes(&graph.nodes[i]));
    let names = || {
        all()
            .map(|i| graph.nodes[i].name.clone())
            .collect::<Vec<_>>()
    };
    let Some(wanted) = asked else {
        let candidates: Vec<usize> = all().collect();
        return match candidates.as_slice() {
            &[only] => Ok(only),
            [] => Err(ShowError::NoRollouts.into()),
            _ => Err(ShowError::WhichStage { names: names() }.into()),
        };
    };
    let target = one_node(graph, wanted)?;
    let node = &graph.nodes[target];
    if wanted.output.as_deref().unwrap_or(ROLLOUTS) != ROLLOUTS || !makes(node) {
        return Err(ShowError::NotRollouts {
            stage: node.name.clone(),
            kind: node.kind().name(),
            known: names(),
        }
        .into());
    }
    Ok(target)
}

/// A pipeline and the cache that its results are looked up in.
struct Place<'a> {
    args: &'a PipelineArgs,
    graph: &'a Graph,
    store: Option<&'a Store>,
    /// The variant that the command line names with the stage.
    variant: Option<&'a str>,
}

impl Place<'_> {
    /// An output, laid out and verified against its hash.
    fn result(&self, node: usize, output: &str) -> Result<(Found, PathBuf), CliError> {
        let command = run_command(self.args, &self.wanted(node));
        let found = result(self.graph, node, output, self.store, command.clone())?;
        let stage = || self.graph.nodes[node].name.clone();
        // Without a cache, nothing was found.
        let store = self.store.ok_or_else(|| LookupError::NoResult {
            missing: stage(),
            wanted: None,
            command,
        })?;
        let folder = lay_out(store, &found)?;
        Ok((found, folder))
    }

    /// How a stage is named in a command to be typed.
    fn wanted(&self, node: usize) -> Wanted {
        let node = &self.graph.nodes[node];
        // A stage shared by all selected variants needs no variant.
        let variant = if node.name == node.stage {
            self.variant.map(ToOwned::to_owned)
        } else {
            node.variants.first().cloned()
        };
        Wanted {
            stage: node.stage.clone(),
            variant,
            output: None,
        }
    }

    /// The command that lists the queries of a stage.
    fn list_command(&self, node: usize) -> String {
        let wanted = self.wanted(node);
        let mut words = command_words("show", self.args, &wanted);
        words.push(wanted.stage.into());
        command_line(words.into_iter())
    }

    /// The scores and pairs that the pipeline derives from a stage's rollouts: the
    /// pairs of this query, of every stage that has a result.
    fn downstream(
        &self,
        rollout: usize,
        query_id: &str,
    ) -> Result<(Vec<ScoreTau>, Vec<PairsOf>), CliError> {
        let users = |of: usize, kind: StageKind| {
            let nodes = self.graph.dependents(of).iter().copied();
            nodes.filter(move |&i| self.graph.nodes[i].kind() == kind)
        };
        let (mut scores, mut pairs) = (Vec::new(), Vec::new());
        for score in users(rollout, StageKind::Score) {
            let node = &self.graph.nodes[score];
            scores.push(ScoreTau {
                stage: node.name.clone(),
                tau: match &node.params {
                    Params::Score(params) => params.tau,
                    _ => None,
                },
            });
            for node in users(score, StageKind::Pairs) {
                pairs.push(PairsOf {
                    stage: self.graph.nodes[node].name.clone(),
                    pairs: self.pairs(node, query_id)?,
                });
            }
        }
        Ok((scores, pairs))
    }

    /// A query's pairs of a stage, or the command that would compute them.
    fn pairs(
        &self,
        node: usize,
        query_id: &str,
    ) -> Result<Result<Vec<PairRecord>, String>, CliError> {
        let folder = match self.result(node, "pairs") {
            Ok((_, folder)) => folder,
            Err(CliError::Lookup(LookupError::NoResult { command, .. })) => {
                return Ok(Err(command));
            }
            Err(e) => return Err(e),
        };
        let pairs = records_of(&folder.join(PAIRS_FILE), query_id).map_err(|source| {
            ShowError::Unreadable {
                stage: self.graph.nodes[node].name.clone(),
                source,
            }
        })?;
        Ok(Ok(pairs))
    }
}

/// The part of a record that is parsed to find it.
#[derive(Deserialize)]
struct Id {
    query_id: String,
}

/// The id of every record, in order.
fn query_ids(file: &Path) -> Result<Vec<String>, ArtifactError> {
    JsonlReader::<Id>::open(file)?
        .map(|record| record.map(|r| r.query_id))
        .collect()
}

/// A summary of every query.
fn summaries(file: &Path) -> Result<Vec<QuerySummary>, ArtifactError> {
    JsonlReader::<QueryHead>::open(file)?
        .enumerate()
        .map(|(at, head)| Ok(QuerySummary::new(at + 1, head?)))
        .collect()
}

/// The record at a position, from 0: no other is parsed.
fn nth<T: serde::de::DeserializeOwned>(file: &Path, at: usize) -> Result<Option<T>, ArtifactError> {
    let mut reader = JsonlReader::open(file)?;
    reader.pass_over(at)?;
    reader.next().transpose()
}

/// The records of a query: of the others only the id is parsed.
fn records_of<T: serde::de::DeserializeOwned>(
    file: &Path,
    query_id: &str,
) -> Result<Vec<T>, ArtifactError> {
    let ids = query_ids(file)?;
    let mut reader = JsonlReader::open(file)?;
    let mut passed = 0;
    let mut records = Vec::new();
    for (at, _) in ids.iter().enumerate().filter(|(_, id)| *id == query_id) {
        reader.pass_over(at - passed)?;
        records.extend(reader.next().transpose()?);
        passed = at + 1;
    }
    Ok(records)
}
