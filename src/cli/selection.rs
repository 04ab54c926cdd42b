//! [`SelectionArgs`]: which stages of a pipeline.

use super::CliError;
use crate::plan::Graph;

/// Which stages.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SelectionArgs {
    /// Only this stage and what it needs: STAGE or STAGE@VARIANT. May be repeated.
    #[arg(long, value_name = "STAGE")]
    pub target: Vec<String>,
    /// Run this stage though its result is there. May be repeated.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage and everything after it though the results are there. May be repeated.
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
}

impl SelectionArgs {
    /// The part of a graph that is asked for, and which of its nodes are forced.
    ///
    /// # Errors
    /// When a name is of no stage.
    pub fn apply(&self, graph: Graph) -> Result<(Graph, Vec<bool>), CliError> {
        let graph = if self.target.is_empty() {
            graph
        } else {
            let mut targets = Vec::new();
            for name in &self.target {
                targets.extend(graph.select(name)?);
            }
            graph.restricted_to(&targets)
        };
        let mut forced = vec![false; graph.nodes.len()];
        for name in &self.force {
            for index in graph.select(name)? {
                forced[index] = true;
            }
        }
        for name in &self.from {
            for index in graph.select(name)? {
                for later in graph.downstream(index) {
                    forced[later] = true;
                }
            }
        }
        Ok((graph, forced))
    }
}
