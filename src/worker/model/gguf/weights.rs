//! Writing the converted tensors as safetensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde_json::{Map, json};

use genius::artifact::write_json;
use genius::protocol::Failure;

use super::architecture::{Target, unpermute};
use super::reader::Gguf;

/// Largest weight file, bytes: what other tools shard at. Also the most that
/// is held in memory at once.
pub const SHARD_BYTES: usize = 5_000_000_000;

/// Dequantises `targets` into `out`: `model.safetensors`, or several files of
/// at most `shard_bytes` (a larger tensor has its own) with an index.
/// `progress` hears how many tensors are done and may stop it.
///
/// # Errors
/// When a tensor cannot be read or a file cannot be written.
pub fn write(
    file: &mut Gguf,
    targets: &[Target],
    out: &Path,
    shard_bytes: usize,
    progress: &mut dyn FnMut(usize) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let shards = plan(targets, shard_bytes);
    let names: Vec<String> = match shards.len() {
        1 => vec!["model.safetensors".to_owned()],
        count => (1..=count)
            .map(|i| format!("model-{i:05}-of-{count:05}.safetensors"))
            .collect(),
    };
    let mut done = 0;
    let mut map = Map::new();
    for (shard, name) in shards.iter().zip(&names) {
        let mut tensors = Vec::with_capacity(shard.len());
        for target in *shard {
            progress(done)?;
            tensors.push((target.name.clone(), tensor(file, target)?));
            map.insert(target.name.clone(), json!(name));
            done += 1;
        }
        save(tensors, &out.join(name))?;
    }
    progress(done)?;
    if shards.len() > 1 {
        let total: usize = targets.iter().map(bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        write_json(&out.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

fn bytes(target: &Target) -> usize {
    target.shape.iter().product::<usize>() * size_of::<f32>()
}

/// Cuts the targets into runs of at most `limit` bytes.
fn plan(targets: &[Target], limit: usize) -> Vec<&[Target]> {
    let mut shards = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, target) in targets.iter().enumerate() {
        if index > start && size + bytes(target) > limit {
            shards.push(&targets[start..index]);
            (start, size) = (index, 0);
        }
        size += bytes(target);
    }
    shards.push(&targets[start..]);
    shards
}

fn tensor(file: &mut Gguf, target: &Target) -> Result<F32, Failure> {
    let mut values = file.values(&target.gguf)?;
    if let Some(heads) = target.permuted_heads {
        let columns = target.shape.iter().skip(1).product();
        values = unpermute(&values, heads, columns);
    }
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Ok(F32 {
        shape: target.shape.clone(),
        bytes,
    })
}

fn save(tensors: Vec<(String, F32)>, path: &Path) -> Result<(), Failure> {
    // Older transformers refuse a file without this.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(format!("cannot write {}: {e}", path.display()));
    serialize_to_file(tensors, Some(metadata), path).map_err(|e| failed(&e))?;
    std::fs::File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(|e| failed(&e))
}

/// f32 values as safetensors wants them.
struct F32 {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for F32 {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
