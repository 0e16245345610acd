"""What the names of a prompt's schema mean to a query: kinds of columns, keys that join tables, aliases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from tunesmith.tasks.sql.compose.words import human
from tunesmith.tasks.sql.mentions import roots
from tunesmith.tasks.sql.schema import quote
from tunesmith.tasks.sql.schema_text import Named, read_schema_text
from tunesmith.tasks.sql.words import AGGREGATES, FUNCTIONS, JSON_FUNCTIONS, WINDOWS


class Names:
    """The schema, with what joins what."""

    def __init__(self, text: str) -> None:
        self.tables = tables = read_schema_text(text)
        self.nested = "json" in text.lower() or "[]" in text
        self.functions = FUNCTIONS | JSON_FUNCTIONS if self.nested else FUNCTIONS
        self.set_functions = JSON_FUNCTIONS | {"unnest"} if self.nested else frozenset()
        self.calls = (self.functions, self.functions - WINDOWS, self.functions - WINDOWS - AGGREGATES)
        self.schemas = frozenset(t.schema for t in tables.values() if t.schema != "public" or "public." in text)
        self.columns = frozenset(column for table in tables.values() for column in table.columns)
        self.quoted: set[str] = {name for name in (*tables, *self.columns) if quote(name) != name}
        self.keyed = {name for name, table in tables.items() if table.references}
        self.keyed |= {target for name in self.keyed for target, _ in tables[name].references.values()}
        self.roots = {(name, column): self._root(name, column) for name in tables for column in tables[name].columns}
        self.spoken = frozenset(word for table in tables.values() for word in _spoken(table)) - _EMPTY
        """Roots of the words that the names of tables and columns are made of, where a question may mean them."""
        self._shared = Counter(column for table in tables.values() for column in table.columns)
        self._leads: dict[tuple[str, str, str], bool] = {}
        self._of_table = {name: frozenset(self.roots[name, c] for c in table.columns) for name, table in tables.items()}

    def _root(self, table: str, column: str) -> tuple[str, str]:
        """Where a key points to in the end: columns with one root hold the same values."""
        seen = set()
        while (table, column) not in seen:
            seen.add((table, column))
            target = self.tables[table].references.get(column) if table in self.tables else None
            if target is None:
                break
            table, column = target
        return table, column

    def kind(self, table: str | None, column: str) -> str | None:
        """Family of a column's type; without its table, that of every table which has it, where they agree."""
        holders = [self.tables[table]] if table else [t for t in self.tables.values() if column in t.columns]
        kinds = {holder.kinds.get(column) for holder in holders}
        return kinds.pop() if len(kinds) == 1 else None

    def joins(self, a: str, x: str, b: str, y: str) -> bool:
        """Whether `a.x = b.y` follows declared keys.

        Tables that no key relates to each other join on a column that only they have; tables without any key, on any.
        """
        if not {a, b} <= self.keyed or self.roots[a, x] == self.roots[b, y]:
            return True
        return not self.related(a, b) and x == y and self._shared[x] == 2

    def related(self, a: str, b: str) -> bool:
        """Whether columns of both hold the same values, by declared keys."""
        return a != b and not self._of_table[a].isdisjoint(self._of_table[b])

    def leads(self, a: str, x: str, b: str) -> bool:
        """Whether `a.x` joins any column of b."""
        key = (a, x, b)
        if key not in self._leads:
            self._leads[key] = any(self.joins(a, x, b, y) for y in self.tables[b].columns)
        return self._leads[key]

    def joinable(self, a: str, b: str) -> bool:
        return any(self.leads(a, x, b) for x in self.tables[a].columns)


_EMPTY = roots("id name is has was can in of on at by to the kg no")


def _spoken(table: Named) -> Iterable[str]:
    """Keys are left out, which are named after what they point to, and dates: `written` may be said of anything."""
    for name in (table.name, *table.columns):
        key = name in table.primary_key or name in table.references
        if not key and (name == table.name or table.kinds.get(name) not in ("date", "time")):
            yield from roots(human(name))


UNDECLARED = re.compile(r"[a-z]{1,3}\d?$")


def short_for(word: str, tables: Iterable[str]) -> bool:
    """Whether the word may be an alias used before it is declared: a, b, t1, or letters of a table's name in order."""
    if not UNDECLARED.match(word):
        return False
    letters = word.rstrip("0123456789").removesuffix("x") or "x"
    return letters in ("a", "b", "t") or any(in_order(letters, table.lower()) for table in tables)


def in_order(letters: str, name: str) -> bool:
    rest = iter(name)
    return all(letter in rest for letter in letters)


@lru_cache(maxsize=32)
def names_of(schema_text: str) -> Names:
    """Read a schema once, however many questions are asked about it."""
    return Names(schema_text)
