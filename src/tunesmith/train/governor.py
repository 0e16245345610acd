"""A run within its limits: it forecasts its own end while it trains, and stops in time for its last checkpoint."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from transformers import TrainerCallback

from tunesmith.stop import Limit, Stop
from tunesmith.train.progress import Progress, clock

log = logging.getLogger(__name__)

_LEAST = 2.0
"""Seconds kept for a save that has never been timed."""
_SLACK = 1.5
"""A save and a step may take this much longer than the longest before."""


class Governor(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Says at every log line whether the run ends within its limit, and asks for its end while a checkpoint still fits.

    The limit itself is kept by `Stop`, whatever the run is doing; here the end is asked for at the end of a step, so
    that nothing that was computed is lost.

    Args:
        stop: knows the limit.
        progress: knows the seconds of steps, validations and saves.
        tell: told of every forecast, as `Tracker.event` is.
    """

    def __init__(self, stop: Stop, progress: Progress, tell: Any) -> None:
        self._stop = stop
        self._progress = progress
        self._tell = tell
        self._longest = 0.0
        self._began = time.monotonic()
        self._warned = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._longest = max(self._longest, time.monotonic() - self._began)
        limit = self._stop.nearest
        if limit is None or state.global_step >= state.max_steps:
            return
        if limit.seconds < _SLACK * (self._longest + self._progress.saving) + _LEAST:
            self._stop.ask(f"{limit.reason}: another step and its checkpoint would go beyond", limit.remedy)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        limit = self._stop.nearest
        left = self._progress.seconds_left(state.global_step, state.max_steps)
        if limit is None or math.isnan(left) or "loss" not in (logs or {}):
            return
        reached = reached_step(state.global_step, state.max_steps, left, limit)
        self._tell("forecast", state.global_step, seconds_left=round(left), limit_left=round(limit.seconds),
                   reached_step=reached)  # fmt: skip
        if reached < state.max_steps and not self._warned:
            self._warned = True
            log.warning(
                "at this pace the run needs %s more and its limit leaves %s: it will stop near step %d of %d, with a "
                "checkpoint", clock(left), clock(limit.seconds), reached, state.max_steps,
            )  # fmt: skip


def reached_step(step: int, steps: int, left: float, limit: Limit) -> int:
    """The step that a run comes to within its limit, at a steady pace."""
    if left <= limit.seconds:
        return steps
    return step + int((steps - step) * limit.seconds / left)
