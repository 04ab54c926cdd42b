//! Log-probabilities of response tokens and their gradients, without ever
//! holding the logits of a batch: [`forward`] and [`backward`].
//!
//! Hidden states are selected at the positions that predict response tokens,
//! and go through the output projection a few hundred rows at a time, in f32 from the
//! hidden states to the gradients. Gradients are taken in two passes: the first has the log-probabilities,
//! from which the loss gives one coefficient a token; the second repeats
//! the projection and adds coefficient * (onehot - softmax), the gradient of a
//! log-probability, row by row. The projection is a small part of a model, its
//! logits [rows, V] are the largest thing in training.

use tch::{Device, Kind, Tensor};

use crate::model::llama::Llama;

/// Rows of logits held at a time.
const CHUNK_ROWS: i64 = 512;

/// Sequences with the responses in them.
#[derive(Debug)]
pub struct Batch {
    /// [B, T], int64, padded at the end with token 0.
    pub input_ids: Tensor,
    /// [R]: indices into [B * T] of the positions that predict response tokens.
    positions: Tensor,
    /// [R]: the response tokens.
    targets: Tensor,
    /// [R]: which sequence.
    pub rows: Tensor,
    sequences: i64,
    tokens: usize,
}

impl Batch {
    /// Of (context, response) token lists. No context may be empty: a first
    /// response token without one is predicted by nothing.
    pub fn new(sequences: &[(&[i64], &[i64])], device: Device) -> Self {
        let width = sequences
            .iter()
            .map(|(c, r)| c.len() + r.len())
            .max()
            .unwrap_or(0);
        let mut ids = Vec::with_capacity(width * sequences.len());
        let (mut positions, mut targets, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (context, response)) in sequences.iter().enumerate() {
            let start = row * width;
            ids.extend_from_slice(context);
            ids.extend_from_slice(response);
            ids.resize(start + width, 0);
            for (offset, target) in response.iter().enumerate() {
                positions.push((start + context.len() + offset) as i64 - 1);
                targets.push(*target);
                rows.push(row as i64);
            }
        }
        let tensor = |data: &[i64]| Tensor::from_slice(data).to_device(device);
        Self {
            input_ids: tensor(&ids).view([sequences.len() as i64, width as i64]),
            positions: tensor(&positions),
            targets: tensor(&targets),
            rows: tensor(&rows),
            sequences: sequences.len() as i64,
            tokens: sequences.iter().map(|(c, r)| c.len() + r.len()).sum(),
        }
    }

    /// Sums by sequence, [B], of one term a response token, [R].
    pub fn sums(&self, terms: &Tensor) -> Tensor {
        let zeros = Tensor::zeros([self.sequences], (Kind::Float, terms.device()));
        zeros.index_add(0, &self.rows, terms)
    }

    /// Tokens of all sequences, without padding.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// A forward pass: what [`backward`] needs of it.
#[derive(Debug)]
pub struct Forward {
    /// log pi of each response token, [R], f32, detached.
    pub token_logprobs: Tensor,
    /// Selected hidden states [R, H]; in the graph if gradients are on.
    hidden: Tensor,
    /// log sum exp of each row's logits, [R], f32.
    normalisers: Tensor,
}

/// Log-probabilities of the response tokens of `batch`.
pub fn forward(model: &Llama, batch: &Batch) -> Forward {
    let hidden = model
        .forward(&batch.input_ids)
        .flatten(0, 1)
        .index_select(0, &batch.positions);
    let (token_logprobs, normalisers) = tch::no_grad(|| {
        let (mut logprobs, mut normalisers) = (Vec::new(), Vec::new());
        for (start, rows) in chunks(hidden.size()[0]) {
            let logits = model.logits(&hidden.narrow(0, start, rows));
            let targets = batch.targets.narrow(0, start, rows).unsqueeze(1);
            let normaliser = logits.logsumexp(1, true);
            logprobs.push((logits.gather(1, &targets, false) - &normaliser).squeeze_dim(1));
            normalisers.push(normaliser.squeeze_dim(1));
        }
        (Tensor::cat(&logprobs, 0), Tensor::cat(&normalisers, 0))
    });
    Forward {
        token_logprobs,
        hidden,
        normalisers,
    }
}

/// Adds the gradient of sum_r `coefficients`[r] * token_logprobs[r] to the gradients of the
/// leaves under the model's weights. `head` is the f32 leaf of the output projection.
pub fn backward(
    model: &Llama,
    head: &Tensor,
    batch: &Batch,
    forward: &Forward,
    coefficients: &Tensor,
) {
    let hidden = forward.hidden.detach();
    let projection = head.detach();
    let (hidden_gradient, head_gradient) = tch::no_grad(|| {
        let coefficients = coefficients.unsqueeze(1);
        let mut hidden_gradients = Vec::new();
        let mut head_gradient = head.zeros_like();
        for (start, rows) in chunks(hidden.size()[0]) {
            let x = hidden.narrow(0, start, rows);
            let coefficient = coefficients.narrow(0, start, rows);
            let mut g = model.logits(&x);
            let _ = g
                .g_sub_(&forward.normalisers.narrow(0, start, rows).unsqueeze(1))
                .exp_()
                .g_mul_(&-&coefficient);
            let _ = g.scatter_add_(
                1,
                &batch.targets.narrow(0, start, rows).unsqueeze(1),
                &coefficient,
            );
            hidden_gradients.push(g.matmul(&projection));
            if head.requires_grad() {
                let _ = head_gradient.addmm_(&g.tr(), &x);
            }
        }
        (Tensor::cat(&hidden_gradients, 0), head_gradient)
    });
    // Their derivatives are the gradients just made: this hands them to autograd.
    let through_hidden = (&forward.hidden * hidden_gradient).sum(Kind::Float);
    let through_head = (head * head_gradient).sum(Kind::Float);
    (through_hidden + through_head).backward();
}

/// (start, length) of the chunks of `rows` rows.
fn chunks(rows: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..rows)
        .step_by(CHUNK_ROWS as usize)
        .map(move |start| (start, CHUNK_ROWS.min(rows - start)))
}
