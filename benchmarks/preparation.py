"""Data preparation beside TRL's: a JSON-lines file on disk to rows that are ready to train on.

Both read the same conversations through the same tokenizer and chat template, in a process of their own with one
thread; CPU seconds are counted, imports excepted. TRL prepares prompt and completion as its trainer does when it is
made, with the loss on the completion; ours also proves spans, drops duplicates, splits by hash and keeps the ledger.
Ours is run a second time as it is with a model from elsewhere, whose chat template is rendered in a guarded child.

    sql     40 schemas of about 770 tokens in the system message, a question and a query: long shared prefixes
    chat    one system prompt, one turn
    none    two turns, nothing shared

    python benchmarks/preparation.py [--quick] [--json FILE] [--data sql chat none] [--rows 2000 20000 200000]
        [--rounds 3]
    python benchmarks/preparation.py --memory      peak memory of files of 50, 200 and 400 MB
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

import tunesmith

GOALS = {"sql": 10.0, "chat": 2.5, "none": 2.5}
"""Least ratio to TRL's, by data."""
_TOKENIZER = Path(tunesmith.__file__).parent / "demo_base" / "tokenizer.json"


WORDS = [
    word
    for word in json.loads(_TOKENIZER.read_text(encoding="utf-8"))["model"]["vocab"]
    if word.isascii() and word.isalpha() and len(word) > 3
]
"""Words of the tokenizer's own vocabulary: a token each, and one for the space before it."""
_OFTEN = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(WORDS))))
"""Drawn as often as words of a language are (Zipf)."""


def main() -> None:
    """Run what was asked for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 rows of each, to see that it works")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--rows", nargs="+", type=int, default=[2_000, 20_000, 200_000])
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run, in turn; the median is told")
    parser.add_argument("--memory", action="store_true", help="peak memory by size of the file, instead")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        who, file, folder = options.one
        print(json.dumps(measure(who, Path(file), Path(folder))))
        return
    if options.quick:
        options.rows, options.rounds = [2_000], 1
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            sizes = [5, 20] if options.quick else [50, 200, 400]
            figures = [memory(size, Path(folder)) for size in sizes]
        for rows in [] if options.memory else options.rows:
            for data in options.data:
                figures.append(compare(data, rows, Path(folder), options.rounds))
                if options.json:
                    options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def compare(data: str, rows: int, folder: Path, rounds: int) -> dict[str, Any]:
    """Ours and TRL's on the same file, one after the other, `rounds` times."""
    file = folder / f"{data}-{rows}.jsonl"
    size = write(file, data, rows)
    taken = [{who: alone(who, file, folder) for who in ("ours", "guarded", "trl")} for _ in range(rounds)]
    file.unlink()
    found = {
        who: taken[0][who] | {"seconds": statistics.median(turn[who]["seconds"] for turn in taken)} for who in taken[0]
    }
    pairs = sorted(turn["trl"]["seconds"] / turn["ours"]["seconds"] for turn in taken)
    ratio, guarded = (found["trl"]["seconds"] / found[who]["seconds"] for who in ("ours", "guarded"))
    goal = GOALS[data] if rows > 2_000 or data != "sql" else None
    print(
        f"{data}, {rows:,} rows ({size / 1e6:,.0f} MB, {found['ours']['tokens'] / rows:,.0f} tokens each): ours "
        f"{found['ours']['seconds']:.1f} s, TRL {found['trl']['seconds']:.1f} s: {ratio:.1f}x (goal {goal or '-'}); "
        f"with a guarded template {found['guarded']['seconds']:.1f} s: {guarded:.1f}x; "
        f"{rounds} rounds, {pairs[0]:.1f}x to {pairs[-1]:.1f}x; "
        f"peak memory {found['ours']['memory_mb']} and {found['trl']['memory_mb']} MB",
        flush=True,
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("trl", "transformers", "tokenizers", "datasets"))
    return {
        "figure": f"data preparation over TRL: {data}, {rows:,} rows",
        "value": ratio,
        "unit": "ratio",
        "goal": goal,
        "conditions": f"CPU seconds, one thread, median of {rounds}; {packages}; {processor()}",
        **found,
    }


def memory(megabytes: int, folder: Path) -> dict[str, Any]:
    """Peak memory of ours over a file of that size."""
    file = folder / "large.jsonl"
    rows = megabytes * 1_000_000 // 2_870
    size = write(file, "none", rows)
    found = alone("ours", file, folder)
    print(
        f"{size / 1e6:,.0f} MB, {rows:,} rows: peak memory {found['memory_mb']} MB, {found['seconds']:.0f} s",
        flush=True,
    )
    return {
        "figure": f"peak memory of preparing {megabytes} MB", "value": found["memory_mb"], "unit": "MB", "goal": None,
        "conditions": f"{rows:,} rows without a shared prefix; {processor()}", **found,
    }  # fmt: skip


