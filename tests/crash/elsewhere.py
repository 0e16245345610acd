"""Trials with more than forks of one process: machines that vanish for good, and processes from the first byte on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import world as w
from outcome import Outcome, compare, settle

_ASK_LITTLE = ["evaluate.base=false", "evaluate.max_samples=1", "generate.max_new_tokens=1"]
"""A run continued by its address is evaluated too."""
DOUBLES = Path(__file__).resolve().parents[1] / "doubles"


class Bucket(NamedTuple):
    """A server on loopback, in a process of its own, that speaks to `s3://` and `gs://`."""

    variables: dict[str, str]
    """Of the environment: what its clients need."""
    say: Callable[[str], None]
    """`away` makes it hang and refuse, `back` ends that."""


@contextmanager
def bucket() -> Iterator[Bucket]:
    """One that runs for a while."""
    server = subprocess.Popen(
        [sys.executable, str(DOUBLES / "bucket_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )
    given, said = server.stdin, server.stdout
    assert given is not None and said is not None
    with server:
        address = said.readline().strip()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        yield Bucket(
            {**keys, "AWS_ENDPOINT_URL": address, "STORAGE_EMULATOR_HOST": address},
            lambda text: print(text, file=given, flush=True),
        )
        given.close()


def machines(world: w.World, count: int, chance: random.Random) -> Outcome:
    """SIGKILL at a random instant once the mirror has a checkpoint; then nothing is left but the mirror.

    The same command continues, every fourth time `tunesmith resume ADDRESS`. Every third run loses two machines.
    """
    outcome, started = Outcome("resumed on an empty machine from s3:// and gs://"), {"s3": 0, "gs": 0}
    lost = attempts = late = 0
    with bucket() as server:
        variables = server.variables
        while outcome.trials < count:
            name, kind = f"machine-{attempts}", ("s3", "gs")[attempts // 2 % 2]
            attempts += 1
            cache = world.folder / f"{name}.cache"
            mirror = [f"checkpoints.mirror={kind}://bucket/runs", f"data.cache_dir={cache}", *_ASK_LITTLE]
            again = ["resume", f"{kind}://bucket/runs/{name}", "--output-dir", str(world.folder / "runs")]
            by_address = attempts % 4 == 0
            wanted = 1 + (attempts % 3 == 0)
            w.new_run(world.folder, name)
            vanished, code = 0, None
            while vanished < wanted and code is None:
                whole = again if by_address and vanished else None
                pid = w.start(world.folder, name, *mirror, before=lambda: os.environ.update(variables), whole=whole)
                code = _until_mirrored(world, name, pid, 2 + 2 * vanished)
                if code is None:
                    code = w.finish(pid, chance.uniform(0, 0.4) * world.seconds)
                if code is None:
                    w.kill(pid)
                    vanished += 1
                    _empty(world, name, cache)
            if vanished == 0:
                late += 1  # it was done before: no trial
                w.remove(world.folder, name)
                continue
            outcome.trials, lost = outcome.trials + 1, lost + vanished
            started[kind] += 1
            _continue(world, outcome, name, mirror, again if by_address else None, variables)
            shutil.rmtree(cache, ignore_errors=True)
    outcome.figures = {
        "machines_lost": lost,
        "done_before": late,
        **{f"from_{kind}": times for kind, times in started.items()},
    }
    return outcome


def _continue(
    world: w.World, outcome: Outcome, name: str, mirror: list[str], whole: list[str] | None, variables: dict[str, str]
) -> None:
    pid = w.start(world.folder, name, *mirror, before=lambda: os.environ.update(variables), whole=whole)
    code = w.finish(pid)
    said = w.said(world.folder, name)
    if code != 0:
        outcome.stuck += 1
        outcome.wrong.append(f"{name}: ended with {code} on an empty machine: {said[-600:]}")
        return
    if "restored from step" not in said.replace("\n", " "):
        outcome.wrong.append(f"{name}: nothing was restored: {said[-600:]}")
    compare(world, outcome, name, world.folder / "runs" / name)


def _until_mirrored(world: w.World, name: str, pid: int, step: int) -> int | None:
    """Wait until the mirror has a checkpoint of that step or a later one; returns the exit code of a run that ended."""
    events = world.folder / "runs" / name / "events.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (code := w.finish(pid, 0.0)) is not None:
            return code
        said = events.read_text() if events.exists() else ""
        if any(f'"step": {at}, "state": "confirmed"' in said for at in range(step, w.STEPS + 1)):
            return None
        time.sleep(0.003)
    return None


def _empty(world: w.World, name: str, cache: Path) -> None:
    """Everything of the run that this machine has."""
    shutil.rmtree(world.folder / "runs" / name)
    shutil.rmtree(cache, ignore_errors=True)
    (world.folder / "runs" / f".{name}.lock").unlink(missing_ok=True)


def fresh(world: w.World, count: int, chance: random.Random) -> Outcome:
    """The installed command in processes that begin with nothing, each killed at a random instant of its life."""
    outcome, number, lives = Outcome("SIGKILL, processes started from the command line"), 0, []
    command = [str(Path(sys.executable).with_name("tunesmith")), "train"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}

    def launch(name: str) -> subprocess.Popen[bytes]:
        with (world.folder / f"{name}.said").open("wb") as said:
            return subprocess.Popen(
                [*command, *w.arguments(world.folder, name)], stdout=said, stderr=said, env=environment
            )

    w.new_run(world.folder, "fresh")
    began = time.perf_counter()
    if (code := launch("fresh").wait(600)) != 0:
        raise RuntimeError(f"ended with {code}: {w.said(world.folder, 'fresh')}")
    seconds = time.perf_counter() - began
    compare(world, outcome, "fresh", world.folder / "runs" / "fresh")  # it is what a fork gives
    while outcome.trials < count:
        number, life = number + 1, 0
        name = f"fresh-{number}"
        w.new_run(world.folder, name)
        while True:
            life += 1
            process = launch(name)
            # Most of a life is imports; it is killed once it trains, or as late as it happens to.
            _until_training(world, name, process, life)
            try:
                code = process.wait(chance.uniform(0, 0.3) * seconds)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                outcome.trials += 1
            if life == 20:
                outcome.stuck += 1
                break
        lives.append(life)
        if code != 0:
            outcome.wrong.append(f"{name}: ended with {code}: {w.said(world.folder, name)[-600:]}")
        elif number % 2:
            settle(world, outcome, name)
        else:
            compare(world, outcome, name, world.folder / "runs" / name)
    outcome.figures = {"runs": number, "most_lives": max(lives), "seconds_of_a_life": round(seconds, 1)}
    return outcome


def _until_training(world: w.World, name: str, process: subprocess.Popen[bytes], life: int) -> None:
    log = world.folder / "runs" / name / "run.log"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_text().count("training starts") >= life:
            return
        time.sleep(0.01)
