//! What `auto` means on this machine. Resolved before anything is hashed, so
//! the engine and precision that will run are in the key.

use serde_json::Value;

use super::PlanError;
use super::identity::Located;
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

/// How a run is to be executed: never part of a key by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// CPU threads of a stage; 0: all.
    pub threads: usize,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            threads: 0,
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

/// Replaces every `auto` whose meaning depends on the machine. (`auto` of a query
/// file's format and layout depends on the file: see `identity`.)
///
/// # Errors
/// What the engine cannot do on the device: refused here, before anything runs.
pub(super) fn parameters(
    kind: StageKind,
    with: &mut Value,
    device: &str,
    host: &Host,
) -> Result<(), Located> {
    let gpu = device != "cpu";
    match kind {
        StageKind::Rollout | StageKind::Eval => {
            replace_auto(with, "engine", "mistralrs");
            replace_auto(with, "dtype", if gpu { "bf16" } else { "f32" });
            if !gpu && with["dtype"] == "bf16" {
                return Err((
                    "with.dtype".to_owned(),
                    PlanError::Unsupported {
                        what: "bf16 with mistral.rs on a CPU",
                        instead: "`dtype: f32`",
                    },
                ));
            }
            if device.starts_with("cuda:") {
                return Err((
                    "with.engine".to_owned(),
                    PlanError::Unsupported {
                        what: "mistral.rs on a CUDA device by number",
                        instead: "`--device cuda` with CUDA_VISIBLE_DEVICES=N",
                    },
                ));
            }
        }
        StageKind::Train => {
            replace_auto(
                with,
                "dtype",
                if host.bf16 || is_cuda(device) {
                    "bf16"
                } else {
                    "f32"
                },
            );
        }
        StageKind::Queries | StageKind::Model | StageKind::Score | StageKind::Pairs => {}
    }
    Ok(())
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
    fn what_is_written_out_stays() {
        let mut with = json!({ "engine": "mistralrs", "dtype": "f32" });
        parameters(StageKind::Rollout, &mut with, "cuda", &GPU).unwrap();
        assert_eq!(with, json!({ "engine": "mistralrs", "dtype": "f32" }));
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused_before_anything_runs() {
        let mut with = json!({ "engine": "auto", "dtype": "bf16" });
        let (at, error) = parameters(StageKind::Eval, &mut with, "cpu", &CPU).unwrap_err();
        assert_eq!(at, "with.dtype");
        insta::assert_snapshot!(error, @"bf16 with mistral.rs on a CPU is not there: use `dtype: f32`");
        let mut with = json!({ "engine": "auto", "dtype": "auto" });
        assert!(parameters(StageKind::Rollout, &mut with, "cuda:1", &GPU).is_err());
    }
}
