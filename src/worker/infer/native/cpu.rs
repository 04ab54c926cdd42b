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

use super::super::lanes::F32x16;
use super::attention;
use super::blocks::BlockId;
use super::cache::{Cache, Layout, Places};
use super::forward::{Forward, Row};
use super::loader::{Loader, Take};
use super::matrix::{Matrix, Number, Output, PANEL};
use super::parts::{Columns, Rows};
use super::pool::Pool;
use super::row::{self, Rope};
use crate::model::config::Config;

/// Rows that a task of a phase takes where a row is the unit.
const CHUNK: usize = 8;

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
    rope: Rope,
    cache: Cache<E>,
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
    /// The name of a missing tensor, or of one that does not fit the configuration; a
    /// configuration whose sizes overflow.
    pub fn new(
        config: &Config,
        frequencies: Vec<f32>,
        threads: usize,
        most_rows: usize,
        take: Take<'_>,
    ) -> Result<Self, String> {
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        let (hidden, ffn) = (size(config.hidden_size), size(config.intermediate_size));
        let vocab = size(config.vocab_size);
        let layout = Layout::new(
            config.num_hidden_layers,
            size(config.num_attention_heads),
            size(config.num_key_value_heads),
            size(config.head_dim),
        )?;
        if frequencies.len() != layout.head_dim() / 2 {
            return Err(format!(
                "{} rotary angles for heads of width {}",
                frequencies.len(),
                layout.head_dim()
            ));
        }
        let mut loader = Loader::new(take);
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(loader.matrix("", &["lm_head"], hidden, vocab)?)
        };
        let embedding = loader.matrix("", &["model.embed_tokens"], hidden, vocab)?;
        let (embedding, head) = match head {
            Some(head) => (Some(embedding), head),
            None => (None, embedding),
        };
        let norm = loader.norm("model.norm", hidden)?;
        // By `Layout::new` neither overflows.
        let heads = layout.heads() * layout.head_dim();
        let with_keys = heads + 2 * layout.kv_heads() * layout.head_dim();
        let layers = (0..layout.layers())
            .map(|i| {
                let p = format!("model.layers.{i}.");
                let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
                Ok(Layer {
                    qkv: loader.matrix(&p, &qkv, hidden, with_keys)?,
                    o: loader.matrix(&p, &["self_attn.o_proj"], heads, hidden)?,
                    gate: loader.matrix(&p, &["mlp.gate_proj"], hidden, ffn)?,
                    up: loader.matrix(&p, &["mlp.up_proj"], hidden, ffn)?,
                    down: loader.matrix(&p, &["mlp.down_proj"], ffn, hidden)?,
                    input_norm: loader.norm(&format!("{p}input_layernorm"), hidden)?,
                    post_norm: loader.norm(&format!("{p}post_attention_layernorm"), hidden)?,
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
            rope: Rope::new(frequencies),
            cache: Cache::new(layout),
            most_rows,
            buffers: Buffers::default(),
            pool: Pool::new(threads),
        })
    }

    /// Makes room for `rows` rows.
    fn make_room(&mut self, rows: usize) {
        let layout = self.cache.layout();
        let of_queries = layout.heads() * layout.padded();
        let b = &mut self.buffers;
        grow(&mut b.x, rows, self.hidden.next_multiple_of(PANEL));
        grow(&mut b.y, rows, self.head.padded_inner());
        for layer in &self.layers {
            grow(&mut b.qkv, rows, layer.qkv.panels() * PANEL);
            grow(&mut b.queries, rows, of_queries);
            grow(&mut b.mixed, rows, layer.o.padded_inner());
            grow(&mut b.inner, rows, layer.down.padded_inner());
        }
    }
}

