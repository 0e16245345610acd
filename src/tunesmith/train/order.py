"""The order of an epoch that brings examples of one prefix together, so that sharing it pays (`train.per_prefix`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.beginnings import common_start_of_arrays
from tunesmith.types import IGNORE, Tokens

LEAST_PREFIXES = 8
"""Distinct prefixes that a step keeps, where the data have as many."""
_BLOCK = 16
"""Tokens compared at once."""
_AHEAD = 4
"""Steps looked ahead for a prefix that a step does not have yet."""

Indices = NDArray[np.int64]


def prefix_groups(examples: Sequence[Tokens]) -> list[Indices]:
    """Indices of examples that share at least half of what can be shared of them, largest common start first.

    Prefixes are compared by hashes of 16 tokens, so this needs a few hundred bytes for each example.
    """
    weights = np.random.Generator(np.random.Philox(key=[0, 0])).integers(1, 2**63, _BLOCK, dtype=np.uint64)
    hashes: list[NDArray[np.uint64]] = []
    for one in examples:
        labelled = np.flatnonzero(one.labels[1:] != IGNORE)
        shareable = int(labelled[0]) if len(labelled) else len(one.labels)
        whole = shareable // _BLOCK * _BLOCK
        blocks = one.input_ids[:whole].reshape(-1, _BLOCK).astype(np.uint64) + np.uint64(1)
        hashes.append((blocks * weights).sum(1, dtype=np.uint64).astype(">u8"))
    order = sorted(range(len(hashes)), key=lambda at: (hashes[at].tobytes(), at))
    groups: list[list[int]] = []
    for before, at in zip([None, *order], order, strict=False):
        shared = 0 if before is None else common_start_of_arrays(hashes[before], hashes[at])
        if before is not None and shared and 2 * shared >= len(hashes[at]):
            groups[-1].append(at)
        else:
            groups.append([at])
    return [np.array(sorted(group), np.int64) for group in groups]


def grouped_order(
    groups: Sequence[Indices], per_prefix: int, batch_size: int, generator: np.random.Generator
) -> Indices:
    """Every index once: `per_prefix` of one group side by side, each group spread evenly over the epoch.

    Args:
        groups: of all examples, as `prefix_groups` gives them.
        per_prefix: most examples of a group that stand together.
        batch_size: examples per step; a step takes a second portion of a group only where no other is near.
        generator: decides the order.
    """
    portions: list[tuple[float, int, Indices]] = []
    for number, group in enumerate(groups):
        shuffled = group[generator.permutation(len(group))]
        cut = [shuffled[at : at + per_prefix] for at in range(0, len(shuffled), per_prefix)]
        places = (np.arange(len(cut)) + generator.random(len(cut))) / len(cut)
        portions += [(float(place), number, one) for place, one in zip(places, cut, strict=True)]
    waiting = sorted(portions, key=lambda one: one[:2])
    look = _AHEAD * max(1, batch_size // per_prefix)
    order: list[int] = []
    present: set[int] = set()
    while waiting:
        at = next((at for at, one in enumerate(waiting[:look]) if one[1] not in present), 0)
        _, number, one = waiting.pop(at)
        step = len(order) // batch_size
        order += one.tolist()
        present.add(number)
        if len(order) // batch_size > step:  # what is left of this portion begins the next step
            present = {number} if len(order) % batch_size else set()
    return np.array(order, np.int64)
