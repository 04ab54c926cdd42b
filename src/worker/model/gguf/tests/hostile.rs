//! Files that are refused: not converted, damaged, or with lengths, counts and places that
//! lie.

use super::*;

/// A header without tensors: the bytes of its keys, and what follows.
fn raw(key_count: u64, tensor_count: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(tensor_count.to_le_bytes());
    bytes.extend(key_count.to_le_bytes());
    bytes.extend(rest);
    bytes
}

fn raw_text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn raw_key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&raw_text(name)[..], &kind.to_le_bytes(), value].concat()
}

/// An array of `count` items of `kind`, of which `items` follow.
fn raw_array(kind: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

fn raw_tensor(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = raw_text(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    for n in shape {
        bytes.extend(n.to_le_bytes());
    }
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

#[test]
fn counts_beyond_the_file_are_refused_before_they_are_read() {
    const ARRAY: u32 = 9;
    let zeros = [0u8; 64];
    for (what, bytes) in [
        ("metadata keys", raw(u64::MAX, 0, &zeros)),
        ("tensors", raw(0, u64::MAX, &zeros)),
        (
            "array of",
            raw(1, 0, &raw_key("k", ARRAY, &raw_array(0, u64::MAX, &zeros))),
        ),
        (
            "array of",
            raw(1, 0, &raw_key("k", ARRAY, &raw_array(8, 1 << 40, &zeros))),
        ),
        // An array in an array in an array.
        (
            "array of",
            raw(
                1,
                0,
                &raw_key(
                    "k",
                    ARRAY,
                    &raw_array(ARRAY, 1, &raw_array(ARRAY, 1 << 50, &zeros)),
                ),
            ),
        ),
        (
            "unknown type 9",
            raw(
                1,
                0,
                &raw_key(
                    "k",
                    ARRAY,
                    &raw_array(ARRAY, 1, &raw_array(ARRAY, 1, &raw_array(ARRAY, 1, &zeros))),
                ),
            ),
        ),
        (
            "ends within",
            raw(1, 0, &raw_key("k", 8, &u64::MAX.to_le_bytes())),
        ),
        (
            "two keys",
            raw(
                2,
                0,
                &[raw_key("k", 0, &[1]), raw_key("k", 0, &[2])].concat(),
            ),
        ),
        (
            "power of two",
            raw(1, 0, &raw_key("general.alignment", 4, &48u32.to_le_bytes())),
        ),
        (
            "power of two",
            raw(1, 0, &raw_key("general.alignment", 4, &0u32.to_le_bytes())),
        ),
        (
            "is not UTF-8",
            raw(1, 0, &raw_key("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF])),
        ),
    ] {
        let words = convert_bytes(&bytes).unwrap_err().message;
        assert!(words.contains(what), "{what}: {words}");
    }
}

#[test]
fn tensors_that_do_not_fit_the_file_are_refused_by_name() {
    let with = |tensors: &[Vec<u8>]| {
        let mut bytes = raw(0, tensors.len() as u64, &tensors.concat());
        bytes.extend([0; 4096]);
        convert_bytes(&bytes).unwrap_err().message
    };
    const F32: u32 = 0;
    const Q4_0: u32 = 2;
    for (what, tensors) in [
        ("0 dimensions", vec![raw_tensor("t", &[], F32, 0)]),
        ("5 dimensions", vec![raw_tensor("t", &[1; 5], F32, 0)]),
        ("`t` cannot be", vec![raw_tensor("t", &[0, 4], F32, 0)]),
        (
            "`t` cannot be",
            vec![raw_tensor("t", &[1 << 62, 4], F32, 0)],
        ),
        (
            "`t` cannot be",
            vec![raw_tensor("t", &[u64::MAX, 2], F32, 0)],
        ),
        (
            "`t` cannot be",
            vec![raw_tensor("t", &[1 << 32, 1 << 32], F32, 0)],
        ),
        ("`t` cannot be", vec![raw_tensor("t", &[33], Q4_0, 0)]),
        ("`t` needs bytes", vec![raw_tensor("t", &[4096], F32, 0)]),
        (
            "`t` needs bytes",
            vec![raw_tensor("t", &[4], F32, u64::MAX - 31)],
        ),
        ("not a multiple of 32", vec![raw_tensor("t", &[4], F32, 4)]),
        (
            "`a` and `b` overlap",
            vec![
                raw_tensor("a", &[16], F32, 0),
                raw_tensor("b", &[16], F32, 32),
            ],
        ),
        (
            "overlap",
            vec![
                raw_tensor("a", &[16], F32, 64),
                raw_tensor("b", &[16], F32, 64),
            ],
        ),
        (
            "two tensors are called `a`",
            vec![
                raw_tensor("a", &[16], F32, 0),
                raw_tensor("a", &[16], F32, 64),
            ],
        ),
        ("type number 99", vec![raw_tensor("t", &[4], 99, 0)]),
    ] {
        let words = with(&tensors);
        assert!(words.contains(what), "{what}: {words}");
    }
}

#[test]
fn numbers_of_the_metadata_have_bounds() {
    let tiny = || Tiny::llama(GgmlDType::F32);
    let big = Meta::U64(3_074_457_345_618_258_604);
    for key in [
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
    ] {
        for value in [big.clone(), Meta::U32(0), Meta::I32(-1), Meta::F32(4.0)] {
            let failure = tiny().set(key, value.clone()).refusal();
            assert!(
                failure.message.contains(&format!("`{key}`")),
                "{value:?}: {failure}"
            );
        }
    }
    let failure = tiny().set("llama.block_count", Meta::U32(4000)).refusal();
    assert!(
        failure.message.contains("it holds only 11 tensors"),
        "{failure}"
    );
    for (key, value) in [
        ("llama.rope.freq_base", Meta::F32(0.0)),
        ("llama.rope.freq_base", Meta::F32(-1.0)),
        ("llama.rope.freq_base", Meta::F32(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(-1e-5)),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Meta::F32(f32::INFINITY),
        ),
    ] {
        let failure = tiny().set(key, value.clone()).refusal();
        assert!(failure.message.contains(key), "{value:?}: {failure}");
    }
    let failure = tiny()
        .set("llama.rope.scaling.factor", Meta::F32(-2.0))
        .refusal();
    assert!(failure.message.contains("factor"), "{failure}");
}

/// A wheel's file is unpacked into a folder that the user does not see.
#[test]
fn messages_name_the_file_as_the_user_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for bytes in [&b"GGUF"[..], b"nothing", &raw(1, 1, b"x")] {
        std::fs::write(&path, bytes).unwrap();
        let failure = convert(&context(), &path, "m.gguf of w.whl", dir.path()).unwrap_err();
        assert!(failure.message.starts_with("m.gguf of w.whl "), "{failure}");
    }
}

#[test]
fn a_git_lfs_pointer_is_called_one() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n";
    let failure = convert_bytes(pointer).err().unwrap();
    assert!(
        failure.message.contains("is a Git LFS pointer"),
        "{failure}"
    );
    let failure = convert_bytes(b"version 3").err().unwrap();
    assert!(failure.message.contains("is not a GGUF file"), "{failure}");
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let bytes = Tiny::llama(GgmlDType::Q8_0).bytes();
    // The last tensor may end in padding: beyond that nothing may be missing.
    for length in (0..bytes.len() - 32).step_by(bytes.len() / 97).chain(0..64) {
        let failure = convert_bytes(&bytes[..length]).unwrap_err();
        let named = failure.message.contains("cut short") || failure.message.contains("not a GGUF");
        assert!(named, "{length} of {} bytes: {failure}", bytes.len());
    }
}

#[test]
fn absurd_lengths_are_an_error_and_never_a_panic() {
    let good = Tiny::llama(GgmlDType::F32).bytes();
    // The counts, lengths, names and types at the head of the file: whatever
    // eight bytes of it are overwritten, something no longer fits.
    for at in 4..400 {
        let mut bytes = good.clone();
        bytes[at..at + 8].fill(0xFF);
        assert!(convert_bytes(&bytes).is_err(), "at {at}");
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut list = values(HIDDEN, 0);
    list[3] = f32::NAN;
    let tiny = Tiny::llama(GgmlDType::F32).with(
        "output_norm.weight",
        Tensor::from_vec(list, HIDDEN, &Device::Cpu).unwrap(),
    );
    let failure = tiny.refusal();
    assert!(
        failure
            .message
            .contains("value 3 of tensor `output_norm.weight`"),
        "{failure}"
    );
}

#[test]
fn what_cannot_be_converted_is_refused_by_name() {
    let tiny = || Tiny::llama(GgmlDType::F32);
    let cases = [
        (
            tiny().text("general.architecture", "gpt2"),
            "architecture `gpt2`",
        ),
        (
            tiny().text("tokenizer.ggml.pre", "tekken"),
            "pre-tokenizer `tekken`",
        ),
        (
            tiny().without("tokenizer.ggml.pre"),
            "does not name its pre-tokenizer",
        ),
        (tiny().text("tokenizer.ggml.model", "llama"), "kind `llama`"),
        (
            tiny().set("llama.expert_count", Meta::U32(8)),
            "mixture of experts",
        ),
        (
            tiny().set("llama.rope.dimension_count", Meta::U32(32)),
            "RoPE on a part",
        ),
        (
            tiny().text("llama.rope.scaling.type", "longrope"),
            "`longrope`",
        ),
        (
            tiny().without("blk.0.attn_k.weight"),
            "no tensor `blk.0.attn_k.weight`",
        ),
        (
            tiny().with("blk.0.attn_q.bias", tensor(&[HIDDEN], 1)),
            "`blk.0.attn_q.bias`",
        ),
        (
            tiny().with("blk.0.ffn_up.weight", tensor(&[HIDDEN, INNER], 1)),
            "`blk.0.ffn_up.weight` is of shape",
        ),
        (tiny().set("llama.block_count", Meta::U32(2)), "blk.1."),
        (
            tiny().set("tokenizer.ggml.eos_token_id", Meta::U32(50_000)),
            "`tokenizer.ggml.eos_token_id` is 50000",
        ),
        (
            tiny().without("tokenizer.ggml.merges"),
            "`tokenizer.ggml.merges`",
        ),
        (
            tiny().text("llama.embedding_length", "many"),
            "`llama.embedding_length` something that is not a whole number",
        ),
    ];
    for (tiny, expected) in cases {
        let failure = tiny.refusal();
        assert!(
            failure.message.contains(expected),
            "expected {expected:?}: {failure}"
        );
        assert!(
            failure.message.contains("tiny.gguf"),
            "names the file: {failure}"
        );
    }
}

#[test]
fn a_quantisation_that_is_not_read_is_named_with_its_tensor() {
    let mut tiny = Tiny::llama(GgmlDType::F32);
    tiny.tensors.get_mut("blk.0.ffn_up.weight").unwrap().1 = GgmlDType::Q5_0;
    let failure = tiny.refusal();
    assert!(
        failure
            .message
            .contains("tensor `blk.0.ffn_up.weight` as Q5_0"),
        "{failure}"
    );
    assert!(failure.hint.unwrap().contains("Q4_K"));
}
