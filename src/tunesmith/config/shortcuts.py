"""The short flags of the command line, as the overrides they stand for."""

from __future__ import annotations

from pathlib import Path

from tunesmith.config.show import write_value

QUICK_TEST = (
    "train.max_steps=20",
    "train.logging_steps=1",
    "train.eval_steps=0",
    "train.early_stopping_patience=null",
    "checkpoints.save_steps=10",
    "data.train.max_samples?=20",
    "data.validation.max_samples?=10",
    "task.build.examples?=60",
    "evaluate.max_samples=10",
)
"""20 steps on 20 training and 10 validation records, a checkpoint in the middle, one validation at the end. The last
parts count only where the recipe has such a section."""


def shortcuts(
    *,
    experiment_name: str | None = None,
    max_steps: int | None = None,
    learning_rate: float | None = None,
    output_dir: Path | str | None = None,
    max_hours: float | None = None,
    max_cost: float | None = None,
    quick_test: bool = False,
    debug: bool = False,
    no_save: bool = False,
    profile: bool = False,
) -> list[str]:
    """Overrides for `load_config`; those given as values come after, and so win over, those of `quick_test`.

    Args:
        debug: log every step, and load data in the main process where a debugger sees it.
        profile: measure three steps of training.
        no_save: export nothing. A checkpoint at the end stays, or there would be nothing to evaluate.
    """
    overrides = list(QUICK_TEST) if quick_test else []
    if debug:
        overrides += [
            "train.logging_steps=1",
            "train.dataloader_num_workers=0",
            "train.dataloader_prefetch_factor=null",
        ]
    if profile:
        overrides.append("tracking.profile_steps=3")
    if no_save:
        overrides.append("exports=[]")
    values = {
        "name": experiment_name,
        "train.max_steps": max_steps,
        "train.learning_rate": learning_rate,
        "limits.max_hours": max_hours,
        "limits.max_cost": max_cost,
        "output_dir": None if output_dir is None else str(output_dir),
    }
    return overrides + [f"{key}={write_value(value)}" for key, value in values.items() if value is not None]
