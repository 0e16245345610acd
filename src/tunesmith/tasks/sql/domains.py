"""Which texts a column holds, so that a query is not written that no row can meet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from tunesmith.tasks.sql.mentions import stems

Place = tuple[str, str]
"""A table, as the prompt names it, and a column."""


class Domains:
    """The values of text columns, for every column whose values are all known.

    Args:
        values: all values of each column.
    """

    def __init__(self, values: Mapping[Place, Iterable[str]]) -> None:
        self._sorted: dict[Place, Sequence[str]] = {place: sorted(set(found)) for place, found in values.items()}
        self._known = {stems(value) for found in self._sorted.values() for value in found}

    def __contains__(self, place: object) -> bool:
        """Whether all values of the column are known."""
        return place in self._sorted

    def holds(self, place: Place, text: str, closed: bool) -> bool:
        """Whether a row of a known column may hold the text, or, where it is not `closed`, one that begins so."""
        found = self._sorted[place]
        at = bisect_left(found, text)
        return at < len(found) and (found[at] == text if closed else found[at].startswith(text))

    def is_foreign(self, text: str) -> bool:
        """Whether no column holds the text, or its singular, in whatever spelling."""
        return stems(text) not in self._known
