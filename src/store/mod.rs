//! The cache: blobs and trees by content, records of what a key produced.
//!
//! It knows bytes and hashes, not stages. The main type is [`Store`], and [`Results`] what
//! a store that lies elsewhere has in common with it; what is kept is a [`Record`] (key -> outputs), whose outputs are [`Tree`]s (folders),
//! whose files are blobs named by their BLAKE3 hash. `docs/caching.md` shows the
//! layout on disk and says what is promised.
//!
//! Whatever is missing, damaged or of another format is a miss, never an error:
//! the stage is then computed again.

mod atomic;
mod blobs;
mod budget;
mod claim;
mod clock;
mod error;
mod folder;
mod gc;
mod hash;
mod inventory;
mod job_dir;
mod layout;
mod lease;
mod memory;
mod partial;
pub mod plain;
mod process;
mod read;
mod record;
mod results;
mod run_dir;
mod sweep;
mod tree;
mod usage;
mod verify;
mod walk;

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod planted_tests;
#[cfg(test)]
mod results_tests;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_clock;
#[cfg(test)]
mod tests_gc;
#[cfg(test)]
mod tests_outputs;
#[cfg(test)]
mod tests_verify;

pub use blobs::Modes;
pub use claim::{Claim, Claimed, Holder};
pub use error::StoreError;
pub use gc::{GcKept, GcOptions, GcPlan, GcReason, Going, GoingId, Leftover, PARTIAL_AGE};
pub use hash::{ContentHash, Key, ParseHashError, Stamp, hash_path};
pub use inventory::{ReadRun, RunFacts};
pub use job_dir::{JobDir, Written};
pub use layout::{FORMAT, Store};
pub use lease::{Lease, LiveRun, Times};
pub use memory::HashMemory;
pub use partial::Partials;
pub use record::{Lookup, RECORD_FORMAT, Record};
pub use results::{Missing, Results};
pub use run_dir::{RunDir, StageLog, log_name};
pub use sweep::{GcDone, GcProgress};
pub use tree::{Tree, TreeFile};
pub use usage::{Amount, Kept, Share, TreesAmount, Usage};
pub use verify::{
    Damage, DamagedThing, KeyOf, PipelineName, Repair, Touched, VerifyProgress, VerifyReport,
};
