"""What happens beside the steps: the best weights so far, stopping on request."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tunesmith.rundir import RunDir
from tunesmith.train.weights import save_trainable

log = logging.getLogger(__name__)

BEST = "best.safetensors"


class KeepBest(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Keep the trainable weights of the best validation, and stop after `patience` validations without a better one.

    Its state is in every checkpoint, so that a resumed run stops where an uninterrupted one would have.
    """

    def __init__(self, run: RunDir, patience: int) -> None:
        self.path: Path = run.root / BEST
        self.patience = patience
        self.best: float | None = None
        self.best_step = 0
        self.waited = 0

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self.waited >= self.patience

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, model: Any = None, **_: Any
    ) -> None:
        loss = (metrics or {})["eval_loss"]
        if self.best is None or loss < self.best:
            self.best, self.best_step, self.waited = loss, state.global_step, 0
            if state.is_world_process_zero:
                save_trainable(model, self.path)
            return
        self.waited += 1
        if self.exhausted:
            log.info(
                "no better validation loss for %d validations; the best was at step %d", self.waited, self.best_step
            )
            control.should_training_stop = True
            control.should_save = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, restored by `restore`."""
        return {"args": {}, "attributes": {"best": self.best, "best_step": self.best_step, "waited": self.waited}}

    def restore(self, attributes: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.best, self.best_step, self.waited = (attributes[name] for name in ("best", "best_step", "waited"))


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM or Ctrl-C: finish the step, save a checkpoint, stop. A second one stops at once."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                return

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a loader's worker, which inherits the handler
            if number == signal.SIGTERM:
                os._exit(0)
            return
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        log.warning("stopping after this step; once more stops at once")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True
