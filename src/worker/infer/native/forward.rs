//! What computes logits for the scheduler: [`Forward`].

use super::blocks::BlockId;

/// One token to be run through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its id, inside the vocabulary.
    pub token: u32,
    /// Its position in its sequence.
    pub position: usize,
    /// Number of its sequence among the block tables.
    pub table: usize,
}

/// A model with a key-value cache in blocks of [`super::blocks::BLOCK`] positions.
pub trait Forward {
    /// Rows of a call at most.
    fn most_rows(&self) -> usize;

    /// Bytes of a block.
    fn block_bytes(&self) -> usize;

    /// Numbers of a row of logits.
    fn vocab(&self) -> usize;

    /// Calls `task` with every number below `tasks`, on the threads it computes with.
    fn share_out(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync));

    /// Copies the keys and values of a block.
    fn copy_block(&mut self, from: BlockId, to: BlockId);

    /// Runs `rows`: writes their keys and values into the blocks of their
    /// sequences (`tables`) and puts the logits of the rows numbered `wanted`
    /// into `logits`, [wanted, vocab]. A row sees the positions up to its own,
    /// which are in the cache or among the rows.
    ///
    /// # Errors
    /// In its own words, when it is broken.
    fn run(
        &mut self,
        rows: &[Row],
        tables: &[&[BlockId]],
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), String>;
}
