"""Made-up cell values, by kind of column."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable

from demo_base.words import (
    ADJECTIVES,
    CITIES,
    FIRST,
    LAST,
    LOOKUPS,
    NOUNS,
    VI_NAMES,
    dictionary,
    invented,
)

Value = str | int | float | bool | dt.date | dt.datetime


def _first(rng: random.Random) -> str:
    pick = rng.random()
    return rng.choice(FIRST) if pick < 0.7 else rng.choice(VI_NAMES) if pick < 0.78 else invented(rng, 2).capitalize()


def _last(rng: random.Random) -> str:
    return rng.choice(LAST) if rng.random() < 0.65 else invented(rng).capitalize()


def _full(rng: random.Random) -> str:
    return f"{_first(rng)} {_last(rng)}"


def _word(rng: random.Random) -> str:
    pick = rng.random()
    if pick < 0.35:
        return rng.choice(NOUNS)
    return rng.choice(dictionary()) if pick < 0.55 else invented(rng)


def _phrase(rng: random.Random) -> str:
    words = [_word(rng) for _ in range(rng.choice([1, 2, 2, 2, 3]))]
    if rng.random() < 0.4:
        words.insert(0, rng.choice(ADJECTIVES))
    text = " ".join(words)
    return text.title() if rng.random() < 0.5 else text.capitalize()


def _thing(rng: random.Random) -> str:
    head = rng.choice(ADJECTIVES) if rng.random() < 0.5 else invented(rng)
    text = f"{head} {rng.choice(NOUNS) if rng.random() < 0.7 else invented(rng)}"
    if rng.random() < 0.2:
        text += f" {rng.choice([rng.randint(2, 99), rng.randint(100, 990), 'X', 'Pro', 'Plus'])}"
    return text.title()


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice([1, 2, 2, 3])))
    number = str(rng.randint(1, 99999)).zfill(rng.choice([2, 3, 4]))
    return letters + rng.choice(["", "-", "-", "/"]) + number


def _city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.6 else invented(rng).capitalize()


def _place(rng: random.Random) -> str:
    head = rng.choice([rng.choice(CITIES), _last(rng), rng.choice(ADJECTIVES).capitalize(), invented(rng).capitalize()])
    tail = rng.choice("Hall Park Station House Centre Point Garden Arena Field Square Bay Hill Lane Wing Yard".split())
    return f"{head} {tail}" if rng.random() < 0.75 else head


def _org(rng: random.Random) -> str:
    head = rng.choice([_last(rng), invented(rng).capitalize(), rng.choice(NOUNS).capitalize(), rng.choice(CITIES)])
    tail = rng.choice(
        "Ltd GmbH Inc Group Partners Labs Foods Systems Works Trading Motors United Club Press Air".split()
    )
    return f"{head} {tail}" if rng.random() < 0.75 else head


def _email(rng: random.Random) -> str:
    return f"{_first(rng)}.{_last(rng)}@{invented(rng, 2)}.{rng.choice(['com', 'org', 'net', 'io', 'vn'])}".lower()


def _label(rng: random.Random) -> str:
    word = rng.choice([rng.choice(NOUNS), rng.choice(dictionary()), invented(rng), invented(rng)])
    return word.capitalize() if rng.random() < 0.7 else word


TEXT: dict[str, Callable[[random.Random], str]] = {
    "first": _first,
    "last": _last,
    "full": _full,
    "phrase": _phrase,
    "thing": _thing,
    "code": _code,
    "city": _city,
    "place": _place,
    "org": _org,
    "email": _email,
    "label": _label,
    "invented": lambda rng: invented(rng).capitalize(),
    "job": lambda rng: (
        rng.choice("clerk manager analyst engineer designer assistant director driver cook guard".split())
        if rng.random() < 0.6
        else invented(rng).capitalize() + "er"
    ),
    "street": lambda rng: f"{rng.randint(1, 250)} {_last(rng)} {rng.choice(['St', 'Road', 'Ave', 'Lane'])}",
    "phone": lambda rng: "".join(str(rng.randint(0, 9)) for _ in range(rng.choice([7, 9, 10]))),
    "web": lambda rng: f"www.{invented(rng)}.{rng.choice(['com', 'org', 'net'])}",
}


def lookup(rng: random.Random, key: str) -> list[str]:
    """A short list of possible values for a low-cardinality column, in one spelling."""
    known = LOOKUPS[key]
    some = rng.sample(known, min(len(known), rng.randint(2, 6)))
    if rng.random() < 0.3:
        some = [
            word if rng.random() < 0.5 else rng.choice([invented(rng, 2), rng.choice(dictionary())]) for word in some
        ]
    if key in {
        "status",
        "priority",
        "level",
        "type",
        "color",
        "method",
        "reason",
        "material",
        "shape",
        "region",
        "channel",
    }:
        style = rng.random()
        if style < 0.25:
            some = [word.capitalize() for word in some]
        elif style < 0.35:
            some = [word.upper() for word in some]
        elif style < 0.45:
            some = [f"{word}{rng.choice(['_', ' ', '-'])}{_word(rng)}" for word in some]
    return list(dict.fromkeys(some))


def number(rng: random.Random, sort: str, whole: bool) -> int | float:
    """One number; `sort` is the family of the column (money, count, measure, rating)."""
    if sort == "rating":
        return rng.randint(1, 10) if whole else round(rng.uniform(0.5, 5), 1)
    if sort == "money":
        size = rng.choice([10, 100, 1000, 10000, 100000])
        value = rng.uniform(size / 10, size)
        return int(value) if whole else round(value, 2)
    if sort == "year":
        return rng.randint(1950, 2026)
    size = rng.choice([10, 50, 100, 500, 2000])
    return rng.randint(1, size) if whole or sort == "count" else round(rng.uniform(0.1, size), rng.choice([1, 2]))


def date(rng: random.Random) -> dt.date:
    """A day between 2015 and 2026, more often a late one."""
    last = dt.date(2026, 6, 30).toordinal()
    return dt.date.fromordinal(last - int(rng.random() ** 1.5 * 11 * 365))


def moment(rng: random.Random) -> dt.datetime:
    """A moment between 2015 and 2026."""
    return dt.datetime.combine(date(rng), dt.time(rng.randint(0, 23), rng.randint(0, 59)))
