//! An independent forward pass of the tiny model in plain f64, to judge engines
//! by: [`logprobs`].

use super::{CONTEXT, FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, VOCAB, weight};

const HEAD: usize = HIDDEN / HEADS;
const KV: usize = HEAD * KV_HEADS;
const EPS: f64 = 1e-5;
const THETA: f64 = 10_000.0;

/// Natural log-probability of every token of `tokens` but the first, given those
/// before it, under the tiny model of `seed`.
pub(crate) fn logprobs(seed: u64, tokens: &[u32]) -> Vec<f64> {
    assert!(tokens.len() <= CONTEXT);
    let embedding = weight(seed, "model.embed_tokens.weight", &[VOCAB, HIDDEN]);
    let mut rows: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&t| {
            let at = t as usize * HIDDEN;
            embedding[at..at + HIDDEN]
                .iter()
                .map(|&v| f64::from(v))
                .collect()
        })
        .collect();
    for layer in 0..LAYERS {
        let w = |name: &str, shape: &[usize]| {
            weight(seed, &format!("model.layers.{layer}.{name}.weight"), shape)
        };
        let q = w("self_attn.q_proj", &[HIDDEN, HIDDEN]);
        let k = w("self_attn.k_proj", &[KV, HIDDEN]);
        let v = w("self_attn.v_proj", &[KV, HIDDEN]);
        let o = w("self_attn.o_proj", &[HIDDEN, HIDDEN]);
        let normed: Vec<Vec<f64>> = rows.iter().map(|x| norm(x)).collect();
        let turned = |w: &[f32]| -> Vec<Vec<f64>> {
            let rows = normed.iter().enumerate();
            rows.map(|(pos, x)| rope(times(w, x), pos)).collect()
        };
        let (queries, keys) = (turned(&q), turned(&k));
        let values: Vec<Vec<f64>> = normed.iter().map(|x| times(&v, x)).collect();
        for (pos, row) in rows.iter_mut().enumerate() {
            let mixed = attend(&queries[pos], &keys[..=pos], &values[..=pos]);
            add(row, &times(&o, &mixed));
        }
        let gate = w("mlp.gate_proj", &[FFN, HIDDEN]);
        let up = w("mlp.up_proj", &[FFN, HIDDEN]);
        let down = w("mlp.down_proj", &[HIDDEN, FFN]);
        for row in &mut rows {
            let x = norm(row);
            let inner: Vec<f64> = times(&gate, &x)
                .into_iter()
                .zip(times(&up, &x))
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            add(row, &times(&down, &inner));
        }
    }
    rows.iter()
        .zip(&tokens[1..])
        .map(|(row, &next)| {
            let logits = times(&embedding, &norm(row));
            let sum: f64 = logits.iter().map(|l| l.exp()).sum();
            logits[next as usize] - sum.ln()
        })
        .collect()
}

/// RMS norm; the tiny model's norm weights are 1.
fn norm(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    x.iter().map(|v| v / (mean + EPS).sqrt()).collect()
}

/// W x for W of (rows, x.len()).
fn times(w: &[f32], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len())
        .map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum())
        .collect()
}

fn add(to: &mut [f64], what: &[f64]) {
    for (t, w) in to.iter_mut().zip(what) {
        *t += w;
    }
}

/// Rotary embedding of every head, halves paired as in Hugging Face's Llama.
fn rope(mut x: Vec<f64>, pos: usize) -> Vec<f64> {
    for head in x.chunks_mut(HEAD) {
        for i in 0..HEAD / 2 {
            let angle = pos as f64 * THETA.powf(-2.0 * i as f64 / HEAD as f64);
            let (a, b) = (head[i], head[i + HEAD / 2]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + HEAD / 2] = b * angle.cos() + a * angle.sin();
        }
    }
    x
}

/// Attention of one query row over the rows up to its own.
fn attend(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
    let mut out = Vec::with_capacity(HIDDEN);
    for (head, q) in query.chunks(HEAD).enumerate() {
        let at = head / (HEADS / KV_HEADS) * HEAD;
        let weights: Vec<f64> = keys
            .iter()
            .map(|k| {
                let dot: f64 = q.iter().zip(&k[at..at + HEAD]).map(|(a, b)| a * b).sum();
                (dot / (HEAD as f64).sqrt()).exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        for d in at..at + HEAD {
            let mixed: f64 = weights.iter().zip(values).map(|(w, v)| w * v[d]).sum();
            out.push(mixed / total);
        }
    }
    out
}
