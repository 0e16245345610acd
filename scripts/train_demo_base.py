"""Pretrain the small base model that ships with Tunesmith, from nothing but what this script makes up.

    python scripts/train_demo_base.py tokenizer --out src/tunesmith/demo_base
    python scripts/train_demo_base.py train --out src/tunesmith/demo_base --work /somewhere --minutes 75
    python scripts/train_demo_base.py finish --out src/tunesmith/demo_base --work /somewhere   (from a checkpoint)

    python scripts/train_demo_base.py train --start src/tunesmith/demo_base --rate 0.15 --first 600 ...

The last line goes on from an earlier model's weights: gently, because a rate at its first height undoes what its fall
had gained, and with rows that no training before it read.

Training resumes from the last checkpoint in the work folder. The learning rate is a function of the time trained, so
`--minutes` is what it takes, at whatever speed.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from demo_base import rows as make
from demo_base import shipped, tokens
from demo_base.network import Network, Shape, tree_mask
from demo_base.optimizer import Optimizer

SHAPE = Shape(num_hidden_layers=7, num_key_value_heads=2, intermediate_size=704)
BATCH = {make.SHORT: 16, make.LONG: 8}
"""Rows in a step, by row length: 8,192 tokens."""
LABELS = 4096
"""Positions with a loss in a step: all answers, then other positions drawn at random up to this many."""
TEXT_SHARE, TEXT_WEIGHT = 0.15, 0.3
MUON, ADAM = 0.02, 3e-3
WARMUP, DECAY = 0.015, 0.45
"""Shares of the time spent warming up and decaying to zero."""
FIELDS = ("ids", "labels", "sorts", "position", "end")
SHARD_ROWS = 1000
HELD_OUT_SEED = 10_000_019


def load_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def make_tokenizer(folder: Path) -> None:
    rng = random.Random(7)
    corpus: list[str] = []
    questions: list[str] = []
    for _ in range(9000):
        db = make.database(rng, rich=0.8)
        some = make.pairs(db, rng, 6)
        questions += [pair.question for pair in some]
        corpus += [pair.question for pair in some] + [pair.sql for pair in some]
        corpus.append(make.prefix_text(db, rng))
    for _ in range(6000):
        corpus += [text for text, _ in make.turn_texts(make.conversation(rng))]
    tokens.build(corpus, questions, folder)


def fill_shards(tokenizer_folder: Path, shards: Path, first: int, parent: int, ahead: int = 12) -> None:
    """The worker: writes rows-NNNNN.npz from `first` on, never more than `ahead` that the trainer has not used."""
    tokenizer = load_tokenizer(tokenizer_folder)
    index = first
    while os.getppid() == parent:
        if (shards / f"rows-{index:05d}.npz").exists():
            index += 1
            continue
        oldest = min((int(path.stem.removeprefix("rows-")) for path in shards.glob("rows-*.npz")), default=index)
        if index - oldest >= ahead:
            time.sleep(2)
            continue
        stacks: dict[int, list[np.ndarray[Any, Any]]] = {length: [] for length in BATCH}
        for row, _ in zip(make.rows(tokenizer, 1000 + index), range(SHARD_ROWS), strict=False):
            stacks[len(row["ids"])].append(np.stack([row[name] for name in FIELDS]))
        part = shards / f"part-{index:05d}.npz"
        np.savez(part, **{str(length): np.stack(stack) for length, stack in stacks.items() if stack})
        part.rename(shards / f"rows-{index:05d}.npz")
        index += 1


class Batches:
    """Batches of one row length each, from the shards in order; keeps a worker making them."""

    def __init__(self, tokenizer_folder: Path, shards: Path, first: int) -> None:
        self.tokenizer_folder, self.shards, self.next = tokenizer_folder, shards, first
        self.pool: dict[int, list[np.ndarray[Any, Any]]] = {length: [] for length in BATCH}
        self.rng = np.random.default_rng(first)
        self.worker: multiprocessing.process.BaseProcess | None = None

    def draw(self) -> dict[str, Tensor]:
        while True:
            ready = np.array([len(self.pool[length]) // BATCH[length] for length in BATCH])
            if ready.sum() >= 8:  # enough left that the two lengths stay mixed
                length = list(BATCH)[self.rng.choice(len(ready), p=ready / ready.sum())]
                chosen, self.pool[length] = self.pool[length][: BATCH[length]], self.pool[length][BATCH[length] :]
                return self.batch(np.stack(chosen, axis=1).astype(np.int64))
            path = self.shards / f"rows-{self.next:05d}.npz"
            while not path.exists():
                self.start_worker()
                time.sleep(0.2)
            with np.load(path) as found:
                for name in found.files:
                    self.pool[int(name)] += list(found[name])
            path.unlink()
            self.next += 1
            self.start_worker()

    def start_worker(self) -> None:
        if self.worker is None or not self.worker.is_alive():
            arguments = (self.tokenizer_folder, self.shards, self.next, os.getpid())
            context = multiprocessing.get_context("spawn")
            self.worker = context.Process(target=fill_shards, args=arguments, daemon=True)
            self.worker.start()

    def batch(self, stack: np.ndarray[Any, Any]) -> dict[str, Tensor]:
        fields = dict(zip(FIELDS, stack, strict=True))
        sorts = fields.pop("sorts").reshape(-1)
        answers, texts = np.flatnonzero(sorts == make.ANSWER), np.flatnonzero(sorts == make.TEXT)
        if len(answers) > LABELS:
            answers = self.rng.choice(answers, LABELS, replace=False)
        count = min(int(TEXT_SHARE * len(texts)), LABELS - len(answers))
        texts = self.rng.choice(texts, count, replace=False)
        where, weight = np.zeros(LABELS, np.int64), np.zeros(LABELS, np.float32)
        where[: len(answers)], weight[: len(answers)] = answers, 1.0
        both = len(answers) + count
        where[len(answers) : both], weight[len(answers) : both] = texts, TEXT_WEIGHT
        targets = fields.pop("labels").reshape(-1)[where]
        return {
            **{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in fields.items()},
            "where": torch.from_numpy(where),
            "targets": torch.from_numpy(targets),
            "weight": torch.from_numpy(weight),
        }


def loss_of(network: Network, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted mean loss, sum over answers, sum over texts)."""
    hidden = network(batch["ids"], batch["position"], tree_mask(batch["end"]))
    logits = network.head(hidden.flatten(0, 1)[batch["where"]]).float()
    losses = F.cross_entropy(logits, batch["targets"], reduction="none")
    weight = batch["weight"]
    answers, texts = (losses * (weight == 1.0)).sum(), (losses * (weight == TEXT_WEIGHT)).sum()
    return (losses * weight).sum() / weight.sum(), answers, texts


