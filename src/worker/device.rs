//! Where tch computes and how precisely.

use tch::{Device, Kind};

use genius::kind::engine::Dtype;
use genius::protocol::{Execution, Failure};

/// The device of `execution.device`; an empty word is the CPU.
///
/// # Errors
/// An unknown word, or a device that this machine or libtorch lacks.
pub fn device(execution: &Execution) -> Result<Device, Failure> {
    let word = execution.device.as_str();
    match word {
        "" | "cpu" => Ok(Device::Cpu),
        "metal" if tch::utils::has_mps() => Ok(Device::Mps),
        "metal" => Err(Failure::new("this libtorch has no Metal").hint("use `device: cpu`")),
        _ => {
            let number = match word.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse::<usize>().ok()),
                None => None,
            };
            let number = number.ok_or_else(|| {
                Failure::new(format!("unknown device `{word}`"))
                    .hint("devices are `cpu`, `cuda`, `cuda:N` and `metal`")
            })?;
            let count = if tch::Cuda::is_available() {
                tch::Cuda::device_count()
            } else {
                0
            };
            if i64::try_from(number).is_ok_and(|n| n < count) {
                Ok(Device::Cuda(number))
            } else {
                Err(Failure::new(format!(
                    "device `{word}` is not there: libtorch sees {count} CUDA devices"
                ))
                .hint(
                    "use `device: cpu`, or build against a CUDA libtorch (LIBTORCH_USE_PYTORCH=1)",
                ))
            }
        }
    }
}

/// Gives libtorch `threads` CPU threads; 0: as many as the machine has. How many that is.
pub fn set_threads(threads: usize) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { all() } else { threads };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    threads
}

/// The kind of a precision.
///
/// # Errors
/// `auto`: the plan resolves it, so this is a defect of Genius.
pub fn kind(dtype: Dtype) -> Result<Kind, Failure> {
    match dtype {
        Dtype::F32 => Ok(Kind::Float),
        Dtype::Bf16 => Ok(Kind::BFloat16),
        Dtype::Auto => Err(unresolved("dtype")),
    }
}

/// A parameter that the plan should have resolved.
pub fn unresolved(parameter: &str) -> Failure {
    Failure::new(format!("`{parameter}` is still `auto`")).hint("this is a defect of Genius")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(word: &str) -> Result<Device, Failure> {
        device(&Execution {
            device: word.into(),
            ..Execution::default()
        })
    }

    #[test]
    fn words_name_devices() {
        assert_eq!(on("").unwrap(), Device::Cpu);
        assert_eq!(on("cpu").unwrap(), Device::Cpu);
        assert_eq!(on("gpu").unwrap_err().message, "unknown device `gpu`");
        assert_eq!(on("cuda:x").unwrap_err().message, "unknown device `cuda:x`");
        assert!(on("cuda:99").unwrap_err().message.contains("not there"));
    }
}
