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
        @"m/config.json: 9 attention heads cannot share 2 key and value heads"
    );
}