def rate(progress: float, peak: float) -> float:
    """Learning-rate factor at a share of the time: warm up, stay, fall linearly to zero."""
    return peak * max(0.0, min(1.0, (progress + 1e-4) / WARMUP, (1.0 - progress) / DECAY))


@torch.no_grad()
def teacher_forced(network: Network, held_out: list[make.Row]) -> tuple[dict[str, float], Counter[str], Counter[str]]:
    """Loss and accuracy per answer token, whole answers right; (figures, right by kind, asked by kind)."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    total = loss = hits = 0.0
    for start in range(0, len(held_out), 8):
        group = held_out[start : start + 8]
        ids, position, end = (
            torch.from_numpy(np.stack([row[name] for row in group]).astype(np.int64))
            for name in ("ids", "position", "end")
        )
        hidden = network(ids, position, tree_mask(end))
        for row, states in zip(group, hidden, strict=True):
            at = np.flatnonzero(row["sorts"] == make.ANSWER)
            labels = torch.from_numpy(row["labels"][at].astype(np.int64))
            logits = network.head(states[torch.from_numpy(at)]).float()
            hit = (logits.argmax(-1) == labels).numpy()
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            total, hits = total + len(at), hits + float(hit.sum())
            ends = np.flatnonzero(row["labels"][at] == 2) + 1
            for kind, part in zip(row["kinds"], np.split(hit, ends[:-1]), strict=True):
                asked[kind] += 1
                right[kind] += bool(part.all())
    figures = {
        "loss": loss / total,
        "token_accuracy": hits / total,
        "whole_answer": right.total() / max(1, asked.total()),
        "answers": float(asked.total()),
    }
    return figures, right, asked


def held_out_rows(tokenizer: Any, count: int) -> list[make.Row]:
    """SQL rows of the short length about schemas that training never draws."""
    found = []
    for row in make.rows(tokenizer, HELD_OUT_SEED):
        if row["kinds"] and len(row["ids"]) == make.SHORT:
            found.append(row)
        if len(found) == count:
            return found
    raise AssertionError("rows never end")


def save(work: Path, optimizer: Optimizer, meta: dict[str, Any]) -> None:
    """One checkpoint, replaced atomically."""
    from safetensors.torch import save_file

    part = work / "checkpoint.part"
    save_file(optimizer.state(), part, metadata={"meta": json.dumps(meta)})
    os.replace(part, work / "checkpoint.safetensors")


def restore(work: Path, optimizer: Optimizer) -> dict[str, Any]:
    """The meta of the checkpoint after loading it; empty where there is none."""
    from safetensors import safe_open

    path = work / "checkpoint.safetensors"
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        meta: dict[str, Any] = json.loads(file.metadata()["meta"])
        optimizer.load({key: file.get_tensor(key) for key in file.keys()}, meta["steps"])  # noqa: SIM118
    return meta


def fresh_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = Network(SHAPE)
    cos, sin = network.cos.clone(), network.sin.clone()
    network.to(torch.bfloat16)
    network.cos, network.sin = cos, sin
    return network


def train(out: Path, work: Path, minutes: float, start: Path | None, peak: float, first: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(out)
    network = fresh_network()
    if start is not None:
        shipped.read(start, network)
    optimizer = Optimizer(network, MUON, ADAM)
    meta = restore(work, optimizer) or {"steps": 0, "tokens": 0, "seconds": 0.0, "shard": first, "log": []}
    shards = work / "shards"
    shards.mkdir(exist_ok=True)
    batches = Batches(out, shards, meta["shard"])
    batches.start_worker()
    held_out = held_out_rows(tokenizer, 48)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters, resuming at {meta['steps']} steps", flush=True)
    compiled = torch.compile(loss_of, dynamic=False)
    for length in BATCH:  # compile both shapes before the clock starts
        blank = np.zeros((len(FIELDS), BATCH[length], length), np.int64)
        blank[FIELDS.index("end")] = np.arange(length)
        blank[FIELDS.index("sorts")] = make.ANSWER
        compiled(network, batches.batch(blank))[0].backward()
        network.zero_grad()
    budget, begun, before = minutes * 60, time.monotonic(), meta["seconds"]
    window = {"time": begun, "tokens": meta["tokens"], "answers": 0.0, "answer": 0.0, "texts": 0.0, "text": 0.0}
    last_save, last_probe = begun, begun
    while (progress := (before + time.monotonic() - begun) / budget) < 1.0:
        batch = batches.draw()
        loss, answer, text = compiled(network, batch)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {optimizer.steps}")
        loss.backward()
        optimizer.step(rate(progress, peak))
        meta["tokens"] += batch["ids"].numel()
        window["answer"] += answer.item()
        window["text"] += text.item()
        window["answers"] += float((batch["weight"] == 1.0).sum())
        window["texts"] += float((batch["weight"] == TEXT_WEIGHT).sum())
        now = time.monotonic()
        meta |= {"steps": optimizer.steps, "seconds": before + now - begun, "shard": batches.next}
        if optimizer.steps % 25 == 0:
            speed = (meta["tokens"] - window["tokens"]) / (now - window["time"])
            print(
                f"step {optimizer.steps} tokens {meta['tokens'] / 1e6:.2f}M "
                f"answer {window['answer'] / window['answers']:.4f} "
                f"text {window['text'] / window['texts']:.4f} rate {rate(progress, peak):.3f} tok/s {speed:.0f} "
                f"labels {window['answers'] / 25:.0f}+{window['texts'] / 25:.0f} {meta['seconds'] / 60:.1f} min",
                flush=True,
            )
            window = {"time": now, "tokens": meta["tokens"], "answers": 0.0, "answer": 0.0, "texts": 0.0, "text": 0.0}
        if now - last_probe > 300:
            figures, _, _ = teacher_forced(network, held_out)
            line = {"tokens": meta["tokens"], "minutes": round(meta["seconds"] / 60, 1), **figures}
            meta["log"].append(line)
            print("held out", json.dumps(line), flush=True)
            last_probe = now
        if now - last_save > 180:
            save(work, optimizer, meta)
            last_save = now
    save(work, optimizer, meta)
    if batches.worker is not None:
        batches.worker.terminate()
    finish(out, work, start)


def finish(out: Path, work: Path, start: Path | None = None) -> None:
    """Write the shipped folder from the last checkpoint, with what it can do in the card."""
    network = fresh_network()
    optimizer = Optimizer(network, MUON, ADAM)
    meta = restore(work, optimizer)
    if not meta:
        sys.exit(f"no checkpoint in {work}")
    tokenizer = load_tokenizer(out)
    figures, right, asked = teacher_forced(network, held_out_rows(tokenizer, 120))
    shipped.write(out, network, optimizer.master, "")
    greedy, shown = greedy_exact(out, 150)
    figures["greedy_exact"] = greedy
    kinds = "\n".join(f"| {kind} | {right[kind] / n:.2f} | {n} |" for kind, n in sorted(asked.items()))
    curve = "\n".join(
        f"| {line['minutes']:.0f} | {line['tokens'] / 1e6:.1f} | {line['loss']:.3f} | {line['token_accuracy']:.3f} "
        f"| {line['whole_answer']:.3f} |"
        for line in meta["log"]
    )
    card = CARD.format(
        parameters=sum(p.numel() for p in network.parameters()),
        begun="pretrained from nothing" if start is None else "pretrained further from the one that shipped before it",
        tokens=meta["tokens"] / 1e6,
        minutes=meta["seconds"] / 60,
        steps=meta["steps"],
        kinds=kinds,
        curve=curve,
        **figures,
    )
    shipped.write(out, network, optimizer.master, card)
    print(json.dumps(figures, indent=1))
    print(kinds)
    print("\n".join(shown))


def greedy_exact(folder: Path, count: int) -> tuple[float, list[str]]:
    """Share of new questions whose greedy answer, through transformers, is the query to the letter; some of them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = random.Random(HELD_OUT_SEED + 1)
    hits, shown = 0, []
    for i in range(count):
        db = make.database(rng, rich=0.8)
        some = make.pairs(db, rng, 1)
        if not some:
            continue
        ids = tokenizer(
            f"{make.prefix_text(db, rng)}{some[0].question} [/INST]", add_special_tokens=False, return_tensors="pt"
        )
        made = model.generate(**ids, max_new_tokens=120)[0, ids["input_ids"].shape[1] :]
        answer = tokenizer.decode(made, skip_special_tokens=True).strip()
        hits += answer == some[0].sql
        if i < 12:
            shown += [f"Q {some[0].question}", f"  = {some[0].sql}", f"  > {answer}"]
    return hits / count, shown


