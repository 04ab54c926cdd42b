//! [`Offline`]: planning without the network.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::plan::{PlanError, Resolver};
use crate::run::{History, Run};
use crate::store::{ContentHash, Store, Times};

/// (repository, revision) -> commit.
pub(super) type Commits = BTreeMap<(String, String), String>;

/// Resolves without the network: a branch is the commit that the newest run found.
pub(super) struct Offline<'a> {
    pub(super) inner: &'a dyn Resolver,
    pub(super) known: Commits,
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
                    "no run of this cache has resolved it, and read-only commands do not use the network"
                        .to_owned(),
                last_known: None,
            })
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }
}

/// The commits of branches and tags in the plans of the newest runs.
pub(super) fn known_commits(store: Store) -> Commits {
    /// Older runs are not worth reading.
    const RUNS: usize = 50;
    let history = History::new(store, Times::default());
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
