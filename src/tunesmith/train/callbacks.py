"""What happens beside the steps: progress, the best weights so far, stopping on request."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker
from tunesmith.train.weights import save_trainable

log = logging.getLogger(__name__)

BEST = "best.safetensors"


class Progress(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """A line every `logging_steps`: step, loss, rate, tokens per second, and an honest time remaining.

    Time remaining is the steps left times the median of recent steps, the first one (which compiles and warms up) left
    out, plus the validations still to come at what the last one took.
    """

    def __init__(self, tracker: Tracker, eval_steps: int) -> None:
        self._tracker = tracker
        self._eval_steps = eval_steps
        self._recent: deque[float] = deque(maxlen=50)
        self._began = self._evaluation = 0.0
        self._first = True
        self.trainer: Any = None
        """Set by `fit`: knows the tokens of each step."""
        self.headline = ""
        """Latest loss, learning rate and speed."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer is not None:
            state.epoch = state.global_step / self.trainer.steps.per_epoch
        if self._first:
            self._first = False
        else:
            self._recent.append(time.perf_counter() - self._began)
        if control.should_training_stop or state.global_step >= state.max_steps:
            control.should_log = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        metrics = metrics or {}
        self._evaluation = metrics["eval_seconds"]
        loss, perplexity = metrics["eval_loss"], metrics["eval_perplexity"]
        if state.is_world_process_zero:
            self._tracker.event("evaluation", state.global_step, validation_loss=loss, perplexity=perplexity)
        log.info("step %d: validation loss %.4f, perplexity %.3f", state.global_step, loss, perplexity)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" not in logs or not state.is_world_process_zero:
            return
        figures = {key: logs.get(key) for key in ("loss", "learning_rate", "grad_norm", "epoch")}
        text = f"step {state.global_step} of {state.max_steps}: "
        self.headline = f"loss {logs['loss']:.4f}, rate {logs.get('learning_rate') or 0.0:.2e}"
        ending = ""
        if self._recent and self.trainer is not None:
            seconds = median(self._recent)
            steps = len(self._recent)
            shown = self.trainer.seen(state.global_step - steps, state.global_step)
            left = self.seconds_left(state.global_step, state.max_steps)
            rate = shown.tokens / sum(self._recent)
            figures |= {
                "seconds_per_step": round(seconds, 4),
                "tokens_per_second": round(rate),
                "label_tokens_per_second": round(shown.labels / sum(self._recent)),
                "seconds_left": round(left),
            }
            self.headline += f", {rate:,.0f} tokens/s"
            ending = f", {clock(left)} left"
        self._tracker.event("log", state.global_step, **figures)
        log.info("%s%s%s", text, self.headline, ending)

    def seconds_left(self, step: int, steps: int) -> float:
        """Until the last step, validations included; NaN before the second step."""
        if not self._recent:
            return math.nan
        validations = steps // self._eval_steps - step // self._eval_steps if self._eval_steps else 0
        validations += 1 if self._eval_steps and steps % self._eval_steps else 0
        return (steps - step) * median(self._recent) + validations * self._evaluation

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._tracker.event("checkpoint", state.global_step)


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """What `Progress` measures, for a person at a terminal; nothing elsewhere, where the log says it line by line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: Any = None
        self._task: Any = None
        self._text = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not sys.stderr.isatty() or not state.is_world_process_zero:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("[bold]      train"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._bar.add_task("train", total=state.max_steps, completed=state.global_step, text="")
        self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is None:
            return
        left = self._progress.seconds_left(state.global_step, state.max_steps)
        text = self._text + ("" if math.isnan(left) else f"  {clock(left)} left")
        self._bar.update(self._task, completed=state.global_step, text=text)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self._bar is not None and "loss" in (logs or {}):
            self._text = self._progress.headline

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


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


def clock(seconds: float) -> str:
    """`1 h 05 min`, `3 min 20 s`, `7 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
