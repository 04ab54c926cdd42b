//! [`PipelineArgs`]: what the commands that take a pipeline have in common:
//! which file, with which values, which variants, and which cache.

use std::path::PathBuf;
use std::sync::Arc;

use super::environment::Environment;
use super::selection::SelectionArgs;
use super::validate::parse_overrides;
use super::{CliError, resources};
use crate::plan::{BASE, Earlier, Graph, Machine, PlanError, Resolver, RunOptions};
use crate::protocol::Capabilities;
use crate::spec::{self, Pipeline, Resources};
use crate::store::{HashMemory, Store};

/// A pipeline and how to plan it.
#[derive(Debug, Clone, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// Override a value: `stages.train.with.learning_rate=1e-6`. May be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// A variant of the file, or all of a matrix by its name; `base` is the file without variants.
    /// May be repeated.
    #[arg(long = "variant", value_name = "NAME")]
    pub variants: Vec<String>,
    /// The plain file and every variant.
    #[arg(long, conflicts_with = "variants")]
    pub all_variants: bool,
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Device of stages with a model: auto, cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Plan for the machine whose `genius-worker --capabilities` printed this file, not for the
    /// one where genius is.
    #[arg(long, value_name = "FILE")]
    pub machine: Option<PathBuf>,
    /// CPU threads of a stage; 0: all cores, or those in its `resources`.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// The resources that stages share, instead of all of the machine's: `gpu=1,memory_gb=20,cores=2`.
    #[arg(long, value_name = "NAME=N,...", value_parser = resources::parse)]
    pub resources: Option<Resources>,
}

/// A pipeline as it would be run.
pub struct Planned {
    /// The plan.
    pub graph: Graph,
    /// For each node, whether it runs even if it has a result.
    pub forced: Vec<bool>,
    /// The cache, if there is one.
    pub store: Option<Store>,
    /// The pipeline file, absolute.
    pub path: PathBuf,
}

impl Planned {
    /// What earlier runs did, if there is a cache.
    pub fn earlier(&self) -> Option<Earlier> {
        let store = self.store.as_ref()?;
        Some(Earlier::new(store, &self.path, None))
    }
}

/// Which cache.
#[derive(Debug, Clone, clap::Args)]
pub struct CacheArgs {
    /// Folder of the cache [default: GENIUS_CACHE, else ./cache].
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

impl CacheArgs {
    /// Where the cache is, or would be.
    pub fn root(&self, environment: &Environment) -> PathBuf {
        self.cache
            .clone()
            .or_else(|| environment.cache.clone())
            .unwrap_or_else(|| PathBuf::from("cache"))
    }

    /// What it remembers of files outside, also before it is created.
    ///
    /// # Errors
    /// When there is no current folder.
    pub fn memory(&self, environment: &Environment) -> Result<Arc<HashMemory>, CliError> {
        Ok(Arc::new(HashMemory::of_cache(&self.root(environment))?))
    }

    /// Opens it; a read-only command does not create one.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn existing(&self, environment: &Environment) -> Result<Store, CliError> {
        let root = self.root(environment);
        let store = Store::open_existing(&root)?.ok_or(CliError::NoCache { root })?;
        Ok(store.reading_runs(crate::run::facts))
    }

    /// Opens it, and creates it if necessary.
    ///
    /// # Errors
    /// When the folder holds something else or cannot be made.
    pub fn open(&self, environment: &Environment) -> Result<Store, CliError> {
        Ok(Store::open(&self.root(environment))?.reading_runs(crate::run::facts))
    }
}

impl PipelineArgs {
    /// Reads and checks the file with every `--set`.
    ///
    /// # Errors
    /// When either is wrong.
    pub fn load(&self) -> Result<Pipeline, CliError> {
        Ok(spec::load(&self.pipeline, &parse_overrides(&self.set)?)?)
    }

    /// Loads and plans it, and opens the cache if there is one: for read-only
    /// commands.
    ///
    /// # Errors
    /// When the file or a name is wrong, or it cannot be planned here.
    pub fn planned(
        &self,
        selection: &SelectionArgs,
        environment: &Environment,
    ) -> Result<Planned, CliError> {
        let pipeline = self.load()?;
        let memory = self.cache.memory(environment)?;
        let machine = self.machine(environment)?;
        let graph = self.graph(&pipeline, &machine, &environment.resolver(Some(memory)))?;
        let (graph, forced) = selection.apply(graph)?;
        Ok(Planned {
            graph,
            forced,
            store: Store::open_existing(&self.cache.root(environment))?,
            path: pipeline.path,
        })
    }

    /// The variants asked for, by name: those of a matrix one by one.
    pub fn selected(&self, pipeline: &Pipeline) -> Vec<String> {
        if self.all_variants {
            let all = pipeline.variants.iter().map(|v| v.name.clone());
            return [BASE.to_owned()].into_iter().chain(all).collect();
        }
        if self.variants.is_empty() {
            return vec![BASE.to_owned()];
        }
        let mut names: Vec<String> = Vec::new();
        for asked in &self.variants {
            let group: Vec<String> = pipeline
                .variants
                .iter()
                .filter(|v| v.name == *asked || v.group == *asked)
                .map(|v| v.name.clone())
                .collect();
            // Planning refuses an unknown one and lists those that exist.
            let found = if group.is_empty() {
                vec![asked.clone()]
            } else {
                group
            };
            for name in found {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// How the run is to be executed.
    pub fn options(&self) -> RunOptions {
        RunOptions {
            device: self.device.clone(),
            threads: self.threads,
            resources: self.resources.unwrap_or_default(),
        }
    }

    /// The machine that the run is planned for.
    ///
    /// # Errors
    /// When the file of another one is not what its worker prints.
    pub fn machine<'a>(&self, environment: &'a Environment) -> Result<Machine<'a>, CliError> {
        match &self.machine {
            Some(file) => match Capabilities::read(file) {
                Ok(announced) => Ok(Machine::known(announced)),
                Err(e) => Err(PlanError::Machine(e).into()),
            },
            None => Ok(environment.machine()),
        }
    }

    /// Plans the selected variants. Reads the files that the pipeline names.
    ///
    /// # Errors
    /// When one cannot be read, or the machine lacks what is requested.
    pub fn graph(
        &self,
        pipeline: &Pipeline,
        machine: &Machine<'_>,
        resolver: &dyn Resolver,
    ) -> Result<Graph, CliError> {
        let variants = self.selected(pipeline);
        Ok(Graph::build_variants(
            pipeline,
            &variants,
            machine,
            &self.options(),
            resolver,
        )?)
    }
}
