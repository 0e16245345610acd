"""Forecasts held against what happened: peak memory of small runs on this CPU, and seconds of runs after a probe.

Each run is trained in a process of its own that starts with nothing but the libraries, as a user's does; its peak
resident memory is held against the forecast made from its recipe and data alone.

    python benchmarks/forecast.py [--quick] [--json FILE] [--only memory|time]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

WORDS = "list the names of all clinics in the city that have more than ten rooms "
ANSWER = "select name from clinic where city = 'Lyon' "
WIDE = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 4}
LARGE = {"hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4}
QUANT = ["model.quantization.bits=4"]
# name: model (changes to the small base's config, None is the base itself), words of question, of answer, overrides
CONFIGURATIONS: dict[str, tuple[dict[str, Any] | None, int, int, list[str]]] = {
    "base, rows of 512": (None, 60, 10, ["train.max_tokens=512"]),
    "base, rows of 2048": (None, 60, 10, ["train.max_tokens=2048"]),
    "base, long answers": (None, 40, 160, ["train.max_tokens=2048"]),
    "base, rank 64 everywhere": (None, 60, 10, ["lora.r=64", "lora.target_modules=all-linear"]),
    "base, all weights": (None, 60, 10, ["lora=null"]),
    "base, recomputed": (None, 60, 10, ["train.max_tokens=4096", "train.gradient_checkpointing=true"]),
    "base, bf16": (None, 60, 10, ["train.precision=bf16", "train.max_tokens=2048"]),
    "25 M": (WIDE, 60, 10, ["train.max_tokens=1024"]),
    "25 M, recomputed": (WIDE, 60, 10, ["train.max_tokens=2048", "train.gradient_checkpointing=true"]),
    "25 M, all weights": (WIDE, 60, 10, ["lora=null", "train.max_tokens=512"]),
    "25 M, 4 bits": (WIDE, 60, 10, [*QUANT, "train.max_tokens=512"]),
    "vocabulary of 64,000": ({"vocab_size": 64000}, 20, 80, ["train.max_tokens=1024"]),
    "16 layers": ({"num_hidden_layers": 16}, 60, 10, ["train.max_tokens=1024"]),
    "60 M": (LARGE | {"num_hidden_layers": 10}, 60, 10, ["train.max_tokens=512"]),
    "60 M, all weights": (LARGE | {"num_hidden_layers": 10}, 30, 10, ["lora=null", "train.max_tokens=256"]),
    "windowed attention": ({"sliding_window": 128}, 60, 10, ["train.max_tokens=1024"]),
}
# Added when the forecast was finished, and not looked at before.
HELD_OUT: dict[str, tuple[dict[str, Any] | None, int, int, list[str]]] = {
    "held out: two matrices at the ends": (
        WIDE | {"tie_word_embeddings": False}, 60, 10, ["train.max_tokens=1024", "lora.target_modules=[q_proj,v_proj]"]
    ),
    "held out: all weights, SGD": (None, 60, 10, ["lora=null", "train.optim=sgd", "train.max_tokens=1024"]),
    "held out: 24 narrow layers": (
        {"num_hidden_layers": 24, "hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 2,
         "num_key_value_heads": 1}, 60, 10, ["train.max_tokens=1024"],
    ),
    "held out: nothing shared": (None, 60, 40, ["train.share_prefixes=false", "train.max_tokens=768"]),
    "held out: 32,000 words, all weights": ({"vocab_size": 32000}, 30, 30, ["lora=null", "train.max_tokens=512"]),
}  # fmt: skip
CONFIGURATIONS |= HELD_OUT
QUICK = ("base, rows of 512", "base, all weights", "25 M")
# name: a recipe of the repository or one of the configurations, overrides
TIMED: dict[str, tuple[str, list[str]]] = {
    "sql demo": ("sql/demo.yaml", ["task.build.examples=2000", "task.build.asked=null", "lora.modules_to_save=[]",
                                   "data.test={}", "train.max_steps=40", "evaluate.max_samples=48"]),
    "maths demo": ("maths/demo.yaml", ["task.build.examples=1500", "train.max_steps=40", "evaluate.max_samples=32"]),
    "25 M, with validations": ("25 M", ["train.max_steps=24", "train.eval_steps=8", "checkpoints.save_steps=8"]),
    "base, all weights": ("base, all weights", ["train.max_steps=60"]),
}  # fmt: skip
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="three configurations of memory, no timing")
    parser.add_argument("--only", choices=("memory", "time"), help="half of it")
    parser.add_argument("--name", action="append", help="only configurations whose name holds this; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: seconds of processor time, for a machine that others use; of one thread",
    )  # fmt: skip
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    load = os.getloadavg()[0]
    conditions = (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, resident memory of a CPU "
        f"process, load of the machine {load:.0f} when it began"
    )

    def figure(name: str, value: float | str, unit: str, goal: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<58} {value:>10} {unit:<10} {f'goal: {goal}' if goal else ''}", flush=True)
        if arguments.json:  # what is done is kept, whatever becomes of the rest
            arguments.json.write_text(json.dumps(rows, indent=1))

    if arguments.clock == "cpu":
        time.perf_counter = time.process_time
        conditions += ", times in processor seconds"
    if arguments.work:
        print(json.dumps(globals()[arguments.work[0]](Path(arguments.work[1]))))
        return
    _libraries()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if arguments.only != "time":
            names = list(QUICK if arguments.quick else CONFIGURATIONS)
            names = [one for one in names if not arguments.name or any(word in one for word in arguments.name)]
            memory(Path(folder), figure, tuple(names))
        if arguments.only != "memory" and not arguments.quick:
            chosen = [one for one in TIMED if not arguments.name or any(word in one for word in arguments.name)]
            seconds(Path(folder), figure, arguments.clock, chosen)


def memory(folder: Path, figure: Callable[..., None], names: tuple[str, ...]) -> None:
    """Peak resident memory of `tunesmith train`, forecast and measured."""
    errors, inside = [], 0
    for name in names:
        recipe = _recipe(folder, name, ["train.max_steps=2"])
        measured = _in_a_process("_train", recipe)
        span = _forecast(recipe)
        error = span["expected"] / measured["peak"] - 1
        errors.append(abs(error))
        within = span["low"] <= measured["peak"] <= span["high"]
        inside += within
        figure(
            f"{name}: forecast of {measured['peak'] / 1e6:,.0f} MB",
            f"{100 * error:+.1f}",
            "% off" if within else "% off, outside its interval",
        )
        print("     ", {k: round(v / 1e6) for k, v in span["components"].items()}, flush=True)
    figure("memory: median error", f"{100 * statistics.median(errors):.1f}", "%", "<= 10")
    figure("memory: worst error", f"{100 * max(errors):.1f}", "%", "<= 25")
    figure("memory: inside the interval", f"{100 * inside / len(names):.0f}", "%", ">= 95")
    figure("memory: configurations", len(names), "runs", ">= 12")
    if unseen := [error for name, error in zip(names, errors, strict=True) if name in HELD_OUT]:
        figure("memory: median error of those held out", f"{100 * statistics.median(unseen):.1f}", "%")
        figure("memory: worst error of those held out", f"{100 * max(unseen):.1f}", "%")


def seconds(folder: Path, figure: Callable[..., None], clock: str, names: Sequence[str]) -> None:
    """Seconds of `tunesmith run`, forecast by a probe of it and measured."""
    for name in names:
        like, changes = TIMED[name]
        if like in CONFIGURATIONS:
            recipe = _recipe(folder, like, changes, name=f"timed {name}", examples=320)
        else:
            recipe = _shipped(folder, like, changes, name)
        probed = _in_a_process("_probe", recipe, clock)
        measured = _in_a_process("_run", recipe, clock)
        error = probed["seconds"] / measured["seconds"] - 1
        figure(f"time, {name}: forecast of {measured['seconds']:.0f} s", f"{100 * error:+.1f}", "% off", "within 15")
        print("     ", {"probe": probed["parts"], "run": measured["stages"]}, flush=True)


def _shipped(folder: Path, path: str, changes: list[str], name: str) -> Path:
    from tunesmith.config.load import load_config
    from tunesmith.config.show import dump_config

    recipe = folder / f"{name.replace(' ', '-')}.yaml"
    loaded = load_config(RECIPES / path, [*changes, f"output_dir={folder / 'runs'}", f"name={recipe.stem}"], environ={})
    recipe.write_text(dump_config(loaded.config))
    return recipe


def _in_a_process(work: str, recipe: Path, clock: str = "wall") -> dict[str, Any]:
    """What a function of this file returns in a Python of its own, as a user's command starts."""
    asked = [sys.executable, __file__, "--clock", clock, "--work", work, str(recipe)]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{recipe.stem}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _train(recipe: Path) -> dict[str, Any]:
    from tunesmith import pipeline
    from tunesmith.config.load import load_config

    start = time.perf_counter()
    pipeline.train_only(load_config(recipe, environ={}), fresh=True)
    took = time.perf_counter() - start
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "seconds": took}


