"""Makes the fixture of the preference trainer with plain PyTorch and transformers.

    pip install torch==2.13.0 transformers==5.23.0 safetensors
    python tests/reference/make_aco.py

Nothing here is shared with the Rust code: the model is transformers' own
LlamaForCausalLM, the losses are written down from the paper (eq. 11-12), DPO as
in TRL (`-F.logsigmoid(beta * (chosen_logratios - rejected_logratios))`), the
optimiser is torch.optim.AdamW, the clipping clip_grad_norm_.

Writes below `fixtures/aco/`: `model/` (a tiny random Llama), `after.safetensors`
(its weights after three optimiser steps) and `aco.json` (everything else).
"""

import copy
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

OUT = Path(__file__).parent / "fixtures" / "aco"
BETA, ALPHA, LR, WEIGHT_DECAY, MAX_NORM, WARMUP = 0.1, 1.0, 1e-4, 0.01, 0.5, 0.1
BATCH = 2

torch.manual_seed(7)
torch.set_num_threads(1)


def tiny():
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
    )
    config.architectures = ["LlamaForCausalLM"]
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            # Norms away from 1, so that a forgotten one is seen.
            p.copy_(torch.randn_like(p) * 0.15 + (1.0 if "norm" in name else 0.0))
    return model


def make_pairs():
    g = torch.Generator().manual_seed(11)
    pairs = []
    for i, (prompt, prefix, chosen, rejected) in enumerate(
        [(5, 2, 9, 4), (3, 2, 6, 11), (8, 0, 1, 7), (4, 2, 12, 12), (6, 2, 5, 3)]
    ):
        ids = lambda n: torch.randint(0, 64, (n,), generator=g).tolist()
        adv = torch.randn(2, generator=g).tolist()
        pairs.append({
            "query_id": f"q{i}", "prompt_token_ids": ids(prompt), "prefix_token_ids": ids(prefix),
            "chosen_token_ids": ids(chosen), "rejected_token_ids": ids(rejected),
            "chosen_advantage": adv[0], "rejected_advantage": adv[1],
        })
    return pairs


def response_logp(model, pair, side):
    """sum log pi over the response, one sequence at a time: no padding anywhere."""
    context = pair["prompt_token_ids"] + pair["prefix_token_ids"]
    response = pair[f"{side}_token_ids"]
    logits = model(torch.tensor([context + response])).logits[0].float()
    logp = F.log_softmax(logits, -1)
    at = torch.arange(len(context) - 1, len(context) + len(response) - 1)
    return logp[at, torch.tensor(response)]


def pair_loss(kind, pair, pc, pr, rc, rr):
    gap = pair["rejected_advantage"] - pair["chosen_advantage"]
    w = math.exp(-gap / ALPHA)
    w = {"aco_min": min(1.0, w), "aco_max": max(1.0, w), "dpo": 1.0}[kind]
    if kind == "dpo":  # TRL's form
        return -F.logsigmoid(BETA * ((pc - rc) - (pr - rr)))
    return -F.logsigmoid(BETA * (pc - rc) - BETA * w * (pr - rr))


def factor(t, total):
    warmup = math.ceil(WARMUP * total)
    return t / warmup if t <= warmup else (total - t + 1) / (total - warmup + 1)


def main():
    model, pairs = tiny(), make_pairs()
    OUT.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(OUT / "model")
    out = {"pairs": pairs}

    with torch.no_grad():
        out["input_ids"] = pairs[0]["prompt_token_ids"] + pairs[0]["chosen_token_ids"]
        out["logits"] = model(torch.tensor([out["input_ids"]])).logits[0].flatten().tolist()
        refs = [{s: response_logp(model, p, s) for s in ("chosen", "rejected")} for p in pairs]
        out["token_logps"] = refs[0]["chosen"].tolist()
        refs = [{s: r[s].sum() for s in r} for r in refs]
        out["logps"] = [[r["chosen"].item(), r["rejected"].item()] for r in refs]

    # Loss values and gradients against a reference that is not the policy.
    shifted = [{"chosen": r["chosen"] - 2.0 - i, "rejected": r["rejected"] + 1.5 * i - 3.0} for i, r in enumerate(refs)]
    out["reference"] = [[s["chosen"].item(), s["rejected"].item()] for s in shifted]
    out["losses"], out["grad_norms"] = {}, {}
    for kind in ("aco_min", "aco_max", "dpo"):
        model.zero_grad()
        losses = torch.stack([
            pair_loss(kind, p, response_logp(model, p, "chosen").sum(), response_logp(model, p, "rejected").sum(),
                      s["chosen"], s["rejected"])
            for p, s in zip(pairs, shifted)
        ])
        losses.mean().backward()
        out["losses"][kind] = losses.tolist()
        norms = {n: p.grad.norm().item() for n, p in model.named_parameters()}
        out["grad_norms"][kind] = norms

    # Three AdamW steps of ACO (min) from the true reference.
    policy = copy.deepcopy(model)
    policy.zero_grad()
    matrices = [p for p in policy.parameters() if p.dim() >= 2]
    vectors = [p for p in policy.parameters() if p.dim() < 2]
    opt = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=LR, betas=(0.9, 0.999), eps=1e-8, foreach=False,
    )
    batches = [list(range(i, min(i + BATCH, len(pairs)))) for i in range(0, len(pairs), BATCH)]
    out["steps"] = []
    for t, batch in enumerate(batches, 1):
        opt.zero_grad()
        loss = sum(
            pair_loss("aco_min", pairs[i], response_logp(policy, pairs[i], "chosen").sum(),
                      response_logp(policy, pairs[i], "rejected").sum(), refs[i]["chosen"], refs[i]["rejected"])
            for i in batch
        ) / len(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), MAX_NORM).item()
        for group in opt.param_groups:
            group["lr"] = LR * factor(t, len(batches))
        opt.step()
        out["steps"].append({"pairs": batch, "loss": loss.item(), "grad_norm": norm, "lr": LR * factor(t, len(batches))})
    save_file({n: p.detach() for n, p in policy.named_parameters()}, OUT / "after.safetensors")

    # Rotary frequencies of Llama 3.1's scaling.
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    llama3 = LlamaConfig(hidden_size=128, num_attention_heads=1, head_dim=128, max_position_embeddings=131072,
                         rope_parameters=rope)
    inv_freq, _ = ROPE_INIT_FUNCTIONS["llama3"](llama3, device="cpu")
    out["llama3_inv_freq"] = inv_freq.tolist()
    (OUT / "aco.json").write_text(json.dumps(out) + "\n")
    print({k: out["steps"] if k == "steps" else out["losses"] for k in ("steps", "losses")})


main()
