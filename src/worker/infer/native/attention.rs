//! Attention of one token over its own sequence, in plain Rust: [`attend`].
//!
//! A query sees exactly its own positions, in ascending order, with sums in a
//! fixed order: nothing of it depends on what else is computed, or when.

use super::super::lanes::{F32x16, LANES};
use super::blocks::{BLOCK, BlockId};
use super::cache::{Cache, Layout};
use super::matrix::Number;

/// Query heads that share a pass over the keys and values.
const TOGETHER: usize = 4;

/// Attention of the query heads of one key-value head at `position` of the sequence in
/// the blocks `table`.
///
/// `queries` [heads / kv_heads, [`Layout::padded`]] are scaled already; `scores` is room
/// for a pass; `out` is called with (query head of the group, dimension, 16 numbers).
///
/// # Panics
/// When there is no such head, a block up to `position` is missing, or there are more or
/// fewer queries.
#[expect(clippy::too_many_arguments, reason = "the places of one inner loop")]
pub fn attend<E: Number>(
    cache: &Cache<E>,
    table: &[BlockId],
    layer: usize,
    kv_head: usize,
    position: usize,
    queries: &[E],
    scores: &mut Vec<f32>,
    mut out: impl FnMut(usize, usize, F32x16),
) {
    let layout = cache.layout();
    let (group, padded) = (layout.group(), layout.padded());
    assert_eq!(
        queries.len(),
        group * padded,
        "attention takes {group} queries of {padded} numbers"
    );
    let at = layout.head(layer, kv_head);
    let last = position / BLOCK;
    assert!(
        last < table.len(),
        "position {position} of a sequence in {} blocks of {BLOCK}",
        table.len()
    );
    let blocks = Seen {
        cache,
        table: &table[..=last],
    };
    for &id in blocks.table {
        assert_eq!(
            cache.block(id).len(),
            layout.block_len(),
            "block {id} has another layout"
        );
    }
    let mut first = 0;
    while first < group {
        let count = (group - first).min(TOGETHER);
        let call = match count {
            1 => pass::<E, 1>,
            2 => pass::<E, 2>,
            3 => pass::<E, 3>,
            _ => pass::<E, TOGETHER>,
        };
        let queries = &queries[first * padded..][..count * padded];
        // SAFETY: the blocks of positions up to `position` are there and have the layout's
        // length, the head is one of the layout, and there are `count` queries.
        unsafe {
            call(
                blocks,
                at,
                position + 1,
                queries,
                scores,
                &mut |h, d, lanes| out(first + h, d, lanes),
            );
        }
        first += count;
    }
}

/// The blocks that a token sees.
struct Seen<'a, E> {
    cache: &'a Cache<E>,
    table: &'a [BlockId],
}

impl<E> Clone for Seen<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Seen<'_, E> {}

impl<E: Number> Seen<'_, E> {
    fn layout(&self) -> &Layout {
        self.cache.layout()
    }

    /// Where a block of the sequence begins.
    #[inline(always)]
    fn block(&self, number: usize) -> *const E {
        self.cache.block(self.table[number]).as_ptr()
    }
}

