"""Time to equal held-out loss: steps of the same batch against grouped steps (`train.per_prefix`), with the product.

The demo's base learns made-up questions about 40 made schemas, 32 examples per step, every example once: LoRA r=16,
AdamW, one thread. Three ways on the same examples:

    alone       every example computed whole: the update of `shuffled`, so only the seconds of a step are measured
    shuffled    `per_prefix: 1`, what happens to meet in a step is shared: the default
    grouped     `per_prefix: 4`, 8 schemas in a step

Held-out loss is that of two more questions about each schema, looked at every few steps and not counted in seconds.
Seconds to the same loss are read between two looks, at the larger of both last losses, which both ways reach.

    python benchmarks/grouped.py [--quick] [--json FILE] [--seeds 1 2]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from preparation import WORDS, processor, turns
from tunesmith.types import IGNORE, Example, Message, Tokens

BATCH = 32
WAYS = {"shuffled": 1, "grouped": 4}
"""`train.per_prefix` of each."""
Curve = list[tuple[int, float, float]]
"""(steps, CPU seconds of them, held-out loss) of every look."""


def main() -> None:
    """Run what was asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 steps, to see that it works")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    options = parser.parse_args()
    steps, every = (4, 2) if options.quick else (30, 5)
    figures: list[dict[str, Any]] = []
    for seed in options.seeds:
        figures += compare(seed, steps, every)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def compare(seed: int, steps: int, every: int) -> list[dict[str, Any]]:
    """Both curves of a seed and what they come to."""
    import torch

    torch.set_num_threads(1)
    tokens, held = rows(seed, steps * BATCH // 40)
    found = {way: train(tokens, held, steps, every, seed, per_prefix) for way, per_prefix in WAYS.items()}
    alone = train(tokens, [], 2, 2, seed, 1, share=False)[-1][1] / 2
    goal = max(curve[-1][2] for curve in found.values())
    seconds = {way: reached(curve, goal) for way, curve in found.items()}
    for (at, _, shuffled), (_, _, grouped) in zip(found["shuffled"], found["grouped"], strict=True):
        print(f"seed {seed}, step {at}: held-out loss shuffled {shuffled:.4f}, grouped {grouped:.4f}", flush=True)
    rates = {way: curve[-1][1] / curve[-1][0] for way, curve in found.items()}
    print(
        f"seed {seed}: CPU seconds per step alone {alone:.2f}, shuffled {rates['shuffled']:.2f}, grouped "
        f"{rates['grouped']:.2f}; to a held-out loss of {goal:.4f}: shuffled {seconds['shuffled']:.0f} s, grouped "
        f"{seconds['grouped']:.0f} s: {seconds['shuffled'] / seconds['grouped']:.2f}x",
        flush=True,
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    common = {
        "conditions": f"seed {seed}, {steps} steps of {BATCH} examples, 40 schemas; one thread, float32; {packages}; "
        f"{processor()}",
        "curves": found, "alone_seconds_per_step": alone,
    }  # fmt: skip
    last = {way: curve[-1][2] for way, curve in found.items()}
    return [
        {"figure": "time to equal held-out loss, shuffled over grouped", "value": seconds["shuffled"]
         / seconds["grouped"], "unit": "ratio", "goal": None, **common},
        {"figure": "held-out loss after equal steps, grouped over shuffled", "value": last["grouped"]
         / last["shuffled"], "unit": "ratio", "goal": None, **common},
    ]  # fmt: skip


def reached(curve: Curve, loss: float) -> float:
    """CPU seconds until the held-out loss was first as low, between two looks by a straight line."""
    for (_, before, above), (_, after, below) in pairwise(curve):
        if below <= loss:
            return before + (after - before) * (above - loss) / max(above - below, 1e-9)
    return curve[-1][1]


def train(
    tokens: list[Tokens], held: list[Tokens], steps: int, every: int, seed: int, per_prefix: int, share: bool = True
) -> Curve:
    """The curve of one way: the product's order, rows and fused step."""
    import torch

    from tunesmith.config.schema import Lora, Model
    from tunesmith.model.decoder import plain_decoder
    from tunesmith.model.load import load_model
    from tunesmith.model.lora import add_lora
    from tunesmith.train.steps import Steps, plan_step

    torch.manual_seed(seed)
    lora = Lora(r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    model = add_lora(load_model(Model(name="demo")), lora)
    decoder = plain_decoder(model)
    assert decoder is not None
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    order = Steps(tokens, BATCH, steps, seed, per_prefix=per_prefix, max_tokens=8192, share=share, pad_id=3)

    def loss_of(row: dict[str, Any]) -> Any:
        at = (row["labels"][0] != IGNORE).nonzero()[:, 0]
        return decoder.loss(row["input_ids"], row["subtree_end"], row["position_ids"], at, row["labels"][0][at])

    def look() -> float:
        if not held:
            return float("nan")
        shown = plan_step(held, max_tokens=8192, share=True, pad_id=3)
        with torch.no_grad():
            return float(sum(float(loss_of(row)) for row in shown.rows) / shown.labels)

    curve, spent = [(0, 0.0, look())], 0.0
    for number in range(steps):
        began = time.process_time()
        step = order[number]
        for row in step.rows:
            (loss_of(row) / step.labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        spent += time.process_time() - began
        if (number + 1) % every == 0 or number + 1 == steps:
            curve.append((number + 1, spent, look()))
    return curve


def rows(seed: int, of_each: int) -> tuple[list[Tokens], list[Tokens]]:
    """Examples to learn, so many of each of 40 schemas, and two more of each that are held out."""
    from tunesmith.config.schema import Model
    from tunesmith.data.render import Rendered, Renderer
    from tunesmith.model.load import load_tokenizer

    draw, renderer = random.Random(f"grouped {seed}"), Renderer(load_tokenizer(Model(name="demo")))
    made: tuple[list[Example], list[Example]] = [], []
    for _ in range(40):
        tables = {table: draw.sample(WORDS[:2000], 8) for table in draw.sample(WORDS[:2000], 4)}
        text = "Answer with one PostgreSQL query.\n\n" + "\n".join(
            f"CREATE TABLE {table} (" + ", ".join(f"{column} integer" for column in columns) + ");"
            for table, columns in tables.items()
        )
        for number in range(of_each + 2):
            table = draw.choice(list(tables))
            said = turns(("system", text), *zip(("user", "assistant"), asked(draw, table, tables[table]), strict=True))
            messages = tuple(Message(t["role"], t["content"], t["role"] == "assistant") for t in said)  # type: ignore[arg-type]
            into = made[number >= of_each]
            into.append(Example(f"{len(into)}", messages))
    tokens = [[one.tokens for one in renderer.render_many(part) if isinstance(one, Rendered)] for part in made]
    return tokens[0], tokens[1]


def asked(draw: random.Random, table: str, columns: list[str]) -> tuple[str, str]:
    """A question and its query."""
    a, b = draw.sample(columns, 2)
    n = draw.randint(2, 99)
    return draw.choice([
        (f"How many {table} have {a} above {n}?", f"SELECT count(*) FROM {table} WHERE {a} > {n};"),
        (f"Show the {a} of {table}, largest {b} first.", f"SELECT {a} FROM {table} ORDER BY {b} DESC;"),
        (f"What is the average {a} of {table} for each {b}?", f"SELECT {b}, avg({a}) FROM {table} GROUP BY {b};"),
        (f"Which {n} {table} have the smallest {a}?", f"SELECT * FROM {table} ORDER BY {a} LIMIT {n};"),
        (f"The total {a} of {table} with {b} {n}", f"SELECT sum({a}) FROM {table} WHERE {b} = {n};"),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
