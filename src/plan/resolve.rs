//! What `auto` means on the machine that will run the stages. Resolved before
//! anything is hashed, so the engine and precision that will run are in the key.

use std::cell::OnceCell;

use super::PlanError;
use crate::kind::Program;
use crate::protocol::{Capabilities, CapabilitiesError, DeviceKind};
use crate::spec::{Resources, Stage};

/// The machine that will run the stages. Its worker is asked once what it computes
/// with, and only for a pipeline with a stage that depends on it: it takes a moment to
/// start.
pub struct Machine<'a> {
    cores: usize,
    memory_bytes: u64,
    ask: Box<dyn Fn() -> Result<Capabilities, CapabilitiesError> + 'a>,
    announced: OnceCell<Capabilities>,
}

impl<'a> Machine<'a> {
    /// A machine of that many cores and bytes of main memory, and how to ask its worker.
    pub fn new(
        cores: usize,
        memory_bytes: u64,
        ask: impl Fn() -> Result<Capabilities, CapabilitiesError> + 'a,
    ) -> Self {
        Self {
            cores,
            memory_bytes,
            ask: Box::new(ask),
            announced: OnceCell::new(),
        }
    }

    /// A machine whose worker announced that.
    pub fn known(announced: Capabilities) -> Self {
        let (cores, memory_bytes) = (announced.processor.cores, announced.processor.memory_bytes);
        Self::new(cores, memory_bytes, move || Ok(announced.clone()))
    }

    /// What its worker announces.
    ///
    /// # Errors
    /// When it does not.
    pub fn capabilities(&self) -> Result<&Capabilities, CapabilitiesError> {
        if let Some(announced) = self.announced.get() {
            return Ok(announced);
        }
        let announced = (self.ask)()?;
        Ok(self.announced.get_or_init(|| announced))
    }

    /// What stages of a run on it share. Devices are those of a worker that was asked:
    /// no stage takes one where it was not.
    pub fn capacity(&self, options: &RunOptions) -> Capacity {
        const GIB: f64 = (1u64 << 30) as f64;
        let whole = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let devices = self.announced.get().map_or(0, |a| whole(a.devices.len()));
        // With a number, every stage is on that one.
        let devices = if options.device.contains(':') {
            devices.min(1)
        } else {
            devices
        };
        let resources = &options.resources;
        Capacity {
            gpu: resources.gpu.unwrap_or(devices),
            memory_gb: resources
                .memory_gb
                .unwrap_or(self.memory_bytes as f64 / GIB),
            cores: resources.cores.unwrap_or(whole(self.cores)).max(1),
        }
    }

    /// The device that `asked` means there: `cpu`, `cuda`, `cuda:N` or `metal`.
    pub(super) fn device(&self, asked: &str) -> Result<String, PlanError> {
        let (kind, number) = match asked {
            "cpu" => return Ok(asked.to_owned()),
            "auto" => {
                let first = self.capabilities()?.devices.first();
                return Ok(first.map_or("cpu", |d| d.kind.word()).to_owned());
            }
            "metal" => (DeviceKind::Metal, 0),
            _ => match cuda_number(asked) {
                Some(number) => (DeviceKind::Cuda, number),
                None => return Err(PlanError::UnknownDevice(asked.to_owned())),
            },
        };
        let count = self.capabilities()?.count(kind);
        if usize::from(number) < count {
            return Ok(asked.to_owned());
        }
        Err(PlanError::NoDevice {
            device: asked.to_owned(),
            kind,
            count,
        })
    }
}

/// The number of a CUDA device: the first, if it has none.
fn cuda_number(device: &str) -> Option<u16> {
    if device == "cuda" {
        return Some(0);
    }
    device
        .strip_prefix("cuda:")
        .filter(|n| n.len() <= 4 && !n.starts_with('+'))
        .and_then(|n| n.parse().ok())
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

/// What a stage takes: what it asks for, else by its kind: a stage with a model
/// takes the GPU, or all cores where it runs on them; any other one core.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::example;

    fn machine(devices: &[DeviceKind]) -> Machine<'static> {
        Machine::known(example::with_gpus("avx2", devices))
    }

    fn cuda(count: usize) -> Machine<'static> {
        machine(&vec![DeviceKind::Cuda; count])
    }

    #[test]
    fn auto_takes_the_best_available_device() {
        assert_eq!(machine(&[]).device("auto").unwrap(), "cpu");
        assert_eq!(cuda(1).device("auto").unwrap(), "cuda");
        assert_eq!(
            machine(&[DeviceKind::Metal]).device("auto").unwrap(),
            "metal"
        );
        assert_eq!(cuda(1).device("cpu").unwrap(), "cpu");
        assert_eq!(cuda(4).device("cuda:3").unwrap(), "cuda:3");
    }

    #[test]
    fn a_missing_or_misspelt_device_is_refused() {
        let error = machine(&[]).device("cuda:0").unwrap_err();
        insta::assert_snapshot!(error, @"device `cuda:0` was requested, but genius-worker can use 0 cuda devices");
        insta::assert_snapshot!(error.hint().unwrap(), @"`--device auto` uses what is available");
        insta::assert_snapshot!(cuda(2).device("cuda:2").unwrap_err(), @"device `cuda:2` was requested, but genius-worker can use 2 cuda devices");
        insta::assert_snapshot!(cuda(1).device("metal").unwrap_err(), @"device `metal` was requested, but genius-worker can use 0 metal devices");
        for word in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "CPU", ""] {
            assert!(
                matches!(cuda(1).device(word), Err(PlanError::UnknownDevice(_))),
                "{word}"
            );
        }
    }

    #[test]
    fn stages_share_the_devices_that_were_announced() {
        let capacity = |machine: &Machine<'_>, device: &str| {
            machine.device(device).unwrap();
            machine.capacity(&RunOptions {
                device: device.to_owned(),
                ..RunOptions::default()
            })
        };
        let all = capacity(&cuda(4), "auto");
        assert_eq!((all.gpu, all.memory_gb, all.cores), (4, 8.0, 2));
        assert_eq!(capacity(&cuda(4), "cuda:2").gpu, 1);
        assert_eq!(capacity(&machine(&[]), "auto").gpu, 0);
    }

    #[test]
    fn a_worker_is_asked_once_and_only_if_need_be() {
        let asked = std::cell::Cell::new(0);
        let machine = Machine::new(3, 1 << 30, || {
            asked.set(asked.get() + 1);
            Ok(example::with_gpus("avx2", &[DeviceKind::Cuda]))
        });
        assert_eq!(machine.device("cpu").unwrap(), "cpu");
        assert!(machine.device("toaster").is_err());
        let options = RunOptions::default();
        assert_eq!(machine.capacity(&options).gpu, 0);
        assert_eq!((asked.get(), machine.capacity(&options).cores), (0, 3));
        assert_eq!(machine.device("auto").unwrap(), "cuda");
        assert_eq!(machine.device("cuda").unwrap(), "cuda");
        assert_eq!((asked.get(), machine.capacity(&options).gpu), (1, 1));
    }
}