/// `H` query heads over `len` positions of the head at `at`.
///
/// # Safety
/// `blocks` hold `len` positions, at least one, in blocks of their layout's length; `at` is
/// where one of its heads begins; `queries` are `H` times [`Layout::padded`] numbers.
unsafe fn pass<E: Number, const H: usize>(
    blocks: Seen<'_, E>,
    at: usize,
    len: usize,
    queries: &[E],
    scores: &mut Vec<f32>,
    out: &mut dyn FnMut(usize, usize, F32x16),
) {
    let layout = *blocks.layout();
    let padded = layout.padded();
    let room = len.next_multiple_of(LANES);
    scores.resize(H * room, 0.0);
    let mut highest = [F32x16::splat(f32::NEG_INFINITY); H];
    // Several sums side by side hide a multiplication's latency.
    let mut sixteen = 0;
    while sixteen < room / LANES {
        let (block, inside) = (sixteen * LANES / BLOCK, sixteen * LANES % BLOCK);
        let left = (room / LANES - sixteen).min((BLOCK - inside) / LANES);
        let to = &mut scores[sixteen * LANES..];
        // SAFETY: as many times 16 positions of the block are left, those after the
        // sequence among them; and there are `H` queries.
        sixteen += unsafe {
            let keys = blocks.block(block).add(at + inside * padded);
            match left {
                1 => score::<E, H, 1>(&layout, keys, queries, to, room),
                2 | 3 => score::<E, H, 2>(&layout, keys, queries, to, room),
                _ => score::<E, H, 4>(&layout, keys, queries, to, room),
            }
        };
    }
    for (h, highest) in highest.iter_mut().enumerate() {
        let row = &mut scores[h * room..(h + 1) * room];
        // Whatever stands after the sequence.
        row[len..].fill(f32::NEG_INFINITY);
        for sixteen in row.as_chunks().0 {
            *highest = highest.max(F32x16::from_array(sixteen));
        }
    }
    let mut shares = [F32x16::splat(0.0); H];
    for h in 0..H {
        let highest = F32x16::splat(highest[h].highest());
        let mut total = F32x16::splat(0.0);
        let row = &mut scores[h * room..(h + 1) * room];
        for sixteen in row.as_chunks_mut().0 {
            F32x16::from_array(sixteen)
                .sub(highest)
                .exp()
                .write(sixteen);
        }
        row[len..].fill(0.0);
        // From here on they are as products take them: numbers no wider, in the same place.
        let wide = row.as_mut_ptr();
        let narrow = wide.cast::<E>();
        for first in (0..room).step_by(LANES) {
            // SAFETY: `row` is `room` f32 numbers, whole times 16. An `E` fits where an f32
            // stands (`Number`), so what is written ends no later than what was just read.
            unsafe {
                let weight = F32x16::load(wide.add(first));
                total = total.add(weight);
                E::store(weight, narrow.add(first));
            }
        }
        shares[h] = F32x16::splat(1.0 / total.sum());
    }
    let weights = scores.as_ptr();
    let values = at + layout.half();
    let mut d = 0;
    while d < padded {
        // SAFETY: four times or once 16 dimensions are left (`padded` is whole times 16), and
        // every head's weights were narrowed in place above.
        unsafe {
            if padded - d >= 4 * LANES {
                mix::<E, H, 4>(blocks, values, padded, len, weights, &shares, d, out);
                d += 4 * LANES;
            } else {
                mix::<E, H, 1>(blocks, values, padded, len, weights, &shares, d, out);
                d += LANES;
            }
        }
    }
}

/// Scores of `S` times 16 positions, head h's to `to[h * room..]`; `S`.
///
/// # Safety
/// `keys` are those of `S` times 16 positions of a head; `queries` are `H` times
/// [`Layout::padded`] numbers.
#[inline(always)]
unsafe fn score<E: Number, const H: usize, const S: usize>(
    layout: &Layout,
    keys: *const E,
    queries: &[E],
    to: &mut [f32],
    room: usize,
) -> usize {
    let padded = layout.padded();
    let mut sums = [[F32x16::splat(0.0); S]; H];
    for d in (0..layout.head_dim()).step_by(E::STEP) {
        // SAFETY: `d` and what a step takes with it are below `padded`, which is whole
        // steps: inside the keys of `S` times 16 positions and inside a query.
        unsafe {
            for (h, sums) in sums.iter_mut().enumerate() {
                let q = queries.as_ptr().add(h * padded + d);
                for (s, sum) in sums.iter_mut().enumerate() {
                    *sum = E::multiply(keys.add((s * padded + d) * LANES), q, *sum);
                }
            }
        }
    }
    for (h, sums) in sums.into_iter().enumerate() {
        let to = &mut to[h * room..][..S * LANES];
        for (to, sum) in to.as_chunks_mut().0.iter_mut().zip(sums) {
            sum.write(to);
        }
    }
    S
}

