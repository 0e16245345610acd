"""A trainer whose run cannot be lost: it can be stopped at any instant, and goes on to the same bits.

Between two updates the weights and the optimizer do not change. So the state after the last complete step can be saved
while the next one is being computed, by another thread, as long as the update itself waits for it: `_moving` is held
from just before an update until its step is complete. What does change meanwhile (random numbers, the log) is kept in
a `Snapshot`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerControl

from tunesmith.checkpoints.commit import PREFIX, STAGING, Manifest, commit
from tunesmith.checkpoints.lock import RunLock
from tunesmith.checkpoints.resume import prune
from tunesmith.config.schema import RunConfig
from tunesmith.errors import ModelError, StorageError
from tunesmith.rundir import RunDir
from tunesmith.stop import Stop
from tunesmith.train.callbacks import KeepBest
from tunesmith.train.state import random_state, read_parts, read_trained, set_random_state, write_parts, write_trained

log = logging.getLogger(__name__)

_TRAINER_STATE = "trainer_state.json"
_PATIENCE_SECONDS = 20.0
"""How long a stop waits for an update that is under way; it takes milliseconds."""


class Finished(Exception):
    """What was due at the last step is done, and no step is left."""


class Snapshot(NamedTuple):
    """What may change before the next update and belongs to the state after a step."""

    step: int
    parts: dict[str, Any]
    logged: int
    """Entries of the log."""


class DurableTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """`transformers.Trainer` with our checkpoints: when they are taken, what is in them, how they are read.

    Args:
        config: the run.
        run: where checkpoints go.
        identity: what a checkpoint must agree with.
        options: of `transformers.Trainer`.
    """

    state: Any
    control: Any

    def __init__(self, config: RunConfig, run: RunDir, identity: Mapping[str, Any], **options: Any) -> None:
        self.settings = config
        self.run_files = run
        self.identity = identity
        self.on_commit: list[Callable[[Path, Manifest], None]] = []
        """Told of every checkpoint, possibly from another thread."""
        self.may_go: Callable[[Path], bool] = lambda path: True
        """Whether an old checkpoint may be deleted."""
        self.lock: RunLock | None = None
        self.stop = Stop()
        self.seconds_saving = 0.0
        """Spent on checkpoints in this call of `fit`."""
        self._snapshot: Snapshot | None = None
        self._ready: Any = None
        """On a GPU: passed when the last update is done."""
        self._moving, self._saving = threading.Lock(), threading.Lock()
        self._updating = False
        """Whether it is an update, and not a save, that holds `_moving`."""
        self._restored: dict[str, Any] = {}
        self._last_save = time.monotonic()
        super().__init__(**options)
        self.add_callback(_Boundaries(self))

    # --- what a method adds ---------------------------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        """What else decides the next step, as `write_parts` takes it."""
        return {}

    def restore_own_state(self, state: dict[str, Any]) -> None:
        """Continue from what `own_state` said."""

    # --- between two updates --------------------------------------------------------------------------------------

    def _maybe_log_save_evaluate(  # type: ignore[no-untyped-def]
        self, tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=None
    ) -> None:
        if self._updating:  # also called where an epoch ends, when nothing was updated and a save may be on
            due = {
                "log": self.control.should_log,
                "evaluate": self.control.should_evaluate,
                "grad_norm": None if grad_norm is None else float(grad_norm),
                "learning_rate": learning_rate,
            }
            self._take_snapshot(due if due["log"] or due["evaluate"] else None)
            self._updating = False
            self._moving.release()
        super()._maybe_log_save_evaluate(
            tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=learning_rate
        )
        if self._snapshot is not None and self._snapshot.parts["progress"]["due"]:
            self._take_snapshot(None)

    def _take_snapshot(self, due: dict[str, Any] | None) -> None:
        progress = {
            "step": self.state.global_step,
            "epoch": self.state.epoch,
            "loss": self._tr_loss.clone(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "due": due,
        }
        callbacks = {type(one).__name__: one.state()["attributes"] for one in self._stateful()}
        parts = {"progress": progress, "random": random_state(), "callbacks": callbacks, "own": self.own_state()}
        self._snapshot = Snapshot(self.state.global_step, parts, len(self.state.log_history))
        if torch.cuda.is_available():
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()

    def _stateful(self) -> list[Any]:
        stateful = (one for one in self.callback_handler.callbacks if isinstance(one, ExportableState))
        return [one for one in stateful if not isinstance(one, TrainerControl)]

    def callback(self, kind: type[Any]) -> Any:
        """The callback of that class, or None."""
        return next((one for one in self.callback_handler.callbacks if isinstance(one, kind)), None)

    # --- saving ---------------------------------------------------------------------------------------------------

    def save_now(self) -> str:
        """Save the state after the last complete step, whatever is being computed; for `Stop.saving`.

        Raises:
            StorageError: it cannot be written.
        """
        began = time.perf_counter()
        if not self._moving.acquire(timeout=_PATIENCE_SECONDS):
            return "in the middle of an update, without a new checkpoint"
        try:
            at = self._snapshot
            if at is None:
                return "before the first step was complete" if not self._restored else "where it was continued from"
            with _beside(self._ready):
                self.save(at)
        finally:
            self._moving.release()
        took = time.perf_counter() - began
        log.info("the checkpoint of step %d is safe, %.2f s after the request", at.step, took)
        return f"at step {at.step} of {self.state.max_steps}, with a checkpoint"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._take_snapshot(None)
        assert self._snapshot is not None
        self.save(self._snapshot)

    def save(self, at: Snapshot) -> Path:
        """Write and commit a checkpoint; nothing to do where that step has one.

        Raises:
            StorageError: the disk refused, or another process took the run over; the checkpoint before is intact.
            DivergedError: a weight is not a number.
        """
        final = self.run_files.checkpoints / f"{PREFIX}{at.step}"
        staged = self.run_files.checkpoints / f"{STAGING}{at.step}"
        with self._saving:
            if final.exists():
                return final
            began = time.perf_counter()
            try:
                self._write(staged, at)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    if self.lock is not None:
                        self.lock.require()
                    writer = self.lock.writer if self.lock is not None else None
                    manifest = commit(staged, final, at.step, self.identity, writer)
                    for told in self.on_commit:
                        told(final, manifest)
                    prune(self.run_files.checkpoints, self.settings.checkpoints.keep_last, self.may_go)
            except OSError as error:
                shutil.rmtree(staged, ignore_errors=True)  # what it took of a full disk is of use elsewhere
                raise self._not_written(error, at.step) from error
            self._last_save = time.monotonic()
            self.seconds_saving += time.perf_counter() - began
        return final

    def _write(self, staged: Path, at: Snapshot) -> None:
        if self.args.should_save:
            staged.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(staged, ignore_errors=True)
            self._require_space(staged.parent)
            staged.mkdir()
            write_trained(self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False), staged)
            scaler = self.accelerator.scaler
            write_parts(
                staged,
                **at.parts,
                optimizer=self.optimizer.state_dict(),
                scheduler=self.lr_scheduler.state_dict(),
                scaler=scaler.state_dict() if scaler is not None else {},
            )
            state = dataclasses.replace(
                self.state, global_step=at.step, epoch=at.parts["progress"]["epoch"],
                log_history=self.state.log_history[: at.logged],
            )  # fmt: skip
            (staged / _TRAINER_STATE).write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
            if (best := self.callback(KeepBest)) is not None and best.path.exists():
                shutil.copyfile(best.path, staged / best.path.name)  # so that a checkpoint is all that a resume needs
        if self.args.world_size > 1:
            self.accelerator.wait_for_everyone()
            mine = staged / f"process-{self.args.process_index}"
            mine.mkdir()
            write_parts(mine, random=at.parts["random"])

    def _require_space(self, folder: Path) -> None:
        """A full disk is told before a byte is written, with how much is missing."""
        trained = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        moments = sum(
            value.numel() * value.element_size()
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
        free = shutil.disk_usage(folder).free
        if free < trained + moments:
            raise OSError(28, f"{trained + moments:,} bytes are needed and {free:,} are free", str(folder))

    def _not_written(self, error: OSError, step: int) -> StorageError:
        before = sorted(int(p.name.removeprefix(PREFIX)) for p in self.run_files.checkpoints.glob(f"{PREFIX}*"))
        kept = f"the checkpoint of step {before[-1]} is intact" if before else "there is none before it"
        return StorageError(
            f"the checkpoint of step {step} cannot be written ({error.strerror or error}); {kept}",
            place=str(self.run_files.checkpoints),
            remedy="free space or give permission, or move the run to another disk; then the same command continues",
        )

    # --- going on -------------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        read_trained(self.model, Path(resume_from_checkpoint))
        self.restore(Path(resume_from_checkpoint))

    def restore(self, checkpoint: Path) -> None:
        """Read everything but the weights, and continue callbacks and method from it; the loop takes the rest."""
        self._restored = read_parts(checkpoint)
        for one in self._stateful():
            attributes = self._restored["callbacks"].get(type(one).__name__, {})
            for name, value in attributes.items():
                setattr(one, name, value)
        best = self.callback(KeepBest)
        if best is not None and (checkpoint / best.path.name).exists():
            shutil.copyfile(checkpoint / best.path.name, best.path)
        if self.args.world_size > 1:
            self._restored |= read_parts(checkpoint / f"process-{self.args.process_index}")
        self.restore_own_state(self._restored["own"])

    @property
    def due(self) -> bool:
        """Whether the restored step still has to be logged or evaluated."""
        return bool(self._restored) and self._restored["progress"]["due"] is not None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _require_fitting(self.optimizer, self._restored["optimizer"], checkpoint)
            self.optimizer.load_state_dict(self._restored["optimizer"])
            self.lr_scheduler.load_state_dict(self._restored["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None and self._restored["scaler"]:
            self.accelerator.scaler.load_state_dict(self._restored["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(self._restored["random"])

    def _finish_step(self) -> None:
        """Continue the sums of the log, and do what was due when the checkpoint was taken."""
        progress = self._restored["progress"]
        self._tr_loss = progress["loss"].to(self.args.device)
        self._total_loss_scalar = progress["total_loss"]
        self._globalstep_last_logged = progress["last_logged"]
        due = progress["due"]
        if due is None:
            return
        self.control.should_log, self.control.should_evaluate = due["log"], due["evaluate"]
        super()._maybe_log_save_evaluate(
            self._tr_loss, due["grad_norm"], self.model, None, progress["epoch"], None, time.time(),
            learning_rate=due["learning_rate"],
        )  # fmt: skip
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            raise Finished


def _require_fitting(optimizer: Any, state: Any, checkpoint: str) -> None:
    """Raise `ModelError` where an optimizer's state has other shapes than the weights it belongs to."""
    try:
        shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
        order = [number for group in state["param_groups"] for number in group["params"]]
        moments = [tuple(state["state"][number]["exp_avg"].shape) for number in order if number in state["state"]]
        fits = len(order) == len(shapes) and (not moments or moments == shapes)
    except (KeyError, TypeError, AttributeError):
        return  # an optimizer with a state of its own kind, which it checks itself
    if not fits:
        raise ModelError(
            "the optimizer's state in the checkpoint has other shapes than the weights",
            place=checkpoint,
            remedy="it was put together from several runs: restore a copy, or start anew with --fresh",
        )


@contextmanager
def _beside(ready: Any) -> Iterator[None]:
    """On a GPU: copy weights as soon as the last update is done, not behind the kernels of the next step."""
    if ready is None:
        yield
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_event(ready)
    with torch.cuda.stream(stream):
        yield


class _Boundaries(TrainerCallback):  # type: ignore[misc]
    """Holds the update together, and lets a request in between."""

    def __init__(self, trainer: DurableTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer._restored:
            self._trainer._finish_step()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.stop.check()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.stop.check()
        self._trainer._moving.acquire()
        self._trainer._updating = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer = self._trainer
        if args.world_size > 1:  # processes stop together or wait for each other for ever
            asked = torch.tensor(float(trainer.stop.asked), device=args.device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            if bool(asked):
                control.should_save = control.should_training_stop = True
        minutes = trainer.settings.checkpoints.save_minutes
        if minutes is not None and time.monotonic() - trainer._last_save >= 60 * minutes and args.world_size == 1:
            control.should_save = True
