//! The engine `native`: the project's own batched decoder, [`load`].
//!
//! [`decoder::Decoder`] generates and scores tokens, batching continuously over a
//! [`forward::Forward`]: on a
//! CPU that is [`cpu::Cpu`], which computes over weights packed for the
//! processor (libtorch reads and converts them); on other devices
//! [`tensor::OnDevice`], the trainer's model in libtorch's operations.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::engine::EngineError;
use super::token_bytes::TokenBytes;
use crate::device;
use crate::model::config::Config;
use crate::model::llama::{self, Llama};
use decoder::{Capacity, Decoder, NAME};
use forward::Forward;
use genius::kind::engine::{Dtype, Options};
use genius::protocol::Execution;
use matrix::{Bf16, Number};
use tensor::OnDevice;

mod attention;
mod blocks;
mod cache;
mod cpu;
pub mod decoder;
mod forward;
mod loader;
mod matrix;
mod parts;
mod pool;
mod row;
mod task;
mod tensor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// Sequences under way, if the width is left to the engine.
const WIDTH: usize = 64;
/// Rows of a forward pass at least, so that prompts come in pieces of some size.
const ROWS: usize = 128;
/// GiB of keys and values, if the budget is left to the engine.
const KV_CACHE_GB_CPU: f64 = 1.0;
/// The same on a GPU.
const KV_CACHE_GB_GPU: f64 = 4.0;

/// Loads the model in `folder`; the device is `cpu`, `cuda`, `cuda:N` or `metal`.
///
/// # Errors
/// When a file is missing or broken, weights and tokenizer do not belong
/// together, or there is no such device or precision.
pub fn load(
    folder: &Path,
    options: Options,
    execution: &Execution,
) -> Result<Decoder, EngineError> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let gigabytes = match options.kv_cache_gb {
        asked if asked > 0.0 => asked,
        _ if execution.device == "cpu" => KV_CACHE_GB_CPU,
        _ => KV_CACHE_GB_GPU,
    };
    let capacity = Capacity {
        width: match options.width {
            0 => WIDTH,
            width => width,
        },
        cache_bytes: (gigabytes * GIB) as usize,
        keep: true,
    };
    load_in(folder, options.dtype, execution, capacity)
}

/// As [`load`], in a room of the caller's choice.
///
/// # Errors
/// As [`load`].
pub fn load_in(
    folder: &Path,
    dtype: Dtype,
    execution: &Execution,
    capacity: Capacity,
) -> Result<Decoder, EngineError> {
    let failed = |reason: String| EngineError::Load {
        engine: NAME,
        path: folder.to_path_buf(),
        reason,
    };
    let kind = device::kind(dtype).map_err(|e| failed(e.message))?;
    let device = device::device(execution).map_err(|e| failed(e.message))?;
    let threads = device::set_threads(execution.threads);
    let table = TokenBytes::load(folder).map_err(|e| failed(e.to_string()))?;
    let config = Config::load(folder).map_err(|e| failed(e.to_string()))?;
    let rows = usize::try_from(config.vocab_size).unwrap_or(0);
    if table.len() > rows {
        return Err(failed(format!(
            "the tokenizer has {} tokens, the weights only {rows}: they do not belong together",
            table.len()
        )));
    }
    let context_len = usize::try_from(config.max_position_embeddings).unwrap_or(0);
    let rows = capacity.width.max(ROWS);
    let forward = match (device, kind) {
        (Device::Cpu, Kind::Float) => on_cpu::<f32>(folder, kind, threads, rows),
        (Device::Cpu, _) => on_cpu::<Bf16>(folder, kind, threads, rows),
        _ => in_tensors(folder, device, kind, threads, rows),
    };
    let forward = forward.map_err(failed)?;
    Ok(Decoder::new(
        forward,
        Arc::new(table),
        context_len,
        capacity,
    ))
}

/// The model on the CPU, its weights rounded to `kind` by libtorch.
fn on_cpu<E: Number>(
    folder: &Path,
    kind: Kind,
    threads: usize,
    rows: usize,
) -> Result<Box<dyn Forward>, String> {
    let (config, mut tensors) = Llama::read(folder, Device::Cpu, kind).map_err(|e| e.message)?;
    let mut take = |name: &str| tensors.remove(name).map(|t| numbers(&t));
    let frequencies = llama::rope_frequencies(&config);
    let cpu = cpu::Cpu::<E>::new(&config, frequencies, threads, rows, &mut take)?;
    Ok(Box::new(cpu))
}

/// The model on any device of libtorch's.
fn in_tensors(
    folder: &Path,
    device: Device,
    kind: Kind,
    threads: usize,
    rows: usize,
) -> Result<Box<dyn Forward>, String> {
    let (config, tensors) = Llama::read(folder, device, kind).map_err(|e| e.message)?;
    let model = OnDevice::new(config, &tensors, device, kind, threads, rows)?;
    Ok(Box::new(model))
}

/// A tensor's numbers in order, as f32.
fn numbers(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.to_kind(Kind::Float).contiguous();
    let mut numbers = vec![0.0; flat.numel()];
    flat.copy_data(&mut numbers, flat.numel());
    numbers
}
