//! [`Graph`]: the stages of a pipeline, resolved, in an order in which they may run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::identity::{self, Remembering};
use super::{Capacity, Machine, PlanError, Resolver, RunOptions, encode, resolve};
use crate::kind::{Computes, Need, Numerics, Params, Resolved, StageKind, Target};
use crate::protocol::Execution;
use crate::spec::{Pipeline, Policy, Resources, Stage};
use crate::store::ContentHash;

/// A stage, resolved. Variants that have a stage in common share one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name in this graph: the stage's, or `stage@variant` where another node
    /// has that name.
    pub name: String,
    /// Name of the stage in the file.
    pub stage: String,
    /// Names of the variants that it belongs to; [`BASE`] is the plain file.
    pub variants: Vec<String>,
    /// Input slot -> where it comes from.
    pub needs: BTreeMap<String, Need<usize>>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// What it computes: absolute paths, `auto` resolved, hub revision a commit.
    pub params: Params,
    /// For the key: without knobs of execution and unset fields, each path
    /// `{"content": "<hex>"}`, the hub revision a commit.
    pub identity: Value,
    /// What else decides its bits; in the key.
    pub numerics: Option<Numerics>,
    /// Where it runs.
    pub execution: Execution,
    /// The resources it needs.
    pub demand: Capacity,
    /// Retries and time limit.
    pub policy: Policy,
    /// The files and folders outside the cache that it reads, as they were when
    /// the key was made.
    pub sources: BTreeMap<PathBuf, ContentHash>,
    /// What was replaced by content: `paths` by parameter, `hub_revision`; and which
    /// `engine` it runs on and why.
    pub provenance: Value,
}

impl Node {
    /// Its kind.
    pub fn kind(&self) -> StageKind {
        self.params.kind()
    }
}

/// Name of the plain file among its variants.
pub const BASE: &str = "base";

/// The stages of a pipeline in a stable topological order: a stage comes after
/// all it needs, and otherwise as in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// In that order.
    pub nodes: Vec<Node>,
    /// Of each node, those that need an output of it directly, in order.
    dependents: Vec<Vec<usize>>,
    /// Of each of those, how many of its inputs come from there.
    slots: Vec<Vec<usize>>,
}

impl Graph {
    /// Plans a pipeline without its variants. Reads the files that it names; runs and
    /// writes nothing.
    ///
    /// # Errors
    /// When a path cannot be read, a revision cannot be found, or the device
    /// requested is not available.
    pub fn build(
        pipeline: &Pipeline,
        machine: &Machine<'_>,
        options: &RunOptions,
        resolver: &dyn Resolver,
    ) -> Result<Self, PlanError> {
        Self::build_variants(pipeline, &[BASE.to_owned()], machine, options, resolver)
    }

    /// Plans several variants as one graph, in which a stage that is the same in
    /// two of them is one node. [`BASE`] is the plain file.
    ///
    /// # Errors
    /// As [`Graph::build`]; when there is no variant of a name.
    pub fn build_variants(
        pipeline: &Pipeline,
        variants: &[String],
        machine: &Machine<'_>,
        options: &RunOptions,
        resolver: &dyn Resolver,
    ) -> Result<Self, PlanError> {
        // One that is written out must be there, whatever the stages are.
        if options.device != "auto" {
            machine.device(&options.device)?;
        }
        let resolver = Remembering::new(resolver);
        let mut builder = Builder {
            machine,
            options,
            resolver: &resolver,
            nodes: Vec::new(),
            known: HashMap::new(),
        };
        for variant in variants {
            let stages = if variant == BASE {
                &pipeline.stages
            } else {
                &pipeline
                    .variants
                    .iter()
                    .find(|v| v.name == *variant)
                    .ok_or_else(|| PlanError::NoVariant {
                        name: variant.clone(),
                        known: pipeline.variants.iter().map(|v| v.name.clone()).collect(),
                    })?
                    .stages
            };
            builder.add(variant, stages)?;
        }
        Ok(Self::from_nodes(label(builder.nodes)))
    }

