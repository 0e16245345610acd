"""Values of the database that a question mentions: `dogs from Cork` speaks of pets.species and owners.city.

Which column holds a word of the question cannot be known from a schema alone, and decides table, join and filter. The
words are looked up in the text columns and named after the question, with every column that holds them (the bridging of
Lin et al., 2020, BRIDGE, arXiv 2012.12627). Only values that the question says already are shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tunesmith.tasks.sql.schema import Schema, quote

MOST_VALUES = 2000
"""Distinct values of a column that are looked at."""
_MOST_WORDS = 6
_MOST_COLUMNS = 4
"""A word that more columns than this hold says nothing about any of them."""
_WORD = re.compile(r"[^\W_]+")
_FUNCTION_WORDS = frozenset(
    """a about after all an and any are as at be been before but by can did do does each ever every few for from
    get give had has have how i in is it its last least less list many me more most much my name no not number
    of off on one only or other our out over per show so some than that the their them then there these they
    this those to total under up us was we were what when where which who whose why will with you your""".split()
)
_PEOPLES = dict(
    pair.split(":")
    for pair in """american:usa argentinian:argentina austrian:austria belgian:belgium brazilian:brazil british:britain
    bulgarian:bulgaria canadian:canada chilean:chile chinese:china croatian:croatia czech:czechia danish:denmark
    dutch:netherlands egyptian:egypt english:england finnish:finland french:france german:germany greek:greece
    hungarian:hungary icelandic:iceland indian:india indonesian:indonesia irish:ireland israeli:israel italian:italy
    japanese:japan kenyan:kenya korean:korea mexican:mexico norwegian:norway polish:poland portuguese:portugal
    romanian:romania russian:russia scottish:scotland slovak:slovakia spanish:spain swedish:sweden swiss:switzerland
    thai:thailand turkish:turkey ukrainian:ukraine vietnamese:vietnam welsh:wales""".split()
)
"""What comes from a country, and the country: `Irish suppliers` are in Ireland."""


class Mention(NamedTuple):
    """A value that a question mentions."""

    table: str
    column: str
    value: str

    def condition(self) -> str:
        """As a query would write it: `pets.species = 'dog'`."""
        text = self.value.replace("'", "''")
        return f"{self.table}.{quote(self.column)} = '{text}'"


class Mentions:
    """The values of a database by the words they are made of.

    Args:
        values: (table as a query writes it, column, value) for every text to be found; `text_values` gives them.
    """

    def __init__(self, values: Iterable[tuple[str, str, str]]) -> None:
        self._whole: defaultdict[tuple[str, ...], list[Mention]] = defaultdict(list)
        self._starts: defaultdict[tuple[str, ...], list[Mention]] = defaultdict(list)
        for table, column, value in values:
            words = stems(value)
            if not 0 < len(words) <= _MOST_WORDS or len(value) < 2 or value.isdigit():
                continue
            if len(words) == 1 and words[0] in _FUNCTION_WORDS:
                continue
            self._whole[words].append(Mention(table, column, value))
            for end in range(2, len(words)):
                self._starts[words[:end]].append(Mention(table, column, value))

    def find(self, question: str, most: int) -> list[Mention]:
        """Up to `most` values in the order of the question; the longest reading of a word wins.

        `Three Bridges` finds 'Three Bridges Vets' where no other value begins so.
        """
        words = stems(question)
        found: list[Mention] = []
        at = 0
        while at < len(words) and len(found) < most:
            for end in range(min(len(words), at + _MOST_WORDS), at, -1):
                if some := self._named(words[at:end]):
                    found += [mention for mention in some if mention not in found]
                    at = end
                    break
            else:
                at += 1
        return found[:most]

    def _named(self, words: tuple[str, ...]) -> list[Mention]:
        for known in (self._whole.get(words), self._starts.get(words), self._whole.get(_countries(words))):
            if known and len(known) <= _MOST_COLUMNS and (known is not self._starts.get(words) or len(known) == 1):
                return known
        return []


def mention_text(mentions: Iterable[Mention]) -> str:
    """What a prompt says after the question: `pets.species = 'dog', owners.city = 'Cork'`."""
    return ", ".join(mention.condition() for mention in mentions)


def with_mentions(question: str, text: str) -> str:
    """The question with what it mentions on a line of its own."""
    return f"{question}\n{text}" if text else question


def text_values(schema: Schema, values: Callable[[str, str], Sequence[Any]]) -> Iterable[tuple[str, str, str]]:
    """What `Mentions` takes, from every text column that is no key.

    Args:
        schema: the database.
        values: `values(table, column)` gives distinct values of a column.
    """
    for table in schema.tables:
        for column in table.columns:
            if column.kind == "text" and not column.references:
                for value in values(table.name, column.name):
                    if isinstance(value, str) and len(value) <= 60:
                        yield table.qualified, column.name, value


def stems(text: str) -> tuple[str, ...]:
    """The words of a text, small and in the singular, roughly."""
    return tuple(_stem(word) for word in _WORD.findall(text.lower()))


def roots(text: str) -> frozenset[str]:
    """The words of a text without their endings: `charge`, `charged` and `charges` are one."""
    return frozenset(_root(word) for word in stems(text))


def _root(word: str) -> str:
    return next((word[: -len(end)] for end in ("ing", "ed", "e", "d") if word.endswith(end) and len(word) > 4), word)


def _stem(word: str) -> str:
    """A plural as its singular, roughly: both sides of a comparison go through it."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _countries(words: tuple[str, ...]) -> tuple[str, ...]:
    return (_stem(_PEOPLES[words[0]]),) if len(words) == 1 and words[0] in _PEOPLES else ()
