"""How much two sequences begin with alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def common_start(one: Any, other: Any) -> int:
    """Items that two texts, or two lists, begin with alike; by bisection, because slices compare at the speed of C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_start_of_arrays(one: NDArray[Any], other: NDArray[Any]) -> int:
    """The same of two arrays of one axis."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if len(differ) else size
