//! What generating stages have in common: engine and precision, and what `auto`
//! means for them on the machine that runs the stage.

use super::declare::{choice, params};
use super::{Numerics, Resolved, Target, Unsupported};

choice! {
    /// What generates text.
    pub enum Engine {
        /// The best for the device; the key holds which.
        Auto = "auto",
        /// mistral.rs.
        Mistralrs = "mistralrs",
        /// The project's own batched decoder: its own kernels on a CPU, libtorch's
        /// operations on a GPU. It was called `libtorch`.
        Native = "native",
    }
}

choice! {
    /// Precision of a forward pass.
    pub enum Dtype {
        /// The best for engine and device; the key holds which.
        Auto = "auto",
        /// 32 bits.
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
    }
}

params! {
    /// Parameters of every kind that generates: an engine and how it computes.
    #[derive(Copy)]
    pub struct Options {
        /// Inference engine; `auto` takes the best for the device, and the key holds which.
        engine: Engine => declared::<Engine>().or(Engine::Auto),
        /// Precision of the forward pass; `auto` is bf16 on a GPU, on a CPU f32 (with the
        /// native engine bf16 where the processor is fast at it).
        dtype: Dtype => declared::<Dtype>().or(Dtype::Auto),
        /// Sequences in flight; 0 leaves it to the engine: 64, with mistral.rs on a CPU one.
        width: usize => int(0..=4096).or(0).knob(),
        /// GiB of keys and values held at most; 0 leaves it to the engine: native 1 on a CPU
        /// and 4 on a GPU, mistral.rs what the weights leave of a GPU.
        kv_cache_gb: f64 => non_negative().or(0.0).knob(),
    }
}

const CPU_REASON: &str =
    "it has many sequences in flight there, and results that depend on nothing but their own draws";
const GPU_REASON: &str = "it has as many sequences in flight there as memory allows";
const ONLY_REASON: &str = "genius-worker is built without mistral.rs for it";

