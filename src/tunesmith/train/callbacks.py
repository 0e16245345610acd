"""What happens beside the steps: the best weights so far."""

from __future__ import annotations

import logging
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
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"best": self.best, "best_step": self.best_step, "waited": self.waited}}
