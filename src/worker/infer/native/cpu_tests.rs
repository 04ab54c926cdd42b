//! Models whose configuration and weights do not belong together, and calls that no
//! scheduler makes: each is refused before a kernel begins.

use std::path::Path;

use super::super::blocks::BLOCK;
use super::super::matrix::Bf16;
use super::super::testing::panic_message;
use super::*;
use genius::method::random::Stream;

const VOCAB: usize = 50;

fn config() -> Config {
    let json = r#"{
        "architectures": ["LlamaForCausalLM"], "vocab_size": 50, "hidden_size": 10,
        "intermediate_size": 14, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 128
    }"#;
    Config::parse(json, Path::new("config.json")).unwrap()
}

/// Names and lengths of the tensors that [`config`] asks for.
fn tensors() -> Vec<(String, usize)> {
    let mut tensors = vec![
        ("lm_head.weight".to_owned(), 500),
        ("model.embed_tokens.weight".to_owned(), 500),
        ("model.norm.weight".to_owned(), 10),
    ];
    for i in 0..2 {
        let of_layer = [
            ("input_layernorm", 10),
            ("post_attention_layernorm", 10),
            ("self_attn.q_proj", 240),
            ("self_attn.k_proj", 120),
            ("self_attn.v_proj", 120),
            ("self_attn.o_proj", 240),
            ("mlp.gate_proj", 140),
            ("mlp.up_proj", 140),
            ("mlp.down_proj", 140),
        ];
        for (name, len) in of_layer {
            tensors.push((format!("model.layers.{i}.{name}.weight"), len));
        }
    }
    tensors
}

fn numbers(name: &str, len: usize) -> Vec<f32> {
    let stream = Stream::new(1, "cpu test", name, &[]);
    (0..len)
        .map(|i| (stream.uniform(0, i as u64) - 0.5) as f32)
        .collect()
}

/// The model of a configuration, with these tensors of these lengths.
fn model<E: Number>(
    config: &Config,
    frequencies: usize,
    tensors: &[(String, usize)],
) -> Result<Cpu<E>, String> {
    let mut take = |name: &str| {
        let found = tensors.iter().find(|(known, _)| known == name);
        found.map(|(name, len)| numbers(name, *len))
    };
    Cpu::new(config, vec![0.5; frequencies], 2, 8, &mut take)
}

fn refusal(config: &Config, frequencies: usize, tensors: &[(String, usize)]) -> String {
    let narrow = model::<Bf16>(config, frequencies, tensors).err();
    let wide = model::<f32>(config, frequencies, tensors).err();
    assert_eq!(narrow, wide);
    wide.expect("it was taken")
}

#[test]
fn a_configuration_whose_sizes_overflow_is_refused() {
    // Times 6 this is 2^64 + 8: the weights have the shape that wraps around.
    let heads = 3_074_457_345_618_258_604;
    let mut tensors = tensors();
    for (name, len) in &mut tensors {
        if name.contains("q_proj") || name.contains("o_proj") {
            *len = 80;
        }
    }
    for kv_heads in [1, 2, 4, heads] {
        let config = Config {
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            ..config()
        };
        let words = refusal(&config, 3, &tensors);
        assert!(words.ends_with("more than memory can hold"), "{words}");
    }
    for (heads, kv_heads, head_dim) in [
        (i64::MAX - 1, 2, 6),
        (4, 2, i64::MAX - 1),
        (1 << 62, 1 << 62, 4),
        (-4, 2, 6),
        (4, -2, 6),
        (4, 2, -6),
        (4, 2, 0),
        (4, 3, 6),
        (4, 2, 5),
    ] {
        let config = Config {
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            ..config()
        };
        let words = refusal(&config, 3, &tensors);
        assert!(words.contains("attention heads"), "{words}");
    }
    for layers in [0, usize::MAX] {
        let config = Config {
            num_hidden_layers: layers,
            ..config()
        };
        refusal(&config, 3, &tensors);
    }
}

