//! Draws a token from raw logits: [`draw`], a pure function of the logits, the
//! key of the draw and its position, so that no batching and no order matter.
//!
//! Tokens are drawn by Gumbel-max: the one with the highest tempered logit plus
//! Gumbel noise, which is a draw from their softmax (Gumbel 1954; Maddison et
//! al. 2014). The noise is keyed by position and token id.

use std::cmp::Ordering;

use super::engine::{Sampling, TokenLikelihood};
use super::lanes::{F32x16, LANES};
use genius::method::random::{GROUP, Row, Stream};

/// A token drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
    /// Its natural log-probability under the untempered, unfiltered policy.
    pub logprob: f32,
}

/// Why nothing can be drawn.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DrawError {
    /// A logit is NaN or infinite.
    #[error(
        "the model's logit of token {token} is {value}: its weights are broken, or its precision \
         is too low"
    )]
    NotFinite {
        /// Token id.
        token: usize,
        /// The logit.
        value: f32,
    },
    /// There are no tokens.
    #[error("the model gave no logits")]
    Empty,
}

/// Draws the token at `position` among the first `vocab` ids (a model may have
/// padded rows after them) at `temperature`; 0 takes the likeliest, the lowest
/// id of several. `sampling` gives the filters, which see the tempered
/// distribution one after another: top-k, top-p, min-p.
///
/// # Errors
/// When a logit is NaN or infinite.
pub fn draw(
    logits: &[f32],
    vocab: usize,
    temperature: f64,
    sampling: &Sampling,
    stream: &Stream,
    position: u64,
) -> Result<Drawn, DrawError> {
    check(logits)?;
    let drawable = &logits[..vocab.min(logits.len())];
    let best = argmax(drawable).ok_or(DrawError::Empty)?;
    let row = stream.row(position);
    let token = if temperature <= 0.0 {
        best
    } else if let Some(kept) = filtered(drawable, temperature, sampling) {
        of_ids(drawable, &kept, best, temperature, row)
    } else {
        gumbel_max_of_all(drawable, best, temperature, row)
    };
    drawn(logits, token)
}

/// Draws as [`draw`] does, on condition that the token is one that `keep` names;
/// `None` where the filters leave no such token.
///
/// # Errors
/// When a logit is NaN or infinite.
pub fn draw_among(
    logits: &[f32],
    vocab: usize,
    keep: impl Fn(usize) -> bool,
    temperature: f64,
    sampling: &Sampling,
    stream: &Stream,
    position: u64,
) -> Result<Option<Drawn>, DrawError> {
    check(logits)?;
    let drawable = &logits[..vocab.min(logits.len())];
    let kept = Some(temperature)
        .filter(|t| *t > 0.0)
        .and_then(|t| filtered(drawable, t, sampling));
    let mut ids = kept.unwrap_or_else(|| (0..drawable.len()).collect());
    ids.retain(|&i| keep(i));
    // The likeliest, the lowest id of several.
    let order = |a: &&usize, b: &&usize| logits[**a].total_cmp(&logits[**b]).then(b.cmp(a));
    let Some(&best) = ids.iter().max_by(order) else {
        return Ok(None);
    };
    let token = if temperature <= 0.0 {
        best
    } else {
        of_ids(logits, &ids, best, temperature, stream.row(position))
    };
    drawn(logits, token).map(Some)
}

/// How likely a given token is, `vocab` as in [`draw`].
///
/// # Errors
/// When a logit is NaN or infinite, or the token has none.
pub fn likelihood(logits: &[f32], vocab: usize, token: u32) -> Result<TokenLikelihood, DrawError> {
    check(logits)?;
    let token = token as usize;
    let drawable = &logits[..vocab.min(logits.len())];
    if token >= drawable.len() {
        return Err(DrawError::Empty);
    }
    Ok(TokenLikelihood {
        logprob: logprob(logits, token),
        is_greedy: argmax(drawable) == Some(token),
    })
}

