//! The Llama forward pass on a CPU over packed weights: [`Cpu`].
//!
//! A row (one token of one sequence) is computed by itself from end to end:
//! products, norms and attention of a row have a fixed order of operations and
//! see no other row but through the cache. So keys, values and logits of a
//! token are, to the bit, a function of the tokens up to it: the same in a
//! prompt's prefill as in decoding, alone as among others, at any width.
//!
//! The residual stream, norms, attention and softmax are in f32; weights, the
//! inputs of products and the cache are in `E`.

use std::cell::RefCell;

use super::super::lanes::{F32x16, LANES};
use super::attention::{self, Layout};
use super::blocks::{BLOCK, BlockId};
use super::forward::{Forward, Row};
use super::matrix::{Matrix, Number, Output, PANEL};
use super::pool::Pool;
use crate::model::config::Config;

/// Rows that a task of a phase takes where a row is the unit.
const CHUNK: usize = 8;

/// Takes a tensor by its name in the checkpoint, row by row, as f32; nothing if there is none.
pub type Take<'a> = &'a mut dyn FnMut(&str) -> Option<Vec<f32>>;

/// One transformer block's weights.
struct Layer<E> {
    input_norm: Vec<f32>,
    /// Queries, keys and values in one.
    qkv: Matrix<E>,
    o: Matrix<E>,
    post_norm: Vec<f32>,
    gate: Matrix<E>,
    up: Matrix<E>,
    down: Matrix<E>,
}

/// A model on the CPU with its cache.
pub struct Cpu<E> {
    layers: Vec<Layer<E>>,
    norm: Vec<f32>,
    /// The embedding where it is not the head.
    embedding: Option<Matrix<E>>,
    head: Matrix<E>,
    eps: f32,
    hidden: usize,
    layout: Layout,
    rope: Rope,
    cache: Vec<Vec<E>>,
    most_rows: usize,
    buffers: Buffers<E>,
    pool: Pool,
}

/// Activations of a call's rows.
#[derive(Default)]
struct Buffers<E> {
    /// The residual stream, [rows, hidden up to a panel].
    x: Vec<f32>,
    /// Normed, as products take it.
    y: Vec<E>,
    /// Queries, keys and values.
    qkv: Vec<f32>,
    /// Queries, turned, as products take them, [rows, heads, head width up to 16].
    queries: Vec<E>,
    /// What attention gives.
    mixed: Vec<E>,
    /// Inside the feed-forward network.
    inner: Vec<E>,
}

