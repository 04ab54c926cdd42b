//! stub
use super::*;
use std::path::{Path, PathBuf};
use std::time::Duration;
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub beat: Duration,
    pub stale: Duration,
}
impl Default for Times {
    fn default() -> Self {
        Times {
            beat: Duration::from_secs(2),
            stale: Duration::from_secs(20),
        }
    }
}
#[derive(Debug)]
pub struct Lease {
    id: String,
    dir: PathBuf,
}
impl Store {
    pub fn begin_run(&self, _t: &Times) -> Result<Lease, StoreError> {
        let id = format!(
            "{}-{:08x}",
            jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S"),
            std::process::id()
        );
        let dir = self.runs_dir().join(&id);
        std::fs::create_dir_all(&dir).map_err(StoreError::io("make", &dir))?;
        Ok(Lease { id, dir })
    }
    pub fn laid_out(&self, tree: &Tree) -> Option<PathBuf> {
        let p = self.tree_path(&tree.hash);
        p.is_dir().then_some(p)
    }
}
impl Lease {
    pub fn run_id(&self) -> &str {
        &self.id
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn uses(&self, _: &Key) -> Result<(), StoreError> {
        Ok(())
    }
}
#[derive(Debug)]
pub struct Claim;
#[derive(Debug)]
pub struct Holder {
    pub run_id: String,
    pub stage: String,
    pub host: String,
    pub pid: u32,
    pub since: String,
}
impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.run_id)
    }
}
pub enum Claimed {
    Mine(Claim),
    Held(Holder),
}
impl Store {
    pub fn claim(&self, _: &Key, _: &Lease, _: &str) -> Result<Claimed, StoreError> {
        Ok(Claimed::Mine(Claim))
    }
}
impl StoreError {
    pub fn is_of_disk(&self) -> bool {
        matches!(self, StoreError::Io{source,..} if matches!(source.kind(), std::io::ErrorKind::StorageFull|std::io::ErrorKind::QuotaExceeded|std::io::ErrorKind::ReadOnlyFilesystem))
    }
}
pub struct HashMemory;
impl HashMemory {
    pub fn hash_path(&self, p: &Path) -> Result<ContentHash, StoreError> {
        hash_path(p)
    }
    pub fn save(&self) {}
}
impl Store {
    pub fn hash_memory(&self) -> HashMemory {
        HashMemory
    }
}
