"""Filters on one table: the SQL of the condition, and how people say it before or after the noun."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from decimal import Decimal

from tunesmith.tasks.sql.compose.roles import (
    Subject,
    Value,
    is_money,
    is_place,
    literal,
    plain_number,
    unit_of_time,
    words_of,
)
from tunesmith.tasks.sql.compose.words import (
    MONTHS,
    NUMBER_WORDS,
    REMARK_WORDS,
    SUPERLATIVES,
    human,
    plural,
    verb_of_date,
)
from tunesmith.tasks.sql.schema import Column


@dataclass(frozen=True, slots=True)
class Condition:
    """`{before} orders {after}`, or `instead` where a value names the rows by itself: `dogs` for pets."""

    sql: str
    column: Column
    after: str = ""
    before: str = ""
    instead: str = ""

    @property
    def trailing(self) -> str:
        """What follows the noun, where that is all that is said of it."""
        return "" if self.before or self.instead else self.after

    def on(self, noun: str) -> str:
        """The noun with the condition around it."""
        return f"{self.before} {self.instead or noun} {self.after}".strip()


def draw(
    subject: Subject, rng: random.Random, qualified: bool = False, avoid: tuple[Column, ...] = ()
) -> Condition | None:
    """A condition on a column of the subject, or None where nothing fits."""
    makers = [
        *([(by_category, subject.categories)] * 4),
        *([(by_number, subject.numbers)] * 3),
        *([(by_date, subject.dates)] * 3),
        *([(by_boolean, subject.booleans)] * 2),
        (by_text, tuple(c for c in subject.texts if c not in subject.label)),
        (by_null, tuple(c for c in subject.attributes if c.nullable and c.kind != "boolean")),
    ]  # fmt: skip
    usable = [(maker, [c for c in columns if c not in avoid]) for maker, columns in makers]
    usable = [(maker, columns) for maker, columns in usable if columns]
    for _ in range(4):
        if not usable:
            return None
        maker, columns = rng.choice(usable)
        found = maker(subject, rng.choice(columns), rng, qualified)
        if found is not None:
            return found
    return None


def several(subject: Subject, rng: random.Random, qualified: bool = False, most: int = 2) -> tuple[Condition, ...]:
    """One condition, sometimes two on different columns."""
    first = draw(subject, rng, qualified)
    if first is None:
        return ()
    if most < 2 or rng.random() > 0.25:
        return (first,)
    second = draw(subject, rng, qualified, avoid=(first.column,))
    return (first,) if second is None or _clash(first, second) else (first, second)


def _clash(first: Condition, second: Condition) -> bool:
    """Two adjectives, or two nouns, in front of one another read badly."""
    return bool((first.before and second.before) or (first.instead and second.instead))


def where(conditions: tuple[Condition, ...]) -> str:
    return " AND ".join(c.sql for c in conditions)


def filtered(conditions: tuple[Condition, ...]) -> str:
    """The WHERE of a query, if it has one."""
    return f" WHERE {where(conditions)}" if conditions else ""


def around(noun: str, conditions: tuple[Condition, ...]) -> str:
    """The noun with every condition around it: `cancelled orders from Lyon and with a total above 100`."""
    before = " ".join(c.before for c in conditions if c.before)
    noun = next((c.instead for c in conditions if c.instead), noun)
    after = [c.after for c in conditions if c.after]
    return f"{before} {noun} {' [and|] '.join(after)}".strip()


def by_value(subject: Subject, column: Column, value: Value, qualified: bool) -> Condition:
    """`city = 'Lyon'`."""
    text, name = _spoken(value), words_of(column)
    sql = f"{subject.ref(column, qualified)} = {literal(value)}"
    if is_place(column):
        if isinstance(value, str) and len(value) < 20 and sum(map(ord, value + subject.sql)) % 3 == 0:
            return Condition(sql, column, before=value)
        live = "|who live in|living in" if subject.is_person else "|located in"
        place = f"[in|in|from|from|based in{live}] {text}"
        return Condition(sql, column, f"[{place}|{place}|{place}|whose {name} is {text}|with {name} {text}]")
    after = (
        f"[with {name} {text}|with the {name} {text}|whose {name} is {text}|where the {name} is {text}|where {name} is {text}"
        f"|that have {name} {text}|with {text} as {name}|with {text} {name}|in the {name} {text}|of {name} {text}]"
    )
    return Condition(sql, column, after)


def by_category(subject: Subject, column: Column, rng: random.Random, qualified: bool) -> Condition | None:
    values = subject.values(column)
    if not values:
        return None
    value = rng.choice(values)
    name, ref = words_of(column), subject.ref(column, qualified)
    roll = rng.random()
    if roll < 0.08 and len(values) > 2:
        return Condition(
            f"{ref} <> {literal(value)}", column,
            f"[not in {value}|outside {value}|outside of {value}]" if is_place(column)
            else f"[whose {name} is not {value}|with a {name} other than {value}|that are not {value}|where the {name} isn't {value}]",
        )  # fmt: skip
    if roll < 0.18 and len(values) > 3:
        a, b = rng.sample(values, 2)
        pair = f"[{a} or {b}|{a} and {b}|either {a} or {b}]"
        return Condition(
            f"{ref} IN ({literal(a)}, {literal(b)})", column,
            f"[in|from] {pair}" if is_place(column) else f"[with {name} {a} or {b}|whose {name} is [{a} or {b}|either {a} or {b}]]",
        )  # fmt: skip
    plain = by_value(subject, column, value, qualified)
    if not is_place(column) and isinstance(value, str) and len(value) < 25 and rng.random() < 0.55:
        if column.name.split("_")[-1] in _KIND_WORDS and rng.random() < 0.6 or rng.random() < 0.15:
            return Condition(plain.sql, column, instead=_spoken_noun(value))
        return Condition(plain.sql, column, before=_spoken_adjective(value))
    if not is_place(column) and rng.random() < 0.15:
        return Condition(plain.sql, column, f"[that are|which are|that were|marked as|marked] {value}")
    return plain


def by_text(subject: Subject, column: Column, rng: random.Random, qualified: bool) -> Condition | None:
    """Part of a text: contains, starts with, ends with."""
    words = [w for v in subject.values(column)[:200] for w in str(v).split() if len(w) > 2 and w.isalnum()]
    if not words:
        return None
    word, name, ref = rng.choice(words), words_of(column), subject.ref(column, qualified)
    roll = rng.random()
    if set(human(column.name).split()) & REMARK_WORDS and roll < 0.8:
        return Condition(
            f"{ref} ILIKE {literal(f'%{word}%')}", column,
            f"[that mention|mentioning|mention|about|that talk about|with {name} mentioning|whose {name} mentions] [{word}|{word}|'{word}']",
        )  # fmt: skip
    if roll < 0.7:
        quoted = f"[{word}|{word}|'{word}']"
        return Condition(
            f"{ref} ILIKE {literal(f'%{word}%')}", column,
            f"[[with|that have] {quoted} in [the|their|its] {name}|whose {name} [contains|mentions|includes] {quoted}|where the {name} contains {quoted}]",
        )  # fmt: skip
    if roll < 0.9:
        start = word[: rng.choice((1, 1, 3))]
        return Condition(
            f"{ref} ILIKE {literal(f'{start}%')}", column,
            f"[whose {name} starts with|whose {name} begins with|with a {name} starting with|where the {name} starts with] [{start}|'{start}'|the letter {start}]"
            if len(start) == 1 else f"[whose {name} starts with|whose {name} begins with|with a {name} starting with] [{start}|'{start}']",
        )  # fmt: skip
    return Condition(
        f"{ref} ILIKE {literal(f'%{word}')}",
        column,
        f"[whose {name} ends with|whose {name} ends in|with a {name} ending in] [{word}|'{word}']",
    )


def by_number(subject: Subject, column: Column, rng: random.Random, qualified: bool) -> Condition | None:
    values = [v for v in subject.values(column) if isinstance(v, int | float | Decimal) and not isinstance(v, bool)]
    if not values:
        return None
    value, name, ref = _round(rng.choice(values), rng), words_of(column), subject.ref(column, qualified)
    v = plain_number(value)
    spoken = (
        f"{int(value):,}"
        if isinstance(value, int) and value >= 1000 and "year" not in column.name and rng.random() < 0.3
        else v
    )
    if isinstance(value, int) and value >= 1000 and value % 1000 == 0 and rng.random() < 0.35:
        spoken = f"{value // 1000}k"
    if isinstance(value, int) and 0 < value <= 10 and rng.random() < 0.35:
        spoken = NUMBER_WORDS[value]
    if (
        set(human(column.name).split()) & {"rating", "stars", "score", "grade"}
        and isinstance(value, int)
        and 0 < value <= 10
        and rng.random() < 0.5
    ):
        star = "star" if "score" not in column.name and "grade" not in column.name else "point"
        return Condition(f"{ref} = {v}", column, before=f"[{NUMBER_WORDS[value]}-{star}|{value}-{star}|{value} {star}]")
    unit = unit_of_time(column)
    is_price = any(w in SUPERLATIVES[0][0] for w in human(column.name).split())
    roll = rng.random()
    if roll < 0.15:
        return Condition(
            f"{ref} = {v}",
            column,
            f"[with {name} {v}|with a {name} of {v}|whose {name} is {v}|with {v} {name}|where {name} is {v}|with exactly {v} {name}]",
        )
    if roll < 0.27:
        low, high = sorted((value, _round(rng.choice(values), rng)))
        if low == high:
            return None
        a, b = plain_number(low), plain_number(high)
        return Condition(
            f"{ref} BETWEEN {a} AND {b}",
            column,
            f"[with {name} between {a} and {b}|with a {name} between {a} and {b}|whose {name} is between {a} and {b}|with a {name} from {a} to {b}]",
        )
    op, phrases = rng.choice(
        (
            (">", "above|over|greater than|higher than|more than|bigger than|exceeding"), (">", "above|over|greater than|higher than|more than"),
            ("<", "below|under|less than|lower than|smaller than"), (">=", "of at least|of {0} or more|at or above"), ("<=", "of at most|of {0} or less|up to"),
        )
    )  # fmt: skip
    sides = "|".join(p.replace("{0}", spoken) if "{0}" in p else f"{p} {spoken}" for p in phrases.split("|"))
    after = f"with [a|a|] {name} [{sides}]"
    if op in "<>":
        comparison = (
            "[above|over|greater than|higher than|more than]" if op == ">" else "[below|under|less than|lower than]"
        )
        after = f"[{after}|{after}|whose {name} is {comparison} {spoken}|where the {name} is {comparison} {spoken}"
        more = "more than|over" if op == ">" else "less than|under"
        after += f"|that have [{more}] {spoken} {name}|with [{more}] {spoken} {name}"
        if unit is not None:
            longer = "longer than|more than|over" if op == ">" else "shorter than|less than|under"
            after += f"|that [take|took|last|lasted] [{longer}] {spoken} {unit}|[{longer}] {spoken} {unit}|running [{longer}] {spoken} {unit}]"
        elif is_price:
            after += f"|that cost [{more}] {spoken}|costing [{more}] {spoken}|[{more}] {spoken}|[for|at] [{more}] {spoken} [euro|dollars|]]"
        elif is_money(column) and subject.is_person:
            after += f"|earning [{more}] {spoken}|who [make|earn|get] [{more}] {spoken}|paid [{more}] {spoken}]"
        elif is_money(column):
            after += f"|[of|for|worth] [{more}] {spoken}|[of|for|worth] [{more}] {spoken} [euro|dollars]]"
        elif "weight" in column.name:
            heavier = "heavier than|over|more than" if op == ">" else "lighter than|under|less than"
            after += f"|[{heavier}] {spoken} [kilos|kg|]|that weigh [{more}] {spoken} [kilos|kg|]|weighing [{more}] {spoken}]"
        else:
            after += "]"
    return Condition(f"{ref} {op} {v}", column, after)


def by_date(subject: Subject, column: Column, rng: random.Random, qualified: bool) -> Condition | None:
    days = [v for v in subject.values(column) if isinstance(v, dt.date)]
    if not days:
        return None
    day, name, ref = rng.choice(days), words_of(column), subject.ref(column, qualified)
    verb = verb_of_date(column.name)
    year, roll = day.year, rng.random()

    def said(time: str) -> str:
        ways = [f"with [a|the|] {name} {time}", f"whose {name} is {time}"]
        if verb:
            ways += [f"{verb} {time}", f"{verb} {time}", f"that were {verb} {time}", f"we {verb} {time}"]
        if subject.main_date(column):
            ways += [time] * len(ways)
        return f"[{'|'.join(ways)}]"

    if roll < 0.4:
        return Condition(f"EXTRACT(YEAR FROM {ref}) = {year}", column, said(f"[in|in|in|during|for] {year}"))
    if roll < 0.55:
        month = f"{MONTHS[day.month - 1]}"
        sql = f"EXTRACT(YEAR FROM {ref}) = {year} AND EXTRACT(MONTH FROM {ref}) = {day.month}"
        return Condition(
            sql, column, said(f"[in|during|for] [{month} {year}|{month} {year}|{month} of {year}|{month[:3]} {year}]")
        )
    if roll < 0.63:
        return Condition(f"EXTRACT(YEAR FROM {ref}) < {year}", column, said(f"[before|prior to|earlier than] {year}"))
    if roll < 0.73:
        since = rng.random() < 0.5
        return Condition(
            f"EXTRACT(YEAR FROM {ref}) {'>=' if since else '>'} {year}", column,
            said(f"[since {year}|from {year} on|from {year} onwards]" if since else f"[after {year}|later than {year}]"),
        )  # fmt: skip
    if roll < 0.78:
        a, b = sorted((year, rng.choice(days).year))
        if a == b:
            return None
        return Condition(
            f"EXTRACT(YEAR FROM {ref}) BETWEEN {a} AND {b}", column, said(f"[between {a} and {b}|from {a} to {b}]")
        )
    iso = day.date() if isinstance(day, dt.datetime) else day
    spoken = f"[{iso.isoformat()}|{iso.isoformat()}|{MONTHS[iso.month - 1]} {iso.day}, {iso.year}|{iso.day} {MONTHS[iso.month - 1]} {iso.year}]"
    op, phrase = rng.choice(
        ((">", "after|later than"), ("<", "before|earlier than"), (">=", "since|on or after"), ("=", "on"))
    )
    left = f"{ref}::date" if column.kind == "time" else ref
    return Condition(f"{left} {op} '{iso}'", column, said(f"[{phrase}] {spoken}"))


def by_boolean(subject: Subject, column: Column, rng: random.Random, qualified: bool) -> Condition | None:
    words = human(column.name)
    for prefix in ("is ", "has ", "was ", "in ", "can "):
        if words.startswith(prefix):
            bare, kind = words.removeprefix(prefix), prefix.strip()
            break
    else:
        bare, kind = (
            words,
            "is" if words.split()[-1].endswith(("ed", "able", "ible", "ive", "al", "free", "en", "ful")) else "noun",
        )
    ref = subject.ref(column, qualified)
    if kind == "has":
        yes = (f"[that have|with|offering|that offer|that do] [a|an|] {bare}", "")
        no = (f"[without|that have no|with no|that don't have|that don't offer] [a|an|] {bare}", "")
    elif kind == "noun":
        yes = (f"[with|that have|who have|signed up for|getting|on] [the|a|our|] {bare}", bare)
        no = (f"[without|that have no|with no|not getting|who don't have|not on] [the|a|our|] {bare}", f"non-{bare}")
    elif kind == "in":
        yes, no = (f"[that are|] in {bare}", ""), (f"[that are|] not in {bare}", "")
    else:
        yes = (f"[that are|which are] {bare}", bare)
        no = (f"[that are not|which are not|that aren't] {bare}", "")
    truth = rng.random() < 0.6
    after, before = yes if truth else no
    sql = f"{ref} = {'true' if truth else 'false'}"
    return Condition(sql, column, before=before) if before and rng.random() < 0.6 else Condition(sql, column, after)


def by_null(subject: Subject, column: Column, rng: random.Random, qualified: bool) -> Condition | None:
    name, ref, verb = words_of(column), subject.ref(column, qualified), None
    if column.kind in ("date", "time"):
        verb = verb_of_date(column.name)
    if rng.random() < 0.65:
        more = (
            f"|not {verb} yet|not yet {verb}|that haven't been {verb}|still not {verb}|that have not been {verb}"
            if verb
            else ""
        )
        return Condition(
            f"{ref} IS NULL",
            column,
            f"[without [a|an|any|] {name}|with no {name}|that have no {name}|with [a|] missing {name}|where the {name} is missing{more}]",
        )
    more = f"|already {verb}|that have been {verb}" if verb else ""
    return Condition(
        f"{ref} IS NOT NULL",
        column,
        f"[with a [known|recorded|] {name}|that have [a|an] {name}|where the {name} is known{more}]",
    )


def _spoken(value: Value) -> str:
    if isinstance(value, str):
        return f"[{value}|{value}|{value}|{value}|'{value}'|\"{value}\"]"
    return str(value)


def _spoken_adjective(value: str) -> str:
    if "_" in value:
        spaced = value.replace("_", " ")
        return f"[{value}|{spaced}|{spaced}|{spaced.replace(' ', '-')}]"
    return (
        f"[{value}|{value}|{value.lower()}|'{value}']"
        if value != value.lower()
        else f"[{value}|{value}|{value}|'{value}']"
    )


def _spoken_noun(value: str) -> str:
    """A value that names its rows: species `dog` gives `dogs`, status `no_show` gives `no-shows`."""
    plain = (
        value.replace("_", " ")
        if value == value.lower() or "_" in value
        else value.lower()
        if " " not in value
        else value
    )
    return (
        f"[{plural(plain)}|{plural(plain)}|{plural(plain.replace(' ', '-'))}]"
        if " " in plain and "_" in value
        else plural(plain)
    )


_KIND_WORDS = frozenset("species type kind category class genre role job position profession breed form model".split())


def _round(value: int | float | Decimal, rng: random.Random) -> int | float | Decimal:
    """A threshold as a person would choose it: mostly round, sometimes the very value."""
    whole = int(value)
    if abs(whole) < 10 or rng.random() < 0.3:
        return value if isinstance(value, int) or rng.random() < 0.5 else (whole or 1)
    step: int = 10 ** max(0, len(str(abs(whole))) - rng.choice((1, 2)))
    return whole // step * step or whole