/// The token of highest noisy score of some, `best` the likeliest of them.
fn of_ids(logits: &[f32], ids: &[usize], best: usize, temperature: f64, row: Row) -> usize {
    let mut chosen = Best::new(best, logits[best], temperature, row);
    chosen.consider_all(ids.iter().map(|&i| (i, logits[i])));
    chosen.id
}

fn drawn(logits: &[f32], token: usize) -> Result<Drawn, DrawError> {
    Ok(Drawn {
        token: u32::try_from(token).map_err(|_| DrawError::Empty)?,
        logprob: logprob(logits, token),
    })
}

fn logprob(logits: &[f32], token: usize) -> f32 {
    (f64::from(logits[token]) - log_sum_exp(logits)) as f32
}

/// Refuses logits that are not numbers.
fn check(logits: &[f32]) -> Result<(), DrawError> {
    // The exponent is all ones in infinities and NaN; written so, the check is a few instructions
    // for sixteen.
    let size = |l: &f32| l.to_bits() & 0x7fff_ffff;
    if logits.iter().fold(0, |most, l| size(l).max(most)) >= f32::INFINITY.to_bits() {
        let broken = logits.iter().enumerate().find(|(_, l)| !l.is_finite());
        if let Some((token, &value)) = broken {
            return Err(DrawError::NotFinite { token, value });
        }
    }
    Ok(())
}

/// Place of the highest value, the first of several.
fn argmax(values: &[f32]) -> Option<usize> {
    let max = highest(values);
    values.iter().position(|v| *v == max)
}

fn highest(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks();
    let mut most = F32x16::splat(f32::NEG_INFINITY);
    for chunk in chunks {
        most = most.max(F32x16::from_array(chunk));
    }
    rest.iter().copied().fold(most.highest(), f32::max)
}

/// ln of the sum of exponentials: each to about 1e-7 of itself, summed in f64
/// from parts of a thousand.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    const PART: usize = 64 * LANES;
    let max = highest(logits);
    let mut sum = 0.0_f64;
    for part in logits.chunks(PART) {
        let (chunks, rest) = part.as_chunks();
        let rest = rest.iter();
        let rest: f64 = rest.map(|l| (f64::from(*l) - f64::from(max)).exp()).sum();
        let mut of_part = F32x16::splat(0.0);
        for chunk in chunks {
            of_part = of_part.add(F32x16::from_array(chunk).sub(F32x16::splat(max)).exp());
        }
        sum += rest + f64::from(of_part.sum());
    }
    f64::from(max) + sum.ln()
}

/// The token of highest noisy score of all, sixteen at a time.
///
/// The rule of [`Best`], first in f32 with the upper half of u's bits: by them
/// 1 - u is at least (2^32 - 1 - bits) / 2^32. The margins cover f32; what they
/// let through is compared exactly.
fn gumbel_max_of_all(logits: &[f32], likeliest: usize, temperature: f64, row: Row) -> usize {
    const HOPELESS: f32 = -37.0;
    const MARGIN: f32 = 1.001;
    let its_logit = logits[likeliest];
    let mut best = Best::new(likeliest, its_logit, temperature, row);
    let whole = logits.len() - logits.len() % GROUP;
    let inverse = (1.0 / temperature) as f32;
    // Quotients that f32 cannot hold are left to f64.
    if !inverse.is_finite() || inverse > 1e6 {
        best.consider_all(logits.iter().copied().enumerate());
        return best.id;
    }
    let (first, inverse) = (F32x16::splat(its_logit), F32x16::splat(inverse));
    for (group, of_group) in logits.chunks_exact(GROUP).enumerate() {
        let chunks = || of_group.as_chunks::<LANES>().0.iter().enumerate();
        let ahead = |chunk: &[f32; LANES], best: &Best| {
            F32x16::from_array(chunk)
                .sub(first)
                .mul(inverse)
                .sub(F32x16::splat(best.score as f32))
        };
        let hopeless =
            |chunk: &[f32; LANES]| ahead(chunk, &best).at_least(F32x16::splat(HOPELESS)) == 0;
        if chunks().all(|(_, chunk)| hopeless(chunk)) {
            continue;
        }
        let bits = best.row.upper_bits(group as u64);
        for (i, chunk) in chunks() {
            let least = bits[i].map(|bits| !bits as f32 * (1.0 / 4_294_967_296.0));
            let chance = ahead(chunk, &best).exp().mul(F32x16::splat(MARGIN));
            let mut open = chance.at_least(F32x16::from_array(&least));
            while open != 0 {
                let lane = open.trailing_zeros() as usize;
                open &= open - 1;
                let id = group * GROUP + i * LANES + lane;
                best.consider_all(std::iter::once((id, chunk[lane])));
            }
        }
    }
    best.consider_all((whole..logits.len()).map(|i| (i, logits[i])));
    best.id
}

