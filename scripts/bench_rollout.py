#!/usr/bin/env python3
"""Sampling beside llama.cpp and transformers, in one run (`make bench-rollout`).

    bench_rollout.py --genius PATH --model FOLDER [--queries FILE] [--quick]
                     [--only decode,foresight] [--rounds N] [--skip-peers]

  decode     1, 8, 32 and 64 sequences of 128 tokens, none of which ends before: ours
             drawn at temperature 1 with its log-probability, the peers' the likeliest
             token, which costs them least. The rate is of the tokens behind the first;
             `with_prompts` is of all tokens over the whole time
  foresight  queries a minute at M=2, N=4, K=4, at most 128 tokens a step and 128 a
             foresight, at the released code's temperatures of 0.6 and 1: ours by
             `genius run`, loading included; the released code's way of it on
             transformers, loading excluded

The sides take turns, and each figure is the median of the rounds. Prints a table
and writes bench/out/rollout.json; a `vs` is our rate over the peer's. Nothing
passes or fails by a clock. FILE: JSON lines with `question`, `instruction` or
`text`, such as GSM8K's train.jsonl; else the project's own queries.

The peers are installed with pip into bench/peers/rollout (llama.cpp is compiled
for this machine, some minutes). MODEL: a Hugging Face folder of SmolLM2-135M-Instruct.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers" / "rollout"
PEERS_SCRIPT = ROOT / "scripts" / "bench_rollout_peers.py"
PACKAGES = ["torch==2.13.0", "transformers==5.23.0", "gguf==0.19.0", "numpy"]
LLAMA = "llama-cpp-python==0.3.36"

# The key in rollout.json, how it should compare, the goal.
GOALS = {
    "vs_llamacpp_8": (">", 0.8),
    "vs_llamacpp_32": (">", 1),
    "vs_llamacpp_64": (">", 1),
    "vs_transformers_32": (">", 3),
    "foresight_vs_transformers": (">", 7),
    "peak_gb_32": ("<", 2),
}


def say(text=""):
    print(text, flush=True)


def fail(text):
    print(f"bench-rollout: {text}", file=sys.stderr)
    sys.exit(1)


def command(argv, env=None, cwd=None):
    """What a program printed; its words if it fails."""
    ran = subprocess.run(
        [str(a) for a in argv], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        words = (ran.stdout + ran.stderr)[-3000:]
        fail(f"{' '.join(map(str, argv))}\n  ended with {ran.returncode}:\n{words}")
    return ran.stdout + "\n" + ran.stderr


def lines_of_json(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Peers:
    """Everything that needs Python packages."""

    def __init__(self, args, scratch):
        self.python = PEERS / "bin" / "python"
        self.args, self.scratch = args, scratch
        self.install()

    def install(self):
        done = PEERS / "installed.json"
        wanted = [*PACKAGES, LLAMA]
        if done.is_file() and json.loads(done.read_text()) == wanted:
            return
        say("installing the peers into bench/peers/rollout (llama.cpp is compiled: minutes) ...")
        command([sys.executable, "-m", "venv", PEERS])
        pip = [self.python, "-I", "-m", "pip", "install", "--quiet"]
        command([*pip, *PACKAGES])
        env = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"}
        command([*pip, "--no-binary", "llama-cpp-python", LLAMA], env=env)
        done.write_text(json.dumps(wanted))

    def __call__(self, *argv):
        env = {k: v for k, v in os.environ.items() if k not in ("LIBTORCH", "PYTHONPATH")}
        return lines_of_json(command([self.python, PEERS_SCRIPT, *argv], env=env))[-1]


def decode_ours(args, prompts, widths, tokens):
    env = {
        **os.environ,
        "GENIUS_TEST_MODEL": str(args.model),
        "GENIUS_BENCH_PROMPTS": str(prompts),
        "GENIUS_BENCH_WIDTHS": ",".join(map(str, widths)),
        "GENIUS_BENCH_TOKENS": str(tokens),
        "GENIUS_BENCH_DTYPES": "bf16",
    }
    test = ["cargo", "test", "--release", "--locked", "--bin", "genius-worker", "--"]
    text = command([*test, "--ignored", "--nocapture", "decoding_speed"], env=env, cwd=ROOT)
    return {r["width"]: r for r in lines_of_json(text)}


def bench_decode(args, peers, scratch, prompts):
    widths = [1, 8] if args.quick else [1, 8, 32, 64]
    tokens = 16 if args.quick else 128
    rates, peaks = {}, {}

    def note(side, width, record):
        rate = (record["tokens"] - width) / (record["seconds"] - record["prefill_seconds"])
        whole = record["tokens"] / record["seconds"]
        rates.setdefault((side, width), []).append(rate)
        rates.setdefault((side + " with prompts", width), []).append(whole)
        say(f"  {side:13} {width:3} sequences  {rate:7.1f} tokens/s  {whole:7.1f} with prompts")

    gguf = scratch / "model-bf16.gguf"
    first = {}
    if peers and not args.skip_peers:
        peers("convert", args.model, gguf)
    for turn in range(args.rounds):
        say(f"decode, round {turn + 1} of {args.rounds}")
        for width in widths:
            ours = decode_ours(args, prompts, [width], tokens)[width]
            note("genius", width, ours)
            peaks[width] = ours["peak_gb"]
            if args.skip_peers:
                continue
            theirs = peers("llamacpp", gguf, prompts, width, tokens, args.threads)
            note("llama.cpp", width, theirs)
            first["llama.cpp"] = theirs["first"]
            # What the promise of equal bits costs: libtorch's own kernels, whose bits depend on the batch.
            note("free form", width, peers("freeform", args.model, prompts, width, tokens, args.threads))
            if width in (8, 32):
                theirs = peers("transformers", args.model, prompts, width, tokens, args.threads)
                note("transformers", width, theirs)
                first["transformers"] = theirs["first"]
    # The same weights must say the same, or one side decodes another model.
    if len(first) == 2 and first["llama.cpp"][:4] != first["transformers"][:4]:
        fail(f"llama.cpp and transformers part at once: {first}")
    middle = {key: statistics.median(values) for key, values in rates.items()}
    figures = {f"decode_tok_s_{w}": middle[("genius", w)] for w in widths}
    names = {"llama.cpp": "llamacpp", "transformers": "transformers", "free form": "free_form"}
    for side, name in names.items():
        for width in widths:
            if (side, width) in middle:
                figures[f"{name}_tok_s_{width}"] = middle[(side, width)]
                figures[f"vs_{name}_{width}"] = middle[("genius", width)] / middle[(side, width)]
                ours, theirs = (middle[(s + " with prompts", width)] for s in ("genius", side))
                figures[f"with_prompts_vs_{name}_{width}"] = ours / theirs
    figures.update({f"peak_gb_{w}": peak for w, peak in peaks.items()})
    return figures


PIPELINE = """version: 1
name: bench-rollout
seed: 42
stages:
  queries: {{ uses: queries, with: {{ source: {{ path: {queries}, field: {field} }}, sample: {{ n: {n}, seed: 1 }} }} }}
  policy: {{ uses: model, with: {{ source: {{ path: {model} }} }} }}
  rollout:
    uses: rollout
    needs: {{ queries: queries, model: policy }}
    with: {{ engine: native, dtype: bf16, beams: 2, rollouts: 4, steps: 4, foresight_temperature: 1.0, max_step_tokens: {tokens}, max_foresight_tokens: {tokens} }}