def _run(recipe: Path) -> dict[str, Any]:
    from tunesmith import pipeline
    from tunesmith.config.load import load_config

    start = time.perf_counter()
    summary = pipeline.run(load_config(recipe, environ={}), fresh=True)
    return {"seconds": time.perf_counter() - start, "stages": summary["stages"]}


def _libraries() -> None:
    """Know what the libraries hold before this process makes anything."""
    from tunesmith.forecast import libraries

    libraries()


def _forecast(recipe: Path) -> dict[str, Any]:
    from tunesmith import forecast
    from tunesmith.config.load import load_config

    with patch("tunesmith.check.cards.read_cards", return_value={}):  # what no card would take is not asked here
        plan = forecast.plan(load_config(recipe, environ={}))
    return {**plan.here.memory.peak.__dict__, "components": plan.here.memory.components}


def _probe(recipe: Path) -> dict[str, Any]:
    from tunesmith import forecast
    from tunesmith.config.load import load_config

    plan = forecast.plan(load_config(recipe, environ={}), probe=True)
    parts = {name: round(took, 1) for name, took in plan.here.time.parts.items()}
    return {"seconds": plan.here.time.seconds.expected, "parts": parts}


def _recipe(folder: Path, like: str, changes: list[str], name: str | None = None, examples: int = 48) -> Path:
    """A recipe of a configuration, with its model and data made."""
    from tunesmith.config.load import load_config
    from tunesmith.config.show import dump_config

    shape, question, answer, overrides = CONFIGURATIONS[like]
    model = "demo" if shape is None else str(_model(folder, like, shape))
    slug = "".join(c if c.isalnum() else "-" for c in name or like)
    data = folder / f"{slug}.jsonl"
    lines = []
    for at in range(examples):
        asked, given = WORDS.split() * (question // 10 + 1), ANSWER.split() * (answer // 5 + 1)
        turns = [f"{at} " + " ".join(asked[: question + at % 7]), " ".join(given[: answer + at % 5])]
        messages = [{"role": r, "content": c} for r, c in zip(("user", "assistant"), turns, strict=True)]
        lines.append(json.dumps({"messages": messages}))
    data.write_text("\n".join(lines))
    base = [
        f"name={slug}", f"output_dir={folder / 'runs'}", "task=chat", f"data.train={data}",
        "data.validation_share=0.1", f"model.name={model}", "train.batch_size=16", "train.logging_steps=1",
        "tracking.report_to=[]", "exports=[]", "evaluate.self_test=0",
    ]  # fmt: skip
    empty = folder / "empty.yaml"
    empty.write_text("{}\n")
    recipe = folder / f"{slug}.yaml"
    recipe.write_text(dump_config(load_config(empty, [*base, *overrides, *changes], environ={}).config))
    return recipe


def _model(folder: Path, name: str, changes: dict[str, Any]) -> Path:
    """A random model of the small base's kind with another shape, and the base's tokenizer."""
    target = folder / "models" / "".join(c if c.isalnum() else "-" for c in name)
    if not target.exists():
        _save_model(target, changes)
    return target


def _save_model(target: Path, changes: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from tunesmith.model.load import DEMO

    config = AutoConfig.from_pretrained(str(DEMO))
    for key, value in changes.items():
        setattr(config, key, value)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(str(DEMO)).save_pretrained(target)


if __name__ == "__main__":
    main()
