//! GGUF files, turned into Hugging Face model folders.
//!
//! Weights are dequantised to f32; the rows of q and k, which GGUF stores for
//! interleaved RoPE, are put back into the order of the Hugging Face layout;
//! tokenizer and chat template come from the metadata. What cannot be
//! converted exactly is refused by name.

mod architecture;
mod pre_tokenizer;
mod quantisation;
mod reader;
mod rope;
mod tokenizer;
mod weights;

use std::path::Path;

use genius::artifact::write_json;
use genius::protocol::{Failure, Level, Progress};
use genius::stage::Context;

use architecture::Geometry;
use reader::Gguf;

/// Writes the model folder `out` from the GGUF file `path`, which messages call `shown`.
///
/// # Errors
/// When the file is damaged, or uses an architecture, a quantisation or a
/// tokenizer that is not read; the message names the tensor, type or key.
pub fn convert(context: &Context, path: &Path, shown: &str, out: &Path) -> Result<(), Failure> {
    let mut file = Gguf::open(path, shown)?;
    let geometry = Geometry::read(&mut file)?;
    let targets = geometry.targets(&file)?;
    let tokens = tokenizer::Tokenizer::read(&file, geometry.vocabulary)?;
    if !tokens.has_chat_template() {
        context.log(
            Level::Warn,
            format!("the model has no chat template: {shown} holds none"),
        );
    }
    write_json(
        &out.join("config.json"),
        &geometry.config(tokens.specials()),
    )?;
    write_json(
        &out.join("generation_config.json"),
        &tokens.generation_config(),
    )?;
    write_json(
        &out.join("tokenizer_config.json"),
        &tokens.config(geometry.context),
    )?;
    // 49152 tokens: one line an entry would triple the file.
    let text = tokens.json().to_string();
    let tokenizer = out.join("tokenizer.json");
    std::fs::write(&tokenizer, text)
        .map_err(|e| Failure::new(format!("{}: {e}", tokenizer.display())))?;

    weights::write(
        &mut file,
        &targets,
        out,
        weights::SHARD_BYTES,
        &mut |done| {
            context.progress(Progress {
                phase: "converting".into(),
                done: done as u64,
                total: Some(targets.len() as u64),
                unit: "tensors".into(),
                detail: String::new(),
            });
            context.check_cancelled()
        },
    )
}

#[cfg(test)]
mod tests;