/// The values' weighted sum in `C` times 16 dimensions. Head h's `weights` begin at
/// h times `len` up to 16 f32 numbers.
///
/// # Safety
/// `blocks` as in [`pass`], `at` where a head's values begin in them; at every head's
/// `weights` stand `len` numbers of `E`; `dimension` and `C` times 16 from it on are below
/// `padded`, the layout's.
#[expect(clippy::too_many_arguments, reason = "the places of one inner loop")]
#[inline(always)]
unsafe fn mix<E: Number, const H: usize, const C: usize>(
    blocks: Seen<'_, E>,
    at: usize,
    padded: usize,
    len: usize,
    weights: *const f32,
    shares: &[F32x16; H],
    dimension: usize,
    out: &mut dyn FnMut(usize, usize, F32x16),
) {
    let room = len.next_multiple_of(LANES);
    let mut sums = [[F32x16::splat(0.0); C]; H];
    for b in 0..len.div_ceil(BLOCK) {
        let (first, block) = (b * BLOCK, blocks.block(b));
        let here = BLOCK.min(len - first);
        let whole = here - here % E::STEP;
        for position in (0..whole).step_by(E::STEP) {
            // SAFETY: `position` and what a step takes with it are below `here`: inside the
            // values of the block's positions, and among the weights of the head.
            unsafe {
                let values = block.add(at + position * padded + dimension * E::STEP);
                for (h, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.add(h * room).cast::<E>().add(first + position);
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum = E::multiply(values.add(c * LANES * E::STEP), weight, *sum);
                    }
                }
            }
        }
        if whole < here {
            // The last of an odd number: what stands after it may be anything.
            // SAFETY: as above; a block is whole steps, so the values after it are there.
            unsafe {
                let values = block.add(at + whole * padded + dimension * E::STEP);
                for (h, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.add(h * room).cast::<E>().add(first + whole);
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum = E::multiply_first(values.add(c * LANES * E::STEP), weight, *sum);
                    }
                }
            }
        }
    }
    for (h, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            out(h, dimension + c * LANES, sum.mul(shares[h]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::Places;
    use super::super::forward::Row;
    use super::super::matrix::Bf16;
    use super::super::testing::panic_message;
    use super::*;
    use genius::method::random::Stream;

    fn row(position: usize) -> Row {
        Row {
            token: 0,
            position,
            table: 0,
        }
    }

    /// The mean of values by the softmax of q k, in f64 over numbers as rounded in the cache.
    fn softmax_attention<E: Number>(q: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f64> {
        let rounded = |x: f32| f64::from(E::narrow(x).widen());
        let dot = |(a, b): (&f32, &f32)| rounded(*a) * rounded(*b);
        let weights: Vec<f64> = keys
            .iter()
            .map(|k| q.iter().zip(k).map(dot).sum::<f64>().exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let mean = |d: usize| {
            let terms = weights.iter().zip(values);
            terms.map(|(w, v)| w * rounded(v[d])).sum::<f64>() / total
        };
        (0..q.len()).map(mean).collect()
    }

    /// Against softmax attention in f64, at every length, with garbage after the sequence.
    fn check<E: Number>(heads: usize, kv_heads: usize, head_dim: usize) {
        let layout = Layout::new(2, heads, kv_heads, head_dim).unwrap();
        let stream = Stream::new(3, "attention test", "", &[]);
        let number = |a: usize, b: usize| (stream.uniform(a as u64, b as u64) * 2.0 - 1.0) as f32;
        let mut cache = Cache::<E>::new(layout);
        cache.reach(4);
        let table: &[BlockId] = &[2, 0, 3];
        let garbage = vec![f32::NAN; head_dim];
        for position in 0..3 * BLOCK {
            let places = Places::new(&[row(position)], &[table]);
            for mut slot in cache.slots(&places) {
                for (layer, kv_head) in (0..2).flat_map(|l| (0..kv_heads).map(move |k| (l, k))) {
                    slot.write(layer, kv_head, &garbage, &garbage);
                }
            }
        }
        // What the rounding of weights moves a mean of numbers below 1 by.
        let tolerance = if E::STEP == 1 { 1e-5 } else { 4e-3 };
        let (mut keys, mut values) = (vec![], vec![]);
        for len in 1..=2 * BLOCK + 9 {
            let position = len - 1;
            let key: Vec<f32> = (0..head_dim).map(|d| number(3 * position, d)).collect();
            let value: Vec<f32> = (0..head_dim).map(|d| number(3 * position + 1, d)).collect();
            let places = Places::new(&[row(position)], &[table]);
            for mut slot in cache.slots(&places) {
                for kv_head in 0..kv_heads {
                    slot.write(1, kv_head, &key, &value);
                }
            }
            keys.push(key);
            values.push(value);
            let group = heads / kv_heads;
            let queries: Vec<f32> = (0..group * head_dim)
                .map(|d| number(3 * position + 2, d))
                .collect();
            let mut narrow = vec![E::default(); group * layout.padded()];
            for (q, to) in queries
                .chunks(head_dim)
                .zip(narrow.chunks_mut(layout.padded()))
            {
                for (q, to) in q.iter().zip(to) {
                    *to = E::narrow(*q);
                }
            }
            let mut got = vec![0.0; group * layout.padded()];
            attend(
                &cache,
                table,
                1,
                kv_heads - 1,
                position,
                &narrow,
                &mut Vec::new(),
                |h, d, lanes| {
                    got[h * layout.padded() + d..][..LANES].copy_from_slice(&lanes.to_array());
                },
            );
            for h in 0..group {
                let q = &queries[h * head_dim..][..head_dim];
                for (d, want) in softmax_attention::<E>(q, &keys, &values).iter().enumerate() {
                    let got = f64::from(got[h * layout.padded() + d]);
                    assert!(
                        (got - want).abs() < tolerance,
                        "length {len}: {got}, expected {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn attention_is_softmax_over_the_positions_so_far() {
        check::<f32>(4, 2, 16);
        check::<f32>(9, 3, 64);
        check::<Bf16>(9, 3, 64);
        check::<Bf16>(5, 1, 24);
        check::<f32>(2, 2, 80);
    }

    #[test]
    fn queries_and_places_of_other_shapes_are_refused() {
        fn check<E: Number>() {
            let mut cache = Cache::<E>::new(Layout::new(2, 4, 2, 24).unwrap());
            cache.reach(2);
            let attend = |table: &[BlockId], layer, kv_head, position, queries: usize| {
                attend(
                    &cache,
                    table,
                    layer,
                    kv_head,
                    position,
                    &vec![E::default(); queries],
                    &mut Vec::new(),
                    |_, _, _| {},
                );
            };
            attend(&[1, 0], 1, 1, 2 * BLOCK - 1, 2 * 32);
            let far = usize::MAX;
            for (table, layer, kv_head, position, queries, words) in [
                (&[1, 0][..], 2, 0, 0, 64, "layer 2"),
                (&[1, 0], far, 0, 0, 64, "layer"),
                (&[1, 0], 0, 2, 0, 64, "head 2"),
                (&[1, 0], 0, far, 0, 64, "head"),
                (&[1, 0], 0, 0, 2 * BLOCK, 64, "position 128"),
                (&[1, 0], 0, 0, far, 64, "position"),
                (&[], 0, 0, 0, 64, "position 0"),
                (&[1, 2], 0, 0, BLOCK, 64, "block 2 of 2"),
                (&[u32::MAX], 0, 0, 0, 64, "of 2"),
                (&[1, 0], 0, 0, 0, 0, "takes 2 queries of 32 numbers"),
                (&[1, 0], 0, 0, 0, 48, "takes 2 queries"),
                (&[1, 0], 0, 0, 0, 63, "takes 2 queries"),
                (&[1, 0], 0, 0, 0, 96, "takes 2 queries"),
            ] {
                let message = panic_message(|| attend(table, layer, kv_head, position, queries));
                assert!(message.contains(words), "{message}");
            }
        }
        check::<f32>();
        check::<Bf16>();
    }
}
