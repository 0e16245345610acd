"""What a trial changes inside its process before the command line runs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by `around(original, self, *args)`."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: around(original, *args, **options))


def after_commit(tell: Callable[[], object]) -> None:
    """Call `tell` when a checkpoint has been committed and old ones have gone."""
    from tunesmith.train.durable import DurableTrainer

    def save(original: Any, *args: Any) -> Any:
        done = original(*args)
        tell()
        return done

    _wrap(DurableTrainer, "save", save)


def mark_listening(path: Path) -> None:
    """Have a file at `path` as long as the run listens to signals."""
    from tunesmith.stop import Stop

    def watch(original: Any, stop: Any) -> None:  # in a thread of its own: no frame of the run's is ours
        path.touch()
        original(stop)
        path.unlink(missing_ok=True)

    _wrap(Stop, "_watch", watch)


def stop_at(step: int) -> None:
    """Ask the run to end once that many steps are done."""
    from tunesmith.train.guarded import GuardedTrainer

    def training_step(original: Any, trainer: Any, *args: Any) -> Any:
        if trainer.state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
            while not trainer.stop.asked:
                time.sleep(0.001)
        return original(trainer, *args)

    _wrap(GuardedTrainer, "training_step", training_step)


def slow(what: str) -> None:
    """A validation, or the computation of a step, that takes twenty seconds."""
    from tunesmith.train.sft import ForestTrainer

    def wait(original: Any, trainer: Any, *args: Any) -> Any:
        if trainer.state.global_step >= 3:
            for _ in range(200):
                time.sleep(0.1)
        return original(trainer, *args)

    _wrap(ForestTrainer, "validation_loss" if what == "validation" else "row_losses", wait)


def spoil(kind: str, step: int, persists: bool) -> None:
    """A loss, gradient or spike at a step, or with `persists` at every step from it on."""
    import torch

    from tunesmith.train import spikes
    from tunesmith.train.sft import ForestTrainer

    spikes.LEAST = 3  # runs here have few steps
    bad: set[str] = set()

    def row_losses(original: Any, trainer: Any, model: Any, planned: Any) -> Any:
        losses = original(trainer, model, planned)
        now = trainer.state.global_step
        if persists and now >= step:
            bad.update(name for row in planned.examples for name in row)
        elif now == step and not bad:
            bad.add(planned.examples[0][0])
        hit = [at for at, row in enumerate(planned.examples) if bad & set(row)]
        if kind in ("nan", "inf"):
            losses[hit] = float(kind)
        elif kind == "spike" and (now == step or (persists and now >= step)):
            losses *= 100
        elif kind == "gradient" and hit:
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(torch.inf)
        return losses

    _wrap(ForestTrainer, "row_losses", row_losses)


def run_out_of_memory(step: int, row: int) -> None:
    """At that row of that step, or at its last one, rows of more than one example do not fit."""
    import torch

    from tunesmith.train.sft import ForestTrainer

    left = -1

    def row_losses(original: Any, trainer: Any, model: Any, planned: Any) -> Any:
        nonlocal left
        fits = all(len(names) == 1 for names in planned.examples)
        left = min(row, len(planned.rows) - 1) if trainer.state.global_step == step and not fits else -1
        return original(trainer, model, planned)

    def row_loss(original: Any, trainer: Any, *args: Any) -> Any:
        nonlocal left
        if left == 0 and trainer.model.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        left -= 1
        return original(trainer, *args)

    _wrap(ForestTrainer, "row_losses", row_losses)
    _wrap(ForestTrainer, "row_loss", row_loss)


def step_clock(to: Any) -> None:
    """From the third step on, `time.time` says something else."""
    from tunesmith.train.guarded import GuardedTrainer

    real = time.time

    def training_step(original: Any, trainer: Any, *args: Any) -> Any:
        if trainer.state.global_step == 3:
            shift = {"1970": -real() + 10, "2038": 2**31 - real() + 10}.get(to, to)
            time.time = lambda: real() + shift
        return original(trainer, *args)

    _wrap(GuardedTrainer, "training_step", training_step)


def kill_worker_at(step: int) -> None:
    """SIGKILL to a process that plans steps ahead."""
    import multiprocessing

    from tunesmith.train.guarded import GuardedTrainer

    def training_step(original: Any, trainer: Any, *args: Any) -> Any:
        if trainer.state.global_step == step:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
        return original(trainer, *args)

    _wrap(GuardedTrainer, "training_step", training_step)


def mutate(checkpoint: Path, name: str, chance: random.Random) -> str:
    """Change one file of a checkpoint; returns how."""
    path = checkpoint / name
    content = path.read_bytes()
    kind = chance.choice(["flip", "flip", "cut", "lengthen", "empty", "missing", "swap", "link"])
    at = chance.randrange(len(content))
    if kind == "flip":
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
    elif kind == "cut":
        path.write_bytes(content[:at])
    elif kind == "lengthen":
        path.write_bytes(content + chance.randbytes(1 + chance.randrange(64)))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "swap":
        other = chance.choice(sorted(p for p in checkpoint.iterdir() if p.name != name))
        theirs = other.read_bytes()
        other.write_bytes(content)
        path.write_bytes(theirs)
        if theirs == content:
            path.write_bytes(b"x" + content)
    else:
        path.unlink()
        path.symlink_to("/dev/null")
    return f"{kind} at byte {at} of {name}"
