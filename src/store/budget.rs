//! [`Budget`]: what a size leaves room for: which blobs go with a record.

use std::collections::{BTreeMap, BTreeSet};

use super::ContentHash;
use super::gc::{Hold, Named};
use super::inventory::{Entry, FileTimes, Inventory, RecordFile};

/// Blobs by how many of the records that stay name them.
pub(super) struct Budget<'a> {
    /// Of the blobs that stay.
    pub bytes: u64,
    /// Size, and number of records that name it. Only what may go at all.
    blobs: BTreeMap<&'a ContentHash, (u64, usize)>,
}

impl<'a> Budget<'a> {
    pub fn new(
        inventory: &'a Inventory,
        staying: &[(&'a Entry<RecordFile>, Hold)],
        young: &dyn Fn(&FileTimes) -> bool,
    ) -> Self {
        let mut fixed = Named::default();
        let mut holders: BTreeMap<ContentHash, usize> = BTreeMap::new();
        for (file, hold) in staying {
            if *hold == Hold::Listed {
                for hash in blobs_of(&file.what) {
                    *holders.entry(hash).or_default() += 1;
                }
            } else {
                fixed.add(&file.what.content);
            }
        }
        let mut bytes = 0;
        let mut blobs = BTreeMap::new();
        for blob in &inventory.blobs {
            let is_fixed = young(&blob.times) || fixed.blobs.contains(&blob.what);
            let held = holders.get(&blob.what).copied().unwrap_or(0);
            if is_fixed || held > 0 {
                bytes += blob.bytes;
            }
            if !is_fixed {
                blobs.insert(&blob.what, (blob.bytes, held));
            }
        }
        Self { bytes, blobs }
    }

    /// Takes a record away, unless that could free nothing.
    pub fn evict(&mut self, file: &RecordFile) -> bool {
        let hashes = blobs_of(file);
        let frees = |hash| self.blobs.get(hash).is_some_and(|(bytes, _)| *bytes > 0);
        if !hashes.iter().any(frees) {
            return false;
        }
        for hash in &hashes {
            if let Some((bytes, held)) = self.blobs.get_mut(hash) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    self.bytes -= *bytes;
                }
            }
        }
        true
    }
}

/// The blobs that a record names, each once.
fn blobs_of(file: &RecordFile) -> BTreeSet<ContentHash> {
    let mut named = Named::default();
    named.add(&file.content);
    named.blobs
}
