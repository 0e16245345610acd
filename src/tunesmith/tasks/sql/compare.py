"""Whether two results say the same.

The policy, in full:

- Rows are a multiset: a row twice is not a row once. Their order counts only where the right query has an ORDER BY at
  its top, and there up to ties of its keys.
- Column names do not count, nor does the order of the columns: results are the same if one permutation of the columns
  makes them so. A missing or an additional column does count.
- Numbers are compared as numbers, whatever their type and scale (1 = 1.0 = 1.00). Where at least one side is not whole,
  they may differ by one part in a million, because averages differ in their last digits by type. NaN equals NaN.
- A date equals the timestamp of its midnight. Timestamps without zone are UTC, as the session is.
- NULL equals NULL only. A boolean is not a number, a text is not a number.
- Arrays and JSON are compared by content; binary data byte by byte.
- Two empty results are equal, and the verdict says that they were empty: that proves little.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

from tunesmith.tasks.sql.guard import Result

TOLERANCE = 1e-6
"""Relative difference that two numbers may have when they are not both whole."""

_TRIES = 2_000
"""Column permutations that are tried; only columns with the same values are candidates for each other."""

Cell = tuple[str, Hashable]
Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a result is right."""

    equal: bool
    reason: str
    """One sentence for a person."""
    failure: str = ""
    """`wrong_columns`, `wrong_rows` or `wrong_order`; empty when equal."""
    both_empty: bool = False
    """Equal because there is nothing in either: weak evidence."""


def equal(
    gold: Result,
    predicted: Result,
    *,
    ordered: bool,
    ties: Sequence[Sequence[Any]] | None = None,
    first: Sequence[Sequence[Any]] = (),
    last: Sequence[Sequence[Any]] = (),
) -> Verdict:
    """Compare two results by the policy above.

    Args:
        gold: the right result; neither may hold an error.
        predicted: the other.
        ordered: whether the order of the rows counts.
        ties: for each gold row the values it was ordered by, so that rows that tie may change places. None: no ties.
        first: rows that an OFFSET left out although they tie with the first gold row: as good as it is.
        last: the same for a LIMIT and the last gold row.
    """
    width, other = len(gold.columns), len(predicted.columns)
    if width != other:
        return Verdict(False, f"{_count(other, 'column')} instead of {width}", "wrong_columns")
    if not gold.rows and not predicted.rows:
        return Verdict(True, "both results are empty", both_empty=True)
    if len(gold.rows) != len(predicted.rows):
        return Verdict(False, f"{_count(len(predicted.rows), 'row')} instead of {len(gold.rows)}", "wrong_rows")
    if _identical(gold.rows, predicted.rows):
        return Verdict(True, "the same rows")
    right = [tuple(map(cell, row)) for row in gold.rows]
    left = [tuple(map(cell, row)) for row in predicted.rows]
    keys = [tuple(map(cell, key)) for key in ties] if ties is not None else None
    if first or last:
        return _among_tied(right, left, keys, [tuple(map(cell, r)) for r in first], [tuple(map(cell, r)) for r in last])
    found = _permutation(right, left, keys if ordered else None, ordered)
    if found is not None:
        moved = found != tuple(range(width))
        return Verdict(True, "the same rows" + (", columns in another order" if moved else ""))
    if ordered and _permutation(right, left, None, False) is not None:
        return Verdict(False, "the right rows in the wrong order", "wrong_order")
    return Verdict(False, _first_difference(right, left), "wrong_rows")


_PLAIN = frozenset({int, float, Decimal, str, bytes, dt.date, dt.datetime, type(None)})


def _identical(right: Sequence[Sequence[Any]], left: Sequence[Sequence[Any]]) -> bool:
    """Whether two results are the same value by value, without a look at the policy: most right answers are.

    Python takes True for 1, so values of other types than the plain ones do not count as identical.
    """
    return right == left and all(type(value) in _PLAIN for rows in (right, left) for row in rows for value in row)


def groups(gold: Result, ties: Sequence[Sequence[Any]] | None) -> list[int]:
    """For each gold row the number of the group of tied rows that it belongs to, counted from the top."""
    keys = [tuple(map(cell, key)) for key in (ties if ties is not None else gold.rows)]
    found: list[int] = []
    for i, key in enumerate(keys):
        found.append(0 if i == 0 else found[-1] + (key != keys[i - 1]))
    return found


def _among_tied(
    right: Sequence[Row], left: Sequence[Row], keys: Sequence[Row] | None, first: Sequence[Row], last: Sequence[Row]
) -> Verdict:
    """Whether each group of tied rows is right, where a cut goes through the first or the last of them."""
    width = len(right[0])
    pool = [*first, *right, *last]
    candidates = [
        [j for j in range(width) if not Counter((r[j],) for r in left) - Counter((p[i],) for p in pool)]
        for i in range(width)
    ]
    ends = [i for i in range(1, len(right)) if keys is not None and keys[i] != keys[i - 1]]
    starts = [0, *ends]
    for columns in islice(_arrangements(candidates), _TRIES):
        arranged = [tuple(row[j] for j in columns) for row in left]
        for start, end in zip(starts, [*ends, len(right)], strict=True):
            allowed = [*(first if start == 0 else ()), *right[start:end], *(last if end == len(right) else ())]
            if not _same_bag(allowed, arranged[start:end], part=True):
                break
        else:
            return Verdict(True, "the same rows, up to rows that tie where the query cuts them off")
    return Verdict(False, _first_difference(right, left), "wrong_rows")


