"""What happens beside the steps: progress, the best adapter so far, stopping on request."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tunesmith.data.prepare import Prepared
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker

log = logging.getLogger(__name__)

BEST = "best.safetensors"


class Progress(TrainerCallback):
    """A line every `logging_steps`: step, loss, rate, tokens per second, and an honest time remaining.

    Time remaining is the steps left times the median of recent steps, the first one (which compiles and warms up) left
    out, plus the validations still to come at what the last one took.
    """

    def __init__(self, tracker: Tracker, prepared: Prepared) -> None:
        self._tracker = tracker
        self._tokens_per_example = float(prepared.train.lengths.mean()) if len(prepared.train) else 0.0
        self._labels_per_example = float(prepared.train.label_counts.mean()) if len(prepared.train) else 0.0
        self._recent: deque[float] = deque(maxlen=50)
        self._seconds: float = 0.0
        self._began = self._evaluation = 0.0
        self._first = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        took = time.perf_counter() - self._began
        if self._first:
            self._first = False
        else:
            self._recent.append(took)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        metrics = metrics or {}
        loss = metrics.get("eval_loss", math.nan)
        if not math.isnan(loss):
            self._tracker.event(
                "evaluation", state.global_step, validation_loss=loss, perplexity=metrics["eval_perplexity"]
            )
            log.info(
                "step %d: validation loss %.4f, perplexity %.3f", state.global_step, loss, metrics["eval_perplexity"]
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" not in logs:
            return
        step = sorted(self._recent)[len(self._recent) // 2] if self._recent else math.nan
        examples = args.per_device_train_batch_size / step if step else math.nan
        left = max(0, state.max_steps - state.global_step) * step
        figures = {
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "epoch": logs.get("epoch"),
            **({} if math.isnan(step) else {
                "seconds_per_step": round(step, 4),
                "tokens_per_second": round(examples * self._tokens_per_example),
                "label_tokens_per_second": round(examples * self._labels_per_example),
                "seconds_left": round(left),
            }),
        }  # fmt: skip
        self._tracker.event("log", state.global_step, **figures)
        eta = "" if math.isnan(left) else f", {_clock(left)} left"
        log.info(
            "step %d of %d: loss %.4f, rate %.2e, %s tokens/s%s",
            state.global_step, state.max_steps, logs["loss"], logs.get("learning_rate") or 0.0,
            "-" if math.isnan(step) else f"{examples * self._tokens_per_example:,.0f}", eta,
        )  # fmt: skip

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tracker.event("checkpoint", state.global_step)


class KeepBest(TrainerCallback, ExportableState):
    """Keep the trainable weights of the best validation, and stop after `patience` validations without a better one.

    Its state is in every checkpoint, so that a resumed run stops where an uninterrupted one would have.
    """

    def __init__(self, run: RunDir, patience: int, best: float = math.inf, best_step: int = 0, waited: int = 0) -> None:
        self.path: Path = run.root / BEST
        self.patience, self.best, self.best_step, self.waited = patience, best, best_step, waited

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, model: Any = None, **_: Any
    ) -> None:
        loss = (metrics or {}).get("eval_loss", math.nan)
        if math.isnan(loss):
            return
        if loss < self.best:
            self.best, self.best_step, self.waited = loss, state.global_step, 0
            save_trainable(model, self.path)
            return
        self.waited += 1
        if self.waited >= self.patience:
            log.info(
                "no better validation loss for %d validations; the best was at step %d", self.waited, self.best_step
            )
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; restored by `from_state` through these attributes."""
        return {
            "args": {"patience": self.patience},
            "attributes": {"best": self.best, "best_step": self.best_step, "waited": self.waited},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> KeepBest:
        """Refused: a bare state does not know its run; the trainer copies attributes into the live callback."""
        raise TypeError("KeepBest is restored in place, see fit.restore_best")


class StopOnSignal(TrainerCallback):
    """On SIGTERM or Ctrl-C: finish the step, save a checkpoint, stop. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                return

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.release()

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _ask(self, number: int, frame: Any) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        log.warning("stopping after this step; once more stops at once")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True


def save_trainable(model: Any, path: Path) -> None:
    """The trained weights alone, written whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    draft = path.with_suffix(".tmp")
    save_file(tensors, draft)
    draft.replace(path)


def load_trainable(model: Any, path: Path) -> None:
    """Put weights that `save_trainable` wrote back where they were."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