/// The token of highest noisy score so far, the lowest id of several.
///
/// A token i beats the score s so far iff -ln(u_i) < exp(z_i - s). As
/// -ln(u) >= 1 - u, most tokens are ruled out by one comparison, without a
/// logarithm; the margin covers rounding, and what it lets through is compared
/// exactly. Below `HOPELESS` not even u is needed: 1 - u is at least 2^-53.
struct Best {
    id: usize,
    score: f64,
    likeliest: usize,
    its_logit: f32,
    temperature: f64,
    row: Row,
}

impl Best {
    /// `likeliest` is among the candidates and its noisy score is the first to beat.
    fn new(likeliest: usize, its_logit: f32, temperature: f64, row: Row) -> Self {
        Self {
            id: likeliest,
            score: row.gumbel(likeliest as u64),
            likeliest,
            its_logit,
            temperature,
            row,
        }
    }

    fn consider_all(&mut self, candidates: impl Iterator<Item = (usize, f32)>) {
        // 2^-53 is about e^-36.74.
        const HOPELESS: f64 = -36.8;
        for (id, logit) in candidates {
            // Against the likeliest first: at a tiny temperature the quotient alone overflows.
            let tempered = (f64::from(logit) - f64::from(self.its_logit)) / self.temperature;
            let ahead = tempered - self.score;
            if ahead < HOPELESS || id == self.likeliest {
                continue;
            }
            let u = self.row.uniform(id as u64);
            if 1.0 - u > ahead.exp() * (1.0 + 1e-6) {
                continue;
            }
            let score = tempered + self.row.gumbel(id as u64);
            if score > self.score || (score == self.score && id < self.id) {
                (self.id, self.score) = (id, score);
            }
        }
    }
}

/// Tokens that the filters leave; nothing if there are no filters.
fn filtered(logits: &[f32], temperature: f64, sampling: &Sampling) -> Option<Vec<usize>> {
    let top_k = sampling.top_k.filter(|&k| k > 0 && k < logits.len());
    if top_k.is_none() && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
        return None;
    }
    let order =
        |a: &usize, b: &usize| -> Ordering { logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)) };
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    if let Some(k) = top_k {
        kept.select_nth_unstable_by(k - 1, order);
        kept.truncate(k);
    }
    let max = kept
        .iter()
        .map(|&i| logits[i])
        .fold(f32::NEG_INFINITY, f32::max);
    // Relative to the likeliest token.
    let weight = |i: usize| ((f64::from(logits[i]) - f64::from(max)) / temperature).exp();
    if sampling.top_p < 1.0 {
        kept.sort_unstable_by(order);
        let total: f64 = kept.iter().map(|&i| weight(i)).sum();
        let mut sum = 0.0;
        let mut n = 0;
        for &i in &kept {
            sum += weight(i);
            n += 1;
            if sum >= sampling.top_p * total {
                break;
            }
        }
        kept.truncate(n);
    }
    if sampling.min_p > 0.0 {
        // The likeliest has weight 1, and stays even if min-p is above that.
        kept.retain(|&i| logits[i] == max || weight(i) >= sampling.min_p);
    }
    Some(kept)
}

#[cfg(test)]
mod tests;
