//! `genius plan`, also `genius run --dry-run`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::environment::Environment;
use super::pipeline_args::PipelineArgs;
use super::selection::SelectionArgs;
use super::{CliError, Terminal};
use crate::plan::{Earlier, Forecast, Graph, Outlook};
use crate::text::one_line;

/// Show what a run would do with every stage, and do nothing.
///
/// A stage is reused, runs, or depends on what an earlier one produces. Reads the files
/// that the pipeline names; runs and writes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Print JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
///
/// # Errors
/// When the pipeline is wrong, or cannot be planned here.
pub fn run(
    args: &Args,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    show(
        &args.pipeline,
        &args.selection,
        args.json,
        environment,
        terminal,
    )
}

/// What a run with these arguments would do, on stdout.
///
/// # Errors
/// As [`run`].
pub fn show(
    pipeline: &PipelineArgs,
    selection: &SelectionArgs,
    json: bool,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<ExitCode, CliError> {
    let planned = pipeline.planned(selection, environment)?;
    let graph = &planned.graph;
    let forecast = Forecast::new(graph, planned.store.as_ref(), &planned.forced);
    let reasons = reasons(graph, &forecast, planned.earlier().as_ref());
    if json {
        terminal.json(&to_json(graph, &forecast, &reasons));
    } else {
        terminal.data(table(graph, &forecast, &reasons));
    }
    Ok(ExitCode::SUCCESS)
}

/// One line on each stage.
fn reasons(graph: &Graph, forecast: &Forecast, earlier: Option<&Earlier>) -> Vec<String> {
    let nodes = graph.nodes.iter().zip(&forecast.stages);
    nodes
        .map(|(node, stage)| match &stage.outlook {
            Outlook::Reuse => "same key".to_owned(),
            Outlook::Run if stage.forced => "asked for".to_owned(),
            Outlook::Run => earlier.map_or_else(
                || "never computed here".to_owned(),
                |earlier| earlier.reason(node, &stage.preimage),
            ),
            Outlook::Depends(on) => {
                let names: Vec<&str> = on.iter().map(|&i| graph.nodes[i].name.as_str()).collect();
                let verb = if names.len() == 1 {
                    "changes"
                } else {
                    "change"
                };
                format!("on whether {} {verb}", names.join(", "))
            }
        })
        .collect()
}

fn word(outlook: &Outlook) -> &'static str {
    match outlook {
        Outlook::Reuse => "reuse",
        Outlook::Run => "run",
        Outlook::Depends(_) => "depends",
    }
}

fn table(graph: &Graph, forecast: &Forecast, reasons: &[String]) -> String {
    let width = graph
        .nodes
        .iter()
        .map(|n| n.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for ((node, stage), reason) in graph.nodes.iter().zip(&forecast.stages).zip(reasons) {
        let word = word(&stage.outlook);
        let reason = one_line(reason);
        text.push_str(&format!("{:<width$}  {word:<7}  {reason}\n", node.name));
    }
    let (run, reuse, depend) = forecast.counts();
    text.push_str(&format!("\n{run} to run, {reuse} reused"));
    if depend > 0 {
        let verb = if depend == 1 { "depends" } else { "depend" };
        text.push_str(&format!(", {depend} {verb} on those"));
    }
    text.push('\n');
    text
}

fn to_json(graph: &Graph, forecast: &Forecast, reasons: &[String]) -> Value {
    let nodes = graph.nodes.iter().zip(&forecast.stages).zip(reasons);
    let stages: Vec<Value> = nodes
        .map(|((node, stage), reason)| {
            let on: Vec<&str> = match &stage.outlook {
                Outlook::Depends(on) => on.iter().map(|&i| graph.nodes[i].name.as_str()).collect(),
                _ => Vec::new(),
            };
            json!({
                "stage": node.name, "variants": node.variants, "kind": node.kind(),
                "outlook": word(&stage.outlook), "reason": reason, "key": stage.key,
                "depends_on": on,
            })
        })
        .collect();
    let (run, reuse, depends) = forecast.counts();
    json!({ "run": run, "reuse": reuse, "depends": depends, "stages": stages })
}
