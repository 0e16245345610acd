"""Further versions of questions that people asked: what stands in a question and in its query alike (a value, a number,
a month, a year) gives way to another in both."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlglot import exp

from tunesmith.tasks.sql.compose.roles import Values, literal
from tunesmith.tasks.sql.compose.words import MONTHS, NUMBER_WORDS, plural
from tunesmith.tasks.sql.schema import Schema
from tunesmith.tasks.sql.structure import nodes, parse

Span = tuple[int, int]


class Slot(NamedTuple):
    """A place of a question and one of its query that say the same."""

    said: Span
    written: Span
    draw: Callable[[random.Random], tuple[str, str]]
    """Another value, as the question says it and as SQL writes it; now and then the same again."""

    def as_it_is(self, question: str, sql: str) -> tuple[str, str]:
        """What stands there now."""
        return question[slice(*self.said)], sql[slice(*self.written)]


class Variety:
    """Further versions of questions about one database.

    Args:
        schema: its tables.
        values: `values(table, column)` gives existing distinct values, in a stable order.
    """

    def __init__(self, schema: Schema, values: Values) -> None:
        self._values = values
        self._tables: defaultdict[str, list[str]] = defaultdict(list)
        """Text columns by name: the tables that have one."""
        for table in schema.tables:
            for column in table.columns:
                if column.kind == "text":
                    self._tables[column.name].append(table.name)

    def versions(self, question: str, sql: str, rng: random.Random) -> Iterator[tuple[str, str]]:
        """Endlessly, questions with their queries that differ in what they name, where there is something to exchange.

        Versions repeat, and may ask for what the database does not hold: run them.
        """
        slots = self.slots(question, sql)
        while True:
            drawn = [
                (slot, *(slot.draw(rng) if rng.random() < 0.75 else slot.as_it_is(question, sql))) for slot in slots
            ]
            if len({written for _, _, written in drawn}) < len(slots):  # `cats and cats`
                drawn = []
            yield (
                _replaced(question, [(slot.said, said) for slot, said, _ in drawn]),
                _replaced(sql, [(slot.written, written) for slot, _, written in drawn]),
            )

    def slots(self, question: str, sql: str) -> list[Slot]:
        """What can be exchanged; no two overlap, and each is said once and written once."""
        found: list[Slot] = []
        for slot in (*self._texts(question, sql), *_months(question, sql), *_numbers(question, sql)):
            if not any(_overlap(slot.said, other.said) or _overlap(slot.written, other.written) for other in found):
                found.append(slot)
        return found

    def _texts(self, question: str, sql: str) -> Iterator[Slot]:
        columns = self._compared(sql)
        for match in re.finditer(r"'((?:[^']|'')*)'", sql):
            value = match[1].replace("''", "'")
            places = columns.get(value, ())
            if len(places) != 1 or sql.count(match[0]) != 1:
                continue
            table, column = places[0]
            others = [other for other in self._values(table, column) if isinstance(other, str)]
            for form in _FORMS:
                if others and (said := _once(form(value), question)):
                    lower = question[slice(*said)] == form(value).lower()

                    def draw(
                        rng: random.Random, others: list[str] = others, form: Form = form, lower: bool = lower
                    ) -> tuple[str, str]:
                        other = rng.choice(others)
                        return form(other).lower() if lower else form(other), literal(other)

                    yield Slot(said, match.span(), draw)
                    break

    def _compared(self, sql: str) -> dict[str, list[tuple[str, str]]]:
        """Texts of the query, with the columns that must equal them, or must not."""
        tree, found = parse(sql), defaultdict[str, list[tuple[str, str]]](list)
        every = list(nodes(tree)) if tree is not None else []
        tables = {node.alias_or_name: node.name for node in every if isinstance(node, exp.Table)}
        for node in every:
            if not isinstance(node, exp.EQ | exp.NEQ | exp.In) or not isinstance(column := node.this, exp.Column):
                continue
            owners = [tables.get(column.table, "")] if column.table else list(tables.values())
            owners = [table for table in self._tables[column.name] if table in owners]
            for item in node.expressions if isinstance(node, exp.In) else [node.expression]:
                if isinstance(item, exp.Literal) and item.is_string and len(owners) == 1:
                    found[item.name].append((owners[0], column.name))
        return found


Form = Callable[[str], str]


def _spaced(value: str) -> str:
    return value.replace("_", " ")


_FORMS: tuple[Form, ...] = (
    lambda value: value,
    plural,
    _spaced,
    lambda value: plural(_spaced(value)),
    lambda value: _spaced(value).replace(" ", "-"),
    lambda value: plural(_spaced(value).replace(" ", "-")),
)
"""The ways to say a value: as it is, `dogs` for dog, `no shows` and `no-shows` for no_show."""


_YEARS = re.compile(r"\bYEAR\s+FROM\b", re.I)
_MONTH = re.compile(r"\bEXTRACT\s*\(\s*MONTH\s+FROM[^()]*\)\s*=\s*(\d\d?)\b", re.I)
_NUMBER = re.compile(r"(?<![\w.'-])\d+(?![\w.'-])")


def _months(question: str, sql: str) -> Iterator[Slot]:
    for match in _MONTH.finditer(sql):
        month = MONTHS[int(match[1]) - 1] if 1 <= int(match[1]) <= 12 else ""
        for length in (None, 3):
            if month and (said := _once(month[:length], question)):

                def draw(rng: random.Random, length: int | None = length) -> tuple[str, str]:
                    at = rng.randrange(12)
                    return MONTHS[at][:length], str(at + 1)

                yield Slot(said, match.span(1), draw)
                break


def _numbers(question: str, sql: str) -> Iterator[Slot]:
    extracted = {match.span(1) for match in _MONTH.finditer(sql)}
    for match in _NUMBER.finditer(sql):
        number = int(match[0])
        if match.span() in extracted or sql.startswith("SELECT 1 ", match.start() - 7):
            continue
        if 1900 <= number <= 2100 and _YEARS.search(sql):
            if said := _once(match[0], question):
                yield Slot(said, match.span(), _drawn([number + step for step in (-2, -1, 0, 1)], str))
            continue
        for spoken in _SPOKEN:
            if number > 1 and (words := spoken(number)) and (said := _once(words, question)):
                yield Slot(said, match.span(), _drawn(_alike(number), spoken))
                break


def _alike(number: int) -> list[int]:
    """Numbers that could stand in the place of one: small ones near it, large ones as round as it is."""
    if number <= 12:
        return [other for other in range(2, number + 4)]
    step = 10 ** (len(str(number)) - len(str(number).rstrip("0")))
    digits = number // step
    return sorted({max(1, digits * percent // 100) * step for percent in (40, 60, 80, 100, 125, 150, 200)})


def _word(number: int) -> str:
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)


def _thousands(number: int) -> str:
    return f"{number // 1000}k" if number >= 1000 and number % 1000 == 0 else f"{number:,}"


_SPOKEN: tuple[Callable[[int], str], ...] = (str, _word, lambda number: f"{number:,}", _thousands)


def _drawn(numbers: list[int], spoken: Callable[[int], str]) -> Callable[[random.Random], tuple[str, str]]:
    def draw(rng: random.Random) -> tuple[str, str]:
        number = rng.choice(numbers)
        return spoken(number), str(number)

    return draw


def _once(words: str, text: str) -> Span | None:
    """Where a text says the words; None where it does not, or more than once."""
    found = list(re.finditer(rf"(?<![\w]){re.escape(words)}(?![\w])", text, re.IGNORECASE)) if words else []
    return found[0].span() if len(found) == 1 else None


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _replaced(text: str, changes: list[tuple[Span, str]]) -> str:
    for (start, end), new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text