    /// A graph of nodes in topological order.
    fn from_nodes(nodes: Vec<Node>) -> Self {
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        let mut slots: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for need in node.needs.values() {
                let (list, counts) = (&mut dependents[need.from], &mut slots[need.from]);
                match counts.last_mut() {
                    Some(count) if list.last() == Some(&index) => *count += 1,
                    _ => {
                        list.push(index);
                        counts.push(1);
                    }
                }
            }
        }
        Self {
            nodes,
            dependents,
            slots,
        }
    }

    /// The nodes that need an output of node `index` directly, in order.
    pub fn dependents(&self, index: usize) -> &[usize] {
        &self.dependents[index]
    }

    /// Of each of [`Graph::dependents`], how many of its inputs come from the node.
    pub fn slots(&self, index: usize) -> &[usize] {
        &self.slots[index]
    }

    /// The index of the node of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The nodes that a name on the command line refers to: `stage` (in every
    /// variant) or `stage@variant`.
    ///
    /// # Errors
    /// When there is none.
    pub fn select(&self, name: &str) -> Result<Vec<usize>, PlanError> {
        let (stage, variant) = match name.split_once('@') {
            Some((stage, variant)) => (stage, Some(variant)),
            None => (name, None),
        };
        let found: Vec<usize> = (0..self.nodes.len())
            .filter(|&i| {
                let node = &self.nodes[i];
                node.stage == stage
                    && variant.is_none_or(|v| node.variants.iter().any(|have| have == v))
            })
            .collect();
        if found.is_empty() {
            let mut known: Vec<String> = self.nodes.iter().map(|n| n.name.clone()).collect();
            known.dedup();
            return Err(PlanError::NoStage {
                name: name.to_owned(),
                known,
            });
        }
        Ok(found)
    }

    /// Those nodes and all that they need.
    #[must_use]
    pub fn restricted_to(&self, targets: &[usize]) -> Self {
        let mut wanted = vec![false; self.nodes.len()];
        for &target in targets {
            wanted[target] = true;
        }
        // Needs come first in the order, so one pass from the end is enough.
        for index in (0..self.nodes.len()).rev() {
            if wanted[index] {
                for need in self.nodes[index].needs.values() {
                    wanted[need.from] = true;
                }
            }
        }
        let mut place = vec![0; self.nodes.len()];
        let mut nodes = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(i, _)| wanted[*i]) {
            place[index] = nodes.len();
            let mut node = node.clone();
            for need in node.needs.values_mut() {
                need.from = place[need.from];
            }
            nodes.push(node);
        }
        Self::from_nodes(nodes)
    }

    /// A node and all that depends on it, directly or not.
    pub fn downstream(&self, index: usize) -> Vec<usize> {
        let mut reached = vec![false; self.nodes.len()];
        reached[index] = true;
        for at in index..self.nodes.len() {
            if reached[at] {
                for &next in self.dependents(at) {
                    reached[next] = true;
                }
            }
        }
        (0..reached.len()).filter(|&i| reached[i]).collect()
    }
}

/// Collects the nodes of one variant after the other.
struct Builder<'a> {
    machine: &'a Machine<'a>,
    options: &'a RunOptions,
    resolver: &'a Remembering<'a>,
    nodes: Vec<Node>,
    /// [`sameness`] of a stage -> index.
    known: HashMap<[u8; 32], usize>,
}

impl Builder<'_> {
    fn add(&mut self, variant: &str, stages: &[Stage]) -> Result<(), PlanError> {
        let mut place: HashMap<&str, usize> = HashMap::with_capacity(stages.len());
        for index in order(stages) {
            let stage = &stages[index];
            // `spec` checked that every need is met, and `order` puts it first.
            let needs = stage.needs.iter().map(|(slot, need)| {
                let (from, output) = (place[need.from.as_str()], need.output.clone());
                (slot.clone(), Need { from, output })
            });
            let needs = needs.collect();
            let node = node(stage, needs, self)?;
            let sameness = sameness(&node);
            let index = match self.known.get(&sameness) {
                Some(&index) => {
                    self.nodes[index].variants.push(variant.to_owned());
                    index
                }
                None => {
                    self.known.insert(sameness, self.nodes.len());
                    self.nodes.push(Node {
                        variants: vec![variant.to_owned()],
                        ..node
                    });
                    self.nodes.len() - 1
                }
            };
            place.insert(&stage.name, index);
        }
        Ok(())
    }
}

/// Two stages of one name that agree in this have the same result, whatever it is.
fn sameness(node: &Node) -> [u8; 32] {
    let mut out = Vec::with_capacity(512);
    encode::string(&mut out, &node.stage);
    encode::string(&mut out, node.kind().name());
    encode::value(&mut out, &node.identity);
    encode::value(&mut out, &json!(node.numerics));
    encode::length(&mut out, node.needs.len());
    for (slot, need) in &node.needs {
        encode::string(&mut out, slot);
        encode::length(&mut out, need.from);
        encode::string(&mut out, &need.output);
    }
    *blake3::hash(&out).as_bytes()
}

