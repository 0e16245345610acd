"""Training examples per CPU second and peak memory, beside TRL and the plain Trainer of transformers.

Everybody trains the same model (Llama architecture, random weights, LoRA r=16 on every linear layer, AdamW, float32 or,
with `--precision bf16`, mixed) on the same token ids with as many examples per optimizer step. Each runs in a process
of its own with one thread, after four examples to warm up; CPU seconds of the steps are counted. TRL's micro-batches
are 4, sorted by length, without gradient checkpointing. "trl*" (a*) is TRL with what it does on GPUs only switched on:
it drops positions without a label before the head. "ours-in-fp32" shows what `--precision bf16` itself brings.

`--group 1 --batch 128` is a step drawn at random from 40 schemas: same batch, update unchanged. 4, 8 and 16 are as many
examples of each schema, as `train.per_prefix` brings together.

    python benchmarks/training.py [--quick] [--json FILE] [--size s m] [--data sql chat none] [--group 1 4 8 16]
                                  [--precision fp32 bf16] [--peers trl* ours-in-fp32]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.types import IGNORE, Tokens

SIZES = {"s": (256, 6, 4, 2, 704, 4096), "m": (512, 8, 8, 4, 1408, 32000)}
"""Hidden size, layers, heads, key/value heads, MLP, vocabulary."""
GOALS = {("sql", 8, 16): 4.0, ("sql", 4, 16): 2.5, ("sql", 1, 128): 2.0, ("chat", 1, 16): 1.4, ("none", 1, 16): 0.97}
"""Least ratio to a*, by data, group and examples per step."""
MEMORY_GOAL = 0.8
"""Most peak memory, of a*'s, on SQL in groups."""
PEERS = ("trl", "trl*", "transformers")
OURS = ("ours", "ours-in-fp32")


def main() -> None:
    """Run what was asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small comparison, to see that it works")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--size", nargs="+", default=["s", "m"], choices=list(SIZES))
    parser.add_argument("--data", nargs="+", default=["sql", "chat", "none"], choices=["sql", "chat", "none"])
    parser.add_argument("--group", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--batch", type=int, default=16, help="examples per step")
    parser.add_argument("--steps", type=int, default=1, help="steps that are timed")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=[*PEERS, OURS[1]])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        who, size, data, group, folder = options.one
        mixed = options.precision == "bf16" and who != OURS[1]
        print(json.dumps(measure(who, size, data, int(group), options.batch, options.steps, Path(folder), mixed=mixed)))
        return
    if options.quick:
        options.data, options.group, options.batch, options.steps, options.peers = ["sql"], [4], 8, 1, ["trl*"]
    figures: list[dict[str, Any]] = []
    for size in options.size:
        for data in options.data:
            for group in options.group if data == "sql" else [1]:
                figures += compare(size, data, group, options)
                if options.json:  # kept as it comes: a whole run takes an hour
                    options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def compare(size: str, data: str, group: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One table: ours and the peers on the same examples."""
    found = {}
    for who in ("ours", *options.peers):
        with tempfile.TemporaryDirectory() as folder:
            asked = [sys.executable, "-W", "ignore", __file__, "--one", who, size, data, str(group), folder]
            asked += ["--batch", str(options.batch), "--steps", str(options.steps), "--precision", options.precision]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            out = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
        if out.returncode:
            raise SystemExit(f"{who} failed:\n{out.stderr[-2000:]}")
        found[who] = json.loads(out.stdout.strip().splitlines()[-1])
    where = f"{size}, {data}, {group} of a prefix, {options.batch} examples per step"
    where += ", bf16" if options.precision == "bf16" else ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    conditions = f"{where}; {options.steps} steps of {found['ours']['tokens']:,} tokens; {packages}; {processor()}"
    figures = []
    for who in options.peers:
        ours, theirs = found["ours"], found[who]
        ratio, memory = ours["rate"] / theirs["rate"], ours["memory_mb"] / theirs["memory_mb"]
        judged = who == "trl*" and options.precision == "fp32"
        goal = GOALS.get((data, group, options.batch)) if judged else None
        print(
            f"{where}: ours {ours['rate']:.2f}, {who} {theirs['rate']:.2f} examples per CPU second: {ratio:.2f}x"
            f" (goal {goal or '-'}); peak memory {ours['memory_mb']} and {theirs['memory_mb']} MB: {memory:.2f}x",
            flush=True,
        )
        common = {"unit": "ratio", "conditions": conditions, "ours": ours, "theirs": theirs}
        figures.append(
            {"figure": f"examples per CPU second over {who}: {where}", "value": ratio, "goal": goal, **common}
        )
        least = MEMORY_GOAL if judged and data == "sql" and group > 1 else None
        figures.append({"figure": f"peak memory to {who}'s: {where}", "value": memory, "goal": least, **common})
    return figures


