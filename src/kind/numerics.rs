//! [`Numerics`]: what decides the bits of floating-point results beside parameters
//! and inputs. It is in the key, so that a CPU's and a GPU's results, or those of two
//! engines, never share one.

use serde::{Deserialize, Serialize};

use super::Target;
use super::engine::Engine;

/// libtorch's version, which the trainer and the decoder on a GPU compute with
/// (scripts/setup.py fetches it).
const LIBTORCH: &str = "libtorch 2.13.0";
/// mistral.rs's version (Cargo.toml).
const MISTRALRS: &str = "mistralrs 0.8.1";
/// The project's own kernels for CPUs. Raised when their sums take another order.
const KERNELS: &str = "genius kernels 1";

/// A class of machines and programs whose results have the same bits.
///
/// Not in it: how many threads, sequences in flight, shards or devices there are,
/// which machine of the class it is, and what folders are called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numerics {
    /// What computes, with the version of its arithmetic: `libtorch 2.13.0`.
    pub engine: String,
    /// `cpu`, `cuda` or `metal`.
    pub device: String,
    /// On a CPU the instruction level by which kernels are chosen: `avx2`,
    /// `avx512_bf16`; see `crate::processor::level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

impl Numerics {
    fn on(target: &Target<'_>, engine: &str) -> Self {
        let device = target.device.split(':').next().unwrap_or_default();
        Self {
            engine: engine.to_owned(),
            device: device.to_owned(),
            level: (device == "cpu").then(|| target.level.to_owned()),
        }
    }

    /// Of the trainer.
    pub(super) fn of_training(target: &Target<'_>) -> Self {
        Self::on(target, LIBTORCH)
    }

    /// Of what generates text, `auto` resolved.
    pub(super) fn of_engine(engine: Engine, target: &Target<'_>) -> Self {
        let computes = match engine {
            Engine::Mistralrs => MISTRALRS,
            Engine::Native | Engine::Auto if target.device == "cpu" => KERNELS,
            Engine::Native | Engine::Auto => LIBTORCH,
        };
        Self::on(target, computes)
    }

    /// What is wrong with computing this class on a processor of that level; none:
    /// nothing.
    pub fn refusal(&self, level: &str) -> Option<String> {
        let planned = self.level.as_deref()?;
        (planned != level).then(|| {
            format!(
                "the stage was planned for a processor with {planned}, and this one has {level}: \
                 its result would have other bits than its key stands for"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target<'a>(device: &'a str, level: &'a str) -> Target<'a> {
        Target {
            device,
            fast_bf16: false,
            level,
        }
    }

    #[test]
    fn engines_devices_and_levels_are_classes() {
        let of = |engine, device, level| Numerics::of_engine(engine, &target(device, level));
        let all = [
            of(Engine::Native, "cpu", "avx2"),
            of(Engine::Native, "cpu", "avx512"),
            of(Engine::Mistralrs, "cpu", "avx2"),
            of(Engine::Native, "cuda", "avx2"),
            of(Engine::Mistralrs, "cuda", "avx2"),
            Numerics::of_training(&target("cpu", "avx2")),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{a:?}");
        }
        // Which device it is, and what the host has beside it, is in no class.
        assert_eq!(
            of(Engine::Native, "cuda:1", "avx512"),
            of(Engine::Native, "cuda", "avx2")
        );
    }

    #[test]
    fn another_processor_is_refused_on_a_cpu_alone() {
        let cpu = Numerics::of_training(&target("cpu", "avx512"));
        assert_eq!(cpu.refusal("avx512"), None);
        assert!(
            cpu.refusal("avx2")
                .unwrap()
                .contains("with avx512, and this one has avx2")
        );
        let gpu = Numerics::of_training(&target("cuda", "avx512"));
        assert_eq!(gpu.refusal("avx2"), None);
    }

    /// What Cargo.lock and the setup fetch is what the classes name.
    #[test]
    fn versions_are_those_that_are_built_with() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let (name, version) = MISTRALRS.split_once(' ').unwrap();
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(read("Cargo.lock").contains(&locked), "{locked}");
        let fetched = format!("{}-cpu", LIBTORCH.replace(' ', "-"));
        assert!(read("scripts/setup.py").contains(&fetched), "{fetched}");
    }
}
