//! Configurations that are read, and those that are refused by name.

use super::*;

const SMOLLM2: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 100000,
    "tie_word_embeddings": true, "vocab_size": 49152, "torch_dtype": "bfloat16"
}"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("m/config.json")).map_err(|e| e.to_string())
}

fn changed(text: &str, change: &serde_json::Value) -> Result<Config, String> {
    let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
    let map = value.as_object_mut().unwrap();
    map.extend(change.as_object().unwrap().clone());
    parse(&value.to_string())
}

fn with(change: serde_json::Value) -> Result<Config, String> {
    changed(SMOLLM2, &change)
}

#[test]
fn reads_smollm2() {
    let c = parse(SMOLLM2).unwrap();
    assert_eq!(
        (c.head_dim, c.num_key_value_heads, c.rope_theta),
        (64, 3, 100_000.0)
    );
    assert_eq!(c.rope_scaling, RopeScaling::Default);
    assert_eq!(c.architecture, Architecture::Llama);
    assert!(c.tie_word_embeddings && !c.qkv_bias && !c.output_bias);
}

#[test]
fn reads_the_rope_of_transformers_5() {
    let c = with(serde_json::json!({ "rope_theta": null, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 } }))
    .unwrap();
    assert_eq!(c.rope_theta, 500_000.0);
    assert!(matches!(
        c.rope_scaling,
        RopeScaling::Llama3 { factor: 8.0, .. }
    ));
}

/// As published with Qwen2.5-0.5B-Instruct.
const QWEN25: &str = r#"{
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896,
    "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768,
    "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false,
    "vocab_size": 151936
}"#;

fn qwen(change: serde_json::Value) -> Result<Config, String> {
    changed(QWEN25, &change)
}

#[test]
fn reads_qwen2_5_with_biases_on_q_k_and_v_alone() {
    let c = parse(QWEN25).unwrap();
    assert_eq!(
        (c.architecture, c.head_dim, c.rope_theta),
        (Architecture::Qwen2, 64, 1_000_000.0)
    );
    assert!(c.qkv_bias && !c.output_bias && !c.mlp_bias);
    // transformers does not look at these for a Qwen2.
    let same = qwen(serde_json::json!({ "attention_bias": false, "mlp_bias": true })).unwrap();
    assert_eq!(same, c);
    // Nor does it need the class.
    let same = qwen(serde_json::json!({ "architectures": null })).unwrap();
    assert_eq!(same, c);
}

#[test]
fn a_sliding_window_is_refused_where_it_hides_anything() {
    let with = |change: serde_json::Value| {
        let mut all = serde_json::json!({ "use_sliding_window": true, "sliding_window": 4096 });
        let map = all.as_object_mut().unwrap();
        map.extend(change.as_object().unwrap().clone());
        qwen(all)
    };
    insta::assert_snapshot!(
        with(serde_json::json!({})).unwrap_err(),
        @"m/config.json: sliding-window attention (`use_sliding_window`) over 4096 of 32768 positions is not supported; with `max_position_embeddings` at 4096 the model is used without it"
    );
    let full = vec!["full_attention"; 24];
    let mut one = full.clone();
    one[23] = "sliding_attention";
    assert!(with(serde_json::json!({ "layer_types": one })).is_err());
    for harmless in [
        serde_json::json!({ "use_sliding_window": false }),
        serde_json::json!({ "sliding_window": 32768 }),
        serde_json::json!({ "max_position_embeddings": 4096 }),
        serde_json::json!({ "max_window_layers": 24 }),
        serde_json::json!({ "layer_types": full }),
    ] {
        assert!(with(harmless.clone()).is_ok(), "{harmless}");
    }
}

