//! [`Graph`]: the stages of a pipeline, resolved, in an order in which they may run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::path::PathBuf;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::{Map, Value, json};

use super::identity::{self, Remembering};
use super::{Host, PlanError, Resolver, RunOptions, resolve};
use crate::protocol::Execution;
use crate::spec::{Pipeline, Stage};
use crate::stage::StageKind;
use crate::store::ContentHash;

/// A stage, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name in the pipeline.
    pub name: String,
    /// What it computes.
    pub kind: StageKind,
    /// Input slot -> where it comes from.
    pub needs: BTreeMap<String, Need>,
    /// For the job: absolute paths, `auto` resolved, hub revision a commit.
    pub params: Value,
    /// For the key: without knobs of execution and unset fields, each path
    /// `{"content": "<hex>"}`, the hub revision a commit.
    pub identity: Value,
    /// Knobs of execution.
    pub execution: Execution,
    /// The files and folders outside the cache that it reads, as they were when
    /// the key was made.
    pub sources: BTreeMap<PathBuf, ContentHash>,
    /// What stood where content stands now: `paths` by parameter, `hub_revision`.
    pub provenance: Value,
}

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Index in [`Graph::nodes`].
    pub node: usize,
    /// Name of that node's output.
    pub artifact: &'static str,
}

/// The stages of a pipeline in a stable topological order: a stage comes after
/// all it needs, and otherwise as in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// In that order.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Plans a pipeline. Reads the files that it names; runs and writes nothing.
    ///
    /// # Errors
    /// When a path cannot be read, a revision cannot be found, or the device
    /// asked for is not there.
    pub fn build(
        pipeline: &Pipeline,
        host: &Host,
        options: &RunOptions,
        resolver: &dyn Resolver,
    ) -> Result<Self, PlanError> {
        let device = resolve::device(&options.device, host)?;
        let order = order(&pipeline.stages)?;
        let position: HashMap<&str, usize> = order
            .iter()
            .enumerate()
            .map(|(at, &stage)| (pipeline.stages[stage].name.as_str(), at))
            .collect();
        let resolver = Remembering::new(resolver);
        let nodes = order
            .iter()
            .map(|&index| {
                let stage = &pipeline.stages[index];
                let needs = needs(stage, &pipeline.stages, &position)?;
                node(stage, needs, &device, host, options, &resolver)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { nodes })
    }

    /// The nodes that need an output of node `index` directly, in order.
    pub fn dependents(&self, index: usize) -> Vec<usize> {
        (index + 1..self.nodes.len())
            .filter(|&other| {
                self.nodes[other]
                    .needs
                    .values()
                    .any(|need| need.node == index)
            })
            .collect()
    }

    /// The index of the stage of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }
}

/// Indices of stages: dependencies first, ties by file order.
fn order(stages: &[Stage]) -> Result<Vec<usize>, PlanError> {
    let index: HashMap<&str, usize> = stages
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.as_str(), i))
        .collect();
    let mut graph = DiGraph::<usize, ()>::with_capacity(stages.len(), stages.len());
    let ids: Vec<NodeIndex> = (0..stages.len()).map(|i| graph.add_node(i)).collect();
    for (to, stage) in stages.iter().enumerate() {
        for (slot, from) in &stage.needs {
            let Some(&from) = index.get(from.as_str()) else {
                return Err(in_stage(
                    stage,
                    None,
                    bad_need(slot, from, "is not in the pipeline"),
                ));
            };
            graph.add_edge(ids[from], ids[to], ());
        }
    }
    let mut waiting: Vec<usize> = ids
        .iter()
        .map(|&id| graph.edges_directed(id, Direction::Incoming).count())
        .collect();
    let mut ready: BinaryHeap<Reverse<usize>> = (0..stages.len())
        .filter(|&i| waiting[i] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(stages.len());
    while let Some(Reverse(next)) = ready.pop() {
        order.push(next);
        for id in graph.neighbors(ids[next]) {
            let other = graph[id];
            waiting[other] -= 1;
            if waiting[other] == 0 {
                ready.push(Reverse(other));
            }
        }
    }
    if order.len() == stages.len() {
        Ok(order)
    } else {
        Err(PlanError::Cycle(circle(&graph, stages)))
    }
}

