#!/usr/bin/env python3
"""Writes a tiny Qwen2, tied and untied, and what transformers computes with it.

    make_qwen2.py [FIXTURES_FOLDER]

Makes fixtures/qwen2-tied/ and fixtures/qwen2-untied/ {config.json,
model.safetensors}: random weights, q/k/v biases and norm weights that are not
the identity, every value exact in bf16 (the format they are stored in), so that
a reader in f32 has the very numbers that transformers computed with. And
fixtures/qwen2_logits.json: for some sequences of token ids, all logits at the
last position and the natural log-probability of every next token, in f32 with
eager attention. The files are committed, so the tests need none of this.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

FIXTURES = Path(sys.argv[1]) if len(sys.argv) == 2 else Path(__file__).resolve().parent / "fixtures"
VOCAB = 160

# What Qwen2.5's own config.json holds, at a small size; in the names of the
# published models rather than in those of the newest transformers.
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 512,
    "vocab_size": VOCAB,
    "use_sliding_window": False,
    "sliding_window": 512,
    "max_window_layers": 2,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
}

SEQUENCES = [
    [5],
    [2, 159, 77, 31, 8],
    [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50, 28, 84, 19, 71, 69, 39, 93],
    # Longer than a block of a cache may be.
    [(i * i * 7 + 11 * i + 3) % VOCAB for i in range(150)],
]


def weights(model, seed):
    """Random values exact in bf16, large enough for attention and biases to matter."""
    generator = torch.Generator().manual_seed(seed)

    def random(shape, scale):
        return (torch.randn(shape, generator=generator) * scale).to(torch.bfloat16).float()

    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            p.copy_((1 + random(p.shape, 0.2)).to(torch.bfloat16).float())
        elif name.endswith("bias"):
            p.copy_(random(p.shape, 0.5))
        elif "embed_tokens" in name:
            p.copy_(random(p.shape, 0.6))
        else:
            p.copy_(random(p.shape, 1.5 * p.shape[-1] ** -0.5))


def variant(tied, seed):
    config = dict(CONFIG, tie_word_embeddings=tied)
    folder = FIXTURES / ("qwen2-tied" if tied else "qwen2-untied")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    # Through the file itself, so that its names are the ones that count.
    loaded = Qwen2Config.from_pretrained(folder)
    model = Qwen2ForCausalLM._from_config(loaded, attn_implementation="eager").float().eval()
    weights(model, seed)
    stored = {n: p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()}
    assert ("lm_head.weight" in stored) != tied
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for name, p in model.named_parameters():
        assert torch.equal(p, stored[name].float()), name

    records = []
    for ids in SEQUENCES:
        logits = model(torch.tensor([ids])).logits[0].to(torch.float64)
        logprobs = torch.log_softmax(logits, dim=-1)
        records.append(
            {
                "ids": ids,
                "next_logprobs": [round(logprobs[t, ids[t + 1]].item(), 7) for t in range(len(ids) - 1)],
                "last_logits": [round(v, 6) for v in logits[-1].tolist()],
            }
        )
    # A fixture without biases would pass with a model that has none.
    with torch.no_grad():
        before = model(torch.tensor([SEQUENCES[1]])).logits[0, -1]
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                kept = part.bias.clone()
                part.bias.zero_()
                moved = (model(torch.tensor([SEQUENCES[1]])).logits[0, -1] - before).abs().max()
                part.bias.copy_(kept)
                # Softmax ignores what a key bias adds to every score alike, but not all of it under RoPE.
                assert moved > 1e-2, (layer, part, moved)
                print(f"{folder.name}: without a bias the logits move by {moved:.3f}")
    size = (folder / "model.safetensors").stat().st_size
    print(f"{folder.name}: {size} bytes, theta {model.config.rope_parameters}, max |logit| {before.abs().max():.2f}")
    return {"folder": folder.name, "sequences": records}


@torch.no_grad()
def main():
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "dtype": "float32"}
    models = [variant(tied, seed) for tied, seed in ((True, 1), (False, 2))]
    out = json.dumps({"made_with": made_with, "models": models})
    (FIXTURES / "qwen2_logits.json").write_text(out.replace('{"ids"', '\n{"ids"') + "\n")


if __name__ == "__main__":
    main()