#[test]
fn the_stretched_rope_of_a_qwen2_is_refused_by_name() {
    insta::assert_snapshot!(
        qwen(serde_json::json!({ "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768 } }))
        .unwrap_err(),
        @"m/config.json: rotary scaling `yarn` is not supported; `default` and `llama3` are"
    );
}

#[test]
fn refuses_by_name() {
    let refused = |change| with(change).unwrap_err();
    insta::assert_snapshot!(
        refused(serde_json::json!({ "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3" })),
        @"m/config.json: architecture `Qwen3ForCausalLM` is not supported; LlamaForCausalLM and Qwen2ForCausalLM are"
    );
    insta::assert_snapshot!(
        refused(serde_json::json!({ "rope_scaling": { "type": "yarn", "factor": 4.0 } })),
        @"m/config.json: rotary scaling `yarn` is not supported; `default` and `llama3` are"
    );
    insta::assert_snapshot!(
        refused(serde_json::json!({ "hidden_act": "gelu" })),
        @"m/config.json: activation `gelu` is not supported; `silu` is"
    );
    insta::assert_snapshot!(
        refused(serde_json::json!({ "num_key_value_heads": 2 })),
        @"m/config.json: num_key_value_heads: 9 attention heads cannot share 2 key and value heads"
    );
}

/// A scaling of Llama 3.1, changed.
fn llama3(change: serde_json::Value) -> serde_json::Value {
    let mut rope = serde_json::json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 });
    let map = rope.as_object_mut().unwrap();
    map.extend(change.as_object().unwrap().clone());
    rope
}

/// transformers 5 writes both when it has read the older one.
#[test]
fn both_names_of_the_rope_type_are_taken_where_they_agree() {
    for key in ["rope_scaling", "rope_parameters"] {
        let both = serde_json::json!({ key: llama3(serde_json::json!({ "type": "llama3" })) });
        let config = with(both).unwrap();
        assert!(matches!(
            config.rope_scaling,
            RopeScaling::Llama3 { factor: 8.0, .. }
        ));
    }
    insta::assert_snapshot!(
        with(serde_json::json!({ "rope_scaling": llama3(serde_json::json!({ "type": "linear" })) })).unwrap_err(),
        @"m/config.json: rope_scaling.type: `linear` is not the `llama3` of `rope_type`"
    );
    let old = serde_json::json!({ "rope_scaling": llama3(serde_json::json!({ "type": "llama3", "rope_type": null })) });
    assert!(with(old).is_ok());
}

#[test]
fn a_rope_that_says_too_little_or_too_much_is_refused() {
    use serde_json::json;
    let refused = |change| with(change).unwrap_err();
    insta::assert_snapshot!(
        refused(json!({ "rope_scaling": { "factor": 2.0 } })),
        @"m/config.json: rope_scaling.rope_type: it is missing, and so it is not known what `factor` means"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_scaling": { "rope_type": null, "factor": 2.0 } })),
        @"m/config.json: rope_scaling.rope_type: it is missing, and so it is not known what `factor` means"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_parameters": { "full_attention": { "rope_type": "default", "rope_theta": 1e6 } } })),
        @"m/config.json: rope_parameters.full_attention: parameters for a kind of layer are not supported; where all layers share them, write them without that level"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_scaling": { "rope_type": "default", "factor": 2.0 } })),
        @"m/config.json: rope_scaling.factor: a scaling of type `default` has no such key"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_scaling": llama3(json!({ "beta_fast": 32 })) })),
        @"m/config.json: rope_scaling.beta_fast: a scaling of type `llama3` has no such key"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 5e5 } })),
        @"m/config.json: rope_parameters.rope_theta: 500000 is not the 100000 of `rope_theta`; keep one of the two"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_scaling": llama3(json!({})), "rope_parameters": { "rope_type": "default" } })),
        @"m/config.json: rope_scaling: it is another scaling than that of `rope_parameters`; keep one of the two"
    );
    insta::assert_snapshot!(
        refused(json!({ "rope_scaling": llama3(json!({})), "original_max_position_embeddings": 4096 })),
        @"m/config.json: rope_scaling.original_max_position_embeddings: 8192 is not the 4096 beside it; keep one of the two"
    );
    insta::assert_snapshot!(
        refused(json!({ "partial_rotary_factor": 0.5 })),
        @"m/config.json: rotary embeddings on a share of each head (`partial_rotary_factor` is 0.5) are not supported"
    );
    for (change, key) in [
        (json!({ "factor": "8.0" }), "factor"),
        (json!({ "factor": null }), "factor"),
        (json!({ "factor": 0.5 }), "factor"),
        (json!({ "factor": true }), "factor"),
        (json!({ "low_freq_factor": null }), "low_freq_factor"),
        (json!({ "low_freq_factor": 0.0 }), "low_freq_factor"),
        (json!({ "high_freq_factor": 1.0 }), "high_freq_factor"),
        (json!({ "high_freq_factor": [4] }), "high_freq_factor"),
        (
            json!({ "original_max_position_embeddings": "8192" }),
            "original_max_position_embeddings",
        ),
        (
            json!({ "original_max_position_embeddings": -1 }),
            "original_max_position_embeddings",
        ),
        (json!({ "rope_type": 3 }), "rope_type"),
        (json!({ "rope_theta": "1e6" }), "rope_theta"),
    ] {
        let words = refused(json!({ "rope_scaling": llama3(change) }));
        let begins = format!("m/config.json: rope_scaling.{key}: ");
        assert!(words.starts_with(&begins), "{words}");
    }
    for rope in [json!([]), json!("llama3"), json!(false), json!(2.0)] {
        let words = refused(json!({ "rope_scaling": rope }));
        assert!(
            words.starts_with("m/config.json: rope_scaling: "),
            "{words}"
        );
    }
}

