"""The rehearsal of a run as processes: its recipe on a slice, started, killed in the middle of a save, continued."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tunesmith.checkpoints.commit import MANIFEST, PREFIX, STAGING
from tunesmith.config.schema import MergedExport, RunConfig, Source
from tunesmith.config.schema.limits import Limits
from tunesmith.errors import ConfigError
from tunesmith.rundir import RunDir

_POLL = 0.0005
"""Seconds between two looks at the checkpoints: a save of a small model takes some hundredths."""
_FILES = 2
"""Of a checkpoint that are there when the process is killed."""
_SLICE = 8
"""Test questions that are asked, and validation examples."""


class Process(Protocol):
    """What of `subprocess.Popen` is used."""

    pid: int

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        ...


Launch = Callable[[str, Sequence[str], Path], Process]
"""Starts a program, `tunesmith` or `reload`, with arguments; what it prints goes to the file."""


def spawn(program: str, arguments: Sequence[str], log: Path) -> Process:
    """Start it in a Python of its own."""
    start = {
        "tunesmith": "from tunesmith.cli import main; main()",
        "reload": "from tunesmith.reload import main; main()",
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", start[program], *arguments],
            stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def slice_of(config: RunConfig, folder: Path, name: str, steps: int, at: int) -> RunConfig:
    """The run on a slice: fewer steps, examples and questions, a save in the middle; all else as the recipe says.

    Args:
        config: the run.
        folder: where the rehearsal lies.
        name: of this part of it.
        steps: optimizer steps.
        at: the step whose save is interrupted; the one to continue from is saved at half of it.

    Raises:
        ConfigError: there is no such step, or none before it.
    """
    if not 2 <= at < steps:
        raise ConfigError(
            f"a save at step {at} of {steps} leaves nothing to continue from, or nothing to continue",
            place="--at",
            remedy="take an even step in the middle, such as --steps 20 --at 10",
        )
    train = config.train
    every = at // 2
    few = max(2 * train.batch_size, train.batch_size * steps // 4)
    task = config.task
    build = getattr(task, "build", None)
    if build is not None:
        changes = {"examples": min(build.examples, 2 * few), "test_examples": min(build.test_examples, _SLICE)}
        changes |= {"versions": 1} if hasattr(build, "versions") else {}
        task = task.model_copy(update={"build": build.model_copy(update=changes)})
    data = config.data

    def cut(source: Source | None, most: int) -> Source | None:
        return source and source.model_copy(update={"max_samples": min(most, source.max_samples or most)})

    graded = bool(data.test) or build is not None  # without questions there is none to choose from
    exports = list(config.exports)
    if not any(isinstance(one, MergedExport) for one in exports):
        exports.append(MergedExport())
    return config.model_copy(
        update={
            "name": name,
            "output_dir": folder,
            "task": task,
            "data": data.model_copy(
                update={
                    "train": cut(data.train, 2 * few),
                    "validation": cut(data.validation, _SLICE),
                    "max_dropped": max(data.max_dropped, 0.2),
                    "cache_dir": folder / ".cache",
                }
            ),
            "train": train.model_copy(
                update={
                    "max_steps": steps, "logging_steps": 1, "eval_steps": 0, "early_stopping_patience": None,
                    "warmup_steps": min(train.warmup_steps, steps // 5),
                }
            ),
            "evaluate": config.evaluate.model_copy(
                update={"max_samples": min(_SLICE, config.evaluate.max_samples or _SLICE)} if graded else {}
            ),
            "checkpoints": config.checkpoints.model_copy(
                update={"save_steps": every, "save_minutes": None, "keep_last": 3}
            ),
            "tracking": config.tracking.model_copy(update={"report_to": []}),
            "limits": Limits(),
            "exports": exports,
        }
    )  # fmt: skip


class Ended(Exception):
    """A process did not do what it was started for."""

    def __init__(self, message: str, code: int | None = None, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.remedy = message, code, remedy


def finish(process: Process, log: Path, seconds: float) -> None:
    """Wait for a process to end well.

    Raises:
        Ended: it ended with an error, which is told, or did not end in time and was killed.
    """
    end = time.monotonic() + seconds
    while (code := process.poll()) is None:
        if time.monotonic() > end:
            os.kill(process.pid, signal.SIGKILL)
            _reap(process)
            raise Ended(
                f"it did not end within {seconds / 60:.0f} minutes and was killed; the last it said: {tail(log)}",
                remedy="look for what it waits for in its log; --minutes gives it longer",
            )
        time.sleep(0.02)
    if code != 0:
        message, remedy = said(log)
        raise Ended(f"it ended with exit code {code}: {message}", code, remedy)


def kill_in_a_save(process: Process, run: RunDir, at: int, log: Path, seconds: float) -> str:
    """Kill a process while it writes the checkpoint of a step, once one before it is complete.

    Returns:
        What lay in the folder afterwards, for a person.

    Raises:
        Ended: it ended before, or never came to that save, or the save was complete when the kill arrived.
    """
    staged, final = run.checkpoints / f"{STAGING}{at}", run.checkpoints / f"{PREFIX}{at}"
    end = time.monotonic() + seconds
    while not staged.exists() and not final.exists():
        if (code := process.poll()) is not None:
            message, remedy = said(log)
            if code == 0:
                message = f"it ended without saving at step {at}"
            raise Ended(f"it ended with exit code {code} before the save of step {at}: {message}", code, remedy)
        if time.monotonic() > end:
            os.kill(process.pid, signal.SIGKILL)
            _reap(process)
            raise Ended(f"no save of step {at} began within {seconds / 60:.0f} minutes; the last it said: {tail(log)}")
        time.sleep(_POLL)
    with contextlib.suppress(OSError):
        while sum(1 for _ in staged.iterdir()) < _FILES and process.poll() is None:  # some of it is to be there
            time.sleep(_POLL)
    os.kill(process.pid, signal.SIGKILL)
    _reap(process)
    if (final / MANIFEST).exists():
        raise Late(f"the save of step {at} was complete before the kill arrived")
    left = staged if staged.exists() else final
    files = sum(1 for path in left.rglob("*") if path.is_file())
    return f"killed while it wrote the checkpoint of step {at} ({files} files of it were there, no manifest)"


def end(process: Process) -> None:
    """End a process that is not needed any more."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        _reap(process)


def room_for_two() -> bool:
    """Whether two parts may run at once: two cores, half of the memory free, and no GPU that they would share."""
    import psutil

    from tunesmith.check.gpus import read_gpus

    memory = psutil.virtual_memory()
    return (os.cpu_count() or 1) > 1 and memory.available > memory.total / 2 and not read_gpus().gpus


class Late(Exception):
    """The save was quicker than the kill."""


def _reap(process: Process) -> None:
    while process.poll() is None:
        time.sleep(0.005)


def said(log: Path) -> tuple[str, str]:
    """The error that a program printed, and its remedy."""
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    starts = [at for at, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return tail(log), "see its log"
    block = lines[starts[-1] :]
    remedy = next((line.split("remedy:", 1)[1].strip() for line in block if "remedy:" in line), "see its log")
    return " ".join(line.strip() for line in block[:3] if "remedy:" not in line).removeprefix("error: "), remedy


def tail(log: Path) -> str:
    """The last line with something on it."""
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")


def share_data(source: RunDir, target: RunDir) -> None:
    """Give a second run the data set that the first built, so that it is not built twice."""
    if source.data.exists():
        shutil.copytree(source.data, target.data, dirs_exist_ok=True)
