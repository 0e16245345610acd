"""Answers to questions about a few schemas: ours, each schema computed once, beside `model.generate` on each prompt.

The demo's base model answers 20 questions about each of 10 made schemas, greedily, to its end token or 64 tokens; both
in this process with one thread, CPU seconds, after one answer each to warm up. `sql` are prompts of about 750 tokens;
`--size m` is a model of random weights that is four times as large, where an answer always takes 64 tokens.

    python benchmarks/generation.py [--quick] [--json FILE] [--size demo m]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from preparation import processor, schema, sentence, turns
from training import SIZES

GOAL = 4.0
ANSWER = 64


def main() -> None:
    """Run what was asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 schemas, 5 questions each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--size", nargs="+", default=["demo"], choices=["demo", "m"])
    options = parser.parse_args()
    schemas, questions = (2, 5) if options.quick else (10, 20)
    figures = []
    for size in options.size:
        figures.append(compare(size, schemas, questions))
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def compare(size: str, schemas: int, questions: int) -> dict[str, Any]:
    """One line: both ways on the same prompts."""
    import torch

    torch.set_num_threads(1)
    model, tokenizer = load(size)
    prompts = ask(tokenizer, schemas, questions)
    theirs, their_seconds = one_by_one(model, tokenizer, prompts)
    ours, our_seconds = together(model, tokenizer, prompts)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    count = len(prompts)
    ratio = their_seconds / our_seconds
    length = sum(map(len, prompts)) // count
    print(
        f"{size}, {count} answers over {schemas} schemas, prompts of {length} tokens: ours {our_seconds:.1f} s, "
        f"one by one {their_seconds:.1f} s: {ratio:.1f}x (goal {GOAL}); the same text {same} of {count}",
        flush=True,
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return {
        "figure": f"generation over model.generate one by one: {size}, {count} answers over {schemas} schemas",
        "value": ratio, "unit": "ratio", "goal": GOAL,
        "conditions": f"CPU seconds, one thread, float32, greedy, up to {ANSWER} tokens; {packages}; {processor()}",
        "ours": our_seconds, "theirs": their_seconds, "same_text": same, "answers": count, "prompt_tokens": length,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def load(size: str) -> tuple[Any, Any]:
    """The demo's base, or random weights of the size."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tunesmith.config.schema import Model
    from tunesmith.model.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(Model(name="demo"))
    if size == "demo":
        return load_model(Model(name="demo")).eval(), tokenizer
    hidden, layers, heads, kv, mlp, _ = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=mlp, max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), tokenizer


def ask(tokenizer: Any, schemas: int, questions: int) -> list[list[int]]:
    """Prompts in random order."""
    from tunesmith.data.render import Renderer
    from tunesmith.types import Message

    draw, renderer = random.Random(0), Renderer(tokenizer)
    prompts = []
    for _ in range(schemas):
        shown = schema(draw)
        for _ in range(questions):
            said = turns(("system", shown), ("user", sentence(draw, draw.randint(6, 16)) + "?"))
            prompts.append(renderer.prompt_ids([Message(one["role"], one["content"]) for one in said]))  # type: ignore[arg-type]
    draw.shuffle(prompts)
    return prompts


def one_by_one(model: Any, tokenizer: Any, prompts: list[list[int]]) -> tuple[list[str], float]:
    """The texts of `model.generate` and its seconds."""
    import torch
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=ANSWER, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )

    def answer(prompt: list[int]) -> str:
        ids = torch.tensor([prompt])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        return str(tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True))

    answer(prompts[0])
    began = time.process_time()
    return [answer(prompt) for prompt in prompts], time.process_time() - began


def together(model: Any, tokenizer: Any, prompts: list[list[int]]) -> tuple[list[str], float]:
    """Ours likewise."""
    from tunesmith.config.schema import Generate
    from tunesmith.generate import generate

    settings = Generate(max_new_tokens=ANSWER, batch_size=64)
    generate(model, tokenizer, prompts[:1], settings, {tokenizer.eos_token_id})
    began = time.process_time()
    found = generate(model, tokenizer, prompts, settings, {tokenizer.eos_token_id})
    return [one.text for one in found], time.process_time() - began


if __name__ == "__main__":
    main()