impl Options {
    /// Replaces `auto` by what is best on the target; describes which engine it is and
    /// why.
    ///
    /// # Errors
    /// What the engine cannot do on the device: refused here, before anything runs.
    pub(super) fn resolve(&mut self, target: &Target<'_>) -> Result<Resolved, Unsupported> {
        let Self { engine, dtype, .. } = self;
        let device = target.device;
        let gpu = device != "cpu";
        let reason = if *engine == Engine::Auto {
            let has_mistralrs = Numerics::on(target, Engine::Mistralrs.word()).is_some();
            let (best, reason) = match () {
                () if gpu && has_mistralrs => (Engine::Mistralrs, GPU_REASON),
                () if gpu => (Engine::Native, ONLY_REASON),
                () => (Engine::Native, CPU_REASON),
            };
            *engine = best;
            format!("`engine: auto` on {device}: {reason}")
        } else {
            "the pipeline asks for it".to_owned()
        };
        let mistralrs = *engine == Engine::Mistralrs;
        if *dtype == Dtype::Auto {
            let bf16 = gpu || (!mistralrs && target.fast_bf16);
            *dtype = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
        }
        if mistralrs && !gpu && *dtype == Dtype::Bf16 {
            return Err(Unsupported {
                at: Some("dtype"),
                what: "bf16 with mistral.rs on a CPU",
                instead: "`dtype: f32`",
            });
        }
        if mistralrs && device.starts_with("cuda:") {
            return Err(Unsupported {
                at: Some("engine"),
                what: "mistral.rs on a CUDA device by number",
                instead: "`--device cuda` with CUDA_VISIBLE_DEVICES=N",
            });
        }
        let numerics = Numerics::on(target, engine.word()).ok_or(Unsupported {
            at: Some("engine"),
            what: "that engine on that device with this genius-worker",
            instead: "`engine: auto` or `--device cpu`",
        })?;
        Ok(Resolved {
            engine: Some(format!("engine {engine} in {dtype} on {device} ({reason})")),
            numerics: Some(numerics),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Computes, Params, StageKind, example};
    use serde_json::json;
    use std::sync::LazyLock;

    fn target(device: &str, fast_bf16: bool) -> Target<'_> {
        const EVERY: &[&str] = &["cpu", "cuda", "metal"];
        static ENGINES: LazyLock<Vec<Computes>> =
            LazyLock::new(|| Computes::of_build(EVERY, EVERY));
        Target {
            device,
            fast_bf16,
            level: "avx2",
            engines: &ENGINES,
        }
    }

    fn options(engine: Engine, dtype: Dtype) -> Options {
        Options {
            engine,
            dtype,
            width: 0,
            kv_cache_gb: 0.0,
        }
    }

    #[test]
    fn precision_follows_the_device() {
        let resolved = |device, fast| {
            let mut options = options(Engine::Auto, Dtype::Auto);
            options.resolve(&target(device, fast)).unwrap();
            options.dtype
        };
        assert_eq!(resolved("cpu", false), Dtype::F32);
        assert_eq!(resolved("cpu", true), Dtype::Bf16);
        assert_eq!(resolved("cuda", false), Dtype::Bf16);
        assert_eq!(resolved("metal", false), Dtype::Bf16);
        let trained = |device, fast| {
            let mut params = example::params(StageKind::Train, &json!({}));
            assert_eq!(params.resolve(&target(device, fast)).unwrap().engine, None);
            let Params::Train(params) = params else {
                panic!("{params:?}")
            };
            params.dtype
        };
        assert_eq!(trained("cpu", false), Dtype::F32);
        assert_eq!(trained("cpu", true), Dtype::Bf16);
        assert_eq!(trained("cuda:1", false), Dtype::Bf16);
        assert_eq!(trained("metal", false), Dtype::F32);
    }

    #[test]
    fn the_engine_follows_the_device_and_the_reason_is_given() {
        let resolved = |engine, device, fast| {
            let mut options = options(engine, Dtype::Auto);
            let resolved = options.resolve(&target(device, fast));
            resolved.unwrap().engine.unwrap()
        };
        insta::assert_snapshot!(resolved(Engine::Auto, "cpu", false), @"engine native in f32 on cpu (`engine: auto` on cpu: it has many sequences in flight there, and results that depend on nothing but their own draws)");
        insta::assert_snapshot!(resolved(Engine::Auto, "cuda", false), @"engine mistralrs in bf16 on cuda (`engine: auto` on cuda: it has as many sequences in flight there as memory allows)");
        insta::assert_snapshot!(resolved(Engine::Native, "cpu", false), @"engine native in f32 on cpu (the pipeline asks for it)");
        insta::assert_snapshot!(resolved(Engine::Native, "cpu", true), @"engine native in bf16 on cpu (the pipeline asks for it)");
        insta::assert_snapshot!(resolved(Engine::Mistralrs, "cpu", true), @"engine mistralrs in f32 on cpu (the pipeline asks for it)");
        // It knows devices by number.
        insta::assert_snapshot!(resolved(Engine::Native, "cuda:1", false), @"engine native in bf16 on cuda:1 (the pipeline asks for it)");
    }

    #[test]
    fn what_is_written_out_stays() {
        let mut options = options(Engine::Mistralrs, Dtype::F32);
        let written = options;
        options.resolve(&target("cuda", true)).unwrap();
        assert_eq!(options, written);
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused() {
        let refused = |engine, dtype, device| {
            let mut options = options(engine, dtype);
            options.resolve(&target(device, true)).unwrap_err()
        };
        let bf16 = refused(Engine::Mistralrs, Dtype::Bf16, "cpu");
        assert_eq!((bf16.at, bf16.instead), (Some("dtype"), "`dtype: f32`"));
        assert_eq!(
            refused(Engine::Auto, Dtype::Auto, "cuda:1").at,
            Some("engine")
        );
    }

    #[test]
    fn auto_takes_an_engine_that_the_worker_has_on_the_device() {
        let engines = Computes::of_build(&["cpu", "cuda"], &["cpu"]);
        let target = Target {
            engines: &engines,
            ..target("cuda:1", false)
        };
        let mut native = options(Engine::Auto, Dtype::Auto);
        let resolved = native.resolve(&target).unwrap();
        assert_eq!(resolved.numerics.unwrap().engine, "libtorch 2.13.0");
        insta::assert_snapshot!(resolved.engine.unwrap(), @"engine native in bf16 on cuda:1 (`engine: auto` on cuda:1: genius-worker is built without mistral.rs for it)");
        let cuda = Target {
            device: "cuda",
            ..target
        };
        let refused = options(Engine::Mistralrs, Dtype::Auto).resolve(&cuda);
        assert_eq!(refused.unwrap_err().at, Some("engine"));
        let without = Target {
            engines: &[],
            ..cuda
        };
        let mut train = example::params(StageKind::Train, &json!({}));
        assert_eq!(train.resolve(&without).unwrap_err().at, None);
    }
}
