"""What checkpoints and a mirror cost, measured on the demo's own model, data and batch while it trains."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

CRASH = Path(__file__).resolve().parents[1] / "tests" / "crash"
sys.path.insert(0, str(CRASH))

import elsewhere  # noqa: E402
import world as w  # noqa: E402

SHORTER = 60
"""A minute of waiting for a mirror takes a second here."""
SMALL = ["data.test={}", "evaluate.self_test=0", "tracking.report_to=[]", "task.build.examples=400", "exports=[]",
         "train.logging_steps=1000", "limits.preemption_url=null"]  # fmt: skip


def overhead(folder: Path, steps: int) -> dict[str, float]:
    """What checkpoints, digests and snapshots take on the demo's own model, data and batch, in this process.

    The share is of the run time that the demo has with a checkpoint every ten minutes, as is the default.
    """
    from tunesmith import pipeline
    from tunesmith.config.load import load_config
    from tunesmith.train import guarded
    from tunesmith.train import steps as planned
    from tunesmith.train.durable import DurableTrainer

    took: dict[str, float] = {}

    def timed(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def around(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **options)
            finally:
                took[name] = took.get(name, 0.0) + time.perf_counter() - began

        setattr(owner, name, around)

    timed(DurableTrainer, "_take_snapshot")
    timed(DurableTrainer, "save")
    timed(guarded.GuardedTrainer, "_note")
    timed(guarded, "random_state")
    timed(guarded, "_gradients_are_numbers")
    timed(planned, "digest_examples")
    overrides = [*SMALL, f"train.max_steps={steps}", f"output_dir={folder / 'demo'}"]
    summary = pipeline.train_only(load_config(w.recipe(), overrides, environ={}))
    seconds = summary["training"]["seconds"]
    each = sum(value for name, value in took.items() if name != "save") / steps
    step = (seconds - took["save"]) / steps
    return {
        "seconds_per_step": step,
        "milliseconds_per_step_for_digests_and_snapshots": 1000 * each,
        "seconds_per_checkpoint": took["save"],
        "share_of_the_run": each / step + took["save"] / 600,
    }


class Phases(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Blocks of steps in turn: nothing is copied to the mirror, all is, and the mirror is away.

    Args:
        mirror: of the run.
        server: the mirror's.
        each: steps of a block; the first one is for getting warm.
    """

    NAMES = ("without", "working", "away")

    def __init__(self, mirror: Any, server: elsewhere.Bucket, each: int) -> None:
        self.mirror, self.server, self.each = mirror, server, each
        self.phase = "warm"
        self.cpu: dict[str, list[float]] = {name: [] for name in (*self.NAMES, "warm")}
        """Seconds of this process for a block, its uploads included."""
        self.steps: dict[str, list[float]] = {name: [] for name in (*self.NAMES, "warm")}
        """Seconds by the clock from the beginning of a step to that of the next."""
        self.most = self.behind = 0
        self.seconds_away = 0.0
        self._began: tuple[float, float, list[float]] | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.each == 0:
            self._end()
            self._start(state.global_step // self.each)
        else:
            assert self._began is not None
            self._began[2].append(time.perf_counter())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._end()

    def _start(self, number: int) -> None:
        self.phase = self.NAMES[(number - 1) % 3] if number else "warm"
        if self.phase == "away":
            self.server.say("away")
        now = time.perf_counter()
        self._began = time.process_time(), now, [now]

    def _end(self) -> None:
        if self._began is None:
            return
        cpu, began, marks = self._began
        self._began = None
        now = time.perf_counter()
        self.steps[self.phase] += [after - before for before, after in zip(marks, [*marks[1:], now], strict=True)]
        if self.phase == "working":
            self.mirror._replicator.flush(60)
        self.cpu[self.phase].append(time.process_time() - cpu)
        if self.phase == "away":
            self.seconds_away += now - began
            self.server.say("back")
        if not self.mirror._replicator.flush(60):
            self.behind += 1

    def copied(self) -> None:
        """A snapshot was handed over."""
        sender = self.mirror._replicator
        self.most = max(self.most, (sender._waiting is not None) + (sender._sending is not None))


def mirrored(folder: Path, rounds: int, each: int, save: int) -> dict[str, float]:
    """What a mirror at work, and one that is away, do to the demo's steps; a checkpoint every `save` of them.

    All three ways alternate within one run, so that what else the machine does falls on all alike.
    """
    from tunesmith import pipeline
    from tunesmith.checkpoints import mirror as mirrors
    from tunesmith.checkpoints import replicate
    from tunesmith.config.load import load_config
    from tunesmith.storage import bucket as buckets

    steps = (1 + 3 * rounds) * each
    found: list[Phases] = []
    with elsewhere.bucket() as server:
        before = replicate.FIRST_WAIT, replicate.LONGEST_WAIT, buckets.RETRIES
        replicate.FIRST_WAIT, replicate.LONGEST_WAIT, buckets.RETRIES = 1 / SHORTER, 60 / SHORTER, 0
        os.environ |= {**server.variables, "TUNESMITH_STORAGE_TIMEOUT": "0.5"}
        follow, copy = mirrors.Mirror.follow, mirrors.Mirror.copy

        def following(self: Any, trainer: Any) -> None:
            follow(self, trainer)
            found.append(Phases(self, server, each))
            trainer.add_callback(found[0])

        def copying(self: Any, *, complete: bool = False) -> bool:
            if found and not complete and found[0].phase == "without":
                return True
            done = copy(self, complete=complete)
            if found:
                found[0].copied()
            return done

        mirrors.Mirror.follow, mirrors.Mirror.copy = following, copying  # type: ignore[method-assign]
        try:
            overrides = [*SMALL, f"train.max_steps={steps}", f"train.eval_steps={steps}", f"output_dir={folder / 'm'}",
                         f"checkpoints.save_steps={save}", "checkpoints.mirror=s3://bucket/runs"]  # fmt: skip
            pipeline.train_only(load_config(w.recipe(), overrides, environ={}))
        finally:
            mirrors.Mirror.follow, mirrors.Mirror.copy = follow, copy  # type: ignore[method-assign]
            replicate.FIRST_WAIT, replicate.LONGEST_WAIT, buckets.RETRIES = before
    phases = found[0]
    cpu = {name: sum(phases.cpu[name]) for name in Phases.NAMES}
    wall = {name: statistics.median(phases.steps[name]) for name in Phases.NAMES}
    status = phases.mirror.status
    return {
        "blocks_of_each_kind": rounds,
        "steps_of_a_block": each,
        "steps_between_checkpoints": save,
        "processor_seconds_per_step_without": cpu["without"] / rounds / each,
        "mirror_at_work_percent_more_processor_time": 100 * (cpu["working"] / cpu["without"] - 1),
        "mirror_away_percent_more_processor_time": 100 * (cpu["away"] / cpu["without"] - 1),
        "mirror_at_work_percent_longer_median_step": 100 * (wall["working"] / wall["without"] - 1),
        "mirror_away_percent_longer_median_step": 100 * (wall["away"] / wall["without"] - 1),
        "minutes_away_on_the_shortened_clock": phases.seconds_away * SHORTER / 60,
        "attempts_that_failed": status.failures,
        "most_snapshots_that_waited": phases.most,
        "times_not_caught_up": phases.behind + (status.confirmed_step != steps),
        "megabytes_sent": status.bytes_sent / 1e6,
    }
