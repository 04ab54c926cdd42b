//! Keys and values in blocks: their [`Layout`], the [`Cache`], and where the rows
//! of a call are written in it ([`Places`]).

use std::marker::PhantomData;

use super::super::lanes::LANES;
use super::blocks::{BLOCK, BlockId};
use super::forward::Row;
use super::matrix::Number;

/// Where keys and values stand in a block.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    layers: usize,
    kv_heads: usize,
    heads: usize,
    head_dim: usize,
}

impl Layout {
    /// The layout for so many layers, query heads, key and value heads, and the width of a head.
    ///
    /// # Errors
    /// When one of them is 0, query heads are not a multiple of the others, the width is
    /// odd, or a size made of them overflows.
    pub fn new(
        layers: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> Result<Self, String> {
        let shape = format!(
            "{layers} layers of {heads} attention heads and {kv_heads} key and value heads of \
             width {head_dim}"
        );
        if layers == 0 || kv_heads == 0 || heads == 0 || head_dim == 0 {
            return Err(format!("{shape}: each must be at least 1"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "{shape}: the attention heads must be a multiple of the key and value heads"
            ));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(format!("{shape}: the width must be even"));
        }
        // Each size that is computed below or from a layout, in bytes of f32.
        let fits = |factors: &[usize]| {
            let bytes = factors
                .iter()
                .try_fold(size_of::<f32>(), |product, &n| product.checked_mul(n));
            bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
        };
        let padded = head_dim.checked_next_multiple_of(LANES);
        let sizes_fit = padded.is_some_and(|padded| {
            fits(&[layers, kv_heads, 2, BLOCK, padded])
                && fits(&[heads, padded])
                // With keys and values not more than three times the query heads.
                && fits(&[3, heads, head_dim])
        });
        if !sizes_fit {
            return Err(format!("{shape}: more than memory can hold"));
        }
        Ok(Self {
            layers,
            kv_heads,
            heads,
            head_dim,
        })
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Query heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Query heads that share a key and value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Width of a head in the cache, filled up with zeros.
    pub fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Numbers of one head's keys (or values) in a block.
    pub fn half(&self) -> usize {
        BLOCK * self.padded()
    }

    /// Numbers of a block.
    pub fn block_len(&self) -> usize {
        self.layers * self.kv_heads * 2 * self.half()
    }

    /// Where a layer's head begins in a block: its keys, then its values, each so that a
    /// multiplication takes `STEP` of the inner index of 16 outputs. Keys, summed over
    /// dimensions, stand as [position / 16][dimension / STEP][position % 16][dimension % STEP];
    /// values, summed over positions, as [position / STEP][dimension][position % STEP].
    ///
    /// # Panics
    /// When there is no such head.
    pub fn head(&self, layer: usize, kv_head: usize) -> usize {
        assert!(
            layer < self.layers && kv_head < self.kv_heads,
            "layer {layer}, key and value head {kv_head} of {self:?}"
        );
        (layer * self.kv_heads + kv_head) * 2 * self.half()
    }
}

/// Where the rows of a call are written: each in a place of its own.
#[derive(Debug)]
pub struct Places {
    /// Block, and position in it.
    of_rows: Vec<(usize, usize)>,
    /// Blocks up to the last one of any table.
    blocks: usize,
}

impl Places {
    /// The places of `rows` in the blocks of their sequences.
    ///
    /// # Panics
    /// When a row's sequence or a block for its position is missing, or two rows are to be
    /// written to one place.
    pub fn new(rows: &[Row], tables: &[&[BlockId]]) -> Self {
        let of_rows: Vec<(usize, usize)> = rows
            .iter()
            .map(|row| {
                let table = tables.get(row.table);
                let block = table.and_then(|table| table.get(row.position / BLOCK));
                let Some(&block) = block else {
                    panic!(
                        "position {} of sequence {} has no block ({} sequences, {} blocks)",
                        row.position,
                        row.table,
                        tables.len(),
                        table.map_or(0, |table| table.len())
                    );
                };
                (block as usize, row.position % BLOCK)
            })
            .collect();
        let mut sorted = of_rows.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|two| two[0] == two[1]) {
            let (block, at) = twice[0];
            panic!("two rows are written to position {at} of block {block}");
        }
        let last = tables.iter().flat_map(|table| table.iter()).max();
        Self {
            of_rows,
            blocks: last.map_or(0, |&id| id as usize + 1),
        }
    }

    /// How many blocks the cache needs for them and all that they see.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}

/// Keys and values of all sequences.
pub struct Cache<E> {
    layout: Layout,
    /// Each as long as a block of the layout.
    blocks: Vec<Vec<E>>,
}

impl<E: Number> Cache<E> {
    /// One without blocks.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            blocks: Vec::new(),
        }
    }

