//! Draws a token from raw logits: [`draw`], a pure function of the logits, the
//! key of the draw and its position, so that no batching and no order matter.
//!
//! Tokens are drawn by Gumbel-max: the one with the highest tempered logit plus
//! Gumbel noise, which is a draw from their softmax (Gumbel 1954; Maddison et
//! al. 2014). The noise is keyed by position and token id.

use std::cmp::Ordering;

use super::engine::Sampling;
use genius::method::random::Stream;

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
    /// A logit is no number, or infinite.
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
/// padded rows behind them) at `temperature`; 0 takes the likeliest, the lowest
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
    if let Some((token, &value)) = logits.iter().enumerate().find(|(_, l)| !l.is_finite()) {
        return Err(DrawError::NotFinite { token, value });
    }
    let drawable = &logits[..vocab.min(logits.len())];
    let best = argmax(drawable).ok_or(DrawError::Empty)?;
    let token = if temperature <= 0.0 {
        best
    } else if let Some(kept) = filtered(drawable, temperature, sampling) {
        gumbel_max(
            kept.iter().map(|&i| (i, drawable[i])),
            best,
            drawable[best],
            temperature,
            stream,
            position,
        )
    } else {
        gumbel_max(
            drawable.iter().copied().enumerate(),
            best,
            drawable[best],
            temperature,
            stream,
            position,
        )
    };
    Ok(Drawn {
        token: u32::try_from(token).map_err(|_| DrawError::Empty)?,
        logprob: (f64::from(logits[token]) - log_sum_exp(logits)) as f32,
    })
}

/// Place of the highest value, the first of several.
fn argmax(values: &[f32]) -> Option<usize> {
    let mut best = None;
    for (i, &value) in values.iter().enumerate() {
        if best.is_none_or(|(_, b)| value > b) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// ln of the sum of exponentials, in f64.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
    max + sum.ln()
}

/// The token of highest noisy score, the lowest id of several. `likeliest` is
/// among the candidates and its noisy score is the first to beat.
///
/// A token i beats the score s so far iff -ln(u_i) < exp(z_i - s). As
/// -ln(u) >= 1 - u, most tokens are ruled out by one comparison, without a
/// logarithm; the margin covers rounding, and what it lets through is compared
/// exactly. Below `HOPELESS` not even u is needed: 1 - u is at least 2^-53.
fn gumbel_max(
    candidates: impl Iterator<Item = (usize, f32)>,
    likeliest: usize,
    its_logit: f32,
    temperature: f64,
    stream: &Stream,
    position: u64,
) -> usize {
    // 2^-53 is about e^-36.74.
    const HOPELESS: f64 = -36.8;
    let score =
        |id: usize, logit: f32| f64::from(logit) / temperature + stream.gumbel(position, id as u64);
    let mut best = (likeliest, score(likeliest, its_logit));
    for (id, logit) in candidates {
        let ahead = f64::from(logit) / temperature - best.1;
        if ahead < HOPELESS || id == likeliest {
            continue;
        }
        let u = stream.uniform(position, id as u64);
        if 1.0 - u > ahead.exp() * (1.0 + 1e-6) {
            continue;
        }
        let s = score(id, logit);
        if s > best.1 || (s == best.1 && id < best.0) {
            best = (id, s);
        }
    }
    best.0
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
