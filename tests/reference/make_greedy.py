#!/usr/bin/env python3
"""Writes the continuations that the project's own decoder is held against.

    make_greedy.py MODEL_FOLDER [FIXTURES_FOLDER]

MODEL_FOLDER: SmolLM2-135M-Instruct as converted by the `model` stage (what
make_logits.py takes). Hugging Face transformers loads that folder in f32 and
says, for eight prompts of 5 to about 300 tokens:

  greedy   up to 32 tokens, the likeliest one each time, no penalty of any kind,
           ended by the end-of-turn token (which is then the last one listed);
           the natural log-probability of each, and its margin in nats to the
           second likeliest, by which a test can tell a near tie
  sampled  24 tokens drawn at temperature 1 (a seeded generator, the end-of-turn
           token not drawn) and the natural log-probability of each

The tokens are made one at a time with a cache, and the figures by one forward
pass over prompt and tokens; they are a float64 log-softmax of f32 logits. The
files are committed, so the tests need none of this.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

HERE = Path(__file__).resolve().parent
GREEDY, SAMPLED, SEED = 32, 24, 20240607

# (name, whether it is a user's turn in the chat template, the text)
PROMPTS = [
    ("capital", False, "The capital of Italy is"),
    ("counting", False, "one two three four five six seven eight"),
    ("code", False, 'def mean(values: list[float]) -> float:\n    """The arithmetic mean."""\n    return'),
    ("greeting", True, "Hi"),
    (
        "pencils",
        True,
        "Nora buys 3 boxes with 12 pencils each and gives 7 pencils away. How many pencils does she keep?",
    ),
    (
        "orchard",
        True,
        "An orchard has 14 rows of 9 apple trees. Every tree gives 6 baskets of apples a year, and a basket "
        "sells for $4. The owner pays $1,250 a year for water and $980 for tools. How much money does the "
        "orchard make in a year after both are paid? Explain step by step.",
    ),
    (
        "library",
        True,
        "A town library lends books on three floors.\n\nOn the first floor there are 18 shelves with 45 books each. "
        "The second floor has twice as many shelves, but a shelf there holds only 30 books. The third floor "
        "holds 250 rare books, which nobody may take home.\n\n1. How many books are there in all?\n2. How many of "
        "them can be taken home?\n3. If one in five of the books that can be taken home is out today, how many "
        "are on the shelves?\n\nWrite a short line for each of the three parts, and end with the answer to the "
        "third part alone on its own line.",
    ),
    (
        "story",
        False,
        "The lighthouse stood at the end of a long spit of sand, and for forty years the same man had kept its lamp. "
        "In winter the road was often under water, so he bought flour, oil and coal in autumn and saw nobody "
        "until March. He did not mind. He had a shelf of eleven books, a radio that worked when the wind came "
        "from the south, and a cat called Admiral who slept on the warm side of the lamp room. Each evening he "
        "climbed the 142 steps, wound the clockwork, cleaned the glass and wrote three lines in the log: the "
        "weather, the ships, and whatever else seemed worth keeping. \"Wind north-west, force 6,\" he wrote on "
        "the 9th of January. \"Two trawlers and the mail boat. Admiral caught a gull and regretted it.\" The "
        "inspectors who came every second summer used to laugh about these notes, but they read them all, and "
        "one of them once copied a whole year into a book of her own. When the order arrived that the lamp "
        "would be switched to electricity and run from an office two hundred kilometres away, the keeper read "
        "it twice, folded it, and put it between the pages of the log. Then he climbed the steps as he had "
        "always done, because it was getting dark, and",
    ),
]


def generate(model, ids, count, choose, end=None):
    """`count` tokens behind `ids`, one at a time, or fewer where `end` comes first."""
    cache, tokens, feed = DynamicCache(config=model.config), [], ids
    for _ in range(count):
        logits = model(torch.tensor([feed]), past_key_values=cache, use_cache=True).logits[0, -1]
        tokens.append(choose(logits.to(torch.float64)))
        if tokens[-1] == end:
            break
        feed = tokens[-1:]
    return tokens


def judged(model, ids, tokens):
    """Log-probability of every token, and the margin to the likeliest other one."""
    logits = model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
    logprobs = torch.log_softmax(logits.to(torch.float64), dim=-1)
    taken = logprobs.gather(1, torch.tensor(tokens).unsqueeze(1)).squeeze(1)
    others = logprobs.scatter(1, torch.tensor(tokens).unsqueeze(1), float("-inf")).amax(dim=1)
    return [round(v, 7) for v in taken.tolist()], [round(v, 7) for v in (taken - others).tolist()]


@torch.no_grad()
def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = sys.argv[1]
    fixtures = Path(sys.argv[2]) if len(sys.argv) == 3 else HERE / "fixtures"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    generator = torch.Generator().manual_seed(SEED)

    def drawn(logits):
        logits[end] = float("-inf")
        return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).item()

    greedy, sampled = [], []
    for name, chat, text in PROMPTS:
        if chat:
            turn = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens = generate(model, ids, GREEDY, lambda logits: logits.argmax().item(), end)
        logprobs, margins = judged(model, ids, tokens)
        # One pass over all and a token at a time differ by rounding alone.
        assert min(margins) > -1e-3, (name, min(margins))
        greedy.append(
            {
                "name": name,
                "text": text,
                "ids": ids,
                "tokens": tokens,
                "ended": tokens[-1] == end,
                "logprobs": logprobs,
                "margins": margins,
            }
        )
        tokens = generate(model, ids, SAMPLED, drawn)
        logprobs, _ = judged(model, ids, tokens)
        sampled.append({"name": name, "ids": ids, "tokens": tokens, "logprobs": logprobs})
        # For a person to look at.
        print(f"{name}: {len(ids)} tokens, smallest margin {min(margins):.4f}")
        print("  greedy ", repr(tokenizer.decode(greedy[-1]["tokens"])))
        print("  sampled", repr(tokenizer.decode(tokens)))
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "dtype": "float32"}
    head = {"made_with": made_with, "end": end}
    # A prompt a line: long lists of numbers are not read line by line.
    lines = [f' "{k}": {json.dumps(v)}' for k, v in head.items()]
    for key, records in (("greedy", greedy), ("sampled", sampled)):
        inner = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in records)
        lines.append(f' "{key}": [\n{inner}\n ]')
    path = fixtures / "smollm2_greedy.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
