#!/usr/bin/env python3
"""Writes the fixtures that the project's own model code is held against.

    make_logits.py MODEL_FOLDER [FIXTURES_FOLDER]

MODEL_FOLDER: SmolLM2-135M-Instruct as converted by the `model` stage. Hugging
Face transformers loads that folder in f32 and says, for ten prompts: the token
ids; for every position the natural log-probability of the next prompt token;
at the last position the log-sum-exp, the ten largest logits, and the logits at
64 indices spread over the vocabulary. Also what the chat template renders.

The files are committed, so the tests need none of this. With another folder of
fixtures, `make check-model MODEL=...` holds any other model to transformers,
such as one that the `train` stage wrote.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
FIXTURES = Path(sys.argv[2]) if len(sys.argv) == 3 else HERE / "fixtures"
INDICES = 64

# Ordinary text, digits, unicode, code, newlines and runs of spaces; the chat
# conversations beside this file are added, rendered.
TEXTS = [
    "The capital of France is",
    "In 1969, 3 astronauts flew 384,400 km: 12345678901234567890 metres is more than 3.14159.",
    "naïve café — 東京は日本の首都です。 Здравствуйте, мир! 🚀👩‍👩‍👧 \u00a0end",
    "def fib(n: int) -> int:\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n\n\nprint(fib(10))",
    "one\n\n\ntwo   three\t\tfour \n five\r\nsix  ",
    "It's what they'd've said: \"don't\", we'll, I'm, you're -- isn't IT? They'LL see...",
]


def reference(model, tokenizer, name, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].to(torch.float64)
    logprobs = torch.log_softmax(logits, dim=-1)
    last = logits[-1]
    top = torch.topk(last, 10)
    stride = last.numel() // INDICES
    # Not a multiple of two, so that no structure of the vocabulary is met.
    indices = [(i * stride + 7 * i) % last.numel() for i in range(INDICES)]
    return {
        "name": name,
        "text": text,
        "ids": ids,
        "next_logprobs": [round(logprobs[t, ids[t + 1]].item(), 6) for t in range(len(ids) - 1)],
        "last": {
            "logsumexp": round(torch.logsumexp(last, 0).item(), 6),
            "top_ids": top.indices.tolist(),
            "top_logits": [round(v, 6) for v in top.values.tolist()],
            "indices": indices,
            "logits": [round(last[i].item(), 6) for i in indices],
        },
    }


def write(name, value):
    path = FIXTURES / name
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = sys.argv[1]
    FIXTURES.mkdir(exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "dtype": "float32"}

    conversations = json.loads((HERE / "conversations.json").read_text(encoding="utf-8"))
    for conversation in conversations:
        conversation["text"] = tokenizer.apply_chat_template(
            conversation["messages"],
            add_generation_prompt=conversation["add_generation_prompt"],
            tokenize=False,
        )
    write("smollm2_chat.json", {"made_with": made_with, "conversations": conversations})

    prompts = [(f"text-{i}", text) for i, text in enumerate(TEXTS)]
    prompts += [(f"chat-{c['name']}", c["text"]) for c in conversations]
    assert len(prompts) == 10
    records = [reference(model, tokenizer, name, text) for name, text in prompts]
    write("smollm2_logits.json", {"made_with": made_with, "prompts": records})

    # For a person to look at: the conversion is right if this is sensible.
    question = conversations[0]["text"]
    ids = tokenizer(question, add_special_tokens=False, return_tensors="pt")["input_ids"]
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    print(repr(tokenizer.decode(answer[0, ids.shape[1] :])))


if __name__ == "__main__":
    main()
