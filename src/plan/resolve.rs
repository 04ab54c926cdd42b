//! What `auto` means on this machine. Resolved before anything is hashed, so
//! the engine and precision that will run are in the key.

use serde_json::Value;

use super::PlanError;
use super::identity::Located;
use crate::spec::{Resources, Stage};
use crate::stage::StageKind;

/// What the machine offers; found by the command line and passed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// A CUDA device that the worker can use.
    pub cuda: bool,
    /// A Metal device that the worker can use.
    pub metal: bool,
    /// Whether the processor multiplies bf16 matrices fast (avx512_bf16, amx).
    pub bf16: bool,
    /// Processor cores.
    pub cores: usize,
    /// Main memory.
    pub memory_bytes: u64,
}

/// What stages that run side by side share, or what one of them takes.
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
    /// What stages share; what is not given is what the machine has.
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

/// What a stage takes: what it asks for, else by its kind: a stage with a model
/// takes the GPU, or all cores where it runs on them; any other one core.
pub(super) fn demand(
    stage: &Stage,
    device: &str,
    capacity: &Capacity,
) -> Result<Capacity, PlanError> {
    let heavy = stage.kind.needs_worker();
    let asked = &stage.policy.resources;
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

/// The device that `asked` means here: `cpu`, `cuda`, `cuda:N` or `metal`.
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

/// The engine that `auto` takes on a CPU, and why.
const CPU_ENGINE: (&str, &str) = (
    "libtorch",
    "it has many sequences in flight there, and results that depend on nothing but their own draws",
);
/// The engine that `auto` takes on a GPU, and why.
const GPU_ENGINE: (&str, &str) = (
    MISTRALRS,
    "it has as many sequences in flight there as memory allows",
);
const MISTRALRS: &str = "mistralrs";

/// Replaces every `auto` whose meaning depends on the machine. (`auto` of a query
/// file's format and layout depends on the file: see `identity`.) Of a kind that
/// generates, gives in words which engine it is and why.
///
/// # Errors
/// What the engine cannot do on the device: refused here, before anything runs.
pub(super) fn parameters(
    kind: StageKind,
    with: &mut Value,
    device: &str,
    host: &Host,
) -> Result<Option<String>, Located> {
    match kind {
        StageKind::Rollout | StageKind::Eval => return engine(with, device, host).map(Some),
        StageKind::Train => {
            let fast = host.bf16 || is_cuda(device);
            replace_auto(with, "dtype", if fast { "bf16" } else { "f32" });
        }
        StageKind::Queries
        | StageKind::Model
        | StageKind::Score
        | StageKind::Pairs
        | StageKind::Command => {}
    }
    Ok(None)
}

/// Engine and precision of a stage that generates.
fn engine(with: &mut Value, device: &str, host: &Host) -> Result<String, Located> {
    let gpu = device != "cpu";
    let (best, reason) = if gpu { GPU_ENGINE } else { CPU_ENGINE };
    let reason = if with["engine"] == "auto" {
        format!("`engine: auto` on {device}: {reason}")
    } else {
        "the pipeline asks for it".to_owned()
    };
    replace_auto(with, "engine", best);
    let mistralrs = with["engine"] == MISTRALRS;
    let bf16 = gpu || (!mistralrs && host.bf16);
    replace_auto(with, "dtype", if bf16 { "bf16" } else { "f32" });
    let refuse =
        |at: &str, what, instead| Err((at.to_owned(), PlanError::Unsupported { what, instead }));
    if mistralrs && !gpu && with["dtype"] == "bf16" {
        return refuse(
            "with.dtype",
            "bf16 with mistral.rs on a CPU",
            "`dtype: f32`",
        );
    }
    if mistralrs && device.starts_with("cuda:") {
        return refuse(
            "with.engine",
            "mistral.rs on a CUDA device by number",
            "`--device cuda` with CUDA_VISIBLE_DEVICES=N",
        );
    }
    let word = |field: &str| with[field].as_str().unwrap_or_default().to_owned();
    Ok(format!(
        "engine {} in {} on {device} ({reason})",
        word("engine"),
        word("dtype")
    ))
}

fn replace_auto(with: &mut Value, field: &str, meaning: &str) {
    if let Some(value) = with.get_mut(field).filter(|v| *v == "auto") {
        *value = Value::from(meaning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CPU: Host = Host {
        cuda: false,
        metal: false,
        bf16: false,
        cores: 2,
        memory_bytes: 1 << 30,
    };
    const GPU: Host = Host { cuda: true, ..CPU };

    #[test]
    fn auto_takes_the_best_device_there_is() {
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
        insta::assert_snapshot!(error, @"device `cuda:0` was asked for, and this machine has no CUDA device that genius-worker can use");
        insta::assert_snapshot!(error.hint().unwrap(), @"`--device auto` takes what there is");
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

    #[test]
    fn precision_follows_the_device() {
        let resolve = |kind, device: &str, host: &Host| {
            let mut with = json!({ "engine": "auto", "dtype": "auto" });
            parameters(kind, &mut with, device, host).unwrap();
            with["dtype"].as_str().unwrap().to_owned()
        };
        assert_eq!(resolve(StageKind::Rollout, "cpu", &CPU), "f32");
        let fast = Host { bf16: true, ..CPU };
        assert_eq!(resolve(StageKind::Rollout, "cpu", &fast), "bf16");
        assert_eq!(resolve(StageKind::Eval, "cuda", &GPU), "bf16");
        assert_eq!(resolve(StageKind::Eval, "metal", &CPU), "bf16");
        assert_eq!(
            resolve(StageKind::Train, "cpu", &GPU),
            "f32",
            "a GPU that is not used does not count"
        );
        assert_eq!(
            resolve(StageKind::Train, "cpu", &Host { bf16: true, ..CPU }),
            "bf16"
        );
        assert_eq!(resolve(StageKind::Train, "cuda:1", &GPU), "bf16");
    }

    #[test]
    fn the_engine_follows_the_device_and_says_why() {
        let resolve = |engine: &str, device: &str, host: &Host| {
            let mut with = json!({ "engine": engine, "dtype": "auto" });
            parameters(StageKind::Rollout, &mut with, device, host)
                .unwrap()
                .unwrap()
        };
        insta::assert_snapshot!(resolve("auto", "cpu", &CPU), @"engine libtorch in f32 on cpu (`engine: auto` on cpu: it has many sequences in flight there, and results that depend on nothing but their own draws)");
        insta::assert_snapshot!(resolve("auto", "cuda", &GPU), @"engine mistralrs in bf16 on cuda (`engine: auto` on cuda: it has as many sequences in flight there as memory allows)");
        insta::assert_snapshot!(resolve("libtorch", "cpu", &CPU), @"engine libtorch in f32 on cpu (the pipeline asks for it)");
        let fast = Host { bf16: true, ..CPU };
        insta::assert_snapshot!(resolve("libtorch", "cpu", &fast), @"engine libtorch in bf16 on cpu (the pipeline asks for it)");
        insta::assert_snapshot!(resolve("mistralrs", "cpu", &fast), @"engine mistralrs in f32 on cpu (the pipeline asks for it)");
        // libtorch knows devices by number.
        insta::assert_snapshot!(resolve("libtorch", "cuda:1", &GPU), @"engine libtorch in bf16 on cuda:1 (the pipeline asks for it)");
        let mut train = json!({ "dtype": "auto" });
        assert_eq!(
            parameters(StageKind::Train, &mut train, "cpu", &CPU).unwrap(),
            None
        );
    }

    #[test]
    fn what_is_written_out_stays() {
        let mut with = json!({ "engine": "mistralrs", "dtype": "f32" });
        parameters(StageKind::Rollout, &mut with, "cuda", &GPU).unwrap();
        assert_eq!(with, json!({ "engine": "mistralrs", "dtype": "f32" }));
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused_before_anything_runs() {
        let mut with = json!({ "engine": "mistralrs", "dtype": "bf16" });
        let (at, error) = parameters(StageKind::Eval, &mut with, "cpu", &CPU).unwrap_err();
        assert_eq!(at, "with.dtype");
        insta::assert_snapshot!(error, @"bf16 with mistral.rs on a CPU is not there: use `dtype: f32`");
        let mut with = json!({ "engine": "auto", "dtype": "auto" });
        assert!(parameters(StageKind::Rollout, &mut with, "cuda:1", &GPU).is_err());
    }
}