    /// Where keys and values stand in a block.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes it at least `blocks` blocks long.
    pub fn reach(&mut self, blocks: usize) {
        while self.blocks.len() < blocks {
            self.blocks
                .push(vec![E::default(); self.layout.block_len()]);
        }
    }

    /// A block's numbers.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn block(&self, id: BlockId) -> &[E] {
        let block = self.blocks.get(id as usize);
        block.unwrap_or_else(|| panic!("block {id} of {}", self.blocks.len()))
    }

    /// Copies a block, after making both.
    pub fn copy(&mut self, from: BlockId, to: BlockId) {
        let (from, to) = (from as usize, to as usize);
        self.reach(from.max(to) + 1);
        // The same block is there already.
        if let Ok([from, to]) = self.blocks.get_disjoint_mut([from, to]) {
            to.copy_from_slice(from);
        }
    }

    /// What writes each row's keys and values.
    ///
    /// # Panics
    /// When the cache is shorter than [`Places::blocks`].
    pub fn slots<'a>(&'a mut self, places: &'a Places) -> impl Iterator<Item = Slot<'a, E>> {
        assert!(
            places.blocks <= self.blocks.len(),
            "rows of {} blocks in a cache of {}",
            places.blocks,
            self.blocks.len()
        );
        let layout = self.layout;
        places.of_rows.iter().map(move |&(block, at)| Slot {
            block: self.blocks[block].as_mut_ptr(),
            at,
            layout,
            cache: PhantomData,
        })
    }
}

/// One position of one block, which nobody else reaches while it is there.
pub struct Slot<'a, E> {
    block: *mut E,
    at: usize,
    layout: Layout,
    cache: PhantomData<&'a mut [E]>,
}

// SAFETY: it stands for an exclusive borrow of its position's numbers, no two of one call
// having the same (`Places::new`), and the cache is borrowed while it is there.
unsafe impl<E: Send> Send for Slot<'_, E> {}

