//! RoPE scaling: from GGUF's metadata and frequency factors to `rope_scaling`
//! of a Hugging Face config.

use serde_json::{Value, json};

use genius::protocol::Failure;

use super::reader::Gguf;

/// Tensor with a divisor for each of the `head_dim / 2` frequencies, written
/// for models whose config has `rope_type: llama3`.
pub const FACTORS: &str = "rope_freqs.weight";

/// What Llama 3.1 and later use; GGUF keeps only the factors that follow.
const LOW_FREQUENCY: f64 = 1.0;
const HIGH_FREQUENCY: f64 = 4.0;
const ORIGINAL_CONTEXT: f64 = 8192.0;

/// `rope_scaling` of the config, or `None` when RoPE is plain.
///
/// # Errors
/// When the scaling is of a type that is not known, or the factors are not
/// those of any `llama3` scaling.
pub fn scaling(
    file: &mut Gguf,
    prefix: &str,
    theta: f64,
    head_dim: usize,
) -> Result<Option<Value>, Failure> {
    if file.tensor(FACTORS).is_some() {
        let factors = file.values(FACTORS)?;
        return llama3(&factors, theta, head_dim)
            .ok_or_else(|| {
                file.failure(format!(
                    "holds in `{FACTORS}` factors that no `llama3` RoPE scaling has"
                ))
            })
            .map(Some);
    }
    let key = |name: &str| format!("{prefix}.rope.scaling.{name}");
    let factor = match file.number(&key("factor"))? {
        // The key that older files have.
        None => file.number(&format!("{prefix}.rope.scale_linear"))?,
        given => given,
    };
    // llama.cpp takes a 0 for none.
    let factor = factor.filter(|factor| *factor != 0.0);
    if let Some(factor) = factor.filter(|factor| !(1e-6..=1e6).contains(factor)) {
        return Err(file.failure(format!(
            "is damaged: it scales RoPE by the factor {factor:e}"
        )));
    }
    let kind = file.text(&key("type"))?;
    match (kind, factor) {
        (None | Some("none"), None) => Ok(None),
        (_, Some(1.0)) => Ok(None),
        (None | Some("linear"), Some(factor)) => {
            Ok(Some(json!({ "rope_type": "linear", "factor": factor })))
        }
        (Some("yarn"), Some(factor)) => {
            let mut value = json!({ "rope_type": "yarn", "factor": factor });
            if let Some(context) = file.integer(&key("original_context_length"))? {
                value["original_max_position_embeddings"] = json!(context);
            }
            Ok(Some(value))
        }
        (Some("none"), Some(_)) => Ok(None),
        (Some(other), _) => Err(file
            .failure(format!("scales RoPE by `{other}`, which is not read"))
            .hint("the types that are read: linear, yarn, llama3")),
    }
}

/// Finds the `llama3` scaling that gives these factors.
fn llama3(factors: &[f32], theta: f64, head_dim: usize) -> Option<Value> {
    // Low frequencies are divided by the whole factor.
    let factor = f64::from(factors.iter().copied().fold(f32::MIN, f32::max));
    let expected = llama3_factors(factor, theta, head_dim);
    let same = factors.len() == expected.len()
        && factors
            .iter()
            .zip(&expected)
            .all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-4 * b);
    same.then(|| {
        json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": LOW_FREQUENCY,
            "high_freq_factor": HIGH_FREQUENCY,
            "original_max_position_embeddings": ORIGINAL_CONTEXT as u64,
        })
    })
}

/// The divisors of the `llama3` scaling, one a frequency.
pub(super) fn llama3_factors(factor: f64, theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2)
        .map(|i| {
            let frequency = theta.powf(-((2 * i) as f64) / head_dim as f64);
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < ORIGINAL_CONTEXT / HIGH_FREQUENCY {
                1.0
            } else if wavelength > ORIGINAL_CONTEXT / LOW_FREQUENCY {
                factor
            } else {
                let smooth = (ORIGINAL_CONTEXT / wavelength - LOW_FREQUENCY)
                    / (HIGH_FREQUENCY - LOW_FREQUENCY);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect()
}
