//! One query of a rollout as people read it: [`View`] (what is known of it, also
//! as JSON), [`tree`] (the same as text), [`QuerySummary`] and [`list`] (all queries,
//! a line each), and [`find`] (which of them a person means).

mod find;
mod list;
mod text;
mod tree;
mod view;

pub use find::{QueryError, find};
pub use list::{QueryHead, QuerySummary, list};
pub use tree::{Style, tree};
pub use view::{
    BeamView, CandidateView, Mark, PairView, PairsOf, PairsView, ScoreTau, StepView, View,
};
