"""What a run says while it trains: a line every `logging_steps`, an honest time left, a live view at a terminal."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback

from tunesmith.checkpoints.commit import PREFIX
from tunesmith.tracking import Tracker
from tunesmith.train.gauges import Gauges, size_of

log = logging.getLogger(__name__)


class Progress(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """A line every `logging_steps`: loss, rate, speed, waiting, memory, GPU, and an honest time remaining.

    Time remaining is the steps left times the median of recent steps, the first one (which compiles and warms up) left
    out, plus the validations and saves still to come at what the last ones took.
    """

    def __init__(self, tracker: Tracker, eval_steps: int, save_steps: int = 0) -> None:
        self._tracker = tracker
        self._eval_steps = eval_steps
        self._save_steps = save_steps
        self._recent: deque[float] = deque(maxlen=50)
        self._began = self._evaluation = self._saving = 0.0
        self._logged = self._waited = 0.0
        self._settled = 0.0
        self._first = True
        self.gauges = Gauges()
        """Read while training; `fit` starts and stops them."""
        self.trainer: Any = None
        """Set by `fit`: knows the tokens of each step and the seconds waited for them."""
        self.headline = ""
        """Latest loss, learning rate and speed."""
        self.figures: dict[str, Any] = {}
        """The latest log line's."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._logged = time.perf_counter()
        if state.is_world_process_zero:
            due = self.trainer is not None and self.trainer.due
            self._tracker.rewind(state.global_step - 1 if due else state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer is not None:
            state.epoch = state.global_step / self.trainer.steps.per_epoch
        if self._first:
            self._first = False
        else:
            self._recent.append(time.perf_counter() - self._began)
        self._settled = time.perf_counter()
        if control.should_training_stop or state.global_step >= state.max_steps:
            control.should_log = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        metrics = metrics or {}
        self._evaluation = metrics["eval_seconds"]
        loss, perplexity = metrics["eval_loss"], metrics["eval_perplexity"]
        if state.is_world_process_zero:
            self._tracker.event("evaluation", state.global_step, validation_loss=loss, perplexity=perplexity,
                                seconds=round(self._evaluation, 3))  # fmt: skip
        self._settled = time.perf_counter()
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
                "steps_per_second": round(1 / seconds, 4) if seconds else None,
                "tokens_per_second": round(rate),
                "label_tokens_per_second": round(shown.labels / sum(self._recent)),
                "waiting_share": round(self._waiting_share(), 4),
                "seconds_left": round(left),
            }
            self.headline += f", {rate:,.0f} tokens/s"
            ending = f", {clock(left)} left"
        figures |= self.gauges.take().figures()
        self.figures = figures
        self._tracker.event("log", state.global_step, **figures)
        self._settled = time.perf_counter()
        log.info("%s%s%s", text, self.headline, ending)

    def _waiting_share(self) -> float:
        """Share of the time since the last log line in which the model waited for rows, 0 to 1."""
        now, waited = time.perf_counter(), float(getattr(self.trainer, "waited", 0.0))
        share = (waited - self._waited) / (now - self._logged) if now > self._logged else 0.0
        self._logged, self._waited = now, waited
        return min(1.0, max(0.0, share))

    @property
    def seconds_per_step(self) -> float:
        """Median of recent steps, of what lies between one step and the next nothing but the waiting; NaN before."""
        return median(self._recent) if self._recent else math.nan

    @property
    def saving(self) -> float:
        """Seconds that the last checkpoint took; 0 before one."""
        return self._saving

    def seconds_left(self, step: int, steps: int) -> float:
        """Until the last step, validations and saves included; NaN before the second step."""
        if not self._recent:
            return math.nan
        due = (
            _due(step, steps, self._eval_steps) * self._evaluation + _due(step, steps, self._save_steps) * self._saving
        )
        return (steps - step) * median(self._recent) + due

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saving = time.perf_counter() - self._settled
        if state.is_world_process_zero:
            size = size_of(Path(args.output_dir) / f"{PREFIX}{state.global_step}")
            self._tracker.event("checkpoint", state.global_step, bytes=size, seconds=round(self._saving, 3))


def _due(step: int, steps: int, every: int) -> int:
    """How many of what happens every so many steps, and after the last one, is still to come."""
    return steps // every - step // every + (1 if steps % every else 0) if every else 0


class LiveView(TrainerCallback):  # type: ignore[misc]
    """What `Progress` measures, for a person at a terminal; nothing elsewhere, where the log says it line by line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._live: Any = None
        self._bar: Any = None
        self._task: Any = None
        self._validation: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not sys.stderr.isatty() or not state.is_world_process_zero:
            return
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("[bold]      train"), BarColumn(bar_width=32), MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )  # fmt: skip
        self._task = self._bar.add_task("train", total=state.max_steps, completed=state.global_step, text="")
        console = Console(stderr=True, highlight=False)
        self._live = Live(self._bar, console=console, transient=True, refresh_per_second=4)
        self._live.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._live is None:
            return
        left = self._progress.seconds_left(state.global_step, state.max_steps)
        text = "" if math.isnan(left) else f"{clock(left)} left"
        self._bar.update(self._task, completed=state.global_step, text=text)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        self._validation = (metrics or {}).get("eval_loss")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self._live is not None and "loss" in (logs or {}):
            from rich.console import Group

            self._live.update(Group(self._bar, _table(self._progress.figures, self._validation)))

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _table(figures: dict[str, Any], validation: float | None) -> Any:
    """The latest figures in two columns of pairs."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(justify="right", style="dim", min_width=18)
        table.add_column(min_width=14)
    cells = [(name, text) for name, text in live_lines(figures, validation) if text]
    for at in range(0, len(cells), 2):
        pair = cells[at : at + 2]
        table.add_row(*(part for cell in pair for part in cell))
    return table


def live_lines(figures: dict[str, Any], validation: float | None) -> list[tuple[str, str]]:
    """(name, text) of the live view; the text is empty where the figure is not known."""

    def shown(name: str, form: str, scale: float = 1.0) -> str:
        value = figures.get(name)
        return "" if value is None else form.format(value * scale)

    return [
        ("loss", shown("loss", "{:.4f}")),
        ("validation loss", "" if validation is None else f"{validation:.4f}"),
        ("learning rate", shown("learning_rate", "{:.2e}")),
        ("gradient norm", shown("grad_norm", "{:.3f}")),
        ("tokens/s", shown("tokens_per_second", "{:,.0f}")),
        ("trained tokens/s", shown("label_tokens_per_second", "{:,.0f}")),
        ("steps/s", shown("steps_per_second", "{:.3g}")),
        ("waiting for data", shown("waiting_share", "{:.1f} %", 100)),
        ("memory", shown("rss_mb", "{:,.0f} MB")),
        ("of the machine's", shown("host_memory_share", "{:.0f} %", 100)),
        ("GPU busy", shown("gpu_utilization", "{:.0f} %", 100)),
        ("GPU memory", shown("gpu_memory_mb", "{:,.0f} MB")),
    ]


def clock(seconds: float) -> str:
    """`1 h 05 min`, `3 min 20 s`, `7 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