#[test]
fn a_rope_without_scaling_may_be_written_in_many_ways() {
    use serde_json::json;
    let plain = with(json!({})).unwrap();
    for change in [
        json!({ "rope_scaling": null, "rope_parameters": null }),
        json!({ "rope_scaling": {} }),
        json!({ "rope_scaling": { "rope_type": "default" } }),
        json!({ "rope_scaling": { "type": "default", "factor": null } }),
        json!({ "rope_parameters": { "rope_theta": 100_000 } }),
        json!({ "rope_theta": null, "rope_parameters": { "rope_theta": 100_000.0, "rope_type": "default" } }),
        json!({ "rope_theta": 1e5, "rope_parameters": { "rope_theta": 100_000.0, "type": "default" } }),
        json!({ "partial_rotary_factor": 1.0 }),
    ] {
        assert_eq!(with(change.clone()).unwrap(), plain, "{change}");
    }
}

/// What transformers writes, or has written, for a value that is not set.
#[test]
fn null_is_absent_where_transformers_writes_it() {
    use serde_json::json;
    let plain = with(json!({})).unwrap();
    for key in [
        "attention_bias",
        "mlp_bias",
        "head_dim",
        "pretraining_tp",
        "rope_scaling",
        "rope_parameters",
        "sliding_window",
        "use_sliding_window",
        "layer_types",
        "quantization_config",
        "model_type",
        "architectures",
        "torch_dtype",
        "pad_token_id",
    ] {
        assert_eq!(with(json!({ key: null })).unwrap(), plain, "{key}");
    }
    assert!(
        !with(json!({ "tie_word_embeddings": null }))
            .unwrap()
            .tie_word_embeddings
    );
    assert_eq!(
        with(json!({ "num_key_value_heads": null }))
            .unwrap()
            .num_key_value_heads,
        9
    );
    let window = json!({ "use_sliding_window": true, "sliding_window": null });
    assert!(qwen(window).is_ok(), "no window at all");
}

