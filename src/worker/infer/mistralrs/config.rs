//! What mistral.rs (0.8.1) passes over in a config.json of a Llama or a Qwen2,
//! and would compute another model for: [`check`].

use serde_json::Value;

/// Refuses a model that mistral.rs would load and compute wrongly.
///
/// # Errors
/// What it passes over.
pub fn check(config: &Value) -> Result<(), String> {
    let class = config["architectures"][0].as_str();
    let is_set = |key: &str| config[key].as_bool().unwrap_or(false);
    let qwen2 = match class.or(config["model_type"].as_str()) {
        Some("LlamaForCausalLM" | "llama") => false,
        Some("Qwen2ForCausalLM" | "qwen2") => true,
        // Other models are its own affair.
        _ => return Ok(()),
    };
    let refuse = |what: String| {
        Err(format!(
            "mistral.rs would pass over {what}, and compute another model; use `engine: native`"
        ))
    };
    // It reads `rope_theta` and `rope_scaling`, as transformers before 5 wrote them.
    let rope = &config["rope_parameters"];
    let stretched = |rope: &Value| {
        let kind = rope["rope_type"].as_str().or(rope["type"].as_str());
        kind.is_some_and(|kind| kind != "default")
    };
    if config["rope_theta"].is_null() && !rope["rope_theta"].is_null()
        || stretched(rope) && config["rope_scaling"].is_null()
    {
        return refuse("`rope_parameters` of config.json".into());
    }
    if !qwen2 {
        return match ["attention_bias", "mlp_bias"]
            .iter()
            .find(|key| is_set(key))
        {
            Some(key) => refuse(format!("the biases of a Llama (`{key}`)")),
            None => Ok(()),
        };
    }
    if stretched(&config["rope_scaling"]) {
        return refuse("the `rope_scaling` of a Qwen2".into());
    }
    // It windows every layer as soon as there is a size.
    match (
        config["sliding_window"].as_u64(),
        config["max_position_embeddings"].as_u64(),
    ) {
        (Some(window), Some(context)) if window < context => {
            let key = "use_sliding_window";
            refuse(format!(
                "`{key}` and `max_window_layers` (it takes a `sliding_window` of {window} in every layer)"
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(config: Value) -> String {
        check(&config).unwrap_err()
    }

    #[test]
    fn what_it_would_pass_over_is_refused() {
        insta::assert_snapshot!(
            refusal(json!({ "architectures": ["LlamaForCausalLM"], "rope_theta": 1e4, "attention_bias": true })),
            @"mistral.rs would pass over the biases of a Llama (`attention_bias`), and compute another model; use `engine: native`"
        );
        insta::assert_snapshot!(
            refusal(json!({ "model_type": "llama", "rope_parameters": { "rope_theta": 5e5 } })),
            @"mistral.rs would pass over `rope_parameters` of config.json, and compute another model; use `engine: native`"
        );
        insta::assert_snapshot!(
            refusal(json!({ "model_type": "qwen2", "rope_theta": 1e6, "rope_scaling": { "type": "yarn" } })),
            @"mistral.rs would pass over the `rope_scaling` of a Qwen2, and compute another model; use `engine: native`"
        );
        insta::assert_snapshot!(
            refusal(json!({
                "model_type": "qwen2", "rope_theta": 1e6, "use_sliding_window": false,
                "sliding_window": 4096, "max_position_embeddings": 32768,
            })),
            @"mistral.rs would pass over `use_sliding_window` and `max_window_layers` (it takes a `sliding_window` of 4096 in every layer), and compute another model; use `engine: native`"
        );
    }

    #[test]
    fn what_it_computes_rightly_is_not() {
        for config in [
            json!({ "architectures": ["LlamaForCausalLM"], "rope_theta": 5e5, "attention_bias": false,
                "rope_scaling": { "rope_type": "llama3" } }),
            json!({ "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6, "rope_scaling": null,
                "use_sliding_window": false, "sliding_window": 32768,
                "max_position_embeddings": 32768 }),
            json!({ "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6,
                "rope_parameters": { "rope_type": "default", "rope_theta": 1e6 } }),
            json!({ "architectures": ["Gemma2ForCausalLM"], "sliding_window": 4 }),
        ] {
            assert_eq!(check(&config), Ok(()), "{config}");
        }
    }
}
