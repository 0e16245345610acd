"""What a schema's tables and columns can be asked about: labels, measures, categories, dates, and who belongs to whom."""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from tunesmith.tasks.sql.compose.words import (
    DATE_NOUNS,
    DURATIONS,
    MONEY_WORDS,
    PERSON_WORDS,
    PLACE_WORDS,
    SYNONYMS,
    human,
    maybe_synonym,
    plural,
    singular,
)
from tunesmith.tasks.sql.schema import Column, Schema, Table, quote

Value = str | int | float | Decimal | bool | dt.date | dt.datetime
Values = Callable[[str, str], Sequence[Any]]

_LABELS = ("name", "title", "full_name", "label", "username", "code", "number", "reference", "plate", "sku", "email")
_KEYLIKE = re.compile(r"(^|_)(id|code|number|no|nr|key|uuid|zip|phone|year|sku|isbn)$", re.I)
_GRAMMAR = re.compile(r"[\[\]|{}\n\r\t]|  |\\|^\s|\s$")


def literal(value: Value) -> str:
    """A value as SQL writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return plain_number(value)
    if isinstance(value, dt.datetime):
        value = value.date()
    if isinstance(value, dt.date):
        return f"'{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'"


def plain_number(value: int | float | Decimal) -> str:
    """`12`, `12.5`: no exponent, no trailing zeros."""
    text = f"{value:f}" if isinstance(value, Decimal) else repr(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True)
class Edge:
    """A foreign key: `child.column` points to `parent.key`."""

    child: Subject
    column: str
    parent: Subject
    key: str

    @property
    def on(self) -> str:
        return f"{self.child.sql}.{quote(self.column)} = {self.parent.sql}.{quote(self.key)}"

    @property
    def role(self) -> str:
        """What the child calls the parent: `start station` for start_station_id."""
        words = human(self.column).removesuffix(" id").removesuffix(" code").removesuffix(" number").strip()
        return words or self.parent.singular


class Subject:
    """A table seen as something people ask about."""

    def __init__(self, table: Table, values: Values) -> None:
        self.table = table
        self._values = values
        self.sql = table.qualified
        words = human(table.name)
        self.plural = plural(words)
        self.singular = singular(words)

    def __repr__(self) -> str:
        return f"Subject({self.table.name})"

    @cached_property
    def _cache(self) -> dict[str, tuple[Value, ...]]:
        return {}

    def values(self, column: Column) -> tuple[Value, ...]:
        """Values a question can quote."""
        found = self._cache.get(column.name)
        if found is None:
            found = tuple(v for v in self._values(self.table.name, column.name) if _quotable(v))
            self._cache[column.name] = found
        return found

    @cached_property
    def primary(self) -> Column | None:
        keys = [c for c in self.table.columns if c.primary_key]
        return keys[0] if len(keys) == 1 else None

    @cached_property
    def label(self) -> tuple[Column, ...]:
        """The column(s) by which people name a row; first and last name together; empty where there is none."""
        by_name = {c.name.lower(): c for c in self.table.columns}
        if "first_name" in by_name and "last_name" in by_name:
            return (by_name["first_name"], by_name["last_name"])
        texts = [c for c in self.table.columns if c.kind == "text" and not c.references]
        for wanted in _LABELS:
            for c in texts:
                if c.name.lower() == wanted:
                    return (c,)
        for wanted in ("name", "title", "code", "number", "plate", "reference"):
            for c in texts:
                if c.name.lower().endswith(f"_{wanted}"):
                    return (c,)
        return ()

    @cached_property
    def is_person(self) -> bool:
        return self.singular.split()[-1] in PERSON_WORDS or len(self.label) == 2

    @cached_property
    def measures(self) -> tuple[Column, ...]:
        """Numbers one may add, average and compare."""
        return tuple(
            c
            for c in self.table.columns
            if c.kind == "number" and not c.primary_key and not c.references and not _KEYLIKE.search(c.name)
        )

    @cached_property
    def numbers(self) -> tuple[Column, ...]:
        """Measures, and numbers such as years that one filters by but does not add."""
        years = (c for c in self.table.columns if c.kind == "number" and re.search(r"(^|_)year$", c.name, re.I))
        return (*self.measures, *years)

    @cached_property
    def categories(self) -> tuple[Column, ...]:
        """Text columns whose few values group the rows."""
        return tuple(
            c
            for c in self.table.columns
            if c.kind == "text" and c not in self.label and not c.references and 2 <= len(self.values(c)) <= 40
            and all(len(str(v)) <= 40 for v in self.values(c))
        )  # fmt: skip

    @cached_property
    def texts(self) -> tuple[Column, ...]:
        return tuple(c for c in self.table.columns if c.kind == "text" and not c.references)

    @cached_property
    def dates(self) -> tuple[Column, ...]:
        return tuple(c for c in self.table.columns if c.kind in ("date", "time"))

    def main_date(self, column: Column) -> bool:
        """Whether `orders in 2024`, without a verb, speaks of this column."""
        return bool(self.dates) and column == self.dates[0]

    @cached_property
    def booleans(self) -> tuple[Column, ...]:
        return tuple(c for c in self.table.columns if c.kind == "boolean")

    @cached_property
    def attributes(self) -> tuple[Column, ...]:
        """Columns one asks the value of."""
        return tuple(
            c for c in self.table.columns if not c.primary_key and not c.references and c not in self.label and c.kind != "other"
        )  # fmt: skip

    def shown(self, qualified: bool = False) -> str:
        """The select list that names a row: its label, else its key, else everything."""
        columns = self.label or ((self.primary,) if self.primary else ())
        if not columns:
            return f"{self.sql}.*" if qualified else "*"
        return ", ".join(self.ref(c, qualified) for c in columns)

    def ref(self, column: Column, qualified: bool = False) -> str:
        """The column as SQL writes it, with its table in front where several tables are in play."""
        return f"{self.sql}.{quote(column.name)}" if qualified else quote(column.name)

    def identity(self, qualified: bool = True) -> str:
        """What to group by so that two rows with the same name stay two: the key, then what is shown."""
        shown = self.shown(qualified)
        key = self.ref(self.primary, qualified) if self.primary else ""
        return f"{key}, {shown}" if key and key != shown else shown

    @cached_property
    def many(self) -> str:
        """Grammar for the rows: mostly the table's own noun, sometimes a synonym."""
        return _choices(self.plural, tuple(map(plural, self.table.also)))

    @cached_property
    def one(self) -> str:
        return _choices(self.singular, self.table.also)