/// Names of the stages on one circle, the first one again at the end.
fn circle(graph: &DiGraph<usize, ()>, stages: &[Stage]) -> Vec<String> {
    let on_circle = petgraph::algo::tarjan_scc(graph)
        .into_iter()
        .find(|component| component.len() > 1 || graph.contains_edge(component[0], component[0]))
        .unwrap_or_default();
    // Every node of a component has a successor in it: following them must come back.
    let mut path: Vec<NodeIndex> = on_circle.iter().min().copied().into_iter().collect();
    while let Some(next) = path
        .last()
        .and_then(|&last| graph.neighbors(last).find(|n| on_circle.contains(n)))
    {
        let seen = path.iter().position(|&n| n == next);
        path.push(next);
        if let Some(start) = seen {
            path.drain(..start);
            break;
        }
    }
    path.into_iter()
        .map(|id| stages[graph[id]].name.clone())
        .collect()
}

fn needs(
    stage: &Stage,
    stages: &[Stage],
    position: &HashMap<&str, usize>,
) -> Result<BTreeMap<String, Need>, PlanError> {
    let resolve = |slot: &String, from: &String| {
        let fail = |why| in_stage(stage, None, bad_need(slot, from, why));
        let input = stage
            .kind
            .inputs()
            .iter()
            .find(|input| input.slot == slot)
            .ok_or_else(|| fail("fills no input of this kind"))?;
        let source = stages
            .iter()
            .find(|s| s.name == *from)
            .ok_or_else(|| fail("is not in the pipeline"))?;
        if !source.kind.outputs().contains(&input.artifact) {
            return Err(fail("makes no such artifact"));
        }
        let node = *position
            .get(from.as_str())
            .ok_or_else(|| fail("is not in the pipeline"))?;
        Ok((
            slot.clone(),
            Need {
                node,
                artifact: input.artifact,
            },
        ))
    };
    let needs: BTreeMap<_, _> = stage
        .needs
        .iter()
        .map(|(slot, from)| resolve(slot, from))
        .collect::<Result<_, _>>()?;
    Ok(needs)
}

fn node(
    stage: &Stage,
    needs: BTreeMap<String, Need>,
    device: &str,
    host: &Host,
    options: &RunOptions,
    resolver: &dyn Resolver,
) -> Result<Node, PlanError> {
    let located = |(at, error)| in_stage(stage, Some(at), error);
    let mut params = stage.with.clone();
    resolve::parameters(stage.kind, &mut params, device, host).map_err(located)?;
    let written = identity::resolve_hub(stage.kind, &mut params, resolver).map_err(located)?;
    let sorted = identity::sort(stage.kind, &params, resolver).map_err(located)?;

    let knob = |name: &str| {
        sorted
            .execution
            .get(name)
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0)
    };
    let execution = Execution {
        device: device.to_owned(),
        threads: options.threads,
        micro_batch: knob("micro_batch"),
        width: knob("width"),
    };
    let mut provenance = Map::new();
    provenance.insert("paths".to_owned(), json!(sorted.paths));
    if let Some(revision) = written {
        provenance.insert("hub_revision".to_owned(), Value::from(revision));
    }
    Ok(Node {
        name: stage.name.clone(),
        kind: stage.kind,
        needs,
        params,
        identity: sorted.identity,
        execution,
        sources: sorted.sources,
        provenance: Value::Object(provenance),
    })
}

fn bad_need(slot: &str, from: &str, why: &'static str) -> PlanError {
    PlanError::BadNeed {
        slot: slot.to_owned(),
        from: from.to_owned(),
        why,
    }
}

fn in_stage(stage: &Stage, at: Option<String>, source: PlanError) -> PlanError {
    PlanError::InStage {
        stage: stage.name.clone(),
        line: stage.line,
        at,
        source: Box::new(source),
    }
}