def alone(who: str, file: Path, folder: Path) -> dict[str, Any]:
    """One contestant in a process of its own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        asked = [sys.executable, "-W", "ignore", __file__, "--one", who, str(file), scratch]
        out = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    if out.returncode:
        raise SystemExit(f"{who} failed:\n{out.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(out.stdout.strip().splitlines()[-1])
    return found


def measure(who: str, file: Path, folder: Path) -> dict[str, Any]:
    """CPU seconds, this process's and its children's, and peak memory of one contestant."""
    prepare = trl(file, folder) if who == "trl" else ours(file, folder, guarded=who == "guarded")
    began = spent()
    tokens = prepare()
    return {
        "seconds": spent() - began,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "tokens": tokens,
    }


def spent() -> float:
    """CPU seconds so far, with those of children, gone or running."""
    running = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + gone.ru_utime + gone.ru_stime + sum(one.user + one.system for one in running)


def ours(file: Path, folder: Path, guarded: bool = False) -> Any:
    """What `tunesmith run` does before it trains."""
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.prepare import prepare_dataset
    from tunesmith.model.load import load_tokenizer
    from tunesmith.tasks import get_task

    config = RunConfig.model_validate({
        "task": {"name": "chat"}, "model": {"name": "demo"},
        "data": {"train": str(file), "validation_share": 0.02, "max_length": 4096},
    })  # fmt: skip
    tokenizer = load_tokenizer(config.model)
    if guarded:
        tokenizer.chat_template += "{#- not the text that ships with the package -#}"
    task = get_task(config)

    def prepare() -> int:
        prepared = prepare_dataset(config, task, tokenizer, cache_dir=folder)
        return int(prepared.train.lengths.sum() + prepared.validation.lengths.sum())

    return prepare


def trl(file: Path, folder: Path) -> Any:
    """What TRL's trainer does when it is made."""
    import datasets
    import torch
    import trl
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tunesmith.config.schema import Model
    from tunesmith.model.load import load_tokenizer

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(Model(name="demo"))
    size = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    model = AutoModelForCausalLM.from_config(size, dtype=torch.float32)
    settings = trl.SFTConfig(
        output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, max_length=4096, completion_only_loss=True
    )

    def prepare() -> int:
        rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder))
        trainer = trl.SFTTrainer(model, settings, train_dataset=rows, processing_class=tokenizer)
        return sum(map(len, trainer.train_dataset.with_format("numpy")[: 10**9]["input_ids"]))

    return prepare


def write(file: Path, data: str, rows: int) -> int:
    """Made conversations as JSON lines; returns bytes. The same every time."""
    draw = random.Random(f"{data} {rows}")
    with file.open("w", encoding="utf-8") as out:
        for messages in conversations(draw, data, rows):
            out.write(json.dumps({"prompt": messages[:-1], "completion": messages[-1:]}) + "\n")
    return file.stat().st_size


def conversations(draw: random.Random, data: str, rows: int) -> Iterator[list[dict[str, str]]]:
    """Random words in the shapes of the three kinds."""
    schemas = [schema(draw) for _ in range(40)]
    system = sentence(draw, 150)
    for _ in range(rows):
        if data == "sql":
            question, query = sentence(draw, draw.randint(10, 40)) + "?", select(draw)
            yield turns(("system", draw.choice(schemas)), ("user", question), ("assistant", query))
        elif data == "chat":
            asked, said = sentence(draw, draw.randint(20, 80)), sentence(draw, draw.randint(40, 160))
            yield turns(("system", system), ("user", asked), ("assistant", said))
        else:
            yield turns(
                ("user", sentence(draw, draw.randint(40, 120))), ("assistant", sentence(draw, draw.randint(60, 180))),
                ("user", sentence(draw, draw.randint(10, 60))), ("assistant", sentence(draw, draw.randint(60, 180))),
            )  # fmt: skip


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    """Messages of roles and contents."""
    return [{"role": role, "content": content} for role, content in said]


def sentence(draw: random.Random, words: int) -> str:
    """Some words and a number."""
    return " ".join(draw.choices(WORDS, cum_weights=_OFTEN, k=words)) + f" {draw.randint(0, 99_999)}"


def select(draw: random.Random) -> str:
    """A query of random names."""
    a, b, c, d = draw.choices(WORDS[:500], k=4)
    return f"SELECT {a}, count(*) FROM {b} WHERE {c} > {draw.randint(0, 9_999)} GROUP BY {a} ORDER BY {d} DESC;"


def schema(draw: random.Random) -> str:
    """CREATE TABLE statements of about 770 tokens."""
    tables = []
    for at in range(draw.randint(5, 14)):
        columns = ",\n".join(
            f"  {draw.choice(WORDS[:500])}_{n} {draw.choice(('text', 'integer', 'date'))}" for n in range(9)
        )
        tables.append(f"CREATE TABLE {draw.choice(WORDS[:500])}_{at} (\n{columns}\n);")
    return "You are a PostgreSQL expert. Answer with one query.\n\n" + "\n".join(tables)


def processor() -> str:
    """What the machine says of itself."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0]} x{len(named)}" if named else platform.processor()


if __name__ == "__main__":
    main()
