"""Which texts and numbers a question gives cause to compare with."""

from __future__ import annotations

import re
from collections.abc import Collection

from tunesmith.tasks.sql.mentions import roots, stems

_NUMBERS = {
    word: str(i)
    for i, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_MONTHS = "january february march april may june july august september october november december".split()
_UNITS = re.compile(
    r"\b(hour|day|week|fortnight|month|quarter|year|decade|dozen|half|percent|percentage|share|ratio|couple|last|this|"
    r"today|yesterday)s?\b|%"
)
_ALWAYS = ("100", *map(str, range(13)))
_TIME = re.compile(r"\d{1,2}:")
_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_ALONE = re.compile(r"(?<![\w.:,/-])\d[\d,]*(?:\.\d+)?(?![\w%:/-]|\s?%|[.,]\d)")
"""Numbers that a query writes as the question does: no part of a date, a time, an ordinal, a name, a percentage."""
_THOUSANDS = re.compile(r"(?<![\w.:,/-])(\d+(?:\.\d+)?)\s?k\b")
_SPELLED = re.compile(rf"\b({'|'.join(_NUMBERS)})\b(-[a-z])?")
_SIGNS = re.compile(r"[\W_]{2,}")
"""What is no part of a word: where there is more than one, a text has them from the question or from a value."""
_DATE = re.compile(r"\d{4}(-\d{0,2}(-\d{0,2}([ T][\d:.+]*)?)?)?")


class Literals:
    """The texts and numbers of a question and of the values that are known.

    Texts are compared without regard to case, and with `_`, `-` and spaces as one. Numbers may be written with
    thousands commas, as `60k`, or in words; a year may be off by one, for the end of a period.
    """

    def __init__(self, question: str, values: Collection[str] = ()) -> None:
        lower = question.lower()
        # No text goes on from the question into the line of values that are mentioned.
        self._question = "\n".join(f" {plain(line)} " for line in question.splitlines())
        self._values = [plain(value) for value in values]
        self._unclaimed = f" {_without_mentions(question)} "
        self._spelled = "\n".join((lower, *map(str.lower, values)))
        numbers = {found.replace(",", "") for found in re.findall(r"\d[\d,]*(?:\.\d+)?", lower)}
        numbers |= {found.rstrip(".") for found in re.findall(r"\d+(?:\.\d+)?", lower)}
        numbers |= {str(int(float(n) * 1000)) for n in re.findall(r"(\d+(?:\.\d+)?)\s?k\b", lower)}
        numbers |= {str(int(float(n) * 1_000_000)) for n in re.findall(r"(\d+(?:\.\d+)?)\s?(?:m\b|million)", lower)}
        words = re.findall(r"[a-z]+", lower)
        numbers |= {_NUMBERS[word] for word in words if word in _NUMBERS}
        numbers |= {str(i + 1) for i, month in enumerate(_MONTHS) if any(_is_month(word, month) for word in words)}
        self._years = {n for n in numbers if re.fullmatch(r"(1[89]|2[01])\d\d", n)}
        numbers |= {str(int(year) + step) for year in self._years for step in (-1, 1)}
        self._numbers = {*numbers, *_ALWAYS}
        self._any_number = bool(_UNITS.search(lower))

    def text(self, text: str, closed: bool) -> bool:
        """Whether a text (up to its closing quote, or so far) is a part of the question or the start of a value."""
        bare = text.strip("%")
        if _TIME.match(bare):
            return True
        if _DATE.match(bare) and len(bare) > 3 or (bare.isdigit() and not closed):
            return not self._years or any(
                str(int(year) + step).startswith(bare[:4]) for year in self._years for step in (-1, 0, 1)
            )
        if self._says(bare):
            return True
        said = plain(bare)
        held = any(value == said if closed else value.startswith(said) for value in self._values)
        return held and self._signs_of(bare)

    def asks_for(self, text: str) -> bool:
        """Whether the question says a text beside the values it mentions, which some column holds."""
        return f" {plain(text)}" in self._unclaimed and self._signs_of(text)

    def _says(self, text: str) -> bool:
        """Whether a text stands in the question, from the start of a word."""
        return f" {plain(text)}" in self._question and self._signs_of(text)

    def _signs_of(self, text: str) -> bool:
        return all(signs in self._spelled for signs in _SIGNS.findall(text.lower()))

    def number(self, text: str, closed: bool) -> bool:
        """The same for a number."""
        if self._any_number or (closed and text in self._numbers):
            return True
        trimmed = text.rstrip("0").rstrip(".") if "." in text else text
        return trimmed in self._numbers or (not closed and any(n.startswith(text) for n in self._numbers))


class Named:
    """What a question names: the values on the line that `mentions.with_mentions` adds, the numbers before it, and
    words of the schema.

    Args:
        question: with that line, where there is one.
        spoken: roots of the schema's words (`Names.spoken`).
    """

    def __init__(self, question: str, spoken: frozenset[str] = frozenset()) -> None:
        asked, _, mentioned = question.partition("\n")
        self._values = {plain(value): roots(value) for value in _QUOTED.findall(mentioned)}
        self._numbers = {_number(found) for found in _ALONE.findall(asked)} | _said(asked, self._values)
        self._words = roots(asked) & spoken

    def missing_from(self, query: str) -> int:
        """How many of them a query does without. A value may be met by a name: `without surgery` by `has_surgery`."""
        texts = {plain(text) for text in _QUOTED.findall(query)}
        numbers = {_number(found) for found in re.findall(r"\d+(?:\.\d+)?", query)}
        words = roots(query)
        values = sum(value not in texts and not made_of <= words for value, made_of in self._values.items())
        return values + len(self._numbers - numbers) + len(self._words - words)


def _without_mentions(question: str) -> str:
    """A question's words, a line's end in place of each value that the line after it mentions."""
    asked, _, mentioned = question.partition("\n")
    words = plain(asked).split()
    stemmed = stems(" ".join(words))
    for value in map(stems, map(plain, _QUOTED.findall(mentioned))):
        for at in range(len(words) - len(value) + 1):
            if stemmed[at : at + len(value)] == value:
                words[at : at + len(value)] = ["\n"] * len(value)
    return " ".join(words)


def _said(question: str, values: Collection[str]) -> set[str]:
    """Numbers in words or in thousands: `three pets`, `one-star`, `60k`. One and zero alone are rarely numbers, and a
    word of a value that is mentioned (`Three Bridges Vets`) is none."""
    thousands = {_number(f"{float(found) * 1000:f}") for found in _THOUSANDS.findall(question.lower())}
    named = {word for value in values for word in value.split()}
    return thousands | {
        _NUMBERS[word]
        for word, joined in _SPELLED.findall(question.lower())
        if word not in named and (joined or word not in ("one", "zero"))
    }


def _number(text: str) -> str:
    text = text.replace(",", "")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_month(word: str, month: str) -> bool:
    return word == month or (len(word) == 3 and month.startswith(word))


def plain(text: str) -> str:
    """A text without regard to case, with `_`, `-` and spaces as one."""
    return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())