def processor() -> str:
    """What the machine says of itself."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0]} x{len(named)}, one thread" if named else platform.processor()


def examples(data: str, group: int, batch: int, steps: int, vocabulary: int) -> list[Tokens]:
    """Random ids in the lengths of a text-to-SQL set (40 schemas of 300 to 1,200 tokens), of chats under one system
    prompt of 200 tokens, or of chats that share nothing; the examples of each step stand together."""
    draw = np.random.default_rng(0)
    schemas = [draw.integers(5, vocabulary, draw.integers(293, 1213)) for _ in range(40)]
    system = draw.integers(5, vocabulary, 201)
    found = []
    for _ in range(steps):
        chosen = (
            np.repeat(draw.permutation(40)[: max(1, batch // group)], group)
            if group > 1
            else draw.integers(0, 40, batch)
        )
        for schema in chosen[:batch]:
            if data == "sql":
                prompt = np.concatenate([schemas[schema], draw.integers(5, vocabulary, draw.integers(16, 82))])
                answer = draw.integers(5, vocabulary, draw.integers(16, 66))
            else:
                own = draw.integers(5, vocabulary, draw.integers(40, 170))
                prompt = np.concatenate([system if data == "chat" else draw.integers(5, vocabulary, 201), own])
                answer = draw.integers(5, vocabulary, draw.integers(60, 250))
            ids = np.concatenate([prompt, answer]).astype(np.int32)
            labels = np.where(np.arange(len(ids)) < len(prompt), IGNORE, ids).astype(np.int32)
            found.append(Tokens(str(len(found)), ids, labels))
    return found


def measure(
    who: str, size: str, data: str, group: int, batch: int, steps: int, folder: Path, *, mixed: bool
) -> dict[str, Any]:
    """Examples per CPU second and peak memory of one contestant, in this process."""
    vocabulary = SIZES[size][-1]
    tokens = examples(data, group, batch, steps, vocabulary)
    model = adapted_model(size)
    run = ours if who in OURS else peer
    seconds = run(who, model, tokens, batch, steps, folder, bf16=mixed)
    return {
        "rate": batch * steps / seconds,
        "seconds": seconds,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "tokens": sum(len(one.input_ids) for one in tokens) // steps,
    }


def adapted_model(size: str) -> Any:
    """Random weights under a fresh adapter."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tunesmith.config.schema import Lora
    from tunesmith.model.lora import add_lora

    hidden, layers, heads, kv, mlp, vocabulary = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=mlp, max_position_embeddings=4096, pad_token_id=3,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return add_lora(model, Lora(r=16, lora_alpha=16, target_modules="all-linear"))


def ours(
    who: str, model: Any, tokens: list[Tokens], batch: int, steps: int, folder: Path, *, bf16: bool = False
) -> float:
    """The steps of `tunesmith train`: planting, rows, clipping, AdamW."""
    import torch

    from tunesmith.model.decoder import plain_decoder
    from tunesmith.train.steps import plan_step

    decoder = plain_decoder(model, torch.bfloat16 if bf16 else None)
    assert decoder is not None
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    began = 0.0
    for number in range(-1, steps):
        if number == 0:
            began = time.process_time()
        shown = tokens[number * batch : (number + 1) * batch] if number >= 0 else tokens[:4]
        step = plan_step(shown, max_tokens=8192, share=True, pad_id=3)
        for row in step.rows:
            at = (row["labels"][0] != IGNORE).nonzero()[:, 0]
            place = (row["input_ids"], row["subtree_end"], row["position_ids"], at)
            (decoder.loss(*place, row["labels"][0][at]) / step.labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - began


def peer(
    who: str,
    model: Any,
    tokens: list[Tokens],
    batch: int,
    steps: int,
    folder: Path,
    now: Callable[[], float] = time.process_time,
    **settings: Any,
) -> float:
    """Seconds of TRL's or the plain trainer, in micro-batches of 4 of like length within a step."""
    import torch
    import transformers
    from datasets import Dataset

    shown = []
    for number in range(steps):
        shown += sorted(tokens[number * batch : (number + 1) * batch], key=lambda one: -len(one.input_ids))
    rows = Dataset.from_list([{"input_ids": t.input_ids.tolist(), "labels": t.labels.tolist()} for t in shown])
    clock = {}

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.setdefault("began", now())

    common: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "gradient_accumulation_steps": batch // 4,
        "max_steps": steps, "learning_rate": 1e-4, "report_to": [], "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no",
        "train_sampling_strategy": "sequential", "dataloader_pin_memory": False,
    }  # fmt: skip

    def collate(members: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(one["input_ids"]) for one in members)
        filled = {"input_ids": 3, "labels": IGNORE, "attention_mask": 0}
        return {
            name: torch.tensor([
                list(one.get(name, [1] * len(one["input_ids"]))) + [value] * (width - len(one["input_ids"]))
                for one in members
            ])
            for name, value in filled.items()
        }  # fmt: skip

    common |= settings
    first = collate(list(rows.select(range(min(4, len(rows))))))
    warm = model(**{name: tensor.to(model.device) for name, tensor in first.items()})
    warm.loss.backward()
    model.zero_grad()
    trainer: Any
    if who == "transformers":
        trainer = transformers.Trainer(
            model, transformers.TrainingArguments(**common), collate, rows, callbacks=[Clock()]
        )
    else:
        import trl
        import trl.trainer.utils as inside

        if who == "trl*":
            inside._use_triton = lambda device: True
        asked = trl.SFTConfig(**common, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
        trainer = trl.SFTTrainer(
            model,
            asked,
            data_collator=collate,
            train_dataset=rows,
            processing_class=tokenizer(),
            callbacks=[Clock()],
        )
    trainer.train()
    return now() - clock["began"]


def tokenizer() -> Any:
    """One that TRL insists on and nobody uses."""
    from tunesmith.config.schema import Model
    from tunesmith.model.load import load_tokenizer

    return load_tokenizer(Model(name="demo"))


if __name__ == "__main__":
    main()
