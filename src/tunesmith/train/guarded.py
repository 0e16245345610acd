"""What goes wrong inside a step is dealt with at that step: memory, numbers that are none, losses out of proportion.

Everything here happens before the update, so there is nothing to take back but gradients.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.checkpoints.batches import BatchLedger
from tunesmith.errors import DivergedError, ModelError
from tunesmith.train.durable import DurableTrainer
from tunesmith.train.spikes import Spikes
from tunesmith.train.state import random_state, set_random_state
from tunesmith.train.steps import Step, Steps, plan_step

log = logging.getLogger(__name__)

_IN_A_ROW = 3
"""Steps without an update one after the other that a run survives."""
_SHARE = 0.02
"""Share of the training examples that may be set aside, and at least as many as a step has."""
_SHOWN = 8


class GuardedTrainer(DurableTrainer):
    """A trainer that computes a step again in smaller rows, or without the examples that spoil it.

    A method gives `steps`, `planting` and `row_losses`.
    """

    model: Any
    steps: Steps
    planting: dict[str, Any]
    """Further arguments of `plan_step`; `max_tokens` falls when memory runs out."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tell: Callable[..., None] = lambda kind, step, **figures: None
        """Told of what happened, as `Tracker.event` is."""
        self._spikes = Spikes(self.settings.train.spike_sigma)
        self._aside: dict[int, str] = {}
        """Index of every example that is not trained on any more, with why."""
        self._skipped: list[int] = []
        """Steps that made no update."""
        self._batches: BatchLedger | None = None
        self._chain = ""

    @abstractmethod
    def row_losses(self, model: Any, step: Step) -> Tensor:
        """Forward and backward over the rows of a step; the sum of the loss of each, shape (rows,)."""

    # --- one step -------------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> Tensor:
        """Gradients of a step, or none where it is to make no update; returns its loss per label token."""
        self._note(inputs)
        number, start = self.state.global_step, random_state()
        if self._aside or self.planting["max_tokens"] != self.settings.train.max_tokens:
            inputs = self._plan(number)
        while True:
            losses, message = self._attempt(model, inputs)
            if losses is None:
                again = self._in_smaller_rows(number, inputs, message)
            elif (bad := self._not_numbers(model, inputs, losses)) is not None:
                again = self._without(number, *bad)
            else:
                break
            inputs = again
            model.zero_grad()
            set_random_state(start)  # the same masks of dropout, as far as rows are the same
        total: Tensor = losses.sum() / (max(1, inputs.labels) / self.args.world_size)
        if self.args.world_size == 1 and self._spikes.is_spike(float(total)):
            self._skip(number, self._spikes.sentence(float(total)))
            model.zero_grad()
        return total

    def _attempt(self, model: Any, inputs: Step) -> tuple[Tensor | None, str]:
        """The losses of a step's rows; None, and what was said, when memory ran out."""
        try:
            return self.row_losses(model, inputs), ""
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None, (str(error) or "out of memory").splitlines()[0]

    def _plan(self, number: int) -> Step:
        """A step as it is to be computed now: without what was set aside, in rows of the present size."""
        members = [int(at) for at in self.steps.members(number) if int(at) not in self._aside]
        if not members:
            raise self._diverged(f"no example of step {number + 1} has a loss that is a number", self._names(number))
        examples = [self.prepared_examples[at] for at in members]
        return plan_step(
            examples, **self.planting, rank=self.args.process_index, world=self.args.world_size
        )  # its digest was noted before

    @property
    def prepared_examples(self) -> Sequence[Any]:
        """What steps take their examples from."""
        return self.steps.examples

    def _names(self, number: int) -> list[str]:
        return [self.prepared_examples[int(at)].id for at in self.steps.members(number)]

    # --- memory ---------------------------------------------------------------------------------------------------

    def _in_smaller_rows(self, number: int, inputs: Step, message: str) -> Step:
        """The same examples in rows of half the tokens: more of them, and the same loss.

        Raises:
            ModelError: each row is one example already.
        """
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        before = self.planting["max_tokens"]
        while any(len(examples) > 1 for examples in inputs.examples) and self.args.world_size == 1:
            longest = max(int(row["input_ids"].shape[1]) for row in inputs.rows)
            self.planting["max_tokens"] = max(1, min(self.planting["max_tokens"], longest) // 2)
            again = self._plan(number)
            if len(again.rows) > len(inputs.rows):
                now = self.planting["max_tokens"]
                log.warning(
                    "out of memory at step %d (%s): rows have %d tokens instead of %d from here on; batch and loss "
                    "stay as they are. Set train.max_tokens to that to start with it", number + 1, message, now, before,
                )  # fmt: skip
                self.tell("out_of_memory", number + 1, max_tokens=now, before=before)
                return again
        if self.args.world_size > 1:  # the other processes are in the middle of their rows
            raise ModelError(
                f"out of memory at step {number + 1}: {message}",
                place="train.max_tokens",
                remedy="halve train.max_tokens (it changes memory, never the result)",
            )
        raise ModelError(
            f"out of memory at step {number + 1}, with one example a row: {message}",
            place="train.max_tokens",
            remedy="set train.gradient_checkpointing: true, lower data.max_length, or use a smaller or quantised base",
        )

    # --- numbers that are none --------------------------------------------------------------------------------------

    def _not_numbers(self, model: Any, inputs: Step, losses: Tensor) -> tuple[str, list[int]] | None:
        """What is no number and the examples that make it so; None when loss and gradients are fine."""
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            rows = [examples for examples, fine in zip(inputs.examples, finite.tolist(), strict=True) if not fine]
            what = f"the loss is {losses[~finite][0].item()}, not a number"
            return what, self._culprits(model, [name for examples in rows for name in examples], gradients=False)
        # With a loss scaler an infinite gradient is an ordinary event: it skips the step and lowers the scale.
        if self.accelerator.scaler is None and not _gradients_are_numbers(model):
            names = [name for examples in inputs.examples for name in examples]
            return "the gradient is not a number", self._culprits(model, names, gradients=True)
        return None

    def _culprits(self, model: Any, names: Sequence[str], gradients: bool) -> list[int]:
        """Indices of the examples that spoil a step when computed alone; all of them where none does."""
        where = {self.prepared_examples[int(at)].id: int(at) for at in self.steps.members(self.state.global_step)}
        candidates = [where[name] for name in names if name in where]
        if self.args.world_size > 1:
            return candidates
        bad = []
        for at in candidates:
            model.zero_grad()
            losses = self.row_losses(model, plan_step([self.prepared_examples[at]], **self.planting))
            if not bool(torch.isfinite(losses).all()) or (gradients and not _gradients_are_numbers(model)):
                bad.append(at)
        model.zero_grad()
        return bad or candidates

    def _without(self, number: int, what: str, bad: list[int]) -> Step:
        """The step without some examples, which are set aside for good.

        Raises:
            DivergedError: that is not wanted, nothing would be left of the step, or too many were set aside already.
        """
        names = [self.prepared_examples[at].id for at in bad]
        most = max(self.settings.train.batch_size, int(_SHARE * len(self.prepared_examples)))
        left = (
            len(self.steps.members(number)) - len(bad) - sum(int(a) in self._aside for a in self.steps.members(number))
        )
        if self.settings.train.on_divergence == "stop" or left <= 0 or self.args.world_size > 1:
            raise self._diverged(what, names)
        if len(self._aside) + len(bad) > most:
            raise self._diverged(f"{what}, {len(self._aside)} examples were set aside before, and it goes on", names)
        self._aside |= dict.fromkeys(bad, what)
        log.warning("step %d: %s; set aside for the rest of the run: %s", number + 1, what, _listed(names))
        self.tell("set_aside", number + 1, reason=what, examples=names)
        return self._plan(number)

    # --- out of proportion ------------------------------------------------------------------------------------------

    def _skip(self, number: int, what: str) -> None:
        """Make no update at this step.

        Raises:
            DivergedError: that is not wanted, or it is not the first one in a row.
        """
        names = self._names(number)
        if self.settings.train.on_divergence == "stop":
            raise self._diverged(what, names)
        self._skipped.append(number)
        if self._skipped[-_IN_A_ROW - 1 :] == list(range(number - _IN_A_ROW, number + 1)):
            raise self._diverged(f"{what}, and so it was at the {_IN_A_ROW} steps before, which made no update", names)
        log.warning("step %d makes no update: %s; its examples: %s", number + 1, what, _listed(names))
        self.tell("skipped", number + 1, reason=what, examples=names)

    def _diverged(self, what: str, names: Sequence[str]) -> DivergedError:
        return DivergedError(
            f"{what}, at step {self.state.global_step + 1}" + (f", in examples {_listed(names)}" if names else ""),
            place=str(self.run_files.root),
            remedy="lower train.learning_rate or raise train.warmup_ratio; look at the examples with "
            "`tunesmith data show`. The checkpoints before this step are intact",
        )

    # --- what a checkpoint keeps of it ------------------------------------------------------------------------------

    def _note(self, inputs: Step) -> None:
        """Write down what the step is trained on; after a resume, make sure that it is what it was."""
        if self._batches is None:
            self._batches = BatchLedger(self.run_files.batches, self.state.global_step, self._chain)
        if self.args.should_save:
            self._batches.note(self.state.global_step + 1, inputs.digest)

    def own_state(self) -> dict[str, Any]:
        """Digest of the steps so far, size of rows, what was set aside, and the losses that spikes are judged by."""
        return {
            "batches": self._batches.chain if self._batches is not None else self._chain,
            "max_tokens": self.planting["max_tokens"],
            "aside": dict(self._aside),
            "skipped": list(self._skipped),
            "losses": list(self._spikes.losses),
        }

    def restore_own_state(self, state: dict[str, Any]) -> None:
        """Continue from what `own_state` said."""
        self._chain = state["batches"]
        self.planting["max_tokens"] = min(self.planting["max_tokens"], state["max_tokens"])
        self._aside, self._skipped = state["aside"], state["skipped"]
        self._spikes.losses.clear()
        self._spikes.losses.extend(state["losses"])

    @property
    def set_aside(self) -> list[str]:
        """Ids of the examples that are not trained on any more."""
        return [self.prepared_examples[at].id for at in self._aside]

    @property
    def skipped(self) -> list[int]:
        """Numbers of the steps that made no update."""
        return [number + 1 for number in self._skipped]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or not; torch says the latter with a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDA out of memory" in text)


def _gradients_are_numbers(model: Any) -> bool:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return not gradients or bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
