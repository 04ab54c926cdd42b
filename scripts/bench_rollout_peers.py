#!/usr/bin/env python3
"""The peers' side of bench_rollout.py, run by the Python that it installed them for.

    bench_rollout_peers.py prompts MODEL QUERIES COUNT OUT
    bench_rollout_peers.py convert MODEL OUT.gguf
    bench_rollout_peers.py llamacpp GGUF PROMPTS WIDTH TOKENS THREADS
    bench_rollout_peers.py transformers MODEL PROMPTS WIDTH TOKENS THREADS
    bench_rollout_peers.py freeform MODEL PROMPTS WIDTH TOKENS THREADS
    bench_rollout_peers.py foresight MODEL PROMPTS QUERIES TOKENS THREADS

Each prints one line of JSON at its end.
"""

import json
import sys
import time
from pathlib import Path

PREFIX = "The reasoning steps are:\n\n"


def answer(**values):
    print(json.dumps(values), flush=True)


def prompts_of(path, count):
    prompts = json.loads(Path(path).read_text())["prompts"]
    return [prompts[i % len(prompts)] for i in range(count)]


def make_prompts(model, queries, count, out):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = []
    for line in Path(queries).read_text().splitlines()[: int(count)]:
        record = json.loads(line)
        text = next(record[k] for k in ("question", "instruction", "text") if k in record)
        turns = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompts.append(tokenizer(whole + PREFIX, add_special_tokens=False)["input_ids"])
    Path(out).write_text(json.dumps({"prompts": prompts}))
    lengths = sorted(map(len, prompts))
    answer(prompts=len(prompts), shortest=lengths[0], longest=lengths[-1])