impl<E: Number> Cpu<E> {
    /// A model of these weights. `frequencies` are the rotary angles of a step
    /// of position; `most_rows` rows come in a call at most.
    ///
    /// # Errors
    /// The name of a missing tensor.
    pub fn new(
        config: &Config,
        frequencies: Vec<f32>,
        threads: usize,
        most_rows: usize,
        take: Take<'_>,
    ) -> Result<Self, String> {
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        let (hidden, ffn) = (size(config.hidden_size), size(config.intermediate_size));
        let layout = Layout {
            layers: config.num_hidden_layers,
            kv_heads: size(config.num_key_value_heads),
            heads: size(config.num_attention_heads),
            head_dim: size(config.head_dim),
        };
        let mut get = |name: &str| take(name).ok_or_else(|| name.to_owned());
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(Matrix::pack(&get("lm_head.weight")?, hidden, None))
        };
        let embedding = Matrix::pack(&get("model.embed_tokens.weight")?, hidden, None);
        let (embedding, head) = match head {
            Some(head) => (Some(embedding), head),
            None => (None, embedding),
        };
        let norm = get("model.norm.weight")?;
        let layers = (0..layout.layers)
            .map(|i| {
                // Whatever biases a checkpoint has (Qwen2: q, k and v) are used.
                let mut matrix = |names: &[&str], inner: usize| {
                    let (mut rows, mut bias, mut biased) = (Vec::new(), Vec::new(), false);
                    for name in names {
                        let name = format!("model.layers.{i}.{name}");
                        let weight = format!("{name}.weight");
                        let of_this = take(&weight).ok_or(weight)?;
                        let outputs = of_this.len() / inner.max(1);
                        rows.extend(of_this);
                        let of_this = take(&format!("{name}.bias"));
                        biased |= of_this.is_some();
                        bias.extend(of_this.unwrap_or_else(|| vec![0.0; outputs]));
                    }
                    Ok::<_, String>(Matrix::pack(&rows, inner, biased.then_some(&bias[..])))
                };
                let heads = layout.heads * layout.head_dim;
                let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
                let qkv = matrix(&qkv, hidden)?;
                let o = matrix(&["self_attn.o_proj"], heads)?;
                let gate = matrix(&["mlp.gate_proj"], hidden)?;
                let up = matrix(&["mlp.up_proj"], hidden)?;
                let down = matrix(&["mlp.down_proj"], ffn)?;
                let mut norm = |name: &str| {
                    let name = format!("model.layers.{i}.{name}.weight");
                    take(&name).ok_or(name)
                };
                Ok(Layer {
                    input_norm: norm("input_layernorm")?,
                    qkv,
                    o,
                    post_norm: norm("post_attention_layernorm")?,
                    gate,
                    up,
                    down,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Self {
            layers,
            norm,
            embedding,
            head,
            eps: config.rms_norm_eps as f32,
            hidden,
            layout,
            rope: Rope::new(frequencies),
            cache: Vec::new(),
            most_rows,
            buffers: Buffers::default(),
            pool: Pool::new(threads),
        })
    }

    /// Makes room for `rows` rows, and for these blocks.
    fn make_room(&mut self, rows: usize, blocks: usize) {
        let panelled = |n: usize| n.next_multiple_of(PANEL);
        let Some(layer) = self.layers.first() else {
            return;
        };
        let b = &mut self.buffers;
        let zero = E::default();
        grow(&mut b.x, rows * panelled(self.hidden), 0.0);
        grow(&mut b.y, rows * layer.qkv.padded_inner(), zero);
        grow(&mut b.qkv, rows * panelled(layer.qkv.outputs()), 0.0);
        grow(
            &mut b.queries,
            rows * self.layout.heads * self.layout.padded(),
            zero,
        );
        grow(&mut b.mixed, rows * layer.o.padded_inner(), zero);
        grow(&mut b.inner, rows * layer.down.padded_inner(), zero);
        while self.cache.len() < blocks {
            self.cache.push(vec![zero; self.layout.block_len()]);
        }
    }
}

fn grow<T: Copy>(buffer: &mut Vec<T>, len: usize, value: T) {
    if buffer.len() < len {
        buffer.resize(len, value);
    }
}

/// A pointer into a buffer whose parts are written by different tasks.
struct Parts<T>(*mut T);

// SAFETY: every use says why its parts do not overlap.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    fn of(buffer: &mut [T]) -> Self {
        Self(buffer.as_mut_ptr())
    }

    /// # Safety
    /// `at` to `at + len` are inside the buffer, and nobody else uses them meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint")]
    unsafe fn part(&self, at: usize, len: usize) -> &mut [T] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }

    /// # Safety
    /// `at` is inside the buffer.
    unsafe fn at(&self, at: usize) -> *mut T {
        unsafe { self.0.add(at) }
    }
}