CARD = """---
license: apache-2.0
language: [en, vi]
library_name: transformers
pipeline_tag: text-generation
---

# Tunesmith demo base

A {parameters:,}-parameter Mistral-architecture model, {begun} in {minutes:.0f} minutes on a CPU
by `scripts/train_demo_base.py`. It exists so that Tunesmith's demo runs offline and on a laptop: three minutes of LoRA
on one database make it a specialist of that database. It is not a general assistant.

## What it read

{tokens:.0f} million tokens in {steps:,} steps, all made up by the script: random database schemas, questions with their
PostgreSQL composed by `tunesmith.tasks.sql.compose`, and a tenth of word problems and short conversations in English
and Vietnamese. Nothing is scraped, and the example databases in `recipes/` were not looked at: a test finds none of
their tables and questions, and no query of theirs that names more than one table and one column, in a sample of what
the script makes.

## What it can do before tuning

On random schemas that training never drew ({answers:.0f} questions, every token predicted from the right ones before
it): loss {loss:.3f} per answer token, {token_accuracy:.3f} of tokens and {whole_answer:.3f} of whole answers right.
Written greedily, {greedy_exact:.3f} of 150 other queries are right to the letter. The questions come from the same
composer as the training questions: people's own wording is harder.

| kind of question | whole answers right | questions |
|---|---|---|
{kinds}

| minute | million tokens | loss | tokens right | whole answers right |
|---|---|---|---|---|
{curve}

## Prompt

`<s>[INST] {{system}}\\n\\n{{user}} [/INST] {{assistant}}</s>`; for SQL the system message is
`Write one PostgreSQL query.`, an empty line and the schema as `tunesmith.tasks.sql.schema.render_schema` writes it.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["tokenizer", "train", "finish"])
    parser.add_argument("--out", type=Path, required=True, help="the folder that ships")
    parser.add_argument("--work", type=Path, default=Path("build/demo_base"), help="checkpoints and rows")
    parser.add_argument("--start", type=Path, help="a shipped folder whose weights to begin with; none: at random")
    parser.add_argument("--rate", type=float, default=1.0, help="peak of the learning rates, as a share of their own")
    parser.add_argument("--first", type=int, default=0, help="number of the first thousand rows")
    parser.add_argument("--minutes", type=float, default=75.0, help="how long to train, in all")
    given = parser.parse_args()
    if given.verb == "tokenizer":
        make_tokenizer(given.out)
    elif given.verb == "train":
        train(given.out, given.work, given.minutes, given.start, given.rate, given.first)
    else:
        finish(given.out, given.work, given.start)


if __name__ == "__main__":
    main()
