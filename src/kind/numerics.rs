//! [`Numerics`]: what decides the bits of floating-point results beside parameters
//! and inputs. It is in the key, so that a CPU's and a GPU's results, or those of two
//! engines, never share one.

use serde::{Deserialize, Serialize};

use super::Target;
use super::engine::Engine;

/// The name under which what trains is announced.
pub const TRAINER: &str = "trainer";

/// libtorch's version, which the trainer and the decoder on a GPU compute with
/// (scripts/setup.py fetches it).
const LIBTORCH: &str = "libtorch 2.13.0";
/// mistral.rs's version (Cargo.toml).
const MISTRALRS: &str = "mistralrs 0.8.1";
/// The project's own kernels for CPUs. Raised when their sums take another order.
const KERNELS: &str = "genius kernels 1";

/// What a worker computes with on a kind of device, as it announces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computes {
    /// `native`, `mistralrs` or `trainer`.
    pub engine: String,
    /// `cpu`, `cuda` or `metal`.
    pub device: String,
    /// What computes there, with the version of its arithmetic: `libtorch 2.13.0`.
    pub arithmetic: String,
}

impl Computes {
    /// What a worker of this source computes with, if libtorch and mistral.rs can use
    /// these kinds of devices.
    pub fn of_build(libtorch: &[&str], mistralrs: &[&str]) -> Vec<Self> {
        let computes = |engine: &str, device: &str, arithmetic: &str| Self {
            engine: engine.to_owned(),
            device: device.to_owned(),
            arithmetic: arithmetic.to_owned(),
        };
        let native = |device| if device == "cpu" { KERNELS } else { LIBTORCH };
        let of_libtorch = libtorch.iter().flat_map(|&device| {
            [
                computes(Engine::Native.word(), device, native(device)),
                computes(TRAINER, device, LIBTORCH),
            ]
        });
        let of_mistralrs = mistralrs
            .iter()
            .map(|device| computes(Engine::Mistralrs.word(), device, MISTRALRS));
        of_libtorch.chain(of_mistralrs).collect()
    }
}

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
    /// Of an engine on a target; none: its worker does not have it on that device.
    pub(super) fn on(target: &Target<'_>, engine: &str) -> Option<Self> {
        let device = target.device.split(':').next().unwrap_or_default();
        let computes = target
            .engines
            .iter()
            .find(|c| c.engine == engine && c.device == device)?;
        Some(Self {
            engine: computes.arithmetic.clone(),
            device: device.to_owned(),
            level: (device == "cpu").then(|| target.level.to_owned()),
        })
    }

    /// What is wrong with computing this class on a processor of that level; none:
    /// nothing.
    pub fn refusal(&self, level: &str) -> Option<String> {
        let planned = self.level.as_deref()?;
        (planned != level).then(|| {
            format!(
                "the stage was planned for a processor with {planned}, and this one has {level}: \
                 its result would differ from the one that its key describes"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(engine: &str, device: &str, level: &str) -> Option<Numerics> {
        let target = Target {
            device,
            fast_bf16: false,
            level,
            engines: &Computes::of_build(&["cpu", "cuda"], &["cpu", "cuda"]),
        };
        Numerics::on(&target, engine)
    }

    #[test]
    fn engines_devices_and_levels_are_classes() {
        let all = [
            class("native", "cpu", "avx2"),
            class("native", "cpu", "avx512"),
            class("mistralrs", "cpu", "avx2"),
            class("native", "cuda", "avx2"),
            class("mistralrs", "cuda", "avx2"),
            class(TRAINER, "cpu", "avx2"),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(a.is_some() && all[i + 1..].iter().all(|b| a != b), "{a:?}");
        }
        // Which device it is, and what the host has beside it, is in no class.
        assert_eq!(
            class("native", "cuda:1", "avx512"),
            class("native", "cuda", "avx2")
        );
        // What the worker lacks.
        assert_eq!(class("native", "metal", "avx2"), None);
    }

    #[test]
    fn another_processor_is_refused_on_a_cpu_alone() {
        let cpu = class(TRAINER, "cpu", "avx512").unwrap();
        assert_eq!(cpu.refusal("avx512"), None);
        assert!(
            cpu.refusal("avx2")
                .unwrap()
                .contains("with avx512, and this one has avx2")
        );
        let gpu = class(TRAINER, "cuda", "avx512").unwrap();
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
