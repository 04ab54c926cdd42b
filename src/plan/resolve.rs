//! What `auto` means on this machine. Resolved before anything is hashed, so
//! the engine and precision that will run are in the key.

use super::PlanError;
use crate::kind::Program;
use crate::spec::{Resources, Stage};

/// What the machine offers; found by the command line and passed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// A CUDA device that the worker can use.
    pub cuda: bool,
    /// A Metal device that the worker can use.
    pub metal: bool,
    /// Whether the processor multiplies bf16 matrices fast (avx512_bf16, amx).
    pub bf16: bool,
    /// The processor's instruction level; see `crate::processor::level`.
    pub level: &'static str,
    /// Processor cores.
    pub cores: usize,
    /// Main memory.
    pub memory_bytes: u64,
}

/// The resources that stages running side by side share, or that one of them needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Capacity {
    /// Devices (CUDA or Metal).
    pub gpu: u32,
    /// Main memory, GiB.
    pub memory_gb: f64,
    /// Processor cores.
    pub cores: u32,
}

/// How a run is to be executed: never part of a key by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// CPU threads of a stage; 0: all.
    pub threads: usize,
    /// What stages share; the machine's resources where it is not given.
    pub resources: Resources,
}

impl RunOptions {
    /// What stages of a run on `host` share.
    pub fn capacity(&self, host: &Host) -> Capacity {
        const GIB: f64 = (1u64 << 30) as f64;
        let gpus = u32::from(host.cuda || host.metal);
        let cores = u32::try_from(host.cores).unwrap_or(1).max(1);
        Capacity {
            gpu: self.resources.gpu.unwrap_or(gpus),
            memory_gb: self
                .resources
                .memory_gb
                .unwrap_or(host.memory_bytes as f64 / GIB),
            cores: self.resources.cores.unwrap_or(cores).max(1),
        }
    }
}

/// The resources a stage needs: what it sets, else by its kind: a stage with a model
/// takes the GPU, or all cores where it runs on them; any other takes one core.
pub(super) fn demand(
    stage: &Stage,
    device: &str,
    capacity: &Capacity,
) -> Result<Capacity, PlanError> {
    let heavy = stage.kind().program() == Program::Worker;
    let asked = stage.policy.resources.unwrap_or_default();
    let on_gpu = heavy && device != "cpu";
    let demand = Capacity {
        gpu: asked.gpu.unwrap_or(u32::from(on_gpu).min(capacity.gpu)),
        memory_gb: asked.memory_gb.unwrap_or(0.0),
        cores: asked
            .cores
            .unwrap_or(if heavy && !on_gpu { capacity.cores } else { 1 }),
    };
    let too_much = |what, asked, there| Err(PlanError::TooMuch { what, asked, there });
    if demand.gpu > capacity.gpu {
        too_much("gpu", demand.gpu.into(), capacity.gpu.into())
    } else if demand.memory_gb > capacity.memory_gb {
        too_much("memory_gb", demand.memory_gb, capacity.memory_gb)
    } else if demand.cores > capacity.cores {
        too_much("cores", demand.cores.into(), capacity.cores.into())
    } else {
        Ok(demand)
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            threads: 0,
            resources: Resources::default(),
        }
    }
}

/// The device that `asked` stands for here: `cpu`, `cuda`, `cuda:N` or `metal`.
pub(super) fn device(asked: &str, host: &Host) -> Result<String, PlanError> {
    let lacking = |lacking| {
        Err(PlanError::NoDevice {
            device: asked.to_owned(),
            lacking,
        })
    };
    match asked {
        "auto" if host.cuda => Ok("cuda".to_owned()),
        "auto" if host.metal => Ok("metal".to_owned()),
        "auto" | "cpu" => Ok("cpu".to_owned()),
        "metal" if host.metal => Ok(asked.to_owned()),
        "metal" => lacking("Metal device that genius-worker can use"),
        _ if is_cuda(asked) && host.cuda => Ok(asked.to_owned()),
        _ if is_cuda(asked) => lacking("CUDA device that genius-worker can use"),
        _ => Err(PlanError::UnknownDevice(asked.to_owned())),
    }
}

fn is_cuda(device: &str) -> bool {
    device == "cuda"
        || device
            .strip_prefix("cuda:")
            .is_some_and(|n| n.len() <= 4 && n.parse::<u16>().is_ok() && !n.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Host = Host {
        cuda: false,
        metal: false,
        bf16: false,
        level: "avx2",
        cores: 2,
        memory_bytes: 1 << 30,
    };
    const GPU: Host = Host { cuda: true, ..CPU };

    #[test]
    fn auto_takes_the_best_available_device() {
        assert_eq!(device("auto", &CPU).unwrap(), "cpu");
        assert_eq!(device("auto", &GPU).unwrap(), "cuda");
        assert_eq!(
            device("auto", &Host { metal: true, ..CPU }).unwrap(),
            "metal"
        );
        assert_eq!(device("cpu", &GPU).unwrap(), "cpu");
        assert_eq!(device("cuda:3", &GPU).unwrap(), "cuda:3");
    }

    #[test]
    fn a_missing_or_misspelt_device_is_refused() {
        let error = device("cuda:0", &CPU).unwrap_err();
        insta::assert_snapshot!(error, @"device `cuda:0` was requested, but this machine has no CUDA device that genius-worker can use");
        insta::assert_snapshot!(error.hint().unwrap(), @"`--device auto` uses what is available");
        assert!(matches!(
            device("metal", &GPU),
            Err(PlanError::NoDevice { .. })
        ));
        for word in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "CPU", ""] {
            assert!(
                matches!(device(word, &GPU), Err(PlanError::UnknownDevice(_))),
                "{word}"
            );
        }
    }
}
