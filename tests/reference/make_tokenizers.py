#!/usr/bin/env python3
"""Writes small tokenizers of each family, and prompts as transformers tokenises them.

    make_tokenizers.py [FIXTURES_FOLDER]

Each tokenizer is trained here on a few sentences. A prompt is rendered and
encoded by transformers' `apply_chat_template`. Where a message holds the text of
a special token, that text is to stay text: such prompts are encoded by a copy of
the tokenizer whose special tokens are written otherwise (`OTHER`), with a
template that writes those; so the message's text is nothing special to it.
"""

import json
import sys
import tempfile
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent
FIXTURES = Path(sys.argv[1]) if len(sys.argv) == 2 else HERE / "fixtures"
CORPUS = [
    "Hello there, how are you today? The answer is here.",
    "The reasoning steps are:\n\nFirst, we add the numbers. Then we have the answer.",
    "system: Be brief.\nuser: What is one and one?\nassistant: It is two.",
    "It's a small world; they don't know what we'll see there.",
]
SPECIALS = ["<unk>", "<s>", "</s>"]
OTHER = {"<s>": "\u27e6bos\u27e7", "</s>": "\u27e6eos\u27e7", "<mid>": "\u27e6mid\u27e7"}
TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{{ eos_token }}"
    "{% endfor %}{{ bos_token + 'assistant:\\n' }}"
)
PLAIN = ["Hello there", " leading blank", "", "two  blanks\n\nand lines\n", "日本 é 😀", "What is 1+1?", "▁under"]
TRICKY = ["a</s>b", "</s>", " </s> x", "x <s>\n</s></s> y", "<s></s><unk>", "They'll </s>see"]
PREFIXES = ["The reasoning steps are:\n\n", " The answer", "\n\nFirst", "Hello", "é</s>"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def special(text, **flags):
    return AddedToken(text, special=True, **{"normalized": False, **flags})


def sentencepiece(normalizer, pre_tokenizer):
    """BPE with bytes for what it lacks, as Llama 2 and Mistral have it."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = SPECIALS + [f"<0x{b:02X}>" for b in range(256)] + list(model["vocab"])
    vocab = {name: i for i, name in enumerate(names)}
    merges = [tuple(m) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([special(t) for t in SPECIALS])
    add_bos(tokenizer)
    return tokenizer


def add_bos(tokenizer):
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)]
    )


def byte_level(pre_tokenizer, normalizer=None, tokens=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if ignore_merges:
        model = json.loads(tokenizer.to_str())["model"]
        merges = [tuple(m) for m in model["merges"]]
        tokenizer.model = models.BPE(model["vocab"], merges, ignore_merges=True)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    for token in tokens or [special(t) for t in SPECIALS]:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    add_bos(tokenizer)
    return tokenizer


def unigram():
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    vocab = [tuple(p) for p in json.loads(trained.to_str())["model"]["vocab"]]
    vocab += [(f"<0x{b:02X}>", -20.0) for b in range(256)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens([special(t) for t in SPECIALS])
    return tokenizer


def metaspace(scheme, split):
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=split)


def families():
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    flags = [
        special("<unk>"),
        special("<s>", rstrip=True),
        special("</s>", lstrip=True),
        special("<mid>", single_word=True),
        AddedToken("<think>", special=False, normalized=False),
        AddedToken("they", special=False, normalized=True, single_word=True),
    ]
    return {
        "prepend": sentencepiece(prepend, None),
        "metaspace_first": sentencepiece(None, metaspace("first", False)),
        "metaspace_always": sentencepiece(None, metaspace("always", True)),
        "metaspace_never": sentencepiece(None, metaspace("never", True)),
        "byte_level": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "byte_level_blank": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "llama3": byte_level(split, ignore_merges=True),
        "qwen2": byte_level(split, normalizer=normalizers.NFC()),
        "flags": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), tokens=flags),
        "unigram": unigram(),
    }


def conversations(name):
    tricky = TRICKY + (["<mid> a <mid>b", "<think>they are</think> </s> they"] if name == "flags" else [])
    plain = PLAIN + (["<think>they</think> seethey they"] if name == "flags" else [])
    for user in plain + tricky:
        yield [{"role": "user", "content": user}], user in tricky
    yield [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], False
    yield [{"role": "system", "content": "no </s> here"}, {"role": "user", "content": " Hello <s>"}], True


def load(tokenizer_json, template, tokens):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **tokens}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return transformers.AutoTokenizer.from_pretrained(folder)


def written_otherwise(tokenizer):
    """The tokenizer with other texts for its special tokens, and the ids to put back."""
    parsed = json.loads(tokenizer.to_str())
    for token in parsed["added_tokens"]:
        token["content"] = OTHER.get(token["content"], token["content"])
    # What stays special and is in a message would be one token: drop it from the tokens.
    parsed["added_tokens"] = [t for t in parsed["added_tokens"] if t["content"] != "<unk>"]
    parsed["post_processor"] = None
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    return parsed, {OTHER.get(text, text): tokenizer.token_to_id(text) for text in added if text != "<unk>"}


def main():
    folder = FIXTURES / "tokenizers"
    folder.mkdir(exist_ok=True)
    cases = []
    for name, tokenizer in families().items():
        path = folder / f"{name}.json"
        path.write_text(tokenizer.to_str(), encoding="utf-8")
        fast = load(tokenizer.to_str(), TEMPLATE, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
        other_json, back = written_otherwise(tokenizer)
        other = Tokenizer.from_str(json.dumps(other_json))
        back = {other.token_to_id(text): id for text, id in back.items()}
        for messages, tricky in conversations(name):
            text = fast.apply_chat_template(messages, tokenize=False)
            if tricky:
                named = {"<s>": OTHER["<s>"], "</s>": OTHER["</s>"]}
                rewritten = "".join(
                    f"{named['<s>']}{m['role']}: {m['content']}{named['</s>']}" for m in messages
                ) + f"{named['<s>']}assistant:\n"
                ids = [back.get(i, i) for i in other.encode(rewritten, add_special_tokens=False).ids]
            else:
                ids = fast.apply_chat_template(messages, return_dict=False)
            special_ids = [fast.convert_tokens_to_ids(t) for t in ("<s>", "</s>")]
            wanted = 2 * len(messages) + 1
            refused = sum(i in special_ids for i in ids) != wanted
            cases.append({"tokenizer": name, "messages": messages, "text": text, "ids": ids, "refused": refused})
    out = FIXTURES / "tokenizers.json"
    fixture = {
        "made_with": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__},
        "template": TEMPLATE,
        "prefixes": PREFIXES,
        "cases": cases,
    }
    out.write_text(json.dumps(fixture, ensure_ascii=True) + "\n", encoding="utf-8")
    print(f"{len(cases)} prompts, {sum(c['refused'] for c in cases)} refused")


if __name__ == "__main__":
    main()
