"""A composed query: its SQL, and the ways people ask for it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tunesmith.tasks.sql.compose.words import say


@dataclass(frozen=True, slots=True)
class Query:
    """SQL with its phrasings, each a grammar that `say` turns into a sentence."""

    sql: str
    templates: tuple[str, ...]
    kind: str = ""

    def ask(self, rng: random.Random) -> str:
        """One phrasing."""
        return say(rng.choice(self.templates), rng)

    def named(self, kind: str) -> Query:
        return replace(self, kind=kind)


def query(sql: str, *templates: str) -> Query:
    """A query whose SQL may be written over several lines."""
    return Query(" ".join(sql.split("\n")), templates)
