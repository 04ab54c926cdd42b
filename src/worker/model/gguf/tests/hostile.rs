//! Files whose lengths, counts and places lie, put together by hand.

use super::*;

/// A header without tensors: `keys` as they stand in the file, and what follows.
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

/// The file of a wheel is unpacked where nobody looks.
#[test]
fn messages_call_the_file_what_the_user_calls_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for bytes in [&b"GGUF"[..], b"nothing", &raw(1, 1, b"x")] {
        std::fs::write(&path, bytes).unwrap();
        let failure = convert(&context(), &path, "m.gguf of w.whl", dir.path()).unwrap_err();
        assert!(failure.message.starts_with("m.gguf of w.whl "), "{failure}");
    }
}
