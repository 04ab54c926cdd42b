//! Engines as a pipeline file asks for them: [`engine`].

use std::path::Path;

use super::engine::Engine;
use super::mistralrs::MistralRs;
use super::native;
use crate::device;
use genius::kind::engine::{Engine as Asked, Options};
use genius::protocol::{Context, Execution, Failure, Figure, Unit};

/// Loads the engine with the model in `folder`.
///
/// # Errors
/// When it cannot load the model, or compute so on the device.
pub fn engine(
    options: Options,
    folder: &Path,
    execution: &Execution,
) -> Result<Box<dyn Engine>, Failure> {
    match options.engine {
        Asked::Mistralrs => Ok(Box::new(MistralRs::load(folder, options, execution)?)),
        Asked::Native => Ok(Box::new(native::load(folder, options, execution)?)),
        Asked::Auto => Err(device::unresolved("engine")),
    }
}

/// What a stage ran on.
pub fn figure(context: &Context, options: Options) -> Figure {
    let device = &context.job.execution.device;
    let Options { engine, dtype, .. } = options;
    let text = format!("{engine} {dtype} {device}");
    Figure::new("engine", text, Unit::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use genius::kind::engine::Dtype;

    #[test]
    fn impossible_settings_are_refused_readably() {
        let folder = Path::new("no-such-folder");
        let words = |asked, dtype, device: &str| {
            let execution = Execution {
                device: device.into(),
                ..Execution::default()
            };
            let options = Options {
                engine: asked,
                dtype,
                width: 0,
                kv_cache_gb: 0.0,
            };
            match engine(options, folder, &execution) {
                Ok(_) => String::new(),
                Err(e) => e.message,
            }
        };
        let (native, mistralrs) = (Asked::Native, Asked::Mistralrs);
        assert!(words(Asked::Auto, Dtype::F32, "cpu").contains("`auto`"));
        assert!(words(native, Dtype::Auto, "cpu").contains("`auto`"));
        assert!(words(mistralrs, Dtype::Auto, "cpu").contains("`auto`"));
        assert!(words(mistralrs, Dtype::Bf16, "cpu").contains("use `dtype: f32`"));
        assert!(words(mistralrs, Dtype::F32, "tpu").contains("no device \"tpu\""));
        assert!(words(mistralrs, Dtype::F32, "cpu").contains("tokenizer.json: not found"));
        assert!(words(native, Dtype::F32, "tpu").contains("unknown device `tpu`"));
        assert!(words(native, Dtype::Bf16, "cpu").contains("tokenizer.json: not found"));
    }
}