#[test]
fn sizes_that_the_weights_do_not_have_are_refused() {
    let change = |change: &dyn Fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        refusal(&config, 3, &tensors())
    };
    for n in [-1, 0, 1, 9, 11, 20, i64::MAX] {
        change(&|c| c.hidden_size = n);
        change(&|c| c.intermediate_size = n);
    }
    for n in [-1, 0, 49, 51, i64::MAX] {
        change(&|c| c.vocab_size = n);
    }
    change(&|c| c.num_attention_heads = 6);
    change(&|c| c.num_key_value_heads = 4);
    change(&|c| c.num_hidden_layers = 3);
    for frequencies in [0, 2, 4, 6] {
        assert_eq!(
            refusal(&config(), frequencies, &tensors()),
            format!("{frequencies} rotary angles for heads of width 6")
        );
    }
}

#[test]
fn tensors_of_another_length_are_refused_by_name() {
    for at in 0..tensors().len() {
        let (name, right) = tensors()[at].clone();
        for len in [
            0,
            1,
            right - 10,
            right - 1,
            right + 1,
            right + 10,
            2 * right,
        ] {
            let mut tensors = tensors();
            tensors[at].1 = len;
            let words = refusal(&config(), 3, &tensors);
            let named = name.trim_end_matches(".weight");
            assert!(words.contains(named), "{name} of {len}: {words}");
        }
        let mut tensors = tensors();
        tensors.remove(at);
        assert_eq!(
            refusal(&config(), 3, &tensors),
            format!("the weights lack the tensor `{name}`")
        );
    }
    for len in [0, 1, 9, 11] {
        let mut tensors = tensors();
        tensors.push(("model.layers.1.self_attn.o_proj.bias".to_owned(), len));
        let words = refusal(&config(), 3, &tensors);
        assert!(words.contains("o_proj.bias"), "{words}");
    }
}

#[test]
fn calls_that_make_no_sense_are_refused_before_any_work() {
    fn check<E: Number>() {
        let mut model = model::<E>(&config(), 3, &tensors()).unwrap();
        let row = |token: u32, table: usize, position: usize| Row {
            token,
            position,
            table,
        };
        let tables: &[&[BlockId]] = &[&[1, 0], &[2]];
        let good = [row(3, 0, 0), row(49, 0, 1), row(0, 1, 0)];
        let mut run = |rows: &[Row], tables: &[&[BlockId]], wanted: &[usize]| {
            let mut logits = vec![];
            model.run(rows, tables, wanted, &mut logits).unwrap();
            logits
        };
        let want = run(&good, tables, &[1, 2]);
        assert!(want.len() == 2 * VOCAB && want.iter().all(|l| l.is_finite()));
        let far = usize::MAX;
        for (rows, tables, wanted, words) in [
            (&[row(50, 0, 0)][..], tables, &[0][..], "token 50 of"),
            (&[row(u32::MAX, 0, 0)], tables, &[0], "token"),
            (&good, tables, &[3], "logits of row 3 of 3"),
            (&good, tables, &[far], "logits of row"),
            (&[], tables, &[0], "logits of row 0 of 0"),
            (&[row(3, 2, 0)], tables, &[0], "has no block"),
            (&[row(3, far, 0)], tables, &[0], "has no block"),
            (&[row(3, 0, 2 * BLOCK)], tables, &[0], "has no block"),
            (&[row(3, 1, BLOCK)], tables, &[0], "has no block"),
            (&[row(3, 0, far)], tables, &[0], "has no block"),
            (&[row(3, 0, 5), row(4, 0, 5)], tables, &[0], "two rows"),
            (
                &[row(3, 0, 5), row(4, 1, 5)],
                &[&[1], &[1]],
                &[0],
                "two rows",
            ),
            (&[row(3, 0, 0)], &[&[]], &[0], "has no block"),
        ] {
            let message = panic_message(|| {
                run(rows, tables, wanted);
            });
            assert!(message.contains(words), "{message}");
        }
        // Nothing of it did any harm; logits may be asked for twice, and for no rows.
        assert_eq!(run(&good, tables, &[1, 2]), want);
        let twice = run(&good, tables, &[2, 1, 2, 1, 2]);
        assert_eq!(twice[..VOCAB], want[VOCAB..]);
        assert_eq!(twice[VOCAB..2 * VOCAB], want[..VOCAB]);
        assert_eq!(twice[4 * VOCAB..], want[VOCAB..]);
        assert!(run(&good, tables, &[]).is_empty());
        assert!(run(&[], &[], &[]).is_empty());
    }
    check::<f32>();
    check::<Bf16>();
}
