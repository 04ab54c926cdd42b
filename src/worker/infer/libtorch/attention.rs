//! Attention of one token over its own sequence, in plain Rust: [`attend`], and
//! the layout of a cache block ([`Layout`]).
//!
//! A query sees exactly its own positions, in ascending order, with sums in a
//! fixed order: nothing of it depends on what else is computed, or when.

use super::super::lanes::{F32x16, LANES};
use super::blocks::BLOCK;
use super::matrix::Number;

/// Query heads that share a pass over the keys and values.
const TOGETHER: usize = 4;

/// Where keys and values stand in a block.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Layout {
    /// Width of a head in the cache, filled up with zeros.
    pub fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Numbers of one head's keys (or values) in a block.
    fn half(&self) -> usize {
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
    fn head(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.kv_heads + kv_head) * 2 * self.half()
    }

    /// Writes a position's key and value (of [`Layout::head_dim`] numbers).
    ///
    /// # Safety
    /// `block` is a block of this layout; nobody else touches this position.
    pub unsafe fn write<E: Number>(
        &self,
        block: *mut E,
        layer: usize,
        kv_head: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let at = position % BLOCK;
        // SAFETY: inside the block by the layout.
        unsafe {
            let keys = block.add(self.head(layer, kv_head));
            let step = E::STEP;
            let values = keys.add(self.half() + at / step * step * self.padded() + at % step);
            let keys = keys.add(at / LANES * LANES * self.padded() + at % LANES * step);
            for (d, v) in key.iter().enumerate() {
                keys.add(d / step * LANES * step + d % step)
                    .write(E::narrow(*v));
            }
            for (d, v) in value.iter().enumerate() {
                values.add(d * step).write(E::narrow(*v));
            }
        }
    }
}

