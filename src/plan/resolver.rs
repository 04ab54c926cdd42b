//! What planning needs from outside: the content behind a path and the
//! commit behind a hub revision. [`SystemResolver`] is the real one; tests have
//! their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::{Cache, Repo, RepoType};

use super::PlanError;
use crate::stage::hub::{Hub, is_commit};
use crate::store::{self, ContentHash, HashMemory};

/// Tells what a path or a revision stands for now.
pub trait Resolver {
    /// The content hash of a file or folder.
    ///
    /// # Errors
    /// When it cannot be read.
    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError>;

    /// The commit (40 hex digits) that a branch or tag of a Hugging Face
    /// repository points at.
    ///
    /// # Errors
    /// When the hub does not answer.
    fn hub_commit(&self, repo: &str, revision: &str) -> Result<String, PlanError>;

    /// The value of an environment variable that a command inherits.
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Reads files and asks the Hugging Face hub.
#[derive(Clone)]
pub struct SystemResolver {
    /// The hub (`HF_ENDPOINT`); the public one if none.
    pub hub_endpoint: Option<String>,
    /// For private and gated repositories (`HF_TOKEN`).
    pub hub_token: Option<String>,
    /// The hub's cache folder (`HF_HOME/hub`), which is beside its token; none on a
    /// machine without a home folder.
    pub hub_cache: Option<PathBuf>,
    /// Environment variables that commands may inherit.
    pub variables: BTreeMap<String, String>,
    /// What files held when they were last read; none: every file is read.
    pub memory: Option<Arc<HashMemory>>,
}

impl Resolver for SystemResolver {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError> {
        let hash = match &self.memory {
            Some(memory) => memory.hash_path(path),
            None => store::hash_path(path),
        };
        hash.map_err(|e| PlanError::Path {
            path: path.to_owned(),
            source: Box::new(e),
        })
    }

    fn hub_commit(&self, repo: &str, revision: &str) -> Result<String, PlanError> {
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        let hub = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
        let fail = |reason: String| PlanError::Hub {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            reason,
            last_known: self.last_known(&hub, revision),
        };
        let token = || Cache::new(self.hub_cache.clone()?).token();
        let token = self.hub_token.clone().or_else(token);
        let commit = Hub::new(self.hub_endpoint.as_deref(), token)
            .and_then(|api| api.info(&hub))
            .map_err(|e| fail(e.to_string()))?
            .sha;
        if is_commit(&commit) {
            Ok(commit)
        } else {
            Err(fail(format!(
                "it answered `{commit}`, which is not a commit"
            )))
        }
    }
}

impl SystemResolver {
    /// The commit that an earlier download noted for this revision. Only ever a
    /// hint: the branch may have moved since.
    fn last_known(&self, repo: &Repo, revision: &str) -> Option<String> {
        let noted = self
            .hub_cache
            .as_ref()?
            .join(repo.folder_name())
            .join("refs")
            .join(revision);
        let commit = std::fs::read_to_string(noted).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }
}
