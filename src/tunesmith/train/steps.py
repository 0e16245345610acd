"""The examples of every optimizer step, as rows of tensors. Which they are is a function of seed and step alone."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.train.order import LEAST_PREFIXES, Indices, grouped_order, prefix_groups
from tunesmith.types import IGNORE, Row, Tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, or one process's share of it."""

    rows: list[dict[str, Tensor]]
    """Each of batch size 1, as `collate_rows` makes them."""
    examples: list[tuple[str, ...]]
    """For each row, the ids of the examples whose labels are in it."""
    labels: int
    """Label tokens of the whole step, over all processes: what the loss is divided by."""
    computed: int
    """Tokens of its rows, over all processes: what the model computes."""
    digest: str = ""
    """Of its examples' tokens and labels, in order: the same however they are put into rows."""

    def pin_memory(self) -> Step:
        """Rows in page-locked memory; called by a loader that pins."""
        return replace(self, rows=[{name: one.pin_memory() for name, one in row.items()} for row in self.rows])


def plan_step(
    examples: Sequence[Tokens], *, max_tokens: int, share: bool, pad_id: int, rank: int = 0, world: int = 1
) -> Step:
    """Plant a step's examples and take this process's rows, balanced by tokens. Every process plans the whole step.

    A process for which no row is left computes one without labels: it must take part in the exchange of gradients.
    """
    rows = plant_forest(examples, max_tokens, share=share)
    loads: list[list[Row]] = [[] for _ in range(world)]
    weights = [0] * world
    for row in sorted(rows, key=lambda row: -len(row.input_ids)):
        least = weights.index(min(weights))
        loads[least].append(row)
        weights[least] += len(row.input_ids)
    mine = loads[rank]
    if not mine:
        shortest = min(rows, key=lambda row: len(row.input_ids))
        mine = [replace(shortest, labels=np.full_like(shortest.labels, IGNORE), examples=())]
    return Step(
        rows=[collate_rows([row], pad_id) for row in mine],
        examples=[row.examples for row in mine],
        labels=sum(int((row.labels != IGNORE).sum()) for row in rows),
        computed=sum(len(row.input_ids) for row in rows),
    )


class Steps(Dataset[Step]):
    """All optimizer steps of a run: item k is step k, whoever asks and whenever, so a resume only needs the number.

    Args:
        examples: the training set.
        batch_size: examples per step; the last step of an epoch has what is left.
        total: optimizer steps of the run.
        seed: with the epoch, decides the order.
        per_prefix: examples of one prefix that are brought together; 1 shuffles plainly.
        planting: further arguments of `plan_step`.
    """

    def __init__(
        self,
        examples: Sequence[Tokens],
        batch_size: int,
        total: int,
        seed: int,
        *,
        per_prefix: int = 1,
        **planting: Any,
    ) -> None:
        self.examples, self._batch_size, self._total, self._seed = examples, batch_size, total, seed
        self._planting = planting
        self._epoch, self._order = -1, np.zeros(0, np.int64)
        self._per_prefix = per_prefix
        self._groups = _worth_grouping(examples) if per_prefix > 1 else []
        self.per_epoch = steps_per_epoch(len(examples), batch_size)

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, step: int) -> Step:
        examples = [self.examples[int(at)] for at in self.members(step)]
        return replace(plan_step(examples, **self._planting), digest=digest_examples(examples))

    def members(self, step: int) -> NDArray[np.int64]:
        """Indices of the examples of a step (0-based)."""
        epoch, at = divmod(step, self.per_epoch)
        return self.order(epoch)[at * self._batch_size : (at + 1) * self._batch_size]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Indices of all examples in the order of an epoch: a permutation by a counter-based generator (Philox)."""
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
            self._epoch = epoch
            if self._groups:
                self._order = grouped_order(self._groups, self._per_prefix, self._batch_size, generator)
            else:
                self._order = generator.permutation(len(self.examples))
        return self._order


def _worth_grouping(examples: Sequence[Tokens]) -> list[Indices]:
    groups = prefix_groups(examples)
    if len(groups) < LEAST_PREFIXES:
        log.warning(
            "train.per_prefix: the data have %d distinct prefixes and a step should keep %d, so it is shuffled plainly",
            len(groups), LEAST_PREFIXES,
        )  # fmt: skip
        return []
    return groups


def digest_examples(examples: Sequence[Tokens]) -> str:
    """Of ids, tokens and labels."""
    digest = hashlib.blake2b(digest_size=16)
    for one in examples:
        digest.update(f"{one.id} {len(one.input_ids)} ".encode())
        digest.update(one.input_ids.astype("<i4").tobytes())
        digest.update(one.labels.astype("<i4").tobytes())
    return digest.hexdigest()


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimizer steps of one pass over the data."""
    return math.ceil(examples / batch_size)


def total_steps(examples: int, batch_size: int, epochs: float, max_steps: int) -> int:
    """Optimizer steps of a run: `max_steps`, or as many as the epochs have."""
    return max_steps if max_steps > 0 else math.ceil(epochs * steps_per_epoch(examples, batch_size))


def only(steps: list[Step]) -> Step:
    """A loader batch holds one step."""
    return steps[0]
