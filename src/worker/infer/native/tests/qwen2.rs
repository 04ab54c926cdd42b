//! Tiny Qwen2 models through both forward passes, against transformers; and
//! what the engine makes of a Qwen2 and of Llama 3's RoPE.

use super::super::blocks::{BLOCK, BlockId};
use super::super::forward::Row;
use super::super::on_cpu as packed;
use super::*;
use crate::model::qwen2_tests::{Fixture, Sequence, assert_logits, models};

const MOST_ROWS: usize = 256;

/// Logits [T, V] of every sequence, from calls of `rows` rows; `side_by_side`:
/// the sequences advance together, else one comes after the other.
fn logits(
    forward: &mut dyn Forward,
    sequences: &[Sequence],
    rows: usize,
    side_by_side: bool,
) -> Vec<Tensor> {
    let mut next: BlockId = 0;
    let tables: Vec<Vec<BlockId>> = sequences
        .iter()
        .map(|s| {
            let first = next;
            next += s.ids.len().div_ceil(BLOCK) as BlockId;
            (first..next).collect()
        })
        .collect();
    let tables: Vec<&[BlockId]> = tables.iter().map(Vec::as_slice).collect();
    let mut all: Vec<Row> = sequences
        .iter()
        .enumerate()
        .flat_map(|(table, s)| {
            let ids = s.ids.iter().enumerate();
            ids.map(move |(position, &id)| Row {
                token: u32::try_from(id).unwrap(),
                position,
                table,
            })
        })
        .collect();
    if side_by_side {
        all.sort_by_key(|row| row.position);
    }
    let vocab = forward.vocab();
    let mut found: Vec<Vec<f32>> = vec![vec![]; sequences.len()];
    for rows in all.chunks(rows) {
        let wanted: Vec<usize> = (0..rows.len()).collect();
        let mut logits = Vec::new();
        forward.run(rows, &tables, &wanted, &mut logits).unwrap();
        assert_eq!(logits.len(), rows.len() * vocab);
        for (row, logits) in rows.iter().zip(logits.chunks(vocab)) {
            found[row.table].extend(logits);
        }
    }
    let shaped = |numbers: &Vec<f32>| Tensor::from_slice(numbers).view([-1, vocab as i64]);
    found.iter().map(shaped).collect()
}

fn check(load: impl Fn(&Path) -> Result<Box<dyn Forward>, String>, tolerance: f64, what: Dtype) {
    for fixture in models() {
        let Fixture { sequences, .. } = &fixture;
        for (rows, side_by_side) in [(MOST_ROWS, false), (7, true), (1, false)] {
            // A cache of its own each time.
            let mut forward = load(&fixture.folder()).unwrap();
            let got = logits(&mut *forward, sequences, rows, side_by_side);
            for (got, want) in got.iter().zip(sequences) {
                let what = format!("{what}, {}, {rows} rows", fixture.folder().display());
                assert_logits(got, want, tolerance, &what);
            }
        }
    }
}

#[test]
fn the_cpu_s_logits_are_those_of_transformers() {
    check(
        |folder| packed::<f32>(folder, Kind::Float, 2, MOST_ROWS),
        1e-4,
        Dtype::F32,
    );
    // The weights are exact in bf16; what goes into products and the cache is not.
    check(
        |folder| packed::<Bf16>(folder, Kind::BFloat16, 2, MOST_ROWS),
        0.5,
        Dtype::Bf16,
    );
}

/// The way of other devices, on the CPU.
#[test]
fn libtorch_s_operations_give_those_of_transformers_too() {
    check(
        |folder| in_tensors(folder, Device::Cpu, Kind::Float, 2, MOST_ROWS),
        1e-4,
        Dtype::F32,
    );
}

/// From tokens drawn to log-probabilities recorded.
#[test]
fn qwen2_and_llama_3_generate_with_the_logprobs_of_the_trainer_s_model() {
    let plain = tempfile::tempdir().unwrap();
    tiny_model(plain.path(), SEED);
    let plain = Llama::load(plain.path(), Device::Cpu, Kind::Float).unwrap();
    for write in [tiny_qwen2, tiny_llama3] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), SEED);
        let model = Llama::load(dir.path(), Device::Cpu, Kind::Float).unwrap();
        let mut engine = load(dir.path(), asked(Dtype::F32, 8), &on_cpu()).unwrap();
        let mut off_plain = 0.0_f64;
        for (id, g) in (0..16).zip(all(&mut engine, 0..16)) {
            let context = request(id).context;
            let off = off_by(&model, &context, &g);
            assert!(off < 1e-4, "request {id} is off by {off}");
            off_plain = off_plain.max(off_by(&plain, &context, &g));
        }
        // Without bias or scaling it is another model.
        assert!(off_plain > 0.1, "off by {off_plain} only");
    }
}