def cell(value: Any) -> Cell:
    """A value in the form in which it is compared: a kind, and something hashable."""
    if value is None:
        return ("null", None)
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int | float | Decimal):
        return ("number", _number(value))
    if isinstance(value, dt.datetime):
        naive = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return ("time", naive)
    if isinstance(value, dt.date):
        return ("time", dt.datetime(value.year, value.month, value.day))  # noqa: DTZ001
    if isinstance(value, str):
        return ("text", value)
    if isinstance(value, list | tuple):
        return ("list", tuple(map(cell, value)))
    if isinstance(value, Mapping):
        pairs = sorted((str(key), item) for key, item in value.items())
        return ("object", tuple(("list", (("text", key), cell(item))) for key, item in pairs))
    if isinstance(value, bytes | bytearray | memoryview):
        return ("bytes", bytes(value))
    return ("text", str(value))  # uuid, range, network address, interval, time of day: one spelling each


def _number(value: float | Decimal) -> Hashable:
    """Whole numbers exactly, others as they are; equal numbers of different types hash alike in Python."""
    if isinstance(value, float | Decimal) and math.isnan(value):
        return "NaN"
    return value


def _alike(a: Cell, b: Cell) -> bool:
    if a == b:
        return True
    if a[0] != b[0]:
        return False
    if a[0] == "number":
        return _near(a[1], b[1])
    if a[0] in ("list", "object") and isinstance(a[1], tuple) and isinstance(b[1], tuple):
        return len(a[1]) == len(b[1]) and all(map(_alike, a[1], b[1]))
    return False


def _near(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return False  # NaN is near nothing but itself
    if math.isinf(a) or math.isinf(b) or (_whole(a) and _whole(b)):
        return False
    x, y = Decimal(a), Decimal(b)
    larger = max(abs(x), abs(y))
    return abs(x - y) <= Decimal(TOLERANCE) * larger or larger < Decimal("1e-9")


def _whole(value: Any) -> bool:
    return isinstance(value, int) or value == int(value)


def _permutation(
    right: Sequence[Row], left: Sequence[Row], keys: Sequence[Row] | None, ordered: bool
) -> tuple[int, ...] | None:
    """For each column of `right` the column of `left` that it equals, where there is such an arrangement."""
    width = len(right[0])
    identity = tuple(range(width))
    if _same(right, left, identity, keys, ordered):
        return identity
    mine, theirs = ([Counter(row[i] for row in rows) for i in range(width)] for rows in (right, left))
    candidates = [[j for j in range(width) if _same_column(mine[i], theirs[j])] for i in range(width)]
    for arrangement in islice(_arrangements(candidates), _TRIES):
        if arrangement != identity and _same(right, left, arrangement, keys, ordered):
            return arrangement
    return None


def _same_column(right: Counter[Cell], left: Counter[Cell]) -> bool:
    """Whether two columns hold the same values, each as often; numbers in order are each other's nearest."""
    if right == left:
        return True
    missing, extra = right - left, left - right
    if missing.total() != extra.total() or not missing:
        return False
    if any(kind != "number" or isinstance(value, str) for kind, value in (*missing, *extra)):
        return _same_bag([(one,) for one in missing.elements()], [(one,) for one in extra.elements()])
    numbers: list[list[Any]] = [sorted(value for _, value in bag.elements()) for bag in (missing, extra)]
    return all(_near(a, b) for a, b in zip(*numbers, strict=True))


def _arrangements(candidates: Sequence[Sequence[int]], taken: tuple[int, ...] = ()) -> Iterable[tuple[int, ...]]:
    if len(taken) == len(candidates):
        yield taken
        return
    for j in candidates[len(taken)]:
        if j not in taken:
            yield from _arrangements(candidates, (*taken, j))


def _same(
    right: Sequence[Row], left: Sequence[Row], columns: tuple[int, ...], keys: Sequence[Row] | None, ordered: bool
) -> bool:
    arranged = [tuple(row[j] for j in columns) for row in left]
    if not ordered:
        return _same_bag(right, arranged)
    start = 0
    while start < len(right):
        end = start + 1
        while keys is not None and end < len(right) and keys[end] == keys[start]:
            end += 1
        if not _same_bag(right[start:end], arranged[start:end]):
            return False
        start = end
    return True


def _same_bag(right: Sequence[Row], left: Sequence[Row], part: bool = False) -> bool:
    """Multiset equality, with tolerance where exact equality fails; or, of a `part`, that `right` has all of `left`."""
    missing, extra = Counter(right), Counter(left)
    missing, extra = missing - extra, extra - missing
    if not extra and (part or not missing):
        return True
    if part:
        missing, extra = extra, missing
    # What is left may differ in the last digits only: give each row its own partner among those alike in all else.
    partners: dict[Row, list[Row]] = defaultdict(list)
    for row in extra.elements():
        partners[_without_numbers(row)].append(row)
    for row in missing.elements():
        others = partners[_without_numbers(row)]
        for i, other in enumerate(others[:_TRIES]):
            if all(map(_alike, row, other)):
                del others[i]
                break
        else:
            return False
    return part or missing.total() == extra.total()


def _without_numbers(row: Row) -> Row:
    return tuple(c if c[0] not in ("number", "list", "object") else (c[0], None) for c in row)


def _first_difference(right: Sequence[Row], left: Sequence[Row]) -> str:
    missing = Counter(right) - Counter(left)
    return f"{missing.total()} of {_count(len(right), 'row')} missing, as many others in their place"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
