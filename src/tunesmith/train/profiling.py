"""Where the time of a few steps goes: a trace to look at and the ten operations that cost most."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from transformers import TrainerCallback

from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker

log = logging.getLogger(__name__)

_WARM = 2
"""Steps before the first one that is measured: they compile, allocate and read files for the first time."""
_SHOWN = 10


class Operation(NamedTuple):
    """One kind of operation over the measured steps, without the others that it called."""

    name: str
    seconds: float
    """On the GPU where there is one, else on the CPU."""
    share: float
    """Of all operations, 0 to 1."""
    calls: int


class Profile(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Measures `steps` steps after two to warm up, then writes `profile/` and measures no more."""

    def __init__(self, run: RunDir, tracker: Tracker, steps: int) -> None:
        self._run = run
        self._tracker = tracker
        self.steps = steps
        self._left = steps
        self._warm = _WARM
        self._profiler: Any = None
        self._measured = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._profiler is not None or not self._left or not state.is_world_process_zero:
            return
        if self._warm and state.max_steps - state.global_step > self._left:
            self._warm -= 1
            return
        from torch.profiler import ProfilerActivity, profile

        kinds = [ProfilerActivity.CPU]
        if args.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=kinds, acc_events=True)
        self._profiler.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._profiler is None:
            return
        self._left -= 1
        self._measured += 1
        if not self._left or state.global_step >= state.max_steps:
            self._write(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._profiler is not None:
            self._write(state.global_step)

    def _write(self, step: int) -> None:
        profiler, self._profiler, self._left = self._profiler, None, 0
        profiler.__exit__(None, None, None)
        self._run.trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._run.trace))
        found = operations(profiler.key_averages())
        table = "\n".join(
            f"{one.share:6.1%}  {one.seconds / self._measured:9.4f} s a step  {one.calls:7,} calls  {one.name}"
            for one in found
        )
        self._run.operations.write_text(table + "\n", encoding="utf-8")
        self._tracker.event(
            "profile",
            step,
            steps=self._measured,
            operations=[one._asdict() for one in found],
            trace=self._run.trace.name,
        )
        log.info("the %d most expensive operations of %d steps:\n%s", len(found), self._measured, table)
        log.info("the trace is %s: open it at https://ui.perfetto.dev", self._run.trace)


def operations(averages: Any) -> list[Operation]:
    """The ten kinds of operation that cost most, each without what it called."""
    on_gpu = any(one.self_device_time_total for one in averages)
    times = [(one.self_device_time_total if on_gpu else one.self_cpu_time_total, one) for one in averages]
    whole = sum(time for time, _ in times) or 1.0
    times.sort(key=lambda pair: (-pair[0], pair[1].key))
    return [
        Operation(one.key, round(time / 1e6, 6), round(time / whole, 5), int(one.count)) for time, one in times[:_SHOWN]
    ]