def convert(model, out):
    """Hugging Face weights as BF16 GGUF, without a vocabulary: token ids are all that is decoded."""
    import gguf
    import torch
    from safetensors.torch import load_file

    config = json.loads((Path(model) / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    tensors = load_file(str(Path(model) / "model.safetensors"))
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])

    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }

    def add(name, tensor):
        if tensor.dim() == 1:
            writer.add_tensor(name, tensor.float().numpy())
            return
        bits = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
        raw = bits.view("uint8").reshape(tensor.shape[0], -1)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)

    def interleaved(tensor, of):
        """Rows of each head as llama.cpp's rotary embedding pairs them."""
        rows = tensor.view(of, 2, tensor.shape[0] // of // 2, tensor.shape[1])
        return rows.transpose(1, 2).reshape(tensor.shape)

    add("token_embd.weight", tensors["model.embed_tokens.weight"])
    add("output_norm.weight", tensors["model.norm.weight"])
    if not config.get("tie_word_embeddings"):
        add("output.weight", tensors["lm_head.weight"])
    for i in range(config["num_hidden_layers"]):
        for theirs, ours in names.items():
            tensor = tensors[f"model.layers.{i}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                tensor = interleaved(tensor, heads if ours == "attn_q" else kv_heads)
            add(f"blk.{i}.{ours}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    answer(bytes=Path(out).stat().st_size)


def llamacpp(path, prompts, width, tokens, threads):
    """Greedy, all sequences in one batch a step: what it is fastest at."""
    import ctypes

    import llama_cpp as ll
    import numpy as np

    width, tokens, threads = int(width), int(tokens), int(threads)
    prompts = prompts_of(prompts, width)
    quiet = ll.llama_log_callback(lambda *_: None)
    ll.llama_log_set(quiet, ctypes.c_void_p(0))
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(str(path).encode(), ll.llama_model_default_params())
    vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    options = ll.llama_context_default_params()
    longest = max(map(len, prompts)) + tokens
    options.n_ctx = width * ((longest + 255) // 256 * 256)
    # As many prompt tokens a call as its own micro-batch computes at once.
    options.n_batch = max(512, width, max(map(len, prompts)))
    options.n_seq_max = width
    options.n_threads = options.n_threads_batch = threads
    context = ll.llama_init_from_model(model, options)
    if not context:
        sys.exit("llama.cpp made no context")
    batch = ll.llama_batch_init(options.n_batch, 0, 1)

    def run(rows):
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if ll.llama_decode(context, batch):
            sys.exit("llama_decode failed")

    def likeliest(row):
        return int(np.ctypeslib.as_array(ll.llama_get_logits_ith(context, row), shape=(vocab,)).argmax())

    last, made = [], []

    def prefill(rows):
        run(rows)
        for i, (_, _, _, wanted) in enumerate(rows):
            if wanted:
                last.append(likeliest(i))
                made.append([last[-1]])

    start = time.perf_counter()
    rows = []
    for sequence, prompt in enumerate(prompts):
        if len(rows) + len(prompt) > options.n_batch:
            prefill(rows)
            rows = []
        rows += [(t, i, sequence, i + 1 == len(prompt)) for i, t in enumerate(prompt)]
    prefill(rows)
    prefilled = time.perf_counter()
    for step in range(tokens - 1):
        run([(last[s], len(prompts[s]) + step, s, True) for s in range(width)])
        for s in range(width):
            last[s] = likeliest(s)
            made[s].append(last[s])
    end = time.perf_counter()
    answer(
        tokens=width * tokens,
        seconds=end - start,
        prefill_seconds=prefilled - start,
        first=made[0][:16],
    )


def load_transformers(model, threads):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(threads))
    tokenizer = AutoTokenizer.from_pretrained(model)
    return torch, AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval(), tokenizer


def padded(torch, sequences, pad):
    longest = max(map(len, sequences))
    ids = torch.tensor([[pad] * (longest - len(s)) + list(s) for s in sequences])
    mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sequences])
    return ids, mask


def transformers(model, prompts, width, tokens, threads):
    torch, model, tokenizer = load_transformers(model, threads)
    tokens = int(tokens)
    ids, mask = padded(torch, prompts_of(prompts, int(width)), tokenizer.pad_token_id or 0)

    def generate(count):
        start = time.perf_counter()
        out = model.generate(
            ids, attention_mask=mask, do_sample=False, min_new_tokens=count, max_new_tokens=count
        )
        return time.perf_counter() - start, out[0, ids.shape[1] :][:16].tolist()

    with torch.no_grad():
        prefill, _ = generate(1)
        seconds, first = generate(tokens)
    answer(tokens=int(width) * tokens, seconds=seconds, prefill_seconds=prefill, first=first)


def free_form(model, prompts, width, tokens, threads):
    """A plain loop over libtorch's own kernels: one dense batch with a static cache, prompts
    padded on the left, the likeliest token. Its bits depend on the batch's shape."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    torch.set_num_threads(int(threads))
    width, tokens = int(width), int(tokens)
    config = json.loads((Path(model) / "config.json").read_text())
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    size = hidden // heads
    weights = {
        k.removeprefix("model."): v.to(torch.bfloat16)
        for k, v in load_file(str(Path(model) / "model.safetensors")).items()
    }
    head = weights.get("lm_head.weight", weights["embed_tokens.weight"])
    blocks = []
    for i in range(layers):
        w = {k.removeprefix(f"layers.{i}."): v for k, v in weights.items() if k.startswith(f"layers.{i}.")}
        qkv = torch.cat([w[f"self_attn.{n}_proj.weight"] for n in "qkv"])
        gate_up = torch.cat([w["mlp.gate_proj.weight"], w["mlp.up_proj.weight"]])
        blocks.append((w, qkv, gate_up))
    ids, mask = padded(torch, prompts_of(prompts, width), 0)
    longest = ids.shape[1]
    room = longest + tokens
    cache = torch.zeros(layers, 2, width, kv, room, size, dtype=torch.bfloat16)
    first = longest - mask.sum(1)  # where each sequence begins
    angles = config["rope_theta"] ** (-torch.arange(0, size, 2).float() / size)
    seen = (torch.arange(room)[None, :] >= first[:, None])[:, None, None, :]

    def norm(x, weight):
        y = x.float()
        y = y * (y.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).rsqrt()
        return y.to(torch.bfloat16) * weight

    def forward(ids, start):
        count = ids.shape[1]
        places = torch.arange(start, start + count)
        at = (places[None, :] - first[:, None]).clamp(min=0).float()[..., None] * angles
        cos = torch.cat([at.cos()] * 2, -1)[:, None].to(torch.bfloat16)
        sin = torch.cat([at.sin()] * 2, -1)[:, None].to(torch.bfloat16)
        end = start + count
        look = seen[..., :end] & (torch.arange(end)[None, :] <= places[:, None])
        look = look | (torch.arange(end)[None, :] == places[:, None])  # no row sees nothing
        rows = torch.zeros(look.shape, dtype=torch.bfloat16).masked_fill(~look, float("-inf"))
        rows = rows.repeat(1, 1, heads // kv, 1)

        def turn(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        x = weights["embed_tokens.weight"][ids]
        for i, (w, qkv, gate_up) in enumerate(blocks):
            y = F.linear(norm(x, w["input_layernorm.weight"]), qkv)
            y = y.view(width, count, heads + 2 * kv, size).transpose(1, 2)
            q, k, v = y.split([heads, kv, kv], 1)
            cache[i, 0, :, :, start:end] = turn(k)
            cache[i, 1, :, :, start:end] = v
            # The query heads of a key's head as so many rows: four times as fast here as enable_gqa.
            q = turn(q).reshape(width, kv, heads // kv * count, size)
            mixed = F.scaled_dot_product_attention(
                q, cache[i, 0, :, :, :end], cache[i, 1, :, :, :end], attn_mask=rows
            )
            mixed = mixed.reshape(width, heads, count, size)
            mixed = mixed.transpose(1, 2).reshape(width, count, hidden)
            x = x + F.linear(mixed, w["self_attn.o_proj.weight"])
            gate, up = F.linear(norm(x, w["post_attention_layernorm.weight"]), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w["mlp.down_proj.weight"])
        return F.linear(norm(x[:, -1:], weights["norm.weight"]), head).argmax(-1)

    with torch.no_grad():
        start = time.perf_counter()
        token = forward(ids, 0)
        prefilled = time.perf_counter()
        made = [token]
        for step in range(tokens - 1):
            token = forward(token, longest + step)
            made.append(token)
        seconds = time.perf_counter() - start
    answer(
        tokens=width * tokens,
        seconds=seconds,
        prefill_seconds=prefilled - start,
        first=torch.cat(made, 1)[0, :16].tolist(),
    )


def foresight(model, prompts, queries, tokens, threads):
    """The released code's way (paper 2.2): every beam's candidate steps by one call,
    the foresight of all candidates by another, each with its own prefill."""
    torch, model, tokenizer = load_transformers(model, threads)
    from transformers import StoppingCriteria

    beams_kept, rollouts, steps, tau, tokens = 2, 4, 4, 0.1, int(tokens)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id or 0
    texts = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    newline = torch.tensor(["\n" in t for t in texts])
    word = torch.tensor([bool(t.strip()) for t in texts])
    torch.manual_seed(1)

    class AtNewline(StoppingCriteria):
        def __init__(self, start):
            self.start = start

        def __call__(self, ids, scores, **_):
            made = ids[:, self.start :]
            return newline[made[:, -1]] & word[made].any(dim=1)

    def generate(sequences, temperature, until_newline, copies):
        """(tokens, mean log-probability) of each sample; the end token is kept, and not scored."""
        ids, mask = padded(torch, sequences, pad)
        stop = [AtNewline(ids.shape[1])] if until_newline else None
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=tokens,
            num_return_sequences=copies,
            stopping_criteria=stop,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=pad,
        )
        made = out.sequences[:, ids.shape[1] :]
        logprobs = torch.zeros(made.shape)
        for t, logits in enumerate(out.logits):
            taken = logits.gather(-1, made[:, t : t + 1]).squeeze(-1)
            logprobs[:, t] = taken - logits.logsumexp(-1)
        results = []
        for row, of_row in zip(made.tolist(), logprobs.tolist()):
            length = len(row)
            for i, token in enumerate(row):
                if token == end or (until_newline and newline[token] and word[row[: i + 1]].any()):
                    length = i + 1
                    break
            text = length - 1 if row[length - 1] == end else length
            results.append((row[:length], sum(of_row[:text]) / max(text, 1)))
        return results

    made = 0
    start = time.perf_counter()
    with torch.no_grad():
        for prompt in prompts_of(prompts, int(queries)):
            beams = [[], []]
            for _ in range(steps):
                # As on our side, so that both do the same work: what has ended rolls out
                # no more, and a candidate that its step ended is scored by that step.
                candidates, scores = [], []
                for beam in beams:
                    if beam[-1:] != [end]:
                        for step, score in generate([prompt + beam], 0.6, True, rollouts):
                            made += len(step)
                            candidates.append(beam + step)
                            scores.append(score)
                if not candidates:
                    break
                live = [i for i, c in enumerate(candidates) if c[-1] != end]
                if live:
                    futures = generate([prompt + candidates[i] for i in live], 1.0, False, 1)
                    for i, (future, score) in zip(live, futures):
                        made += len(future)
                        scores[i] = score
                drawn = torch.multinomial((torch.tensor(scores) / tau).softmax(0), beams_kept)
                beams = [candidates[i] for i in drawn.tolist()]
    seconds = time.perf_counter() - start
    answer(queries=int(queries), tokens=made, seconds=seconds)


COMMANDS = {
    "prompts": make_prompts,
    "convert": convert,
    "llamacpp": llamacpp,
    "transformers": transformers,
    "freeform": free_form,
    "foresight": foresight,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