class Book:
    """Every table as a subject, and the foreign keys between them."""

    def __init__(self, schema: Schema, values: Values) -> None:
        self.subjects = tuple(Subject(table, values) for table in schema.tables if table.columns)
        by_name = {s.table.name: s for s in self.subjects}
        self.edges = tuple(
            Edge(s, c.name, by_name[c.references[0]], c.references[1])
            for s in self.subjects
            for c in s.table.columns
            if c.references and c.references[0] in by_name and c.references[0] != s.table.name
        )
        self._named = tuple(edge for edge in self.edges if edge.child.label)
        self.loops = tuple(
            Edge(s, c.name, s, c.references[1])
            for s in self.subjects
            for c in s.table.columns
            if c.references and c.references[0] == s.table.name
        )

    def subject(self, rng: random.Random) -> Subject:
        """A table at random; those with something to say come up more often."""
        weights = [1.0 + len(s.attributes) + 2.0 * bool(s.label) for s in self.subjects]
        return rng.choices(self.subjects, weights)[0]

    def edge(self, rng: random.Random, named: bool = False) -> Edge:
        """Any foreign key; with `named`, one of a table whose rows go by a name, where there is one."""
        return rng.choice((named and self._named) or self.edges)

    def only_money(self, parent: Subject) -> bool:
        """Whether money is in one column of one table that belongs to the parent: `top clients by spend` is clear."""
        return (
            sum(is_money(c) and can_be_added(c) for e in self.edges if e.parent is parent for c in e.child.measures) < 2
        )


def words_of(column: Column) -> str:
    """Grammar for a column's name in a question: `is_active` is `active`, `hired_on` is `hire date` or `hired date`."""
    words = human(column.name)
    if column.kind == "boolean":
        return words.removeprefix("is ").removeprefix("has ").removeprefix("was ")
    if column.kind in ("date", "time"):
        bare = " ".join(w for w in words.split() if w not in {"at", "on", "timestamp"})
        if bare and bare != words:
            return f"[{'|'.join([f'{bare} date', f'{DATE_NOUNS.get(bare, bare)} date', words, *column.also])}]"
    return _choices(words, column.also)


def many_of(column: Column) -> str:
    """Grammar for the column's values: `cities`, `different types`."""
    return _choices(plural(human(column.name)), tuple(map(plural, column.also)))


def is_money(column: Column) -> bool:
    return column.kind == "number" and bool(set(human(column.name).split()) & MONEY_WORDS)


def unit_of_time(column: Column) -> str | None:
    """`minutes` for a column of minutes, an empty string for a duration without a unit, None for anything else."""
    return next((DURATIONS[w] for w in human(column.name).split() if w in DURATIONS), None)


def can_be_added(column: Column) -> bool:
    """Whether a sum of the column means something: a total of amounts does, a total of unit prices or ages does not."""
    return not set(human(column.name).split()) & _INTENSIVE


_INTENSIVE = frozenset(
    [
        "price",
        "rate",
        "age",
        "rating",
        "score",
        "grade",
        "percentage",
        "percent",
        "temperature",
        "speed",
        "year",
        "latitude",
        "longitude",
    ]
)


def is_place(column: Column) -> bool:
    return human(column.name).split()[-1] in PLACE_WORDS


def _choices(phrase: str, glossary: tuple[str, ...] = ()) -> str:
    """The phrase or, less often, another word for it: those of a glossary are used as often as the phrase itself."""
    if glossary:
        return f"[{'|'.join([*[phrase] * len(glossary), *glossary])}]"
    last = singular(phrase.split()[-1]) if phrase else ""
    others = (
        {maybe_synonym(phrase, random.Random(i), 1.0) for i in range(4)}
        if (phrase in SYNONYMS or last in SYNONYMS)
        else set()
    )
    others.discard(phrase)
    return f"[{'|'.join([phrase] * (5 * len(others)) + sorted(others))}]" if others else phrase


def _quotable(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= 60 and not _GRAMMAR.search(value)
    if isinstance(value, float):
        return value == value and abs(value) < 1e12
    return isinstance(value, bool | int | Decimal | dt.date)
