//! Engines by their names in a pipeline file: [`engine`].

use std::path::Path;

use super::engine::Engine;
use super::libtorch;
use super::mistralrs::MistralRs;
use genius::protocol::{Context, Execution, Failure};
use serde_json::Value;

/// Loads the engine `name` with the model in `folder` to compute in `dtype`.
///
/// # Errors
/// When there is no such engine, or it cannot load the model.
pub fn engine(
    name: &str,
    folder: &Path,
    dtype: &str,
    execution: &Execution,
) -> Result<Box<dyn Engine>, Failure> {
    match name {
        "mistralrs" => Ok(Box::new(MistralRs::load(folder, dtype, execution)?)),
        "libtorch" => Ok(Box::new(libtorch::load(folder, dtype, execution)?)),
        other => Err(
            Failure::new(format!("there is no inference engine {other:?}"))
                .hint("use `engine: libtorch` or `engine: mistralrs`"),
        ),
    }
}

/// The line of a stage's summary that says what it ran on.
pub fn in_summary(context: &Context, engine: &str, dtype: &str) -> (String, Value) {
    let device = &context.job.execution.device;
    ("engine".into(), format!("{engine} {dtype} {device}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_engines_and_impossible_settings_are_refused_readably() {
        let folder = Path::new("no-such-folder");
        let words = |name, dtype, device: &str| {
            let execution = Execution {
                device: device.into(),
                ..Execution::default()
            };
            match engine(name, folder, dtype, &execution) {
                Ok(_) => String::new(),
                Err(e) => e.message,
            }
        };
        assert!(words("vllm", "f32", "cpu").contains("no inference engine \"vllm\""));
        assert!(words("libtorch", "f16", "cpu").contains("there are f32 and bf16"));
        assert!(words("mistralrs", "bf16", "cpu").contains("use `dtype: f32`"));
        assert!(words("mistralrs", "f32", "tpu").contains("no device \"tpu\""));
        assert!(words("mistralrs", "f32", "cpu").contains("tokenizer.json: not found"));
        assert!(words("libtorch", "f16", "cpu").contains("there are f32 and bf16"));
        assert!(words("libtorch", "f32", "tpu").contains("unknown device `tpu`"));
        assert!(words("libtorch", "bf16", "cpu").contains("tokenizer.json: not found"));
    }
}