thread_local! {
    /// Room for a pass of attention.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl<E: Number> Forward for Cpu<E> {
    fn most_rows(&self) -> usize {
        self.most_rows
    }

    fn block_bytes(&self) -> usize {
        self.layout.block_len() * size_of::<E>()
    }

    fn vocab(&self) -> usize {
        self.head.outputs()
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let (from, to) = (from as usize, to as usize);
        self.make_room(0, from.max(to) + 1);
        if from == to {
            return;
        }
        if let Ok([from, to]) = self.cache.get_disjoint_mut([from, to]) {
            to.copy_from_slice(from);
        }
    }

    fn share_out(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, task);
    }

    fn run(
        &mut self,
        rows: &[Row],
        tables: &[&[BlockId]],
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), String> {
        let blocks = tables.iter().flat_map(|t| t.iter());
        let blocks = blocks.max().map_or(0, |&id| id as usize + 1);
        self.make_room(rows.len(), blocks);
        self.rope.reach(rows.iter().map(|r| r.position).max());
        let cache: Vec<*mut E> = self.cache.iter_mut().map(|b| b.as_mut_ptr()).collect();
        let tables: Vec<Table<E>> = tables
            .iter()
            .map(|t| {
                Table(
                    t.iter()
                        .map(|&id| cache[id as usize].cast_const())
                        .collect(),
                )
            })
            .collect();
        let n = rows.len();
        let x_stride = self.hidden.next_multiple_of(PANEL);
        let (embedding, hidden) = (self.embedding.as_ref().unwrap_or(&self.head), self.hidden);
        let x = Parts::of(&mut self.buffers.x);
        self.pool.run(n, |r| {
            // SAFETY: a row each.
            let x = unsafe { x.part(r * x_stride, hidden) };
            embedding.row(rows[r].token as usize, x);
        });
        for layer in 0..self.layers.len() {
            self.attention(layer, rows, &tables);
            self.feed_forward(layer, n);
        }
        // The head over the rows that are asked for only.
        let (head, norm, eps) = (&self.head, &self.norm, self.eps);
        let y_stride = head.padded_inner();
        let (x, y) = (&self.buffers.x, Parts::of(&mut self.buffers.y));
        self.pool.run(wanted.len(), |i| {
            // SAFETY: a row each.
            let y = unsafe { y.part(i * y_stride, y_stride) };
            rms_norm(&x[wanted[i] * x_stride..][..hidden], norm, eps, y);
        });
        let (vocab, stride) = (head.outputs(), head.panels() * PANEL);
        logits.resize(wanted.len() * stride, 0.0);
        let (y, out) = (&self.buffers.y, Parts::of(logits));
        self.pool.run(head.panels(), |panel| {
            // SAFETY: a panel each.
            unsafe {
                let out = out.at(panel * PANEL);
                head.multiply(
                    panel,
                    wanted.len(),
                    y.as_ptr(),
                    y_stride,
                    out,
                    stride,
                    Output::Store,
                );
            }
        });
        if stride != vocab {
            for i in 1..wanted.len() {
                logits.copy_within(i * stride..i * stride + vocab, i * vocab);
            }
        }
        logits.truncate(wanted.len() * vocab);
        Ok(())
    }
}

/// A sequence's blocks.
struct Table<E>(Vec<*const E>);

// SAFETY: written by one task a position, and read in another phase.
unsafe impl<E: Send> Sync for Table<E> {}

