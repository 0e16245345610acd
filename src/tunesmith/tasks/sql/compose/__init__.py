"""Questions with their SQL, composed from nothing but a schema and the values it holds.

`Composer(schema, values).draw(rng)` picks a kind of question (count, lookup, top-n, join, group, anti-join, window, ...),
real columns, real foreign keys and existing values, and gives the query with the phrasings people use for it. Nothing
here touches a database: `build.py` executes what is drawn, and the base model of the demo was trained on drawings from
random schemas.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tunesmith.tasks.sql.compose import chains, joined, single
from tunesmith.tasks.sql.compose.query import Query
from tunesmith.tasks.sql.compose.roles import Book, Values
from tunesmith.tasks.sql.compose.words import roughen, sentence
from tunesmith.tasks.sql.schema import Schema

__all__ = ["Composer", "Draft", "Query", "Values", "compose", "skeleton_of"]

Kind = Callable[[Book, random.Random], Query | None]


@dataclass(frozen=True, slots=True)
class Draft:
    """One question and the query that answers it, not yet executed."""

    question: str
    sql: str
    kind: str
    """Name of the kind of question: `count_where`, `top_by_count`, ..."""
    skeleton: str
    """The query with its literal values masked: what a split must not let straddle."""


class Composer:
    """Draws questions about one database.

    Args:
        schema: the tables, with foreign keys; comments and sampled values are not used.
        values: `values(table, column)` gives existing distinct values, in a stable order, as Python objects.
    """

    def __init__(self, schema: Schema, values: Values) -> None:
        self.book = Book(schema, values)
        kinds = [*single.KINDS, *((*joined.KINDS, *chains.KINDS) if self.book.edges else ())]
        self._kinds: list[tuple[str, Kind]] = [(name, kind) for name, kind, _ in kinds]
        self._weights: list[float] = [weight for _, _, weight in kinds]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of question this schema allows trying."""
        return tuple(name for name, _ in self._kinds)

    def query(self, rng: random.Random) -> Query | None:
        """One query with its phrasings; None where the kind that came up does not fit the schema."""
        name, kind = rng.choices(self._kinds, self._weights)[0]
        query = kind(self.book, rng)
        return query and query.named(name)

    def draw(self, rng: random.Random, noise: float = 0.0, attempts: int = 20) -> Draft | None:
        """One question; None when nothing could be asked in that many attempts."""
        for _ in range(attempts):
            query = self.query(rng)
            if query is not None:
                return draft_of(query, rng, noise)
        return None


def draft_of(query: Query, rng: random.Random, noise: float = 0.0) -> Draft:
    """One phrasing of a query; with chance `noise` it is roughened the way colleagues write."""
    question = sentence(query.ask(rng))
    if rng.random() < noise:
        question = roughen(question, rng)
    return Draft(question, query.sql, query.kind, skeleton_of(query.sql))


def phrasings(query: Query, rng: random.Random, count: int, noise: float = 0.0) -> Iterable[Draft]:
    """Up to `count` different phrasings of one query."""
    seen: set[str] = set()
    for _ in range(count * 4):
        draft = draft_of(query, rng, noise)
        if draft.question.lower() not in seen:
            seen.add(draft.question.lower())
            yield draft
        if len(seen) == count:
            return


def compose(schema: Schema, values: Values, rng: random.Random) -> Draft | None:
    """One draft from a schema; for many, keep a `Composer`."""
    return Composer(schema, values).draw(rng)


_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")


def skeleton_of(sql: str) -> str:
    """The query with literal values masked (the query split of Finegan-Dollak et al., 2018, arXiv 1806.09029)."""
    return _LITERAL.sub("?", sql)