/// Makes room for `rows` rows of `stride` numbers.
fn grow<T: Copy + Default>(buffer: &mut Vec<T>, rows: usize, stride: usize) {
    let len = rows
        .checked_mul(stride)
        .unwrap_or_else(|| panic!("{rows} rows of {stride} numbers overflow"));
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

/// The first `rows` rows of `stride` numbers, [`CHUNK`] at a time.
fn chunks<T>(buffer: &mut [T], rows: usize, stride: usize) -> impl Iterator<Item = &mut [T]> {
    buffer[..rows * stride].chunks_mut(CHUNK * stride)
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
        self.cache.layout().block_len() * size_of::<E>()
    }

    fn vocab(&self) -> usize {
        self.head.outputs()
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.cache.copy(from, to);
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
        let n = rows.len();
        let embedding = self.embedding.as_ref().unwrap_or(&self.head);
        for row in rows {
            assert!(
                (row.token as usize) < embedding.outputs(),
                "token {} of a vocabulary of {}",
                row.token,
                embedding.outputs()
            );
        }
        for &row in wanted {
            assert!(row < n, "logits of row {row} of {n}");
        }
        let places = Places::new(rows, tables);
        self.make_room(n.max(wanted.len()));
        self.cache.reach(places.blocks());
        self.rope.reach(rows.iter().map(|r| r.position).max());
        let embedding = self.embedding.as_ref().unwrap_or(&self.head);
        let hidden = self.hidden;
        let x_stride = hidden.next_multiple_of(PANEL);
        let x = self.buffers.x[..n * x_stride]
            .chunks_mut(x_stride)
            .zip(rows);
        self.pool.each(x, |_, (x, row)| {
            embedding.row(row.token as usize, &mut x[..hidden]);
        });
        for layer in 0..self.layers.len() {
            self.attention(layer, rows, tables, &places);
            self.feed_forward(layer, n);
        }
        // The head over the rows that are asked for only.
        let (head, norm, eps) = (&self.head, &self.norm, self.eps);
        let y_stride = head.padded_inner();
        let Buffers { x, y, .. } = &mut self.buffers;
        let of_y = chunks(y, wanted.len(), y_stride).zip(wanted.chunks(CHUNK));
        self.pool.each(of_y, |_, (y, wanted)| {
            for (y, row) in y.chunks_mut(y_stride).zip(wanted) {
                row::rms_norm(&x[row * x_stride..][..hidden], norm, eps, y);
            }
        });
        let (vocab, stride) = (head.outputs(), head.panels() * PANEL);
        grow(logits, wanted.len(), stride);
        let y = Rows::new(y, wanted.len(), y_stride, y_stride);
        let out = Columns::new(logits, wanted.len(), stride, stride);
        self.pool.each(out.panels(PANEL), |panel, mut out| {
            head.multiply(panel, y, &mut out, Output::Store);
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

impl<E: Number> Cpu<E> {
    /// x += o(attention(norm(x))).
    fn attention(&mut self, layer: usize, rows: &[Row], tables: &[&[BlockId]], places: &Places) {
        let n = rows.len();
        self.project(layer, n);
        self.rotate_and_cache(layer, rows, places);
        self.attend(layer, rows, tables);

        let o = &self.layers[layer].o;
        let mixed_stride = o.padded_inner();
        let x_stride = self.hidden.next_multiple_of(PANEL);
        let b = &mut self.buffers;
        let mixed = Rows::new(&b.mixed, n, mixed_stride, mixed_stride);
        let x = Columns::new(&mut b.x, n, x_stride, x_stride);
        self.pool.each(x.panels(PANEL), |panel, mut x| {
            o.multiply(panel, mixed, &mut x, Output::Add);
        });
    }

    /// Queries, keys and values of norm(x).
    fn project(&mut self, layer: usize, n: usize) {
        let Layer {
            input_norm, qkv, ..
        } = &self.layers[layer];
        let (hidden, eps) = (self.hidden, self.eps);
        let b = &mut self.buffers;
        norm_rows(&mut self.pool, &b.x, hidden, input_norm, eps, n, &mut b.y);
        let y_stride = qkv.padded_inner();
        let stride = qkv.panels() * PANEL;
        let y = Rows::new(&b.y, n, y_stride, y_stride);
        let out = Columns::new(&mut b.qkv, n, stride, stride);
        self.pool.each(out.panels(PANEL), |panel, mut out| {
            qkv.multiply(panel, y, &mut out, Output::Store);
        });
    }

    /// Rotates queries and keys, scales and narrows the queries, and writes keys and
    /// values into the cache.
    fn rotate_and_cache(&mut self, layer: usize, rows: &[Row], places: &Places) {
        let n = rows.len();
        let layout = *self.cache.layout();
        let (heads, kv_heads, padded) = (layout.heads(), layout.kv_heads(), layout.padded());
        let d = layout.head_dim();
        let stride = self.layers[layer].qkv.panels() * PANEL;
        let rope = &self.rope;
        let scale = 1.0 / (d as f32).sqrt();
        let b = &mut self.buffers;
        let mut slots: Vec<_> = self.cache.slots(places).collect();
        let parts = chunks(&mut b.qkv, n, stride)
            .zip(chunks(&mut b.queries, n, heads * padded))
            .zip(slots.chunks_mut(CHUNK).zip(rows.chunks(CHUNK)));
        self.pool.each(parts, |_, ((all, queries), (slots, rows))| {
            let all = all.chunks_mut(stride);
            let queries = queries.chunks_mut(heads * padded);
            let slots = slots.iter_mut().zip(rows);
            for ((all, narrow), (slot, of_row)) in all.zip(queries).zip(slots) {
                let (q, kv) = all.split_at_mut(heads * d);
                let (k, v) = kv.split_at_mut(kv_heads * d);
                let (cos, sin) = rope.at(of_row.position);
                for (q, narrow) in q.chunks_exact_mut(d).zip(narrow.chunks_exact_mut(padded)) {
                    row::rotate(q, cos, sin);
                    for (q, narrow) in q.iter().zip(narrow) {
                        *narrow = E::narrow(*q * scale);
                    }
                }
                // After the values a row is filled up to a panel.
                let v = v.chunks_exact(d);
                for (head, (k, v)) in k.chunks_exact_mut(d).zip(v).enumerate() {
                    row::rotate(k, cos, sin);
                    slot.write(layer, head, k, v);
                }
            }
        });
    }

    /// Attention of every row over the cache.
    fn attend(&mut self, layer: usize, rows: &[Row], tables: &[&[BlockId]]) {
        let layout = *self.cache.layout();
        let (heads, kv_heads, padded) = (layout.heads(), layout.kv_heads(), layout.padded());
        let (d, group) = (layout.head_dim(), layout.group());
        let mixed_stride = self.layers[layer].o.padded_inner();
        let cache = &self.cache;
        let b = &mut self.buffers;
        let queries = &b.queries;
        let parts = b.mixed[..rows.len() * mixed_stride]
            .chunks_mut(mixed_stride)
            .flat_map(|row| row[..heads * d].chunks_mut(group * d));
        self.pool.each(parts, |task, to| {
            // Long rows first would be better still; rows of a prefill come last.
            let (r, kv_head) = (task / kv_heads, task % kv_heads);
            let first = (r * heads + kv_head * group) * padded;
            let queries = &queries[first..][..group * padded];
            let Row {
                position, table, ..
            } = rows[r];
            SCORES.with_borrow_mut(|scores| {
                let out = |h: usize, dim: usize, lanes: F32x16| {
                    row::narrow(lanes, &mut to[h * d..(h + 1) * d][dim..]);
                };
                let blocks = tables[table];
                attention::attend(
                    cache, blocks, layer, kv_head, position, queries, scores, out,
                );
            });
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
        let b = &mut self.buffers;
        norm_rows(&mut self.pool, &b.x, hidden, post_norm, eps, n, &mut b.y);

        let (y_stride, inner_stride) = (gate.padded_inner(), down.padded_inner());
        let y = Rows::new(&b.y, n, y_stride, y_stride);
        let inner = Columns::new(&mut b.inner, n, inner_stride, gate.outputs());
        self.pool.each(inner.panels(PANEL), |panel, mut inner| {
            let mut gates = [0.0_f32; CHUNK * PANEL];
            let mut ups = [0.0_f32; CHUNK * PANEL];
            for first in (0..n).step_by(CHUNK) {
                let rows = CHUNK.min(n - first);
                let y = y.some(first, rows);
                for (matrix, to) in [(gate, &mut gates), (up, &mut ups)] {
                    let mut to = Columns::new(to, rows, PANEL, PANEL);
                    matrix.multiply(panel, y, &mut to, Output::Store);
                }
                let products = gates.chunks(PANEL).zip(ups.chunks(PANEL));
                for (r, (gates, ups)) in products.enumerate().take(rows) {
                    row::gate(gates, ups, inner.row(first + r));
                }
            }
        });

        let inner = Rows::new(&b.inner, n, inner_stride, inner_stride);
        let x = Columns::new(&mut b.x, n, x_stride, x_stride);
        self.pool.each(x.panels(PANEL), |panel, mut x| {
            down.multiply(panel, inner, &mut x, Output::Add);
        });
    }
}

/// The norm of the first `n` rows of `x`, of `hidden` numbers up to a panel, as products
/// take them.
fn norm_rows<E: Number>(
    pool: &mut Pool,
    x: &[f32],
    hidden: usize,
    weight: &[f32],
    eps: f32,
    n: usize,
    y: &mut [E],
) {
    let (x_stride, y_stride) = (
        hidden.next_multiple_of(PANEL),
        hidden.next_multiple_of(E::STEP),
    );
    let parts = chunks(y, n, y_stride).zip(x[..n * x_stride].chunks(CHUNK * x_stride));
    pool.each(parts, |_, (y, x)| {
        for (y, x) in y.chunks_mut(y_stride).zip(x.chunks(x_stride)) {
            row::rms_norm(&x[..hidden], weight, eps, y);
        }
    });
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