/// Names nodes: the first of a stage by the stage alone, others with a variant.
fn label(mut nodes: Vec<Node>) -> Vec<Node> {
    let mut taken = HashSet::new();
    for node in &mut nodes {
        node.name = if taken.insert(node.stage.clone()) {
            node.stage.clone()
        } else {
            format!("{}@{}", node.stage, node.variants[0])
        };
    }
    nodes
}

/// Indices of stages: dependencies first, ties by file order. `spec` checked that no
/// stage needs itself.
fn order(stages: &[Stage]) -> Vec<usize> {
    let index: HashMap<&str, usize> = stages
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.as_str(), i))
        .collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); stages.len()];
    let mut waiting: Vec<usize> = stages.iter().map(|s| s.needs.len()).collect();
    for (user, stage) in stages.iter().enumerate() {
        for need in stage.needs.values() {
            users[index[need.from.as_str()]].push(user);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..stages.len())
        .filter(|&i| waiting[i] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(stages.len());
    while let Some(Reverse(next)) = ready.pop() {
        order.push(next);
        for &user in &users[next] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    debug_assert_eq!(order.len(), stages.len(), "a cycle");
    order
}

fn node(
    stage: &Stage,
    needs: BTreeMap<String, Need<usize>>,
    with: &Builder<'_>,
) -> Result<Node, PlanError> {
    let located = |(at, error)| in_stage(stage, Some(at), error);
    let mut params = stage.params.clone();
    let (device, resolved) = on_machine(stage, &mut params, with)?;
    let written = identity::resolve_hub(&mut params, with.resolver).map_err(located)?;
    let sorted = identity::sort(&params, with.resolver).map_err(located)?;
    let capacity = with.machine.capacity(with.options);
    let demand = resolve::demand(stage, &device, &capacity)
        .map_err(|e| in_stage(stage, Some("resources".to_owned()), e))?;

    let asked = stage.policy.resources.unwrap_or_default().cores;
    let asked = asked.map_or(0, |c| c as usize);
    let execution = Execution {
        device,
        threads: if with.options.threads > 0 {
            with.options.threads
        } else {
            asked
        },
        gpus: Vec::new(),
    };
    let mut provenance = Map::new();
    provenance.insert("paths".to_owned(), json!(sorted.paths));
    if let Some(revision) = written {
        provenance.insert("hub_revision".to_owned(), Value::from(revision));
    }
    if let Some(engine) = resolved.engine {
        provenance.insert("engine".to_owned(), Value::from(engine));
    }
    Ok(Node {
        name: String::new(),
        stage: stage.name.clone(),
        variants: Vec::new(),
        needs,
        outputs: stage.outputs.clone(),
        numerics: resolved.numerics,
        params,
        identity: sorted.identity,
        execution,
        demand,
        policy: stage.policy.clone(),
        sources: sorted.sources,
        provenance: Value::Object(provenance),
    })
}

/// The device of a stage and what the machine decides about it; every `auto` is
/// replaced. Its worker is asked only where that depends on it.
fn on_machine(
    stage: &Stage,
    params: &mut Params,
    with: &Builder<'_>,
) -> Result<(String, Resolved), PlanError> {
    let any = Computes::of_build(&["cpu"], &["cpu"]);
    let anywhere = params.clone().resolve(&Target {
        device: "cpu",
        fast_bf16: false,
        level: "",
        engines: &any,
    }) == Ok(Resolved::ANYWHERE);
    let gpus = |resources: Resources| resources.gpu.unwrap_or_default();
    let counts = gpus(stage.policy.resources.unwrap_or_default()) > 0
        && with.options.resources.gpu.is_none();
    if anywhere {
        if counts {
            // How many there are is in the machine's capacity then.
            with.machine.capabilities()?;
        }
        return Ok(("cpu".to_owned(), Resolved::ANYWHERE));
    }
    let announced = with.machine.capabilities()?;
    let device = with.machine.device(&with.options.device)?;
    let target = Target {
        device: &device,
        fast_bf16: announced.processor.fast_bf16,
        level: &announced.processor.level,
        engines: &announced.engines,
    };
    let resolved = params.resolve(&target).map_err(|e| {
        let (what, instead) = (e.what, e.instead);
        let at = e.at.map(|at| format!("with.{at}"));
        in_stage(stage, at, PlanError::Unsupported { what, instead })
    })?;
    Ok((device, resolved))
}

fn in_stage(stage: &Stage, at: Option<String>, source: PlanError) -> PlanError {
    PlanError::InStage {
        stage: stage.name.clone(),
        line: stage.line,
        at,
        source: Box::new(source),
    }
}