/// Attention of the query heads of one key-value head at `position`.
///
/// `queries` [heads / kv_heads, [`Layout::padded`]] are scaled already; `scores` is room
/// for a pass; `out` is called with (query head of the group, dimension, 16 numbers).
///
/// # Safety
/// `blocks` are blocks of this layout, written up to `position`, at which nobody writes now.
#[expect(clippy::too_many_arguments, reason = "the places of one inner loop")]
pub unsafe fn attend<E: Number>(
    layout: &Layout,
    blocks: &[*const E],
    layer: usize,
    kv_head: usize,
    position: usize,
    queries: &[E],
    scores: &mut Vec<f32>,
    mut out: impl FnMut(usize, usize, F32x16),
) {
    let group = queries.len() / layout.padded();
    let mut first = 0;
    while first < group {
        let count = (group - first).min(TOGETHER);
        let call = match count {
            1 => pass::<E, 1>,
            2 => pass::<E, 2>,
            3 => pass::<E, 3>,
            _ => pass::<E, TOGETHER>,
        };
        let queries = &queries[first * layout.padded()..][..count * layout.padded()];
        let at = layout.head(layer, kv_head);
        // SAFETY: the caller's promise.
        unsafe {
            call(
                layout,
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

/// `H` query heads over `len` positions of the head at `at`.
///
/// # Safety
/// As [`attend`].
unsafe fn pass<E: Number, const H: usize>(
    layout: &Layout,
    blocks: &[*const E],
    at: usize,
    len: usize,
    queries: &[E],
    scores: &mut Vec<f32>,
    out: &mut dyn FnMut(usize, usize, F32x16),
) {
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
        // SAFETY: as many times 16 positions of the block.
        sixteen += unsafe {
            let keys = blocks[block].add(at + inside * padded);
            match left {
                1 => score::<E, H, 1>(layout, keys, queries, to, room),
                2 | 3 => score::<E, H, 2>(layout, keys, queries, to, room),
                _ => score::<E, H, 4>(layout, keys, queries, to, room),
            }
        };
    }
    for (h, highest) in highest.iter_mut().enumerate() {
        let row = &mut scores[h * room..(h + 1) * room];
        // Whatever stands behind the sequence.
        row[len..].fill(f32::NEG_INFINITY);
        for chunk in row.chunks_exact(LANES) {
            // SAFETY: 16 numbers.
            *highest = highest.max(unsafe { F32x16::load(chunk.as_ptr()) });
        }
    }
    let mut shares = [F32x16::splat(0.0); H];
    for h in 0..H {
        let highest = F32x16::splat(highest[h].highest());
        let mut total = F32x16::splat(0.0);
        let row = &mut scores[h * room..(h + 1) * room];
        for chunk in row.chunks_exact_mut(LANES) {
            // SAFETY: 16 numbers.
            unsafe {
                let weight = F32x16::load(chunk.as_ptr()).sub(highest).exp();
                weight.store(chunk.as_mut_ptr());
            }
        }
        row[len..].fill(0.0);
        // From here on they are as products take them: numbers no wider, in the same place.
        let narrow = row.as_mut_ptr().cast::<E>();
        for (i, chunk) in row.chunks_exact(LANES).enumerate() {
            // SAFETY: 16 numbers, and what is written stands before what is read next.
            unsafe {
                let weight = F32x16::load(chunk.as_ptr());
                total = total.add(weight);
                E::store(weight, narrow.add(i * LANES));
            }
        }
        shares[h] = F32x16::splat(1.0 / total.sum());
    }
    let weights = scores.as_ptr();
    let values = at + layout.half();
    let mut d = 0;
    while d < padded {
        // SAFETY: `wide` registers' worth of dimensions are left.
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
/// As [`attend`]; `keys` are those of `S` times 16 positions.
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
    for d in (0..layout.head_dim).step_by(E::STEP) {
        // SAFETY: inside the keys; `queries` has H times `padded` numbers.
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
        for (to, sum) in to.chunks_exact_mut(LANES).zip(sums) {
            // SAFETY: 16 numbers.
            unsafe { sum.store(to.as_mut_ptr()) };
        }
    }
    S
}

/// The values' weighted sum in `C` times 16 dimensions. Head h's `weights` begin at
/// h times `len` up to 16 f32 numbers.
///
/// # Safety
/// As [`attend`].
#[expect(clippy::too_many_arguments, reason = "the places of one inner loop")]
#[inline(always)]
unsafe fn mix<E: Number, const H: usize, const C: usize>(
    blocks: &[*const E],
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
    for (b, block) in blocks.iter().enumerate().take(len.div_ceil(BLOCK)) {
        let first = b * BLOCK;
        let here = BLOCK.min(len - first);
        let whole = here - here % E::STEP;
        for position in (0..whole).step_by(E::STEP) {
            // SAFETY: inside the block; `weights` has H times `room` numbers.
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
            // The last of an odd number: what stands behind it may be anything.
            // SAFETY: as above.
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
    use super::*;
    use crate::infer::libtorch::matrix::Bf16;
    use genius::method::random::Stream;

    /// Against softmax attention in f64, at every length, with garbage behind the sequence.
    fn check<E: Number>(heads: usize, kv_heads: usize, head_dim: usize) {
        let layout = Layout {
            layers: 2,
            kv_heads,
            heads,
            head_dim,
        };
        let stream = Stream::new(3, "attention test", "", &[]);
        let number = |a: usize, b: usize| (stream.uniform(a as u64, b as u64) * 2.0 - 1.0) as f32;
        let mut blocks = vec![vec![E::narrow(f32::NAN); layout.block_len()]; 3];
        // What the rounding of weights moves a mean of numbers below 1 by.
        let tolerance = if E::STEP == 1 { 1e-5 } else { 4e-3 };
        let (mut keys, mut values) = (vec![], vec![]);
        for len in 1..=2 * BLOCK + 9 {
            let position = len - 1;
            let key: Vec<f32> = (0..head_dim).map(|d| number(3 * position, d)).collect();
            let value: Vec<f32> = (0..head_dim).map(|d| number(3 * position + 1, d)).collect();
            for kv_head in 0..kv_heads {
                // SAFETY: alone, inside.
                unsafe {
                    layout.write(
                        blocks[position / BLOCK].as_mut_ptr(),
                        1,
                        kv_head,
                        position,
                        &key,
                        &value,
                    );
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
            let pointers: Vec<*const E> = blocks.iter().map(|b| b.as_ptr()).collect();
            // SAFETY: written up to `position`.
            unsafe {
                attend(
                    &layout,
                    &pointers,
                    1,
                    kv_heads - 1,
                    position,
                    &narrow,
                    &mut Vec::new(),
                    |h, d, lanes| {
                        got[h * layout.padded() + d..][..LANES].copy_from_slice(&lanes.to_array());
                    },
                );
            }
            for h in 0..group {
                let q = &queries[h * head_dim..][..head_dim];
                let weights: Vec<f64> = keys
                    .iter()
                    .map(|k| {
                        let rounded = |x: &f32| f64::from(E::narrow(*x).widen());
                        let dot = |(a, b): (&f32, &f32)| rounded(a) * rounded(b);
                        q.iter().zip(k).map(dot).sum::<f64>().exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let want: f64 = weights
                        .iter()
                        .zip(&values)
                        .map(|(w, v)| w * f64::from(E::narrow(v[d]).widen()))
                        .sum::<f64>()
                        / total;
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
}
