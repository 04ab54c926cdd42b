//! [`Usage`]: what a cache holds, how much room it takes, and for whom.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::inventory::{Inventory, RecordFile, extra_bytes, size_of};
use super::{ContentHash, Key, Store, StoreError};

/// A number of things and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: usize,
    /// Of their files.
    pub bytes: u64,
}

/// Laid-out trees: mostly links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TreesAmount {
    /// How many.
    pub count: usize,
    /// As if every file were one of its own.
    pub apparent_bytes: u64,
    /// Of the files that are no links to blobs.
    pub extra_bytes: u64,
}

/// What a stage kind or a pipeline takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Of the kind or pipeline.
    pub name: String,
    /// How many results.
    pub records: usize,
    /// Of their blobs, each once. A blob that two shares have counts in both.
    pub bytes: u64,
}

/// A result in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What it is kept under.
    pub key: Key,
    /// Name of the stage kind.
    pub kind: String,
    /// The stage that made it.
    pub stage: Option<String>,
    /// The pipeline that made it.
    pub pipeline: Option<String>,
    /// Of its outputs, some of which others may share.
    pub bytes: u64,
    /// When it was made.
    pub made: Timestamp,
    /// Start of the newest run that lists it; without one, when it was made.
    pub last_used: Timestamp,
}

/// What a cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Files by content: nearly all of the room.
    pub blobs: Amount,
    /// Laid-out trees.
    pub trees: TreesAmount,
    /// Files of records.
    pub records: Amount,
    /// Folders of runs.
    pub runs: Amount,
    /// Parts of results that stages go on from.
    pub partial: Amount,
    /// What is in `tmp/`: work under way, and leftovers.
    pub tmp: Amount,
    /// What Genius does not know.
    pub unknown: Amount,
    /// All of the above, links counting nothing.
    pub total_bytes: u64,
    /// By stage kind, the largest first.
    pub by_kind: Vec<Share>,
    /// By name of the pipelines that use it, the largest first.
    pub by_pipeline: Vec<Share>,
    /// Every result, the most recently used first.
    pub results: Vec<Kept>,
}

impl Store {
    /// Measures the cache. Reads names, sizes and records; no blobs.
    ///
    /// # Errors
    /// When a folder of the cache cannot be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let inventory = Inventory::read(self)?;
        let inodes = inventory.blob_inodes();
        let mut trees = TreesAmount {
            count: inventory.trees.len(),
            ..TreesAmount::default()
        };
        for tree in &inventory.trees {
            trees.apparent_bytes += size_of(&tree.path);
            trees.extra_bytes += extra_bytes(&tree.path, &inodes);
        }
        let blobs = amount(inventory.blobs.iter().map(|b| b.bytes));
        let records = amount(inventory.records.iter().map(|r| r.bytes));
        let runs = amount(inventory.runs.iter().map(|r| r.bytes));
        let partial = amount(inventory.partials.iter().map(|p| p.bytes));
        let tmp = super::inventory::entries(&self.tmp_dir())?;
        let tmp = amount(tmp.iter().map(|path| size_of(path)));
        let unknown = amount(inventory.unknown.iter().map(|path| size_of(path)));
        let amounts = [blobs, records, runs, partial, tmp, unknown];
        let total_bytes = amounts.iter().map(|a| a.bytes).sum::<u64>() + trees.extra_bytes;

        let users = inventory.users();
        let sizes = inventory.blobs.iter().map(|b| (b.what, b.bytes)).collect();
        let mut by_kind = Shares::new(&sizes);
        let mut by_pipeline = Shares::new(&sizes);
        let mut results = Vec::new();
        for file in &inventory.records {
            let Some(record) = file.what.record() else {
                continue;
            };
            let runs = users.get(&file.what.key).map_or(&[][..], Vec::as_slice);
            let mut names: BTreeSet<&str> = runs
                .iter()
                .filter_map(|run| run.what.pipeline.as_deref())
                .collect();
            if names.is_empty() {
                names.insert(file.what.provenance("pipeline").unwrap_or("(none)"));
            }
            for name in names {
                by_pipeline.add(name, &file.what);
            }
            by_kind.add(&record.kind, &file.what);
            let made = file.made();
            results.push(Kept {
                key: file.what.key,
                kind: record.kind.clone(),
                stage: file.what.provenance("stage").map(str::to_owned),
                pipeline: file.what.provenance("pipeline").map(str::to_owned),
                bytes: file.what.output_bytes(),
                made,
                last_used: runs
                    .iter()
                    .map(|run| run.what.started)
                    .max()
                    .unwrap_or(made),
            });
        }
        results.sort_by(|a, b| (b.last_used, b.made, a.key).cmp(&(a.last_used, a.made, b.key)));
        Ok(Usage {
            blobs,
            trees,
            records,
            runs,
            partial,
            tmp,
            unknown,
            total_bytes,
            by_kind: by_kind.sorted(),
            by_pipeline: by_pipeline.sorted(),
            results,
        })
    }
}

fn amount(sizes: impl Iterator<Item = u64>) -> Amount {
    sizes.fold(Amount::default(), |sum, bytes| Amount {
        count: sum.count + 1,
        bytes: sum.bytes + bytes,
    })
}

/// Results and blobs under names.
struct Shares<'a> {
    sizes: &'a BTreeMap<ContentHash, u64>,
    of: BTreeMap<String, (usize, BTreeSet<ContentHash>)>,
}

impl<'a> Shares<'a> {
    fn new(sizes: &'a BTreeMap<ContentHash, u64>) -> Self {
        Self {
            sizes,
            of: BTreeMap::new(),
        }
    }

    fn add(&mut self, name: &str, record: &RecordFile) {
        let (records, blobs) = self.of.entry(name.to_owned()).or_default();
        *records += 1;
        blobs.extend(record.files().map(|file| file.hash));
    }

    fn sorted(self) -> Vec<Share> {
        let mut shares: Vec<Share> = self
            .of
            .into_iter()
            .map(|(name, (records, blobs))| Share {
                name,
                records,
                bytes: blobs.iter().filter_map(|hash| self.sizes.get(hash)).sum(),
            })
            .collect();
        shares.sort_by(|a, b| (b.bytes, &a.name).cmp(&(a.bytes, &b.name)));
        shares
    }
}