impl<E: Number> Slot<'_, E> {
    /// Writes the key and value of a layer's head.
    ///
    /// # Panics
    /// When there is no such head, or they are not [`Layout::head_dim`] numbers each.
    pub fn write(&mut self, layer: usize, kv_head: usize, key: &[f32], value: &[f32]) {
        let Self { layout, at, .. } = *self;
        assert!(
            key.len() == layout.head_dim && value.len() == layout.head_dim,
            "a key of {} and a value of {} numbers for heads of width {}",
            key.len(),
            value.len(),
            layout.head_dim
        );
        let (head, half, padded) = (layout.head(layer, kv_head), layout.half(), layout.padded());
        let step = E::STEP;
        let keys = head + at / LANES * LANES * padded + at % LANES * step;
        let values = head + half + at / step * step * padded + at % step;
        // SAFETY: `at` is below BLOCK and the head one of the layout, whose blocks are
        // `block_len` numbers long: both formulas number the places of a head's half, by
        // position and dimension below `padded`. This position is the slot's alone.
        unsafe {
            for (d, v) in key.iter().enumerate() {
                self.block
                    .add(keys + d / step * LANES * step + d % step)
                    .write(E::narrow(*v));
            }
            for (d, v) in value.iter().enumerate() {
                self.block.add(values + d * step).write(E::narrow(*v));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Bf16;
    use super::super::testing::panic_message;
    use super::*;

    fn row(table: usize, position: usize) -> Row {
        Row {
            token: 0,
            position,
            table,
        }
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        let most = usize::MAX;
        for (layers, heads, kv_heads, head_dim) in [
            // 2^64 + 8 numbers, which wrap to 8.
            (1, 3_074_457_345_618_258_604, 1, 6),
            (1, 3_074_457_345_618_258_604, 3_074_457_345_618_258_604, 6),
            (1, 1 << 63, 1, 2),
            (1, 1 << 32, 1 << 32, 1 << 32),
            (1, 1 << 60, 1, 2),
            (1 << 40, 4, 2, 1 << 20),
            (most, 2, 1, 16),
            (1, most, most, 2),
            (1, 2, 1, most - 1),
            (1, 1, 1, most - 15),
            (1, 1 << 29, 1, 1 << 31),
        ] {
            let error = Layout::new(layers, heads, kv_heads, head_dim).unwrap_err();
            assert!(error.ends_with("more than memory can hold"), "{error}");
        }
        for (layers, heads, kv_heads, head_dim, words) in [
            (0, 2, 1, 16, "at least 1"),
            (1, 0, 1, 16, "at least 1"),
            (1, 2, 0, 16, "at least 1"),
            (1, 2, 1, 0, "at least 1"),
            (1, 3, 2, 16, "a multiple"),
            (1, 1, 2, 16, "a multiple"),
            (1, 2, 1, 15, "even"),
            (1, 2, 1, most, "even"),
        ] {
            let error = Layout::new(layers, heads, kv_heads, head_dim).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn two_rows_in_one_place_are_refused() {
        let message = panic_message(|| {
            Places::new(&[row(0, 3), row(0, 4), row(0, 3)], &[&[5]]);
        });
        assert_eq!(message, "two rows are written to position 3 of block 5");
        // Of two sequences that share a block, one at most may write to a place.
        let message = panic_message(|| {
            Places::new(&[row(0, 70), row(1, 6)], &[&[5, 7], &[7]]);
        });
        assert_eq!(message, "two rows are written to position 6 of block 7");
        let places = Places::new(&[row(0, 70), row(1, 7)], &[&[5, 7], &[7]]);
        assert_eq!(places.blocks(), 8);
        assert_eq!(Places::new(&[], &[]).blocks(), 0);
    }

    #[test]
    fn a_position_without_a_block_is_refused() {
        for (table, position) in [(0, BLOCK), (0, usize::MAX), (1, 0), (usize::MAX, 0)] {
            let message = panic_message(|| {
                Places::new(&[row(0, 0), row(table, position)], &[&[0]]);
            });
            assert!(message.contains("has no block"), "{message}");
        }
    }

    #[test]
    fn a_cache_that_is_too_short_is_refused() {
        let mut cache = Cache::<Bf16>::new(Layout::new(1, 2, 1, 6).unwrap());
        let places = Places::new(&[row(0, 0)], &[&[2]]);
        cache.reach(2);
        let message = panic_message(|| {
            cache.slots(&places).count();
        });
        assert_eq!(message, "rows of 3 blocks in a cache of 2");
        let message = panic_message(|| {
            cache.block(2);
        });
        assert_eq!(message, "block 2 of 2");
        cache.copy(0, 2);
        cache.copy(2, 2);
        assert_eq!(cache.block(2).len(), cache.layout().block_len());
    }

    /// Every place of a block is one head's, position's and dimension's.
    #[test]
    fn writing_fills_a_block_without_overlaps() {
        fn check<E: Number>(head_dim: usize) {
            let layout = Layout::new(2, 4, 2, head_dim).unwrap();
            let mut cache = Cache::<E>::new(layout);
            cache.reach(1);
            let rows: Vec<Row> = (0..BLOCK).map(|at| row(0, at)).collect();
            let places = Places::new(&rows, &[&[0]]);
            for layer in 0..2 {
                for kv_head in 0..2 {
                    for mut slot in cache.slots(&places) {
                        let ones = vec![1.0; head_dim];
                        slot.write(layer, kv_head, &ones, &ones);
                    }
                }
            }
            let written = cache.block(0).iter().filter(|n| n.widen() == 1.0).count();
            assert_eq!(written, 2 * 2 * 2 * BLOCK * head_dim);
        }
        for head_dim in [2, 6, 16, 24, 64] {
            check::<f32>(head_dim);
            check::<Bf16>(head_dim);
        }
    }

    #[test]
    fn keys_and_heads_of_other_shapes_are_refused() {
        let mut cache = Cache::<f32>::new(Layout::new(2, 4, 2, 6).unwrap());
        cache.reach(1);
        let places = Places::new(&[row(0, 63)], &[&[0]]);
        for (layer, kv_head, key, value, words) in [
            (2, 0, 6, 6, "layer 2"),
            (0, 2, 6, 6, "head 2"),
            (usize::MAX, 0, 6, 6, "layer"),
            (0, usize::MAX, 6, 6, "head"),
            (0, 0, 5, 6, "a key of 5"),
            (0, 0, 6, 7, "a value of 7"),
            (0, 0, 16, 16, "a key of 16"),
        ] {
            let message = panic_message(|| {
                for mut slot in cache.slots(&places) {
                    slot.write(layer, kv_head, &vec![1.0; key], &vec![1.0; value]);
                }
            });
            assert!(message.contains(words), "{message}");
        }
        assert!(cache.block(0).iter().all(|n| *n == 0.0));
    }
}
