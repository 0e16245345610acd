"""A probe: the run's own trainer for a few steps, its worst real batch, one validation and one save."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from tunesmith.errors import DivergedError
from tunesmith.model.memory import read_memory
from tunesmith.stop import Stop
from tunesmith.train.progress import Progress
from tunesmith.train.steps import Step

_LOOKED_AT = 64
"""Steps among which the worst is looked for."""


@dataclass(frozen=True)
class Measured:
    """What a probe saw."""

    step_seconds: float
    """Of a step with the mean number of tokens."""
    step_error: float
    """Relative standard error of that."""
    evaluation: float
    saving: float
    beginning: float
    """Before the first step: optimizer, receipt."""
    steps: int
    """Timed."""
    peak: int
    """Bytes: on the GPU where there is one, else resident."""
    worst_tokens: int
    """Of the largest row computed."""


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Times steps, the first left out, and ends the training when there are enough or it has taken long enough."""

    def __init__(self, seconds: float, most: int) -> None:
        self.taken: list[tuple[int, float]] = []
        """Tokens computed, seconds, the waiting for rows included."""
        self._end = time.perf_counter() + seconds
        self._most = most
        self._before: tuple[int, float] | None = None
        self._made = time.perf_counter()
        self.beginning = 0.0
        self.trainer: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.beginning = self.beginning or time.perf_counter() - self._made

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = self.trainer.computed, time.perf_counter()
        if self._before is not None:
            self.taken.append((now[0] - self._before[0], now[1] - self._before[1]))
        self._before = now
        if len(self.taken) >= self._most or (len(self.taken) >= 2 and now[1] > self._end):
            control.should_save = control.should_training_stop = True


def probe(trainer: Any, mean_tokens: float, *, seconds: float = 60.0, most: int = 30) -> Measured:
    """Run a trainer as a run would, for as long as is needed to know its speed.

    Args:
        trainer: as a builder of `BUILDERS` made it, in a folder of its own; of no use afterwards.
        mean_tokens: tokens computed in a mean step, to which the steps' seconds are brought.
        seconds: about how long to time steps.
        most: steps to time at most.

    Raises:
        ModelError: out of memory: the run would be, too.
        DivergedError: loss or gradients are not numbers.
    """
    clock = _Clock(seconds, min(most, max(2, trainer.args.max_steps - 2)))
    clock.trainer = trainer
    trainer.add_callback(clock)
    progress: Progress = trainer.callback(Progress)
    progress.trainer = trainer
    with Stop() as stop:
        trainer.stop = stop
        trainer.train()
    worst = _worst(trainer)
    losses = trainer.row_losses(trainer.model_wrapped, worst)
    if not math.isfinite(float(losses.sum())):
        raise DivergedError(
            "the loss of the worst batch is not a number",
            place="train",
            remedy="look at its examples with `tunesmith data show`",
        )
    trainer.model.zero_grad()
    start = time.perf_counter()
    trainer.evaluate()
    evaluation = time.perf_counter() - start
    mean, error = _mean(clock.taken, mean_tokens)
    memory = read_memory()
    return Measured(
        step_seconds=mean,
        step_error=error,
        evaluation=evaluation,
        saving=progress.saving,
        beginning=clock.beginning,
        steps=len(clock.taken),
        peak=(memory.gpu_peak or memory.peak_rss) * 2**20,
        worst_tokens=max(int(row["input_ids"].shape[1]) for row in worst.rows),
    )


def _worst(trainer: Any) -> Step:
    """The step with the largest row, most labels first among equals, of as many as can be looked at quickly."""
    whole = min(trainer.steps.per_epoch, len(trainer.steps))
    stride = max(1, whole // _LOOKED_AT)

    def weight(step: Step) -> tuple[int, int]:
        return max(int(row["input_ids"].shape[1]) for row in step.rows), step.labels

    steps: Iterable[Step] = (trainer.steps[at] for at in range(0, whole, stride))
    return max(steps, key=weight)


def _mean(taken: list[tuple[int, float]], mean_tokens: float) -> tuple[float, float]:
    """Seconds of a step of mean size, by seconds per token; and the relative standard error."""
    if not taken:
        return math.nan, math.nan
    total = sum(seconds for _, seconds in taken) / max(1, sum(tokens for tokens, _ in taken))
    rates = [seconds / max(1, tokens) for tokens, seconds in taken]
    spread = statistics.stdev(rates) / statistics.mean(rates) if len(rates) > 1 else 0.5
    return total * mean_tokens, spread / math.sqrt(len(rates))
