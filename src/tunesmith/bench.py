"""A run's folder, opened by one process at a time: its settings, its tracker, and what its stages share."""

from __future__ import annotations

import json
import logging
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.checkpoints.commit import write_whole
from tunesmith.checkpoints.lock import RunLock
from tunesmith.checkpoints.mirror import mirrored
from tunesmith.config.identity import deciding, differences
from tunesmith.config.load import Loaded, load_config
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config
from tunesmith.errors import ConfigError, StoppedError
from tunesmith.rundir import RunDir
from tunesmith.stop import Stop
from tunesmith.tasks import get_task
from tunesmith.tracking import Tracker, environment
from tunesmith.types import Finding, Task

if TYPE_CHECKING:
    from tunesmith.checkpoints.mirror import Mirror

log = logging.getLogger(__name__)

Announce = Callable[[str, str], None]
"""Called with the name of a stage and one sentence on what it did, when it is done."""


def silent(stage: str, outcome: str) -> None:
    """What is announced, for the log only."""
    log.info("%s: %s", stage, outcome)


@dataclass
class Bench:
    """What the stages of one run share."""

    config: RunConfig
    run: RunDir
    tracker: Tracker
    task: Task
    lock: RunLock
    stop: Stop
    announce: Announce = silent
    seconds: dict[str, float] = field(default_factory=dict)
    before: float = 0.0
    """Seconds that earlier calls of this run took."""
    started: float = field(default_factory=time.perf_counter)
    mirror: Mirror | None = None
    """Where copies of the run go."""

    @property
    def elapsed(self) -> float:
        """Seconds of this run, over all its calls."""
        return round(self.before + time.perf_counter() - self.started, 1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; the sum over a resumed run's parts is what `run.json` shows."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.tracker.summary(stages={name: round(took, 1) for name, took in self.seconds.items()})

    def tell(self, stage: str, findings: Iterable[Finding]) -> None:
        """Announce what a stage found, a line each."""
        for finding in findings:
            place = f"{finding.place}: " if finding.place else ""
            self.announce(stage, f"{finding.level}: {place}{finding.message}")


def run_dir(config: RunConfig) -> RunDir:
    """Where this run lives."""
    return RunDir(config.run_folder)


@contextmanager
def open_run(
    loaded: Loaded, *, resume: bool = False, fresh: bool = False, announce: Announce = silent
) -> Iterator[Bench | None]:
    """A run directory with its settings saved, a tracker and the task; None when the run is complete already.

    Raises:
        ConfigError: the directory holds a run with other settings; or `resume` is asked and there is no such run.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(RunLock(run_dir(loaded.config).root))
        yield from _open_locked(loaded, stack, lock, resume, fresh, announce)


def _open_locked(
    loaded: Loaded, stack: ExitStack, lock: RunLock, resume: bool, fresh: bool, announce: Announce
) -> Iterator[Bench | None]:
    config = loaded.config
    run = run_dir(config)
    if fresh and run.root.exists():
        _set_aside(run.root)
    elif not resume and _may_begin_anew(run, config) and _differing(run, config):
        aside = _set_aside(run.root)
        announce("run", f"the earlier run of this name had not trained a step and has other settings: now in {aside}")
    mirror = stack.enter_context(mirrored(config, run, fresh=fresh, announce=announce))
    known = read_summary(run)
    if run.config.exists():
        _require_same(run, config)
        if known.get("status") == "complete":
            yield None
            return
    elif resume and not known:
        raise ConfigError(
            f"there is no run to resume in {run.root}", place="--resume", remedy="start it: tunesmith run RECIPE"
        )
    run.root.mkdir(parents=True, exist_ok=True)
    write_whole(run.config, dump_config(config))
    write_whole(run.origins, json.dumps(dict(loaded.origins), indent=1))
    if known.get("status") == "complete":  # it came whole from the mirror
        yield None
        return
    before = float(known.get("seconds", 0.0))
    tracker = stack.enter_context(Tracker(run, config))
    tracker.summary(name=config.name, status="running", environment=environment())
    task = get_task(config)
    stack.callback(task.close)
    stop = stack.enter_context(Stop.within(config.limits, before))
    bench = Bench(config, run, tracker, task, lock, stop, announce, before=before, mirror=mirror)
    bench.seconds.update(known.get("stages", {}))
    if mirror is not None:
        mirror.attach(config, lambda step, said: tracker.event("mirror", step, **said), tracker.summary)
    try:
        yield bench
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | StoppedError)
        with suppress(OSError):  # a full disk is told by the error that it made
            tracker.summary(status="stopped" if stopped else "failed", error=stop.reason or str(error))
        raise
    finally:
        with suppress(OSError):
            tracker.summary(seconds=bench.elapsed, peak_rss_mb=peak_rss_mb())


@contextmanager
def reopen(root: Path, announce: Announce = silent) -> Iterator[Bench]:
    """A run that was trained, from its own directory.

    Raises:
        ConfigError: no run there, or none that was trained.
    """
    run = RunDir(root)
    if not run.config.exists() or not run.adapter.exists():
        raise ConfigError(
            "there is no trained run here",
            place=str(root),
            remedy="give the folder of a run, for example runs/sql-demo",
        )
    config = load_config(run.config, environ={}).config
    config = config.model_copy(update={"output_dir": root.resolve().parent, "name": root.resolve().name})
    with ExitStack() as stack:
        lock = stack.enter_context(RunLock(root))
        tracker = stack.enter_context(Tracker(run, config))
        task = get_task(config)
        stack.callback(task.close)
        stop = stack.enter_context(Stop(notice=config.limits.preemption_url))
        known = read_summary(run)
        bench = Bench(config, run, tracker, task, lock, stop, announce, before=float(known.get("seconds", 0.0)))
        bench.seconds.update(known.get("stages", {}))
        yield bench


def read_summary(run: RunDir) -> dict[str, Any]:
    """What `run.json` holds; empty where there is none yet."""
    return dict(json.loads(run.summary.read_text(encoding="utf-8"))) if run.summary.exists() else {}


def _differing(run: RunDir, config: RunConfig) -> list[str]:
    return differences(deciding(load_config(run.config, environ={}).config), deciding(config))


def _may_begin_anew(run: RunDir, config: RunConfig) -> bool:
    """Whether nothing was learnt here or in a mirror, and no process beside this one looks at the folder."""
    alone = config.checkpoints.mirror is None and int(os.environ.get("WORLD_SIZE") or 1) == 1
    learnt = run.adapter.exists() or (run.checkpoints.exists() and any(run.checkpoints.iterdir()))
    return alone and run.config.exists() and not learnt


def _require_same(run: RunDir, config: RunConfig) -> None:
    if differing := _differing(run, config):
        raise ConfigError(
            f"the directory holds a run with other settings: {'; '.join(differing)}",
            place=str(run.root),
            remedy="give this run another name (name=... or --experiment-name), or --fresh to set the old one aside",
        )


def _set_aside(root: Path) -> Path:
    number = 1
    while (other := root.with_name(f"{root.name}.old{number}")).exists():
        number += 1
    return root.rename(other)


def peak_rss_mb() -> int:
    """Most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
