//! Which blocks of the key-value cache belong to whom: [`Blocks`].
//!
//! The keys and values of a token are a function of it and those before it, so
//! sequences that begin alike share the blocks that they filled alike, and a
//! finished sequence's blocks are kept for later ones until room is needed.

use std::collections::VecDeque;

/// Positions in a block.
pub const BLOCK: usize = 64;

/// Finished sequences kept at most; more only make the search longer.
const MOST_KEPT: usize = 1024;

/// Number of a block.
pub type BlockId = u32;

/// A sequence whose keys and values are known.
#[derive(Debug)]
struct Kept {
    tokens: Vec<u32>,
    blocks: Vec<BlockId>,
}

/// Who holds which blocks, and finished sequences that may be of use, longest unused first.
#[derive(Debug)]
pub struct Blocks {
    /// Holders of every block that was ever given out.
    holders: Vec<u32>,
    free: Vec<BlockId>,
    most: usize,
    kept: VecDeque<Kept>,
    keep: bool,
}

impl Blocks {
    /// At most `most` blocks at a time; `keep`: whether finished sequences are kept.
    pub fn new(most: usize, keep: bool) -> Self {
        Self {
            holders: Vec::new(),
            free: Vec::new(),
            most,
            kept: VecDeque::new(),
            keep,
        }
    }

    /// A block of one's own; nothing if all are held by sequences under way.
    pub fn take(&mut self) -> Option<BlockId> {
        loop {
            if let Some(id) = self.free.pop() {
                self.holders[id as usize] = 1;
                return Some(id);
            }
            if self.holders.len() < self.most {
                return Some(self.take_more());
            }
            let oldest = self.kept.pop_front()?;
            self.release(&oldest.blocks);
        }
    }

    /// A block of one's own beyond the limit: for a sequence that is alone and longer.
    ///
    /// # Panics
    /// When there are more blocks than numbers for them.
    pub fn take_more(&mut self) -> BlockId {
        let Ok(id) = BlockId::try_from(self.holders.len()) else {
            panic!(
                "{} blocks are more than can be numbered",
                self.holders.len()
            );
        };
        self.holders.push(1);
        id
    }

    /// One more holder of a block.
    ///
    /// # Panics
    /// When nobody holds it.
    pub fn share(&mut self, id: BlockId) {
        *self.holders_of(id) += 1;
    }

    /// One holder less of each.
    ///
    /// # Panics
    /// When nobody holds one of them: it may be another sequence's by now.
    pub fn release(&mut self, blocks: &[BlockId]) {
        for &id in blocks {
            let holders = self.holders_of(id);
            *holders -= 1;
            if *holders == 0 {
                self.free.push(id);
            }
        }
    }

    fn holders_of(&mut self, id: BlockId) -> &mut u32 {
        match self.holders.get_mut(id as usize) {
            Some(holders) if *holders > 0 => holders,
            _ => panic!("block {id} is free already"),
        }
    }

    /// Keeps what a finished sequence held, `tokens` being those whose keys and values are there.
    pub fn keep(&mut self, tokens: Vec<u32>, blocks: Vec<BlockId>) {
        if !self.keep || tokens.is_empty() {
            self.release(&blocks);
            return;
        }
        self.kept.push_back(Kept { tokens, blocks });
        if self.kept.len() > MOST_KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.release(&oldest.blocks);
        }
    }

    /// The kept sequence that begins most like `tokens`: how many are alike, and
    /// its blocks. It counts as used.
    pub fn longest(&mut self, tokens: &[u32]) -> (usize, &[BlockId]) {
        let mut best = (0, 0);
        for (i, kept) in self.kept.iter().enumerate() {
            let alike = alike(&kept.tokens, tokens);
            if alike > best.0 {
                best = (alike, i);
            }
        }
        if best.0 == 0 {
            return (0, &[]);
        }
        if let Some(kept) = self.kept.remove(best.1) {
            self.kept.push_back(kept);
        }
        (best.0, self.kept.back().map_or(&[], |kept| &kept.blocks))
    }

    /// Blocks that a sequence under way holds.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        let kept: std::collections::BTreeSet<u32> = self
            .kept
            .iter()
            .flat_map(|kept| kept.blocks.iter().copied())
            .collect();
        self.holders.len() - self.free.len() - kept.len()
    }
}

/// How many tokens two sequences have in common at their beginning.
pub fn alike(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::super::testing::panic_message;
    use super::*;

    #[test]
    fn a_block_that_nobody_holds_is_refused() {
        let mut blocks = Blocks::new(2, true);
        let a = blocks.take().unwrap();
        blocks.release(&[a]);
        for id in [a, 1, BlockId::MAX] {
            let words = format!("block {id} is free already");
            assert_eq!(panic_message(|| blocks.release(&[id])), words);
            assert_eq!(panic_message(|| blocks.share(id)), words);
        }
        // Given back once, it is given out once.
        assert_eq!((blocks.take(), blocks.take()), (Some(a), Some(1)));
        assert_eq!(blocks.take(), None);
    }

    #[test]
    fn a_block_is_given_out_again_when_its_last_holder_lets_go() {
        let mut blocks = Blocks::new(2, true);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        assert_eq!(blocks.take(), None);
        blocks.share(a);
        blocks.release(&[a]);
        assert_eq!(blocks.take(), None);
        blocks.release(&[a]);
        assert_eq!(blocks.take(), Some(a));
        blocks.release(&[a, b]);
        assert_eq!(blocks.held(), 0);
    }

    #[test]
    fn what_was_unused_for_longest_makes_room() {
        let mut blocks = Blocks::new(2, true);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        blocks.keep(vec![1, 2, 3], vec![a]);
        blocks.keep(vec![1, 5], vec![b]);
        assert_eq!(blocks.longest(&[1, 2, 9]), (2, &[a][..]));
        assert_eq!(blocks.longest(&[7]), (0, &[][..]));
        assert_eq!(blocks.take(), Some(b));
        assert_eq!(blocks.longest(&[1, 5]), (1, &[a][..]));
        assert_eq!(blocks.take(), Some(a));
        assert_eq!(blocks.take(), None);
    }

    #[test]
    fn nothing_is_kept_when_told_so() {
        let mut blocks = Blocks::new(1, false);
        let a = blocks.take().unwrap();
        blocks.keep(vec![1], vec![a]);
        assert_eq!(blocks.longest(&[1]), (0, &[][..]));
        assert_eq!(blocks.held(), 0);
    }
}
