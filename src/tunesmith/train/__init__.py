"""The training loop: `fit` is the same for every method; a method is a builder of its trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunesmith.config.schema import RunConfig
from tunesmith.data.prepare import Prepared
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker
from tunesmith.train.sft import build_sft_trainer
from tunesmith.types import Task

BUILDERS: dict[str, Callable[..., Any]] = {"sft": build_sft_trainer}
"""`train.method` to builder: (config, model, tokenizer, prepared, run, tracker) -> trainer."""


def build_trainer(
    config: RunConfig, model: Any, tokenizer: Any, prepared: Prepared, run: RunDir, tracker: Tracker, task: Task
) -> Any:
    """The trainer of `train.method`, with the chooser of its checkpoint that `evaluate.select` asks for.

    Args:
        config: the run.
        model: the base with its adapters, or the base alone where `lora` is null.
        tokenizer: with the template in force.
        prepared: rows to train and validate on.
        run: where checkpoints go.
        tracker: told of every log, validation and checkpoint.
        task: grades answers where they choose the checkpoint.

    Raises:
        TunesmithError: as the builder of the method; DataError: nothing is there to choose by.
    """
    trainer = BUILDERS[config.train.method](config, model, tokenizer, prepared, run, tracker)
    if config.evaluate.select is not None:
        from tunesmith.train.selection import keep_best_by_score

        trainer.add_callback(keep_best_by_score(config, prepared, tokenizer, task, run, tracker.event))
    return trainer
