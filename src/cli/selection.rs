//! [`SelectionArgs`]: which stages of a pipeline.

use super::CliError;
use crate::plan::Graph;

/// Which stages.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SelectionArgs {
    /// Only this stage and what it needs: STAGE or STAGE@VARIANT. May be repeated.
    #[arg(long, value_name = "STAGE")]
    pub target: Vec<String>,
    /// Run this stage even if it has a result. May be repeated.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage and everything after it even if there are results. May be repeated.
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
}

impl SelectionArgs {
    /// The selected part of a graph, and which of its nodes are forced.
    ///
    /// # Errors
    /// When no stage has a name.
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