impl<E: Number> Cpu<E> {
    /// x += o(attention(norm(x))).
    fn attention(&mut self, layer: usize, rows: &[Row], tables: &[Table<E>]) {
        let n = rows.len();
        let Layer {
            input_norm, qkv, o, ..
        } = &self.layers[layer];
        let layout = &self.layout;
        let (hidden, eps, d) = (self.hidden, self.eps, layout.head_dim);
        let x_stride = hidden.next_multiple_of(PANEL);
        let y_stride = qkv.padded_inner();
        let b = &mut self.buffers;
        norm_rows(
            &mut self.pool,
            &b.x,
            x_stride,
            hidden,
            input_norm,
            eps,
            n,
            &mut b.y,
            y_stride,
        );

        let stride = qkv.panels() * PANEL;
        let (y, out) = (&b.y, Parts::of(&mut b.qkv));
        self.pool.run(qkv.panels(), |panel| {
            // SAFETY: a panel each.
            unsafe {
                let out = out.at(panel * PANEL);
                qkv.multiply(panel, n, y.as_ptr(), y_stride, out, stride, Output::Store);
            }
        });

        // Turned queries and keys; keys and values into the cache.
        let (heads, kv_heads) = (layout.heads, layout.kv_heads);
        let rope = &self.rope;
        let scale = 1.0 / (d as f32).sqrt();
        let padded = layout.padded();
        let (all, queries) = (Parts::of(&mut b.qkv), Parts::of(&mut b.queries));
        self.pool.run(n.div_ceil(CHUNK), |chunk| {
            for (r, of_row) in rows.iter().enumerate().skip(chunk * CHUNK).take(CHUNK) {
                // SAFETY: a row each.
                let row = unsafe { all.part(r * stride, (heads + 2 * kv_heads) * d) };
                // SAFETY: a row each.
                let narrow = unsafe { queries.part(r * heads * padded, heads * padded) };
                let (q, kv) = row.split_at_mut(heads * d);
                let (k, v) = kv.split_at_mut(kv_heads * d);
                let &Row {
                    position, table, ..
                } = of_row;
                let (cos, sin) = rope.at(position);
                for (q, narrow) in q.chunks_exact_mut(d).zip(narrow.chunks_exact_mut(padded)) {
                    rotate(q, cos, sin);
                    for (q, narrow) in q.iter().zip(narrow) {
                        *narrow = E::narrow(*q * scale);
                    }
                }
                for (head, (k, v)) in k.chunks_exact_mut(d).zip(v.chunks_exact(d)).enumerate() {
                    rotate(k, cos, sin);
                    // SAFETY: a position of a sequence is one row's.
                    unsafe {
                        let block = tables[table].0[position / BLOCK].cast_mut();
                        layout.write(block, layer, head, position, k, v);
                    }
                }
            }
        });

        let mixed_stride = o.padded_inner();
        let (queries, mixed) = (&b.queries, Parts::of(&mut b.mixed));
        let group = heads / kv_heads;
        self.pool.run(n * kv_heads, |task| {
            // Long rows first would be better still; rows of a prefill come last.
            let (r, kv_head) = (task / kv_heads, task % kv_heads);
            let first = (r * heads + kv_head * group) * padded;
            let queries = &queries[first..][..group * padded];
            // SAFETY: a group of heads each.
            let to = unsafe { mixed.part(r * mixed_stride + kv_head * group * d, group * d) };
            SCORES.with_borrow_mut(|scores| {
                let out = |h: usize, dim: usize, lanes: F32x16| {
                    let to = &mut to[h * d..(h + 1) * d];
                    store(lanes, &mut to[dim..]);
                };
                let blocks = &tables[rows[r].table].0;
                let position = rows[r].position;
                // SAFETY: the phase before wrote these positions, and earlier calls those before.
                unsafe {
                    attention::attend(
                        layout, blocks, layer, kv_head, position, queries, scores, out,
                    );
                }
            });
        });

        let (mixed, x) = (&b.mixed, Parts::of(&mut b.x));
        self.pool.run(o.panels(), |panel| {
            // SAFETY: a panel each.
            unsafe {
                let x = x.at(panel * PANEL);
                o.multiply(
                    panel,
                    n,
                    mixed.as_ptr(),
                    mixed_stride,
                    x,
                    x_stride,
                    Output::Add,
                );
            }
        });
    }

    /// x += down(silu(gate(norm(x))) * up(norm(x))).
    fn feed_forward(&mut self, layer: usize, n: usize) {
        let Layer {
            post_norm,
            gate,
            up,
            down,
            ..
        } = &self.layers[layer];
        let (hidden, eps) = (self.hidden, self.eps);
        let x_stride = hidden.next_multiple_of(PANEL);
        let y_stride = gate.padded_inner();
        let b = &mut self.buffers;
        norm_rows(
            &mut self.pool,
            &b.x,
            x_stride,
            hidden,
            post_norm,
            eps,
            n,
            &mut b.y,
            y_stride,
        );

        let inner_stride = down.padded_inner();
        let (y, inner) = (&b.y, Parts::of(&mut b.inner));
        self.pool.run(gate.panels(), |panel| {
            let mut gates = [0.0_f32; CHUNK * PANEL];
            let mut ups = [0.0_f32; CHUNK * PANEL];
            for first in (0..n).step_by(CHUNK) {
                let rows = CHUNK.min(n - first);
                // SAFETY: rows of `y`, and a chunk's room.
                unsafe {
                    let y = y.as_ptr().add(first * y_stride);
                    gate.multiply(
                        panel,
                        rows,
                        y,
                        y_stride,
                        gates.as_mut_ptr(),
                        PANEL,
                        Output::Store,
                    );
                    up.multiply(
                        panel,
                        rows,
                        y,
                        y_stride,
                        ups.as_mut_ptr(),
                        PANEL,
                        Output::Store,
                    );
                }
                let width = PANEL.min(gate.outputs() - panel * PANEL);
                for r in 0..rows {
                    let at = (first + r) * inner_stride + panel * PANEL;
                    // SAFETY: a panel each.
                    let to = unsafe { inner.part(at, width) };
                    for c in (0..width).step_by(LANES) {
                        let at = r * PANEL + c;
                        // SAFETY: a panel is whole registers.
                        let (g, u) = unsafe {
                            (
                                F32x16::load(gates.as_ptr().add(at)),
                                F32x16::load(ups.as_ptr().add(at)),
                            )
                        };
                        let one = F32x16::splat(1.0);
                        let minus = F32x16::splat(0.0).sub(g).exp().add(one);
                        let value = g.mul(u).div(minus);
                        store(value, &mut to[c..]);
                    }
                }
            }
        });

        let (inner, x) = (&b.inner, Parts::of(&mut b.x));
        self.pool.run(down.panels(), |panel| {
            // SAFETY: a panel each.
            unsafe {
                let x = x.at(panel * PANEL);
                down.multiply(
                    panel,
                    n,
                    inner.as_ptr(),
                    inner_stride,
                    x,
                    x_stride,
                    Output::Add,
                );
            }
        });
    }
}