"""


def bench_foresight(args, peers, scratch, prompts):
    tokens = 16 if args.quick else 128
    ours_n, theirs_n = (4, 1) if args.quick else (args.our_queries, args.peer_queries)
    field = json.loads(args.queries.read_text().splitlines()[0])
    field = next(k for k in ("question", "instruction", "text") if k in field)
    pipeline = scratch / "pipeline.yaml"
    pipeline.write_text(
        PIPELINE.format(queries=args.queries, field=field, n=ours_n, model=args.model, tokens=tokens)
    )
    ours, theirs = [], []
    for turn in range(1 if args.quick else 2):
        cache = scratch / f"cache-{turn}"
        text = command([args.genius, "run", pipeline, "--cache", cache, "--quiet", "--json"])
        report = lines_of_json(text)[-1]
        stage = next(s for s in report["stages"] if s["stage"] == "rollout")
        made = dict(stage["summary"])["tokens"] if isinstance(stage["summary"], list) else stage["summary"]["tokens"]
        ours.append(60 * ours_n / stage["seconds"])
        say(f"foresight, genius        {ours[-1]:6.2f} queries a minute ({made / ours_n:.0f} tokens each)")
        if args.skip_peers:
            continue
        record = peers("foresight", args.model, prompts, theirs_n, tokens, args.threads)
        theirs.append(60 * theirs_n / record["seconds"])
        each = record["tokens"] / theirs_n
        say(f"foresight, transformers  {theirs[-1]:6.2f} queries a minute ({each:.0f} tokens each)")
    figures = {"foresight_queries_min": statistics.median(ours)}
    if theirs:
        figures["transformers_queries_min"] = statistics.median(theirs)
        figures["foresight_vs_transformers"] = figures["foresight_queries_min"] / statistics.median(theirs)
    return figures


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--genius", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--queries", type=Path, default=ROOT / "pipelines" / "data" / "queries.jsonl")
    parser.add_argument("--only", default="decode,foresight")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--our-queries", type=int, default=24)
    parser.add_argument("--peer-queries", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "rollout.json")
    args = parser.parse_args()
    args.genius, args.model, args.queries = args.genius.resolve(), args.model.resolve(), args.queries.resolve()
    if not args.queries.is_file():
        fail(f"{args.queries}: not found; --queries takes JSON lines with question, instruction or text")
    wanted = args.only.split(",")
    unknown = set(wanted) - {"decode", "foresight"}
    if unknown:
        fail(f"there is no part {', '.join(sorted(unknown))}; there are decode and foresight")
    if args.quick:
        args.rounds = 1
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        peers = Peers(args, scratch)
        prompts = scratch / "prompts.json"
        made = peers("prompts", args.model, args.queries, 128, prompts)
        say(f"{made['prompts']} prompts of {made['shortest']} to {made['longest']} tokens")
        figures = {}
        if "decode" in wanted:
            figures.update(bench_decode(args, peers, scratch, prompts))
        if "foresight" in wanted:
            figures.update(bench_foresight(args, peers, scratch, prompts))
    say()
    for key, value in figures.items():
        sign, goal = GOALS.get(key, ("", None))
        beside = ""
        if goal is not None:
            met = value > goal if sign == ">" else value < goal
            beside = f"  goal {sign} {goal}{'' if met else ': NOT MET'}"
        say(f"{key:28} {value:10.3f}{beside}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(args.out.read_text())["figures"] if args.out.is_file() and args.only != "decode,foresight" else {}
    machine = {"processor": platform.processor() or platform.machine(), "threads": args.threads}
    record = {"machine": machine, "quick": args.quick, "figures": {**kept, **figures}}
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    say(f"written to {args.out}")


if __name__ == "__main__":
    main()