/// Keys of a Llama and a JSON list of values that each refuses.
const REFUSED: [(&str, &str); 20] = [
    ("vocab_size", r#"[null, "49152", 0, -1, 1.5, 1e12, true]"#),
    (
        "hidden_size",
        r#"[null, 576.0, "576", 9223372036854775807, 18446744073709551615, []]"#,
    ),
    ("intermediate_size", "[null, 1099511627776]"),
    ("num_hidden_layers", r#"[null, 0, 1000000000000, "30"]"#),
    ("num_attention_heads", "[null, 0, 3074457345618258604]"),
    ("num_key_value_heads", r#"[0, -3, "3", 2]"#),
    ("head_dim", r#"[0, 63, "64", 8589934592]"#),
    (
        "max_position_embeddings",
        r#"[null, 0, 8192.5, "8192", 9223372036854775807]"#,
    ),
    ("rms_norm_eps", r#"[null, "1e-5", 0, -1e-5, 1e300]"#),
    ("rope_theta", r#"["10000", 0, -1, 1e300, true]"#),
    ("attention_bias", r#"["true", 1, []]"#),
    ("mlp_bias", r#"["false", 0]"#),
    ("tie_word_embeddings", r#"["true", 1]"#),
    ("hidden_act", r#"[null, 1, ["silu"]]"#),
    ("pretraining_tp", r#"["1", 1.5]"#),
    ("architectures", r#"["LlamaForCausalLM", [1]]"#),
    ("model_type", r#"[1, "mistral", "qwen2"]"#),
    ("layer_types", r#"["full_attention", [1]]"#),
    ("original_max_position_embeddings", r#"["8192"]"#),
    ("partial_rotary_factor", r#"["1.0", 2]"#),
];

#[test]
fn every_refusal_of_a_value_names_its_key() {
    use serde_json::json;
    let check = |key: &str, value: &serde_json::Value, refused: Result<Config, String>| {
        let words = refused.unwrap_err();
        let begins = format!("m/config.json: {key}: ");
        assert!(words.starts_with(&begins), "{key} = {value}: {words}");
    };
    for (key, values) in REFUSED {
        let values: Vec<serde_json::Value> = serde_json::from_str(values).unwrap();
        for value in &values {
            check(key, value, with(json!({ key: value })));
        }
    }
    for (key, values) in [
        ("use_sliding_window", vec![json!("false"), json!(1)]),
        ("sliding_window", vec![json!("4096"), json!(0), json!(-1)]),
        ("max_window_layers", vec![json!("28"), json!(-1)]),
        (
            "layer_types",
            vec![
                json!(["full_attention"]),
                json!(vec!["sliding_attention"; 24]),
            ],
        ),
    ] {
        for value in &values {
            check(key, value, qwen(json!({ key: value })));
        }
    }
}

#[test]
fn numbers_beyond_their_range_and_keys_missing_or_twice_are_refused() {
    insta::assert_snapshot!(
        with(serde_json::json!({ "num_attention_heads": 3_074_457_345_618_258_604u64, "head_dim": 6 })).unwrap_err(),
        @"m/config.json: num_attention_heads: 3074457345618258604 is not a whole number from 1 to 16384"
    );
    let mut lacks: serde_json::Value = serde_json::from_str(SMOLLM2).unwrap();
    lacks.as_object_mut().unwrap().remove("hidden_size");
    insta::assert_snapshot!(parse(&lacks.to_string()).unwrap_err(), @"m/config.json: hidden_size: it is missing");
    let twice = SMOLLM2.replacen('{', r#"{"hidden_size": 64,"#, 1);
    insta::assert_snapshot!(
        parse(&twice).unwrap_err().split(" at line").next().unwrap(),
        @"m/config.json is damaged: the key `hidden_size` is given twice"
    );
}

/// Every product that shapes and buffers are made of.
#[test]
fn the_largest_numbers_that_are_taken_do_not_overflow() {
    use limits::*;
    let c = with(serde_json::json!({
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT,
    }))
    .unwrap();
    let width = c.num_attention_heads.checked_mul(c.head_dim).unwrap();
    for (rows, columns) in [
        (c.vocab_size, c.hidden_size),
        (c.intermediate_size, c.hidden_size),
        (width, c.hidden_size),
        (width, c.max_position_embeddings),
    ] {
        let numbers = rows.checked_mul(columns).unwrap();
        assert!(
            numbers.checked_mul(4).is_some(),
            "{rows} x {columns} in bytes"
        );
    }
}