/// The norm of every row of `x`, as products take it.
#[expect(clippy::too_many_arguments, reason = "the places of one inner loop")]
fn norm_rows<E: Number>(
    pool: &mut Pool,
    x: &[f32],
    x_stride: usize,
    hidden: usize,
    weight: &[f32],
    eps: f32,
    rows: usize,
    y: &mut [E],
    y_stride: usize,
) {
    let y = Parts::of(y);
    pool.run(rows.div_ceil(CHUNK), |chunk| {
        for r in chunk * CHUNK..rows.min((chunk + 1) * CHUNK) {
            // SAFETY: a row each.
            let y = unsafe { y.part(r * y_stride, y_stride) };
            rms_norm(&x[r * x_stride..][..hidden], weight, eps, y);
        }
    });
}

/// x / sqrt(mean(x^2) + eps) * weight.
fn rms_norm<E: Number>(x: &[f32], weight: &[f32], eps: f32, y: &mut [E]) {
    let mut sums = F32x16::splat(0.0);
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        // SAFETY: 16 numbers.
        let x = unsafe { F32x16::load(chunk.as_ptr()) };
        sums = x.mul_add(x, sums);
    }
    let mean = (sums.sum() + rest) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    let scale = F32x16::splat(scale);
    let whole = x.len() - x.len() % LANES;
    for at in (0..whole).step_by(LANES) {
        // SAFETY: 16 numbers of each are left.
        unsafe {
            let x = F32x16::load(x.as_ptr().add(at)).mul(scale);
            E::store(
                x.mul(F32x16::load(weight.as_ptr().add(at))),
                y.as_mut_ptr().add(at),
            );
        }
    }
    let scale = scale.to_array()[0];
    for at in whole..x.len() {
        y[at] = E::narrow(x[at] * scale * weight[at]);
    }
}

/// Narrows as many of the sixteen as there is room for.
#[inline(always)]
fn store<E: Number>(values: F32x16, to: &mut [E]) {
    if to.len() >= LANES {
        // SAFETY: there is room for 16.
        unsafe { E::store(values, to.as_mut_ptr()) };
        return;
    }
    for (to, v) in to.iter_mut().zip(values.to_array()) {
        *to = E::narrow(v);
    }
}

/// Turns a head: its first half with its second, as transformers' `rotate_half`.
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(head.len() / 2);
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Rotary angles' cosines and sines, position by position, as far as they were needed.
struct Rope {
    frequencies: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    fn new(frequencies: Vec<f32>) -> Self {
        Self {
            frequencies,
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    fn reach(&mut self, position: Option<usize>) {
        let known = self.cos.len() / self.frequencies.len().max(1);
        for position in known..position.map_or(0, |p| p + 1) {
            for frequency in &self.frequencies {
                let angle = position as f32 * frequency;
                self.cos.push(angle.cos());
                self.sin.push(angle.sin());
            }
        }
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.frequencies.len();
        let at = position * half;
        (&self.cos[at..at + half], &self.sin[at..at + half])
    }
}
