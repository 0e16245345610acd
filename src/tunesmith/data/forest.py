"""The examples of one optimizer step -> rows: prefix trees in depth-first order.

    three examples      one row
    A B x y             tokens        A  B  x  y  B  C  d  e  C  f  g     (labelled tokens in lower case)
    A B C d e           position      0  1  2  3  1  2  3  4  2  3  4
    A B C f g           subtree_end  10  3  3  3 10  7  7  7 10 10 10

Only tokens that predict nothing are shared: a branch starts at or before the token that predicts its first label, so
every label belongs to one example and is counted once (`Row` in `types.py` says who sees whom).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.beginnings import common_start_of_arrays
from tunesmith.types import IGNORE, Row, Tokens

Ints = NDArray[np.int32]


def plant_forest(tokens: Sequence[Tokens], max_tokens: int, share: bool = True) -> list[Row]:
    """Pack one step's examples into rows of at most `max_tokens` tokens, sharing prefixes; the same rows every time.

    Subtrees are kept whole where they fit, and put where most of their prefix already is, else where they leave the
    least room (best fit, longest first). An example is never cut: one longer than `max_tokens` has a row of its own.

    Args:
        tokens: the examples, in any order.
        max_tokens: most tokens per row.
        share: False packs every example whole, side by side.
    """
    if not tokens:
        return []
    lengths = [len(one.input_ids) for one in tokens]
    if share:
        shareable = [_shareable(one.labels) for one in tokens]
        # Big-endian bytes of non-negative ids sort as the ids do, a prefix before what continues it.
        keys = [one.input_ids[:stop].astype(">i4").tobytes() for one, stop in zip(tokens, shareable, strict=True)]
        order = sorted(range(len(tokens)), key=lambda index: (keys[index], index))
        common = [0] * len(tokens)
        for at in range(1, len(order)):
            common[at] = common_start_of_arrays(
                tokens[order[at - 1]].input_ids[: shareable[order[at - 1]]],
                tokens[order[at]].input_ids[: shareable[order[at]]],
            )
    else:
        order, common = list(range(len(tokens))), [0] * len(tokens)
    sizes = [lengths[index] for index in order]
    rows = _fill(_units(sizes, common, max_tokens), sizes, common, max_tokens)
    return [_row([tokens[order[at]] for at in members], _depths(members, common)) for members in rows]


def _shareable(labels: Ints) -> int:
    """Tokens before the one that predicts the first label."""
    labelled = labels[1:] != IGNORE
    first = int(labelled.argmax()) if labelled.size else 0
    return first if labelled.size and labelled[first] else len(labels)


def _units(sizes: list[int], common: list[int], max_tokens: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of the sorted examples: the largest subtrees that fit in a row, else their branches."""
    units: list[tuple[int, int]] = []
    pending = [(0, len(sizes))]
    while pending:
        start, stop = pending.pop()
        cost = sum(sizes[start:stop]) - sum(common[start + 1 : stop])
        if stop - start == 1 or cost <= max_tokens:
            units.append((start, stop))
            continue
        depth = min(common[start + 1 : stop])
        cuts = [start, *(at for at in range(start + 1, stop) if common[at] == depth), stop]
        pending += zip(cuts, cuts[1:], strict=False)
    return sorted(units)


def _fill(units: list[tuple[int, int]], sizes: list[int], common: list[int], max_tokens: int) -> list[list[int]]:
    """Members (positions in sorted order, ascending) of each row."""
    costs = [sum(sizes[start:stop]) - sum(common[start + 1 : stop]) for start, stop in units]
    # Shared depth between neighbouring units; between any two it is the least of those in between.
    joints = [common[start] for start, _ in units]
    rows: list[list[int]] = []
    used: list[int] = []
    row_of = [-1] * len(units)
    for unit in sorted(range(len(units)), key=lambda index: (-costs[index], index)):
        shared: dict[int, int] = {}
        depth = joints[unit]
        for other in range(unit - 1, -1, -1):
            if depth == 0:
                break
            if row_of[other] >= 0:
                shared[row_of[other]] = max(shared.get(row_of[other], 0), depth)
            depth = min(depth, joints[other])
        depth = joints[unit + 1] if unit + 1 < len(units) else 0
        for other in range(unit + 1, len(units)):
            if depth == 0:
                break
            if row_of[other] >= 0:
                shared[row_of[other]] = max(shared.get(row_of[other], 0), depth)
            depth = min(depth, joints[other + 1]) if other + 1 < len(units) else 0
        best = min(
            (
                (-shared.get(row, 0), max_tokens - used[row] - costs[unit] + shared.get(row, 0), row)
                for row in range(len(rows))
                if used[row] + costs[unit] - shared.get(row, 0) <= max_tokens
            ),
            default=None,
        )
        if best is None:
            row_of[unit] = len(rows)
            rows.append([unit])
            used.append(costs[unit])
        else:
            row_of[unit] = best[2]
            rows[best[2]].append(unit)
            used[best[2]] += costs[unit] + best[0]
    return [[at for unit in sorted(members) for at in range(*units[unit])] for members in rows]


def _depths(members: list[int], common: list[int]) -> list[int]:
    """How much of its prefix each member finds in the row before it."""
    depths = [0]
    for before, at in zip(members, members[1:], strict=False):
        depths.append(common[at] if at == before + 1 else min(common[before + 1 : at + 1]))
    return depths


def _row(members: list[Tokens], depths: list[int]) -> Row:
    sizes = [len(one.input_ids) - depth for one, depth in zip(members, depths, strict=True)]
    total = sum(sizes)
    ids, labels = np.empty(total, np.int32), np.full(total, IGNORE, np.int32)
    position, subtree_end = np.empty(total, np.int32), np.empty(total, np.int32)
    stop = total
    # From the last example to the first: `ends` holds, by depth, where the subtrees on the current path end.
    ends: list[tuple[int, int]] = []
    for at in range(len(members) - 1, -1, -1):
        one, depth = members[at], depths[at]
        start = stop - sizes[at]
        following = depths[at + 1] if at + 1 < len(members) else 0
        while ends and ends[-1][0] >= following:
            ends.pop()
        ends.append((following, stop - 1))
        ids[start:stop] = one.input_ids[depth:]
        labels[start : stop - 1] = one.labels[depth + 1 :]
        position[start:stop] = np.arange(depth, depth + sizes[at], dtype=np.int32)
        for since, end in ends:  # by rising depth, so that the deeper ones overwrite
            subtree_end[start + max(0, since - depth) : stop] = end
        stop = start
    return Row(ids, labels, position, subtree_end, tuple(one.id for one in members))
