//! The job of a `model` stage, for tests: [`context`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use genius::kind::Params;
use genius::kind::model::{self, Source};
use genius::protocol::{Execution, Job};
use genius::stage::Context;

/// A job of which only the way it reports counts.
pub(super) fn context() -> Context {
    Context::silent(Job {
        stage: "policy".into(),
        params: Params::Model(model::Params {
            source: Source::Path(PathBuf::from("/nowhere")),
        }),
        numerics: None,
        execution: Execution::default(),
        inputs: BTreeMap::new(),
        input_hashes: BTreeMap::new(),
        partial: None,
        shard: None,
        notes: Vec::new(),
        output_dir: PathBuf::from("/nowhere"),
        scratch_dir: PathBuf::from("/nowhere"),
    })
}
