//! Beams by their tokens: which are the same ([`distinct_parents`]), and what a
//! candidate would make of its own ([`grown`]).

use crate::artifact::{BeamRecord, CandidateRecord};

/// For every beam the index of the first one with the same tokens. Parents are
/// compared by it: the M empty beams of step 1 are one parent.
pub fn distinct_parents(beams: &[BeamRecord]) -> Vec<u32> {
    beams
        .iter()
        .enumerate()
        .map(|(i, beam)| {
            let first = beams.iter().position(|b| b.token_ids == beam.token_ids);
            first.unwrap_or(i) as u32
        })
        .collect()
}

/// Tokens of the beam that a candidate would become: its parent's and its step's.
/// A missing parent (in a hand-made file) has none.
pub fn grown(beams: &[BeamRecord], c: &CandidateRecord) -> Vec<u32> {
    let parent = beams.get(c.parent as usize);
    let before = parent.map(|b| b.token_ids.as_slice()).unwrap_or_default();
    [before, &c.step_token_ids].concat()
}
