//! The forward pass in libtorch's operations, for devices other than the CPU:
//! [`OnDevice`], over the trainer's own model code.
//!
//! It has run on a CPU only, in the tests: no CUDA device was at hand. There a
//! result may depend on what else is in a batch, since libtorch chooses kernels
//! by shape; on a CPU `super::cpu` promises more.

use tch::{Device, Kind, Tensor};

use super::blocks::{BLOCK, BlockId};
use super::cache;
use super::forward::{Forward, Row};
use super::pool::Pool;
use crate::model::config::Config;
use crate::model::llama::{Attend, Llama, repeat_heads};
use crate::model::weights::Tensors;

/// A model on a device with its cache.
pub struct OnDevice {
    model: Llama,
    /// Keys and values of each layer, [positions, key-value heads, head width].
    cache: Vec<(Tensor, Tensor)>,
    config: Config,
    device: Device,
    kind: Kind,
    most_rows: usize,
    pool: Pool,
}

impl OnDevice {
    /// A model of these tensors, all of `kind` and on `device`.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn new(
        config: Config,
        tensors: &Tensors,
        device: Device,
        kind: Kind,
        threads: usize,
        most_rows: usize,
    ) -> Result<Self, String> {
        let model = Llama::new(&config, tensors).map_err(|e| e.message)?;
        let mut this = Self {
            model,
            cache: Vec::new(),
            config,
            device,
            kind,
            most_rows,
            pool: Pool::new(threads),
        };
        this.cache = (0..this.config.num_hidden_layers)
            .map(|_| (this.zeros(0), this.zeros(0)))
            .collect();
        Ok(this)
    }

    fn zeros(&self, positions: i64) -> Tensor {
        let shape = [
            positions,
            self.config.num_key_value_heads,
            self.config.head_dim,
        ];
        Tensor::zeros(shape, (self.kind, self.device))
    }

    /// Makes the cache at least `blocks` blocks long, twice as long as before at least.
    fn make_room(&mut self, blocks: usize) {
        let wanted = (blocks * BLOCK) as i64;
        let there = self.cache.first().map_or(0, |(k, _)| k.size()[0]);
        if wanted <= there {
            return;
        }
        let more = self.zeros(wanted.max(2 * there) - there);
        for (k, v) in &mut self.cache {
            (*k, *v) = (Tensor::cat(&[&*k, &more], 0), Tensor::cat(&[&*v, &more], 0));
        }
    }
}

/// Where the rows of a call are written and what each sees.
struct Places<'a> {
    cache: &'a mut [(Tensor, Tensor)],
    /// Position in the cache of each row, [rows].
    to: Tensor,
    /// Positions in the cache of what each row may see, [rows * longest].
    from: Tensor,
    /// 0 where a row may look, else minus infinity, [rows, 1, 1, longest].
    mask: Tensor,
}

impl Attend for Places<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        // [1, heads, rows, width] -> [rows, heads, width]
        let by_row = |x: &Tensor| x.squeeze_dim(0).transpose(0, 1).contiguous();
        let (keys, values) = &mut self.cache[layer];
        let _ = keys.index_copy_(0, &self.to, &by_row(k));
        let _ = values.index_copy_(0, &self.to, &by_row(v));
        let size = q.size();
        let (heads, rows, width) = (size[1], size[2], size[3]);
        let seen = |cache: &Tensor| {
            let kv_heads = cache.size()[1];
            let x = cache.index_select(0, &self.from);
            let x = x.view([rows, -1, kv_heads, width]).transpose(1, 2);
            repeat_heads(&x, heads / kv_heads)
        };
        let q = by_row(q).unsqueeze(2);
        let mixed = Tensor::scaled_dot_product_attention(
            &q,
            &seen(keys),
            &seen(values),
            Some(&self.mask),
            0.0,
            false,
            None,
            false,
        );
        mixed.squeeze_dim(2).transpose(0, 1).unsqueeze(0)
    }
}

impl Forward for OnDevice {
    fn most_rows(&self) -> usize {
        self.most_rows
    }

    fn block_bytes(&self) -> usize {
        let size = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
        let factors = [
            self.config.num_hidden_layers,
            size(self.config.num_key_value_heads),
            size(self.config.head_dim),
            self.kind.elt_size_in_bytes(),
        ];
        // One that is too large for memory is too large for any budget.
        factors.into_iter().fold(2 * BLOCK, usize::saturating_mul)
    }

    fn vocab(&self) -> usize {
        usize::try_from(self.model.head().size()[0]).unwrap_or(0)
    }

    fn share_out(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, task);
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        self.make_room(from.max(to) as usize + 1);
        let block =
            |x: &Tensor, id: BlockId| x.narrow(0, i64::from(id) * BLOCK as i64, BLOCK as i64);
        for (k, v) in &self.cache {
            for x in [k, v] {
                block(x, to).copy_(&block(x, from));
            }
        }
    }

    fn run(
        &mut self,
        rows: &[Row],
        tables: &[&[BlockId]],
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        let blocks = tables.iter().flat_map(|t| t.iter()).max();
        self.make_room(blocks.map_or(0, |&id| id as usize + 1));
        // Finds what is missing, and rows that would overwrite each other.
        cache::Places::new(rows, tables);
        let vocab = self.vocab();
        for row in rows {
            assert!(
                (row.token as usize) < vocab,
                "token {} of a vocabulary of {vocab}",
                row.token
            );
        }
        for &row in wanted {
            assert!(row < rows.len(), "logits of row {row} of {}", rows.len());
        }
        let place = |table: usize, position: usize| {
            let block = tables[table][position / BLOCK] as usize;
            (block * BLOCK + position % BLOCK) as i64
        };
        // In whole blocks, so that there are few shapes.
        let longest = rows.iter().map(|r| r.position + 1).max().unwrap_or(0);
        let longest = longest.next_multiple_of(BLOCK);
        let (mut from, mut mask) = (Vec::new(), Vec::new());
        for row in rows {
            for position in 0..longest {
                let seen = position <= row.position;
                from.push(place(row.table, if seen { position } else { 0 }));
                mask.push(if seen { 0.0_f32 } else { f32::NEG_INFINITY });
            }
        }
        let to: Vec<i64> = rows.iter().map(|r| place(r.table, r.position)).collect();
        let ids: Vec<i64> = rows.iter().map(|r| i64::from(r.token)).collect();
        let positions: Vec<i64> = rows.iter().map(|r| r.position as i64).collect();
        let wanted: Vec<i64> = wanted.iter().map(|&r| r as i64).collect();
        let on_device = |values: &[i64]| Tensor::from_slice(values).to_device(self.device);
        let mask = Tensor::from_slice(&mask).to_device(self.device);
        let mut places = Places {
            to: on_device(&to),
            from: on_device(&from),
            mask: mask
                .to_kind(self.kind)
                .view([rows.len() as i64, 1, 1, longest as i64]),
            cache: &mut self.cache,
        };
        let hidden = self.model.forward_at(
            &on_device(&ids).unsqueeze(0),
            &on_device(&positions),
            &mut places,
        );
        let hidden = hidden.squeeze_dim(0).index_select(0, &on_device(&wanted));
        *logits = super::numbers(&self.model.logits(&hidden).to_device(Device::Cpu));
        Ok(())
    }
}
