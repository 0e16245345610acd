"""Prepared data of a few examples that share a prompt, and a run that trains on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.data.cache import TokensDataset, write_tokens
from tunesmith.data.prepare import Prepared
from tunesmith.rundir import RunDir
from tunesmith.types import IGNORE, Example, Tokens


def make_tokens(count: int, seed: int = 0) -> list[Tokens]:
    """Examples with one of three prompts each: an answer of 2 to 6 tokens, the last of them the end token."""
    random = np.random.default_rng(seed)
    found = []
    for at in range(count):
        prompt = [1, *range(20, 44), 50 + at % 3, *random.integers(60, 90, 3).tolist()]
        answer = [*random.integers(90, 120, random.integers(1, 6)).tolist(), 5]
        ids = np.array(prompt + answer, np.int32)
        found.append(Tokens(f"example-{at}", ids, np.array([IGNORE] * len(prompt) + answer, np.int32)))
    return found


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    folder = tmp_path / "entry"
    folder.mkdir()
    for split, count, seed in (("train", 22, 0), ("validation", 6, 1)):
        tokens = make_tokens(count, seed)
        write_tokens(folder, split, tokens, [Example(one.id, ()) for one in tokens])
    fields: Any = {"tests": {}, "validation_examples": [], "ledger": None, "findings": (), "thinks": False}
    return Prepared(
        train=TokensDataset(folder, "train"), validation=TokensDataset(folder, "validation"), key="key", **fields
    )


@pytest.fixture
def train_run(
    tmp_path: Path, prepared: Prepared, tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> Callable[..., SimpleNamespace]:
    """`train_run(name, train={...}, ...)`: a fresh model with adapters, its trainer and run folder; not yet fitted."""
    from tunesmith.model.lora import add_lora
    from tunesmith.tracking import Tracker
    from tunesmith.train import BUILDERS

    def make(name: str = "a", arch: str = "mistral", data: Prepared = prepared, **sections: Any) -> SimpleNamespace:
        train = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1, "max_tokens": 96}
        config = RunConfig.model_validate(
            {
                "task": "chat",
                "data": {"train": "unused.jsonl"},
                "model": {"name": "tiny"},
                "lora": sections.pop("lora", {"r": 4}),
                "tracking": {"report_to": []},
                "train": train | sections.pop("train", {}),
                **sections,
            }
        )
        run = RunDir(tmp_path / name)
        model = tiny_model(arch)
        if config.lora is not None:
            model = add_lora(model, config.lora, config.seed)
        tracker = Tracker(run, config)
        run.root.mkdir(exist_ok=True)
        trainer = BUILDERS["sft"](config, model, tiny_tokenizer, data, run, tracker)
        return SimpleNamespace(config=config, run=run, model=model, trainer=trainer, tracker=tracker)

    return make
